//! The seller's side of one settlement, where the seller is the provider too.
//!
//! ```text
//! Offered → TermsSigned → LockGranted → FundSeen → FundFinal → ClaimSent → Claimed → Settled
//!    └───────────┴────────────┴────────────┘ Released   └→ NeverReveal → Released
//! ```
//!
//! ClaimSent is the point of no return: the preimage is public. Before it every state can
//! end without loss for either side; a lock is freed only by the buyer's word, by its
//! elapsed consent, or by a final refund, never by a clock alone while money is locked.

use bitcoin::hashes::Hash;
use serde::{Deserialize, Serialize};

use super::check::{Agreement, Now};
use super::facts::Facts;
use super::objects::{Row, Transfer};
use super::timelock::Timelocks;
use super::transaction::OwnTx;
use crate::ids::{Key, TermsHash, TradeId};
use crate::units::{TimeMs, Units};
use crate::wire::Envelope;

/// A seller's settlement, as its record keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seller {
    /// Version of the record.
    pub v: u8,
    /// Object id of the row.
    pub trade: TradeId,
    /// What was matched.
    pub row: Row,
    /// Owner of the bid.
    pub buyer: Key,
    /// Unit numbers that this row got.
    pub units: Units,
    /// Feature bits that the ask offered.
    pub features: u64,
    /// When the trade was opened, unix ms.
    pub opened_ms: TimeMs,
    /// Where it stands.
    pub state: State,
}

/// Terms that this seller signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed {
    /// Issue and terms.
    pub agreement: Agreement,
    /// Index of the claim key and of the preimage.
    pub key_index: u64,
}

/// A settlement under lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Granted {
    /// Terms.
    pub signed: Signed,
    /// Signed LockGrant.
    pub lock: Envelope,
    /// Object id of the Accept: the evidence when its consent elapses.
    pub accept_id: [u8; 32],
    /// Until when the funding must come, unix ms.
    pub release_at_ms: TimeMs,
    /// What the chain says.
    pub facts: Facts,
}

/// Where a seller's settlement stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// Waits for the buyer's request.
    Offered {
        /// Until when, unix ms.
        until_ms: TimeMs,
    },
    /// Terms were sent; waits for the Accept.
    TermsSigned {
        /// Terms.
        signed: Signed,
        /// Until when, unix ms.
        until_ms: TimeMs,
    },
    /// The lock stands; waits for the funding.
    LockGranted(Box<Granted>),
    /// The funding is known, and not deep enough.
    FundSeen(Box<Granted>),
    /// The funding is deep enough, and the seller may reveal.
    FundFinal(Box<Granted>),
    /// The claim is out: the preimage is public.
    ClaimSent {
        /// The settlement.
        granted: Box<Granted>,
        /// The claim last sent.
        claim: OwnTx,
    },
    /// The claim is in a block: the certificate may move.
    Claimed {
        /// The settlement.
        granted: Box<Granted>,
        /// The claim last sent.
        claim: OwnTx,
    },
    /// The claim is final.
    Settled {
        /// The settlement.
        granted: Box<Granted>,
        /// The claim last sent.
        claim: OwnTx,
    },
    /// Too late to reveal: waits for the buyer's refund.
    NeverReveal {
        /// The settlement.
        granted: Box<Granted>,
        /// Reason code.
        code: String,
    },
    /// Ended without a sale; the units are free.
    Released {
        /// Reason code.
        code: String,
        /// Terms, if it came so far.
        agreement: Option<Agreement>,
    },
}

/// What a seller does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing until something happens.
    Wait,
    /// Broadcast the buyer's funding (again).
    BroadcastFund,
    /// Build, bump or repeat the claim.
    Claim,
    /// Decide never to reveal.
    NeverReveal(&'static str),
    /// End: free the lock, if there is one, with this evidence.
    Release {
        /// Reason code.
        code: &'static str,
        /// Evidence of release; `None` if no lock was granted.
        evidence: Option<[u8; 32]>,
    },
}

impl State {
    /// Name, as people and the API see it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Offered { .. } => "offered",
            Self::TermsSigned { .. } => "terms_signed",
            Self::LockGranted(_) => "lock_granted",
            Self::FundSeen(_) => "fund_seen",
            Self::FundFinal(_) => "fund_final",
            Self::ClaimSent { .. } => "claim_sent",
            Self::Claimed { .. } => "claimed",
            Self::Settled { .. } => "settled",
            Self::NeverReveal { .. } => "never_reveal",
            Self::Released { .. } => "released",
        }
    }

    /// Whether nothing can happen any more.
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Settled { .. } | Self::Released { .. })
    }

    /// The settlement under lock, from LockGranted on.
    #[must_use]
    pub fn granted(&self) -> Option<&Granted> {
        match self {
            Self::LockGranted(granted)
            | Self::FundSeen(granted)
            | Self::FundFinal(granted)
            | Self::ClaimSent { granted, .. }
            | Self::Claimed { granted, .. }
            | Self::Settled { granted, .. }
            | Self::NeverReveal { granted, .. } => Some(granted),
            _ => None,
        }
    }

    /// As [`Self::granted`], to apply facts.
    pub fn facts_mut(&mut self) -> Option<&mut Facts> {
        match self {
            Self::LockGranted(granted)
            | Self::FundSeen(granted)
            | Self::FundFinal(granted)
            | Self::ClaimSent { granted, .. }
            | Self::Claimed { granted, .. }
            | Self::Settled { granted, .. }
            | Self::NeverReveal { granted, .. } => Some(&mut granted.facts),
            _ => None,
        }
    }

    /// Terms, from TermsSigned on.
    #[must_use]
    pub fn agreement(&self) -> Option<&Agreement> {
        match self {
            Self::Offered { .. } => None,
            Self::TermsSigned { signed, .. } => Some(&signed.agreement),
            Self::Released { agreement, .. } => agreement.as_ref(),
            _ => self.granted().map(|granted| &granted.signed.agreement),
        }
    }

    /// From which index the keys of the terms are derived.
    #[must_use]
    pub fn key_index(&self) -> Option<u64> {
        match self {
            Self::TermsSigned { signed, .. } => Some(signed.key_index),
            _ => self.granted().map(|granted| granted.signed.key_index),
        }
    }

    /// The claim last sent.
    #[must_use]
    pub fn claim(&self) -> Option<&OwnTx> {
        match self {
            Self::ClaimSent { claim, .. }
            | Self::Claimed { claim, .. }
            | Self::Settled { claim, .. } => Some(claim),
            _ => None,
        }
    }

    /// Moves to what the facts say.
    #[must_use]
    pub fn settle(self, now: Now<'_>) -> Self {
        match self {
            Self::LockGranted(granted) | Self::FundSeen(granted) | Self::FundFinal(granted) => {
                classify(granted, now)
            }
            Self::ClaimSent { granted, claim } | Self::Claimed { granted, claim } => {
                match granted.facts.claim_depth(now.tip) {
                    0 => Self::ClaimSent { granted, claim },
                    deep if deep >= now.params.chain.final_blocks => {
                        Self::Settled { granted, claim }
                    }
                    _ => Self::Claimed { granted, claim },
                }
            }
            other => other,
        }
    }
}

fn classify(granted: Box<Granted>, now: Now<'_>) -> State {
    let heights = granted.heights(now);
    let Some(fund) = &granted.facts.fund else { return State::LockGranted(granted) };
    match fund.height {
        // Confirmed too late: the buyer was told that it would not count.
        Some(height) if height > heights.fund_by => {
            State::NeverReveal { granted, code: "fund.late".to_owned() }
        }
        Some(_) if granted.facts.fund_depth(now.tip) >= heights.funding_confirmations => {
            State::FundFinal(granted)
        }
        _ => State::FundSeen(granted),
    }
}

impl Granted {
    /// Object id of the terms.
    #[must_use]
    pub fn hash(&self) -> TermsHash {
        self.signed.agreement.hash
    }

    /// Heights of the terms.
    #[must_use]
    pub fn heights(&self, now: Now<'_>) -> Timelocks {
        Timelocks::of(&self.signed.agreement.terms, now.params)
    }

    /// Whether a buyer's proof of payment names the claim that the chain shows.
    #[must_use]
    pub fn is_paid_by(&self, transfer: &Transfer) -> bool {
        self.facts.claim.is_some_and(|(spend, x)| {
            transfer.terms_hash == self.hash()
                && transfer.x == x
                && transfer.spend_txid == spend.txid.to_byte_array()
                && transfer.vin == spend.vin
        })
    }

    /// Whether it is too late to reveal first: past `R`, or delivery has begun.
    fn too_late(&self, now: Now<'_>) -> bool {
        let starts = self.signed.agreement.terms.window.starts_at_ms(now.params.slot_s);
        now.tip > self.heights(now).last_reveal || now.ms >= starts
    }

    fn is_over(&self, now: Now<'_>) -> bool {
        let ends = self.signed.agreement.terms.window.ends_at_ms(now.params.slot_s);
        now.ms >= ends
    }

    /// Evidence of a final refund.
    fn refunded(&self, now: Now<'_>) -> Option<[u8; 32]> {
        let deep = self.facts.refund_depth(now.tip) >= now.params.chain.final_blocks;
        self.facts.refund.filter(|_| deep).map(|spend| spend.txid.to_byte_array())
    }
}

impl Seller {
    /// What to do next; `sure` as for a buyer.
    #[must_use]
    pub fn due(&self, now: Now<'_>, sure: bool) -> Step {
        let release = |code, evidence| Step::Release { code, evidence };
        match &self.state {
            State::Offered { until_ms } if now.ms >= *until_ms => {
                release("trade.buyer_silent", None)
            }
            State::TermsSigned { until_ms, .. } if now.ms >= *until_ms => {
                release("trade.buyer_silent", None)
            }
            State::LockGranted(granted) if sure && now.ms >= granted.release_at_ms => {
                release("fund.not_sent", Some(granted.accept_id))
            }
            State::FundSeen(granted) => due_unconfirmed(granted, now, sure),
            State::FundFinal(granted) if granted.too_late(now) => {
                Step::NeverReveal("settle.too_late_to_reveal")
            }
            State::FundFinal(_) if sure => Step::Claim,
            State::ClaimSent { granted, .. } => match granted.refunded(now) {
                Some(txid) => release("settle.claim_lost", Some(txid)),
                None => Step::Claim,
            },
            State::NeverReveal { granted, .. } => match granted.refunded(now) {
                Some(txid) => release("settle.refunded", Some(txid)),
                // Delivery is over, so the units are worth nothing to lock.
                None if granted.is_over(now) => release("settle.window_over", None),
                None => Step::Wait,
            },
            _ => Step::Wait,
        }
    }

    /// Times at which something falls due, unix ms, with what.
    #[must_use]
    pub fn deadlines(&self, slot_s: u32) -> Vec<(TimeMs, &'static str)> {
        let window = self.row.window();
        match &self.state {
            State::Offered { until_ms } => vec![(*until_ms, "terms deadline")],
            State::TermsSigned { until_ms, .. } => vec![(*until_ms, "accept deadline")],
            State::LockGranted(granted) => vec![(granted.release_at_ms, "funding deadline")],
            State::FundSeen(_) | State::FundFinal(_) => {
                vec![(window.starts_at_ms(slot_s), "delivery starts")]
            }
            State::NeverReveal { .. } => vec![(window.ends_at_ms(slot_s), "delivery ends")],
            _ => Vec::new(),
        }
    }
}

fn due_unconfirmed(granted: &Granted, now: Now<'_>, sure: bool) -> Step {
    let confirmed = granted.facts.fund_height().is_some();
    if confirmed {
        return if granted.too_late(now) {
            Step::NeverReveal("settle.too_late_to_reveal")
        } else {
            Step::Wait
        };
    }
    if sure && now.tip >= granted.heights(now).release_at() {
        return Step::Release { code: "fund.not_confirmed", evidence: Some(granted.accept_id) };
    }
    // Near F the buyer replaces it: no reason to help the old one.
    if now.tip >= granted.heights(now).cancel_at() {
        return Step::Wait;
    }
    Step::BroadcastFund
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    /// t0 of the sample terms: F − g, F, F + g, R, T_R are 830, 836, 842, 914, 950.
    const T0: u32 = 800;
    const UNTIL_MS: TimeMs = 60_000;
    const NO: Option<u32> = None;
    const WAITS: Option<u32> = Some(0);

    fn signed() -> Signed {
        Signed { agreement: sample::agreement(T0), key_index: 1 }
    }

    fn granted(heights: [Option<u32>; 4]) -> Box<Granted> {
        Box::new(Granted {
            signed: signed(),
            lock: sample::envelope(),
            accept_id: [8; 32],
            release_at_ms: UNTIL_MS,
            facts: sample::facts(heights),
        })
    }

    fn claim_sent(heights: [Option<u32>; 4]) -> State {
        let tx = sample::facts([WAITS; 4]).fund.unwrap().tx;
        State::ClaimSent { granted: granted(heights), claim: OwnTx { tx, fee_sat: 155 } }
    }

    fn seller(state: State) -> Seller {
        Seller {
            v: 1,
            trade: TradeId([10; 32]),
            row: sample::row(),
            buyer: Key([2; 32]),
            units: Units::range(0, 2).unwrap(),
            features: 0,
            opened_ms: 0,
            state,
        }
    }

    #[test]
    fn the_chain_decides_the_state() {
        let seen = |fund| State::FundSeen(granted([fund, NO, NO, NO]));
        let sent = |claim| claim_sent([Some(801), claim, NO, NO]);
        let table = [
            (State::LockGranted(granted([NO; 4])), 801, "lock_granted"),
            (State::LockGranted(granted([WAITS, NO, NO, NO])), 801, "fund_seen"),
            (seen(Some(801)), 805, "fund_seen"),
            (seen(Some(801)), 806, "fund_final"),
            (seen(Some(836)), 841, "fund_final"),
            (seen(Some(837)), 837, "never_reveal"),
            // A reorganisation makes the tip shorter.
            (State::FundFinal(granted([Some(801), NO, NO, NO])), 805, "fund_seen"),
            (State::FundFinal(granted([WAITS, NO, NO, NO])), 806, "fund_seen"),
            (sent(WAITS), 810, "claim_sent"),
            (sent(Some(810)), 810, "claimed"),
            (sent(Some(810)), 814, "claimed"),
            (sent(Some(810)), 815, "settled"),
        ];
        let params = sample::params("mainnet");
        for (state, tip, expected) in table {
            let before = state.name();
            let got = state.settle(sample::now(&params, 0, tip));
            assert_eq!(got.name(), expected, "{before} at {tip}");
        }
    }

    #[test]
    fn what_is_due() {
        let release = |code, evidence| Step::Release { code, evidence };
        let offered = || State::Offered { until_ms: UNTIL_MS };
        let terms = || State::TermsSigned { signed: signed(), until_ms: UNTIL_MS };
        let locked = || State::LockGranted(granted([NO; 4]));
        let seen = |fund| State::FundSeen(granted([fund, NO, NO, NO]));
        let ready = || State::FundFinal(granted([Some(801), NO, NO, NO]));
        let never = |refund| State::NeverReveal {
            granted: granted([Some(801), NO, refund, NO]),
            code: "settle.too_late_to_reveal".to_owned(),
        };
        let late = Step::NeverReveal("settle.too_late_to_reveal");
        // The window of the sample terms, hours: [500,000, 500,004).
        let starts = 500_000 * 3_600_000;
        let table = [
            (offered(), 59_999, 800, Step::Wait),
            (offered(), 60_000, 800, release("trade.buyer_silent", None)),
            (terms(), 60_000, 800, release("trade.buyer_silent", None)),
            (locked(), 59_999, 800, Step::Wait),
            (locked(), 60_000, 800, release("fund.not_sent", Some([8; 32]))),
            (seen(WAITS), 90_000, 829, Step::BroadcastFund),
            (seen(WAITS), 90_000, 830, Step::Wait),
            (seen(WAITS), 90_000, 841, Step::Wait),
            (seen(WAITS), 90_000, 842, release("fund.not_confirmed", Some([8; 32]))),
            // Confirmed, so never by height alone.
            (seen(Some(836)), 90_000, 842, Step::Wait),
            (seen(Some(836)), 90_000, 915, late),
            (ready(), 90_000, 914, Step::Claim),
            (ready(), 90_000, 915, late),
            (ready(), starts - 1, 806, Step::Claim),
            (ready(), starts, 806, late),
            // After the reveal there is no way back, whatever the height.
            (claim_sent([Some(801), WAITS, NO, NO]), starts, 960, Step::Claim),
            (claim_sent([Some(801), NO, Some(951), NO]), 90_000, 955, Step::Claim),
            (
                claim_sent([Some(801), NO, Some(951), NO]),
                90_000,
                956,
                release("settle.claim_lost", Some([2; 32])),
            ),
            (never(NO), 90_000, 960, Step::Wait),
            (never(Some(951)), 90_000, 955, Step::Wait),
            (never(Some(951)), 90_000, 956, release("settle.refunded", Some([2; 32]))),
            (never(NO), 500_004 * 3_600_000, 960, release("settle.window_over", None)),
        ];
        let params = sample::params("mainnet");
        for (state, now_ms, tip, expected) in table {
            let seller = seller(state);
            let got = seller.due(sample::now(&params, now_ms, tip), true);
            assert_eq!(got, expected, "{} at {now_ms} ms, {tip}", seller.state.name());
        }
    }

    #[test]
    fn while_a_rescan_runs_nothing_is_revealed_or_released() {
        let params = sample::params("mainnet");
        let ready = seller(State::FundFinal(granted([Some(801), NO, NO, NO])));
        assert_eq!(ready.due(sample::now(&params, 0, 810), false), Step::Wait);
        let locked = seller(State::LockGranted(granted([NO; 4])));
        assert_eq!(locked.due(sample::now(&params, UNTIL_MS, 810), false), Step::Wait);
        let seen = seller(State::FundSeen(granted([WAITS, NO, NO, NO])));
        assert_eq!(seen.due(sample::now(&params, 0, 842), false), Step::Wait);
    }

    #[test]
    fn only_the_claim_on_the_chain_pays() {
        let granted = granted([Some(801), Some(810), NO, NO]);
        let transfer = Transfer {
            v: 1,
            terms_hash: TermsHash([7; 32]),
            x: [3; 32],
            spend_txid: [1; 32],
            vin: 0,
        };
        assert!(granted.is_paid_by(&transfer));
        for wrong in [
            Transfer { x: [4; 32], ..transfer.clone() },
            Transfer { spend_txid: [2; 32], ..transfer.clone() },
            Transfer { vin: 1, ..transfer.clone() },
            Transfer { terms_hash: TermsHash([8; 32]), ..transfer },
        ] {
            assert!(!granted.is_paid_by(&wrong), "{wrong:?}");
        }
    }
}
