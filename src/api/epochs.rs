//! `/epochs`: results, their roots, and the input to compute them again.

use axum::extract::{FromRequestParts, Path, State};
use axum::http::header;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};

use super::extract::segments;
use super::types::{Epoch, EpochCheck, EpochHead};
use super::{ApiError, ApiState, EpochFile, EpochInput, Listed, Page, Query};

/// The `{n}` of a path.
struct Number(u64);

impl<S: Send + Sync> FromRequestParts<S> for Number {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path(number) = segments::<u64, S>(parts, state).await?;
        Ok(Self(number))
    }
}

pub(super) fn routes() -> Router<ApiState> {
    Router::new()
        .route("/epochs", get(list))
        .route("/epochs/last", get(last))
        .route("/epochs/{n}", get(show))
        .route("/epochs/{n}/verify", get(verify))
        .route("/epochs/{n}/export", get(export))
        .route("/epochs/{n}/signed", get(signed))
}

async fn list(State(state): State<ApiState>, page: Page) -> Result<Listed<EpochHead>, ApiError> {
    state.node.query(Query::Epochs(page)).await
}

async fn last(State(state): State<ApiState>) -> Result<Json<Epoch>, ApiError> {
    Ok(Json(state.node.query(Query::Epoch(None)).await?))
}

async fn show(
    State(state): State<ApiState>,
    Number(number): Number,
) -> Result<Json<Epoch>, ApiError> {
    Ok(Json(state.node.query(Query::Epoch(Some(number))).await?))
}

async fn verify(
    State(state): State<ApiState>,
    Number(number): Number,
) -> Result<Json<EpochCheck>, ApiError> {
    Ok(Json(state.node.query(Query::EpochCheck(number)).await?))
}

async fn export(
    State(state): State<ApiState>,
    Number(number): Number,
) -> Result<Response, ApiError> {
    let EpochInput(text) = state.node.query(Query::EpochExport(number)).await?;
    Ok(([(header::CONTENT_TYPE, "application/json")], text).into_response())
}

async fn signed(
    State(state): State<ApiState>,
    Number(number): Number,
) -> Result<Response, ApiError> {
    let EpochFile(text) = state.node.query(Query::EpochSigned(number)).await?;
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response())
}
