//! What a funding pays: the contract of one trade, or those of several.
//!
//! Whoever holds the bytes of a funding can send it, and it pays all of its contracts or none. So
//! trades share one only if seller and registrar are the same: nobody has it who is not a party of
//! each, and the one registrar acknowledges it for all or for none. A trade that others pay a part
//! of has a funding of its own, because they wait for it.
//!
//! The trades of a plan go the same way until the chain decides about each contract: what falls due
//! by time or height falls due for all when it does for the first of them.

use bitcoin::ScriptBuf;
use serde::{Deserialize, Serialize};

use super::{Buyer, Gathering, Phase, Signed, State};
use crate::ids::{FundingId, Key, TermsHash};
use crate::limits::BATCH_WAIT_PART;
use crate::params::Params;
use crate::settlement::check::Now;
use crate::settlement::rails::Rail;
use crate::settlement::rails::chain::facts::Facts;
use crate::settlement::rails::chain::fees;
use crate::settlement::rails::chain::timelock::Timelocks;
use crate::settlement::rails::chain::transaction::KnownTx;
use crate::units::TimeMs;

/// What a funding pays, and what it may cost; each of its trades has the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FundPlan {
    /// Terms that it pays for, ascending.
    pub terms: Vec<TermsHash>,
    /// Their contracts of this node, sat.
    pub outputs: Vec<(ScriptBuf, u64)>,
    /// Most that it may cost, sat: no share is above what its trade allows.
    pub fee_cap_sat: u64,
    /// Until when it must be acknowledged, unix ms: when the first consent elapses.
    pub ack_by_ms: TimeMs,
    /// From this tip on it is replaced by a payment to self: the first `F − g`.
    pub cancel_at: u32,
    /// Set where several pay by one transaction, of which this is a part. Nothing replaces it.
    pub gathering: Option<Gathering>,
}

/// What one trade puts into a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stake {
    /// Whose trades may share a funding with it; `None` if it has one of its own.
    parties: Option<[Key; 2]>,
    terms: TermsHash,
    outputs: Vec<(ScriptBuf, u64)>,
    fee_cap_sat: u64,
    release_at_ms: TimeMs,
    heights: Timelocks,
}

/// How long a trade that could go on waits for others to share a transaction with, ms.
#[must_use]
pub fn batch_wait_ms(params: &Params) -> u64 {
    params.settle.terms_ms / BATCH_WAIT_PART
}

impl FundPlan {
    /// Of trades that [fit](Stake::fits) each other.
    #[must_use]
    pub fn of(mut stakes: Vec<Stake>) -> Self {
        stakes.sort_by_key(|stake| stake.terms);
        let least = |of: fn(&Stake) -> u64| stakes.iter().map(of).min().unwrap_or(0);
        let cap_sat = least(|stake| stake.fee_cap_sat);
        Self {
            fee_cap_sat: cap_sat.saturating_mul(stakes.len() as u64),
            ack_by_ms: least(|stake| stake.release_at_ms),
            cancel_at: stakes.iter().map(|stake| stake.heights.cancel_at()).min().unwrap_or(0),
            terms: stakes.iter().map(|stake| stake.terms).collect(),
            outputs: stakes.into_iter().flat_map(|stake| stake.outputs).collect(),
            gathering: None,
        }
    }

    /// Of a trade that several pay by one transaction.
    #[must_use]
    pub fn together(stake: Stake, gathering: Gathering) -> Self {
        Self { gathering: Some(gathering), ..Self::of(vec![stake]) }
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> FundingId {
        FundingId::of(&self.terms)
    }

    /// Whether several trades share it.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.terms.len() > 1
    }

    /// What one of its trades bears of its fee, or of the fee of what replaces it, sat.
    #[must_use]
    pub fn share_sat(&self, fee_sat: u64, terms: TermsHash) -> u64 {
        let place = self.terms.iter().position(|hash| *hash == terms).unwrap_or(0);
        fees::share_sat(fee_sat, self.terms.len(), place)
    }
}

impl Stake {
    /// Whether one funding may pay both: it falls due for neither much earlier than alone.
    #[must_use]
    pub fn fits(&self, other: &Self, params: &Params) -> bool {
        let times = self.release_at_ms.abs_diff(other.release_at_ms);
        let heights = self.heights.cancel_at().abs_diff(other.heights.cancel_at());
        self.parties.is_some()
            && self.parties == other.parties
            && times <= params.settle.fund_ms / BATCH_WAIT_PART
            && heights <= self.heights.gap.min(other.heights.gap)
    }

    /// Until when a trade that could be funded since then waits for others, unix ms.
    #[must_use]
    pub fn waits_until_ms(&self, since_ms: TimeMs, params: &Params) -> TimeMs {
        // Half of its time is left for the acknowledgement, come what may.
        let latest = self.release_at_ms.saturating_sub(params.settle.fund_ms / 2);
        since_ms.saturating_add(batch_wait_ms(params)).min(latest)
    }
}

impl Buyer {
    /// What a trade that waits for its funding puts into a plan.
    #[must_use]
    pub fn stake(&self, now: Now<'_>, rail: &Rail) -> Option<Stake> {
        let State::Locked { signed, .. } = &self.state else { return None };
        // Of several who pay together each gives up when the first does.
        let release_at_ms = match self.together {
            Some(_) => signed.first_release_ms(),
            None => signed.release_at_ms,
        };
        let contracts = rail.contracts();
        let output = |n: &u8| {
            let contract = contracts.get(usize::from(*n))?;
            Some((contract.spk.clone(), contract.amount_sat))
        };
        Some(Stake {
            parties: self.shares_with(),
            terms: signed.agreement.hash(),
            outputs: signed.own.iter().map(output).collect::<Option<_>>()?,
            fee_cap_sat: self.fee_cap_sat,
            release_at_ms,
            heights: Timelocks::of(signed.agreement.terms(), now.params),
        })
    }

    /// Whose trades may share a funding with this one.
    #[must_use]
    pub fn shares_with(&self) -> Option<[Key; 2]> {
        self.partners.is_empty().then_some([self.seller, self.registrar])
    }

    /// Whether its lock is on the way, or still to be listened for: soon it can be funded.
    #[must_use]
    pub fn is_coming(&self, now: Now<'_>) -> bool {
        match &self.state {
            State::Draft { .. } => true,
            State::TermsSigned(signed) => signed.is_agreed(),
            State::Locked { quiet_until_ms, .. } => now.ms < *quiet_until_ms,
            State::Funding { .. } | State::Paying { .. } | State::Aborted { .. } => false,
        }
    }

    /// The plan of its funding is given up, because it does not fit all of its trades: this one
    /// goes back to where it can have another. Returns whether it does.
    pub fn leave_plan(&mut self) -> bool {
        let State::Funding { signed, lock, .. } = &self.state else { return false };
        let (signed, lock): (Signed, _) = (signed.clone(), lock.clone());
        self.state = State::Locked { signed, lock, quiet_until_ms: 0 };
        true
    }

    /// Coins that the wallet has not locked yet, sat.
    #[must_use]
    pub fn committed_sat(&self) -> u64 {
        match &self.state {
            State::Funding {
                signed, plan: FundPlan { gathering: Some(gathering), .. }, ..
            } if signed.own_number().is_some_and(|own| gathering.part(own).is_some()) => 0,
            State::Draft { .. }
            | State::TermsSigned(_)
            | State::Locked { .. }
            | State::Funding { .. } => self.share_sat().saturating_add(self.fee_reserve_sat),
            State::Paying { .. } | State::Aborted { .. } => 0,
        }
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
        let is_better = fee_sat > payment.fee_sat && fee_sat <= payment.plan.fee_cap_sat;
        if !is_other || !is_better || !payment.signed.own.iter().all(paid) {
            return false;
        }
        payment.facts.replace_fund(contracts, tx);
        payment.fee_sat = fee_sat;
        true
    }
}
