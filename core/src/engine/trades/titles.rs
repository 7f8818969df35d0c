//! What trades need to know of titles to capacity: from the register of this provider, and
//! from what this node has heard of other providers.

use crate::certificate::objects::Issue;
use crate::engine::kernel::Context;
use crate::ids::{CertId, Key, TermsHash, TradeId};
use crate::settlement::objects::{Accept, LockGrant, Terms, Transfer};
use crate::units::{Slot, Units, Window};
use crate::wire::{Envelope, Verified};

/// What a certificate is issued for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fresh {
    pub class: u16,
    pub features: u64,
    pub units: Units,
    pub window: Window,
    /// Last slot in which it is to be redeemed.
    pub not_after_slot: Slot,
    /// Who may take it back from its buyer's holder.
    pub recall: Option<Key>,
}

/// Who holds what, and which (certificate, seq) is locked for whom.
///
/// Trades check terms, consent and payment; the register alone decides whether a certificate
/// can move. Refusals are stable reason codes.
pub trait Titles {
    /// Issues the certificate of a trade, once: the same trade gets the same Issue.
    ///
    /// # Errors
    /// Units that are not free, or not this host's.
    fn issue(
        &mut self,
        ctx: &mut Context<'_>,
        trade: TradeId,
        fresh: &Fresh,
    ) -> Result<Verified<Issue>, &'static str>;

    /// Who holds a certificate of this provider. Cheap: it is asked before signatures of
    /// strangers are verified.
    fn holder(&self, cert: CertId) -> Option<Key>;

    /// Locks (cert_id, seq) for these terms alone and gossips the grant; the same terms get
    /// the same grant.
    ///
    /// # Errors
    /// Consumed, locked for others, or too many live locks of one funder.
    fn lock(
        &mut self,
        ctx: &mut Context<'_>,
        terms: &Verified<Terms>,
        accepts: &[Verified<Accept>],
    ) -> Result<Verified<LockGrant>, &'static str>;

    /// Frees the lock for these terms. `evidence` is the id of the
    /// TermsCancel, of the Accept whose consent has elapsed, or of the refund transaction.
    fn release(&mut self, ctx: &mut Context<'_>, terms_hash: TermsHash, evidence: [u8; 32]);

    /// Moves a paid certificate to `terms.to` and signs the Activation, once. The caller has
    /// checked the payment on the chain.
    ///
    /// # Errors
    /// No live lock for these terms.
    fn activate(
        &mut self,
        ctx: &mut Context<'_>,
        terms: &Verified<Terms>,
        transfer: &Transfer,
    ) -> Result<Envelope, &'static str>;

    /// Takes back what was activated for these terms on the provider's word alone, if nothing has
    /// followed from it: the coins have gone back to the buyer.
    fn take_back(&mut self, ctx: &mut Context<'_>, terms_hash: TermsHash);

    /// The Activation of a sale, for a party of its certificate; however long ago it was.
    fn activation(&self, terms: TermsHash, peer: Key) -> Option<Envelope>;

    /// Whether a grant of this provider for (cert, seq, attempt) with other terms was heard.
    fn conflicting_lock(
        &self,
        provider: Key,
        cert: CertId,
        seq: u32,
        attempt: u32,
        terms_hash: TermsHash,
    ) -> bool;
}
