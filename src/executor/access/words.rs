//! What is said on a stream before its session begins: a length of four bytes (big-endian), and so
//! many bytes of one message.

use std::io;

use capex_core::lease::access::Admission;
use capex_core::wire::{decode_record, encode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Longest message: two signed objects of 4 KiB, with keys and signatures.
const MESSAGE_MAX_BYTES: u32 = 10 << 10;

/// Which words are said at the door of a lease process: it lives as long as its lease, and may be of
/// another release than the daemon that knocks. Raised with every change of [`Knock`] or of what
/// answers it, but for a refusal.
const DOOR_WORDS: u8 = 1;

/// First words at the door of a lease process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Knock {
    /// Somebody was let in. Answered by an [`Answer`], and from then on it is a session.
    ///
    /// [`Answer`]: capex_core::lease::access::Answer
    Stream(Admission),
    /// Values of sealed variables follow, for what is run next: so many bytes, as the launcher writes
    /// them. Answered by one byte, [`TAKEN`].
    Secrets { bytes: u32 },
}

/// Answers sealed values. No refusal begins so: its length does.
pub const TAKEN: u8 = 1;

/// Says something.
///
/// # Errors
/// The stream's.
pub async fn say<T: Serialize>(
    stream: &mut (impl AsyncWrite + Unpin),
    message: &T,
) -> io::Result<()> {
    let bytes = encode(message);
    let length = u32::try_from(bytes.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    stream.write_all(&length.to_be_bytes()).await?;
    stream.write_all(&bytes).await?;
    stream.flush().await
}

/// Knocks at the door of a lease process.
///
/// # Errors
/// The stream's.
pub async fn knock(door: &mut (impl AsyncWrite + Unpin), knock: &Knock) -> io::Result<()> {
    door.write_u8(DOOR_WORDS).await?;
    say(door, knock).await
}

/// Hears who knocks; `None` if it is in words of another release. The caller bounds the time.
///
/// # Errors
/// As [`hear`].
pub async fn hear_knock(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Knock>> {
    match stream.read_u8().await? {
        DOOR_WORDS => hear(stream).await.map(Some),
        _ => Ok(None),
    }
}

/// Hears what the other end says. The caller bounds the time.
///
/// # Errors
/// The stream's; [`io::ErrorKind::InvalidData`] for what is no such message.
pub async fn hear<T: Serialize + DeserializeOwned>(
    stream: &mut (impl AsyncRead + Unpin),
) -> io::Result<T> {
    let length = stream.read_u32().await?;
    if length > MESSAGE_MAX_BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = vec![0; length as usize];
    stream.read_exact(&mut bytes).await?;
    decode_record(&bytes).map_err(|_| io::ErrorKind::InvalidData.into())
}
