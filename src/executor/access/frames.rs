//! Frames: a kind, a length of four bytes (big-endian), and so many bytes. Sessions are made of
//! them, and so is what runs over a session for a program or for files, with kinds of its own.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

/// Bytes of one frame at most.
pub const FRAME_MAX_BYTES: usize = 32 << 10;
/// What an end may send to a program before it has read it, bytes: so a signal never waits behind
/// input that nobody reads.
pub const AHEAD_BYTES: usize = 512 << 10;

/// Kinds of frames to and from a program, or of the content of files.
pub mod kind {
    /// To the lease: input, or content; an empty one is its end.
    pub const INPUT: u8 = 0;
    /// From the lease: standard output, or content.
    pub const OUTPUT: u8 = 1;
    /// From the lease: standard error.
    pub const ERRORS: u8 = 2;
    /// To the lease: rows and columns, two bytes each.
    pub const SIZE: u8 = 3;
    /// To the lease: number of a signal, one byte.
    pub const SIGNAL: u8 = 4;
    /// From the lease, as the last one: exit code, four bytes.
    pub const EXIT: u8 = 5;
    /// From the lease: so many bytes of input were taken, four bytes.
    pub const TAKEN: u8 = 6;
    /// From the lease, as the last one: a reason code, a line break, a sentence.
    pub const FAILED: u8 = 7;
}

/// One frame.
#[must_use]
pub fn frame(kind: u8, bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let mut frame = Vec::with_capacity(5 + bytes.len());
    frame.push(kind);
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(bytes);
    frame
}

/// Reads a frame: its bytes into `data`, its kind as the answer.
///
/// # Errors
/// The stream's, also at its end; [`io::ErrorKind::InvalidData`] for one that is too long.
pub async fn read_frame(
    stream: &mut (impl AsyncRead + Unpin),
    data: &mut Vec<u8>,
) -> io::Result<u8> {
    let mut head = [0; 5];
    stream.read_exact(&mut head).await?;
    let [kind, length @ ..] = head;
    let length = u32::from_be_bytes(length) as usize;
    if length > FRAME_MAX_BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    data.resize(length, 0);
    stream.read_exact(data).await?;
    Ok(kind)
}
