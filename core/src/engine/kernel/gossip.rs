//! What every gossip topic does first.

use crate::engine::io::Verdict;
use crate::limits::GOSSIP_MAX_BYTES;
use crate::wire::{Envelope, WireError, decode_record};

/// The envelope of a gossip message.
pub(in crate::engine) fn gossip_envelope(bytes: &[u8]) -> Result<Envelope, WireError> {
    if bytes.len() > GOSSIP_MAX_BYTES {
        return Err(WireError::Oversize);
    }
    decode_record(bytes)
}

/// Verdict on bytes that failed.
pub(in crate::engine) fn wire_verdict(error: WireError) -> (Verdict, Option<&'static str>) {
    let verdict = if error.is_blamable() { Verdict::Reject } else { Verdict::Ignore };
    (verdict, Some(error.code()))
}
