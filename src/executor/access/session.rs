//! Bytes both ways that outlive the stream that carries them.
//!
//! Each end keeps what it has sent until the other end says that it has arrived. When a stream
//! breaks, the next one begins with what arrived on either side (`received` of
//! [`capex_core::lease::access`]), and each end sends again what the other lacks.
//!
//! On the stream stand frames: a kind, a length of four bytes (big-endian), and so many bytes.
//! `0` is data, `1` how many bytes have arrived in all, `2` the end of the data, `3` that this end
//! has it all and will not come back.

use std::collections::VecDeque;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;

use super::frames::{FRAME_MAX_BYTES, frame, read_frame};

/// Sent and not known to have arrived, bytes: each way, what a session costs in memory at each end.
/// At a round trip of 50 ms it is 160 Mbit/s.
pub const WINDOW_BYTES: usize = 1 << 20;
/// Arrived and not said, bytes: a quarter of the window, so that the other end never waits for
/// a word.
const UNSAID_MAX_BYTES: u64 = WINDOW_BYTES as u64 / 4;

const DATA: u8 = 0;
const ARRIVED: u8 = 1;
const END: u8 = 2;
const DONE: u8 = 3;

/// One end of a session. It may outlive many streams, and carries one at a time.
#[derive(Debug, Default)]
pub struct Session {
    state: Mutex<State>,
    moved: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Offset of the first byte that is kept.
    arrived_there: u64,
    /// Sent and not known to have arrived, or not yet sent.
    kept: VecDeque<u8>,
    /// Offset of the next byte to send on this stream.
    next: u64,
    /// Whether the local side has no more to send.
    is_over: bool,
    /// Whether this stream has said so.
    said_over: bool,
    /// Bytes that have arrived here.
    arrived: u64,
    /// Of which this stream has told the other end.
    said: u64,
    /// Whether the other end has no more to send.
    is_over_there: bool,
    /// Whether this stream has said that all is here.
    said_done: bool,
    /// Whether the other end has all, and is gone.
    is_done_there: bool,
}

/// How a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carried {
    /// Each end has all that the other sent.
    Whole,
    /// The stream broke: another one may go on.
    Broken,
    /// The local side takes no more, or the other end breaks the rules.
    Failed,
}

/// What has come over a stream and was not handed to the local side, which may be slow: what the other
/// end says of the other way must not wait behind it. Never more than the window.
#[derive(Debug, Default)]
struct Inbox {
    state: Mutex<Waiting>,
    came: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    parts: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Nothing follows.
    has_ended: bool,
}

impl Inbox {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Each change is one step, so a panic elsewhere leaves it whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// False if there can be no more of it.
    fn put(&self, data: &[u8]) -> bool {
        let mut waiting = self.waiting();
        if waiting.has_ended || waiting.bytes + data.len() > WINDOW_BYTES {
            return false;
        }
        waiting.bytes += data.len();
        match waiting.parts.back_mut() {
            // Small parts cost no more than large ones.
            Some(last) if last.len() + data.len() <= FRAME_MAX_BYTES => last.extend(data),
            Some(_) | None => waiting.parts.push_back(data.to_vec()),
        }
        self.came.notify_one();
        true
    }

    fn end(&self) {
        self.waiting().has_ended = true;
        self.came.notify_one();
    }

    /// The next part; `None` behind the last.
    async fn next(&self) -> Option<Vec<u8>> {
        loop {
            {
                let mut waiting = self.waiting();
                if let Some(part) = waiting.parts.pop_front() {
                    return Some(part);
                }
                if waiting.has_ended {
                    return None;
                }
            }
            self.came.notified().await;
        }
    }

    fn handed_over(&self, bytes: usize) {
        let mut waiting = self.waiting();
        waiting.bytes = waiting.bytes.saturating_sub(bytes);
    }
}

impl State {
    fn sent_end(&self) -> u64 {
        self.arrived_there.saturating_add(self.kept.len() as u64)
    }

    /// The other end has so many bytes. False if that cannot be.
    fn note_arrived(&mut self, arrived: u64) -> bool {
        let Some(more) = arrived.checked_sub(self.arrived_there) else { return false };
        let Some(more) = usize::try_from(more).ok().filter(|more| *more <= self.kept.len()) else {
            return false;
        };
        self.kept.drain(..more);
        self.arrived_there = arrived;
        self.next = self.next.max(arrived);
        true
    }

    /// Whether each end has all that the other has sent, as far as this one knows.
    fn is_whole(&self) -> bool {
        self.is_over_there && self.said_done && self.is_over && self.is_done_there
    }

    /// The next frame to send, if there is one.
    fn frame(&mut self) -> Option<Vec<u8>> {
        let is_quiet = self.next == self.sent_end();
        if self.arrived.saturating_sub(self.said) >= UNSAID_MAX_BYTES
            || (self.arrived > self.said && is_quiet)
        {
            self.said = self.arrived;
            return Some(frame(ARRIVED, &self.arrived.to_be_bytes()));
        }
        if !is_quiet {
            let from = usize::try_from(self.next - self.arrived_there).ok()?;
            let (front, back) = self.kept.as_slices();
            let (part, from) = match from.checked_sub(front.len()) {
                None => (front, from),
                Some(from) => (back, from),
            };
            let data = part.get(from..)?;
            let data = data.get(..FRAME_MAX_BYTES).unwrap_or(data);
            self.next += data.len() as u64;
            return Some(frame(DATA, data));
        }
        if self.is_over && !self.said_over {
            self.said_over = true;
            return Some(frame(END, &[]));
        }
        if self.is_over_there && !self.said_done {
            self.said_done = true;
            return Some(frame(DONE, &[]));
        }
        None
    }
}

impl Session {
    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is one step, so a panic elsewhere leaves it whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes that have arrived here: what the next stream begins with.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.state().arrived
    }

    /// Whether all has arrived at both ends.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.state().is_whole()
    }

    /// Begins with a new stream, at whose other end so many bytes have arrived. False if that
    /// cannot be.
    #[must_use]
    pub fn resume(&self, received_there: u64) -> bool {
        let mut state = self.state();
        if !state.note_arrived(received_there) {
            return false;
        }
        state.next = received_there;
        state.said = state.arrived;
        state.said_over = false;
        state.said_done = false;
        true
    }

    /// Carries bytes between the local side and a stream until either ends. What is read from the
    /// local side is kept until it has arrived, so nothing is lost with the stream.
    pub async fn carry(
        &self,
        local: (&mut (impl AsyncRead + Unpin), &mut (impl AsyncWrite + Unpin)),
        stream: (impl AsyncRead + Unpin, impl AsyncWrite + Unpin),
    ) -> Carried {
        let (local_read, local_write) = local;
        let (stream_read, stream_write) = stream;
        // What is left in it is sent again over the next stream.
        let inbox = Inbox::default();
        tokio::select! {
            ended = self.take(stream_read, &inbox) => ended,
            ended = self.hand_over(&inbox, local_write) => ended,
            ended = self.give(local_read, stream_write) => ended,
        }
    }

    /// From the stream.
    async fn take(&self, mut stream: impl AsyncRead + Unpin, inbox: &Inbox) -> Carried {
        if self.state().is_over_there {
            // An earlier stream has carried the end.
            inbox.end();
        }
        let mut data = Vec::new();
        loop {
            let Ok(kind) = read_frame(&mut stream, &mut data).await else {
                return if self.is_whole() { Carried::Whole } else { Carried::Broken };
            };
            let is_fine = match kind {
                DATA => inbox.put(&data),
                ARRIVED => {
                    let count = <[u8; 8]>::try_from(data.as_slice()).map(u64::from_be_bytes);
                    count.is_ok_and(|count| self.state().note_arrived(count))
                }
                END => {
                    inbox.end();
                    true
                }
                DONE => {
                    let mut state = self.state();
                    let has_all = state.is_over && state.said_over;
                    let sent = state.sent_end();
                    state.is_done_there = has_all && state.note_arrived(sent);
                    has_all
                }
                _ => false,
            };
            if !is_fine {
                return Carried::Failed;
            }
            self.moved.notify_one();
        }
    }

    /// To the local side, until that takes no more.
    async fn hand_over(&self, inbox: &Inbox, local: &mut (impl AsyncWrite + Unpin)) -> Carried {
        while let Some(part) = inbox.next().await {
            if self.hand(inbox, &part, local).await.is_err() {
                return Carried::Failed;
            }
        }
        // A second end says what is known.
        if !std::mem::replace(&mut self.state().is_over_there, true) {
            // Whoever is gone needs no end.
            let _ = local.shutdown().await;
        }
        self.moved.notify_one();
        std::future::pending().await
    }

    /// Gives data to the local side. What it took is counted at once: the other ways may end this
    /// one between any two writes.
    async fn hand(
        &self,
        inbox: &Inbox,
        mut data: &[u8],
        local: &mut (impl AsyncWrite + Unpin),
    ) -> io::Result<()> {
        while !data.is_empty() {
            let count = local.write(data).await?;
            if count == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.state().arrived += count as u64;
            inbox.handed_over(count);
            self.moved.notify_one();
            data = data.get(count..).unwrap_or_default();
        }
        local.flush().await
    }

    /// From the local side to the stream.
    async fn give(
        &self,
        local: &mut (impl AsyncRead + Unpin),
        mut stream: impl AsyncWrite + Unpin,
    ) -> Carried {
        let mut buffer = vec![0; FRAME_MAX_BYTES];
        loop {
            let (frame, room, is_over) = {
                let mut state = self.state();
                let frame = state.frame();
                (frame, WINDOW_BYTES.saturating_sub(state.kept.len()), state.is_over)
            };
            if let Some(frame) = frame {
                if stream.write_all(&frame).await.is_err() {
                    return Carried::Broken;
                }
                continue;
            }
            if stream.flush().await.is_err() {
                return Carried::Broken;
            }
            if self.is_whole() {
                // An error means that the other end has closed it already.
                let _ = stream.shutdown().await;
                return Carried::Whole;
            }
            let most = room.min(buffer.len());
            tokio::select! {
                () = self.moved.notified() => {}
                read = local.read(&mut buffer[..most]), if most > 0 && !is_over => {
                    let mut state = self.state();
                    match read {
                        // Whoever is gone has no more to say.
                        Ok(0) | Err(_) => state.is_over = true,
                        Ok(count) => state.kept.extend(&buffer[..count]),
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use proptest::prelude::*;
    use tokio::io::{DuplexStream, duplex, split};
    use tokio::time::timeout;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    fn pattern(seed: u8, bytes: usize) -> Vec<u8> {
        (0..bytes).map(|n| (n as u8).wrapping_mul(31).wrapping_add(seed)).collect()
    }

    /// Both ends with what they have locally: what is written into `.1` is sent.
    fn end() -> (Arc<Session>, DuplexStream, DuplexStream) {
        let (ours, theirs) = duplex(4 << 10);
        (Arc::new(Session::default()), ours, theirs)
    }

    /// Streams that break after so many bytes each way, until one carries all.
    async fn over_streams(
        a: &Session,
        a_local: &mut DuplexStream,
        b: &Session,
        b_local: &mut DuplexStream,
        breaks: &[usize],
    ) -> (Carried, Carried) {
        for after in breaks.iter().copied().chain([usize::MAX]) {
            assert!(a.resume(b.received()) && b.resume(a.received()));
            let (a_end, a_wire) = duplex(64 << 10);
            let (b_wire, b_end) = duplex(64 << 10);
            let wire = tokio::spawn(async move {
                let (a_read, a_write) = split(a_wire);
                let (b_read, b_write) = split(b_wire);
                tokio::select! {
                    () = copy(a_read, b_write, after) => {}
                    () = copy(b_read, a_write, after) => {}
                }
            });
            let (mut ar, mut aw) = split(&mut *a_local);
            let (mut br, mut bw) = split(&mut *b_local);
            let ended = tokio::join!(
                a.carry((&mut ar, &mut aw), split(a_end)),
                b.carry((&mut br, &mut bw), split(b_end)),
            );
            wire.abort();
            if ended == (Carried::Whole, Carried::Whole) {
                return ended;
            }
            assert!(after < usize::MAX, "{ended:?}");
        }
        unreachable!("the last stream does not break")
    }

    async fn copy(
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
        mut left: usize,
    ) {
        let mut buffer = [0; 1000];
        while left > 0 {
            let most = buffer.len().min(left);
            match from.read(&mut buffer[..most]).await {
                Ok(count) if count > 0 => {
                    left -= count;
                    if to.write_all(&buffer[..count]).await.is_err() {
                        return;
                    }
                }
                _ => std::future::pending().await,
            }
        }
    }

    /// Sends so many bytes each way over streams that break, and compares what arrives.
    async fn play(there: usize, back: usize, breaks: &[usize]) {
        let (a, mut a_local, a_user) = end();
        let (b, mut b_local, b_user) = end();
        let user = |stream: DuplexStream, sent: Vec<u8>| async move {
            let (mut read, mut write) = split(stream);
            let writer = async {
                write.write_all(&sent).await.unwrap();
                write.shutdown().await.unwrap();
            };
            let mut got = Vec::new();
            let (_, read) = tokio::join!(writer, read.read_to_end(&mut got));
            read.unwrap();
            got
        };
        let (sent_a, sent_b) = (pattern(1, there), pattern(2, back));
        let (got_a, got_b, _) = timeout(PATIENCE, async {
            tokio::join!(
                user(a_user, sent_a.clone()),
                user(b_user, sent_b.clone()),
                over_streams(&a, &mut a_local, &b, &mut b_local, breaks),
            )
        })
        .await
        .unwrap();
        assert!(got_b == sent_a && got_a == sent_b, "{} {}", got_a.len(), got_b.len());
        assert!(a.is_whole() && b.is_whole());
    }

    #[tokio::test]
    async fn all_arrives_over_one_stream() {
        for (there, back) in [(0, 0), (1, 0), (0, 1), (5 << 20, 10), (3 << 20, 3 << 20)] {
            play(there, back, &[]).await;
        }
    }

    #[tokio::test]
    async fn all_arrives_once_over_streams_that_break_anywhere() {
        let mut breaks: Vec<usize> = (0..40).collect();
        breaks.extend([1_000, 33_000, 300_000, 5, 800_000]);
        play(2 << 20, 1 << 20, &breaks).await;
        play(3, 0, &(0..60).collect::<Vec<_>>()).await;
    }

    /// Whoever reads nothing while it cannot write hears all the same that its words have arrived.
    #[tokio::test]
    async fn an_echo_that_cannot_write_does_not_stop_its_own_words() {
        const BYTES: usize = 6 * WINDOW_BYTES;
        let (a, mut a_local, a_user) = end();
        let (b, mut b_local, b_user) = end();
        let echo = async {
            let (mut read, mut write) = split(b_user);
            tokio::io::copy(&mut read, &mut write).await.unwrap();
            write.shutdown().await.unwrap();
        };
        let sent = pattern(3, BYTES);
        let talk = async {
            let (mut read, mut write) = split(a_user);
            let writing = async {
                write.write_all(&sent).await.unwrap();
                write.shutdown().await.unwrap();
            };
            let mut back = Vec::new();
            let (_, read) = tokio::join!(writing, read.read_to_end(&mut back));
            read.unwrap();
            back
        };
        let carried = over_streams(&a, &mut a_local, &b, &mut b_local, &[2_000_000]);
        let all = async { tokio::join!(talk, echo, carried) };
        let (back, (), _) = timeout(PATIENCE, all).await.unwrap();
        assert!(back == sent, "{} bytes", back.len());
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
        #[test]
        fn all_arrives_once_whatever_breaks(
            there in 0usize..200_000,
            back in 0usize..200_000,
            breaks in prop::collection::vec(0usize..100_000, 0..8),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(play(there, back, &breaks));
        }
    }

    /// What a stranger at the other end sends ends the session, and costs no more than a frame.
    #[tokio::test]
    async fn an_end_that_breaks_the_rules_is_left() {
        let table: [(&str, Vec<u8>); 7] = [
            ("an unknown kind", frame(9, &[])),
            ("more arrived than was sent", frame(ARRIVED, &1u64.to_be_bytes())),
            ("a short count", frame(ARRIVED, &[0; 7])),
            ("all is there before the end was said", frame(DONE, &[])),
            ("data behind the end", [frame(END, &[]), frame(DATA, b"x")].concat()),
            ("a frame too large", {
                let mut head = frame(DATA, &[]);
                head[1..5].copy_from_slice(&u32::MAX.to_be_bytes());
                head
            }),
            ("nothing", Vec::new()),
        ];
        for (what, bytes) in table {
            let (session, mut local, _user) = end();
            let (ours, theirs) = duplex(64 << 10);
            let (_read, mut write) = split(theirs);
            let (mut read_local, mut write_local) = split(&mut local);
            let sender = async {
                write.write_all(&bytes).await.unwrap();
                write.shutdown().await.unwrap();
                drop((write, _read));
            };
            let carried = session.carry((&mut read_local, &mut write_local), split(ours));
            let (carried, ()) =
                timeout(PATIENCE, async { tokio::join!(carried, sender) }).await.unwrap();
            let is_broken = matches!(what, "nothing" | "a frame too large");
            let expected = if is_broken { Carried::Broken } else { Carried::Failed };
            assert_eq!(carried, expected, "{what}");
        }
    }

    #[tokio::test]
    async fn no_more_is_kept_than_the_window() {
        let (session, mut local, user) = end();
        let (ours, theirs) = duplex(64 << 10);
        let writer = tokio::spawn(async move {
            let (_read, mut write) = split(user);
            write.write_all(&pattern(1, 3 * WINDOW_BYTES)).await
        });
        let sink = tokio::spawn(async move {
            let (mut read, _write) = split(theirs);
            tokio::io::copy(&mut read, &mut tokio::io::sink()).await
        });
        let (mut read_local, mut write_local) = split(&mut local);
        let carry = session.carry((&mut read_local, &mut write_local), split(ours));
        let full = async {
            while session.state().kept.len() < WINDOW_BYTES {
                tokio::task::yield_now().await;
            }
            for _ in 0..1_000 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            ended = carry => panic!("{ended:?}"),
            () = full => {}
        }
        assert_eq!(session.state().kept.len(), WINDOW_BYTES);
        writer.abort();
        sink.abort();
    }
}
