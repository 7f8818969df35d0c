//! Whether this register knows all that it has signed. One that was restored from an old copy does
//! not, and would sell the same again and contradict itself in public.
//!
//! So a node asks peers, at the start of each life, for what they have heard it say, and looks at
//! what it hears of itself later. One statement that is not in the register halts it for good:
//! nothing is issued, locked, given on or redeemed. What is locked already still settles. A
//! register that was restored on purpose issues nothing before it has asked.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::records::Hold;
use super::{Register, RegisterPurpose};
use crate::certificate::equivocation::{Consumption, Statement};
use crate::certificate::objects::StatementKind;
use crate::engine::certificates::notify;
use crate::engine::io::Protocol;
use crate::engine::kernel::{Context, Record, Stored, Table, Unreadable, records as read};
use crate::engine::messages::SettleRequest;
use crate::engine::witness::{WitnessReply, WitnessRequest};
use crate::ids::Key;
use crate::params::Params;
use crate::units::TimeMs;
use crate::wire::Envelope;

/// Answers after which a restored register issues again.
const ANSWERS_ENOUGH: usize = 3;
/// Chain blocks after which it does so with fewer: on a public network an hour.
const WAIT_BLOCKS: u64 = 6;
/// Peers asked in one life: most of what one knows the others know too.
const ASKED_MAX: usize = 16;
/// Key of the only record of each kind.
const KEY: &[u8] = b"register";

/// A statement of this register that is not in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BehindV1 {
    kind: StatementKind,
    bytes: Envelope,
}

impl Stored for BehindV1 {
    const TABLE: Table = Table::Behind;
}

/// The store was restored from a copy, and this register has not asked yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoredV1 {
    /// When it was restored, unix ms.
    pub at_ms: TimeMs,
}

impl Stored for RestoredV1 {
    const TABLE: Table = Table::Restored;
}

impl RestoredV1 {
    /// Key of its only record, which whoever restores a store writes into it.
    pub const KEY: &'static [u8] = KEY;
}

/// What is known of what peers know.
#[derive(Debug, Default)]
pub(super) struct Mirror {
    behind: Option<BehindV1>,
    restored: Option<RestoredV1>,
    asked: BTreeSet<Key>,
    answered: BTreeSet<Key>,
}

impl Mirror {
    pub(super) fn load(&mut self, records: &[Record]) -> Result<(), Unreadable> {
        for found in read::<BehindV1>(records) {
            self.behind = Some(found?.1);
        }
        for found in read::<RestoredV1>(records) {
            self.restored = Some(found?.1);
        }
        Ok(())
    }

    fn waits_until_ms(&self, params: &Params) -> Option<TimeMs> {
        let wait_ms = params.chain.block_ms.saturating_mul(WAIT_BLOCKS);
        self.restored.map(|restored| restored.at_ms.saturating_add(wait_ms))
    }
}

impl Register {
    /// Why nothing is issued now, if so.
    #[must_use]
    pub fn halted(&self) -> Option<&'static str> {
        if self.mirror.behind.is_some() {
            Some("register.behind")
        } else {
            self.mirror.restored.map(|_| "register.restored")
        }
    }

    pub(super) fn may_issue(&self) -> Result<(), &'static str> {
        self.halted().map_or(Ok(()), Err)
    }

    /// Asks peers that have not been asked in this life, until enough have answered. Before the
    /// chain is there, no answer could be judged.
    pub fn ask_witnesses(&mut self, ctx: &mut Context<'_>, peers: impl Iterator<Item = Key>) {
        let mirror = &mut self.mirror;
        if mirror.answered.len() >= ANSWERS_ENOUGH || ctx.chain.height == 0 {
            return;
        }
        for peer in peers {
            if mirror.asked.len() >= ASKED_MAX {
                return;
            }
            if mirror.asked.insert(peer) {
                let request = SettleRequest::Witness(WitnessRequest::Mine);
                ctx.out.send(peer, Protocol::Settle, &request, RegisterPurpose::Mine);
            }
        }
    }

    /// A witness answered, or could not be reached.
    pub(super) fn on_witness(&mut self, ctx: &mut Context<'_>, peer: Key, said: WitnessReply) {
        let WitnessReply::Heard(said) = said;
        for (kind, bytes) in said {
            if let Ok(statement) = Statement::verify(kind, &bytes, ctx.params.magic) {
                self.hear_own(ctx, &statement);
            }
        }
        self.mirror.answered.insert(peer);
        if self.mirror.answered.len() >= ANSWERS_ENOUGH {
            self.end_wait(ctx);
        }
    }

    /// A statement was heard. One of this register that is not in it halts it.
    pub fn hear_own(&mut self, ctx: &mut Context<'_>, statement: &Statement) {
        let is_own = statement.provider() == ctx.me();
        if !is_own || self.mirror.behind.is_some() || self.has_said(ctx, statement) {
            return;
        }
        let (kind, bytes) = (statement.kind(), statement.envelope().clone());
        let behind = BehindV1 { kind, bytes };
        ctx.out.store(KEY, &behind);
        self.mirror.behind = Some(behind);
        if let Some(said) = statement.consumes().first() {
            notify(ctx, said.cert_id, "unknown here, though signed by this node");
        }
    }

    /// Whether the register has a statement of its own, or may have forgotten it.
    fn has_said(&self, ctx: &Context<'_>, statement: &Statement) -> bool {
        if ctx.chain.height == 0 || self.horizon.is_beyond(ctx, statement.height()) {
            return true;
        }
        statement.consumes().iter().all(|said| self.has_consumed(statement, said))
    }

    /// Whether what a statement consumes is consumed here by the same, or was.
    fn has_consumed(&self, statement: &Statement, said: &Consumption) -> bool {
        let Some(record) = self.issued.get(&said.cert_id) else { return false };
        match (said.seq, said.attempt).cmp(&(record.facts.seq, record.head.attempt)) {
            Ordering::Less => return true,
            Ordering::Greater => return false,
            Ordering::Equal => {}
        }
        match (statement, &record.head.hold) {
            (Statement::Lock(_), Hold::Locked(lock)) => lock.terms_hash.0 == said.cause,
            (Statement::Redeem(_), Hold::Redeemed(lease, _)) => lease.0 == said.cause,
            (Statement::Activation(_), Hold::Spent(spent)) => spent.cause == said.cause,
            // Any other Activation would have begun the next seq.
            _ => false,
        }
    }

    pub(super) fn end_wait_due(&mut self, ctx: &mut Context<'_>) {
        // It was restored by a clock that was ahead, and the wait would last until that day.
        if let Some(restored) = &mut self.mirror.restored
            && restored.at_ms > ctx.now_ms
        {
            restored.at_ms = ctx.now_ms;
            ctx.out.store(KEY, restored);
        }
        if self.mirror.waits_until_ms(ctx.params).is_some_and(|until| ctx.now_ms >= until) {
            self.end_wait(ctx);
        }
    }

    fn end_wait(&mut self, ctx: &mut Context<'_>) {
        if self.mirror.restored.take().is_some() {
            ctx.out.delete(Table::Restored, KEY);
        }
    }

    pub(super) fn waits_until_ms(&self, params: &Params) -> Option<TimeMs> {
        self.mirror.waits_until_ms(params)
    }
}
