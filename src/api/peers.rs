//! `/peers`: who is connected, and whom to stay connected to.

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};

use super::extract::Body;
use super::types::{Acknowledged, AddPeer, Peer};
use super::{ApiError, ApiState, Query, ShellCommand};
use capex_core::engine::io::Done;
use capex_network::check_address;

pub(super) fn routes() -> Router<ApiState> {
    Router::new().route("/peers", get(list).post(add))
}

async fn list(State(state): State<ApiState>) -> Result<Json<Vec<Peer>>, ApiError> {
    Ok(Json(state.node.query(Query::Peers).await?))
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
