//! `/peers`: who is connected, and whom to stay connected to.

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};

use super::extract::Body;
use super::types::{Acknowledged, AddPeer, Peer};
use super::{ApiError, ApiState, Query, ShellCommand};
use crate::node::config::check_multiaddr;
use capex_core::engine::io::Done;
use capex_core::reason;

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
    check_multiaddr(&body.address, true)
        .map_err(|what| ApiError::new(reason!("network.bad_address"), what))?;
    let _: Done = state.node.shell(ShellCommand::AddPeer(body.address)).await?;
    Ok(Json(Acknowledged { ok: true }))
}
