//! What a settlement asks of the provider's register of certificates.
//!
//! The seller and provider state machines see only this trait; the register itself decides
//! who may consume a (cert_id, seq) and signs for it.

use super::objects::{Accept, LockGrant, Terms, Transfer};
use crate::domain::certificate::objects::Issue;
use crate::domain::engine::Context;
use crate::domain::ids::{CertId, Key, TermsHash, TradeId};
use crate::domain::units::{Units, Window};
use crate::wire::{Envelope, Verified};

/// The provider's register. Refusals are reason codes.
pub trait Registrar {
    /// Issues the certificate of a trade and turns the ledger's claim of the row into one of
    /// the certificate. Repeating it gives the same Issue.
    ///
    /// # Errors
    /// The units are not the trade's, or the class is unknown.
    fn issue(
        &mut self,
        ctx: &mut Context<'_>,
        trade: TradeId,
        class: u16,
        features: u64,
        units: &Units,
        window: Window,
    ) -> Result<Verified<Issue>, &'static str>;

    /// Locks (cert_id, seq) for terms and gossips the grant. Repeating it gives the same
    /// grant.
    ///
    /// # Errors
    /// The terms do not sell the certificate, something else consumed or locks it, or a
    /// funder has too many live locks.
    fn lock(
        &mut self,
        ctx: &mut Context<'_>,
        terms: &Verified<Terms>,
        accepts: &[Verified<Accept>],
    ) -> Result<Verified<LockGrant>, &'static str>;

    /// Ends a lock; `evidence` is the hash of what proves that it may end. A certificate
    /// that was never sold gives its units back.
    fn release(&mut self, ctx: &mut Context<'_>, terms_hash: TermsHash, evidence: [u8; 32]);

    /// Moves a paid certificate to its next holder. Repeating it gives the same Activation.
    ///
    /// # Errors
    /// There is no lock for these terms, or the preimage does not fit.
    fn activate_sale(
        &mut self,
        ctx: &mut Context<'_>,
        terms: &Verified<Terms>,
        transfer: &Transfer,
    ) -> Result<Envelope, &'static str>;

    /// Whether anything was heard that speaks against a lock: another grant for the same or
    /// a later attempt, or a proof against the provider.
    fn conflicting_lock(
        &self,
        provider: Key,
        cert: CertId,
        seq: u32,
        attempt: u32,
        terms_hash: TermsHash,
    ) -> bool;
}
