//! What a buyer has to do with others who pay the price by one transaction with it.
//!
//! In [`State::Funding`] the wallet names coins, the first funder gathers what all put in and shows
//! it to all, and the wallet signs its coins. From then on whoever has the signatures of the others
//! can send the whole: [`Phase::Exported`], until all signatures are here. Nothing replaces such a
//! funding when it is late: a payment to self would cost those who only waited a fee. Its coins are
//! lent instead, and what confirms all the same is refunded.

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{Secp256k1, Verification};
use bitcoin::{OutPoint, Transaction};
use serde::{Deserialize, Serialize};

use super::{Buyer, FundPlan, Payment, Phase, Signed, State, Step};
use crate::code;
use crate::ids::{Key, TermsHash};
use crate::limits::JOINT_STEP_PART;
use crate::params::Params;
use crate::settlement::check::Now;
use crate::settlement::objects::Accept;
use crate::settlement::rails::Rail;
use crate::settlement::rails::chain::facts::Facts;
use crate::settlement::rails::chain::joint::{Contribution, Joint, JointError, Signature};
use crate::settlement::rails::chain::transaction::KnownTx;
use crate::settlement::seller::Refused;
use crate::units::TimeMs;

/// How far the one transaction of several has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gathering {
    /// What each pays for its part, sat/kvB.
    pub feerate_sat_kvb: u64,
    /// Until when a conflicting lock is listened for, unix ms: nothing is signed before.
    pub quiet_until_ms: TimeMs,
    /// What each puts in, by the number of the funder. Once all have, nothing of it changes.
    pub contributions: BTreeMap<u8, Contribution>,
    /// Signatures that were found good, by the number of the funder.
    pub signatures: BTreeMap<u8, Vec<Signature>>,
    /// Whether the registrar has said that its source knows the whole.
    pub is_acknowledged: bool,
    /// Funders whose coins another has named before them. Only the chain knows whose they are, so
    /// they are not to blame for putting in nothing. Not on disk: they name them again.
    #[serde(skip)]
    pub in_doubt: BTreeSet<u8>,
}

/// What one funder puts in, and its signatures once it has seen what all do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    pub contribution: Contribution,
    /// One for each coin; none yet.
    pub signatures: Vec<Signature>,
}

/// What a funding comes to when the signatures of another are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gathered {
    /// Known before, or not of use any more.
    Nothing,
    /// It is to be written.
    News,
    /// Everybody has signed.
    Whole,
}

/// The refusal of what does not belong to this transaction.
const NOT_OURS: Refused = code!("joint.unknown");
/// The end of one that not all have paid or signed in time.
const NOT_WHOLE: &str = code!("joint.not_whole");

impl Gathering {
    /// Before anybody has put anything in.
    #[must_use]
    pub fn new(feerate_sat_kvb: u64, quiet_until_ms: TimeMs) -> Self {
        let (contributions, signatures) = (BTreeMap::new(), BTreeMap::new());
        Self {
            feerate_sat_kvb,
            quiet_until_ms,
            contributions,
            signatures,
            is_acknowledged: false,
            in_doubt: BTreeSet::new(),
        }
    }

    /// What all put in, in the order of the terms; `None` while somebody is missing.
    #[must_use]
    pub fn all(&self, funders: usize) -> Option<Vec<Contribution>> {
        let all: Vec<Contribution> = self.contributions.values().cloned().collect();
        (all.len() == funders).then_some(all)
    }

    /// What others are shown of all, in the order of the terms; nothing while somebody is missing.
    /// Signatures once all have signed: whoever keeps its own until it is too late shall not have
    /// those of the others.
    #[must_use]
    pub fn parts(&self, funders: usize) -> Vec<Part> {
        if self.contributions.len() != funders {
            return Vec::new();
        }
        let is_signed = self.signatures.len() == funders;
        let signatures = |number: &u8| self.signatures.get(number).filter(|_| is_signed);
        let part = |(number, contribution): (&u8, &Contribution)| Part {
            contribution: contribution.clone(),
            signatures: signatures(number).cloned().unwrap_or_default(),
        };
        self.contributions.iter().map(part).collect()
    }

    /// What one funder has given.
    #[must_use]
    pub fn part(&self, number: u8) -> Option<Part> {
        let contribution = self.contributions.get(&number)?.clone();
        let signatures = self.signatures.get(&number).cloned().unwrap_or_default();
        Some(Part { contribution, signatures })
    }
}

impl Signed {
    /// Number of the only contract of this node.
    #[must_use]
    pub fn own_number(&self) -> Option<u8> {
        self.own.first().copied().filter(|_| self.own.len() == 1)
    }

    /// Number of the contract of a funder.
    #[must_use]
    pub fn number_of(&self, key: Key) -> Option<u8> {
        let mut funders = (0_u8..).zip(&self.agreement.terms().funders);
        funders.find(|(_, funder)| funder.key == key).map(|(number, _)| number)
    }

    /// Who gathers what all put in: the first funder, who has asked for the terms.
    #[must_use]
    pub fn gatherer(&self) -> Option<Key> {
        self.agreement.terms().funders.first().map(|funder| funder.key)
    }

    /// When the first of the consents that are known here elapses, unix ms.
    #[must_use]
    pub fn first_release_ms(&self) -> TimeMs {
        let all = self.accepts.iter().filter_map(|accept| accept.peek::<Accept>().ok());
        all.map(|accept| accept.release_at_ms).fold(self.release_at_ms, TimeMs::min)
    }

    fn funders(&self) -> usize {
        self.agreement.terms().funders.len()
    }
}

impl FundPlan {
    /// Until when everybody must have put something in, unix ms: who does so later leaves the others
    /// no time to sign.
    #[must_use]
    pub fn name_by_ms(&self, params: &Params) -> TimeMs {
        self.sign_by_ms(params).saturating_sub(params.settle.fund_ms / JOINT_STEP_PART)
    }

    /// Until when everybody must have signed, unix ms: who does so later leaves no time to show the
    /// whole to the registrar.
    #[must_use]
    pub fn sign_by_ms(&self, params: &Params) -> TimeMs {
        self.ack_by_ms.saturating_sub(params.settle.fund_ms / JOINT_STEP_PART)
    }

    /// The one transaction that all pay, once everybody has put something in.
    ///
    /// # Errors
    /// [`JointError`]; `joint.missing` while somebody has not.
    pub fn joint(&self, signed: &Signed, rail: &Rail) -> Result<Joint, JointError> {
        let gathering = self.gathering.as_ref().ok_or(JointError::Missing)?;
        let all = gathering.all(signed.funders()).ok_or(JointError::Missing)?;
        Joint::new(rail.contracts(), &all, gathering.feerate_sat_kvb)
    }
}

impl State {
    /// The terms and the plan of a funding that several pay by one transaction, as long as others
    /// may need something of it.
    #[must_use]
    pub fn gathering(&self) -> Option<(&Signed, &Gathering)> {
        let (signed, plan) = match self {
            Self::Funding { signed, plan, .. } => (signed, plan),
            // What was given up is nobody's to make whole.
            Self::Paying { phase: Phase::Abandoned { .. } | Phase::Cancelled, .. } => return None,
            Self::Paying { payment, .. } => (&payment.signed, &payment.plan),
            Self::Draft { .. }
            | Self::TermsSigned(_)
            | Self::Locked { .. }
            | Self::Aborted { .. } => return None,
        };
        Some((signed, plan.gathering.as_ref()?))
    }

    fn gathering_mut(&mut self) -> Option<(&Signed, &mut FundPlan)> {
        let (signed, plan) = match self {
            Self::Funding { signed, plan, .. } => (&*signed, plan),
            Self::Paying { phase: Phase::Abandoned { .. } | Phase::Cancelled, .. } => return None,
            Self::Paying { payment, .. } => {
                let Payment { signed, plan, .. } = &mut **payment;
                (&*signed, plan)
            }
            Self::Draft { .. }
            | Self::TermsSigned(_)
            | Self::Locked { .. }
            | Self::Aborted { .. } => return None,
        };
        plan.gathering.is_some().then_some((signed, plan))
    }
}

impl Buyer {
    /// Whether this node gathers what all put in.
    #[must_use]
    pub fn is_gatherer(&self) -> bool {
        self.state.gathering().is_some_and(|(signed, _)| signed.own_number() == Some(0))
    }

    /// What a joint funding that is not signed here waits for.
    pub(super) fn due_together(
        &self,
        signed: &Signed,
        gathering: &Gathering,
        now: Now<'_>,
    ) -> Step {
        let own = signed.own_number().unwrap_or_default();
        if !gathering.contributions.contains_key(&own) {
            Step::AskWallet
        } else if gathering.contributions.len() < signed.funders() {
            Step::AskOthers
        } else if now.ms < gathering.quiet_until_ms {
            Step::Wait
        } else {
            Step::AskWallet
        }
    }

    /// Why a joint funding ends that was not signed by all in time.
    pub(super) fn late_together(&self) -> &'static str {
        if self.together.is_some() { NOT_WHOLE } else { code!("fund.late") }
    }

    /// Funders who have given nothing, or no signature where it is their turn.
    #[must_use]
    pub fn who_is_missing(&self) -> Vec<Key> {
        self.missing(|_, _| true)
    }

    /// Those of them who could have given it: coins that nobody else has named, or a signature that
    /// this node has given its own for.
    #[must_use]
    pub fn who_kept_it(&self) -> Vec<Key> {
        let is_signed_here = matches!(self.state, State::Paying { .. });
        self.missing(|gathering, number| {
            let lacks_coins = !gathering.contributions.contains_key(&number);
            (lacks_coins || is_signed_here) && !gathering.in_doubt.contains(&number)
        })
    }

    fn missing(&self, counts: impl Fn(&Gathering, u8) -> bool) -> Vec<Key> {
        let Some((signed, gathering)) = self.state.gathering() else { return Vec::new() };
        let is_due = gathering.contributions.len() == signed.funders();
        let has_given = |number: &u8| match is_due {
            true => gathering.signatures.contains_key(number),
            false => gathering.contributions.contains_key(number),
        };
        let funders = (0_u8..).zip(&signed.agreement.terms().funders);
        let missing =
            funders.filter(|(number, _)| !has_given(number) && counts(gathering, *number));
        missing.map(|(_, funder)| funder.key).collect()
    }

    /// What a funder puts in. Returns whether that is news.
    ///
    /// # Errors
    /// `joint.unknown`, `joint.changed`, or a code of [`JointError`]; nothing has changed then but
    /// who is in doubt.
    pub fn contribute(
        &mut self,
        rail: &Rail,
        number: u8,
        contribution: Contribution,
    ) -> Result<bool, Refused> {
        let (signed, plan) = self.state.gathering_mut().ok_or(NOT_OURS)?;
        let funders = signed.funders();
        let contract = rail.contracts().get(usize::from(number)).ok_or(NOT_OURS)?;
        let gathering = plan.gathering.as_mut().ok_or(NOT_OURS)?;
        let known = gathering.contributions.get(&number);
        if known == Some(&contribution) {
            return Ok(false);
        }
        // What others may have signed for stays as it is.
        if gathering.contributions.len() == funders {
            return Err(code!("joint.changed"));
        }
        contribution
            .check(contract.amount_sat, gathering.feerate_sat_kvb)
            .map_err(JointError::code)?;
        let coins = |one: &Contribution| -> Vec<OutPoint> {
            one.coins.iter().map(|coin| coin.outpoint()).collect()
        };
        let others = gathering.contributions.iter().filter(|(other, _)| **other != number);
        let taken: Vec<OutPoint> = others.flat_map(|(_, one)| coins(one)).collect();
        if coins(&contribution).iter().any(|coin| taken.contains(coin)) {
            gathering.in_doubt.insert(number);
            return Err(JointError::CoinTwice.code());
        }
        gathering.in_doubt.remove(&number);
        gathering.contributions.insert(number, contribution);
        Ok(true)
    }

    /// The gatherer shows what all put in. Returns whether that is news.
    ///
    /// # Errors
    /// As [`Buyer::contribute`]; `joint.changed` also if the own part is another one.
    pub fn contribute_all(&mut self, rail: &Rail, all: &[Contribution]) -> Result<bool, Refused> {
        let (signed, plan) = self.state.gathering_mut().ok_or(NOT_OURS)?;
        let own = signed.own_number().ok_or(NOT_OURS)?;
        let funders = signed.funders();
        let gathering = plan.gathering.as_mut().ok_or(NOT_OURS)?;
        if let Some(known) = gathering.all(funders) {
            return if known == all { Ok(false) } else { Err(code!("joint.changed")) };
        }
        let known = gathering.contributions.get(&own);
        if known.is_none() || known != all.get(usize::from(own)) {
            return Err(code!("joint.changed"));
        }
        Joint::new(rail.contracts(), all, gathering.feerate_sat_kvb).map_err(JointError::code)?;
        gathering.contributions = (0_u8..).zip(all.iter().cloned()).collect();
        Ok(true)
    }

    /// What the wallet has signed is given to the others from now on: the first facts of the
    /// payment.
    ///
    /// # Errors
    /// `fund.pays_not_the_contract` if that is not the joint transaction, with every own signature.
    pub fn sign_together<C: Verification>(
        &self,
        secp: &Secp256k1<C>,
        rail: &Rail,
        tx: &Transaction,
    ) -> Result<(FundPlan, Facts), Refused> {
        const OTHER: Refused = "fund.pays_not_the_contract";
        let State::Funding { signed, plan, .. } = &self.state else { return Err(OTHER) };
        let own = signed.own_number().ok_or(OTHER)?;
        let joint = plan.joint(signed, rail).map_err(JointError::code)?;
        if joint.tx().compute_txid() != tx.compute_txid() {
            return Err(OTHER);
        }
        let signatures = joint.signatures(usize::from(own), tx).ok_or(OTHER)?;
        let checked = joint.check_signatures(secp, usize::from(own), &signatures);
        checked.map_err(JointError::code)?;
        let mut plan = plan.clone();
        let coins = own_coins(&plan, own);
        if let Some(gathering) = &mut plan.gathering {
            gathering.signatures.insert(own, signatures);
        }
        let contracts = rail.contracts();
        let mut facts = Facts::none(contracts.len()).of_coins(coins);
        facts.fund(contracts, &KnownTx::new(joint.tx().clone()));
        Ok((plan, facts))
    }

    /// The signatures of a funder. Returns what they make of the funding.
    ///
    /// # Errors
    /// `joint.unknown`, or a code of [`JointError`]; nothing has changed then.
    pub fn sign<C: Verification>(
        &mut self,
        secp: &Secp256k1<C>,
        rail: &Rail,
        number: u8,
        signatures: &[Signature],
    ) -> Result<Gathered, Refused> {
        let (signed, plan) = self.state.gathering_mut().ok_or(NOT_OURS)?;
        let gathering = plan.gathering.as_ref().ok_or(NOT_OURS)?;
        if gathering.signatures.contains_key(&number) {
            return Ok(Gathered::Nothing);
        }
        let joint = plan.joint(signed, rail).map_err(JointError::code)?;
        let checked = joint.check_signatures(secp, usize::from(number), signatures);
        checked.map_err(JointError::code)?;
        let gathering = plan.gathering.as_mut().ok_or(NOT_OURS)?;
        gathering.signatures.insert(number, signatures.to_vec());
        Ok(if self.complete_together(rail) { Gathered::Whole } else { Gathered::News })
    }

    /// Puts the signatures of all together once they are here, this node's among them. Returns
    /// whether that makes the funding one that can be sent.
    pub fn complete_together(&mut self, rail: &Rail) -> bool {
        let State::Paying { payment, phase } = &mut self.state else { return false };
        let Payment { signed, plan, facts, .. } = &mut **payment;
        let (Some(gathering), Ok(joint)) = (&plan.gathering, plan.joint(signed, rail)) else {
            return false;
        };
        let all: Vec<&[Signature]> = gathering.signatures.values().map(Vec::as_slice).collect();
        let Ok(whole) = joint.whole(&all) else { return false };
        facts.complete(&KnownTx::new(whole));
        let is_next = *phase == Phase::Exported;
        if is_next {
            *phase = Phase::Built;
        }
        is_next
    }
}

impl Buyer {
    /// The registrar has taken the whole for these terms. Returns whether that is to be written.
    pub fn note_acknowledged(&mut self, terms: &[TermsHash], txid: [u8; 32]) -> bool {
        let State::Paying { payment, .. } = &mut self.state else { return false };
        let ours = payment.fund().map(|fund| fund.txid().to_byte_array()) == Some(txid);
        let Some(gathering) = payment.plan.gathering.as_mut() else { return false };
        let is_meant = ours && payment.plan.terms == terms;
        is_meant && !std::mem::replace(&mut gathering.is_acknowledged, true)
    }
}

fn own_coins(plan: &FundPlan, own: u8) -> Vec<OutPoint> {
    let gathering = plan.gathering.iter();
    let own = gathering.filter_map(|gathering| gathering.contributions.get(&own));
    own.flat_map(|one| &one.coins).map(|coin| coin.outpoint()).collect()
}

impl Payment {
    /// Whether several pay it by one transaction.
    #[must_use]
    pub fn is_joint(&self) -> bool {
        self.plan.gathering.is_some()
    }

    /// Whether the seller was told in time: only then has it let the claim lapse.
    #[must_use]
    pub fn was_shown(&self) -> bool {
        self.plan.gathering.as_ref().is_none_or(|gathering| gathering.is_acknowledged)
    }

    /// What a joint funding is due that was signed here, before it confirms; `None` for what it
    /// does as any other.
    pub(super) fn due_together(&self, phase: &Phase, now: Now<'_>, sure: bool) -> Option<Step> {
        let is_late = now.ms >= self.plan.ack_by_ms;
        let step = match phase {
            Phase::Exported if is_late => Step::Abandon(NOT_WHOLE),
            Phase::Exported => Step::AskOthers,
            Phase::Built if is_late => Step::Abandon(code!("fund.not_confirmed")),
            Phase::Built => Step::SendFund,
            // The next block would be too late.
            Phase::Sent if sure && now.tip >= self.signed.agreement.terms().fund_by => {
                Step::Abandon(code!("fund.not_confirmed"))
            }
            Phase::Sent => Step::BroadcastFund,
            Phase::Confirmed
            | Phase::PreimageKnown
            | Phase::Active { .. }
            | Phase::Cancelling { .. }
            | Phase::Cancelled
            | Phase::Refunding { .. }
            | Phase::Refunded
            | Phase::Defaulted { .. }
            | Phase::Lapsed
            | Phase::Abandoned { .. } => return None,
        };
        self.is_joint().then_some(step)
    }
}

#[cfg(test)]
mod tests {
    use crate::settlement::sample;

    #[test]
    fn the_last_two_steps_have_a_twelfth_of_the_time_each() {
        let mut params = sample::params("devnet");
        params.settle.fund_ms = 120_000;
        let plan = sample::plan(1_000_000);
        assert_eq!((plan.name_by_ms(&params), plan.sign_by_ms(&params)), (980_000, 990_000));
        assert_eq!(sample::plan(5_000).name_by_ms(&params), 0);
    }
}
