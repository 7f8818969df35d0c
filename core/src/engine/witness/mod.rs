//! What providers have signed, as it is heard: locks, sales, redemptions, and proofs against those
//! that contradict themselves.
//!
//! Every Activation is heard: the provider publishes it, and so does a buyer, who cannot be kept
//! from it, with all that its certificate rests on. Two sales of one unit thus meet at every node,
//! which convicts the provider. Whom an Activation is for it does not tell: it names its holder
//! blinded.

mod heard;
mod messages;
mod newest;
mod proofs;

pub use messages::{WitnessReply, WitnessRequest};

use self::heard::Heard;
pub(super) use self::newest::HeardV1;
use self::newest::Memory;
pub(super) use self::proofs::ProofRecord;
use self::proofs::Proofs;
use super::io::{Effect, Topic};
use super::kernel::{Context, Judged, Record, Unreadable, judge};
use crate::certificate::Certificate;
use crate::certificate::equivocation::{ProofError, Statement, prove, verify_proof};
use crate::certificate::objects::{Base, EquivProof, Hop, StatementKind};
use crate::epoch::epoch_at;
use crate::ids::{CertId, Key, TermsHash};
use crate::limits::{PROOF_MAX_BYTES, SETTLE_MAX_BYTES};
use crate::reason;
use crate::reasons::Reason;
use crate::units::Slot;
use crate::wire::{self, Envelope, WireError};

/// Bytes of statements in one answer: three quarters of a message.
const ANSWER_MAX_BYTES: usize = SETTLE_MAX_BYTES / 4 * 3;

/// Statements of all providers that this node has heard of, and proofs against them.
#[derive(Debug, Default)]
pub struct Witness {
    heard: Heard,
    memory: Memory,
    proofs: Proofs,
    /// Slot that had passed when what is old was last forgotten.
    cleared: Slot,
}

impl Witness {
    /// Restores proofs, and what was heard last of each provider, from the journal. Records of
    /// other tables are left alone.
    ///
    /// # Errors
    /// [`Unreadable`].
    pub fn load(&mut self, ctx: &mut Context<'_>, records: &[Record]) -> Result<(), Unreadable> {
        for (slot, statement) in self.memory.load(ctx, records)? {
            self.heard.insert(statement, slot, 0);
        }
        self.proofs.load(ctx, records)
    }

    /// Whether a provider was proven to have made contradicting statements.
    #[must_use]
    pub fn is_equivocator(&self, provider: Key) -> bool {
        self.proofs.has(&provider)
    }

    /// Proofs of equivocation by provider.
    pub fn proofs(&self) -> impl Iterator<Item = (&Key, &EquivProof)> {
        self.proofs.iter()
    }

    /// Whether a grant of this provider for (cert, seq) with other terms, of this or a later
    /// attempt, was heard, or anything that convicts it.
    #[must_use]
    pub fn conflicting_lock(
        &self,
        provider: Key,
        cert: CertId,
        seq: u32,
        attempt: u32,
        terms_hash: TermsHash,
    ) -> bool {
        self.is_equivocator(provider)
            || self.heard.conflicts(provider, cert, seq, attempt, terms_hash)
    }

    /// Takes a statement from `locks`, of a provider that trades or of whom this node has
    /// something: `is_known` tells. Others' are neither kept nor passed on.
    ///
    /// # Errors
    /// Why it is not taken.
    pub fn on_statement(
        &mut self,
        ctx: &mut Context<'_>,
        is_known: &dyn Fn(&Key) -> bool,
        bytes: &[u8],
    ) -> Result<Statement, Reason> {
        let envelope: Envelope = wire::decode_exact(bytes).map_err(WireError::reason)?;
        let provider = Key(envelope.key);
        let is_trader = || self.heard.has(&provider) || is_known(&provider);
        if provider != ctx.me() && !is_trader() {
            return Err(reason!("lock.not_a_trader"));
        }
        if self.heard.is_loud(&provider, epoch_at(ctx.now_ms, ctx.params)) {
            return Err(reason!("lock.quota"));
        }
        let statement = verify(&envelope, ctx).map_err(WireError::reason)?;
        if self.heard.knows(&statement) {
            return Err(reason!("lock.known"));
        }
        self.learn(ctx, statement.clone());
        Ok(statement)
    }

    /// Judges a message on `proofs`; `is_known` as for a statement.
    pub fn on_proof_gossip(
        &mut self,
        ctx: &mut Context<'_>,
        is_known: &dyn Fn(&Key) -> bool,
        bytes: &[u8],
    ) -> Judged {
        judge(self.on_proof(ctx, is_known, bytes))
    }

    fn on_proof(
        &mut self,
        ctx: &mut Context<'_>,
        is_known: &dyn Fn(&Key) -> bool,
        bytes: &[u8],
    ) -> Result<(), Reason> {
        if bytes.len() > PROOF_MAX_BYTES {
            return Err(WireError::Oversize.reason());
        }
        let proof: EquivProof = wire::decode_record(bytes).map_err(WireError::reason)?;
        let signer = Key(proof.a.1.key);
        if self.is_equivocator(signer) {
            return Err(reason!("proof.known"));
        }
        let matters = |key: &Key| self.heard.has(key) || is_known(key);
        if !matters(&signer) {
            return Err(reason!("proof.not_a_trader"));
        }
        let provider = verify_proof(&proof, ctx.params.magic).map_err(ProofError::reason)?;
        if self.proofs.take(ctx, provider, proof, &matters, false) {
            Ok(())
        } else {
            Err(reason!("proof.full"))
        }
    }

    /// Remembers a statement and publishes the proof if it contradicts an earlier one.
    fn learn(&mut self, ctx: &mut Context<'_>, statement: Statement) {
        if self.heard.knows(&statement) {
            return;
        }
        let provider = statement.provider();
        let proof = self.heard.contradiction(&statement).and_then(|known| prove(known, &statement));
        let slot = ctx.params.slot_at(ctx.now_ms);
        self.memory.hear(ctx, &statement);
        self.heard.insert(statement, slot, epoch_at(ctx.now_ms, ctx.params));
        let Some(proof) = proof else { return };
        let bytes = wire::encode(&proof);
        let matters = |key: &Key| self.heard.has(key);
        if !self.proofs.has(&provider) && self.proofs.take(ctx, provider, proof, &matters, true) {
            ctx.out.push(Effect::Publish { topic: Topic::Proofs, bytes });
        }
    }

    /// Remembers every provider statement in a certificate that has verified. Its provider is one
    /// that trades, or that matters to this node.
    pub fn learn_certificate(&mut self, ctx: &mut Context<'_>, certificate: &Certificate) {
        let bases = certificate.bases.iter().filter_map(|base| match base {
            Base::Checkpoint { activation, .. } => Some((StatementKind::Activation, activation)),
            Base::Issue(_) => None,
        });
        let hops = certificate.hops.iter().flat_map(|hop| {
            let lock = match hop {
                Hop::Sale { lock, .. } => Some((StatementKind::LockGrant, lock)),
                Hop::Gift { .. } | Hop::Split { .. } | Hop::Merge { .. } => None,
            };
            let activations = hop.activations().iter();
            lock.into_iter().chain(activations.map(|bytes| (StatementKind::Activation, bytes)))
        });
        for (kind, bytes) in bases.chain(hops) {
            if let Ok(statement) = Statement::verify(kind, bytes, ctx.params.magic) {
                self.learn(ctx, statement);
            }
        }
    }

    /// Publishes what a certificate that this node has just bought rests on, unless it was heard:
    /// two that were sold the same learn of each other so.
    pub fn testify(&self, ctx: &mut Context<'_>, certificate: &Certificate) {
        for activation in certificate.hops.iter().flat_map(Hop::activations) {
            let kind = StatementKind::Activation;
            let Ok(statement) = Statement::verify(kind, activation, ctx.params.magic) else {
                continue;
            };
            if !self.heard.knows(&statement) {
                let bytes = wire::encode(activation);
                ctx.out.push(Effect::Publish { topic: Topic::Locks, bytes });
            }
        }
    }

    /// Answers a provider that asks what it has said.
    #[must_use]
    pub fn on_request(&self, peer: Key, request: WitnessRequest) -> WitnessReply {
        let WitnessRequest::Mine = request;
        let mut bytes = 0_usize;
        let said = self.heard.said_by(&peer).map(|said| (said.kind(), said.envelope().clone()));
        let fits = said.take_while(|(_, envelope)| {
            bytes = bytes.saturating_add(wire::encode(envelope).len());
            bytes <= ANSWER_MAX_BYTES
        });
        WitnessReply::Heard(fits.collect())
    }

    /// Forgets what is old, once a slot, and writes what was heard, once an epoch.
    pub fn on_tick(&mut self, ctx: &mut Context<'_>, is_known: &dyn Fn(&Key) -> bool) {
        self.memory.on_tick(ctx);
        let past = ctx.params.slot_at(ctx.past_ms());
        if std::mem::replace(&mut self.cleared, past) != past {
            self.heard.expire(past);
            self.memory.expire(ctx, past);
            self.proofs.expire(ctx, is_known);
        }
    }
}

/// All kinds have lengths that differ, so at most one decodes.
fn verify(envelope: &Envelope, ctx: &Context<'_>) -> Result<Statement, WireError> {
    let kinds = [StatementKind::LockGrant, StatementKind::RedeemGrant, StatementKind::Activation];
    let mut result = Err(WireError::Malformed);
    for kind in kinds {
        result = Statement::verify(kind, envelope, ctx.params.magic);
        if !matches!(result, Err(WireError::Malformed | WireError::NotCanonical)) {
            break;
        }
    }
    result
}
