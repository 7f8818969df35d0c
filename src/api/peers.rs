//! `/peers`: who is connected, and whom to stay connected to.

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get};
use axum::{Json, Router};

use super::extract::{Body, Id};
use super::types::{Acknowledged, AddPeer, Peer};
use super::{ApiError, ApiState, FileText, Query, ShellCommand};
use capex_core::engine::io::Done;
use capex_core::engine::market::MarketCommand;
use capex_network::check_address;

pub(super) fn routes() -> Router<ApiState> {
    Router::new()
        .route("/peers", get(list).post(add))
        .route("/peers/{key}", get(show))
        .route("/peers/{key}/receipts", get(receipts))
        .route("/peers/{key}/misses", delete(forgive))
}

async fn list(State(state): State<ApiState>) -> Result<Json<Vec<Peer>>, ApiError> {
    Ok(Json(state.node.query(Query::Peers).await?))
}

async fn show(State(state): State<ApiState>, Id(key): Id) -> Result<Json<Peer>, ApiError> {
    Ok(Json(state.node.query(Query::Peer(key)).await?))
}

async fn receipts(State(state): State<ApiState>, Id(key): Id) -> Result<Response, ApiError> {
    let FileText(text) = state.node.query(Query::PeerReceipts(key)).await?;
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response())
}

async fn forgive(
    State(state): State<ApiState>,
    Id(key): Id,
) -> Result<Json<Acknowledged>, ApiError> {
    let peer: Peer = state.node.query(Query::Peer(key)).await?;
    let key = peer.key.parse().map_err(|_| ApiError::internal("peer key"))?;
    state.node.command(MarketCommand::Forgive(key)).await?;
    Ok(Json(Acknowledged { ok: true }))
}

async fn add(
    State(state): State<ApiState>,
    Body(body): Body<AddPeer>,
) -> Result<Json<Acknowledged>, ApiError> {
    check_address(&body.address, true)
        .map_err(|error| ApiError::coded(error.code(), error.to_string()))?;
    let _: Done = state.node.shell(ShellCommand::AddPeer(body.address)).await?;
    Ok(Json(Acknowledged { ok: true }))
}
