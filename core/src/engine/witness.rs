//! What providers have signed, as it is heard: locks, redemptions, proofs against those that
//! contradict themselves.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::certificate::Certificate;
use crate::certificate::equivocation::{ProofError, Statement, prove, verify_proof};
use crate::certificate::objects::{EquivProof, Hop, StatementKind};
use crate::engine::io::{Effect, Topic};
use crate::engine::kernel::{
    Context, Judged, Record, Stored, Table, Unreadable, judge, records as read,
};
use crate::ids::{CertId, Key, TermsHash};
use crate::limits::{GRANTS_MAX, PROOF_MAX_BYTES};
use crate::reason;
use crate::reasons::Reason;
use crate::wire::{self, Envelope, WireError};

/// Providers that are remembered as proven equivocators. Keys are free, so the room for
/// proofs is not: those of strangers beyond it are not kept.
const PROOFS_MAX: usize = 4096;
/// Statements remembered of one (provider, cert_id, seq): attempts beyond are rare, and the
/// oldest matter least.
const STATEMENTS_PER_SEQ: usize = 16;

/// A proof on disk; its key is that of the provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ProofRecord(EquivProof);

impl Stored for ProofRecord {
    const TABLE: Table = Table::Proof;
}

type SeqKey = (Key, CertId, u32);

/// What was heard, bounded; the oldest is forgotten.
#[derive(Debug, Default)]
struct Heard {
    statements: BTreeMap<SeqKey, VecDeque<Statement>>,
    order: VecDeque<SeqKey>,
}

impl Heard {
    fn key(statement: &Statement) -> SeqKey {
        let consumed = statement.consumes();
        (consumed.provider, consumed.cert_id, consumed.seq)
    }

    fn knows(&self, statement: &Statement) -> bool {
        let known = self.statements.get(&Self::key(statement));
        known.is_some_and(|known| known.contains(statement))
    }

    /// A statement that contradicts this one.
    fn contradiction(&self, statement: &Statement) -> Option<&Statement> {
        let key = Self::key(statement);
        if !matches!(statement, Statement::Activation(_)) {
            let known = self.statements.get(&key)?;
            return known.iter().find(|known| known.contradicts(statement));
        }
        // Activations may also clash with those of the provider's other certificates.
        let first = (key.0, CertId([0; 32]), 0);
        let last = (key.0, CertId([0xff; 32]), u32::MAX);
        let known = self.statements.range(first..=last).flat_map(|(_, known)| known);
        known.into_iter().find(|known| known.contradicts(statement))
    }

    fn insert(&mut self, statement: Statement) {
        let key = Self::key(&statement);
        let known = self.statements.entry(key).or_default();
        known.push_back(statement);
        if known.len() > STATEMENTS_PER_SEQ {
            known.pop_front();
            return;
        }
        self.order.push_back(key);
        if self.order.len() > GRANTS_MAX
            && let Some(oldest) = self.order.pop_front()
            && let Some(known) = self.statements.get_mut(&oldest)
        {
            known.pop_front();
            if known.is_empty() {
                self.statements.remove(&oldest);
            }
        }
    }

    /// Whether a grant for other terms, of this or a later attempt, was heard.
    fn conflicts(
        &self,
        provider: Key,
        cert: CertId,
        seq: u32,
        attempt: u32,
        terms_hash: TermsHash,
    ) -> bool {
        self.statements.get(&(provider, cert, seq)).into_iter().flatten().any(|statement| {
            let heard = statement.consumes();
            heard.cause != terms_hash.0 && (heard.attempt >= attempt || heard.is_final)
        })
    }
}

/// Statements of all providers that this node has heard of, and proofs against them.
#[derive(Debug, Default)]
pub struct Witness {
    heard: Heard,
    proofs: BTreeMap<Key, EquivProof>,
}

impl Witness {
    /// Restores proofs from the journal. Records of other tables are left alone.
    ///
    /// # Errors
    /// [`Unreadable`].
    pub fn load(&mut self, ctx: &mut Context<'_>, records: &[Record]) -> Result<(), Unreadable> {
        for found in read::<ProofRecord>(records) {
            let (record, proof) = found?;
            let provider = Key(record.key_array()?);
            ctx.conduct.convict(provider);
            self.proofs.insert(provider, proof.0);
        }
        Ok(())
    }

    /// Whether a provider was proven to have made contradicting statements.
    #[must_use]
    pub fn is_equivocator(&self, provider: Key) -> bool {
        self.proofs.contains_key(&provider)
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

    /// Judges a grant on `locks`; the code is that of what is not accepted.
    pub fn on_lock_gossip(&mut self, ctx: &mut Context<'_>, bytes: &[u8]) -> Judged {
        judge(self.on_grant(ctx, bytes))
    }

    /// Judges a message on `proofs`; the code is that of what is not accepted.
    pub fn on_proof_gossip(&mut self, ctx: &mut Context<'_>, bytes: &[u8]) -> Judged {
        judge(self.on_proof(ctx, bytes))
    }

    fn on_grant(&mut self, ctx: &mut Context<'_>, bytes: &[u8]) -> Result<(), Reason> {
        let envelope: Envelope = wire::decode_exact(bytes).map_err(WireError::reason)?;
        let statement = verify_grant(&envelope, ctx).map_err(WireError::reason)?;
        if self.heard.knows(&statement) {
            return Err(reason!("lock.known"));
        }
        self.learn(ctx, statement);
        Ok(())
    }

    fn on_proof(&mut self, ctx: &mut Context<'_>, bytes: &[u8]) -> Result<(), Reason> {
        if bytes.len() > PROOF_MAX_BYTES {
            return Err(WireError::Oversize.reason());
        }
        let proof: EquivProof = wire::decode_record(bytes).map_err(WireError::reason)?;
        let provider = verify_proof(&proof, ctx.params.magic).map_err(ProofError::reason)?;
        if self.is_equivocator(provider) {
            return Err(reason!("proof.known"));
        }
        if self.proofs.len() >= PROOFS_MAX {
            return Err(reason!("proof.full"));
        }
        self.convict(ctx, provider, proof);
        Ok(())
    }

    /// Remembers a statement and publishes the proof if it contradicts an earlier one.
    fn learn(&mut self, ctx: &mut Context<'_>, statement: Statement) {
        if self.heard.knows(&statement) {
            return;
        }
        let provider = statement.consumes().provider;
        let proof = self.heard.contradiction(&statement).and_then(|known| prove(known, &statement));
        self.heard.insert(statement);
        if let Some(proof) = proof
            && !self.is_equivocator(provider)
            && self.proofs.len() < PROOFS_MAX
        {
            let bytes = wire::encode(&proof);
            self.convict(ctx, provider, proof);
            ctx.out.push(Effect::Publish { topic: Topic::Proofs, bytes });
        }
    }

    fn convict(&mut self, ctx: &mut Context<'_>, provider: Key, proof: EquivProof) {
        ctx.out.store(&provider.0, &ProofRecord(proof.clone()));
        ctx.conduct.convict(provider);
        self.proofs.insert(provider, proof);
    }

    /// Remembers every provider statement in a certificate that has verified.
    pub fn learn_certificate(&mut self, ctx: &mut Context<'_>, certificate: &Certificate) {
        for hop in &certificate.hops {
            let statements = match hop {
                Hop::Sale { lock, activation, .. } => [
                    Some((StatementKind::LockGrant, lock)),
                    Some((StatementKind::Activation, activation)),
                ],
                Hop::Gift { activation, .. } => {
                    [None, Some((StatementKind::Activation, activation))]
                }
            };
            for (kind, bytes) in statements.into_iter().flatten() {
                if let Ok(statement) = Statement::verify(kind, bytes, ctx.params.magic) {
                    self.learn(ctx, statement);
                }
            }
        }
    }
}

/// Both kinds have fixed lengths that differ, so at most one decodes.
fn verify_grant(envelope: &Envelope, ctx: &Context<'_>) -> Result<Statement, WireError> {
    let magic = ctx.params.magic;
    match Statement::verify(StatementKind::LockGrant, envelope, magic) {
        Err(WireError::Malformed | WireError::NotCanonical) => {
            Statement::verify(StatementKind::RedeemGrant, envelope, magic)
        }
        other => other,
    }
}
