//! What this node has signed and its provider has still to activate: asked for again until it
//! answers, after a restart too. A provider grants nothing once the window has begun, but it may
//! have granted what was asked before, and its answer may have been lost.

use super::providers::ask;
use super::records::Pending;
use super::{ERRAND_PACE, Holdings, HoldingsPurpose};
use crate::certificate::objects::{Hop, Merge};
use crate::code;
use crate::engine::io::{Done, Protocol};
use crate::engine::kernel::{Answer, Context, Retry, answer, remote_code};
use crate::engine::messages::SettleRequest;
use crate::engine::register::{RegisterReply, RegisterRequest};
use crate::engine::witness::Witness;
use crate::ids::CertId;

/// Unanswered tries after which the command that asked is told so: 15 s.
const COMMAND_TRIES: u32 = 5;

/// What a holder asks of its provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Gift,
    Split,
    Merge,
}

impl Kind {
    /// Something else waits already.
    fn pending(self) -> &'static str {
        match self {
            Self::Gift => code!("gift.pending"),
            Self::Split => code!("split.pending"),
            Self::Merge => code!("merge.pending"),
        }
    }

    fn no_answer(self) -> &'static str {
        match self {
            Self::Gift => code!("gift.no_answer"),
            Self::Split => code!("split.no_answer"),
            Self::Merge => code!("merge.no_answer"),
        }
    }

    fn window_started(self) -> &'static str {
        match self {
            Self::Gift => code!("gift.window_started"),
            Self::Split => code!("split.window_started"),
            Self::Merge => code!("merge.window_started"),
        }
    }

    fn stale_seq(self) -> &'static str {
        match self {
            Self::Gift => code!("gift.stale_seq"),
            Self::Split => code!("split.stale_seq"),
            Self::Merge => code!("merge.stale_seq"),
        }
    }

    fn not_holder(self) -> &'static str {
        match self {
            Self::Gift => code!("gift.not_holder"),
            Self::Split => code!("split.not_holder"),
            Self::Merge => code!("merge.not_holder"),
        }
    }

    fn consumed(self) -> &'static str {
        match self {
            Self::Gift => code!("gift.consumed"),
            Self::Split => code!("split.consumed"),
            Self::Merge => code!("merge.consumed"),
        }
    }

    fn bad_activation(self) -> &'static str {
        match self {
            Self::Gift => code!("gift.bad_activation"),
            Self::Split => code!("split.bad_activation"),
            Self::Merge => code!("merge.bad_activation"),
        }
    }
}

impl Pending {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Gift { .. } => Kind::Gift,
            Self::Split { .. } => Kind::Split,
            Self::Merge { .. } => Kind::Merge,
        }
    }

    fn request(&self) -> RegisterRequest {
        match self {
            Self::Gift { gift, .. } => RegisterRequest::Gift(gift.clone()),
            Self::Split { split, .. } => RegisterRequest::Split(split.clone()),
            Self::Merge { merge, .. } => RegisterRequest::Merge(merge.clone()),
        }
    }

    /// The certificate whose errand asks for it: of a merge the first.
    pub(super) fn lead(&self, cert: CertId) -> CertId {
        match self {
            Self::Gift { .. } | Self::Split { .. } => cert,
            Self::Merge { lead, .. } => *lead,
        }
    }
}

/// Random bytes that no other object has.
pub(super) fn fresh16(ctx: &mut Context<'_>, label: &str) -> [u8; 16] {
    let mut nonce16 = [0; 16];
    nonce16.copy_from_slice(&ctx.fresh(label)[..16]);
    nonce16
}

impl Holdings {
    /// Asks the provider for what was signed, and answers the command when it has.
    pub(super) fn begin(
        &mut self,
        ctx: &mut Context<'_>,
        command: u64,
        kind: Kind,
        started: Result<CertId, &'static str>,
    ) {
        let lead = match started {
            Ok(lead) => lead,
            Err(code) => {
                answer(ctx, Some(command), Err(code));
                return;
            }
        };
        if let Some(earlier) = self.commands.insert(lead, command) {
            answer(ctx, Some(earlier), Err(kind.pending()));
        }
        self.errands.insert(lead, Retry::new(ERRAND_PACE, ctx.now_ms));
        self.send_errand(ctx, lead);
    }

    /// Asks the provider for what waits, unless its window is over.
    pub(super) fn send_errand(&mut self, ctx: &mut Context<'_>, lead: CertId) {
        let waits = self.held.get(&lead).and_then(|record| {
            let pending = record.pending.as_ref()?;
            let until_ms = record.facts.window.ends_at_ms(ctx.params.slot_s);
            Some((pending.request(), pending.kind(), record.facts.provider, until_ms))
        });
        let Some((request, kind, provider, until_ms)) = waits else {
            self.errands.remove(&lead);
            return;
        };
        if ctx.now_ms >= until_ms {
            self.end_errand(ctx, lead, Err(kind.window_started()));
            return;
        }
        let errand = self.errands.entry(lead).or_insert(Retry::new(ERRAND_PACE, ctx.now_ms));
        let tries = errand.tries();
        errand.take(ctx.now_ms);
        if tries >= COMMAND_TRIES {
            let command = self.commands.remove(&lead);
            answer(ctx, command, Err(kind.no_answer()));
        }
        let request = SettleRequest::Register(request);
        ctx.out.send(provider, Protocol::Settle, &request, HoldingsPurpose::Errand(kind, lead));
    }

    /// The provider answered, or could not be reached.
    pub(super) fn on_errand_reply(
        &mut self,
        ctx: &mut Context<'_>,
        witness: &mut Witness,
        kind: Kind,
        lead: CertId,
        told: Answer<RegisterReply>,
    ) {
        let is_pending = |pending: &Pending| pending.kind() == kind;
        let record = self.held.get(&lead);
        let record = record.filter(|record| record.pending.as_ref().is_some_and(is_pending));
        let Some(provider) = record.map(|record| record.facts.provider) else { return };
        let finished = match (kind, told) {
            (Kind::Gift, Answer::Said(RegisterReply::Activation(activation))) => {
                self.finish_gift(ctx, witness, lead, activation)
            }
            (Kind::Split, Answer::Said(RegisterReply::Activations(activations))) => {
                self.finish_split(ctx, witness, lead, &activations)
            }
            (Kind::Merge, Answer::Said(RegisterReply::Activation(activation))) => {
                self.finish_merge(ctx, witness, lead, &activation)
            }
            (_, Answer::Refused(code)) => {
                // The next try finds it shorter.
                if code.ends_with(".too_many_hops") {
                    self.ask_checkpoint(ctx, lead);
                }
                // A checkpoint may have left behind how it moved on.
                if code == kind.stale_seq() || code == kind.not_holder() {
                    self.fetch(ctx, provider, lead, None);
                }
                // An earlier copy of what was refused, or given up, came late and was granted.
                if code == kind.consumed() {
                    ask(ctx, provider, CertId([0; 32]));
                }
                self.end_errand(ctx, lead, Err(remote_code(&code)));
                return;
            }
            // Anything else is no answer: the errand tries again.
            (_, Answer::Said(_) | Answer::None) => return,
        };
        if finished.is_err() {
            self.end_errand(ctx, lead, Err(kind.bad_activation()));
        }
    }

    /// Nothing waits any more; the certificates are as they were.
    pub(super) fn end_errand(
        &mut self,
        ctx: &mut Context<'_>,
        lead: CertId,
        result: Result<Done, &str>,
    ) {
        let pending = self.held.get_mut(&lead).and_then(|record| record.pending.take());
        self.save(ctx, lead);
        if let Some(Pending::Merge { merge, .. }) = &pending {
            let parts = merge.peek::<Merge>().map(|merge| merge.parts).unwrap_or_default();
            for part in parts {
                let is_same = |other: &Pending| matches!(other, Pending::Merge { merge: m, .. } if m == merge);
                if let Some(record) = self.held.get_mut(&part.cert_id)
                    && record.pending.as_ref().is_some_and(is_same)
                {
                    record.pending = None;
                    self.save(ctx, part.cert_id);
                }
            }
        }
        self.errands.remove(&lead);
        let command = self.commands.remove(&lead);
        answer(ctx, command, result);
    }

    /// A certificate has moved on: by what waits for it, if a hop of its new history is that gift,
    /// else in another way.
    pub(super) fn overtaken(&mut self, ctx: &mut Context<'_>, cert: CertId, hops: &[Hop]) {
        let Some(record) = self.held.get(&cert) else { return };
        let Some(pending) = &record.pending else { return };
        let (lead, kind) = (pending.lead(cert), pending.kind());
        let is_granted = hops.iter().any(|hop| match (hop, pending) {
            (Hop::Gift { gift, .. }, Pending::Gift { gift: asked, .. }) => gift == asked,
            _ => false,
        });
        let done = Done::Gifted { cert, seq: record.facts.seq.saturating_add(1) };
        self.end_errand(ctx, lead, if is_granted { Ok(done) } else { Err(kind.stale_seq()) });
    }
}
