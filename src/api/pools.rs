//! `/pools`: several who pay for one certificate together.

use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};

use super::extract::{Body, Id};
use super::orders::{class_id, features, key, keys};
use super::types::{Acknowledged, CreatePool, JoinPool, Pool};
use super::{ApiError, ApiState, Prefix, Query};
use capex_core::engine::io::Done;
use capex_core::engine::pools::{self, PoolCommand, read_invitation};
use capex_core::ids::Key;
use capex_core::settlement::fees::FeeLimit;
use capex_core::units::Window;
use capex_core::wire::VERSION;

pub(super) fn routes() -> Router<ApiState> {
    Router::new()
        .route("/pools", get(list).post(create))
        .route("/pools/join", post(join))
        .route("/pools/{id}", get(show).delete(leave))
}

async fn list(State(state): State<ApiState>) -> Result<Json<Vec<Pool>>, ApiError> {
    Ok(Json(state.node.query(Query::Pools).await?))
}

async fn show(State(state): State<ApiState>, Id(id): Id) -> Result<Json<Pool>, ApiError> {
    Ok(Json(state.node.query(Query::Pool(id)).await?))
}

async fn create(
    State(state): State<ApiState>,
    Body(body): Body<CreatePool>,
) -> Result<Json<Pool>, ApiError> {
    let mut invited = keys("invited", &body.invited)?;
    invited.sort();
    invited.dedup();
    let pool = pools::Pool {
        v: VERSION,
        // The node fills in who creates it, and a nonce.
        creator: Key::default(),
        to: key("holder", &body.holder)?,
        class: class_id(&body.class, &state.params)?,
        features: features(&body.features, &state.params)?,
        qty: body.qty,
        window: Window { start: body.window[0], end: body.window[1] },
        slots: body.slots,
        limit_msat: body.limit_msat,
        until_ms: body.expires_at,
        invited,
        all_or_nothing: body.all_or_nothing,
        nonce16: [0; 16],
    };
    let (pool, fees) = (Box::new(pool), fees(&state, body.max_fee_sat));
    asked(&state, PoolCommand::Create { pool, share_sat: body.share_sat, fees }).await
}

async fn join(
    State(state): State<ApiState>,
    Body(body): Body<JoinPool>,
) -> Result<Json<Pool>, ApiError> {
    let pool = read_invitation(&body.invitation, &state.params)
        .map_err(|error| ApiError::new(error.reason(), error.to_string()))?;
    let (pool, fees) = (Box::new(pool), fees(&state, body.max_fee_sat));
    asked(&state, PoolCommand::Join { pool, share_sat: body.share_sat, fees }).await
}

async fn leave(State(state): State<ApiState>, Id(id): Id) -> Result<Json<Acknowledged>, ApiError> {
    let pool: Pool = state.node.query(Query::Pool(id)).await?;
    let id = pool.pool_id.parse().map_err(|_| ApiError::internal("pool id"))?;
    state.node.command(PoolCommand::Leave(id)).await?;
    Ok(Json(Acknowledged { ok: true }))
}

async fn asked(state: &ApiState, command: PoolCommand) -> Result<Json<Pool>, ApiError> {
    match state.node.command(command).await? {
        Done::Pool(id) => {
            Ok(Json(state.node.query(Query::Pool(Prefix::parse(&id.to_string())?)).await?))
        }
        _ => Err(ApiError::internal("expected Pool")),
    }
}

fn fees(state: &ApiState, cap_sat: Option<u64>) -> FeeLimit {
    FeeLimit { share_percent: state.max_fee_percent, cap_sat }
}
