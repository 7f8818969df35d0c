//! How an ssh connection waits for a program that is slower than the other end.
//!
//! The library grants the other end room for more as soon as it has read something, whether that was
//! taken or not. So it does not read while a channel has a [`Backlog`]: the other end has to wait
//! then. Yet behind what is not read may stand the word that the other end has taken what the lease
//! says, and a program that waits for that may read nothing either. So while something waits to be
//! said, the connection is read on: far ahead at once, then slowly, and at last the channel ends.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// Come over a channel and not taken, bytes: above it the connection waits.
const CHANNEL_BYTES: usize = 4 << 20;
/// Come over all channels of this process: above it one that does not wait is read slowly.
const AHEAD_BYTES: usize = 32 << 20;
/// Above it a channel ends.
const MOST_BYTES: usize = 64 << 20;
/// Read at once of what is read slowly, and the pause behind it.
const SIP_BYTES: usize = 32 << 10;
const PAUSE: Duration = Duration::from_millis(500);
/// What a message costs beside its data, bytes.
const MESSAGE_BYTES: usize = 128;

/// Of all channels of this process, bytes.
static ALL: AtomicUsize = AtomicUsize::new(0);

/// What the channels of one connection have in common.
#[derive(Default)]
pub(super) struct Line {
    /// Channels with more than they should have.
    full: AtomicUsize,
    /// What waits to be said.
    waiting: AtomicUsize,
    reader: Mutex<Option<Waker>>,
}

impl Line {
    /// Says something, which may have to wait for the other end.
    pub(super) async fn giving<T>(&self, say: impl Future<Output = T>) -> T {
        struct Waits<'a>(&'a AtomicUsize);
        impl Drop for Waits<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::AcqRel);
            }
        }
        let mut say = std::pin::pin!(say);
        let mut waits = None;
        std::future::poll_fn(|cx| {
            let said = say.as_mut().poll(cx);
            if said.is_pending() && waits.is_none() {
                self.waiting.fetch_add(1, Ordering::AcqRel);
                waits = Some(Waits(&self.waiting));
                self.wake();
            }
            said
        })
        .await
    }

    fn is_full(&self) -> bool {
        self.full.load(Ordering::Acquire) > 0
    }

    fn is_open(&self) -> bool {
        !self.is_full() || self.waiting.load(Ordering::Acquire) > 0
    }

    fn reader(&self) -> std::sync::MutexGuard<'_, Option<Waker>> {
        // Each change is one step, so a panic elsewhere leaves it whole.
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        if let Some(reader) = self.reader().take() {
            reader.wake();
        }
    }

    /// Whether the connection may be read; else the reader is woken when it may.
    fn poll_open(&self, cx: &Context<'_>) -> bool {
        if self.is_open() {
            return true;
        }
        *self.reader() = Some(cx.waker().clone());
        // It may have changed since.
        self.is_open()
    }
}

/// What came over a channel and was not taken yet.
pub(super) struct Backlog {
    line: Arc<Line>,
    bytes: AtomicUsize,
}

impl Backlog {
    pub(super) fn new(line: Arc<Line>) -> Self {
        Self { line, bytes: AtomicUsize::new(0) }
    }

    /// A message of so many bytes came. False if there is no room for it.
    pub(super) fn add(&self, bytes: usize) -> bool {
        let bytes = bytes + MESSAGE_BYTES;
        let before = self.bytes.fetch_add(bytes, Ordering::AcqRel);
        if before <= CHANNEL_BYTES && before + bytes > CHANNEL_BYTES {
            self.line.full.fetch_add(1, Ordering::AcqRel);
        }
        ALL.fetch_add(bytes, Ordering::AcqRel) + bytes <= MOST_BYTES
    }

    /// It was taken.
    pub(super) fn remove(&self, bytes: usize) {
        let bytes = bytes + MESSAGE_BYTES;
        ALL.fetch_sub(bytes, Ordering::AcqRel);
        let before = self.bytes.fetch_sub(bytes, Ordering::AcqRel);
        if before > CHANNEL_BYTES && before - bytes <= CHANNEL_BYTES {
            self.line.full.fetch_sub(1, Ordering::AcqRel);
            self.line.wake();
        }
    }
}

/// A connection that is read only while its channels take what comes.
pub(super) struct Gate<S> {
    stream: S,
    line: Arc<Line>,
    pause: Option<Pin<Box<Sleep>>>,
    /// May be read before the next pause, bytes.
    sip: usize,
}

impl<S> Gate<S> {
    pub(super) fn new(stream: S, line: Arc<Line>) -> Self {
        Self { stream, line, pause: None, sip: 0 }
    }

    /// Waits where too much is ahead.
    fn poll_pause(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let is_far = self.line.is_full() && ALL.load(Ordering::Acquire) > AHEAD_BYTES;
        if is_far && self.sip == 0 {
            let pause = self.pause.get_or_insert_with(|| Box::pin(sleep(PAUSE)));
            ready!(pause.as_mut().poll(cx));
            self.pause = None;
            self.sip = SIP_BYTES;
        }
        Poll::Ready(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gate<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.line.poll_open(cx) {
            return Poll::Pending;
        }
        ready!(self.poll_pause(cx));
        let before = buf.filled().len();
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buf));
        self.sip = self.sip.saturating_sub(buf.filled().len() - before);
        Poll::Ready(read)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gate<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    /// Whether what the other end has sent is read now.
    async fn reads(gate: &mut Gate<tokio::io::DuplexStream>) -> bool {
        let mut byte = [0];
        tokio::select! {
            biased;
            read = gate.read_exact(&mut byte) => read.is_ok(),
            () = tokio::task::yield_now() => false,
        }
    }

    #[tokio::test]
    async fn a_connection_waits_for_its_channels_unless_something_waits_to_be_said() {
        let line = Arc::new(Line::default());
        let (stream, mut other) = duplex(1 << 20);
        let mut gate = Gate::new(stream, Arc::clone(&line));
        other.write_all(&[1; 200_000]).await.unwrap();
        let backlog = Backlog::new(Arc::clone(&line));
        let part = 1 << 20;
        assert!(reads(&mut gate).await);
        for _ in 0..4 {
            assert!(backlog.add(part));
        }
        assert!(!reads(&mut gate).await, "more than a channel may have");
        backlog.remove(part);
        assert!(reads(&mut gate).await, "some of it was taken");
        assert!(backlog.add(part));

        {
            let mut said = Box::pin(line.giving(std::future::pending::<()>()));
            assert!(is_pending(&mut said).await);
            assert!(reads(&mut gate).await, "the word may come for which something waits");
            // Far ahead it is read slowly, and at last not at all.
            let mut ahead = 4;
            while backlog.add(part) {
                ahead += 1;
            }
            assert_eq!(ahead, 63, "and what each costs");
            let begun = Instant::now();
            assert!(!reads(&mut gate).await);
            let mut sip = vec![0; SIP_BYTES];
            gate.read_exact(&mut sip).await.unwrap();
            assert!(begun.elapsed() >= PAUSE);
            assert!(!reads(&mut gate).await);
            for _ in 0..=ahead {
                backlog.remove(part);
            }
            assert!(reads(&mut gate).await);
        }
        assert_eq!(line.waiting.load(Ordering::Acquire), 0);
        assert!(!line.is_full() && ALL.load(Ordering::Acquire) == 0);
    }

    async fn is_pending(said: &mut (impl Future<Output = ()> + Unpin)) -> bool {
        tokio::select! {
            biased;
            () = said => false,
            () = std::future::ready(()) => true,
        }
    }
}
