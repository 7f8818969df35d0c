//! `/wallet`: balance, receiving address, faucet of a development network.

use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};

use super::extract::Body;
use super::types::{Address, Balance, FundWallet, Funded};
use super::{ApiError, ApiState, Query, ShellCommand};

pub(super) fn routes() -> Router<ApiState> {
    Router::new()
        .route("/wallet", get(balance))
        .route("/wallet/address", post(address))
        .route("/wallet/fund", post(fund))
}

async fn balance(State(state): State<ApiState>) -> Result<Json<Balance>, ApiError> {
    Ok(Json(state.node.query(Query::Balance).await?))
}

async fn address(State(state): State<ApiState>) -> Result<Json<Address>, ApiError> {
    Ok(Json(state.node.shell(ShellCommand::WalletAddress).await?))
}

async fn fund(
    State(state): State<ApiState>,
    Body(body): Body<FundWallet>,
) -> Result<Json<Funded>, ApiError> {
    let command = ShellCommand::WalletFund { amount_sat: body.amount_sat };
    Ok(Json(state.node.shell(command).await?))
}
