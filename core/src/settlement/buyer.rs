//! The buyer's side of one settlement.
//!
//! ```text
//! Draft → TermsSigned → Locked → Funding → FundBuilt → FundSent → FundConfirmed → PreimageKnown → Active
//!   └────────┴────────────┴────────┘ Aborted    └──────────┴→ Cancelling → Cancelled
//!                                                            FundConfirmed → Refunding → Refunded
//! ```
//!
//! From FundSent on the state is what the chain says ([`State::settle`]): a reorganisation
//! moves it back. What to do next follows from the state and the time ([`Buyer::due`]);
//! doing it is the engine's part.

use serde::{Deserialize, Serialize};

use super::check::{Agreement, Now};
use super::facts::Facts;
use super::objects::{Row, TermsRequest, Transfer};
use super::timelock::Timelocks;
use super::transaction::OwnTx;
use crate::certificate::objects::{Certificate, Hop};
use crate::ids::{Key, TermsHash, TradeId};
use crate::units::TimeMs;
use crate::wire::Envelope;

/// A buyer's settlement, as its record keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Buyer {
    /// Version of the record.
    pub v: u8,
    /// Object id of the row.
    pub trade: TradeId,
    /// What was matched.
    pub row: Row,
    /// Owner of the ask: seller and provider.
    pub provider: Key,
    /// Holder after the sale.
    pub to: Key,
    /// Feature bits that the bid required.
    pub features: u64,
    /// Most that the funding may cost in fees, sat.
    pub fee_cap_sat: u64,
    /// What the funding may cost, sat: reserved until the wallet has locked coins, since
    /// nobody knows before how many it takes.
    pub fee_reserve_sat: u64,
    /// Index of the single-use refund key.
    pub key_index: u64,
    /// When the trade was opened, unix ms.
    pub opened_ms: TimeMs,
    /// Where it stands.
    pub state: State,
}

/// Terms that the buyer accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed {
    /// Checked terms.
    pub agreement: Agreement,
    /// Own signed Accept.
    pub accept: Envelope,
    /// Until when the funding must be acknowledged, unix ms.
    pub release_at_ms: TimeMs,
}

/// The provider's lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    /// Signed LockGrant.
    pub signed: Envelope,
    /// Its attempt.
    pub attempt: u32,
}

/// A settlement whose funding the wallet has signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Funded {
    /// Checked terms and consent.
    pub signed: Signed,
    /// The lock.
    pub lock: Lock,
    /// Fee of the funding, sat.
    pub fee_sat: u64,
    /// What the chain says; `fund` is set from the start.
    pub facts: Facts,
}

/// Where a buyer's settlement stands. Each state holds only what is valid in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// The seller is asked for terms.
    Draft {
        /// The request, the same at each retry; made once the chain is known.
        request: Option<TermsRequest>,
        /// When the buyer gives up, unix ms.
        until_ms: TimeMs,
    },
    /// The provider is asked for its lock.
    TermsSigned(Signed),
    /// The lock stands; the buyer listens for a conflicting one.
    Locked {
        /// Terms.
        signed: Signed,
        /// Lock.
        lock: Lock,
        /// Until when it listens, unix ms.
        quiet_until_ms: TimeMs,
    },
    /// The wallet is asked for the funding.
    Funding {
        /// Terms.
        signed: Signed,
        /// Lock.
        lock: Lock,
    },
    /// The funding is signed, and the provider is asked to acknowledge it.
    FundBuilt(Box<Funded>),
    /// The funding is acknowledged and broadcast.
    FundSent(Box<Funded>),
    /// The funding is in a block.
    FundConfirmed(Box<Funded>),
    /// The claim revealed the preimage; the provider is asked for the Activation.
    PreimageKnown(Box<Funded>),
    /// The certificate is the buyer's.
    Active {
        /// The settlement.
        funded: Box<Funded>,
        /// Proof of payment.
        transfer: Transfer,
        /// Signed Activation.
        activation: Envelope,
    },
    /// The funding is being replaced by a payment to self.
    Cancelling {
        /// The settlement.
        funded: Box<Funded>,
        /// The replacement, once the wallet has built it.
        cancel: Option<OwnTx>,
    },
    /// The replacement is final.
    Cancelled(Box<Funded>),
    /// The refund is on its way.
    Refunding {
        /// The settlement.
        funded: Box<Funded>,
        /// The refund last sent.
        refund: OwnTx,
    },
    /// The refund is final.
    Refunded(Box<Funded>),
    /// Ended before any funding left this node.
    Aborted {
        /// Reason code.
        code: String,
        /// Terms, if it came so far.
        agreement: Option<Agreement>,
    },
}

/// What a buyer does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing until something happens.
    Wait,
    /// Ask the seller for terms.
    AskTerms,
    /// Ask the provider for its lock.
    AskLock,
    /// Ask the wallet for the funding.
    AskWallet,
    /// Ask the provider to acknowledge the funding.
    SendFund,
    /// Broadcast the funding (again).
    BroadcastFund,
    /// Ask the wallet for a replacement that pays to self.
    AskCancel,
    /// Broadcast the replacement (again).
    BroadcastCancel,
    /// Build or bump the refund, and broadcast it.
    Refund,
    /// Ask the provider for the Activation.
    AskActivation,
    /// Give up before any funding left.
    Abort(&'static str),
}

impl Signed {
    /// The provider granted its lock.
    #[must_use]
    pub fn locked(self, lock: Lock, quiet_until_ms: TimeMs) -> State {
        State::Locked { signed: self, lock, quiet_until_ms }
    }
}

impl State {
    /// Name, as people and the API see it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Draft { .. } => "draft",
            Self::TermsSigned(_) => "terms_signed",
            Self::Locked { .. } => "locked",
            Self::Funding { .. } => "funding",
            Self::FundBuilt(_) => "fund_built",
            Self::FundSent(_) => "fund_sent",
            Self::FundConfirmed(_) => "fund_confirmed",
            Self::PreimageKnown(_) => "preimage_known",
            Self::Active { .. } => "active",
            Self::Cancelling { .. } => "cancelling",
            Self::Cancelled(_) => "cancelled",
            Self::Refunding { .. } => "refunding",
            Self::Refunded(_) => "refunded",
            Self::Aborted { .. } => "aborted",
        }
    }

    /// Whether nothing can happen any more, apart from a reorganisation under Active.
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(
            self,
            Self::Active { .. } | Self::Cancelled(_) | Self::Refunded(_) | Self::Aborted { .. }
        )
    }

    /// Terms, from TermsSigned on.
    #[must_use]
    pub fn agreement(&self) -> Option<&Agreement> {
        match self {
            Self::Draft { .. } => None,
            Self::TermsSigned(signed)
            | Self::Locked { signed, .. }
            | Self::Funding { signed, .. } => Some(&signed.agreement),
            Self::Aborted { agreement, .. } => agreement.as_ref(),
            _ => self.funded().map(|funded| &funded.signed.agreement),
        }
    }

    /// The funded settlement, from FundBuilt on.
    #[must_use]
    pub fn funded(&self) -> Option<&Funded> {
        match self {
            Self::FundBuilt(funded)
            | Self::FundSent(funded)
            | Self::FundConfirmed(funded)
            | Self::PreimageKnown(funded)
            | Self::Cancelled(funded)
            | Self::Refunded(funded)
            | Self::Active { funded, .. }
            | Self::Cancelling { funded, .. }
            | Self::Refunding { funded, .. } => Some(funded),
            _ => None,
        }
    }

    /// As [`Self::funded`], to apply facts.
    pub fn facts_mut(&mut self) -> Option<&mut Facts> {
        match self {
            Self::FundBuilt(funded)
            | Self::FundSent(funded)
            | Self::FundConfirmed(funded)
            | Self::PreimageKnown(funded)
            | Self::Cancelled(funded)
            | Self::Refunded(funded)
            | Self::Active { funded, .. }
            | Self::Cancelling { funded, .. }
            | Self::Refunding { funded, .. } => Some(&mut funded.facts),
            _ => None,
        }
    }

    /// The wallet built the funding.
    #[must_use]
    pub fn built(signed: Signed, lock: Lock, fee_sat: u64, facts: Facts) -> Self {
        Self::FundBuilt(Box::new(Funded { signed, lock, fee_sat, facts }))
    }

    /// Moves to what the facts say. Terminal states stay; so does Active, because a buyer
    /// that holds the Activation must not take its money back in a reorganisation.
    #[must_use]
    pub fn settle(self, now: Now<'_>) -> Self {
        match self {
            // Someone else broadcast it, so the acknowledgement was only lost.
            Self::FundBuilt(funded) if !funded.facts.fund.as_ref().is_some_and(|f| f.seen) => {
                Self::FundBuilt(funded)
            }
            Self::FundBuilt(funded)
            | Self::FundSent(funded)
            | Self::FundConfirmed(funded)
            | Self::PreimageKnown(funded) => classify(funded, Exit::None, now),
            Self::Cancelling { funded, cancel } => classify(funded, Exit::Cancel(cancel), now),
            Self::Refunding { funded, refund } => classify(funded, Exit::Refund(refund), now),
            other => other,
        }
    }
}

/// An exit that the buyer has begun.
enum Exit {
    None,
    Cancel(Option<OwnTx>),
    Refund(OwnTx),
}

fn classify(funded: Box<Funded>, exit: Exit, now: Now<'_>) -> State {
    let (facts, tip) = (&funded.facts, now.tip);
    let deep = now.params.chain.final_blocks;
    if facts.refund_depth(tip) >= deep {
        return State::Refunded(funded);
    }
    if facts.claim_depth(tip) > 0 {
        return State::PreimageKnown(funded);
    }
    if let Exit::Refund(refund) = exit {
        return State::Refunding { funded, refund };
    }
    if facts.claim.is_some() {
        return State::PreimageKnown(funded);
    }
    if facts.fund_depth(tip) > 0 {
        return State::FundConfirmed(funded);
    }
    if facts.conflict_depth(tip) >= deep {
        return State::Cancelled(funded);
    }
    match exit {
        Exit::Cancel(cancel) => State::Cancelling { funded, cancel },
        _ => State::FundSent(funded),
    }
}

impl Funded {
    /// Object id of the terms.
    #[must_use]
    pub fn hash(&self) -> TermsHash {
        self.signed.agreement.hash
    }

    /// Proof of payment, once the claim is known.
    #[must_use]
    pub fn transfer(&self) -> Option<Transfer> {
        use bitcoin::hashes::Hash;
        let (spend, x) = self.facts.claim?;
        Some(Transfer {
            v: crate::wire::VERSION,
            terms_hash: self.hash(),
            x,
            spend_txid: spend.txid.to_byte_array(),
            vin: spend.vin,
        })
    }

    /// The certificate that the sale makes.
    #[must_use]
    pub fn certificate(&self, transfer: &Transfer, activation: &Envelope) -> Certificate {
        let agreement = &self.signed.agreement;
        Certificate {
            issue: agreement.issue.clone(),
            hops: vec![Hop::Sale {
                terms: agreement.signed.clone(),
                lock: self.lock.signed.clone(),
                transfer: transfer.clone(),
                activation: activation.clone(),
            }],
        }
    }
}

impl Buyer {
    /// What to do next. `sure` says whether the absence of a chain fact means something,
    /// which it does not while a rescan after a restart runs.
    #[must_use]
    pub fn due(&self, now: Now<'_>, sure: bool) -> Step {
        let (now_ms, tip) = (now.ms, now.tip);
        match &self.state {
            State::Draft { until_ms, .. } if now_ms >= *until_ms => Step::Abort("terms.late"),
            State::Draft { .. } => Step::AskTerms,
            State::TermsSigned(signed) if now_ms >= signed.release_at_ms => {
                Step::Abort("lock.late")
            }
            State::TermsSigned(_) => Step::AskLock,
            State::Locked { signed, .. } | State::Funding { signed, .. }
                if now_ms >= signed.release_at_ms =>
            {
                Step::Abort("fund.late")
            }
            State::Locked { quiet_until_ms, .. } if now_ms < *quiet_until_ms => Step::Wait,
            State::Locked { .. } | State::Funding { .. } => Step::AskWallet,
            State::FundBuilt(funded) => {
                // Once the bytes left, the provider may hold them: only a replacement is safe.
                let late = now_ms >= funded.signed.release_at_ms;
                if late || tip >= heights(funded, now).cancel_at() {
                    Step::AskCancel
                } else {
                    Step::SendFund
                }
            }
            State::FundSent(funded) if sure && tip >= heights(funded, now).cancel_at() => {
                Step::AskCancel
            }
            State::FundSent(_) => Step::BroadcastFund,
            State::Cancelling { cancel: None, .. } => Step::AskCancel,
            State::Cancelling { .. } => Step::BroadcastCancel,
            State::PreimageKnown(funded) if funded.facts.claim_depth(tip) > 0 => {
                Step::AskActivation
            }
            State::FundConfirmed(funded) | State::PreimageKnown(funded) => {
                if sure && tip >= funded.signed.agreement.terms.refund_at {
                    Step::Refund
                } else {
                    Step::Wait
                }
            }
            State::Refunding { .. } => Step::Refund,
            State::Active { .. }
            | State::Cancelled(_)
            | State::Refunded(_)
            | State::Aborted { .. } => Step::Wait,
        }
    }

    /// Times at which something falls due, unix ms, with what.
    #[must_use]
    pub fn deadlines(&self) -> Vec<(TimeMs, &'static str)> {
        match &self.state {
            State::Draft { until_ms, .. } => vec![(*until_ms, "terms deadline")],
            State::TermsSigned(signed) | State::Funding { signed, .. } => {
                vec![(signed.release_at_ms, "funding deadline")]
            }
            State::Locked { signed, quiet_until_ms, .. } => vec![
                (*quiet_until_ms, "no conflicting lock"),
                (signed.release_at_ms, "funding deadline"),
            ],
            State::FundBuilt(funded) => {
                vec![(funded.signed.release_at_ms, "funding deadline")]
            }
            _ => Vec::new(),
        }
    }

    /// Coins that the wallet has not locked yet, sat.
    #[must_use]
    pub fn committed_sat(&self) -> u64 {
        match self.state {
            State::Draft { .. }
            | State::TermsSigned(_)
            | State::Locked { .. }
            | State::Funding { .. } => self.row.price_sat().saturating_add(self.fee_reserve_sat),
            _ => 0,
        }
    }
}

fn heights(funded: &Funded, now: Now<'_>) -> Timelocks {
    Timelocks::of(&funded.signed.agreement.terms, now.params)
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    /// t0 of the sample terms; F − g = 830, F = 836, T_R = 950 above it.
    const T0: u32 = 800;
    const UNTIL_MS: TimeMs = 60_000;

    fn signed() -> Signed {
        let (agreement, accept) = (sample::agreement(T0), sample::envelope());
        Signed { agreement, accept, release_at_ms: UNTIL_MS }
    }

    fn lock() -> Lock {
        Lock { signed: sample::envelope(), attempt: 0 }
    }

    fn funded(heights: [Option<u32>; 4]) -> Box<Funded> {
        let facts = sample::facts(heights);
        Box::new(Funded { signed: signed(), lock: lock(), fee_sat: 154, facts })
    }

    fn own() -> OwnTx {
        OwnTx { tx: sample::facts([Some(0); 4]).fund.unwrap().tx, fee_sat: 138 }
    }

    fn buyer(state: State) -> Buyer {
        Buyer {
            v: 1,
            trade: TradeId([10; 32]),
            row: sample::row(),
            provider: Key([1; 32]),
            to: Key([2; 32]),
            features: 0,
            fee_cap_sat: 1_000,
            fee_reserve_sat: 154,
            key_index: 1,
            opened_ms: 0,
            state,
        }
    }

    #[test]
    fn the_chain_decides_the_state() {
        const NO: Option<u32> = None;
        const WAITS: Option<u32> = Some(0);
        // fund, claim, refund, conflict, tip, exit begun, state
        let table = [
            ([WAITS, NO, NO, NO], 801, 'n', "fund_sent"),
            ([Some(801), NO, NO, NO], 801, 'n', "fund_confirmed"),
            ([Some(801), WAITS, NO, NO], 808, 'n', "preimage_known"),
            ([Some(801), Some(809), NO, NO], 809, 'n', "preimage_known"),
            // A claim in a block that has left the chain again.
            ([Some(801), Some(809), NO, NO], 808, 'n', "preimage_known"),
            ([Some(801), NO, WAITS, NO], 950, 'r', "refunding"),
            ([Some(801), WAITS, WAITS, NO], 950, 'r', "refunding"),
            ([Some(801), Some(951), WAITS, NO], 951, 'r', "preimage_known"),
            ([Some(801), NO, Some(951), NO], 955, 'r', "refunding"),
            ([Some(801), NO, Some(951), NO], 956, 'r', "refunded"),
            ([WAITS, NO, NO, WAITS], 831, 'c', "cancelling"),
            ([WAITS, NO, NO, Some(832)], 836, 'c', "cancelling"),
            ([WAITS, NO, NO, Some(832)], 837, 'c', "cancelled"),
            // The funding won the race against its replacement.
            ([Some(832), NO, NO, WAITS], 833, 'c', "fund_confirmed"),
        ];
        let params = sample::params("mainnet");
        for (heights, tip, exit, expected) in table {
            let funded = funded(heights);
            let state = match exit {
                'r' => State::Refunding { funded, refund: own() },
                'c' => State::Cancelling { funded, cancel: Some(own()) },
                _ => State::FundConfirmed(funded),
            };
            let got = state.settle(sample::now(&params, 0, tip));
            assert_eq!(got.name(), expected, "{heights:?} at {tip}");
            // Settling twice changes nothing.
            assert_eq!(got.clone().settle(sample::now(&params, 0, tip)), got);
        }
    }

    #[test]
    fn what_is_due() {
        let draft = || State::Draft { request: None, until_ms: UNTIL_MS };
        let locked = || signed().locked(lock(), 30_000);
        let built = |fund| State::FundBuilt(funded([fund, None, None, None]));
        let sent = || State::FundSent(funded([Some(0), None, None, None]));
        let confirmed = || State::FundConfirmed(funded([Some(801), None, None, None]));
        let revealed = |claim| State::PreimageKnown(funded([Some(801), claim, None, None]));
        let cancelling = |cancel| State::Cancelling { funded: funded([Some(0); 4]), cancel };
        // state, now, tip, step
        let table = [
            (draft(), 59_999, 800, Step::AskTerms),
            (draft(), 60_000, 800, Step::Abort("terms.late")),
            (State::TermsSigned(signed()), 59_999, 800, Step::AskLock),
            (State::TermsSigned(signed()), 60_000, 800, Step::Abort("lock.late")),
            (locked(), 29_999, 800, Step::Wait),
            (locked(), 30_000, 800, Step::AskWallet),
            (locked(), 60_000, 800, Step::Abort("fund.late")),
            (built(Some(0)), 59_999, 800, Step::SendFund),
            (built(Some(0)), 60_000, 800, Step::AskCancel),
            (built(Some(0)), 59_999, 830, Step::AskCancel),
            (sent(), 90_000, 829, Step::BroadcastFund),
            (sent(), 90_000, 830, Step::AskCancel),
            (cancelling(None), 90_000, 830, Step::AskCancel),
            (cancelling(Some(own())), 90_000, 830, Step::BroadcastCancel),
            (confirmed(), 90_000, 949, Step::Wait),
            (confirmed(), 90_000, 950, Step::Refund),
            (revealed(Some(0)), 90_000, 949, Step::Wait),
            (revealed(Some(0)), 90_000, 950, Step::Refund),
            (revealed(Some(809)), 90_000, 950, Step::AskActivation),
        ];
        let params = sample::params("mainnet");
        for (state, now_ms, tip, expected) in table {
            let buyer = buyer(state);
            let got = buyer.due(sample::now(&params, now_ms, tip), true);
            assert_eq!(got, expected, "{} at {now_ms} ms, {tip}", buyer.state.name());
        }
    }

    #[test]
    fn while_a_rescan_runs_nothing_is_concluded_from_absence() {
        let params = sample::params("mainnet");
        let sent = buyer(State::FundSent(funded([Some(0), None, None, None])));
        assert_eq!(sent.due(sample::now(&params, 0, 835), false), Step::BroadcastFund);
        let confirmed = buyer(State::FundConfirmed(funded([Some(801), None, None, None])));
        assert_eq!(confirmed.due(sample::now(&params, 0, 960), false), Step::Wait);
    }

    #[test]
    fn who_holds_the_activation_never_refunds() {
        let funded = funded([Some(801), Some(0), None, None]);
        let transfer = funded.transfer().unwrap();
        let active = State::Active { funded, transfer, activation: sample::envelope() };
        let params = sample::params("mainnet");
        let now = sample::now(&params, 0, 2_000);
        assert_eq!(active.clone().settle(now), active);
        assert_eq!(buyer(active).due(now, true), Step::Wait);
    }

    #[test]
    fn coins_are_committed_until_the_wallet_locks_them() {
        let draft = buyer(State::Draft { request: None, until_ms: 0 });
        assert_eq!(draft.committed_sat(), 1_000_154);
        let sent = buyer(State::FundSent(funded([Some(0), None, None, None])));
        assert_eq!(sent.committed_sat(), 0);
    }
}
