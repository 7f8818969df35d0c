//! Carries out what a buyer is due to do.

use std::collections::BTreeMap;

use bitcoin::Txid;

use super::batch::Once;
use super::driver::{Machine, NOT_ACCEPTED, Open, Turn};
use super::funding::want;
use super::{Party, TradeEvent, TradePurpose, TradeReply, TradeRequest};
use crate::certificate::Certificate;
use crate::code;
use crate::engine::io::{Effect, Protocol};
use crate::engine::kernel::{Answer, Miss, Stored, Subject, Table, decode_shorter, remote_code};
use crate::engine::messages::SettleRequest;
use crate::ids::{FundingId, Key, TermsHash, TradeId};
use crate::settlement::Deadline;
use crate::settlement::buyer::{Buyer, FundPlan, Payment, Phase, Signed, State, Step};
use crate::settlement::check::{self, Agreement, CheckError, Now, SignedTerms};
use crate::settlement::facts::{ContractFacts, Facts};
use crate::settlement::fees;
use crate::settlement::objects::{Accept, Funder, Terms, TermsCancel, TermsRequest, Transfer};
use crate::settlement::script::Contract;
use crate::settlement::seller::Refused;
use crate::settlement::timelock::Timelocks;
use crate::settlement::transaction::{self, KnownTx, OwnTx};
use crate::units::TimeMs;
use crate::wire::{Envelope, VERSION, WireError};

/// Label of refund keys.
pub(super) const REFUND_LABEL: &str = "settlement/refund";

impl Stored for Buyer {
    const TABLE: Table = Table::Buyer;
    const VERSION: u8 = 2;

    fn from_older(version: u8, body: &[u8]) -> Option<Result<Self, WireError>> {
        (version == 1).then(|| decode_shorter(body, &false))
    }
}

impl Machine for Buyer {
    type Id = TradeId;
    type Step = Step;

    fn id(&self) -> TradeId {
        self.trade
    }

    fn party(&self) -> Party {
        Party::Buyer(self.trade)
    }

    fn key(&self) -> [u8; 32] {
        self.trade.0
    }

    fn news(&self) -> Option<(TradeId, &'static str)> {
        Some((self.trade, self.state.name()))
    }

    fn terms(&self) -> Option<&SignedTerms> {
        self.state.agreement().map(|agreement| &agreement.signed)
    }

    fn facts(&self) -> Option<&Facts> {
        self.state.payment().map(|payment| &payment.facts)
    }

    fn facts_mut(&mut self) -> Option<&mut Facts> {
        match &mut self.state {
            State::Paying { payment, .. } => Some(&mut payment.facts),
            State::Draft { .. }
            | State::TermsSigned(_)
            | State::Locked { .. }
            | State::Funding { .. }
            | State::Aborted { .. } => None,
        }
    }

    fn settle(&mut self, now: Now<'_>) -> bool {
        Self::settle(self, now)
    }

    fn due(&self, now: Now<'_>, sure: bool) -> Step {
        Self::due(self, now, sure)
    }

    fn deadlines(&self, slot_s: u32) -> Vec<(TimeMs, Deadline)> {
        Self::deadlines(self, slot_s)
    }

    fn is_done(&self) -> bool {
        self.state.is_done()
    }

    fn is_asking(&self) -> bool {
        match &self.state {
            State::Draft { .. } | State::TermsSigned(_) | State::Funding { .. } => true,
            State::Paying { payment, phase } => match phase {
                Phase::Exported | Phase::Built => true,
                Phase::PreimageKnown => payment.transfer().is_some_and(|transfer| {
                    let claim = payment.facts.claim();
                    transfer.quittance.is_some() || claim.is_some_and(|(c, _)| c.height.is_some())
                }),
                Phase::Confirmed => payment.facts.taken().is_some(),
                Phase::Abandoned { .. }
                | Phase::Lapsed
                | Phase::Sent
                | Phase::Active { .. }
                | Phase::Cancelling { .. }
                | Phase::Cancelled
                | Phase::Refunding { .. }
                | Phase::Refunded
                | Phase::Defaulted { .. } => false,
            },
            State::Locked { .. } | State::Aborted { .. } => false,
        }
    }

    fn is_dormant(&self) -> bool {
        matches!(self.state, State::Paying { phase: Phase::Abandoned { .. }, .. })
    }

    fn own_txids(&self) -> Vec<Txid> {
        match &self.state {
            State::Paying { phase: Phase::Cancelling { cancel: Some(own) }, .. } => {
                vec![own.tx.txid()]
            }
            State::Paying { phase: Phase::Refunding { refunds }, .. } => {
                refunds.values().map(|own| own.tx.txid()).collect()
            }
            State::Draft { .. }
            | State::TermsSigned(_)
            | State::Locked { .. }
            | State::Funding { .. }
            | State::Paying { .. }
            | State::Aborted { .. } => Vec::new(),
        }
    }

    fn funding(&self) -> Option<FundingId> {
        self.state.plan().map(FundPlan::id)
    }

    fn commitment(&self) -> Option<(TradeId, u64)> {
        Some((self.trade, self.committed_sat()))
    }

    fn conduct(&self) -> Vec<(Subject, Result<(), Miss>)> {
        let State::Paying { payment, phase } = &self.state else { return Vec::new() };
        match phase {
            Phase::Active { .. } => vec![(Subject::Key(self.seller), Ok(()))],
            // The others have waited in vain for who did not pay.
            Phase::Refunded if self.who_did_not_pay().next().is_some() => {
                let missing = self.who_did_not_pay();
                missing.map(|key| (Subject::Key(key), Err(Miss::Funding))).collect()
            }
            // One that confirmed too late could not be claimed.
            Phase::Refunded if payment.is_fund_in_time() && payment.was_shown() => {
                vec![(Subject::Key(self.seller), Err(Miss::Claim))]
            }
            // Only who keeps the register could have moved it.
            Phase::Defaulted { transfer: Some(_) } => {
                vec![(Subject::Key(self.registrar), Err(Miss::Default))]
            }
            Phase::Exported
            | Phase::Abandoned { .. }
            | Phase::Built
            | Phase::Lapsed
            | Phase::Sent
            | Phase::Confirmed
            | Phase::PreimageKnown
            | Phase::Cancelling { .. }
            | Phase::Cancelled
            | Phase::Refunding { .. }
            | Phase::Refunded
            | Phase::Defaulted { transfer: None } => Vec::new(),
        }
    }

    fn perform(open: &mut Open<Self>, turn: &mut Turn<'_, '_>, step: Step) {
        open.perform(turn, step);
    }

    fn tell(&self, turn: &mut Turn<'_, '_>) {
        let trade = self.trade;
        let code = match &self.state {
            State::Aborted { code, .. }
            // To everybody else it has ended.
            | State::Paying { phase: Phase::Abandoned { code }, .. } => code.clone(),
            State::Paying { phase: Phase::Cancelled, .. } => "fund.cancelled".to_owned(),
            State::Paying { phase: Phase::Refunded, .. } => "settle.refunded".to_owned(),
            State::Paying { phase: Phase::Defaulted { .. }, .. } => "settle.defaulted".to_owned(),
            State::Paying { payment, phase: Phase::Active { transfer, activation, .. } } => {
                let certificate = payment.certificate(transfer, activation);
                turn.events.push(TradeEvent::Bought { trade, certificate });
                return;
            }
            // Also after a restart: those who have not been told yet that all agree are told then.
            State::TermsSigned(_) | State::Locked { .. } | State::Funding { .. }
                if !self.partners.is_empty() =>
            {
                turn.events.push(TradeEvent::Signed { trade });
                return;
            }
            State::Draft { .. }
            | State::TermsSigned(_)
            | State::Locked { .. }
            | State::Funding { .. }
            | State::Paying { .. } => return,
        };
        turn.events.push(TradeEvent::Void { trade, code });
    }

    fn resume(open: &mut Open<Self>, turn: &mut Turn<'_, '_>) {
        let sent: Vec<KnownTx> = match &open.machine.state {
            State::Paying { payment, phase: Phase::Sent } => {
                payment.fund().cloned().into_iter().collect()
            }
            State::Paying { phase: Phase::Refunding { refunds }, .. } => {
                refunds.values().map(|own| own.tx.clone()).collect()
            }
            State::Paying { phase: Phase::Cancelling { cancel: Some(own) }, .. } => {
                vec![own.tx.clone()]
            }
            // The crash may have come before the wallet heard of it.
            State::Paying { payment, phase: Phase::Lapsed } => {
                turn.ctx.out.push(Effect::LendCoins { funding: payment.plan.id() });
                return;
            }
            // The wallet knows what became of the coins meanwhile.
            State::Paying { payment, phase: Phase::Abandoned { .. } } => {
                turn.ctx.out.push(Effect::LendCoins { funding: payment.plan.id() });
                open.want_funding(turn);
                return;
            }
            State::Aborted { agreement: Some(agreement), .. } => {
                let funding = FundingId::of(&[agreement.hash()]);
                turn.ctx.out.push(Effect::ReleaseCoins { funding });
                return;
            }
            State::Draft { .. }
            | State::TermsSigned(_)
            | State::Locked { .. }
            | State::Funding { .. }
            | State::Paying { .. }
            | State::Aborted { .. } => return,
        };
        for tx in sent {
            open.broadcast(turn, &tx);
        }
    }
}

/// How often a registrar is asked, in one life of the buyer, before its silence is a default: the
/// waits in between sum up to four times what Terms have.
const ASKED_BEFORE_DEFAULT: u32 = 5;

/// Lets others have the coins of a funding.
pub(super) fn lend(turn: &mut Turn<'_, '_>, funding: FundingId) {
    if turn.shared.is_first(Once::Lend(funding)) {
        turn.ctx.out.push(Effect::LendCoins { funding });
    }
}

impl Open<Buyer> {
    pub(super) fn enter(&mut self, turn: &mut Turn<'_, '_>, state: State) {
        self.machine.state = state;
        self.moved(turn);
    }

    pub(super) fn enter_phase(&mut self, turn: &mut Turn<'_, '_>, next: Phase) {
        if let State::Paying { phase, .. } = &mut self.machine.state {
            *phase = next;
            self.moved(turn);
        }
    }

    fn perform(&mut self, turn: &mut Turn<'_, '_>, step: Step) {
        if let Step::Abort(code) | Step::Abandon(code) = step {
            self.give_up(turn, code);
            return;
        }
        // Nothing is spent, and nothing signed toward spending, without a chain.
        if !turn.ctx.chain.up {
            return;
        }
        let message = self.tries.is_message_due(turn.ctx.now_ms);
        let tip = self.tries.is_tip_due(turn.ctx.chain.height);
        match step {
            Step::AskTerms if message => self.ask_terms(turn),
            Step::AskLock if message => self.ask_lock(turn),
            Step::AskWallet if message => self.ask_wallet(turn),
            Step::AskOthers if message => self.ask_others(turn),
            Step::SendFund if message => self.send_fund(turn),
            Step::AskActivation if message || tip => self.ask_activation(turn),
            // A buyer that was away has not given the registrar a chance to answer.
            Step::Default if self.tries.count() >= ASKED_BEFORE_DEFAULT => self.default(turn),
            Step::Default if message || tip => self.ask_activation(turn),
            Step::AskCertificate if message || tip => self.ask_certificate(turn),
            Step::Lapse => self.lapse(turn),
            Step::BroadcastFund if tip => self.broadcast_fund(turn),
            Step::AskCancel if tip => self.ask_cancel(turn),
            Step::BroadcastCancel if tip => self.broadcast_cancel(turn),
            Step::Refund if tip => self.refund(turn),
            Step::Wait
            | Step::AskTerms
            | Step::AskLock
            | Step::AskWallet
            | Step::AskOthers
            | Step::SendFund
            | Step::BroadcastFund
            | Step::AskCancel
            | Step::BroadcastCancel
            | Step::Refund
            | Step::AskActivation
            | Step::AskCertificate
            | Step::Default
            | Step::Abandon(_)
            | Step::Abort(_) => {}
        }
    }

    /// Ends a trade that nobody has paid yet, as far as this node knows.
    pub(super) fn give_up(&mut self, turn: &mut Turn<'_, '_>, code: &str) {
        self.blame_partners(turn, code);
        match &self.machine.state {
            // Of a payment of several that is whole nobody has to replace what comes too late.
            State::Paying { payment, phase: Phase::Exported | Phase::Built | Phase::Sent } => {
                let funding = payment.plan.id();
                // Nobody is told that it is over: it is not while the funding can be sent.
                self.enter_phase(turn, Phase::Abandoned { code: code.to_owned() });
                lend(turn, funding);
            }
            State::Draft { .. }
            | State::TermsSigned(_)
            | State::Locked { .. }
            | State::Funding { .. }
            | State::Paying { .. }
            | State::Aborted { .. } => self.abort(turn, code),
        }
    }

    /// Ends a trade of which no funding left this node. A registrar that may hold a lock is
    /// told; if the message is lost, the consent elapses.
    fn abort(&mut self, turn: &mut Turn<'_, '_>, code: &str) {
        match code {
            // Its provider keeps it waiting, as it says: nobody else knows whose fault that is.
            "terms.late" if self.refusal.as_deref() == Some("resale.not_split") => {}
            "terms.late" => self.missed(turn, self.machine.seller, Miss::Terms),
            "lock.late" if self.is_kept_by_partners() => {}
            "lock.late" if self.is_not_the_sellers() => {
                self.missed(turn, self.machine.seller, Miss::Terms);
            }
            "lock.late" => self.missed(turn, self.machine.registrar, Miss::Lock),
            // Its own signature for another says so while it owes this one, whatever this life
            // has asked.
            "lock.conflict" => {
                turn.ctx.missed(Subject::Key(self.machine.registrar), Miss::Lock);
            }
            _ => {}
        }
        // Of a missed deadline the counterparty's refusal is the better reason.
        let refusal = self.refusal.take().filter(|_| code.ends_with(".late"));
        let code = refusal.unwrap_or_else(|| code.to_owned());
        let agreement = self.machine.state.agreement().cloned();
        let terms_hash = agreement.as_ref().map(Agreement::hash);
        let plan = self.machine.state.plan().cloned();
        self.enter(turn, State::Aborted { code, agreement });
        match plan {
            Some(plan) if plan.is_shared() => turn.shared.unfit(plan.id()),
            Some(plan) => turn.ctx.out.push(Effect::ReleaseCoins { funding: plan.id() }),
            None => {}
        }
        if let Some(terms_hash) = terms_hash {
            let cancel = turn.ctx.sign(TermsCancel { v: VERSION, terms_hash });
            let request = TradeRequest::Cancel(cancel.envelope().clone());
            self.send_both(turn, request, TradePurpose::Cancel(self.machine.trade));
        }
    }

    /// Asks a peer. If too many requests wait already, the retry timer comes back to it.
    pub(super) fn send(
        turn: &mut Turn<'_, '_>,
        to: Key,
        request: TradeRequest,
        purpose: TradePurpose,
    ) {
        turn.ctx.out.send(to, Protocol::Settle, &SettleRequest::Trade(request), purpose);
    }

    /// Asks the registrar, and the seller where that is another.
    fn send_both(&self, turn: &mut Turn<'_, '_>, request: TradeRequest, purpose: TradePurpose) {
        let (registrar, seller) = (self.machine.registrar, self.machine.seller);
        if seller != registrar {
            Self::send(turn, seller, request.clone(), purpose);
        }
        Self::send(turn, registrar, request, purpose);
    }

    fn ask_terms(&mut self, turn: &mut Turn<'_, '_>) {
        let State::Draft { request, .. } = &self.machine.state else { return };
        let request = match request {
            Some(request) => request.clone(),
            None => {
                let Some(made) = self.make_request(turn) else { return };
                if let State::Draft { request, .. } = &mut self.machine.state {
                    *request = Some(made.clone());
                }
                self.changed(turn);
                made
            }
        };
        self.tried(turn);
        let (seller, purpose) = (self.machine.seller, TradePurpose::Terms(self.machine.trade));
        let request = if self.machine.is_recallable {
            TradeRequest::RecallableTerms(request)
        } else {
            TradeRequest::Terms(request)
        };
        Self::send(turn, seller, request, purpose);
    }

    fn make_request(&self, turn: &Turn<'_, '_>) -> Option<TermsRequest> {
        let key = turn.single_use_key(REFUND_LABEL, self.machine.key_index)?;
        let funder = Funder {
            key: turn.ctx.me(),
            refund_xonly: key.x_only_public_key().0.serialize(),
            amount_sat: self.machine.share_sat(),
        };
        let partners = self.machine.partners.iter().cloned();
        Some(TermsRequest {
            trade_id: self.machine.trade,
            to: self.machine.to,
            funders: [funder].into_iter().chain(partners).collect(),
            tip_height: turn.ctx.chain.height,
            use_by: self.machine.use_by,
        })
    }

    fn ask_lock(&mut self, turn: &mut Turn<'_, '_>) {
        let State::TermsSigned(signed) = &self.machine.state else { return };
        let request = TradeRequest::Accept {
            terms: signed.agreement.signed.envelope.clone(),
            accepts: signed.accepts.clone(),
        };
        self.tried(turn);
        let (registrar, purpose) =
            (self.machine.registrar, TradePurpose::Accept(self.machine.trade));
        Self::send(turn, registrar, request, purpose);
    }

    fn send_fund(&mut self, turn: &mut Turn<'_, '_>) {
        let Some(payment) = self.machine.state.payment() else { return };
        let Some(fund) = payment.fund() else { return };
        let terms = payment.plan.terms.clone();
        let funding = payment.plan.id();
        let request = TradeRequest::Fund { terms, tx: bitcoin::consensus::serialize(fund.tx()) };
        self.tried(turn);
        if !turn.shared.is_first(Once::Show(funding)) {
            return;
        }
        self.send_both(turn, request, TradePurpose::Fund(self.machine.trade));
    }

    /// Whether the registrar says that a reseller had sold what it has not, or not any more: its
    /// terms were no good.
    fn is_not_the_sellers(&self) -> bool {
        let refusal = self.refusal.as_deref();
        let is_moved = matches!(
            refusal,
            Some("lock.not_holder" | "lock.stale_seq" | "lock.prev_hash" | "lock.consumed")
        );
        is_moved && self.machine.seller != self.machine.registrar
    }

    fn broadcast_fund(&mut self, turn: &mut Turn<'_, '_>) {
        let fund = self.machine.state.payment().and_then(Payment::fund).cloned();
        self.tried(turn);
        self.ask_bump(turn);
        if let Some(fund) = fund {
            self.broadcast(turn, &fund);
        }
    }

    fn ask_cancel(&mut self, turn: &mut Turn<'_, '_>) {
        let State::Paying { payment, phase } = &self.machine.state else { return };
        let funding = payment.plan.id();
        if matches!(phase, Phase::Built | Phase::Lapsed | Phase::Sent) {
            if *phase == Phase::Built {
                self.miss_acknowledgement(turn);
            }
            self.enter_phase(turn, Phase::Cancelling { cancel: None });
        }
        self.tried(turn);
        Self::want_cancel(turn, funding);
    }

    /// Asks the wallet for a replacement at the rate of this tip.
    fn want_cancel(turn: &mut Turn<'_, '_>, funding: FundingId) {
        let feerate_sat_kvb = turn.ctx.chain.feerate_sat_kvb(fees::URGENT_TARGET);
        want(turn, funding, Vec::new(), feerate_sat_kvb);
    }

    /// Sends the replacement again, and asks for a better one: fees may have risen, or what it
    /// spends may have vanished.
    fn broadcast_cancel(&mut self, turn: &mut Turn<'_, '_>) {
        let State::Paying { payment, phase: Phase::Cancelling { cancel: Some(cancel) } } =
            &self.machine.state
        else {
            return;
        };
        let (tx, funding) = (cancel.tx.clone(), payment.plan.id());
        self.tried(turn);
        self.broadcast(turn, &tx);
        Self::want_cancel(turn, funding);
    }

    fn default(&mut self, turn: &mut Turn<'_, '_>) {
        let transfer = self.machine.state.payment().and_then(Payment::transfer);
        self.enter_phase(turn, Phase::Defaulted { transfer });
    }

    /// Sends the refund of each own contract, or a better paying one, or the same once more.
    fn refund(&mut self, turn: &mut Turn<'_, '_>) {
        let State::Paying { payment, phase } = &self.machine.state else { return };
        let sent = match phase {
            Phase::Refunding { refunds } => refunds.clone(),
            Phase::Exported
            | Phase::Abandoned { .. }
            | Phase::Built
            | Phase::Lapsed
            | Phase::Sent
            | Phase::Confirmed
            | Phase::PreimageKnown
            | Phase::Active { .. }
            | Phase::Cancelling { .. }
            | Phase::Cancelled
            | Phase::Refunded
            | Phase::Defaulted { .. } => BTreeMap::new(),
        };
        let (mut refunds, mut waiting) = (sent.clone(), Vec::new());
        for (n, facts) in payment.own() {
            if facts.refund_depth(turn.ctx.chain.height) > 0 {
                continue;
            }
            let Some(refund) = self.build_refund(turn, payment, n, facts, sent.get(&n)) else {
                continue;
            };
            waiting.push(refund.tx.clone());
            refunds.insert(n, refund);
        }
        if refunds.is_empty() {
            return;
        }
        match &mut self.machine.state {
            State::Paying { phase: Phase::Refunding { refunds: known }, .. } => {
                if *known != refunds {
                    *known = refunds;
                    self.changed(turn);
                }
            }
            State::Draft { .. }
            | State::TermsSigned(_)
            | State::Locked { .. }
            | State::Funding { .. }
            | State::Paying { .. }
            | State::Aborted { .. } => self.enter_phase(turn, Phase::Refunding { refunds }),
        }
        self.tried(turn);
        for tx in waiting {
            self.broadcast(turn, &tx);
        }
    }

    fn build_refund(
        &self,
        turn: &mut Turn<'_, '_>,
        payment: &Payment,
        n: u8,
        facts: &ContractFacts,
        sent: Option<&OwnTx>,
    ) -> Option<OwnTx> {
        let contract: &Contract = self.rail.as_ref()?.contracts().get(usize::from(n))?;
        let fund = facts.fund.as_ref()?;
        let rival = facts.paid();
        let target = if rival.is_some() { fees::URGENT_TARGET } else { fees::REFUND_TARGET };
        let refund_at = payment.signed.agreement.terms().refund_at;
        let waited = turn.ctx.chain.height.saturating_sub(refund_at);
        let estimate = fees::climbed(turn.ctx.chain.feerate_sat_kvb(target), waited);
        let all_sat = fund.value_sat().saturating_sub(fees::DUST_SAT);
        let mut fee_sat = fees::refund_fee_sat(fund.value_sat(), estimate, rival.is_some())?;
        if let Some(rival) = rival {
            // It has to replace the seller's claim in the mempool: pay more than that.
            let step = fees::fee_sat(fees::STEP_SAT_KVB, fees::REFUND_VSIZE);
            fee_sat = fee_sat.max(rival.fee_sat.saturating_add(step)).min(all_sat);
        }
        let to = match sent {
            Some(sent) => match fees::bump(sent.fee_sat, fee_sat, fees::REFUND_VSIZE) {
                None if sent.spends(fund.outpoint()) => return Some(sent.clone()),
                _ => sent.tx.tx().output.first()?.script_pubkey.clone(),
            },
            None => turn.ctx.wallet.fresh_spks.pop_front()?,
        };
        let key = turn.single_use_key(REFUND_LABEL, self.machine.key_index)?;
        transaction::refund(turn.ctx.secp, fund.holding(contract), &key, refund_at, to, fee_sat)
    }

    /// An answer of a counterparty, in whatever state it finds the trade.
    pub(super) fn on_reply(
        &mut self,
        turn: &mut Turn<'_, '_>,
        peer: Key,
        answer: Answer<TradeReply>,
    ) {
        let reply = match answer {
            Answer::Said(reply) => reply,
            Answer::Refused(code) => {
                // A lock that there is not yet is none that was refused.
                let is_agreed = self.machine.state.signed().is_none_or(Signed::is_agreed);
                self.refusal = is_agreed.then(|| remote_code(&code).to_owned());
                self.on_unpaid(turn, peer, &code);
                return;
            }
            Answer::None => return,
        };
        match reply {
            TradeReply::Terms { title, terms } => self.on_terms(turn, *title, &terms),
            TradeReply::LockGrant(lock) => self.on_lock(turn, &lock),
            TradeReply::FundAck { terms, txid } => {
                self.on_fund_ack(turn, peer, &terms, txid);
            }
            TradeReply::Activation(signed) => self.on_activation(turn, &signed, None),
            TradeReply::NotYet if matches!(self.machine.state, State::Draft { .. }) => {
                self.refusal = Some(code!("resale.not_split").to_owned());
            }
            // It answers, so it is not to blame if what it was shown is no good.
            TradeReply::NotYet if self.is_joint_shown() && peer == self.machine.registrar => {
                self.refusal = Some(NOT_ACCEPTED.to_owned());
            }
            TradeReply::NotYet
            | TradeReply::Cancelled
            | TradeReply::Key(_)
            | TradeReply::Kept
            | TradeReply::Part(_)
            | TradeReply::Parts(_) => {}
        }
    }

    fn on_terms(&mut self, turn: &mut Turn<'_, '_>, title: Certificate, terms: &Envelope) {
        let checked = self.machine.terms(turn.ctx.secp, turn.now(), title, terms);
        let Some(checked) = checked else { return };
        self.refusal = None;
        match checked {
            Ok(agreement) => self.accept(turn, agreement),
            Err(error) => {
                self.missed(turn, self.machine.seller, Miss::Terms);
                self.abort(turn, error.code());
            }
        }
    }

    /// Signs the consent to terms that hold.
    pub(super) fn accept(&mut self, turn: &mut Turn<'_, '_>, agreement: Agreement) {
        let ctx = &turn.ctx;
        let heights = Timelocks::of(agreement.terms(), ctx.params);
        let release_at_ms = ctx.now_ms.saturating_add(ctx.params.settle.fund_ms);
        let accept = ctx.sign(Accept {
            v: VERSION,
            terms_hash: agreement.hash(),
            release_at_height: heights.release_at(),
            release_at_ms,
            together: self.machine.together.is_some(),
        });
        let me = ctx.me();
        let funders = (0_u8..).zip(&agreement.terms().funders);
        let own = funders.filter(|(_, funder)| funder.key == me).map(|(n, _)| n).collect();
        let accepts = vec![accept.envelope().clone()];
        self.enter(turn, State::TermsSigned(Signed { agreement, accepts, own, release_at_ms }));
    }

    /// Every other funder has signed the same terms.
    pub(super) fn agree(
        &mut self,
        turn: &mut Turn<'_, '_>,
        accepts: &[Envelope],
    ) -> Result<(), Refused> {
        let State::TermsSigned(signed) = &mut self.machine.state else { return Ok(()) };
        if signed.is_agreed() {
            return Ok(());
        }
        let terms = signed.agreement.signed.envelope.verify::<Terms>(turn.ctx.params.magic);
        let terms = terms.map_err(|error| error.code())?;
        check::consents(turn.ctx.secp, turn.now(), &terms, accepts).map_err(CheckError::code)?;
        signed.accepts = accepts.to_vec();
        self.tries.reset();
        self.changed(turn);
        Ok(())
    }

    /// The lock, in an answer or as it is gossiped: it is granted to all funders together.
    pub(super) fn on_lock(&mut self, turn: &mut Turn<'_, '_>, signed: &Envelope) {
        let Some(checked) = self.machine.lock(turn.now(), signed) else { return };
        let State::TermsSigned(terms) = &self.machine.state else { return };
        let terms = terms.clone();
        self.refusal = None;
        match checked {
            Ok(lock) => {
                let ctx = &turn.ctx;
                let quiet_until_ms = ctx.now_ms.saturating_add(ctx.params.settle.conflict_wait_ms);
                self.enter(turn, State::Locked { signed: terms, lock, quiet_until_ms });
            }
            Err(error) => {
                self.missed(turn, self.machine.registrar, Miss::Lock);
                self.abort(turn, error.code());
            }
        }
    }

    /// Only the registrar's acknowledgement lets the funding out.
    fn on_fund_ack(
        &mut self,
        turn: &mut Turn<'_, '_>,
        peer: Key,
        terms: &[TermsHash],
        txid: [u8; 32],
    ) {
        if peer != self.machine.registrar {
            return;
        }
        let ours = self.machine.is_acknowledged(terms, txid);
        if self.machine.note_acknowledged(terms, txid) {
            self.changed(turn);
        }
        if ours {
            self.enter_phase(turn, Phase::Sent);
        }
    }

    /// The Activation, in an answer or in a certificate that shows how it was paid for.
    pub(super) fn on_activation(
        &mut self,
        turn: &mut Turn<'_, '_>,
        activation: &Envelope,
        shown: Option<&Transfer>,
    ) {
        match self.machine.activation(turn.now(), activation, shown) {
            Some(Ok(active)) => {
                self.refusal = None;
                self.enter_phase(turn, active);
            }
            Some(Err(error)) => self.refusal = Some(error.code().to_owned()),
            None => {}
        }
    }
}
