//! `/status` and `/shutdown`.

use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};

use super::types::{Acknowledged, Status};
use super::{ApiError, ApiState, Query, ShellCommand};
use capex_core::engine::io::Done;

pub(super) fn routes() -> Router<ApiState> {
    Router::new().route("/status", get(status)).route("/shutdown", post(shutdown))
}

async fn status(State(state): State<ApiState>) -> Result<Json<Status>, ApiError> {
    Ok(Json(state.node.query(Query::Status).await?))
}

async fn shutdown(State(state): State<ApiState>) -> Result<Json<Acknowledged>, ApiError> {
    let _: Done = state.node.shell(ShellCommand::Shutdown).await?;
    Ok(Json(Acknowledged { ok: true }))
}
