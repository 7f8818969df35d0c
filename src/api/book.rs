//! `/book`: the orders of the open epoch, one class at a time.

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;

use super::extract::Params;
use super::orders::class_id;
use super::types::Book;
use super::{ApiError, ApiState, Query};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    class: String,
}

pub(super) fn routes() -> Router<ApiState> {
    Router::new().route("/book", get(show))
}

async fn show(
    State(state): State<ApiState>,
    Params(which): Params<Which>,
) -> Result<Json<Book>, ApiError> {
    class_id(&which.class, &state.params)?;
    Ok(Json(state.node.query(Query::Book(which.class)).await?))
}
