//! Reading requests and writing answers in the API's own forms.

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::{HeaderName, HeaderValue, StatusCode, header, request::Parts};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;

use super::BODY_TIME;
use super::error::ApiError;
use super::prefix::Prefix;
use super::types::Part;
use capex_core::reason;

/// Header of a [`Part`]: `true` if nothing will follow.
pub const END_HEADER: HeaderName = HeaderName::from_static("capex-end");

/// A JSON body; unknown fields and wrong types are refused with their place.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let read = tokio::time::timeout(BODY_TIME, Bytes::from_request(request, state)).await;
        let read = read.map_err(|_| {
            ApiError::new(reason!("api.body_timeout"), "the body did not come in time")
        })?;
        let bytes = read.map_err(|rejection| match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => {
                ApiError::new(reason!("api.body_too_large"), "the body is too large")
            }
            _ => ApiError::new(reason!("api.body"), "the body could not be read"),
        })?;
        serde_json::from_slice(&bytes)
            .map(Self)
            .map_err(|error| ApiError::new(reason!("api.body"), error.to_string()))
    }
}

/// The `{id}` of a path.
pub(super) struct Id(pub(super) Prefix);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path(text) = segments::<String, S>(parts, state).await?;
        Prefix::parse(&text).map(Self)
    }
}

/// Segments of a path, in order.
pub(super) async fn segments<T, S>(parts: &mut Parts, state: &S) -> Result<Path<T>, ApiError>
where
    T: DeserializeOwned + Send,
    S: Send + Sync,
{
    Path::from_request_parts(parts, state)
        .await
        .map_err(|rejection| ApiError::new(reason!("api.path"), rejection.body_text()))
}

/// Parameters after the `?`.
pub(super) struct Params<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Query(value) = Query::from_request_parts(parts, state)
            .await
            .map_err(|rejection| ApiError::new(reason!("api.query"), rejection.body_text()))?;
        Ok(Self(value))
    }
}

impl IntoResponse for Part {
    fn into_response(self) -> Response {
        let end = HeaderValue::from_static(if self.end { "true" } else { "false" });
        let kind = HeaderValue::from_static("application/octet-stream");
        let sniff = HeaderValue::from_static("nosniff");
        let headers = [
            (END_HEADER, end),
            (header::CONTENT_TYPE, kind),
            (header::X_CONTENT_TYPE_OPTIONS, sniff),
        ];
        (headers, self.bytes).into_response()
    }
}
