//! The register and the witness as trades see them.

use super::Register;
use crate::certificate::objects::Issue;
use crate::engine::kernel::Context;
use crate::engine::trades::{Fresh, Titles};
use crate::engine::witness::Witness;
use crate::ids::{CertId, Key, TermsHash, TradeId};
use crate::settlement::objects::{Accept, LockGrant, Terms, Transfer};
use crate::wire::{Envelope, Verified};

/// What trades ask: its own register as the provider, and what was heard of others.
#[derive(Debug)]
pub struct Desk<'a> {
    /// The provider's book.
    pub register: &'a mut Register,
    /// What was heard of other providers.
    pub witness: &'a Witness,
}

impl Titles for Desk<'_> {
    fn issue(
        &mut self,
        ctx: &mut Context<'_>,
        trade: TradeId,
        fresh: &Fresh,
    ) -> Result<Verified<Issue>, &'static str> {
        self.register.issue(ctx, trade, fresh)
    }

    fn holder(&self, cert: CertId) -> Option<Key> {
        self.register.issued(&cert).map(|facts| facts.holder)
    }

    fn lock(
        &mut self,
        ctx: &mut Context<'_>,
        terms: &Verified<Terms>,
        accepts: &[Verified<Accept>],
    ) -> Result<Verified<LockGrant>, &'static str> {
        self.register.lock(ctx, terms, accepts)
    }

    fn release(&mut self, ctx: &mut Context<'_>, terms_hash: TermsHash, evidence: [u8; 32]) {
        self.register.release(ctx, terms_hash, evidence);
    }

    fn activate(
        &mut self,
        ctx: &mut Context<'_>,
        terms: &Verified<Terms>,
        transfer: &Transfer,
    ) -> Result<Envelope, &'static str> {
        self.register.activate_sale(ctx, terms, transfer)
    }

    fn take_back(&mut self, ctx: &mut Context<'_>, terms_hash: TermsHash) {
        self.register.take_back(ctx, terms_hash);
    }

    fn activation(&self, terms: TermsHash, peer: Key) -> Option<Envelope> {
        self.register.activation_of_sale(terms, peer)
    }

    fn conflicting_lock(
        &self,
        provider: Key,
        cert: CertId,
        seq: u32,
        attempt: u32,
        terms_hash: TermsHash,
    ) -> bool {
        self.witness.conflicting_lock(provider, cert, seq, attempt, terms_hash)
    }
}
