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

/// What becomes of a message, and the code of what is not taken.
pub type Judged = (Verdict, Option<&'static str>);

/// Judges a message: one that is not taken is rejected if its sender is at fault, else ignored.
pub(in crate::engine) fn judge(taken: Result<(), Reason>) -> Judged {
    let Err(reason) = taken else { return (Verdict::Accept, None) };
    let verdict = match reason.blame() {
        Blame::Peer => Verdict::Reject,
        Blame::Nobody | Blame::Local => Verdict::Ignore,
    };
    (verdict, Some(reason.code()))
}
