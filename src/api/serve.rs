//! Connections of the API. Whoever has no cookie can still connect, so their number and the time
//! of a request's head are bounded, and those that ask nothing make room for those that do.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use super::{DRAIN_TIME, REQUESTS_MAX};

/// What those without a cookie can take.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    connections: usize,
    /// How long the head of a request may take, also of the first after a pause: longer than
    /// clients keep an idle connection.
    head_time: Duration,
}

impl Bounds {
    pub(super) const DEFAULT: Self =
        Self { connections: CONNECTIONS_MAX, head_time: Duration::from_secs(20) };
}

/// Connections: twice as many as requests in progress, since clients keep some open; half of
/// what a process may open where the system allows it least.
const CONNECTIONS_MAX: usize = 128;
const _: () = assert!(CONNECTIONS_MAX == 2 * REQUESTS_MAX);

/// Pause after a failed accept, such as without a file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A connection and whether a request of it is being answered.
struct Connection {
    is_busy: Arc<AtomicBool>,
    task: AbortHandle,
}

/// Serves until `shutdown` resolves, then lets open requests finish for [`DRAIN_TIME`].
pub(super) async fn run(
    listener: TcpListener,
    app: Router,
    bounds: Bounds,
    shutdown: impl Future<Output = ()> + Send,
) {
    let (stopping, stopped) = watch::channel(false);
    let mut tasks = JoinSet::new();
    let mut open = VecDeque::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept() => accepted,
        };
        while tasks.try_join_next().is_some() {}
        match accepted {
            Ok((stream, _)) if make_room(&mut open, bounds.connections) => {
                // What a program says in small parts does not wait until the part before has been
                // heard of. Who cannot have it has it later.
                let _ = stream.set_nodelay(true);
                let is_busy = Arc::new(AtomicBool::new(false));
                let (app, busy, stopped) = (app.clone(), Arc::clone(&is_busy), stopped.clone());
                let task = tasks.spawn(serve(stream, app, bounds.head_time, busy, stopped));
                open.push_back(Connection { is_busy, task });
            }
            // Every connection is being answered: this one may come again.
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(%error, "the API could not accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    stopping.send_replace(true);
    let drained = async { while tasks.join_next().await.is_some() {} };
    // What is not finished by then ends with its task.
    let _ = tokio::time::timeout(DRAIN_TIME, drained).await;
}

/// Whether there is room for one more, if need be in place of the oldest that asks nothing.
fn make_room(open: &mut VecDeque<Connection>, most: usize) -> bool {
    open.retain(|connection| !connection.task.is_finished());
    if open.len() < most {
        return true;
    }
    let idle = |connection: &Connection| !connection.is_busy.load(Ordering::Relaxed);
    let oldest = open.iter().position(idle).and_then(|at| open.remove(at));
    oldest.is_some_and(|oldest| {
        oldest.task.abort();
        true
    })
}

async fn serve(
    stream: TcpStream,
    app: Router,
    head_time: Duration,
    is_busy: Arc<AtomicBool>,
    mut stopped: watch::Receiver<bool>,
) {
    let app = TowerToHyperService::new(app);
    let service = service_fn(move |request: Request<Incoming>| {
        let (answer, is_busy) = (app.call(request), Arc::clone(&is_busy));
        async move {
            is_busy.store(true, Ordering::Relaxed);
            let answer = answer.await;
            is_busy.store(false, Ordering::Relaxed);
            answer
        }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(head_time);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service).with_upgrades());
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        _ = stopped.wait_for(|stopped| *stopped) => None,
    };
    if ended.is_none() {
        connection.as_mut().graceful_shutdown();
        // A client that hung up, or was too slow, is its own affair.
        let _ = connection.await;
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::{Notify, oneshot};

    use super::*;

    /// A server with a route that answers and one that waits, and what lets it go on.
    async fn started(bounds: Bounds) -> (std::net::SocketAddr, Arc<Notify>, oneshot::Sender<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let go_on = Arc::new(Notify::new());
        let waits = Arc::clone(&go_on);
        let slow = move || async move {
            waits.notified().await;
            "slow"
        };
        let app = Router::new().route("/", get(|| async { "ok" })).route("/slow", get(slow));
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async move {
            let _ = stopped.await;
        };
        tokio::spawn(run(listener, app, bounds, shutdown));
        (addr, go_on, stop)
    }

    async fn sent(addr: std::net::SocketAddr, bytes: &str) -> TcpStream {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream.write_all(bytes.as_bytes()).await.unwrap();
        stream
    }

    async fn rest(stream: &mut TcpStream) -> String {
        let mut text = Vec::new();
        // One that is reset has said what it says.
        let _ = stream.read_to_end(&mut text).await;
        String::from_utf8(text).unwrap()
    }

    const ASK: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

    #[tokio::test]
    async fn half_a_request_ends_in_time() {
        let head_time = Duration::from_millis(50);
        let (addr, _go_on, _stop) = started(Bounds { head_time, ..Bounds::DEFAULT }).await;
        for begun in ["", "GET / HTTP/1.1\r\nHost"] {
            rest(&mut sent(addr, begun).await).await;
        }
        // Also the second one of a connection.
        let mut kept = sent(addr, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(rest(&mut kept).await.ends_with("ok"));
    }

    #[tokio::test]
    async fn those_that_ask_nothing_make_room_and_those_that_wait_stay() {
        let (addr, go_on, _stop) = started(Bounds { connections: 4, ..Bounds::DEFAULT }).await;
        let mut waiting = sent(addr, &ASK.replace("/ ", "/slow ")).await;
        let mut halves = Vec::new();
        for _ in 0..12 {
            halves.push(sent(addr, "GET / HT").await);
            assert!(rest(&mut sent(addr, ASK).await).await.ends_with("ok"));
        }
        assert_eq!(rest(&mut halves[0]).await, "", "the oldest was closed");
        go_on.notify_one();
        assert!(rest(&mut waiting).await.ends_with("slow"));
    }
}
