//! What the provider's register and the holder's holdings have in common: how a
//! certificate looks to people, and who is a party to it.

use super::kernel::Context;
use crate::certificate::objects::{Activation, Hop};
use crate::certificate::{Certificate, VerifiedCertificate};
use crate::ids::{CertId, Key, LeaseId, TermsHash};
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
    /// What: `issued`, `acquired`, `given`, `received`, `redeemed`.
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
    /// `active`, `given`, `redeemed` or `expired`.
    pub state: &'static str,
    /// The lock of an open sale, known to the provider alone.
    pub lock: Option<LockView>,
    /// To whom a gift waits for the provider.
    pub gift_pending: Option<Key>,
    pub lease: Option<LeaseId>,
}

/// Name of a certificate's state.
pub(super) fn state(is_redeemed: bool, is_given: bool, is_past: bool) -> &'static str {
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
        Hop::Gift { gift, activation } => {
            gift.key == peer.0
                || activation.peek::<Activation>().is_ok_and(|moved| moved.holder == peer)
        }
    };
    peer == facts.provider || certificate.hops.iter().any(in_hop)
}

pub(super) fn notify(ctx: &mut Context<'_>, cert: CertId, what: &'static str) {
    ctx.out.notify(CertificateNews { cert, what });
}
