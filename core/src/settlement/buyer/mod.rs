//! The buyer's side of one trade.
//!
//! ```text
//! Draft → TermsSigned → Locked → Funding → Built → Sent → Confirmed → PreimageKnown → Active
//!   └─────────┴───────────┴─────────┘ Aborted └───────┴→ Cancelling → Cancelled
//!                                                        Confirmed → Refunding → Refunded
//!                               Funding → Exported → Built
//!                                             └────→ Abandoned → Cancelled
//! ```
//!
//! The preimage is known from a claim, or from the Quittance of a provider that sells by itself
//! ([`super::exit`]), which is asked for the Activation until the refund is due. With that in hand
//! the key of the contract is the seller's for the asking, and nothing is taken back.
//!
//! A funding that is signed elsewhere can be sent from there, at any time: from Exported on the
//! contract is watched, and a funding that appears leads to Sent.
//!
//! From Sent on the phase is what the chain says ([`Buyer::settle`]): a reorganisation moves
//! it back. What to do next follows from state and time ([`Buyer::due`]).

mod partners;
mod plan;
mod quit;
mod together;

use std::collections::BTreeMap;

use bitcoin::ScriptBuf;
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{Secp256k1, Verification};
use serde::{Deserialize, Serialize};

use super::check::{self, Agreement, CheckError, Expected, Now};
use super::deadline::Deadline;
use super::exit::Quitted;
use super::objects::{Funder, Row, TermsRequest, Transfer};
use super::rails::Rail;
use super::rails::chain::facts::{ContractFacts, Facts, FundFact};
use super::rails::chain::fees;
use super::rails::chain::transaction::{KnownTx, OwnTx};
use crate::certificate::objects::{Certificate, DefaultProof, Hop};
use crate::code;
use crate::ids::{Key, TermsHash, TradeId};
use crate::units::{Slot, TimeMs};
use crate::wire::Envelope;

pub use self::plan::{FundPlan, Stake, batch_wait_ms};
pub use self::quit::Exit;
pub use self::together::{Gathered, Gathering, Part};

/// A buyer's side of one trade, as its record keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Buyer {
    pub trade: TradeId,
    pub row: Row,
    pub seller: Key,
    pub registrar: Key,
    pub to: Key,
    /// Feature bits that the bid required.
    pub features: u64,
    /// Most that the funding may cost in fees, sat.
    pub fee_cap_sat: u64,
    /// Most that its owner is willing to lose in all fees of the trade, sat.
    pub max_loss_sat: u64,
    /// What the funding may cost, sat: reserved until the wallet has locked coins, since
    /// nobody knows before how many it takes.
    pub fee_reserve_sat: u64,
    /// Index of the single-use refund key.
    pub key_index: u64,
    /// When the trade was opened, unix ms.
    pub opened_ms: TimeMs,
    /// From this slot on the holder is not to redeem any more, if the buyer says so.
    pub use_by: Option<Slot>,
    /// Others who pay a part of the price.
    pub partners: Vec<Funder>,
    /// Set where all pay by one transaction: what each pays for its part of it, sat/kvB.
    pub together: Option<u64>,
    pub state: State,
    /// Whether the buyer may take it back from its holder.
    pub is_recallable: bool,
}

/// Terms that the buyer accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed {
    pub agreement: Agreement,
    /// Signed Accept of every funder, in the order of the terms.
    pub accepts: Vec<Envelope>,
    /// Numbers of the funders that are this node: it funds and refunds their contracts.
    pub own: Vec<u8>,
    /// Until when the funding must be acknowledged, unix ms.
    pub release_at_ms: TimeMs,
}

/// The registrar's lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    pub signed: Envelope,
    pub attempt: u32,
}

/// A trade whose funding the wallet has signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payment {
    /// Checked terms and consent.
    pub signed: Signed,
    pub lock: Lock,
    pub plan: FundPlan,
    /// Fee of the whole funding, sat.
    pub fee_sat: u64,
    /// The seller's word that it is paid.
    pub quitted: Option<Quitted>,
    pub facts: Facts,
}

/// Where a buyer's side stands. Each state holds only what is valid in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// The seller is asked for terms.
    Draft {
        /// The request, the same at each retry; made once the chain is known.
        request: Option<TermsRequest>,
        /// When the buyer gives up, unix ms.
        until_ms: TimeMs,
    },
    /// The registrar is asked for its lock.
    TermsSigned(Signed),
    /// The lock stands; the buyer listens for a conflicting one.
    Locked {
        signed: Signed,
        lock: Lock,
        /// Until when it listens, unix ms.
        quiet_until_ms: TimeMs,
    },
    /// The wallet is asked for the funding.
    Funding {
        signed: Signed,
        lock: Lock,
        /// What the wallet is asked for.
        plan: FundPlan,
    },
    Paying {
        payment: Box<Payment>,
        phase: Phase,
    },
    /// Ended before any funding left this node.
    Aborted {
        code: String,
        /// Terms, if it came so far.
        agreement: Option<Agreement>,
    },
}

/// How far a payment has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// The registrar is asked to acknowledge the funding.
    Built,
    /// The funding is acknowledged and broadcast.
    Sent,
    /// The funding is in a block.
    Confirmed,
    /// A claim or the seller revealed the preimage; the registrar is asked for the Activation.
    PreimageKnown,
    /// The certificate is the buyer's.
    Active {
        transfer: Transfer,
        activation: Envelope,
        /// The contract is still to be spent, with the key that the seller may ask for.
        hands_over: bool,
    },
    /// The funding is being replaced by a payment to self.
    Cancelling {
        /// The replacement, once the wallet has built it.
        cancel: Option<OwnTx>,
    },
    Cancelled,
    Refunding {
        /// The refunds last sent, by number of their contract.
        refunds: BTreeMap<u8, OwnTx>,
    },
    Refunded,
    /// Paid, and the certificate did not come while its window lasted: what is left is the
    /// proof against the provider.
    Defaulted {
        /// None if an earlier life handed the key over, and its records are lost.
        transfer: Option<Transfer>,
    },
    /// It was not acknowledged in time. The registrar may still hold it, so only a conflict
    /// ends it: the next funding that takes its coins, or near `F` a payment to self.
    Lapsed,
    /// The funding was handed out for a signature made elsewhere, and has not come back: whoever
    /// signs it can send it. So can whoever has the other signatures of one that several pay, to
    /// whom this node has given its own.
    Exported,
    /// It did not come back in time, or too late for this trade. Others may take its coins; until
    /// a block gives them one, it can still be sent.
    Abandoned {
        /// Why the trade was given up.
        code: String,
    },
}

/// What a buyer does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing until something happens.
    Wait,
    AskTerms,
    /// Ask the registrar for its lock.
    AskLock,
    /// Ask the wallet for the funding.
    AskWallet,
    /// Tell the others what this node puts into their one transaction, and ask what they do.
    AskOthers,
    /// Ask the registrar to acknowledge the funding, and show it to the seller.
    SendFund,
    /// Nobody acknowledged the funding: let others have its coins.
    Lapse,
    /// Nobody signed the funding in time: let others have its coins, and watch.
    Abandon(&'static str),
    /// Broadcast the funding (again).
    BroadcastFund,
    /// Ask the wallet for a replacement that pays to self.
    AskCancel,
    /// Broadcast the replacement (again).
    BroadcastCancel,
    /// Build or bump the refunds, and broadcast them.
    Refund,
    /// Ask the registrar for the Activation.
    AskActivation,
    /// Ask the registrar for the certificate that an earlier life has had.
    AskCertificate,
    /// The window is over, and the certificate never came.
    Default,
    /// Give up before any funding left.
    Abort(&'static str),
}

impl Phase {
    /// Name, as people and the API see it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Exported => "fund_exported",
            Self::Abandoned { .. } => "fund_abandoned",
            Self::Built => "fund_built",
            Self::Lapsed => "fund_lapsed",
            Self::Sent => "fund_sent",
            Self::Confirmed => "fund_confirmed",
            Self::PreimageKnown => "preimage_known",
            Self::Active { .. } => "active",
            Self::Cancelling { .. } => "cancelling",
            Self::Cancelled => "cancelled",
            Self::Refunding { .. } => "refunding",
            Self::Refunded => "refunded",
            Self::Defaulted { .. } => "defaulted",
        }
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
            Self::Funding { plan, .. } if plan.gathering.is_some() => "funding_together",
            Self::Funding { .. } => "funding",
            Self::Paying { payment, phase: Phase::Exported } if payment.is_joint() => "fund_signed",
            Self::Paying { phase, .. } => phase.name(),
            Self::Aborted { .. } => "aborted",
        }
    }

    /// Whether nothing can happen any more.
    #[must_use]
    pub fn is_done(&self) -> bool {
        match self {
            Self::Aborted { .. } => true,
            Self::Paying { phase, .. } => {
                matches!(
                    phase,
                    Phase::Active { hands_over: false, .. }
                        | Phase::Cancelled
                        | Phase::Refunded
                        | Phase::Defaulted { .. }
                )
            }
            Self::Draft { .. }
            | Self::TermsSigned(_)
            | Self::Locked { .. }
            | Self::Funding { .. } => false,
        }
    }

    /// Whether the provider was paid and gave nothing.
    #[must_use]
    pub fn has_defaulted(&self) -> bool {
        matches!(self, Self::Paying { phase: Phase::Defaulted { .. }, .. })
    }

    /// Terms, from TermsSigned on.
    #[must_use]
    pub fn agreement(&self) -> Option<&Agreement> {
        match self {
            Self::Draft { .. } => None,
            Self::TermsSigned(signed)
            | Self::Locked { signed, .. }
            | Self::Funding { signed, .. } => Some(&signed.agreement),
            Self::Paying { payment, .. } => Some(&payment.signed.agreement),
            Self::Aborted { agreement, .. } => agreement.as_ref(),
        }
    }

    /// The payment, once its funding is signed.
    #[must_use]
    pub fn payment(&self) -> Option<&Payment> {
        match self {
            Self::Paying { payment, .. } => Some(payment),
            Self::Draft { .. }
            | Self::TermsSigned(_)
            | Self::Locked { .. }
            | Self::Funding { .. }
            | Self::Aborted { .. } => None,
        }
    }

    /// What the wallet was asked to fund.
    #[must_use]
    pub fn plan(&self) -> Option<&FundPlan> {
        match self {
            Self::Funding { plan, .. } => Some(plan),
            Self::Draft { .. }
            | Self::TermsSigned(_)
            | Self::Locked { .. }
            | Self::Paying { .. }
            | Self::Aborted { .. } => self.payment().map(|payment| &payment.plan),
        }
    }
}

impl Payment {
    /// Object id of the terms.
    #[must_use]
    pub fn hash(&self) -> TermsHash {
        self.signed.agreement.hash()
    }

    /// What this trade bears of the funding's fee, sat.
    #[must_use]
    pub fn fee_share_sat(&self) -> u64 {
        self.plan.share_sat(self.fee_sat, self.hash())
    }

    /// What this trade bears of the fee of what replaces the funding, sat.
    #[must_use]
    pub fn share_sat(&self, replacement: &OwnTx) -> u64 {
        self.plan.share_sat(replacement.fee_sat, self.hash())
    }

    /// This node's contracts with their numbers.
    pub fn own(&self) -> impl Iterator<Item = (u8, &ContractFacts)> {
        let of = |n: &u8| Some((*n, self.facts.contracts().get(usize::from(*n))?));
        self.signed.own.iter().filter_map(of)
    }

    /// The funding transaction of this node's contracts.
    #[must_use]
    pub fn fund(&self) -> Option<&KnownTx> {
        self.own().find_map(|(_, facts)| facts.fund.as_ref()).map(|fund| &fund.tx)
    }

    fn is_fund_seen(&self) -> bool {
        self.own().any(|(_, facts)| facts.fund.as_ref().is_some_and(FundFact::is_seen))
    }

    /// Whether the funding confirmed early enough to be claimed.
    #[must_use]
    pub fn is_fund_in_time(&self) -> bool {
        let fund_by = self.signed.agreement.terms().fund_by;
        let confirmed = |facts: &ContractFacts| facts.fund.as_ref().and_then(|fund| fund.height);
        self.facts.contracts().iter().all(|facts| confirmed(facts).is_some_and(|at| at <= fund_by))
    }

    fn own_depth(&self, depth: impl Fn(&ContractFacts) -> u32) -> u32 {
        self.own().map(|(_, facts)| depth(facts)).min().unwrap_or(0)
    }

    /// Proof of payment: a claim in a block, else the seller's word unless it moves nothing,
    /// else a claim that waits.
    #[must_use]
    pub fn transfer(&self) -> Option<Transfer> {
        let claim = transfer(&self.facts, self.hash());
        if self.facts.claim().is_some_and(|(spend, _)| spend.height.is_some()) {
            return claim;
        }
        self.pending().map(|quitted| quitted.transfer(self.hash())).or(claim)
    }

    /// The seller's word, unless the registrar has refused it.
    fn pending(&self) -> Option<Quitted> {
        self.quitted.filter(|quitted| !quitted.is_refused)
    }

    /// Whether the provider is asked if its own word moves the certificate: until the refund is
    /// due. Its silence keeps no refund away (see [`super::exit`]).
    fn may_move(&self, now: Now<'_>) -> bool {
        self.pending().is_some() && now.tip < self.signed.agreement.terms().refund_at
    }

    fn is_over(&self, now: Now<'_>) -> bool {
        now.has_passed(self.signed.agreement.terms().window.ends_at_ms(now.params.slot_s))
    }

    /// Whether every contract is spent for good.
    fn is_spent(&self, now: Now<'_>) -> bool {
        self.facts.is_spent(now.tip, now.params.chain.final_blocks)
    }

    /// What shows that the provider was paid, once a claim is known.
    #[must_use]
    pub fn default_proof(&self) -> Option<DefaultProof> {
        let agreement = &self.signed.agreement;
        Some(DefaultProof {
            title: agreement.title.clone(),
            terms: agreement.signed.envelope.clone(),
            lock: self.lock.signed.clone(),
            transfer: self.transfer()?,
        })
    }

    /// The certificate that the sale makes.
    #[must_use]
    pub fn certificate(&self, transfer: &Transfer, activation: &Envelope) -> Certificate {
        let agreement = &self.signed.agreement;
        let mut certificate = agreement.title.clone();
        certificate.hops.push(Hop::Sale {
            terms: agreement.signed.envelope.clone(),
            lock: self.lock.signed.clone(),
            transfer: transfer.clone(),
            activation: activation.clone(),
        });
        certificate
    }

    /// The phase that the facts demand, if it is another one. Terminal phases stay; so does
    /// Active, because a buyer that holds the Activation must not take its money back in a
    /// reorganisation.
    fn settle(&self, phase: &Phase, now: Now<'_>) -> Option<Phase> {
        let (tip, deep) = (now.tip, now.params.chain.final_blocks);
        match phase {
            Phase::Active { transfer, activation, hands_over: true }
                if self.is_spent(now) || self.is_over(now) =>
            {
                let (transfer, activation) = (transfer.clone(), activation.clone());
                return Some(Phase::Active { transfer, activation, hands_over: false });
            }
            Phase::Active { .. } | Phase::Cancelled | Phase::Refunded | Phase::Defaulted { .. } => {
                return None;
            }
            // Until someone broadcasts it only its own deadline counts, and who takes its coins.
            Phase::Exported | Phase::Abandoned { .. } | Phase::Built | Phase::Lapsed
                if !self.is_fund_seen() =>
            {
                let taken = self.own_depth(|facts| facts.conflict_depth(tip)) >= deep;
                return taken.then_some(Phase::Cancelled);
            }
            // It waited in vain before it was given up: only a block counts.
            Phase::Abandoned { .. }
                if self.is_joint() && self.own_depth(|facts| facts.fund_depth(tip)) == 0 =>
            {
                let taken = self.own_depth(|facts| facts.conflict_depth(tip)) >= deep;
                return taken.then_some(Phase::Cancelled);
            }
            Phase::Exported
            | Phase::Abandoned { .. }
            | Phase::Built
            | Phase::Lapsed
            | Phase::Sent
            | Phase::Confirmed
            | Phase::PreimageKnown
            | Phase::Cancelling { .. }
            | Phase::Refunding { .. } => {}
        }
        if self.own_depth(|facts| facts.refund_depth(tip)) >= deep {
            return Some(Phase::Refunded);
        }
        if self.own_depth(|facts| facts.conflict_depth(tip)) >= deep {
            return Some(Phase::Cancelled);
        }
        let is_revealed = matches!(phase, Phase::PreimageKnown);
        let revealed = (!is_revealed).then_some(Phase::PreimageKnown);
        if self.facts.claim_depth(tip) > 0 {
            return revealed;
        }
        // The key was handed over in an earlier life: a refund is in vain.
        let is_taken = self.facts.taken().is_some();
        if matches!(phase, Phase::Refunding { .. }) && !is_taken {
            return None;
        }
        if self.facts.claim().is_some() || self.may_move(now) {
            return revealed;
        }
        if self.own_depth(|facts| facts.fund_depth(tip)) > 0 {
            return (*phase != Phase::Confirmed).then_some(Phase::Confirmed);
        }
        let stays = matches!(phase, Phase::Sent | Phase::Cancelling { .. });
        (!stays).then_some(Phase::Sent)
    }
}

/// Proof of payment from the facts of terms.
#[must_use]
pub fn transfer(facts: &Facts, terms_hash: TermsHash) -> Option<Transfer> {
    let (spend, x) = facts.claim()?;
    let spend_txid = spend.txid.to_byte_array();
    let (v, vin) = (crate::wire::VERSION, spend.vin);
    Some(Transfer { v, terms_hash, x, spend_txid, vin, quittance: None })
}

impl Buyer {
    /// Whether all fees of the trade, a refund in vain included, would come to more than its
    /// owner is willing to lose.
    #[must_use]
    pub fn is_uneconomical(&self, feerate_sat_kvb: u64) -> bool {
        fees::fee_sat(feerate_sat_kvb, fees::SETTLEMENT_VSIZE) > self.max_loss_sat
    }

    /// Scripts of the wallet that refunds on their way pay to.
    #[must_use]
    pub fn refund_scripts(&self) -> Vec<ScriptBuf> {
        let State::Paying { phase: Phase::Refunding { refunds }, .. } = &self.state else {
            return Vec::new();
        };
        let outputs = refunds.values().flat_map(|own| &own.tx.tx().output);
        outputs.map(|output| output.script_pubkey.clone()).collect()
    }

    /// Moves to what the facts say. Returns whether it moved.
    pub fn settle(&mut self, now: Now<'_>) -> bool {
        let State::Paying { payment, phase } = &mut self.state else { return false };
        let moved = payment.settle(phase, now);
        let is_moved = moved.is_some();
        if let Some(moved) = moved {
            *phase = moved;
        }
        is_moved
    }

    /// What to do next. `sure` says whether the absence of a chain fact means something,
    /// which it does not while a rescan after a restart runs.
    #[must_use]
    pub fn due(&self, now: Now<'_>, sure: bool) -> Step {
        let passed = |at_ms: TimeMs| now.ms >= at_ms;
        match &self.state {
            State::Draft { until_ms, .. } if passed(*until_ms) => Step::Abort("terms.late"),
            State::Draft { .. } => Step::AskTerms,
            State::TermsSigned(signed) if passed(signed.release_at_ms) => {
                let is_agreed = signed.is_agreed();
                Step::Abort(if is_agreed { "lock.late" } else { code!("pool.not_agreed") })
            }
            // Who gathers the consents may keep them from this one, and have the lock.
            State::TermsSigned(_) => Step::AskLock,
            State::Funding { plan, .. }
                if plan.gathering.is_some() && passed(plan.sign_by_ms(now.params)) =>
            {
                Step::Abort(self.late_together())
            }
            State::Locked { signed, .. } | State::Funding { signed, .. }
                if passed(signed.release_at_ms) =>
            {
                Step::Abort(self.late_together())
            }
            // Their coins are brought together meanwhile.
            State::Locked { .. } if self.together.is_some() => Step::AskWallet,
            State::Locked { quiet_until_ms, .. } if !passed(*quiet_until_ms) => Step::Wait,
            State::Funding {
                signed, plan: FundPlan { gathering: Some(gathering), .. }, ..
            } => self.due_together(signed, gathering, now),
            State::Locked { .. } | State::Funding { .. } => Step::AskWallet,
            State::Paying { payment, phase } => payment.due(phase, now, sure),
            State::Aborted { .. } => Step::Wait,
        }
    }

    /// Times at which something falls due, unix ms, with what.
    #[must_use]
    pub fn deadlines(&self, slot_s: u32) -> Vec<(TimeMs, Deadline)> {
        match &self.state {
            State::Draft { until_ms, .. } => vec![(*until_ms, Deadline::Terms)],
            State::Funding {
                plan: FundPlan { gathering: Some(gathering), ack_by_ms, .. }, ..
            } => {
                let quiet = (gathering.quiet_until_ms, Deadline::Quiet);
                vec![quiet, (*ack_by_ms, Deadline::Funding)]
            }
            State::TermsSigned(signed) | State::Funding { signed, .. } => {
                vec![(signed.release_at_ms, Deadline::Funding)]
            }
            State::Locked { signed, quiet_until_ms, .. } => {
                vec![(*quiet_until_ms, Deadline::Quiet), (signed.release_at_ms, Deadline::Funding)]
            }
            State::Paying { payment, phase: Phase::Exported | Phase::Built } => {
                vec![(payment.plan.ack_by_ms, Deadline::Funding)]
            }
            State::Paying {
                phase:
                    Phase::Confirmed | Phase::PreimageKnown | Phase::Active { hands_over: true, .. },
                ..
            } => {
                vec![(self.row.window().ends_at_ms(slot_s), Deadline::DeliveryEnds)]
            }
            State::Paying { .. } | State::Aborted { .. } => Vec::new(),
        }
    }

    /// Checks the seller's answer; `None` if it comes too late or was not asked for.
    ///
    /// # Errors
    /// The first [`CheckError`] found.
    pub fn terms<C: Verification>(
        &self,
        secp: &Secp256k1<C>,
        now: Now<'_>,
        title: Certificate,
        terms: &Envelope,
    ) -> Option<Result<Agreement, CheckError>> {
        let State::Draft { request: Some(request), until_ms } = &self.state else { return None };
        if !now.chain_up || now.ms >= *until_ms {
            return None;
        }
        let expected = Expected {
            trade: self.trade,
            row: &self.row,
            seller: self.seller,
            registrar: self.registrar,
            to: self.to,
            funders: &request.funders,
            features: self.features,
            not_after_slot: request.not_after_slot(self.row.window()),
            recall: request.sponsor().filter(|_| self.is_recallable),
        };
        Some(check::agreement(secp, now, expected, title, terms))
    }

    /// Checks the registrar's lock; `None` if it was not asked for.
    ///
    /// # Errors
    /// The first [`CheckError`] found.
    pub fn lock(&self, now: Now<'_>, signed: &Envelope) -> Option<Result<Lock, CheckError>> {
        let State::TermsSigned(terms) = &self.state else { return None };
        let attempt = check::lock(now, &terms.agreement, signed);
        Some(attempt.map(|attempt| Lock { signed: signed.clone(), attempt }))
    }

    /// Checks the wallet's funding against terms, cap and time; returns the first facts.
    ///
    /// # Errors
    /// `fund.pays_not_the_contract`, `fund.late`, `fund.fee_above_cap`, or why it can no
    /// longer confirm in time.
    pub fn funding(
        &self,
        now: Now<'_>,
        (signed, plan): (&Signed, &FundPlan),
        rail: &Rail,
        tx: &KnownTx,
        fee_sat: u64,
    ) -> Result<Facts, &'static str> {
        let contracts = rail.contracts();
        let mut facts = Facts::none(contracts.len());
        facts.fund(contracts, tx);
        let paid = |n: &u8| {
            facts.contracts().get(usize::from(*n)).is_some_and(|contract| contract.fund.is_some())
        };
        if signed.own.is_empty() || !signed.own.iter().all(paid) {
            return Err(code!("fund.pays_not_the_contract"));
        }
        if now.ms >= signed.release_at_ms {
            return Err(code!("fund.late"));
        }
        if plan.share_sat(fee_sat, signed.agreement.hash()) > self.fee_cap_sat {
            return Err(code!("fund.fee_above_cap"));
        }
        check::reach(now, signed.agreement.terms()).map_err(CheckError::code)?;
        Ok(facts)
    }

    /// Whether this acknowledges the funding that waits for it, for all its terms.
    #[must_use]
    pub fn is_acknowledged(&self, terms: &[TermsHash], txid: [u8; 32]) -> bool {
        let State::Paying { payment, phase: Phase::Built } = &self.state else { return false };
        let ours = payment.fund().map(|fund| fund.txid().to_byte_array());
        payment.plan.terms == terms && ours == Some(txid)
    }

    /// Checks the Activation, as an answer or in a certificate that shows how it was paid for;
    /// `None` if it is not waited for. Returns the phase to enter.
    ///
    /// A buyer that lost the records of its hand-over knows of no payment but what the
    /// certificate shows. Before its refund has left it takes that: it has the Activation by it.
    ///
    /// # Errors
    /// The first [`CheckError`] found.
    pub fn activation(
        &self,
        now: Now<'_>,
        signed: &Envelope,
        shown: Option<&Transfer>,
    ) -> Option<Result<Phase, CheckError>> {
        let State::Paying { payment, phase } = &self.state else { return None };
        let shown = || shown.filter(|shown| payment.is_quit(now, shown)).cloned();
        let transfer = match phase {
            Phase::PreimageKnown => payment.transfer().or_else(shown)?,
            Phase::Confirmed => shown()?,
            Phase::Exported
            | Phase::Abandoned { .. }
            | Phase::Built
            | Phase::Lapsed
            | Phase::Sent
            | Phase::Active { .. }
            | Phase::Cancelling { .. }
            | Phase::Cancelled
            | Phase::Refunding { .. }
            | Phase::Refunded
            | Phase::Defaulted { .. } => return None,
        };
        let (agreement, attempt) = (&payment.signed.agreement, payment.lock.attempt);
        let checked = check::activation(now.params, agreement, attempt, signed);
        let hands_over = transfer.quittance.is_some();
        let activation = signed.clone();
        Some(checked.map(|()| Phase::Active { transfer, activation, hands_over }))
    }
}

impl Payment {
    fn due(&self, phase: &Phase, now: Now<'_>, sure: bool) -> Step {
        let tip = now.tip;
        let terms = self.signed.agreement.terms();
        if let Some(step) = self.due_together(phase, now, sure) {
            return step;
        }
        let FundPlan { ack_by_ms, cancel_at, .. } = self.plan;
        match phase {
            Phase::Exported if now.ms >= ack_by_ms => Step::Abandon(code!("wallet.unsigned")),
            Phase::Exported => Step::AskWallet,
            Phase::Abandoned { .. } => Step::Wait,
            // Once the bytes left, the registrar may hold them: only a replacement is safe.
            Phase::Built | Phase::Lapsed if tip >= cancel_at => Step::AskCancel,
            Phase::Built if now.ms >= ack_by_ms => Step::Lapse,
            Phase::Built => Step::SendFund,
            Phase::Lapsed => Step::Wait,
            Phase::Sent if sure && tip >= cancel_at => Step::AskCancel,
            Phase::Sent => Step::BroadcastFund,
            Phase::Cancelling { cancel: None } => Step::AskCancel,
            Phase::Cancelling { cancel: Some(_) } => Step::BroadcastCancel,
            Phase::PreimageKnown if self.facts.claim_depth(tip) > 0 => {
                // One that a reorganisation could still undo is no default yet.
                let stands = self.facts.claim_depth(tip) >= now.params.chain.final_blocks;
                if sure && stands && self.is_over(now) {
                    Step::Default
                } else {
                    Step::AskActivation
                }
            }
            Phase::Confirmed | Phase::PreimageKnown if self.may_move(now) => Step::AskActivation,
            Phase::Confirmed | Phase::PreimageKnown if self.facts.taken().is_some() => {
                self.due_taken(now, sure)
            }
            Phase::Confirmed | Phase::PreimageKnown if sure && tip >= terms.refund_at => {
                Step::Refund
            }
            Phase::Confirmed | Phase::PreimageKnown => Step::Wait,
            Phase::Refunding { .. } => Step::Refund,
            Phase::Active { .. } | Phase::Cancelled | Phase::Refunded | Phase::Defaulted { .. } => {
                Step::Wait
            }
        }
    }
}

#[cfg(test)]
mod tests;
