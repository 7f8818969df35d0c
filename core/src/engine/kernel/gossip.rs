//! What every gossip topic does first.

use crate::engine::io::Verdict;
use crate::limits::GOSSIP_MAX_BYTES;
use crate::reasons::{Blame, Reason};
use crate::wire::{Envelope, WireError, decode_record};

/// The envelope of a gossip message.
pub(in crate::engine) fn gossip_envelope(bytes: &[u8]) -> Result<Envelope, WireError> {
    if bytes.len() > GOSSIP_MAX_BYTES {
        return Err(WireError::Oversize);
    }
    decode_record(bytes)
}

/// Judges a message that is not taken: rejected if its sender is at fault, else ignored.
pub(in crate::engine) fn judge(reason: Reason) -> (Verdict, Option<&'static str>) {
    let verdict = match reason.blame() {
        Blame::Peer => Verdict::Reject,
        Blame::Nobody | Blame::Local => Verdict::Ignore,
    };
    (verdict, Some(reason.code()))
}

/// Verdict on bytes that failed.
pub(in crate::engine) fn wire_verdict(error: WireError) -> (Verdict, Option<&'static str>) {
    judge(error.reason())
}
