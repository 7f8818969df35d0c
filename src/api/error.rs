//! Refusals as HTTP: `{"error":{"code","message","hint"}}` with a fitting status.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use capex_core::engine::io::Refusal;
use capex_core::reason;
use capex_core::reasons::Reason;

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

/// Kinds of things that are found by the first digits of their id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noun {
    /// A standing order, or one of an epoch.
    Order,
    /// A row of this node.
    Trade,
    /// A certificate held or issued.
    Certificate,
    /// A lease held or hosted.
    Lease,
}

impl Noun {
    fn name(self) -> &'static str {
        match self {
            Self::Order => "order",
            Self::Trade => "trade",
            Self::Certificate => "certificate",
            Self::Lease => "lease",
        }
    }

    fn not_found(self) -> Reason {
        match self {
            Self::Order => reason!("order.not_found"),
            Self::Trade => reason!("trade.not_found"),
            Self::Certificate => reason!("certificate.not_found"),
            Self::Lease => reason!("lease.not_found"),
        }
    }

    fn ambiguous(self) -> Reason {
        match self {
            Self::Order => reason!("order.ambiguous"),
            Self::Trade => reason!("trade.ambiguous"),
            Self::Certificate => reason!("certificate.ambiguous"),
            Self::Lease => reason!("lease.ambiguous"),
        }
    }
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
    pub fn not_found(noun: Noun, id: &str) -> Self {
        let message = format!("no {} has an id that begins with {id}", noun.name());
        Self::new(404, noun.not_found().code(), message)
            .with_hint(noun.not_found().hint().unwrap_or_default())
    }

    /// 409, as in `order.ambiguous`.
    #[must_use]
    pub fn ambiguous(noun: Noun, id: &str) -> Self {
        let message = format!("more than one {} has an id that begins with {id}", noun.name());
        Self::new(409, noun.ambiguous().code(), message)
            .with_hint(noun.ambiguous().hint().unwrap_or_default())
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
