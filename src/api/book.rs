//! `/book` and `/depth`: the orders of the open epoch, and how much stands at which price.

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;

use super::extract::Params;
use super::orders::class_id;
use super::types::{Book, Depth};
use super::{ApiError, ApiState, Query};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    class: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Classes {
    class: Option<String>,
}

pub(super) fn routes() -> Router<ApiState> {
    Router::new().route("/book", get(show)).route("/depth", get(depth))
}

async fn show(
    State(state): State<ApiState>,
    Params(which): Params<Which>,
) -> Result<Json<Book>, ApiError> {
    class_id(&which.class, &state.params)?;
    Ok(Json(state.node.query(Query::Book(which.class)).await?))
}

async fn depth(
    State(state): State<ApiState>,
    Params(which): Params<Classes>,
) -> Result<Json<Depth>, ApiError> {
    if let Some(class) = &which.class {
        class_id(class, &state.params)?;
    }
    Ok(Json(state.node.query(Query::Depth(which.class)).await?))
}
