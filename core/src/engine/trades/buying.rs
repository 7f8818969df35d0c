//! Carries out what a buyer's state machine asks for.

use bitcoin::{OutPoint, ScriptBuf, Transaction};

use super::pace::Pace;
use super::{BuyLimits, STEPS_MAX, TradeEvent, notify, now, single_use_key, watch};
use crate::engine::io::{Effect, Funding, Protocol};
use crate::engine::kernel::{Context, Purpose, Table, remote_code};
use crate::ids::{Key, TermsHash, TradeId};
use crate::settlement::buyer::{Buyer, Funded, Lock, Signed, State, Step};
use crate::settlement::check::{self, Expected};
use crate::settlement::facts::{Batch, Facts};
use crate::settlement::fees;
use crate::settlement::objects::{
    Accept, Funder, Row, SettleReply, SettleRequest, TermsCancel, TermsRequest,
};
use crate::settlement::registrar::Registrar;
use crate::settlement::script::Contract;
use crate::settlement::timelock::Timelocks;
use crate::settlement::transaction::{self, OwnTx, contract_vout};
use crate::units::TimeMs;
use crate::wire::{Envelope, VERSION};

/// Counter of single-use settlement keys.
const KEYS: &str = "settlement";
/// Label of refund keys.
const REFUND_LABEL: &str = "settlement/refund";
/// The wallet's reason when too few coins are free.
const NO_COINS: &str = "wallet.insufficient_funds";

/// One settlement as buyer.
#[derive(Debug)]
pub(super) struct Buying {
    /// What its record keeps.
    pub(super) buyer: Buyer,
    /// Recomputed from the terms; in memory only.
    contract: Option<Contract>,
    /// Tries and certainty.
    pub(super) pace: Pace,
    /// The counterparty's last refusal.
    pub(super) refusal: Option<String>,
}

impl Buying {
    pub(super) fn open(
        ctx: &mut Context<'_>,
        row: &Row,
        trade: TradeId,
        provider: Key,
        to: Key,
        limits: BuyLimits,
    ) -> Self {
        let until_ms = ctx.now_ms.saturating_add(ctx.params.settle.terms_ms);
        let buyer = Buyer {
            v: VERSION,
            trade,
            row: row.clone(),
            provider,
            to,
            features: limits.features,
            fee_cap_sat: limits.fee_cap_sat,
            fee_reserve_sat: limits.fee_cap_sat,
            key_index: ctx.next_index(KEYS),
            opened_ms: ctx.now_ms,
            state: State::Draft { request: None, until_ms },
        };
        let mut buying = Self { buyer, contract: None, pace: Pace::default(), refusal: None };
        buying.save(ctx);
        notify(ctx, trade, "draft");
        if ctx.chain.up {
            buying.ask_terms(ctx);
        }
        buying
    }

    pub(super) fn load(ctx: &mut Context<'_>, buyer: Buyer, events: &mut Vec<TradeEvent>) -> Self {
        let done = buyer.state.is_done();
        let pace = if done { Pace::default() } else { Pace::resumed() };
        ctx.treasury.commit(buyer.trade, buyer.committed_sat());
        let mut buying = Self { buyer, contract: None, pace, refusal: None };
        buying.contract = buying.compute_contract(ctx);
        if done {
            buying.tell_end(events);
        } else {
            buying.watch(ctx);
        }
        match &buying.buyer.state {
            State::FundSent(funded) => {
                let fund = funded.facts.fund.as_ref().map(|fund| fund.tx.clone());
                buying.broadcast(ctx, fund);
            }
            State::Refunding { refund: own, .. } | State::Cancelling { cancel: Some(own), .. } => {
                let tx = Some(own.tx.clone());
                buying.broadcast(ctx, tx);
            }
            State::Active { funded, transfer, activation } => {
                let certificate = funded.certificate(transfer, activation);
                events.push(TradeEvent::Bought { trade: buying.buyer.trade, certificate });
            }
            // The crash may have come before the wallet heard of it.
            State::Aborted { agreement: Some(agreement), .. } => {
                let terms_hash = agreement.hash;
                ctx.out.push(Effect::ReleaseCoins { terms_hash });
            }
            _ => {}
        }
        buying
    }

    pub(super) fn terms_hash(&self) -> Option<TermsHash> {
        self.buyer.state.agreement().map(|agreement| agreement.hash)
    }

    /// The contract's output script.
    pub(super) fn contract_spk(&self) -> Option<&ScriptBuf> {
        self.contract.as_ref().map(|contract| &contract.spk)
    }

    /// Deadlines and the next retry.
    pub(super) fn deadlines(&self) -> Vec<(TimeMs, &'static str)> {
        let mut all = self.buyer.deadlines();
        let asks = match self.buyer.state {
            State::Draft { .. }
            | State::TermsSigned(_)
            | State::Funding { .. }
            | State::FundBuilt(_) => true,
            State::PreimageKnown(ref funded) => {
                funded.facts.claim.is_some_and(|(spend, _)| spend.height.is_some())
            }
            _ => false,
        };
        if asks {
            all.push((self.pace.retry_at_ms(), "retry"));
        }
        all
    }

    fn compute_contract(&self, ctx: &Context<'_>) -> Option<Contract> {
        let agreement = self.buyer.state.agreement()?;
        Contract::new(ctx.secp, &agreement.terms, agreement.hash, 0).ok()
    }

    /// Writes the state, and says which coins it still needs.
    fn save(&self, ctx: &mut Context<'_>) {
        ctx.treasury.commit(self.buyer.trade, self.buyer.committed_sat());
        ctx.out.put(Table::Buyer, &self.buyer.trade.0, &self.buyer);
    }

    /// Enters a state: written before anything that follows from it.
    fn enter(&mut self, ctx: &mut Context<'_>, state: State) {
        if state.name() != self.buyer.state.name() {
            self.pace.reset();
            notify(ctx, self.buyer.trade, state.name());
        }
        self.buyer.state = state;
        if self.contract.is_none() {
            self.contract = self.compute_contract(ctx);
        }
        self.save(ctx);
    }

    /// Watches the contract, its spending, and the spending of the funding's inputs.
    fn watch(&self, ctx: &mut Context<'_>) {
        let (Some(contract), Some(funded)) = (&self.contract, self.buyer.state.funded()) else {
            return;
        };
        let Some(fund) = &funded.facts.fund else { return };
        let mut outpoints: Vec<OutPoint> = vec![fund.outpoint()];
        outpoints.extend(fund.tx.input.iter().map(|input| input.previous_output));
        let from = Timelocks::of(&funded.signed.agreement.terms, ctx.params).rescan_from();
        watch(ctx, vec![contract.spk.clone()], outpoints, from);
    }

    fn broadcast(&mut self, ctx: &mut Context<'_>, tx: Option<Transaction>) {
        if let Some(tx) = tx {
            self.pace.broadcast(tx.compute_txid());
            ctx.out.push(Effect::Broadcast { tx });
        }
    }

    /// New facts: applies them, then goes on.
    pub(super) fn on_chain(
        &mut self,
        ctx: &mut Context<'_>,
        registrar: &mut dyn Registrar,
        batch: &Batch<'_>,
        events: &mut Vec<TradeEvent>,
    ) {
        if let (Some(contract), Some(facts)) = (&self.contract, self.buyer.state.facts_mut()) {
            let learnt = self.pace.apply(facts, contract, batch, ctx.chain.height);
            if learnt.found_fund {
                self.watch(ctx);
            }
            if learnt.changed {
                self.save(ctx);
            }
            let trade = self.buyer.trade;
            events.extend(learnt.lost.into_iter().map(|txid| TradeEvent::Reorged { trade, txid }));
        }
        self.drive(ctx, registrar, events);
    }

    /// Does what is due until nothing is.
    pub(super) fn drive(
        &mut self,
        ctx: &mut Context<'_>,
        registrar: &mut dyn Registrar,
        events: &mut Vec<TradeEvent>,
    ) {
        for _ in 0..STEPS_MAX {
            let settled = self.buyer.state.clone().settle(now(ctx));
            if settled.name() != self.buyer.state.name() {
                self.enter(ctx, settled);
                self.tell_end(events);
            }
            let step = self.buyer.due(now(ctx), self.pace.is_sure());
            let before = self.buyer.state.name();
            self.perform(ctx, registrar, step, events);
            if self.buyer.state.name() == before {
                break;
            }
        }
    }

    fn tell_end(&self, events: &mut Vec<TradeEvent>) {
        let code = match &self.buyer.state {
            State::Cancelled(_) => "fund.cancelled",
            State::Refunded(_) => "settle.refunded",
            State::Aborted { code, .. } => code.as_str(),
            _ => return,
        };
        events.push(TradeEvent::Void { trade: self.buyer.trade, code: code.to_owned() });
    }

    fn perform(
        &mut self,
        ctx: &mut Context<'_>,
        registrar: &mut dyn Registrar,
        step: Step,
        events: &mut Vec<TradeEvent>,
    ) {
        if let Step::Abort(code) = step {
            self.abort(ctx, code, events);
            return;
        }
        // Nothing is spent, and nothing signed toward spending, without a chain.
        if !ctx.chain.up {
            return;
        }
        let message = self.pace.message_due(ctx.now_ms);
        let tip = self.pace.tip_due(ctx.chain.height);
        match step {
            Step::AskTerms if message => self.ask_terms(ctx),
            Step::AskLock if message => self.ask_lock(ctx),
            Step::AskWallet if message => self.ask_wallet(ctx, registrar, events),
            Step::SendFund if message => self.send_fund(ctx),
            Step::AskActivation if message || tip => self.ask_activation(ctx),
            Step::BroadcastFund if tip => {
                let fund = self.buyer.state.funded().and_then(|funded| funded.facts.fund.as_ref());
                let fund = fund.map(|fund| fund.tx.clone());
                self.tried(ctx);
                self.broadcast(ctx, fund);
            }
            Step::AskCancel if tip => self.ask_cancel(ctx),
            Step::BroadcastCancel if tip => {
                let State::Cancelling { cancel: Some(cancel), .. } = &self.buyer.state else {
                    return;
                };
                let tx = Some(cancel.tx.clone());
                self.tried(ctx);
                self.broadcast(ctx, tx);
            }
            Step::Refund if tip => self.refund(ctx),
            _ => {}
        }
    }

    fn tried(&mut self, ctx: &Context<'_>) {
        self.pace.tried(ctx.now_ms, ctx.chain.height, ctx.params);
    }

    /// Ends a settlement of which no funding left this node. A provider that may hold a lock
    /// is told; if the message is lost, the consent elapses.
    fn abort(&mut self, ctx: &mut Context<'_>, code: &str, events: &mut Vec<TradeEvent>) {
        // Of a missed deadline the counterparty's refusal is the better reason.
        let refusal = self.refusal.take().filter(|_| code.ends_with(".late"));
        let code = refusal.unwrap_or_else(|| code.to_owned());
        let agreement = self.buyer.state.agreement().cloned();
        let locked = agreement.as_ref().map(|agreement| agreement.hash);
        let asked_wallet = matches!(self.buyer.state, State::Funding { .. });
        self.enter(ctx, State::Aborted { code: code.clone(), agreement });
        if let Some(terms_hash) = locked {
            if asked_wallet {
                ctx.out.push(Effect::ReleaseCoins { terms_hash });
            }
            let cancel = ctx.sign(TermsCancel { v: VERSION, terms_hash });
            let request = SettleRequest::Cancel(cancel.envelope().clone());
            self.send(ctx, &request, Purpose::Cancel(self.buyer.trade));
        }
        events.push(TradeEvent::Void { trade: self.buyer.trade, code });
    }

    fn send(&self, ctx: &mut Context<'_>, request: &SettleRequest, purpose: Purpose) {
        // If too many requests wait already, the retry timer comes back to it.
        ctx.out.send(self.buyer.provider, Protocol::Settle, request, purpose);
    }

    fn ask_terms(&mut self, ctx: &mut Context<'_>) {
        let State::Draft { request, until_ms } = &self.buyer.state else { return };
        let request = match request {
            Some(request) => request.clone(),
            None => {
                let until_ms = *until_ms;
                let key = single_use_key(ctx, REFUND_LABEL, self.buyer.key_index);
                let Some(key) = key else { return };
                let funder = Funder {
                    key: ctx.me(),
                    refund_xonly: key.x_only_public_key().0.serialize(),
                    amount_sat: self.buyer.row.price_sat(),
                };
                let request = TermsRequest {
                    trade_id: self.buyer.trade,
                    to: self.buyer.to,
                    funders: vec![funder],
                    tip_height: ctx.chain.height,
                };
                self.enter(ctx, State::Draft { request: Some(request.clone()), until_ms });
                request
            }
        };
        self.tried(ctx);
        self.send(ctx, &SettleRequest::Terms(request), Purpose::Terms(self.buyer.trade));
    }

    fn ask_lock(&mut self, ctx: &mut Context<'_>) {
        let State::TermsSigned(signed) = &self.buyer.state else { return };
        let request = SettleRequest::Accept {
            terms: signed.agreement.signed.clone(),
            accepts: vec![signed.accept.clone()],
        };
        self.tried(ctx);
        self.send(ctx, &request, Purpose::Accept(self.buyer.trade));
    }

    /// Everything is checked once more before the wallet signs.
    fn ask_wallet(
        &mut self,
        ctx: &mut Context<'_>,
        registrar: &mut dyn Registrar,
        events: &mut Vec<TradeEvent>,
    ) {
        let (State::Locked { signed, lock, .. } | State::Funding { signed, lock }) =
            &self.buyer.state
        else {
            return;
        };
        let (signed, lock) = (signed.clone(), lock.clone());
        let Some(contract) = &self.contract else { return };
        let outputs = vec![(contract.spk.clone(), contract.amount_sat)];
        let terms = &signed.agreement.terms;
        let terms_hash = signed.agreement.hash;
        let left = terms.fund_by.saturating_sub(ctx.chain.height);
        let feerate_sat_kvb = ctx.chain.feerate_sat_kvb(fees::fund_target(left));
        let conflict = registrar.conflicting_lock(
            terms.from,
            terms.cert_id,
            terms.seq,
            lock.attempt,
            terms_hash,
        );
        let refused = if conflict {
            Some("lock.conflict")
        } else if fees::fund_fee_sat(feerate_sat_kvb) > self.buyer.fee_cap_sat {
            Some("fund.fee_above_cap")
        } else {
            check::reach(now(ctx), terms).err().map(check::CheckError::code)
        };
        if let Some(code) = refused {
            self.abort(ctx, code, events);
            return;
        }
        self.enter(ctx, State::Funding { signed, lock });
        self.tried(ctx);
        ctx.out.push(Effect::Fund { terms_hash, outputs, feerate_sat_kvb });
    }

    fn send_fund(&mut self, ctx: &mut Context<'_>) {
        let State::FundBuilt(funded) = &self.buyer.state else { return };
        let Some(fund) = &funded.facts.fund else { return };
        let request = SettleRequest::Fund {
            terms_hash: funded.hash(),
            tx: bitcoin::consensus::serialize(&fund.tx),
        };
        self.tried(ctx);
        self.send(ctx, &request, Purpose::Fund(self.buyer.trade));
    }

    fn ask_cancel(&mut self, ctx: &mut Context<'_>) {
        let (State::FundBuilt(funded)
        | State::FundSent(funded)
        | State::Cancelling { funded, cancel: None }) = &self.buyer.state
        else {
            return;
        };
        let (funded, terms_hash) = (funded.clone(), funded.hash());
        self.enter(ctx, State::Cancelling { funded, cancel: None });
        self.tried(ctx);
        let feerate_sat_kvb = ctx.chain.feerate_sat_kvb(fees::URGENT_TARGET);
        ctx.out.push(Effect::Fund { terms_hash, outputs: Vec::new(), feerate_sat_kvb });
    }

    fn ask_activation(&mut self, ctx: &mut Context<'_>) {
        let State::PreimageKnown(funded) = &self.buyer.state else { return };
        let Some(transfer) = funded.transfer() else { return };
        self.tried(ctx);
        let request = SettleRequest::Transfer(transfer);
        self.send(ctx, &request, Purpose::Transfer(self.buyer.trade));
    }

    /// Sends the refund, or a better paying one, or the same once more.
    fn refund(&mut self, ctx: &mut Context<'_>) {
        let (funded, sent) = match &self.buyer.state {
            State::FundConfirmed(funded) | State::PreimageKnown(funded) => (funded, None),
            State::Refunding { funded, refund } => (funded, Some(refund)),
            _ => return,
        };
        let (funded, sent) = (funded.clone(), sent.cloned());
        let confirmed = funded.facts.refund_depth(ctx.chain.height) > 0;
        let refund = match &sent {
            Some(sent) if confirmed => sent.clone(),
            sent => match self.build_refund(ctx, &funded, sent.as_ref()) {
                Some(refund) => refund,
                None => return,
            },
        };
        let tx = (!confirmed).then(|| refund.tx.clone());
        self.enter(ctx, State::Refunding { funded, refund });
        self.tried(ctx);
        self.broadcast(ctx, tx);
    }

    fn build_refund(
        &self,
        ctx: &mut Context<'_>,
        funded: &Funded,
        sent: Option<&OwnTx>,
    ) -> Option<OwnTx> {
        let fund = funded.facts.fund.as_ref()?;
        let rival = funded.facts.claim.map(|(spend, _)| spend);
        let target = if rival.is_some() { fees::URGENT_TARGET } else { fees::REFUND_TARGET };
        let estimate = ctx.chain.feerate_sat_kvb(target);
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
                _ => sent.tx.output.first()?.script_pubkey.clone(),
            },
            None => ctx.wallet.fresh_spks.pop_front()?,
        };
        let key = single_use_key(ctx, REFUND_LABEL, self.buyer.key_index)?;
        let refund_at = funded.signed.agreement.terms.refund_at;
        let holding = fund.holding(self.contract.as_ref()?);
        transaction::refund(ctx.secp, holding, &key, refund_at, to, fee_sat)
    }

    /// An answer of the counterparty, in whatever state it finds the settlement.
    pub(super) fn on_reply(
        &mut self,
        ctx: &mut Context<'_>,
        registrar: &mut dyn Registrar,
        result: Result<SettleReply, String>,
        events: &mut Vec<TradeEvent>,
    ) {
        match result {
            Ok(SettleReply::Terms { issue, terms }) => self.on_terms(ctx, issue, &terms, events),
            Ok(SettleReply::LockGrant(lock)) => self.on_lock(ctx, lock, events),
            Ok(SettleReply::FundAck { terms_hash, txid }) => {
                self.on_fund_ack(ctx, terms_hash, txid);
            }
            Ok(SettleReply::Activation(signed)) => self.on_activation(ctx, signed, events),
            Ok(SettleReply::Refused { code }) => self.refusal = Some(remote_code(&code).to_owned()),
            Ok(_) | Err(_) => {}
        }
        self.drive(ctx, registrar, events);
    }

    fn on_terms(
        &mut self,
        ctx: &mut Context<'_>,
        issue: Option<Envelope>,
        terms: &Envelope,
        events: &mut Vec<TradeEvent>,
    ) {
        let State::Draft { request: Some(request), until_ms } = &self.buyer.state else { return };
        if !ctx.chain.up || ctx.now_ms >= *until_ms {
            return;
        }
        let expected = Expected {
            trade: self.buyer.trade,
            row: &self.buyer.row,
            provider: self.buyer.provider,
            to: self.buyer.to,
            funders: &request.funders,
            features: self.buyer.features,
        };
        let checked = match issue {
            Some(issue) => check::agreement(ctx.secp, now(ctx), expected, &issue, terms),
            None => Err(check::CheckError::Issue),
        };
        self.refusal = None;
        match checked {
            Ok(agreement) => {
                let heights = Timelocks::of(&agreement.terms, ctx.params);
                let release_at_ms = ctx.now_ms.saturating_add(ctx.params.settle.fund_ms);
                let accept = ctx.sign(Accept {
                    v: VERSION,
                    terms_hash: agreement.hash,
                    release_at_height: heights.release_at(),
                    release_at_ms,
                });
                let accept = accept.envelope().clone();
                self.enter(ctx, State::TermsSigned(Signed { agreement, accept, release_at_ms }));
            }
            Err(error) => self.abort(ctx, error.code(), events),
        }
    }

    fn on_lock(&mut self, ctx: &mut Context<'_>, signed: Envelope, events: &mut Vec<TradeEvent>) {
        let State::TermsSigned(terms) = &self.buyer.state else { return };
        let terms = terms.clone();
        self.refusal = None;
        match check::lock(now(ctx), &terms.agreement, &signed) {
            Ok(attempt) => {
                let quiet = ctx.now_ms.saturating_add(ctx.params.settle.conflict_wait_ms);
                self.enter(ctx, terms.locked(Lock { signed, attempt }, quiet));
            }
            Err(error) => self.abort(ctx, error.code(), events),
        }
    }

    fn on_fund_ack(&mut self, ctx: &mut Context<'_>, terms_hash: TermsHash, txid: [u8; 32]) {
        use bitcoin::hashes::Hash;
        let State::FundBuilt(funded) = &self.buyer.state else { return };
        let ours = funded.facts.fund.as_ref().map(|fund| fund.txid().to_byte_array());
        if funded.hash() == terms_hash && ours == Some(txid) {
            let funded = funded.clone();
            self.enter(ctx, State::FundSent(funded));
        }
    }

    fn on_activation(
        &mut self,
        ctx: &mut Context<'_>,
        signed: Envelope,
        events: &mut Vec<TradeEvent>,
    ) {
        let State::PreimageKnown(funded) = &self.buyer.state else { return };
        let Some(transfer) = funded.transfer() else { return };
        let checked =
            check::activation(ctx.params, &funded.signed.agreement, funded.lock.attempt, &signed);
        if let Err(error) = checked {
            self.refusal = Some(error.code().to_owned());
            return;
        }
        self.refusal = None;
        let funded = funded.clone();
        let certificate = funded.certificate(&transfer, &signed);
        self.enter(ctx, State::Active { funded, transfer, activation: signed });
        events.push(TradeEvent::Bought { trade: self.buyer.trade, certificate });
    }

    /// The wallet's answer: a funding, or its replacement.
    pub(super) fn on_funded(
        &mut self,
        ctx: &mut Context<'_>,
        registrar: &mut dyn Registrar,
        result: Result<Funding, String>,
        events: &mut Vec<TradeEvent>,
    ) {
        match (&self.buyer.state, result) {
            (State::Funding { signed, lock }, Ok(funding)) => {
                let (signed, lock) = (signed.clone(), lock.clone());
                self.take_funding(ctx, signed, lock, funding, events);
            }
            // The change of another funding comes free as soon as that is broadcast.
            (State::Funding { .. }, Err(code)) if code == NO_COINS => self.refusal = Some(code),
            (State::Funding { .. }, Err(code)) => self.abort(ctx, &code, events),
            (State::Cancelling { funded, cancel: None }, Ok(funding)) => {
                // The wallet may repeat its answer to the funding itself.
                let fund = funded.facts.fund.as_ref().map(|fund| &fund.tx);
                if fund != Some(&funding.tx) {
                    let cancel = Some(OwnTx { tx: funding.tx, fee_sat: funding.fee_sat });
                    let funded = funded.clone();
                    self.enter(ctx, State::Cancelling { funded, cancel });
                    self.pace.reset();
                }
            }
            (State::Aborted { agreement: Some(agreement), .. }, Ok(_)) => {
                ctx.out.push(Effect::ReleaseCoins { terms_hash: agreement.hash });
            }
            _ => {}
        }
        self.drive(ctx, registrar, events);
    }

    fn take_funding(
        &mut self,
        ctx: &mut Context<'_>,
        signed: Signed,
        lock: Lock,
        funding: Funding,
        events: &mut Vec<TradeEvent>,
    ) {
        let vout = self.contract.as_ref().and_then(|c| contract_vout(&funding.tx, c));
        let late = ctx.now_ms >= signed.release_at_ms;
        let reach = check::reach(now(ctx), &signed.agreement.terms);
        let refused = match (vout, reach) {
            (None, _) => "fund.pays_not_the_contract",
            _ if late => "fund.late",
            _ if funding.fee_sat > self.buyer.fee_cap_sat => "fund.fee_above_cap",
            (_, Err(error)) => error.code(),
            (Some(vout), Ok(())) => {
                let facts = Facts::built(funding.tx, vout);
                self.enter(ctx, State::built(signed, lock, funding.fee_sat, facts));
                self.watch(ctx);
                return;
            }
        };
        self.abort(ctx, refused, events);
    }
}
