//! `/wallet`: balance, coins, history, payments, receiving address, faucet of a development
//! network.

use axum::extract::{DefaultBodyLimit, State};
use axum::routing::{get, post};
use axum::{Json, Router};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::extract::{Body, Id};
use super::types::{
    Address, Balance, BumpPayment, Coin, Descriptors, FundWallet, Funded, Payment, PsbtText,
    Rescan, RescanWallet, SendCoins, SignedPsbt, WaitingPsbt, WalletTx,
};
use super::{ApiError, ApiState, Query, ShellCommand};
use crate::wallet::PSBT_MAX_BYTES;
use capex_core::reason;

/// A transaction in base64 that comes back from its signer.
const PSBT_BODY_MAX_BYTES: usize = PSBT_MAX_BYTES.div_ceil(3) * 4 + super::BODY_MAX_BYTES;

pub(super) fn routes() -> Router<ApiState> {
    let psbt_limit = DefaultBodyLimit::max(PSBT_BODY_MAX_BYTES);
    Router::new()
        .route("/wallet", get(balance))
        .route("/wallet/coins", get(coins))
        .route("/wallet/history", get(history))
        .route("/wallet/descriptors", get(descriptors))
        .route("/wallet/address", post(address))
        .route("/wallet/send", post(send))
        .route("/wallet/bump", post(bump))
        .route("/wallet/psbts", get(psbts).post(take_psbt).layer(psbt_limit))
        .route("/wallet/psbts/{id}", get(psbt).delete(drop_psbt))
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

async fn psbts(State(state): State<ApiState>) -> Result<Json<Vec<WaitingPsbt>>, ApiError> {
    Ok(Json(state.node.query(Query::Psbts).await?))
}

async fn psbt(State(state): State<ApiState>, Id(id): Id) -> Result<Json<PsbtText>, ApiError> {
    Ok(Json(state.node.shell(ShellCommand::ExportPsbt(id)).await?))
}

async fn drop_psbt(
    State(state): State<ApiState>,
    Id(id): Id,
) -> Result<Json<Vec<WaitingPsbt>>, ApiError> {
    Ok(Json(state.node.shell(ShellCommand::DropPsbt(id)).await?))
}

async fn take_psbt(
    State(state): State<ApiState>,
    Body(body): Body<PsbtText>,
) -> Result<Json<SignedPsbt>, ApiError> {
    let bytes = BASE64.decode(body.psbt.trim());
    let bytes = bytes.ok().filter(|bytes| bytes.len() <= PSBT_MAX_BYTES).ok_or_else(|| {
        let message = format!("expected base64 of at most {PSBT_MAX_BYTES} bytes");
        ApiError::new(reason!("wallet.psbt_malformed"), message)
    })?;
    Ok(Json(state.node.shell(ShellCommand::TakePsbt(bytes)).await?))
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
