//! Refusals as HTTP: `{"error":{"code","message","hint"}}` with a fitting status.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use capex_core::engine::io::Refusal;

/// A refusal of the API.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct ApiError {
    /// Stable dotted code.
    pub code: String,
    /// One line for people.
    pub message: String,
    /// What to do, if it is not in the message.
    pub hint: Option<String>,
    /// HTTP status.
    pub status: u16,
}

/// The body of an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// Always the one field.
    pub error: ErrorFields,
}

/// The fields of an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorFields {
    /// Stable dotted code.
    pub code: String,
    /// One line for people.
    pub message: String,
    /// What to do.
    #[serde(default)]
    pub hint: Option<String>,
}

impl ApiError {
    /// An error with a status.
    #[must_use]
    pub fn new(status: u16, code: &str, message: impl Into<String>) -> Self {
        Self { code: code.to_owned(), message: message.into(), hint: None, status }
    }

    /// The same with what to do.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// 400: the request itself is wrong.
    #[must_use]
    pub fn bad_request(code: &str, message: impl Into<String>) -> Self {
        Self::new(400, code, message)
    }

    /// 404, as in `order.not_found`.
    #[must_use]
    pub fn not_found(noun: &str, id: &str) -> Self {
        let message = format!("no {noun} has an id that begins with {id}");
        Self::new(404, &format!("{noun}.not_found"), message)
            .with_hint(format!("`capex {} list` shows the known ones", short(noun)))
    }

    /// 409, as in `order.ambiguous`.
    #[must_use]
    pub fn ambiguous(noun: &str, id: &str) -> Self {
        let message = format!("more than one {noun} has an id that begins with {id}");
        Self::new(409, &format!("{noun}.ambiguous"), message).with_hint("give more digits")
    }

    /// 503: the daemon is starting, stopping or has too much to do.
    #[must_use]
    pub fn unavailable(code: &str, message: impl Into<String>) -> Self {
        Self::new(503, code, message).with_hint("try again in a moment")
    }

    /// 500: a fault of this program.
    #[must_use]
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(500, "api.internal", message)
    }

    /// The body that is sent.
    #[must_use]
    pub fn body(&self) -> ErrorBody {
        ErrorBody {
            error: ErrorFields {
                code: self.code.clone(),
                message: self.message.clone(),
                hint: self.hint.clone(),
            },
        }
    }
}

fn short(noun: &str) -> &str {
    if noun == "certificate" { "cert" } else { noun }
}

impl From<Refusal> for ApiError {
    /// Refusals of the engine are conflicts with the rules or the state, unless their code
    /// says that a thing does not exist.
    fn from(refusal: Refusal) -> Self {
        let missing = refusal.code.ends_with(".unknown") || refusal.code.ends_with(".not_found");
        Self::new(if missing { 404 } else { 409 }, &refusal.code, refusal.message)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(self.body())).into_response()
    }
}
