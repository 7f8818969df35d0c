//! What lies ahead of a trade: by when the next thing happens and what happens then, what can
//! be lost until then, and whether it needs a person. It follows from the state of the trade's
//! machine alone; nothing here decides anything.

use super::view::{Role, StepView, TradeView, TxView};
use crate::params::Params;
use crate::settlement::buyer::{self, Buyer};
use crate::settlement::check::{Agreement, Now};
use crate::settlement::facts::{ContractFacts, Facts, FundFact};
use crate::settlement::fees;
use crate::settlement::seller::{self, Seller};
use crate::settlement::timelock::Timelocks;
use crate::settlement::transaction::OwnTx;
use crate::units::TimeMs;

/// A place in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// When the chain has this height.
    Height(u32),
    /// Unix ms.
    Time(TimeMs),
}

/// What a trade waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Milestone {
    Request,
    Terms,
    Accept,
    Lock,
    Quiet,
    Funding,
    Acknowledgement,
    Replacement,
    Release,
    Unpaid,
    FundingFinal,
    LastReveal,
    Key,
    Refund,
    RefundRace,
    RefundFinal,
    CancelFinal,
    ClaimFinal,
    Activation,
    DeliveryEnds,
}

impl Milestone {
    /// Stable name, and what happens at that moment if nothing else has come before, for people.
    const fn text(self) -> (&'static str, &'static str) {
        match self {
            Self::Request => ("request", "the trade ends: the buyer asked for no terms"),
            Self::Terms => ("terms", "the trade ends: the seller signed no terms"),
            Self::Accept => ("accept", "the trade ends: the buyer accepted no terms"),
            Self::Lock => ("lock", "the trade ends: the provider granted no lock"),
            Self::Quiet => ("quiet", "the wallet is asked for the funding"),
            Self::Funding => ("funding", "the trade ends unpaid"),
            Self::Acknowledgement => (
                "acknowledgement",
                "the provider has not acknowledged the funding: another payment may spend its coins",
            ),
            Self::Replacement => ("replacement", "a payment to self replaces the funding"),
            Self::Release => ("release", "the lock is free and the trade ends unpaid"),
            Self::Unpaid => {
                ("unpaid", "the trade ends unpaid; what confirms later comes back by a refund")
            }
            Self::FundingFinal => ("funding_final", "the claim is sent"),
            Self::LastReveal => {
                ("last_reveal", "too late to claim: the seller reveals nothing any more")
            }
            Self::Key => ("key", "the buyer has not given its key: the claim is sent by script"),
            Self::Refund => ("refund", "the refund is sent"),
            Self::RefundRace => ("refund_race", "the buyer can refund, and the claim can lose"),
            Self::RefundFinal => ("refund_final", "the refund is final"),
            Self::CancelFinal => ("cancel_final", "the replacement is final"),
            Self::ClaimFinal => ("claim_final", "the claim is final"),
            Self::Activation => ("activation", "the certificate should have been activated"),
            Self::DeliveryEnds => ("delivery_ends", "the trade ends: what was for sale is over"),
        }
    }

    /// Stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.text().0
    }

    /// What happens at that moment if nothing else has come before, for people.
    #[must_use]
    pub const fn then(self) -> &'static str {
        self.text().1
    }
}

/// By when something happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    pub at: Moment,
    pub what: Milestone,
}

impl Due {
    fn height(height: u32, what: Milestone) -> Self {
        Self { at: Moment::Height(height), what }
    }

    fn time(at_ms: TimeMs, what: Milestone) -> Self {
        Self { at: Moment::Time(at_ms), what }
    }

    /// When it is expected, unix ms: a height at the network's time between blocks from now on.
    #[must_use]
    pub fn expected_ms(&self, now: Now<'_>) -> TimeMs {
        match self.at {
            Moment::Time(at_ms) => at_ms,
            Moment::Height(height) => {
                let blocks = u64::from(height.saturating_sub(now.tip));
                now.ms.saturating_add(blocks.saturating_mul(now.params.chain.block_ms))
            }
        }
    }

    /// Whether it passed without the trade going on. At the very height or time the machine
    /// acts, so that one block or the time of one answer more is needed.
    #[must_use]
    pub fn is_overdue(&self, now: Now<'_>) -> bool {
        match self.at {
            Moment::Time(at_ms) => now.ms > at_ms.saturating_add(now.params.settle.terms_ms),
            Moment::Height(height) => now.tip > height,
        }
    }
}

/// What lies ahead of a trade. Nothing ([`Default`]) once it has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Outlook {
    pub due: Option<Due>,
    /// The most that this node can lose until then if others do their worst and it goes on
    /// running, sat. The price counts while it is neither one's own nor sure to come.
    pub at_risk_sat: u64,
    /// Units that hang on it: to a buyer those paid for, to a seller those kept for the sale.
    pub at_risk_units: u32,
}

/// Why a trade needs to be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stuck {
    /// What was due has not happened.
    Overdue,
    /// The chain source refused the last broadcast.
    Broadcast,
    /// No chain source answers while something can be lost.
    NoChain,
}

impl Stuck {
    /// Reason code.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Overdue => "trade.overdue",
            Self::Broadcast => "trade.broadcast_failed",
            Self::NoChain => "chain.down",
        }
    }
}

impl Outlook {
    /// Why a trade with this outlook needs to be looked at; `trouble` is why its last broadcast
    /// failed.
    #[must_use]
    pub fn stuck(&self, trouble: Option<&str>, now: Now<'_>) -> Option<Stuck> {
        let due = self.due?;
        if trouble.is_some() {
            Some(Stuck::Broadcast)
        } else if !now.chain_up {
            (self.at_risk_sat > 0).then_some(Stuck::NoChain)
        } else {
            due.is_overdue(now).then_some(Stuck::Overdue)
        }
    }
}

/// Height at which a transaction in a block of height `height` has so many confirmations.
fn final_height(height: Option<u32>, blocks: u32) -> Option<u32> {
    height.map(|height| height.saturating_add(blocks.saturating_sub(1)))
}

fn claim_height(facts: &Facts) -> Option<u32> {
    facts.paid().and_then(|spend| spend.height)
}

/// The last block that holds one of some transactions, one for each contract.
fn last_height(facts: &Facts, of: impl Fn(&ContractFacts) -> Option<u32>) -> Option<u32> {
    facts.contracts().iter().filter_map(of).max()
}

/// What lies ahead of a buyer.
pub(super) fn of_buyer(buyer: &Buyer, params: &Params) -> Outlook {
    use buyer::State;
    let free = |at_ms, what| Outlook { due: Some(Due::time(at_ms, what)), ..Outlook::default() };
    match &buyer.state {
        State::Draft { until_ms, .. } => free(*until_ms, Milestone::Terms),
        State::TermsSigned(signed) => free(signed.release_at_ms, Milestone::Lock),
        State::Locked { quiet_until_ms, .. } => free(*quiet_until_ms, Milestone::Quiet),
        State::Funding { signed, .. } => free(signed.release_at_ms, Milestone::Funding),
        State::Paying { payment, phase } => of_payment(buyer, payment, phase, params),
        State::Aborted { .. } => Outlook::default(),
    }
}

fn of_payment(
    buyer: &Buyer,
    payment: &buyer::Payment,
    phase: &buyer::Phase,
    params: &Params,
) -> Outlook {
    use buyer::Phase;
    let terms = payment.signed.agreement.terms();
    let heights = Timelocks::of(terms, params);
    let deep = params.chain.final_blocks;
    let (fund_fee_sat, price_sat) = (payment.fee_share_sat(), buyer.share_sat());
    let refund_fee_sat = fees::fee_sat(fees::FLOOR_SAT_KVB, fees::REFUND_VSIZE);
    let fees_sat = fund_fee_sat.saturating_add(refund_fee_sat);
    let at = |due, at_risk_sat| Outlook { due: Some(due), at_risk_sat, at_risk_units: 0 };
    let paid = |due| Outlook {
        due: Some(due),
        at_risk_sat: price_sat.saturating_add(fund_fee_sat),
        at_risk_units: buyer.row.qty,
    };
    match phase {
        Phase::Exported | Phase::Built if payment.is_joint() => {
            at(Due::time(payment.plan.ack_by_ms, Milestone::Funding), fees_sat)
        }
        Phase::Sent if payment.is_joint() => {
            at(Due::height(terms.fund_by, Milestone::Unpaid), fees_sat)
        }
        Phase::Exported => at(Due::time(payment.plan.ack_by_ms, Milestone::Funding), 0),
        Phase::Built => {
            let due = Due::time(payment.plan.ack_by_ms, Milestone::Acknowledgement);
            at(due, fund_fee_sat)
        }
        Phase::Lapsed | Phase::Sent => {
            at(Due::height(payment.plan.cancel_at, Milestone::Replacement), fund_fee_sat)
        }
        Phase::Confirmed => at(Due::height(heights.refund_at, Milestone::Refund), fees_sat),
        Phase::PreimageKnown => match final_height(claim_height(&payment.facts), deep) {
            Some(height) => paid(Due::height(height, Milestone::Activation)),
            None => paid(Due::height(heights.refund_at, Milestone::Refund)),
        },
        Phase::Cancelling { cancel } => {
            let replaced = last_height(&payment.facts, |facts| facts.conflict?.height);
            let height = final_height(replaced, deep).unwrap_or(heights.release_at());
            let fee_sat = cancel.as_ref().map_or(fund_fee_sat, |own| payment.share_sat(own));
            at(Due::height(height, Milestone::CancelFinal), fee_sat)
        }
        Phase::Refunding { refunds } => {
            let back = last_height(&payment.facts, |facts| facts.refund?.height);
            let expected = heights.refund_at.saturating_add(fees::REFUND_TARGET + deep);
            let due =
                Due::height(final_height(back, deep).unwrap_or(expected), Milestone::RefundFinal);
            // Whoever knows the preimage can still claim what has not gone back.
            if payment.facts.claim().is_some() {
                return paid(due);
            }
            let sent_sat = refunds.values().map(|own| own.fee_sat).fold(0, u64::saturating_add);
            at(due, fund_fee_sat.saturating_add(sent_sat))
        }
        Phase::Active { hands_over: true, .. } => {
            let ends_ms = buyer.row.window().ends_at_ms(params.slot_s);
            at(Due::time(ends_ms, Milestone::DeliveryEnds), 0)
        }
        // It may stay so for years, and nobody is waited for.
        Phase::Abandoned { .. }
        | Phase::Active { .. }
        | Phase::Cancelled
        | Phase::Refunded
        | Phase::Defaulted { .. } => Outlook::default(),
    }
}

/// What lies ahead of a seller.
pub(super) fn of_seller(seller: &Seller, params: &Params) -> Outlook {
    use seller::State;
    let kept = |due| Outlook { due: Some(due), at_risk_sat: 0, at_risk_units: seller.row.qty };
    match &seller.state {
        State::Offered { until_ms } => kept(Due::time(*until_ms, Milestone::Request)),
        State::Agreed { signed, phase } => {
            let due = sale_due(seller, &signed.agreement, &signed.facts, phase, params);
            let at_risk_sat = if phase.is_revealed() { revealed_sat(&signed.facts) } else { 0 };
            due.map_or_else(Outlook::default, |due| Outlook { at_risk_sat, ..kept(due) })
        }
        State::Released { .. } => Outlook::default(),
    }
}

/// What the contracts hold that no block has given back to the buyer, sat. A claim in a block
/// counts until it is final.
fn revealed_sat(facts: &Facts) -> u64 {
    let is_back = |facts: &&ContractFacts| facts.refund.is_some_and(|spend| spend.height.is_some());
    let open = facts.contracts().iter().filter(|facts| !is_back(facts));
    let values = open.filter_map(|facts| facts.fund.as_ref()).map(FundFact::value_sat);
    values.fold(0, u64::saturating_add)
}

fn sale_due(
    seller: &Seller,
    agreement: &Agreement,
    facts: &Facts,
    phase: &seller::Phase,
    params: &Params,
) -> Option<Due> {
    use seller::Phase;
    let heights = Timelocks::of(agreement.terms(), params);
    let is_confirmed = facts.contracts().iter().all(|facts| facts.fund_height().is_some());
    Some(match phase {
        Phase::TermsSigned { until_ms } => Due::time(*until_ms, Milestone::Accept),
        Phase::FundSeen if is_confirmed => {
            let last = last_height(facts, ContractFacts::fund_height);
            let height = final_height(last, heights.funding_confirmations);
            Due::height(height.unwrap_or(heights.release_at()), Milestone::FundingFinal)
        }
        Phase::LockGranted { until_ms } if !facts.any_unseen() => {
            Due::time(*until_ms, Milestone::Release)
        }
        Phase::LockGranted { .. } | Phase::FundSeen => {
            Due::height(heights.release_at(), Milestone::Release)
        }
        Phase::FundFinal => Due::height(heights.last_reveal, Milestone::LastReveal),
        Phase::Quitting { until_ms } => Due::time(*until_ms, Milestone::Key),
        Phase::ClaimSent { .. } => Due::height(heights.refund_at, Milestone::RefundRace),
        Phase::Claimed { .. } => {
            let height = final_height(claim_height(facts), params.chain.final_blocks);
            Due::height(height.unwrap_or(heights.refund_at), Milestone::ClaimFinal)
        }
        Phase::NeverReveal { .. } => {
            Due::time(seller.row.window().ends_at_ms(params.slot_s), Milestone::DeliveryEnds)
        }
        Phase::Settled { .. } => return None,
    })
}

impl TradeView {
    /// What has happened, in its order; heights as far as they are known.
    #[must_use]
    pub fn steps(&self) -> Vec<StepView> {
        let step = |what, height| StepView { what, at_ms: None, height, tx: None };
        let sent = |what, tx: Option<TxView>| {
            tx.map(|tx| StepView { what, at_ms: None, height: tx.height, tx: Some(tx) })
        };
        let opened = StepView { at_ms: Some(self.opened_ms), ..step("opened", None) };
        let locked = self.is_locked.then(|| step("locked", None));
        let activated = self.activated_at.map(|height| step("activated", Some(height)));
        [
            Some(opened),
            self.t0.map(|t0| step("terms", Some(t0))),
            locked,
            sent("fund", self.fund),
            sent("replacement", self.cancel),
            sent(if self.is_by_key { "key_spend" } else { "claim" }, self.claim),
            sent("refund", self.refund),
            activated,
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// What a person can do about a trade that does not go on by itself.
    #[must_use]
    pub fn advice(&self, stuck: Option<Stuck>) -> Option<String> {
        Some(match stuck? {
            Stuck::NoChain => {
                "start the chain source: `capex status` says what it lacks".to_owned()
            }
            Stuck::Broadcast => "the node tries again at each block; if it goes on, look at the \
                                 chain source and at `capex wallet coins`"
                .to_owned(),
            Stuck::Overdue => match (self.role, self.claim, self.cert) {
                (Role::Buyer, Some(_), Some(cert)) => format!(
                    "the provider owes the certificate: `capex cert fetch {cert} --provider {}`",
                    self.registrar
                ),
                _ => "keep this node and its chain source running, and see the log of the daemon"
                    .to_owned(),
            },
        })
    }
}

/// Fees that a buyer has paid or will pay for what it has sent, sat; `None` if another
/// transaction of its wallet replaced the funding.
pub(super) fn buyer_fees_sat(buyer: &Buyer) -> Option<u64> {
    use buyer::{Phase, State};
    let State::Paying { payment, phase } = &buyer.state else { return Some(0) };
    let refunded = payment.own().filter_map(|(_, facts)| facts.refund).map(|spend| spend.fee_sat);
    let more_sat = match phase {
        Phase::Exported | Phase::Abandoned { .. } => return Some(0),
        Phase::Built
        | Phase::Lapsed
        | Phase::Sent
        | Phase::Confirmed
        | Phase::PreimageKnown
        | Phase::Active { .. }
        | Phase::Defaulted { .. } => 0,
        Phase::Cancelling { cancel } => {
            let share_sat = payment.fee_share_sat();
            return Some(cancel.as_ref().map_or(share_sat, |own| payment.share_sat(own)));
        }
        Phase::Cancelled => return None,
        Phase::Refunding { refunds } => {
            refunds.values().map(|own| own.fee_sat).fold(0, u64::saturating_add)
        }
        Phase::Refunded => refunded.fold(0, u64::saturating_add),
    };
    Some(payment.fee_share_sat().saturating_add(more_sat))
}

/// What a seller's contract bears of the fee of its claim, sat: of the one in a block, else of the
/// one last sent.
pub(super) fn claim_share_sat(facts: Option<&ContractFacts>, own: &OwnTx) -> u64 {
    let outpoint = facts.and_then(|facts| facts.fund.as_ref()).map(FundFact::outpoint);
    let share_sat = outpoint.map_or(own.fee_sat, |outpoint| own.share_sat(outpoint));
    let mined = facts.and_then(ContractFacts::paid).filter(|spend| spend.height.is_some());
    let Some(mined) = mined.filter(|spend| spend.txid != own.tx.txid()) else { return share_sat };
    let tx = own.tx.tx();
    if mined.inputs == 1 {
        mined.fee_sat
    } else if usize::try_from(mined.inputs).is_ok_and(|inputs| inputs == tx.input.len()) {
        // An earlier form of the same claim: it spends as much.
        let sent_sat = tx.output.iter().map(|out| out.value.to_sat()).fold(0, u64::saturating_add);
        let fee_sat = own.fee_sat.saturating_add(sent_sat).saturating_sub(mined.output_sat);
        fees::share_sat(fee_sat, tx.input.len(), usize::try_from(mined.vin).unwrap_or(0))
    } else {
        share_sat
    }
}

/// Fees of a seller's claims, sat.
pub(super) fn seller_fees_sat(seller: &Seller) -> u64 {
    let Some((signed, phase)) = seller.state.agreed() else { return 0 };
    let claims = phase
        .claims()
        .into_iter()
        .flatten()
        .map(|(n, own)| claim_share_sat(signed.facts.contracts().get(usize::from(*n)), own));
    claims.fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bitcoin::{Amount, ScriptBuf, TxOut};

    use super::*;
    use crate::ids::{Key, TermsHash, TradeId};
    use crate::settlement::objects::Transfer;
    use crate::settlement::sample;
    use crate::settlement::transaction::KnownTx;
    use crate::units::Units;

    /// t0 of the sample terms; F − g, F + g, R, T_R are 830, 842, 914, 950. Six blocks are deep,
    /// the price is a million sat, the window ends at 500,004 h.
    const T0: u32 = 800;
    const UNTIL_MS: TimeMs = 60_000;
    const ENDS_MS: TimeMs = 500_004 * 3_600_000;
    const NO: Option<u32> = None;
    const WAITS: Option<u32> = Some(0);
    const FUND_FEE_SAT: u64 = 154;

    fn own(fee_sat: u64) -> OwnTx {
        OwnTx { tx: sample::tx(), fee_sat }
    }

    fn own_by_contract(fee_sat: u64) -> BTreeMap<u8, OwnTx> {
        BTreeMap::from([(0, own(fee_sat))])
    }

    fn consent() -> buyer::Signed {
        let agreement = sample::agreement(sample::terms(T0));
        buyer::Signed { agreement, accepts: Vec::new(), own: vec![0], release_at_ms: UNTIL_MS }
    }

    fn lock() -> buyer::Lock {
        buyer::Lock { signed: sample::envelope(), attempt: 0 }
    }

    fn paying(heights: [Option<u32>; 4], phase: buyer::Phase) -> Buyer {
        let payment = Box::new(buyer::Payment {
            signed: consent(),
            lock: lock(),
            plan: sample::plan(UNTIL_MS),
            fee_sat: FUND_FEE_SAT,
            quitted: None,
            facts: Facts::new(vec![sample::contract_facts(heights)]),
        });
        sample::buyer(buyer::State::Paying { payment, phase })
    }

    fn transfer() -> Transfer {
        let facts = Facts::new(vec![sample::contract_facts([Some(801), Some(809), NO, NO])]);
        buyer::transfer(&facts, TermsHash([7; 32])).unwrap()
    }

    fn active() -> buyer::Phase {
        buyer::Phase::Active {
            transfer: transfer(),
            activation: sample::envelope(),
            hands_over: false,
        }
    }

    fn defaulted() -> buyer::Phase {
        buyer::Phase::Defaulted { transfer: Some(transfer()) }
    }

    fn sale(heights: [Option<u32>; 4], phase: seller::Phase) -> Seller {
        let mut facts = sample::contract_facts(heights);
        if let Some(fund) = &mut facts.fund {
            fund.tx = funding_tx();
        }
        let facts = Facts::new(vec![facts]);
        let agreement = sample::agreement(sample::terms(T0));
        let signed = Box::new(seller::Signed {
            agreement,
            key_index: 1,
            claimed_from: None,
            handed: None,
            facts,
        });
        seller(seller::State::Agreed { signed, phase })
    }

    /// Pays a million sat.
    fn funding_tx() -> KnownTx {
        let mut tx = sample::tx().tx().clone();
        let value = Amount::from_sat(1_000_000);
        tx.output.push(TxOut { value, script_pubkey: ScriptBuf::new() });
        KnownTx::new(tx)
    }

    fn seller(state: seller::State) -> Seller {
        Seller {
            trade: TradeId([10; 32]),
            row: sample::row(),
            buyer: Key([2; 32]),
            registrar: Key([1; 32]),
            goods: seller::Goods::Capacity { units: Units::range(0, 2).unwrap(), features: 0 },
            opened_ms: 0,
            state,
            is_kept: false,
        }
    }

    /// What is due, at which height or time, what can be lost in sat and units, fees in sat.
    type Expected = (Option<(&'static str, Moment)>, u64, u32, Option<u64>);

    fn seen(outlook: Outlook, fees_sat: Option<u64>) -> Expected {
        let due = outlook.due.map(|due| (due.what.name(), due.at));
        (due, outlook.at_risk_sat, outlook.at_risk_units, fees_sat)
    }

    #[test]
    fn what_lies_ahead_of_a_buyer_in_every_state() {
        use buyer::{Phase, State};
        let time = |what| Some((what, Moment::Time(UNTIL_MS)));
        let height = |what, height| Some((what, Moment::Height(height)));
        let funded = [Some(801), NO, NO, NO];
        let claimed = |at| [Some(801), at, NO, NO];
        let refunding = || Phase::Refunding { refunds: own_by_contract(200) };
        let cancelling = |cancel| Phase::Cancelling { cancel };
        let paid = 1_000_000 + FUND_FEE_SAT;
        let locked = State::Locked { signed: consent(), lock: lock(), quiet_until_ms: UNTIL_MS };
        let funding =
            State::Funding { signed: consent(), lock: lock(), plan: sample::plan(UNTIL_MS) };
        let aborted = State::Aborted { code: "terms.late".to_owned(), agreement: None };
        let table: Vec<(Buyer, Expected)> = vec![
            (
                sample::buyer(State::Draft { request: None, until_ms: UNTIL_MS }),
                (time("terms"), 0, 0, Some(0)),
            ),
            (sample::buyer(State::TermsSigned(consent())), (time("lock"), 0, 0, Some(0))),
            (sample::buyer(locked), (time("quiet"), 0, 0, Some(0))),
            (sample::buyer(funding), (time("funding"), 0, 0, Some(0))),
            (paying([WAITS, NO, NO, NO], Phase::Exported), (time("funding"), 0, 0, Some(0))),
            (
                paying([WAITS, NO, NO, NO], Phase::Abandoned { code: "lock.conflict".to_owned() }),
                (None, 0, 0, Some(0)),
            ),
            (
                paying([WAITS, NO, NO, NO], Phase::Built),
                (time("acknowledgement"), 154, 0, Some(154)),
            ),
            (
                paying([WAITS, NO, NO, NO], Phase::Sent),
                (height("replacement", 830), 154, 0, Some(154)),
            ),
            (
                paying([WAITS, NO, NO, NO], Phase::Lapsed),
                (height("replacement", 830), 154, 0, Some(154)),
            ),
            (paying(claimed(Some(809)), defaulted()), (None, 0, 0, Some(154))),
            (paying(funded, Phase::Confirmed), (height("refund", 950), 154 + 138, 0, Some(154))),
            (
                paying(claimed(WAITS), Phase::PreimageKnown),
                (height("refund", 950), paid, 2, Some(154)),
            ),
            (
                paying(claimed(Some(809)), Phase::PreimageKnown),
                (height("activation", 814), paid, 2, Some(154)),
            ),
            (paying(claimed(Some(809)), active()), (None, 0, 0, Some(154))),
            (
                paying([WAITS, NO, NO, NO], cancelling(None)),
                (height("cancel_final", 842), 154, 0, Some(154)),
            ),
            (
                paying([WAITS, NO, NO, Some(832)], cancelling(Some(own(300)))),
                (height("cancel_final", 837), 300, 0, Some(300)),
            ),
            (paying([WAITS, NO, NO, Some(832)], Phase::Cancelled), (None, 0, 0, None)),
            (
                paying(funded, refunding()),
                (height("refund_final", 962), 154 + 200, 0, Some(154 + 200)),
            ),
            (
                paying([Some(801), NO, Some(951), NO], refunding()),
                (height("refund_final", 956), 154 + 200, 0, Some(154 + 200)),
            ),
            // The preimage is public: the claim may come before the refund.
            (
                paying(claimed(WAITS), refunding()),
                (height("refund_final", 962), paid, 2, Some(154 + 200)),
            ),
            (
                paying([Some(801), NO, Some(951), NO], Phase::Refunded),
                (None, 0, 0, Some(154 + 150)),
            ),
            (sample::buyer(aborted), (None, 0, 0, Some(0))),
        ];
        let params = sample::params("mainnet");
        for (buyer, expected) in table {
            let got = seen(of_buyer(&buyer, &params), buyer_fees_sat(&buyer));
            assert_eq!(got, expected, "{}", buyer.state.name());
        }
    }

    #[test]
    fn what_lies_ahead_of_a_seller_in_every_state() {
        use seller::{Phase, State};
        let time = |what, at_ms| Some((what, Moment::Time(at_ms)));
        let height = |what, height| Some((what, Moment::Height(height)));
        let funded = [Some(803), NO, NO, NO];
        let claims = || own_by_contract(155);
        let never = Phase::NeverReveal { code: "fund.late".to_owned() };
        let released = State::Released { code: "trade.buyer_silent".to_owned(), agreement: None };
        // The funding was shown, and the own chain source has not seen it.
        let mut shown = sale([NO; 4], Phase::LockGranted { until_ms: UNTIL_MS });
        if let State::Agreed { signed, .. } = &mut shown.state {
            signed.facts = sample::unseen();
        }
        let table: Vec<(Seller, Expected)> = vec![
            (shown, (height("release", 842), 0, 2, Some(0))),
            (
                seller(State::Offered { until_ms: UNTIL_MS }),
                (time("request", UNTIL_MS), 0, 2, Some(0)),
            ),
            (
                sale([NO; 4], Phase::TermsSigned { until_ms: UNTIL_MS }),
                (time("accept", UNTIL_MS), 0, 2, Some(0)),
            ),
            (
                sale([NO; 4], Phase::LockGranted { until_ms: UNTIL_MS }),
                (time("release", UNTIL_MS), 0, 2, Some(0)),
            ),
            (sale([WAITS, NO, NO, NO], Phase::FundSeen), (height("release", 842), 0, 2, Some(0))),
            (sale(funded, Phase::FundSeen), (height("funding_final", 808), 0, 2, Some(0))),
            (sale(funded, Phase::FundFinal), (height("last_reveal", 914), 0, 2, Some(0))),
            (sale(funded, never), (time("delivery_ends", ENDS_MS), 0, 2, Some(0))),
            (seller(released), (None, 0, 0, Some(0))),
            (
                sale([Some(803), Some(809), NO, NO], Phase::Claimed { claims: claims() }),
                (height("claim_final", 814), 1_000_000, 2, Some(150)),
            ),
            (
                sale([Some(803), Some(809), NO, NO], Phase::Settled { claims: claims() }),
                (None, 0, 0, Some(150)),
            ),
            (
                sale([Some(803), WAITS, NO, NO], Phase::ClaimSent { claims: claims() }),
                (height("refund_race", 950), 1_000_000, 2, Some(155)),
            ),
        ];
        let params = sample::params("mainnet");
        for (seller, expected) in table {
            let got = seen(of_seller(&seller, &params), Some(seller_fees_sat(&seller)));
            assert_eq!(got, expected, "{}", seller.state.name());
        }
    }

    #[test]
    fn a_trade_is_stuck_when_late_or_refused_or_without_a_chain() {
        let params = sample::params("mainnet");
        let ahead = |at, at_risk_sat| Outlook {
            due: Some(Due { at, what: Milestone::Refund }),
            at_risk_sat,
            at_risk_units: 0,
        };
        let (height, time) = (Moment::Height(950), Moment::Time(UNTIL_MS));
        let late_ms = UNTIL_MS + params.settle.terms_ms;
        let table = [
            (ahead(height, 9), None, 0, 949, true, None),
            (ahead(height, 9), None, 0, 950, true, None),
            (ahead(height, 9), None, 0, 951, true, Some("trade.overdue")),
            (ahead(time, 9), None, late_ms, 800, true, None),
            (ahead(time, 9), None, late_ms + 1, 800, true, Some("trade.overdue")),
            (ahead(height, 9), Some("min relay fee"), 0, 949, true, Some("trade.broadcast_failed")),
            (ahead(height, 9), None, 0, 949, false, Some("chain.down")),
            (ahead(height, 0), None, 0, 949, false, None),
            (Outlook::default(), Some("min relay fee"), late_ms + 1, 951, false, None),
        ];
        for (outlook, trouble, ms, tip, chain_up, expected) in table {
            let now = Now { chain_up, ..sample::now(&params, ms, tip) };
            let got = outlook.stuck(trouble, now).map(Stuck::code);
            assert_eq!(got, expected, "{outlook:?} at {ms} ms, {tip}");
        }
        for code in [Stuck::Overdue, Stuck::Broadcast, Stuck::NoChain].map(Stuck::code) {
            assert!(crate::reasons::Reason::find(code).is_some(), "{code}");
        }
    }

    #[test]
    fn a_height_is_expected_at_the_pace_of_the_chain() {
        let params = sample::params("mainnet");
        let now = sample::now(&params, 1_000, 940);
        let due = |at| Due { at, what: Milestone::Refund }.expected_ms(now);
        assert_eq!(due(Moment::Height(950)), 1_000 + 10 * params.chain.block_ms);
        assert_eq!(due(Moment::Height(930)), 1_000);
        assert_eq!(due(Moment::Time(7)), 7);
    }
}
