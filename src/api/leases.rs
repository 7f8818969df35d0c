//! `/leases`: what runs, what it printed, what it left.

use axum::extract::{FromRequestParts, Path, State};
use axum::http::request::Parts;
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;

use super::extract::{Id, Params, segments};
use super::types::{Acknowledged, Lease, Part, Stream};
use super::{ApiError, ApiState, Listed, Page, Prefix, Query};
use capex_core::engine::io::Done;
use capex_core::engine::leases::LeaseCommand;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LogsFrom {
    #[serde(default)]
    stream: Stream,
    #[serde(default)]
    from: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ResultFrom {
    #[serde(default)]
    from: u64,
}

/// The `{id}` and `{name}` of a path.
struct IdAndName(Prefix, String);

impl<S: Send + Sync> FromRequestParts<S> for IdAndName {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path((id, name)) = segments::<(String, String), S>(parts, state).await?;
        Ok(Self(Prefix::parse(&id)?, name))
    }
}

pub(super) fn routes() -> Router<ApiState> {
    Router::new()
        .route("/leases", get(list))
        .route("/leases/{id}", get(show).delete(stop))
        .route("/leases/{id}/logs", get(logs))
        .route("/leases/{id}/results/{name}", get(result))
}

async fn list(State(state): State<ApiState>, page: Page) -> Result<Listed<Lease>, ApiError> {
    state.node.query(Query::Leases(page)).await
}

async fn show(State(state): State<ApiState>, Id(id): Id) -> Result<Json<Lease>, ApiError> {
    Ok(Json(state.node.query(Query::Lease(id)).await?))
}

async fn logs(
    State(state): State<ApiState>,
    Id(lease): Id,
    Params(part): Params<LogsFrom>,
) -> Result<Part, ApiError> {
    state.node.query(Query::Logs { lease, stream: part.stream, from: part.from }).await
}

async fn result(
    State(state): State<ApiState>,
    IdAndName(lease, name): IdAndName,
    Params(part): Params<ResultFrom>,
) -> Result<Part, ApiError> {
    state.node.query(Query::Result { lease, name, from: part.from }).await
}

async fn stop(State(state): State<ApiState>, Id(id): Id) -> Result<Json<Acknowledged>, ApiError> {
    let lease: Lease = state.node.query(Query::Lease(id)).await?;
    let id = lease.lease_id.parse().map_err(|_| ApiError::internal("lease id"))?;
    let _: Done = state.node.command(LeaseCommand::Stop(id)).await?;
    Ok(Json(Acknowledged { ok: true }))
}
