//! `/trades`: this node's trades and their settlement.

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};

use super::extract::Id;
use super::types::Trade;
use super::{ApiError, ApiState, Listed, Page, Query};

pub(super) fn routes() -> Router<ApiState> {
    Router::new()
        .route("/trades", get(list))
        .route("/trades/stuck", get(stuck))
        .route("/trades/{id}", get(show))
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
