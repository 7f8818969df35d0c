//! `/wallet`: balance, coins, history, payments, receiving address, faucet of a development
//! network.

use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};

use super::extract::Body;
use super::types::{
    Address, Balance, BumpPayment, Coin, Descriptors, FundWallet, Funded, Payment, Rescan,
    RescanWallet, SendCoins, WalletTx,
};
use super::{ApiError, ApiState, Query, ShellCommand};

pub(super) fn routes() -> Router<ApiState> {
    Router::new()
        .route("/wallet", get(balance))
        .route("/wallet/coins", get(coins))
        .route("/wallet/history", get(history))
        .route("/wallet/descriptors", get(descriptors))
        .route("/wallet/address", post(address))
        .route("/wallet/send", post(send))
        .route("/wallet/bump", post(bump))
        .route("/wallet/rescan", post(rescan))
        .route("/wallet/fund", post(fund))
}

async fn balance(State(state): State<ApiState>) -> Result<Json<Balance>, ApiError> {
    Ok(Json(state.node.query(Query::Balance).await?))
}

async fn coins(State(state): State<ApiState>) -> Result<Json<Vec<Coin>>, ApiError> {
    Ok(Json(state.node.query(Query::Coins).await?))
}

async fn history(State(state): State<ApiState>) -> Result<Json<Vec<WalletTx>>, ApiError> {
    Ok(Json(state.node.query(Query::WalletHistory).await?))
}

async fn descriptors(State(state): State<ApiState>) -> Result<Json<Descriptors>, ApiError> {
    Ok(Json(state.node.query(Query::Descriptors).await?))
}

async fn address(State(state): State<ApiState>) -> Result<Json<Address>, ApiError> {
    Ok(Json(state.node.shell(ShellCommand::WalletAddress).await?))
}

async fn send(
    State(state): State<ApiState>,
    Body(body): Body<SendCoins>,
) -> Result<Json<Payment>, ApiError> {
    Ok(Json(state.node.shell(ShellCommand::WalletSend(body)).await?))
}

async fn bump(
    State(state): State<ApiState>,
    Body(body): Body<BumpPayment>,
) -> Result<Json<Payment>, ApiError> {
    Ok(Json(state.node.shell(ShellCommand::WalletBump(body)).await?))
}

async fn rescan(
    State(state): State<ApiState>,
    Body(body): Body<RescanWallet>,
) -> Result<Json<Rescan>, ApiError> {
    Ok(Json(state.node.shell(ShellCommand::WalletRescan(body)).await?))
}

async fn fund(
    State(state): State<ApiState>,
    Body(body): Body<FundWallet>,
) -> Result<Json<Funded>, ApiError> {
    let command = ShellCommand::WalletFund { amount_sat: body.amount_sat };
    Ok(Json(state.node.shell(command).await?))
}
