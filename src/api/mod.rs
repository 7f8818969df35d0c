//! The HTTP API on loopback, one file per noun.
//!
//! | method and path under `/api/v1` | body | answer |
//! |---|---|---|
//! | `GET /status` | | [`types::Status`] |
//! | `POST /shutdown` | | [`types::Acknowledged`] |
//! | `GET /orders?before=&limit=`, `GET /orders/{id}` | | [`types::Order`] |
//! | `POST /orders` | [`types::PlaceOrder`] | [`types::Placed`] |
//! | `DELETE /orders/{id}` | | [`types::Acknowledged`] |
//! | `GET /orders/{id}/explain?epoch=` | | [`types::Explanation`] |
//! | `POST /orders/preview` | [`types::PlaceOrder`] | [`types::Preview`] |
//! | `POST /quote` | [`types::PlaceOrder`] | [`types::Quote`] |
//! | `GET /book?class=` | | [`types::Book`] |
//! | `GET /depth?class=` | | [`types::Depth`] |
//! | `GET /trades?before=&limit=`, `GET /trades/{id}` | | [`types::Trade`] |
//! | `GET /trades/stuck` | | [`types::Trade`] |
//! | `GET /trades/{id}/proof` | | text of the proof of a default |
//! | `GET /certificates?before=&limit=`, `GET /certificates/{id}` | | [`types::Certificate`] |
//! | `GET /certificates/{id}/file` | | text of the certificate file |
//! | `POST /certificates/{id}/gift` | [`types::GiftTo`] | [`types::Gifted`] |
//! | `POST /certificates/{id}/recall` | | [`types::Certificate`] |
//! | `POST /certificates/{id}/split` | [`types::SplitOff`] | [`types::SplitInto`] |
//! | `POST /certificates/merge` | [`types::MergeCertificates`] | [`types::Certificate`] |
//! | `POST /certificates/{id}/fetch` | [`types::FetchFrom`] | [`types::Certificate`] |
//! | `POST /certificates/import` | [`types::ImportCertificate`] | [`types::Certificate`] |
//! | `POST /certificates/{id}/pull` | [`types::PullImage`] | [`types::Pull`] |
//! | `POST /certificates/{id}/redeem` | [`types::RedeemBody`] | [`types::Redeemed`] |
//! | `GET /pools`, `GET /pools/{id}` | | [`types::Pool`] |
//! | `POST /pools` | [`types::CreatePool`] | [`types::Pool`] |
//! | `POST /pools/join` | [`types::JoinPool`] | [`types::Pool`] |
//! | `DELETE /pools/{id}` | | [`types::Acknowledged`] |
//! | `GET /leases?before=&limit=`, `GET /leases/{id}` | | [`types::Lease`] |
//! | `GET /leases/{id}/logs?stream=&from=` | | bytes, header `capex-end` |
//! | `GET /leases/{id}/results/{name}?from=` | | bytes, header `capex-end` |
//! | `DELETE /leases/{id}` | | [`types::Acknowledged`] |
//! | `POST /leases/{id}/streams` | [`types::OpenStream`] | 101 and a stream, with `Upgrade: capex-stream` |
//! | `POST /leases/{id}/grants` | [`types::GrantAccess`] | [`types::AccessGrant`] |
//! | `POST /leases/{id}/restart` | | [`types::Acknowledged`] |
//! | `POST /leases/{id}/extend` | [`types::ExtendBody`] | [`types::Acknowledged`] |
//! | `POST /leases/{id}/replace` | [`types::RedeemBody`] | [`types::Acknowledged`] |
//! | `GET /wallet` | | [`types::Balance`] |
//! | `GET /wallet/coins` | | [`types::Coin`] |
//! | `GET /wallet/history` | | [`types::WalletTx`] |
//! | `GET /wallet/descriptors` | | [`types::Descriptors`] |
//! | `POST /wallet/address` | | [`types::Address`] |
//! | `POST /wallet/send` | [`types::SendCoins`] | [`types::Payment`] |
//! | `POST /wallet/bump` | [`types::BumpPayment`] | [`types::Payment`] |
//! | `GET /wallet/psbts` | | [`types::WaitingPsbt`] |
//! | `GET /wallet/psbts/{id}` | | [`types::PsbtText`] |
//! | `DELETE /wallet/psbts/{id}` | | [`types::WaitingPsbt`], those that are left |
//! | `POST /wallet/psbts` | [`types::PsbtText`] | [`types::SignedPsbt`] |
//! | `POST /wallet/rescan` | [`types::RescanWallet`] | [`types::Rescan`] |
//! | `POST /wallet/fund` | [`types::FundWallet`] | [`types::Funded`] |
//! | `GET /maintenance` | | [`types::Maintenance`] |
//! | `POST /maintenance` | [`types::AnnounceMaintenance`] | [`types::Maintenance`] |
//! | `DELETE /maintenance/{number}` | | [`types::Acknowledged`] |
//! | `GET /peers` | | [`types::Peer`] |
//! | `GET /peers/{key}` | | [`types::Peer`] |
//! | `GET /peers/{key}/receipts` | | what `peer export` writes |
//! | `DELETE /peers/{key}/misses` | | [`types::Acknowledged`] |
//! | `POST /peers` | [`types::AddPeer`] | [`types::Acknowledged`] |
//! | `GET /epochs?before=&limit=` | | [`types::EpochHead`] |
//! | `GET /epochs/last`, `GET /epochs/{n}` | | [`types::Epoch`] |
//! | `GET /epochs/{n}/verify` | | [`types::EpochCheck`] |
//! | `GET /epochs/{n}/export` | | what `capex match` reads |
//! | `GET /epochs/{n}/signed` | | text of the signed orders and the result |
//! | `GET /backup` | | what a backup keeps of the store, secrets of open settlements included |
//!
//! Lists are answered in pages: [`paging`](self::Page). `GET /livez` needs no cookie. `{id}` is a unique prefix of at least eight digits. Errors
//! are `{"error":{"code","message","hint"}}` (`error`); who may call is in [`auth`].

pub mod auth;
mod backup;
mod book;
mod call;
mod certificates;
pub mod endpoints;
mod epochs;
mod error;
mod extract;
mod leases;
mod maintenance;
mod orders;
mod paging;
mod peers;
mod pools;
mod prefix;
mod serve;
mod status;
mod streams;
mod trades;
pub mod types;
mod wallet;

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::DefaultBodyLimit;
use axum::{Router, middleware};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

pub use auth::{CookieFile, Guard, REQUESTS_MAX};
pub use call::{
    Answer, ApiHandle, BackupRecords, CALL_QUEUE, CALL_TIMEOUT, Call, EpochFile, EpochInput,
    FileText, Query, RedeemCall, Request, ShellCommand, Target,
};
pub use error::{ApiError, ErrorBody, ErrorFields, Noun};
pub use extract::END_HEADER;
pub use paging::{BEFORE_HEADER, Listed, PAGE_DEFAULT, PAGE_MAX, Page, Place};
pub use prefix::{PREFIX_MIN_DIGITS, Prefix};
pub(crate) use streams::{UPGRADE, grant_ends_s};

use crate::executor::HostProof;
use capex_core::engine::register::RegisterCommand;
use capex_core::params::Params;
use capex_core::reason;

/// A request body, except uploads: the largest is an order with 16 keys.
pub const BODY_MAX_BYTES: usize = 64 << 10;
/// Uploads in progress: each holds its content in memory twice.
pub const UPLOADS_MAX: usize = 2;
/// How long the body of a request may take: an upload of 64 MiB from the same machine takes
/// seconds.
pub const BODY_TIME: Duration = Duration::from_secs(30);
/// How long open connections may finish their requests when the daemon stops.
pub const DRAIN_TIME: Duration = Duration::from_secs(2);

/// What every route may use. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ApiState {
    pub node: ApiHandle,
    /// Network definition, to name classes and check bounds.
    pub params: Arc<Params>,
    /// Share of its worth that a trade may cost in fees, for orders that name none, percent.
    pub max_fee_percent: u8,
    proof: Arc<HostProof>,
    uploads: Arc<Semaphore>,
}

impl ApiState {
    /// State of a server on a host of which nothing has to be proved.
    #[must_use]
    pub fn new(node: ApiHandle, params: Arc<Params>, max_fee_percent: u8) -> Self {
        let (proof, uploads) = (Arc::new(HostProof::waived()), Semaphore::new(UPLOADS_MAX));
        Self { node, params, max_fee_percent, proof, uploads: Arc::new(uploads) }
    }

    /// The same where only what was proved is offered.
    #[must_use]
    pub fn with_proof(self, proof: HostProof) -> Self {
        Self { proof: Arc::new(proof), ..self }
    }

    /// Tells the node what this host has proved by now: it may have been tested a moment ago.
    async fn look_at_host(&self) -> Result<(), ApiError> {
        if self.proof.is_waived() {
            return Ok(());
        }
        let (proof, params) = (Arc::clone(&self.proof), Arc::clone(&self.params));
        let unproved = tokio::task::spawn_blocking(move || proof.unproved(&params)).await;
        let unproved = unproved.map_err(|error| ApiError::internal(error.to_string()))?;
        self.node.command(RegisterCommand::Withhold(unproved)).await.map(drop)
    }
}

/// All routes behind their guard.
pub fn router(state: ApiState, guard: Guard) -> Router {
    let api = Router::new()
        .merge(status::routes())
        .merge(orders::routes())
        .merge(book::routes())
        .merge(trades::routes())
        .merge(certificates::routes())
        .merge(pools::routes())
        .merge(leases::routes())
        .merge(maintenance::routes())
        .merge(streams::routes())
        .merge(wallet::routes())
        .merge(peers::routes())
        .merge(epochs::routes())
        .merge(backup::routes());
    Router::new()
        .nest("/api/v1", api)
        .route(auth::LIVEZ, axum::routing::get(|| async { "ok\n" }))
        .fallback(|| async { ApiError::new(reason!("api.no_route"), "there is no such route") })
        .method_not_allowed_fallback(|| async {
            ApiError::new(reason!("api.method"), "this route has another method")
        })
        .layer(DefaultBodyLimit::max(BODY_MAX_BYTES))
        .layer(middleware::from_fn_with_state(Arc::new(guard), auth::guard))
        .with_state(state)
}

/// Serves until `shutdown` resolves, then lets open requests finish for [`DRAIN_TIME`]. The
/// cookie of the daemon is created by [`CookieFile::create`] and deleted on return.
///
/// # Errors
/// The listener has no local address.
pub async fn serve(
    listener: TcpListener,
    state: ApiState,
    cookie: Arc<CookieFile>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let app = router(state, Guard::new(cookie, listener.local_addr()?));
    serve::run(listener, app, serve::Bounds::DEFAULT, shutdown).await;
    Ok(())
}
