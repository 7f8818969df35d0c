//! Who may ask what of a lease: calls signed by the holder, each good once.

use std::collections::BTreeMap;

use super::Leases;
use crate::code;
use crate::engine::kernel::Context;
use crate::ids::{Key, LeaseId};
use crate::lease::objects::{LeaseCall, Verb};
use crate::params::Params;
use crate::units::TimeMs;
use crate::wire::{Envelope, VERSION};

/// Longest life of a call, s: bounds what a copied call is worth after a restart, which
/// forgets counters.
const CALL_LIFE_MAX_S: u64 = 300;
/// Counters below the highest that are still good once, so that parallel polls may overtake
/// each other.
const WINDOW: u64 = 128;

/// Counters that were used, as in IPsec's anti-replay window (RFC 4303 §3.4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Replay {
    highest: u64,
    /// Bit n: `highest − n` was used.
    used: u128,
}

impl Replay {
    /// Uses a counter; false if it was used, or is too old to know.
    fn accept(&mut self, counter: u64) -> bool {
        if self.used == 0 || counter > self.highest {
            let shift = counter.saturating_sub(self.highest);
            self.used = if self.used == 0 || shift >= WINDOW { 0 } else { self.used << shift };
            self.highest = counter;
            self.used |= 1;
            return true;
        }
        let back = self.highest - counter;
        if back >= WINDOW || self.used & (1 << back) != 0 {
            return false;
        }
        self.used |= 1 << back;
        true
    }
}

/// Counters are kept for each kind of call: a digest does not make another.
fn kind(verb: Verb) -> u8 {
    match verb {
        Verb::Put => 0,
        Verb::Logs => 1,
        Verb::Get => 2,
        Verb::Status => 3,
        Verb::Stop => 4,
        Verb::Receipt => 5,
        Verb::Restart => 6,
        Verb::Replace(_) => 7,
    }
}

impl Leases {
    /// Checks a call on a lease of this host and uses up its counter.
    ///
    /// # Errors
    /// `lease.bad_call`, `lease.not_found`, `lease.not_holder`, `lease.bad_signature`,
    /// `lease.wrong_verb`, `lease.call_expired`, `lease.call_too_long` or `lease.replayed`,
    /// in this order.
    pub fn authorise(
        &mut self,
        now_ms: TimeMs,
        params: &Params,
        call: &Envelope,
        verb: Verb,
    ) -> Result<LeaseId, &'static str> {
        let lease = call.peek::<LeaseCall>().map_err(|_| "lease.bad_call")?.lease;
        let record = self.hosted.get(&lease).ok_or(code!("lease.not_found"))?;
        if record.holder != Key(call.key) {
            return Err(code!("lease.not_holder"));
        }
        let call = call.verify::<LeaseCall>(params.magic).map_err(|_| "lease.bad_signature")?;
        if call.verb != verb {
            return Err(code!("lease.wrong_verb"));
        }
        let now_s = now_ms / 1000;
        if call.not_after_s < now_s {
            return Err(code!("lease.call_expired"));
        }
        if call.not_after_s > now_s.saturating_add(CALL_LIFE_MAX_S) {
            return Err(code!("lease.call_too_long"));
        }
        let used: &mut BTreeMap<u8, Replay> = &mut self.watch.entry(lease).or_default().calls;
        if !used.entry(kind(verb)).or_default().accept(call.counter) {
            return Err(code!("lease.replayed"));
        }
        Ok(lease)
    }

    /// Until when something that is signed now is good, unix s, by the provider's clock as far as
    /// peers tell it: a holder whose clock is a minute behind would have everything refused.
    pub(super) fn good_until_s(&self, now_ms: TimeMs, life_s: u64) -> u64 {
        (self.clock.shared_ms(now_ms) / 1000).saturating_add(life_s)
    }

    /// Signs a call on a held lease that is good for a while. Counters start at the time of
    /// the first, so that they also rise over restarts, then go up by one, so that parallel
    /// calls stay within the window.
    ///
    /// # Errors
    /// `lease.not_found`.
    pub(super) fn sign_call(
        &mut self,
        ctx: &Context<'_>,
        lease: LeaseId,
        verb: Verb,
        life_s: u64,
    ) -> Result<Envelope, &'static str> {
        if !self.held.contains_key(&lease) {
            return Err(code!("lease.not_found"));
        }
        self.counter = if self.counter == 0 { ctx.now_ms.max(1) } else { self.counter + 1 };
        let not_after_s = self.good_until_s(ctx.now_ms, life_s);
        let call = LeaseCall { v: VERSION, lease, verb, counter: self.counter, not_after_s };
        Ok(ctx.sign(call).envelope().clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::kernel::{ChainView, ClockCheck};

    #[test]
    fn what_is_signed_is_good_by_the_clock_of_others() {
        let params = crate::test_support::devnet();
        let now_ms = 1_800_000_000_000;
        // Own time minus that of the median peer, ms; peers; s that are added to the life.
        let table = [(-90_000, 3, 90), (90_000, 3, -90), (-90_000, 2, 0), (-10, 9, 0)];
        for (offset_ms, peers, added) in table {
            let mut leases = Leases::default();
            let told = (offset_ms, peers);
            leases.on_clock(ClockCheck::new(now_ms, told, &ChainView::default(), &params));
            let expected = (now_ms / 1000 + 60).saturating_add_signed(added);
            assert_eq!(leases.good_until_s(now_ms, 60), expected, "{offset_ms} by {peers}");
        }
    }

    #[test]
    fn each_counter_is_good_once_and_may_come_late() {
        let mut replay = Replay::default();
        let table = [
            (1000, true),
            (1000, false),
            (1002, true),
            (1001, true),
            (1001, false),
            (1129, true),
            (1002, false),
            (1003, true),
            (1001, false),
            (5000, true),
            (5000, false),
            (4999, true),
            (1130, false),
            (u64::MAX, true),
            (0, false),
        ];
        for (counter, expected) in table {
            assert_eq!(replay.accept(counter), expected, "{counter}");
        }
    }
}
