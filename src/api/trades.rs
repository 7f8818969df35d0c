//! `/trades`: this node's trades and their settlement.

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};

use super::extract::Id;
use super::types::Trade;
use super::{ApiError, ApiState, FileText, Listed, Page, Query};

pub(super) fn routes() -> Router<ApiState> {
    Router::new()
        .route("/trades", get(list))
        .route("/trades/stuck", get(stuck))
        .route("/trades/{id}", get(show))
        .route("/trades/{id}/proof", get(proof))
}

async fn list(State(state): State<ApiState>, page: Page) -> Result<Listed<Trade>, ApiError> {
    state.node.query(Query::Trades(page)).await
}

async fn stuck(State(state): State<ApiState>) -> Result<Json<Vec<Trade>>, ApiError> {
    Ok(Json(state.node.query(Query::StuckTrades).await?))
}

async fn show(State(state): State<ApiState>, Id(id): Id) -> Result<Json<Trade>, ApiError> {
    Ok(Json(state.node.query(Query::Trade(id)).await?))
}

async fn proof(State(state): State<ApiState>, Id(id): Id) -> Result<Response, ApiError> {
    let FileText(text) = state.node.query(Query::TradeProof(id)).await?;
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response())
}
