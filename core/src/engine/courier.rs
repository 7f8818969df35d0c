//! Certificates on their way to a new holder: from the provider, and from who gave it away.
//!
//! A holder may be away for as long as it likes, and has its certificate when it comes back:
//! an errand lasts until the delivery window ends. It is tried again when its receiver comes
//! up, and every ten minutes.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::io::Protocol;
use super::kernel::{Answer, Context, Pace, Retry};
use super::messages::{Purpose, SettleRequest};
use crate::certificate::Certificate;
use crate::ids::{CertId, Key};
use crate::units::TimeMs;

/// Waits between two tries. At 64 KiB for the longest certificate, one that nobody ever takes
/// costs 100 bytes/s until its window ends.
const PACE: Pace = Pace::between(1_000, 600_000);
/// Least time between two tries, however often a receiver comes and goes, ms.
const REST_MS: u64 = 10_000;

/// What is brought.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum CourierRequest {
    /// Giver or P → the new holder: the certificate is yours. Answer: `Stored`.
    Push(Certificate),
}

/// What the new holder answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CourierReply {
    Stored,
}

/// A certificate on its way.
#[derive(Debug)]
struct Errand {
    to: Key,
    /// End of the delivery window, unix ms: nobody needs it later.
    until_ms: TimeMs,
    /// Last try, unix ms.
    tried_ms: TimeMs,
    retry: Retry,
}

/// Certificates that have still to reach their holders. The book that has them bounds their
/// number.
#[derive(Debug, Default)]
pub struct Courier {
    errands: BTreeMap<CertId, Errand>,
    due: BTreeSet<(TimeMs, CertId)>,
    receivers: BTreeSet<(Key, CertId)>,
}

impl Courier {
    /// Takes a certificate on, to be brought from a time on until its window ends. It takes the
    /// place of an earlier errand with it.
    pub fn take(&mut self, cert: CertId, to: Key, from_ms: TimeMs, until_ms: TimeMs) {
        self.end(cert);
        self.receivers.insert((to, cert));
        self.due.insert((from_ms, cert));
        let retry = Retry::new(PACE, from_ms);
        self.errands.insert(cert, Errand { to, until_ms, tried_ms: 0, retry });
    }

    /// Ends an errand. Returns whether there was one.
    pub fn end(&mut self, cert: CertId) -> bool {
        let Some(errand) = self.errands.remove(&cert) else { return false };
        self.receivers.remove(&(errand.to, cert));
        self.due.remove(&(errand.retry.due_ms(), cert));
        true
    }

    /// A receiver came up: what is for it is due, after a rest.
    pub fn on_peer_up(&mut self, peer: Key, now_ms: TimeMs) {
        let all = (peer, CertId([0; 32]))..=(peer, CertId([0xff; 32]));
        for (_, cert) in self.receivers.range(all) {
            let Some(errand) = self.errands.get_mut(cert) else { continue };
            self.due.remove(&(errand.retry.due_ms(), *cert));
            errand.retry.hasten(now_ms.max(errand.tried_ms.saturating_add(REST_MS)));
            self.due.insert((errand.retry.due_ms(), *cert));
        }
    }

    /// When the next try is due.
    #[must_use]
    pub fn next_deadline(&self) -> Option<TimeMs> {
        self.due.first().map(|(at_ms, _)| *at_ms)
    }

    /// Errands that are due now: what is brought to whom. Those whose window is over end here
    /// and are told with nobody to bring them to.
    pub fn take_due(&mut self, now_ms: TimeMs) -> Vec<(CertId, Option<Key>)> {
        let due = self.due.iter().take_while(|(at_ms, _)| *at_ms <= now_ms);
        let due: Vec<CertId> = due.map(|(_, cert)| *cert).collect();
        due.into_iter().map(|cert| (cert, self.try_now(cert, now_ms))).collect()
    }

    fn try_now(&mut self, cert: CertId, now_ms: TimeMs) -> Option<Key> {
        let errand = self.errands.get_mut(&cert)?;
        if now_ms >= errand.until_ms {
            self.end(cert);
            return None;
        }
        self.due.remove(&(errand.retry.due_ms(), cert));
        errand.retry.take(now_ms);
        errand.tried_ms = now_ms;
        self.due.insert((errand.retry.due_ms(), cert));
        Some(errand.to)
    }
}

/// Brings a certificate to its holder. One that cannot be sent now is sent at the next try.
pub fn bring(
    ctx: &mut Context<'_>,
    to: Key,
    certificate: Certificate,
    purpose: impl Into<Purpose>,
) {
    let request = SettleRequest::Courier(CourierRequest::Push(certificate));
    ctx.out.send(to, Protocol::Settle, &request, purpose);
}

/// Whether an answer ends the errand: the receiver has the certificate, or says that it will
/// never take it. Any other refusal may pass, like that of a receiver whose room is full.
#[must_use]
pub fn ends(answer: &Answer<CourierReply>) -> bool {
    match answer {
        Answer::Said(CourierReply::Stored) => true,
        Answer::Refused(code) => ["acquire.not_holder", "acquire.window_past"].contains(&&**code),
        Answer::None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CERT: CertId = CertId([1; 32]);
    const BOB: Key = Key([2; 32]);

    #[test]
    fn an_errand_lasts_until_the_window_ends() {
        let mut courier = Courier::default();
        courier.take(CERT, BOB, 0, 3_000_000);
        let mut now_ms = 0;
        let mut tries = 0;
        while let Some(due_ms) = courier.next_deadline() {
            assert!(due_ms - now_ms <= 600_000, "at least every ten minutes");
            now_ms = due_ms;
            match courier.take_due(now_ms)[..] {
                [(CERT, Some(BOB))] => tries += 1,
                [(CERT, None)] => break,
                ref other => panic!("{other:?}"),
            }
        }
        assert!(tries > 10 && now_ms >= 3_000_000, "{tries} tries until {now_ms}");
        assert_eq!(courier.next_deadline(), None);
    }

    #[test]
    fn a_receiver_that_comes_up_is_served_at_once_and_one_that_flaps_is_not() {
        let mut courier = Courier::default();
        courier.take(CERT, BOB, 0, u64::MAX);
        for now_ms in [0, 1_000, 3_000, 7_000, 15_000, 31_000] {
            assert_eq!(courier.take_due(now_ms), [(CERT, Some(BOB))]);
        }
        courier.on_peer_up(Key([9; 32]), 50_000);
        assert!(courier.take_due(50_000).is_empty(), "another peer");
        courier.on_peer_up(BOB, 50_000);
        assert_eq!(courier.take_due(50_000), [(CERT, Some(BOB))]);
        courier.on_peer_up(BOB, 50_001);
        assert!(courier.take_due(50_001).is_empty());
        assert_eq!(courier.next_deadline(), Some(60_000));
        assert!(courier.end(CERT) && !courier.end(CERT));
        assert_eq!(courier.next_deadline(), None);
    }

    #[test]
    fn only_a_final_answer_ends_an_errand() {
        let refused = |code: &str| Answer::Refused(code.to_owned());
        assert!(ends(&Answer::Said(CourierReply::Stored)));
        assert!(ends(&refused("acquire.not_holder")) && ends(&refused("acquire.window_past")));
        for passing in ["acquire.full", "wire.oversize", "peer.bad_code", ""] {
            assert!(!ends(&refused(passing)), "{passing}");
        }
        assert!(!ends(&Answer::None));
    }
}
