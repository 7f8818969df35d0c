//! What the provider's register and the holder's holdings have in common: how a
//! certificate looks to people, and who is a party to it.

use super::kernel::Context;
use crate::certificate::objects::{Gift, Hop};
use crate::certificate::verify::TransferKind;
use crate::certificate::{Certificate, VerifiedCertificate};
use crate::ids::{CertId, Key, LeaseId, StandingId, TermsHash};
use crate::settlement::objects::Terms;

/// On which side of a certificate this node stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificateRole {
    Issued,
    Held,
}

/// A certificate moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CertificateNews {
    pub cert: CertId,
    /// What: `issued`, `acquired`, `given`, `received`, `redeemed`, `sold`, `unsold`, `split`, `merge`,
    /// `taken_back` (the coins of its sale are its buyer's again).
    pub what: &'static str,
}

/// The lock on a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LockView {
    pub terms_hash: TermsHash,
    pub attempt: u32,
}

/// A certificate as this node knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateView {
    /// On which side this node stands.
    pub role: CertificateRole,
    /// Id, provider, class, units, window, holder, seq, transfers.
    pub facts: VerifiedCertificate,
    /// `active`, `given`, `recalled`, `sold`, `redeemed`, `split`, `merged` or `expired`.
    pub state: &'static str,
    /// The lock of an open sale, known to the provider alone.
    pub lock: Option<LockView>,
    /// To whom a gift waits for the provider.
    pub gift_pending: Option<Key>,
    /// Which of a split and a merge waits for the provider.
    pub recut_pending: Option<TransferKind>,
    pub lease: Option<LeaseId>,
    /// The standing ask for which it is reserved.
    pub on_offer: Option<StandingId>,
}

/// Name of a certificate's state.
pub(super) fn state(
    is_redeemed: bool,
    spent: Option<TransferKind>,
    is_given: bool,
    is_past: bool,
) -> &'static str {
    if let Some(kind) = spent {
        return match kind {
            TransferKind::Merge => "merged",
            TransferKind::Split => "split",
            TransferKind::Sale => "sold",
            TransferKind::Gift => "given",
            TransferKind::Recall => "recalled",
        };
    }
    match (is_redeemed, is_given, is_past) {
        (true, ..) => "redeemed",
        (_, true, _) => "given",
        (.., true) => "expired",
        _ => "active",
    }
}

/// Whether a peer is provider, present or former holder, or has paid for a certificate.
pub(super) fn is_party(certificate: &Certificate, facts: &VerifiedCertificate, peer: Key) -> bool {
    let in_hop = |hop: &Hop| match hop {
        Hop::Sale { terms, .. } => terms.peek::<Terms>().is_ok_and(|terms| {
            terms.from == peer
                || terms.to == peer
                || terms.funders.iter().any(|funder| funder.key == peer)
        }),
        Hop::Gift { gift, .. } => {
            gift.key == peer.0 || gift.peek::<Gift>().is_ok_and(|gift| gift.to == peer)
        }
        Hop::Split { split: cause, .. } | Hop::Merge { merge: cause, .. } => cause.key == peer.0,
    };
    // The holder stands in no hop, if a checkpoint is all that there is.
    let is_now = peer == facts.provider || peer == facts.holder;
    is_now || certificate.hops.iter().any(in_hop)
}

pub(super) fn notify(ctx: &mut Context<'_>, cert: CertId, what: &'static str) {
    ctx.out.notify(CertificateNews { cert, what });
}
