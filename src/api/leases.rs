//! `/leases`: what runs, what it printed, what it left.

use axum::extract::{DefaultBodyLimit, FromRequestParts, Path, State};
use axum::http::request::Parts;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;

use super::certificates::{self, UPLOAD_MAX_BYTES, redeem_call};
use super::extract::{Body, Id, Params, segments};
use super::types::{Acknowledged, ExtendBody, Lease, Part, RedeemBody, Stream};
use super::{ApiError, ApiState, Listed, Page, Prefix, Query, ShellCommand, Target};
use capex_core::engine::io::Done;
use capex_core::engine::leases::LeaseCommand;
use capex_core::ids::LeaseId;
use capex_core::reason;

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
    let upload = post(replace).layer(DefaultBodyLimit::max(UPLOAD_MAX_BYTES));
    Router::new()
        .route("/leases", get(list))
        .route("/leases/{id}", get(show).delete(stop))
        .route("/leases/{id}/restart", post(restart))
        .route("/leases/{id}/extend", post(extend))
        .route("/leases/{id}/replace", upload)
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

async fn restart(
    State(state): State<ApiState>,
    Id(id): Id,
) -> Result<Json<Acknowledged>, ApiError> {
    let lease = whole_id(&state, id).await?;
    let _: Done = state.node.command(LeaseCommand::Restart(lease)).await?;
    Ok(Json(Acknowledged { ok: true }))
}

async fn extend(
    State(state): State<ApiState>,
    Id(id): Id,
    Body(body): Body<ExtendBody>,
) -> Result<Json<Acknowledged>, ApiError> {
    let lease = whole_id(&state, id).await?;
    let cert = certificates::whole_id(&state, Prefix::parse(&body.cert_id)?).await?;
    let _: Done = state.node.command(LeaseCommand::Extend { lease, cert }).await?;
    Ok(Json(Acknowledged { ok: true }))
}

async fn replace(
    State(state): State<ApiState>,
    Id(id): Id,
    Body(body): Body<RedeemBody>,
) -> Result<Json<Acknowledged>, ApiError> {
    let Ok(_upload) = state.uploads.try_acquire() else {
        return Err(ApiError::new(reason!("api.busy"), "other uploads are in progress"));
    };
    let lease = whole_id(&state, id).await?;
    let call = redeem_call(Target::Lease(lease), body)?;
    let _: Done = state.node.shell(ShellCommand::Redeem(Box::new(call))).await?;
    Ok(Json(Acknowledged { ok: true }))
}

async fn whole_id(state: &ApiState, id: Prefix) -> Result<LeaseId, ApiError> {
    let lease: Lease = state.node.query(Query::Lease(id)).await?;
    lease.lease_id.parse().map_err(|_| ApiError::internal("lease id"))
}

async fn stop(State(state): State<ApiState>, Id(id): Id) -> Result<Json<Acknowledged>, ApiError> {
    let lease = whole_id(&state, id).await?;
    let _: Done = state.node.command(LeaseCommand::Stop(lease)).await?;
    Ok(Json(Acknowledged { ok: true }))
}
