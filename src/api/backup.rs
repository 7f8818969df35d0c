//! `/backup`: what a backup keeps of the store, for `capex backup create` beside a running daemon.

use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;

use super::{ApiError, ApiState, BackupRecords, Query};

pub(super) fn routes() -> Router<ApiState> {
    Router::new().route("/backup", get(records))
}

async fn records(State(state): State<ApiState>) -> Result<impl IntoResponse, ApiError> {
    let BackupRecords(text) = state.node.query(Query::BackupRecords).await?;
    Ok(([(CONTENT_TYPE, "application/jsonl")], text))
}
