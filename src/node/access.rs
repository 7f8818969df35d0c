//! Streams into leases: those that peers open to leases on this host, and those that this node
//! opens to leases that it holds, or that somebody let it into.

use std::sync::Arc;
use std::time::{Duration, Instant};

use capex_network::{Handle, InboundStream, PeerKey, Stream};
use tokio::io::{DuplexStream, copy_bidirectional_with_sizes, split};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::Node;
use crate::api::{ApiError, ApiHandle};
use crate::clock::now_ms;
use crate::executor::Manager;
use crate::executor::access::session::{Carried, Session};
use crate::executor::access::words::{Knock, hear, knock, say};
use capex_core::engine::io::Done;
use capex_core::engine::leases::{LeaseCommand, Wanted};
use capex_core::ids::Key;
use capex_core::lease::access::{Admission, Answer, Hello};
use capex_core::reason;
use capex_core::reasons::Reason;

/// Bare name of the protocol.
pub(super) const PROTOCOL: &str = "access/1";
/// What whoever opens a stream may take to say what for, and the lease process to answer.
const WORDS_TIME: Duration = Duration::from_secs(5);
/// How long a session that has lost its stream is tried again: the restart of a daemon, or of a
/// router, with room to spare.
const RESUME_TIME: Duration = Duration::from_secs(120);
/// Pauses between these tries, the first and the longest.
const PAUSE_FIRST: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// What is on its way through a provider's node, each way.
const RELAY_BYTES: usize = 64 << 10;

/// A stream whose opener has said what for.
pub(super) struct Asked {
    peer: Key,
    hello: Hello,
    answer: oneshot::Sender<Result<Admission, &'static str>>,
}

impl Node {
    /// A peer has opened a stream.
    pub(super) fn on_stream(&mut self, inbound: InboundStream) {
        let asks = self.asks.clone();
        let executor = Arc::clone(&self.outside.leases.executor);
        self.served.spawn(serve(inbound, asks, executor));
    }

    pub(super) fn on_asked(&self, asked: Asked) {
        let (leases, params) = (self.engine().leases(), &self.config.params);
        let allowed = leases.authorise_access(now_ms(), params, asked.peer, &asked.hello);
        // Whoever asked may be gone.
        let _ = asked.answer.send(allowed);
    }

    /// Opens a stream, and carries what is written into `local` for as long as both ends want.
    pub(super) fn open_stream(
        &mut self,
        wanted: Wanted,
        local: DuplexStream,
        answer: oneshot::Sender<Result<crate::api::Answer, ApiError>>,
    ) {
        let opener =
            Opener { api: self.api.clone(), network: self.outside.network.clone(), wanted };
        self.served.spawn(async move {
            let session = Session::default();
            match opener.open(&session).await {
                Ok(stream) => {
                    if answer.send(Ok(Done::Ok.into())).is_ok() {
                        carry(&opener, &session, stream, local).await;
                    }
                }
                Err(refused) => {
                    let _ = answer.send(Err(refused.into_error()));
                }
            }
        });
    }
}

/// Lets a peer into a lease on this host, if it may be there.
async fn serve(inbound: InboundStream, asks: mpsc::Sender<Asked>, executor: Arc<Manager>) {
    let InboundStream { peer, mut stream } = inbound;
    let Ok(Ok(hello)) = timeout(WORDS_TIME, hear::<Hello>(&mut stream)).await else { return };
    match admit(Key(peer.0), hello, &asks, &executor).await {
        Ok(mut lease) => {
            // Either end may leave at any time.
            let sizes = (RELAY_BYTES, RELAY_BYTES);
            let _ = copy_bidirectional_with_sizes(&mut stream, &mut lease, sizes.0, sizes.1).await;
        }
        Err(code) => {
            let answer = Answer::Refused { code: code.to_owned() };
            let _ = timeout(WORDS_TIME, say(&mut stream, &answer)).await;
        }
    }
}

async fn admit(
    peer: Key,
    hello: Hello,
    asks: &mpsc::Sender<Asked>,
    executor: &Manager,
) -> Result<tokio::net::UnixStream, &'static str> {
    let stopping = reason!("api.stopping").code();
    let (answer, allowed) = oneshot::channel();
    asks.send(Asked { peer, hello, answer }).await.map_err(|_| stopping)?;
    let admission = allowed.await.map_err(|_| stopping)??;
    // What has no door is run by a runtime that lets nobody in.
    let unsupported = reason!("runtime.unsupported").code();
    let mut lease = executor.knock(&admission.call.lease).await.map_err(|_| unsupported)?;
    knock(&mut lease, &Knock::Stream(admission)).await.map_err(|_| unsupported)?;
    Ok(lease)
}

/// What opens the streams of one session.
struct Opener {
    api: ApiHandle,
    network: Handle,
    wanted: Wanted,
}

/// Why no stream was opened.
enum Refused {
    /// Nobody was reached, or it broke: it may work a moment later.
    Lost(ApiError),
    /// The provider, or this node, said no.
    Said(ApiError),
}

impl Refused {
    fn into_error(self) -> ApiError {
        match self {
            Self::Lost(error) | Self::Said(error) => error,
        }
    }
}

impl Opener {
    /// Signs, opens a stream and says what for.
    async fn open(&self, session: &Session) -> Result<Stream, Refused> {
        let wanted = Wanted { received: session.received(), ..self.wanted.clone() };
        let command = LeaseCommand::Open(Box::new(wanted));
        let done = self.api.command(command).await.map_err(Refused::Said)?;
        let Done::Access { provider, hello } = done else {
            return Err(Refused::Said(ApiError::internal("a stream")));
        };
        let lost = |what: String| Refused::Lost(ApiError::new(reason!("access.no_answer"), what));
        let opened = self.network.open(PeerKey(provider.0)).await;
        let mut stream = opened.map_err(|error| lost(error.to_string()))?;
        let words = async {
            say(&mut stream, &*hello).await?;
            hear::<Answer>(&mut stream).await
        };
        match timeout(2 * WORDS_TIME, words).await {
            Ok(Ok(Answer::Open { received })) if session.resume(received) => Ok(stream),
            Ok(Ok(Answer::Open { .. })) => {
                let reason = reason!("access.lost_session");
                Err(Refused::Said(ApiError::new(reason, "the lease has lost the session")))
            }
            Ok(Ok(Answer::Refused { code })) => {
                let reason = Reason::find(&code).unwrap_or(reason!("access.refused"));
                Err(Refused::Said(ApiError::new(reason, "the provider refuses the stream")))
            }
            Ok(Err(error)) => Err(lost(error.to_string())),
            Err(_) => Err(lost("the provider does not answer".to_owned())),
        }
    }
}

/// Carries a session over as many streams as it takes.
async fn carry(opener: &Opener, session: &Session, first: Stream, local: DuplexStream) {
    let (mut read, mut write) = split(local);
    let mut stream = Some(first);
    let (mut since, mut pause) = (Instant::now(), PAUSE_FIRST);
    while since.elapsed() < RESUME_TIME {
        if let Some(open) = stream.take() {
            match session.carry((&mut read, &mut write), split(open)).await {
                Carried::Whole | Carried::Failed => return,
                Carried::Broken => (since, pause) = (Instant::now(), PAUSE_FIRST),
            }
        }
        tokio::time::sleep(pause).await;
        pause = (2 * pause).min(PAUSE_MAX);
        match opener.open(session).await {
            Ok(opened) => stream = Some(opened),
            Err(Refused::Lost(error)) => tracing::debug!(%error, "a stream is tried again"),
            Err(Refused::Said(_)) => return,
        }
    }
}
