//! `/maintenance`: when this host will not deliver.

use axum::extract::{FromRequestParts, Path, State};
use axum::http::request::Parts;
use axum::routing::{delete, get};
use axum::{Json, Router};

use super::extract::{Body, segments};
use super::types::{Acknowledged, AnnounceMaintenance, Maintenance, Status};
use super::{ApiError, ApiState, Query};
use capex_core::engine::io::Done;
use capex_core::engine::leases::LeaseCommand;
use capex_core::lease;

/// The `{number}` of a path.
struct Number(u32);

impl<S: Send + Sync> FromRequestParts<S> for Number {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path(number) = segments::<u32, S>(parts, state).await?;
        Ok(Self(number))
    }
}

pub(super) fn routes() -> Router<ApiState> {
    Router::new()
        .route("/maintenance", get(list).post(announce))
        .route("/maintenance/{number}", delete(call_off))
}

async fn list(State(state): State<ApiState>) -> Result<Json<Vec<Maintenance>>, ApiError> {
    let status: Status = state.node.query(Query::Status).await?;
    Ok(Json(status.maintenance))
}

async fn announce(
    State(state): State<ApiState>,
    Body(body): Body<AnnounceMaintenance>,
) -> Result<Json<Maintenance>, ApiError> {
    let AnnounceMaintenance { starts_at, ends_at, why } = body;
    let new = lease::Maintenance { from_ms: starts_at, to_ms: ends_at, why: why.clone() };
    match state.node.command(LeaseCommand::Announce(new)).await? {
        Done::Announced { number } => Ok(Json(Maintenance { number, starts_at, ends_at, why })),
        _ => Err(ApiError::internal("expected Announced")),
    }
}

async fn call_off(
    State(state): State<ApiState>,
    Number(number): Number,
) -> Result<Json<Acknowledged>, ApiError> {
    state.node.command(LeaseCommand::CallOff(number)).await?;
    Ok(Json(Acknowledged { ok: true }))
}
