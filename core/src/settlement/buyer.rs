//! The buyer's side of one trade.
//!
//! ```text
//! Draft → TermsSigned → Locked → Funding → Built → Sent → Confirmed → PreimageKnown → Active
//!   └─────────┴───────────┴─────────┘ Aborted └───────┴→ Cancelling → Cancelled
//!                                                        Confirmed → Refunding → Refunded
//! ```
//!
//! From Sent on the phase is what the chain says ([`Buyer::settle`]): a reorganisation moves
//! it back. What to do next follows from state and time ([`Buyer::due`]).

use std::collections::BTreeMap;

use bitcoin::ScriptBuf;
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{Secp256k1, Verification};
use serde::{Deserialize, Serialize};

use super::check::{self, Agreement, CheckError, Expected, Now};
use super::deadline::Deadline;
use super::objects::{Row, TermsRequest, Transfer};
use super::rails::Rail;
use super::rails::chain::facts::{ContractFacts, Facts};
use super::rails::chain::fees;
use super::rails::chain::timelock::Timelocks;
use super::rails::chain::transaction::{KnownTx, OwnTx};
use crate::certificate::objects::{Certificate, Hop};
use crate::ids::{FundingId, Key, TermsHash, TradeId};
use crate::units::TimeMs;
use crate::wire::Envelope;

/// A buyer's side of one trade, as its record keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Buyer {
    pub trade: TradeId,
    pub row: Row,
    pub seller: Key,
    pub registrar: Key,
    pub to: Key,
    /// The certificate on sale, at a resale; at a primary sale the seller sends its Issue.
    pub title: Option<Certificate>,
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
    pub state: State,
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
    pub funding: FundingId,
    /// Fee of the funding, sat.
    pub fee_sat: u64,
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
        funding: FundingId,
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
    /// A claim revealed the preimage; the registrar is asked for the Activation.
    PreimageKnown,
    /// The certificate is the buyer's.
    Active {
        transfer: Transfer,
        activation: Envelope,
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
        transfer: Transfer,
    },
    /// It was not acknowledged in time. The registrar may still hold it, so only a conflict
    /// ends it: the next funding that takes its coins, or near `F` a payment to self.
    Lapsed,
}

/// What shows anyone that a provider was paid and gave nothing. Whether the spend stands on
/// the chain, and that no Activation was signed, only the chain and the provider can answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DefaultProof {
    /// The certificate up to the sale; at a primary sale its Issue alone.
    pub title: Certificate,
    /// Signed by the seller.
    pub terms: Envelope,
    /// The provider's promise to move the certificate if this is paid.
    pub lock: Envelope,
    /// The preimage and the spend that revealed it.
    pub transfer: Transfer,
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
    /// Ask the registrar to acknowledge the funding, and show it to the seller.
    SendFund,
    /// Nobody acknowledged the funding: let others have its coins.
    Lapse,
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
            Self::Funding { .. } => "funding",
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
                    Phase::Active { .. }
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
    pub fn funding(&self) -> Option<FundingId> {
        match self {
            Self::Funding { funding, .. } => Some(*funding),
            Self::Draft { .. }
            | Self::TermsSigned(_)
            | Self::Locked { .. }
            | Self::Paying { .. }
            | Self::Aborted { .. } => self.payment().map(|payment| payment.funding),
        }
    }
}

impl Payment {
    /// Object id of the terms.
    #[must_use]
    pub fn hash(&self) -> TermsHash {
        self.signed.agreement.hash()
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
        self.own().any(|(_, facts)| facts.fund.as_ref().is_some_and(|fund| fund.seen))
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

    /// Proof of payment, once a claim is known.
    #[must_use]
    pub fn transfer(&self) -> Option<Transfer> {
        transfer(&self.facts, self.hash())
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
            Phase::Active { .. } | Phase::Cancelled | Phase::Refunded | Phase::Defaulted { .. } => {
                return None;
            }
            // Until someone broadcasts it only its own deadline counts, and who takes its coins.
            Phase::Built | Phase::Lapsed if !self.is_fund_seen() => {
                let taken = self.own_depth(|facts| facts.conflict_depth(tip)) >= deep;
                return taken.then_some(Phase::Cancelled);
            }
            Phase::Built
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
        if matches!(phase, Phase::Refunding { .. }) {
            return None;
        }
        if self.facts.claim().is_some() {
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
    Some(Transfer { v: crate::wire::VERSION, terms_hash, x, spend_txid, vin: spend.vin })
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
            State::TermsSigned(signed) if passed(signed.release_at_ms) => Step::Abort("lock.late"),
            State::TermsSigned(_) => Step::AskLock,
            State::Locked { signed, .. } | State::Funding { signed, .. }
                if passed(signed.release_at_ms) =>
            {
                Step::Abort("fund.late")
            }
            State::Locked { quiet_until_ms, .. } if !passed(*quiet_until_ms) => Step::Wait,
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
            State::TermsSigned(signed) | State::Funding { signed, .. } => {
                vec![(signed.release_at_ms, Deadline::Funding)]
            }
            State::Locked { signed, quiet_until_ms, .. } => {
                vec![(*quiet_until_ms, Deadline::Quiet), (signed.release_at_ms, Deadline::Funding)]
            }
            State::Paying { payment, phase: Phase::Built } => {
                vec![(payment.signed.release_at_ms, Deadline::Funding)]
            }
            State::Paying { phase: Phase::PreimageKnown, .. } => {
                vec![(self.row.window().ends_at_ms(slot_s), Deadline::DeliveryEnds)]
            }
            State::Paying { .. } | State::Aborted { .. } => Vec::new(),
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
            State::Paying { .. } | State::Aborted { .. } => 0,
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
        issue: Option<Envelope>,
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
        };
        let fresh = issue.map(|issue| Certificate { issue, hops: Vec::new() });
        let Some(title) = self.title.clone().or(fresh) else { return Some(Err(CheckError::Issue)) };
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
        signed: &Signed,
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
            return Err("fund.pays_not_the_contract");
        }
        if now.ms >= signed.release_at_ms {
            return Err("fund.late");
        }
        if fee_sat > self.fee_cap_sat {
            return Err("fund.fee_above_cap");
        }
        check::reach(now, signed.agreement.terms()).map_err(CheckError::code)?;
        Ok(facts)
    }

    /// Takes a better paying form of a funding that waits: the same contracts, within the cap.
    /// Returns whether it is another one.
    pub fn bumped(&mut self, rail: &Rail, tx: &KnownTx, fee_sat: u64) -> bool {
        let State::Paying { payment, phase: Phase::Sent } = &mut self.state else { return false };
        let contracts = rail.contracts();
        let mut facts = Facts::none(contracts.len());
        facts.fund(contracts, tx);
        let paid = |n: &u8| {
            facts.contracts().get(usize::from(*n)).is_some_and(|contract| contract.fund.is_some())
        };
        let is_other = payment.fund().is_some_and(|fund| fund.txid() != tx.txid());
        let is_better = fee_sat > payment.fee_sat && fee_sat <= self.fee_cap_sat;
        if !is_other || !is_better || !payment.signed.own.iter().all(paid) {
            return false;
        }
        payment.facts.replace_fund(contracts, tx);
        payment.fee_sat = fee_sat;
        true
    }

    /// Whether this acknowledges the funding that waits for it.
    #[must_use]
    pub fn is_acknowledged(&self, terms_hash: TermsHash, txid: [u8; 32]) -> bool {
        let State::Paying { payment, phase: Phase::Built } = &self.state else { return false };
        let ours = payment.fund().map(|fund| fund.txid().to_byte_array());
        payment.hash() == terms_hash && ours == Some(txid)
    }

    /// Checks the Activation; `None` if it was not asked for. Returns the proof of payment
    /// that it answers.
    ///
    /// # Errors
    /// The first [`CheckError`] found.
    pub fn activation(
        &self,
        now: Now<'_>,
        signed: &Envelope,
    ) -> Option<Result<Transfer, CheckError>> {
        let State::Paying { payment, phase: Phase::PreimageKnown } = &self.state else {
            return None;
        };
        let transfer = payment.transfer()?;
        let (agreement, attempt) = (&payment.signed.agreement, payment.lock.attempt);
        let checked = check::activation(now.params, agreement, attempt, signed);
        Some(checked.map(|()| transfer))
    }
}

impl Payment {
    fn due(&self, phase: &Phase, now: Now<'_>, sure: bool) -> Step {
        let tip = now.tip;
        let terms = self.signed.agreement.terms();
        let cancel_at = Timelocks::of(terms, now.params).cancel_at();
        match phase {
            // Once the bytes left, the registrar may hold them: only a replacement is safe.
            Phase::Built | Phase::Lapsed if tip >= cancel_at => Step::AskCancel,
            Phase::Built if now.ms >= self.signed.release_at_ms => Step::Lapse,
            Phase::Built => Step::SendFund,
            Phase::Lapsed => Step::Wait,
            Phase::Sent if sure && tip >= cancel_at => Step::AskCancel,
            Phase::Sent => Step::BroadcastFund,
            Phase::Cancelling { cancel: None } => Step::AskCancel,
            Phase::Cancelling { cancel: Some(_) } => Step::BroadcastCancel,
            Phase::PreimageKnown if self.facts.claim_depth(tip) > 0 => {
                // One that a reorganisation could still undo is no default yet.
                let stands = self.facts.claim_depth(tip) >= now.params.chain.final_blocks;
                let over = now.ms >= terms.window.ends_at_ms(now.params.slot_s);
                if sure && stands && over { Step::Default } else { Step::AskActivation }
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
mod tests {
    use super::super::sample;
    use super::*;

    /// t0 of the sample terms; F − g = 830, F = 836, T_R = 950 above it.
    const T0: u32 = 800;
    const UNTIL_MS: TimeMs = 60_000;

    fn signed() -> Signed {
        let agreement = sample::agreement(sample::terms(T0));
        Signed { agreement, accepts: Vec::new(), own: vec![0], release_at_ms: UNTIL_MS }
    }

    fn lock() -> Lock {
        Lock { signed: sample::envelope(), attempt: 0 }
    }

    fn payment(heights: [Option<u32>; 4]) -> Box<Payment> {
        let facts = Facts::new(vec![sample::contract_facts(heights)]);
        let funding = FundingId([9; 32]);
        Box::new(Payment { signed: signed(), lock: lock(), funding, fee_sat: 154, facts })
    }

    fn paying(heights: [Option<u32>; 4], phase: Phase) -> State {
        State::Paying { payment: payment(heights), phase }
    }

    fn own() -> OwnTx {
        OwnTx { tx: sample::tx(), fee_sat: 138 }
    }

    fn refunding() -> Phase {
        Phase::Refunding { refunds: BTreeMap::from([(0, own())]) }
    }

    fn cancelling() -> Phase {
        Phase::Cancelling { cancel: Some(own()) }
    }

    fn buyer(state: State) -> Buyer {
        Buyer {
            trade: TradeId([10; 32]),
            row: sample::row(),
            seller: Key([1; 32]),
            registrar: Key([1; 32]),
            to: Key([2; 32]),
            title: None,
            features: 0,
            fee_cap_sat: 1_000,
            max_loss_sat: 10_000,
            fee_reserve_sat: 154,
            key_index: 1,
            opened_ms: 0,
            state,
        }
    }

    fn settled(state: State, tip: u32) -> &'static str {
        let params = sample::params("mainnet");
        let mut buyer = buyer(state);
        buyer.settle(sample::now(&params, 0, tip));
        let name = buyer.state.name();
        assert!(!buyer.settle(sample::now(&params, 0, tip)), "{name}: settling twice moves");
        name
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
        for (heights, tip, exit, expected) in table {
            let phase = match exit {
                'r' => refunding(),
                'c' => cancelling(),
                _ => Phase::Confirmed,
            };
            let got = settled(paying(heights, phase), tip);
            assert_eq!(got, expected, "{heights:?} at {tip}");
        }
    }

    #[test]
    fn two_contracts_of_one_buyer() {
        const NO: Option<u32> = None;
        let funded = [Some(801), NO, NO, NO];
        let refunded = [Some(801), NO, Some(951), NO];
        // Contracts, tip, exit begun, own contracts, state
        let table = [
            ([funded, funded], 801, 'n', vec![0, 1], "fund_confirmed"),
            ([funded, [Some(0), NO, NO, NO]], 801, 'n', vec![0, 1], "fund_sent"),
            // The other funder is late, but this node's money is out.
            ([funded, [NO; 4]], 801, 'n', vec![0], "fund_confirmed"),
            ([refunded, funded], 960, 'r', vec![0, 1], "refunding"),
            ([refunded, funded], 960, 'r', vec![0], "refunded"),
            ([refunded, refunded], 955, 'r', vec![0, 1], "refunding"),
            ([refunded, refunded], 956, 'r', vec![0, 1], "refunded"),
            // Who takes a part of the price has sold.
            ([refunded, [Some(801), Some(952), NO, NO]], 956, 'r', vec![0, 1], "preimage_known"),
            ([funded, [Some(801), Some(0), NO, NO]], 810, 'n', vec![0], "preimage_known"),
        ];
        for (contracts, tip, exit, own, expected) in table {
            let phase = if exit == 'r' { refunding() } else { Phase::Sent };
            let mut payment = payment([NO; 4]);
            payment.facts = Facts::new(contracts.map(sample::contract_facts).to_vec());
            payment.signed.agreement = sample::agreement(sample::two_funders(T0));
            payment.signed.own = own;
            let got = settled(State::Paying { payment, phase }, tip);
            assert_eq!(got, expected, "{contracts:?} at {tip}");
        }
    }

    #[test]
    fn what_is_due() {
        let draft = || State::Draft { request: None, until_ms: UNTIL_MS };
        let locked = || State::Locked { signed: signed(), lock: lock(), quiet_until_ms: 30_000 };
        let built = |fund| paying([fund, None, None, None], Phase::Built);
        let lapsed = || paying([Some(0), None, None, None], Phase::Lapsed);
        let sent = || paying([Some(0), None, None, None], Phase::Sent);
        let confirmed = || paying([Some(801), None, None, None], Phase::Confirmed);
        // The window of the sample terms ends at 500,004 h.
        let ends = 500_004 * 3_600_000;
        let revealed = |claim| paying([Some(801), claim, None, None], Phase::PreimageKnown);
        let cancelling = |cancel| paying([Some(0); 4], Phase::Cancelling { cancel });
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
            (built(Some(0)), 60_000, 800, Step::Lapse),
            (lapsed(), 90_000, 829, Step::Wait),
            (lapsed(), 90_000, 830, Step::AskCancel),
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
            (revealed(Some(809)), ends - 1, 950, Step::AskActivation),
            (revealed(Some(809)), ends, 813, Step::AskActivation),
            (revealed(Some(809)), ends, 814, Step::Default),
        ];
        let params = sample::params("mainnet");
        for (state, now_ms, tip, expected) in table {
            let buyer = buyer(state);
            let got = buyer.due(sample::now(&params, now_ms, tip), true);
            assert_eq!(got, expected, "{} at {now_ms} ms, {tip}", buyer.state.name());
        }
    }

    /// The wallet is asked once and may answer late, dearly or wrongly.
    #[test]
    fn a_funding_is_taken_only_if_it_pays_in_time_within_the_cap() {
        let secp = bitcoin::secp256k1::Secp256k1::new();
        let buyer = buyer(State::Draft { request: None, until_ms: 0 });
        let signed = signed();
        let rail = Rail::of(&secp, signed.agreement.terms(), signed.agreement.hash()).unwrap();
        let spk = rail.contracts()[0].spk.clone();
        let paying = |value_sat: u64| {
            let mut tx = sample::tx().tx().clone();
            let (value, script_pubkey) = (bitcoin::Amount::from_sat(value_sat), spk.clone());
            tx.output.push(bitcoin::TxOut { value, script_pubkey });
            KnownTx::new(tx)
        };
        // The window of the sample terms starts at 500,000 h; T_R + 1 is 951.
        let near = 500_000 * 3_600_000 - 151 * 600_000;
        // value, fee, now, tip, code
        let table = [
            (1_000_000, 1_000, 59_999, 800, None),
            (1_000_001, 1_000, 59_999, 829, None),
            (999_999, 1_000, 59_999, 800, Some("fund.pays_not_the_contract")),
            (1_000_000, 1_001, 59_999, 800, Some("fund.fee_above_cap")),
            (1_000_000, 1_000, 60_000, 800, Some("fund.late")),
            (1_000_000, 1_000, 59_999, 830, Some("terms.tips_differ")),
            (1_000_000, 1_000, 59_999, 797, Some("terms.tips_differ")),
        ];
        let params = sample::params("mainnet");
        for (value_sat, fee_sat, now_ms, tip, code) in table {
            let now = sample::now(&params, now_ms, tip);
            let got = buyer.funding(now, &signed, &rail, &paying(value_sat), fee_sat);
            assert_eq!(got.err(), code, "{value_sat} sat for {fee_sat} at {now_ms} ms, {tip}");
        }
        let late = Signed { release_at_ms: u64::MAX, ..signed.clone() };
        let nobody = Signed { own: Vec::new(), ..signed };
        let tx = paying(1_000_000);
        let funded = |signed: &Signed, now_ms| {
            buyer.funding(sample::now(&params, now_ms, 800), signed, &rail, &tx, 154).err()
        };
        assert_eq!(funded(&late, near), None);
        assert_eq!(funded(&late, near + 1), Some("terms.window_too_near"));
        assert_eq!(funded(&nobody, 0), Some("fund.pays_not_the_contract"));
    }

    #[test]
    fn a_funding_that_lapsed_ends_with_whoever_takes_its_coins() {
        let lapsed = |seen: bool, conflict| {
            let mut payment = payment([Some(0), None, None, conflict]);
            if !seen {
                payment.facts = sample::unseen_with(conflict);
            }
            State::Paying { payment, phase: Phase::Lapsed }
        };
        let table = [
            (lapsed(false, None), 801, "fund_lapsed"),
            (lapsed(false, Some(0)), 801, "fund_lapsed"),
            (lapsed(false, Some(801)), 805, "fund_lapsed"),
            (lapsed(false, Some(801)), 806, "cancelled"),
            // The registrar sends it after all.
            (lapsed(true, None), 801, "fund_sent"),
            (lapsed(true, Some(801)), 806, "cancelled"),
        ];
        for (state, tip, expected) in table {
            assert_eq!(settled(state, tip), expected, "at {tip}");
        }
    }

    #[test]
    fn while_a_rescan_runs_nothing_is_concluded_from_absence() {
        let params = sample::params("mainnet");
        let sent = buyer(paying([Some(0), None, None, None], Phase::Sent));
        assert_eq!(sent.due(sample::now(&params, 0, 835), false), Step::BroadcastFund);
        let confirmed = buyer(paying([Some(801), None, None, None], Phase::Confirmed));
        assert_eq!(confirmed.due(sample::now(&params, 0, 960), false), Step::Wait);
    }

    #[test]
    fn who_holds_the_activation_never_refunds() {
        let payment = payment([Some(801), Some(0), None, None]);
        let transfer = payment.transfer().unwrap();
        let phase = Phase::Active { transfer, activation: sample::envelope() };
        let mut active = buyer(State::Paying { payment, phase });
        let params = sample::params("mainnet");
        let now = sample::now(&params, 0, 2_000);
        assert!(!active.settle(now));
        assert_eq!(active.due(now, true), Step::Wait);
    }

    #[test]
    fn coins_are_committed_until_the_wallet_locks_them() {
        let draft = buyer(State::Draft { request: None, until_ms: 0 });
        assert_eq!(draft.committed_sat(), 1_000_154);
        let sent = buyer(paying([Some(0), None, None, None], Phase::Sent));
        assert_eq!(sent.committed_sat(), 0);
    }
}
