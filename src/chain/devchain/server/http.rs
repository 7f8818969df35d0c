//! JSON-RPC over HTTP: who may call, how much at once, and the envelope.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use base64::Engine;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use super::guests::{self, Paces};
use super::ledger::Ledger;
use super::methods::{self, RpcError};

/// Largest request: a block of full weight in hex, and its envelope.
const MAX_REQUEST_BYTES: usize = 9_000_000;
/// Most calls in one batch.
const MAX_BATCH: usize = 1_000;
/// A call that the caller may not make: Core answers so what its whitelist leaves out.
const NOT_FOR_GUESTS: i32 = -32_604;
/// Requests served at once; Core calls it the work queue.
const MAX_CONCURRENT: usize = 64;

/// What all requests share.
pub(super) struct Shared {
    ledger: Mutex<Ledger>,
    /// Digest of the right `Authorization` value: comparing digests takes the same time
    /// whatever is wrong.
    authorization: [u8; 32],
    /// The same for nodes of others.
    guest: Option<[u8; 32]>,
    paces: Mutex<Paces>,
    stop: watch::Sender<bool>,
    started: Instant,
    slots: Semaphore,
}

impl Shared {
    pub(super) fn new(
        ledger: Ledger,
        cookie: &str,
        guest: Option<&str>,
        stop: watch::Sender<bool>,
        started: Instant,
    ) -> Self {
        Self {
            ledger: Mutex::new(ledger),
            authorization: authorization(cookie),
            guest: guest.map(authorization),
            paces: Mutex::default(),
            stop,
            started,
            slots: Semaphore::new(MAX_CONCURRENT),
        }
    }

    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn uptime_s(&self) -> u64 {
        self.started.elapsed().as_secs()
    }

    /// Asks the server to stop once this request is answered.
    pub(super) fn stop(&self) {
        let _ = self.stop.send(true);
    }

    /// Who calls; nobody that is known if the credentials are wrong.
    fn caller(&self, headers: &HeaderMap) -> Option<Caller> {
        let given = headers.get(header::AUTHORIZATION)?;
        let digest: [u8; 32] = Sha256::digest(given.as_bytes()).into();
        if digest == self.authorization {
            return Some(Caller::Owner);
        }
        (self.guest? == digest).then_some(Caller::Guest)
    }

    fn may_call(&self, address: IpAddr, calls: usize) -> bool {
        let mut paces = self.paces.lock().unwrap_or_else(PoisonError::into_inner);
        paces.take(address, calls, Instant::now())
    }
}

/// Who calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Caller {
    /// Who reads the cookie file.
    Owner,
    /// A node of another, which reads and submits.
    Guest,
}

fn authorization(credentials: &str) -> [u8; 32] {
    let basic = base64::engine::general_purpose::STANDARD.encode(credentials);
    Sha256::digest(format!("Basic {basic}")).into()
}

/// Serves until `stopping` turns true.
pub(super) async fn run(
    listener: TcpListener,
    shared: Arc<Shared>,
    mut stopping: watch::Receiver<bool>,
) {
    let app = Router::new()
        .route("/", post(answer))
        .layer(DefaultBodyLimit::max(MAX_REQUEST_BYTES))
        .with_state(shared);
    let stop = async move {
        let _ = stopping.wait_for(|stop| *stop).await;
    };
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    if let Err(error) = axum::serve(listener, app).with_graceful_shutdown(stop).await {
        tracing::error!(%error, "the devchain stops listening");
    }
}

async fn answer(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let Some(caller) = shared.caller(&headers) else {
        let challenge = [(header::WWW_AUTHENTICATE, "Basic realm=\"jsonrpc\"")];
        return (StatusCode::UNAUTHORIZED, challenge).into_response();
    };
    let Ok(_slot) = shared.slots.try_acquire() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "Work queue depth exceeded").into_response();
    };
    let Ok(request) = serde_json::from_slice::<Value>(&body) else {
        let error = RpcError::new(-32_700, "Parse error");
        return reply(StatusCode::INTERNAL_SERVER_ERROR, &failure(error, Value::Null));
    };
    let calls = request.as_array().map_or(1, Vec::len);
    if caller == Caller::Guest && !shared.may_call(peer.ip(), calls) {
        return (StatusCode::TOO_MANY_REQUESTS, "Too many calls: wait a second").into_response();
    }
    let work = shared.clone();
    match tokio::task::spawn_blocking(move || answer_all(&work, caller, request)).await {
        Ok((status, value)) => reply(status, &value),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn reply(status: StatusCode, value: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], value.to_string()).into_response()
}

fn answer_all(shared: &Shared, caller: Caller, request: Value) -> (StatusCode, Value) {
    match request {
        Value::Array(calls) if calls.len() > MAX_BATCH => {
            let error = RpcError::new(-32_600, "Batch too large");
            (StatusCode::BAD_REQUEST, failure(error, Value::Null))
        }
        Value::Array(calls) => {
            let answers =
                calls.into_iter().map(|call| answer_one(shared, caller, call).1).collect();
            (StatusCode::OK, Value::Array(answers))
        }
        call => answer_one(shared, caller, call),
    }
}

/// Status codes as Core's for JSON-RPC 1.x; version 2.0 calls are answered alike, with the
/// version echoed.
fn answer_one(shared: &Shared, caller: Caller, mut call: Value) -> (StatusCode, Value) {
    let id = call.get_mut("id").map(Value::take).unwrap_or_default();
    let version = call.get("jsonrpc").and_then(Value::as_str).map(str::to_owned);
    let params = call.get_mut("params").map(Value::take).unwrap_or_default();
    let result = match (call.get("method").and_then(Value::as_str), params) {
        (None, _) => Err(RpcError::new(-32_600, "Missing method")),
        (Some(method), _) if caller == Caller::Guest && !guests::may_call(method) => {
            Err(RpcError::new(NOT_FOR_GUESTS, "Method is not for guests of this chain"))
        }
        (Some(method), Value::Null) => methods::call(shared, method, &[]),
        (Some(method), Value::Array(params)) => methods::call(shared, method, &params),
        (Some(_), _) => Err(RpcError::new(-32_600, "Params must be an array")),
    };
    let (status, mut answer) = match result {
        Ok(result) => (StatusCode::OK, json!({"result": result, "error": null, "id": id})),
        Err(error) => {
            let status = match error.code {
                -32_600 => StatusCode::BAD_REQUEST,
                -32_601 => StatusCode::NOT_FOUND,
                NOT_FOR_GUESTS => StatusCode::FORBIDDEN,
                _ => StatusCode::INTERNAL_SERVER_ERROR,
            };
            (status, failure(error, id))
        }
    };
    if version.as_deref() == Some("2.0") {
        answer["jsonrpc"] = json!("2.0");
    }
    (status, answer)
}

fn failure(error: RpcError, id: Value) -> Value {
    json!({
        "result": null,
        "error": {"code": error.code, "message": error.message},
        "id": id,
    })
}
