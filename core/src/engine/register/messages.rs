//! What a register is asked by holders, and what it is told to do.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::Room;
use crate::certificate::Certificate;
use crate::ids::CertId;
use crate::wire::Envelope;

/// What holders ask the provider of their certificates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RegisterRequest {
    /// Holder→P: signed Gift. Answer: `Activation`.
    Gift(Envelope),
    /// Holder→P: signed Split. Answer: `Activations`.
    Split(Envelope),
    /// Holder→P: signed Merge. Answer: `Activation`.
    Merge(Envelope),
    /// Holder→P: rest the certificate on your word, its history is long. Answer: `Certificate`.
    Checkpoint(CertId),
    /// Anyone who is, or was told to be, a party → P, or whoever holds it. Answer:
    /// `Certificate`.
    Get(CertId),
    /// Anyone → P: what do I hold, of certificates above this id? Answer: `Held`.
    Held { after: CertId },
}

/// What a register answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RegisterReply {
    /// Signed Activation: the certificate moved, or was merged.
    Activation(Envelope),
    /// Signed Activation of every part, in the order of the split.
    Activations(Vec<Envelope>),
    Certificate(Certificate),
    /// Certificates that can still be used, with their sequence numbers, ascending: at most
    /// [`HELD_PER_REPLY`]. A full answer has a next one.
    Held(Vec<(CertId, u32)>),
}

/// Certificates in one answer: 9 KiB.
pub const HELD_PER_REPLY: usize = 256;

/// What the register has asked a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegisterPurpose {
    /// A certificate was pushed to its new holder, at a sequence number.
    Push(CertId, u32),
    /// A peer is to tell what it has heard of this register.
    Mine,
}

/// What an operator asks of the register.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegisterCommand {
    /// Set how many units of each class this host sells: (class, units).
    SetCapacity(Vec<(u16, u32)>),
    /// Sell of every class what finds room beside units of other classes that are sold or on
    /// offer.
    Share(Room),
    /// Offer nothing new of these classes: that this host keeps what they promise is not proved.
    Withhold(BTreeSet<u16>),
}
