//! Gifts, as the provider activates them.

use super::records::Hold;
use super::{Register, activation_of, has_room};
use crate::certificate::hops::Step;
use crate::certificate::objects::{Gift, Hop};
use crate::certificate::verify::Fault;
use crate::code;
use crate::engine::kernel::Context;
use crate::wire::Envelope;

impl Register {
    /// Answers a Gift. Repeating it gives the same Activation.
    ///
    /// # Errors
    /// The reason code.
    pub fn on_gift(
        &mut self,
        ctx: &mut Context<'_>,
        gift: &Envelope,
    ) -> Result<Envelope, &'static str> {
        let gift = gift.verify::<Gift>(ctx.params.magic).map_err(|error| error.code())?;
        let record = self.valid(&gift.cert_id).ok_or(code!("gift.unknown_certificate"))?;
        if let Some(activation) = activation_of(&record.certificate, gift.id()) {
            return Ok(activation);
        }
        self.may_issue()?;
        let step = Step::gift(&record.facts, &gift).map_err(|fault| match fault {
            Fault::Unsold | Fault::NotHolder => "gift.not_holder",
            Fault::Seq => "gift.stale_seq",
            Fault::Recallable => "gift.recallable",
            Fault::Wire(_)
            | Fault::TooManyHops
            | Fault::Class
            | Fault::Area
            | Fault::Foreign
            | Fault::PrevHash
            | Fault::Changed
            | Fault::Lock
            | Fault::Preimage
            | Fault::Cause
            | Fault::Bases
            | Fault::Loose
            | Fault::Parts
            | Fault::Outside
            | Fault::Sum
            | Fault::OtherKind
            | Fault::Apart
            | Fault::TooManyRoots => "gift.prev_hash",
        })?;
        match record.head.hold {
            Hold::Free => {}
            Hold::Locked(_) => return Err(code!("gift.locked")),
            Hold::Redeemed(..) | Hold::Spent(_) => return Err(code!("gift.consumed")),
            Hold::Void | Hold::TakenBack => return Err(code!("gift.unknown_certificate")),
        }
        if ctx.now_ms >= record.facts.window.starts_at_ms(ctx.params.slot_s) {
            return Err(code!("gift.window_started"));
        }
        if gift.to == record.facts.holder {
            return Err(code!("gift.to_self"));
        }
        if !has_room(&record.certificate) {
            return Err(code!("gift.too_many_hops"));
        }
        let roots = record.facts.roots.clone();
        self.pace.take(ctx, &roots, 1)?;
        let bytes = gift.envelope().clone();
        let hop = |activation| Hop::Gift { gift: bytes, activation };
        self.activate(ctx, gift.cert_id, step, 0, hop)
    }
}
