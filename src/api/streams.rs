//! `/leases/{id}/streams`, `/leases/{id}/grants`: into a running lease, for this node and for others.

use axum::body::Body as Bytes;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::Response;
use axum::routing::post;
use axum::{Json, Router};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{DuplexStream, copy_bidirectional, duplex};

use super::extract::{Body, Id};
use super::types::{AccessGrant, GrantAccess, Lease, OpenStream};
use super::{ApiError, ApiState, Prefix, Query, ShellCommand};
use capex_core::engine::io::Done;
use capex_core::engine::leases::{LeaseCommand, Wanted};
use capex_core::ids::{Key, LeaseId, from_hex, to_hex};
use capex_core::lease::access::{AccessVerb, Grant};
use capex_core::reason;
use capex_core::wire::{Envelope, decode_record, encode};

/// What an answered request becomes.
pub(crate) const UPGRADE: &str = "capex-stream";
/// What is on its way between a client and the node, bytes each way.
const BUFFER_BYTES: usize = 64 << 10;
/// First characters of a grant.
const GRANT_PREFIX: &str = "capex-grant-";

pub(super) fn routes() -> Router<ApiState> {
    Router::new()
        .route("/leases/{id}/streams", post(open))
        .route("/leases/{id}/grants", post(grant))
}

/// A connection that may become a stream.
struct Upgrade(OnUpgrade);

impl<S: Send + Sync> FromRequestParts<S> for Upgrade {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let wants = parts.headers.get(header::UPGRADE).is_some_and(|name| name == UPGRADE);
        let upgrade = parts.extensions.remove::<OnUpgrade>().filter(|_| wants);
        upgrade.map(Self).ok_or_else(|| {
            let message = format!("a stream needs `Connection: upgrade` and `Upgrade: {UPGRADE}`");
            ApiError::new(reason!("api.upgrade"), message)
        })
    }
}

async fn open(
    State(state): State<ApiState>,
    Id(id): Id,
    upgrade: Upgrade,
    Body(body): Body<OpenStream>,
) -> Result<Response, ApiError> {
    let grant = body.grant.as_deref().map(read_grant).transpose()?;
    let lease = match &grant {
        Some(grant) => granted(grant, &id)?,
        None => own(&state, id).await?,
    };
    let mut session16 = [0; 16];
    getrandom::fill(&mut session16).map_err(|_| ApiError::internal("random bytes"))?;
    let what = body.open.into();
    let wanted = Box::new(Wanted { lease, what, session16, received: 0, grant });
    let (local, ours) = duplex(BUFFER_BYTES);
    let _: Done = state.node.shell(ShellCommand::OpenStream { wanted, local }).await?;
    tokio::spawn(carry(upgrade.0, ours));
    let response = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::UPGRADE, UPGRADE)
        .header(header::CONNECTION, "upgrade")
        .body(Bytes::empty());
    response.map_err(|_| ApiError::internal("a response"))
}

async fn carry(upgrade: OnUpgrade, mut node: DuplexStream) {
    // A client that is gone, or a session that has ended, ends both.
    if let Ok(client) = upgrade.await {
        let _ = copy_bidirectional(&mut TokioIo::new(client), &mut node).await;
    }
}

async fn own(state: &ApiState, id: Prefix) -> Result<LeaseId, ApiError> {
    let lease: Lease = state.node.query(Query::Lease(id)).await?;
    lease.lease_id.parse().map_err(|_| ApiError::internal("lease id"))
}

/// The lease that a grant is for, if it is the one that is meant.
fn granted(grant: &Envelope, id: &Prefix) -> Result<LeaseId, ApiError> {
    let lease = grant.peek::<Grant>().map_err(|_| bad_grant())?.lease;
    if id.matches(&lease.0) { Ok(lease) } else { Err(bad_grant()) }
}

fn read_grant(text: &str) -> Result<Envelope, ApiError> {
    let hex = text.trim().strip_prefix(GRANT_PREFIX).ok_or_else(bad_grant)?;
    let bytes = from_hex(hex).ok_or_else(bad_grant)?;
    decode_record(&bytes).map_err(|_| bad_grant())
}

/// Last second for which a grant is good, unix s, if it is one.
pub(crate) fn grant_ends_s(text: &str) -> Option<u64> {
    let grant = read_grant(text).ok()?.peek::<Grant>().ok()?;
    Some(grant.not_after_s)
}

fn bad_grant() -> ApiError {
    ApiError::new(reason!("access.bad_grant"), "this is no grant for this lease")
}

async fn grant(
    State(state): State<ApiState>,
    Id(id): Id,
    Body(body): Body<GrantAccess>,
) -> Result<Json<AccessGrant>, ApiError> {
    let bad = |what: String| ApiError::new(reason!("access.bad_request"), what);
    let to: Key = body.to.parse().map_err(|_| bad(format!("{:?} is no key", body.to)))?;
    let verb = |name: &String| {
        let found = AccessVerb::ALL.into_iter().find(|verb| verb.name() == name);
        found.ok_or_else(|| bad(format!("{name:?} is no verb")))
    };
    let verbs = body.verbs.iter().map(verb).collect::<Result<Vec<_>, _>>()?;
    let lease = own(&state, id).await?;
    let command = LeaseCommand::Grant { lease, to, verbs, life_s: body.for_s };
    match state.node.command(command).await? {
        Done::Granted { grant, not_after_s } => Ok(Json(AccessGrant {
            grant: format!("{GRANT_PREFIX}{}", to_hex(&encode(&*grant))),
            expires_at: not_after_s.saturating_mul(1000),
        })),
        _ => Err(ApiError::internal("a grant")),
    }
}
