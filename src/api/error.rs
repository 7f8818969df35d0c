//! Refusals as HTTP: `{"error":{"code","message","hint"}}` with a fitting status.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use capex_core::engine::io::Refusal;
use capex_core::reason;
use capex_core::reasons::{Kind, Reason};

/// A refusal of the API.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct ApiError {
    pub code: String,
    pub message: String,
    /// What to do, if it is not in the message.
    pub hint: Option<String>,
    pub status: u16,
}

/// Kinds of things that are found by the first digits of their id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noun {
    /// A standing order, or one of an epoch.
    Order,
    Trade,
    /// A certificate held or issued.
    Certificate,
    Lease,
    Pool,
    /// A node that is connected, known, or remembered for its misses.
    Peer,
    /// A transaction that waits for a signature made elsewhere.
    Psbt,
}

impl Noun {
    fn name(self) -> &'static str {
        match self {
            Self::Order => "order",
            Self::Trade => "trade",
            Self::Certificate => "certificate",
            Self::Lease => "lease",
            Self::Pool => "pool",
            Self::Peer => "peer",
            Self::Psbt => "transaction that waits for a signature",
        }
    }

    fn not_found(self) -> Reason {
        match self {
            Self::Order => reason!("order.not_found"),
            Self::Trade => reason!("trade.not_found"),
            Self::Certificate => reason!("certificate.not_found"),
            Self::Lease => reason!("lease.not_found"),
            Self::Pool => reason!("pool.not_found"),
            Self::Peer => reason!("peer.not_found"),
            Self::Psbt => reason!("wallet.psbt_unknown"),
        }
    }

    fn ambiguous(self) -> Reason {
        match self {
            Self::Order => reason!("order.ambiguous"),
            Self::Trade => reason!("trade.ambiguous"),
            Self::Certificate => reason!("certificate.ambiguous"),
            Self::Lease => reason!("lease.ambiguous"),
            Self::Pool => reason!("pool.ambiguous"),
            Self::Peer => reason!("peer.ambiguous"),
            Self::Psbt => reason!("wallet.psbt_ambiguous"),
        }
    }
}

/// The body of an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    pub error: ErrorFields,
}

impl ErrorBody {
    /// A code, what happened, and what to do.
    #[must_use]
    pub fn new(code: impl Into<String>, message: String, hint: Option<String>) -> Self {
        Self { error: ErrorFields { code: code.into(), message, hint } }
    }
}

/// The fields of an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorFields {
    pub code: String,
    pub message: String,
    /// What to do.
    #[serde(default)]
    pub hint: Option<String>,
}

impl ApiError {
    /// An error whose status and hint are the reason's.
    #[must_use]
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            code: reason.code().to_owned(),
            message: message.into(),
            hint: reason.hint().map(str::to_owned),
            status: reason.status(),
        }
    }

    /// The same for a code of this program that is only known as a text; 500 if it is none.
    #[must_use]
    pub fn coded(code: &str, message: impl Into<String>) -> Self {
        let error = Self::new(Reason::find(code).unwrap_or(reason!("api.internal")), message);
        Self { code: code.to_owned(), ..error }
    }

    /// The same with what to do.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// As in `order.not_found`.
    #[must_use]
    pub fn not_found(noun: Noun, id: &str) -> Self {
        Self::new(noun.not_found(), format!("no {} has an id that begins with {id}", noun.name()))
    }

    /// As in `order.ambiguous`.
    #[must_use]
    pub fn ambiguous(noun: Noun, id: &str) -> Self {
        let message = format!("more than one {} has an id that begins with {id}", noun.name());
        Self::new(noun.ambiguous(), message)
    }

    /// A fault of this program.
    #[must_use]
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(reason!("api.internal"), message)
    }

    /// The body that is sent.
    #[must_use]
    pub fn body(&self) -> ErrorBody {
        ErrorBody::new(self.code.clone(), self.message.clone(), self.hint.clone())
    }
}

impl From<Refusal> for ApiError {
    /// A code that is not ours is the word of a peer that rejected something.
    fn from(Refusal { code, message }: Refusal) -> Self {
        match Reason::find(&code) {
            Some(reason) => Self::new(reason, message),
            None => Self { code, message, hint: None, status: Kind::Rejected.status() },
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(self.body())).into_response()
    }
}
