//! Frames of the request protocols: a `u32` big-endian length and that many bytes, one frame each way per stream.
//!
//! The declared length is checked against the cap of the protocol before anything is allocated,
//! and the buffer grows with what arrives, so that an announcement alone costs nothing.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::StreamProtocol;
use libp2p::request_response::{Codec, OutboundFailure};

use crate::limits::{MAX_READING_BYTES, READ_STEP_BYTES};

/// Why a request has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The peer is not connected and no known address leads to it.
    #[error("the peer cannot be reached")]
    Unreachable,
    /// The own configuration does not name this protocol.
    #[error("the protocol is not configured")]
    UnknownProtocol,
    /// The peer does not serve this protocol.
    #[error("the peer does not serve this protocol")]
    Unsupported,
    /// The request, or the reply, is larger than the protocol allows.
    #[error("the frame is larger than the protocol allows")]
    TooLarge,
    /// Too many own requests are open.
    #[error("too many requests are open")]
    Busy,
    /// No answer came in time. Whether the peer acted on the request is not known.
    #[error("no answer in time")]
    Timeout,
    /// The peer closed the stream without an answer: it is busy, or its node did not reply.
    #[error("the peer gave no answer")]
    NoReply,
    /// The connection was lost. Whether the peer acted on the request is not known.
    #[error("the connection was lost")]
    Disconnected,
    /// The own network task was restarted. Whether the peer acted on the request is not known.
    #[error("the network task was restarted")]
    Restarted,
    /// The stream failed in another way.
    #[error("the stream failed: {0}")]
    Stream(String),
}

impl RequestError {
    /// Stable reason code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unreachable => "request.unreachable",
            Self::UnknownProtocol => "request.unknown_protocol",
            Self::Unsupported => "request.unsupported",
            Self::TooLarge => "request.too_large",
            Self::Busy => "request.busy",
            Self::Timeout => "request.timeout",
            Self::NoReply => "request.no_reply",
            Self::Disconnected => "request.disconnected",
            Self::Restarted => "request.restarted",
            Self::Stream(_) => "request.stream",
        }
    }
}

impl From<OutboundFailure> for RequestError {
    fn from(failure: OutboundFailure) -> Self {
        match failure {
            OutboundFailure::DialFailure => Self::Unreachable,
            OutboundFailure::Timeout => Self::Timeout,
            OutboundFailure::ConnectionClosed => Self::Disconnected,
            OutboundFailure::UnsupportedProtocols => Self::Unsupported,
            OutboundFailure::Io(error) => error.into(),
        }
    }
}

impl From<io::Error> for RequestError {
    fn from(error: io::Error) -> Self {
        let frame = error.get_ref().and_then(|inner| inner.downcast_ref::<FrameError>());
        match (frame, error.kind()) {
            (Some(FrameError::TooLarge { .. }), _) => Self::TooLarge,
            (Some(FrameError::OverBudget), _) => Self::Busy,
            (None, io::ErrorKind::UnexpectedEof) => Self::NoReply,
            // A peer that drops the stream before it reads the request resets it.
            (None, io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => Self::NoReply,
            (None, io::ErrorKind::NotConnected | io::ErrorKind::ConnectionAborted) => {
                Self::Disconnected
            }
            _ => Self::Stream(error.to_string()),
        }
    }
}

/// Why a frame was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    /// Larger than the protocol allows.
    #[error("a frame of {bytes} bytes, at most {most} are allowed")]
    TooLarge { bytes: usize, most: usize },
    /// All frames being read together are too large.
    #[error("too many bytes are being read")]
    OverBudget,
}

impl From<FrameError> for io::Error {
    fn from(error: FrameError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

/// Bytes held by frames that are being read, over all streams of a node.
#[derive(Debug, Clone, Default)]
pub(crate) struct Budget(Arc<AtomicUsize>);

/// The share of one frame, given back when it is dropped.
struct Share {
    budget: Budget,
    bytes: usize,
}

impl Share {
    fn grow(&mut self, bytes: usize) -> Result<(), FrameError> {
        let held = self.budget.0.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.bytes += bytes;
        if held > MAX_READING_BYTES { Err(FrameError::OverBudget) } else { Ok(()) }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Reads and writes the frames of one protocol.
#[derive(Debug, Clone)]
pub(crate) struct FrameCodec {
    pub(crate) max_bytes: usize,
    pub(crate) budget: Budget,
}

impl FrameCodec {
    async fn read<T: AsyncRead + Unpin + Send>(&self, io: &mut T) -> io::Result<Vec<u8>> {
        let mut length = [0; 4];
        io.read_exact(&mut length).await?;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        self.check(length)?;
        let mut share = Share { budget: self.budget.clone(), bytes: 0 };
        let mut frame = Vec::new();
        while frame.len() < length {
            let start = frame.len();
            let step = READ_STEP_BYTES.min(length - start);
            share.grow(step)?;
            frame.resize(start + step, 0);
            io.read_exact(&mut frame[start..]).await?;
        }
        Ok(frame)
    }

    async fn write<T: AsyncWrite + Unpin + Send>(
        &self,
        io: &mut T,
        frame: &[u8],
    ) -> io::Result<()> {
        self.check(frame.len())?;
        let length = u32::try_from(frame.len()).map_err(io::Error::other)?;
        io.write_all(&length.to_be_bytes()).await?;
        io.write_all(frame).await?;
        io.flush().await
    }

    fn check(&self, bytes: usize) -> Result<(), FrameError> {
        if bytes > self.max_bytes {
            return Err(FrameError::TooLarge { bytes, most: self.max_bytes });
        }
        Ok(())
    }
}

impl Codec for FrameCodec {
    type Protocol = StreamProtocol;
    type Request = Vec<u8>;
    type Response = Vec<u8>;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Vec<u8>>
    where
        T: AsyncRead + Unpin + Send,
    {
        self.read(io).await
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Vec<u8>>
    where
        T: AsyncRead + Unpin + Send,
    {
        self.read(io).await
    }

    async fn write_request<T>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        request: Vec<u8>,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        self.write(io, &request).await
    }

    async fn write_response<T>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        response: Vec<u8>,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        self.write(io, &response).await
    }
}

#[cfg(test)]
mod tests {
    use futures::io::Cursor;

    use super::*;

    fn codec(max_bytes: usize) -> FrameCodec {
        FrameCodec { max_bytes, budget: Budget::default() }
    }

    async fn read(max_bytes: usize, bytes: &[u8]) -> Result<Vec<u8>, RequestError> {
        let codec = codec(max_bytes);
        let frame = codec.read(&mut Cursor::new(bytes)).await;
        assert_eq!(codec.budget.0.load(Ordering::Relaxed), 0, "the budget is given back");
        frame.map_err(RequestError::from)
    }

    #[tokio::test]
    async fn frames_come_back_as_written() {
        for length in [0, 1, READ_STEP_BYTES - 1, READ_STEP_BYTES, 3 * READ_STEP_BYTES + 1] {
            let frame: Vec<u8> = (0..length).map(|i| u8::try_from(i % 251).unwrap()).collect();
            let mut stream = Cursor::new(Vec::new());
            codec(length).write(&mut stream, &frame).await.unwrap();
            assert_eq!(read(length, stream.get_ref()).await, Ok(frame));
        }
    }

    #[tokio::test]
    async fn what_is_no_frame_is_refused() {
        let cases: [(&[u8], RequestError); 6] = [
            (&[], RequestError::NoReply),
            (&[0, 0, 0], RequestError::NoReply),
            (&[0, 0, 0, 2, 7], RequestError::NoReply),
            (&[0, 0, 0, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9], RequestError::TooLarge),
            (&[0xff, 0xff, 0xff, 0xff], RequestError::TooLarge),
            (b"GET / HTTP/1.1\r\n", RequestError::TooLarge),
        ];
        for (bytes, error) in cases {
            assert_eq!(read(8, bytes).await, Err(error), "{bytes:?}");
        }
    }

    #[tokio::test]
    async fn an_announcement_without_bytes_holds_one_step_at_most() {
        let codec = codec(MAX_READING_BYTES);
        let length = u32::try_from(MAX_READING_BYTES).unwrap().to_be_bytes();
        let mut stream = Cursor::new(length).chain(Pending);
        let read = codec.read(&mut stream);
        futures::pin_mut!(read);
        assert!(futures::poll!(read).is_pending());
        assert!(codec.budget.0.load(Ordering::Relaxed) <= READ_STEP_BYTES);
    }

    #[tokio::test]
    async fn frames_beyond_the_budget_are_refused() {
        let codec = codec(8);
        codec.budget.0.store(MAX_READING_BYTES, Ordering::Relaxed);
        let error = codec.read(&mut Cursor::new([0, 0, 0, 1, 7])).await.unwrap_err();
        assert_eq!(RequestError::from(error), RequestError::Busy);
    }

    #[tokio::test]
    async fn an_oversize_frame_is_not_written() {
        let mut stream = Cursor::new(Vec::new());
        let error = codec(3).write(&mut stream, &[0; 4]).await.unwrap_err();
        assert_eq!(RequestError::from(error), RequestError::TooLarge);
        assert!(stream.get_ref().is_empty());
    }

    /// A stream that stays silent.
    struct Pending;

    impl AsyncRead for Pending {
        fn poll_read(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
            _: &mut [u8],
        ) -> std::task::Poll<io::Result<usize>> {
            std::task::Poll::Pending
        }
    }
}
