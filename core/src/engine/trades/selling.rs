//! Carries out what a seller's state machine asks for, and answers its buyer.

use bitcoin::hashes::Hash;
use bitcoin::{ScriptBuf, Transaction};

use super::pace::Pace;
use super::{STEPS_MAX, TradeEvent, notify, now, single_use_key, watch};
use crate::engine::io::Effect;
use crate::engine::kernel::{Context, Table};
use crate::ids::{Key, TermsHash, TradeId};
use crate::settlement::check::{self, Agreement, PAYOUT_SPK_MAX_BYTES};
use crate::settlement::facts::{Batch, FundFact};
use crate::settlement::fees::{self, ClaimProgress};
use crate::settlement::objects::{
    Row, SettleReply, SettleRequest, Terms, TermsCancel, TermsRequest, Transfer,
};
use crate::settlement::registrar::Registrar;
use crate::settlement::script::{Contract, TEMPLATE};
use crate::settlement::seller::{Granted, Seller, Signed, State, Step};
use crate::settlement::timelock::{Timelocks, lead_suffices, tips_agree};
use crate::settlement::transaction::{self, OwnTx, contract_vout};
use crate::units::{TimeMs, Units};
use crate::wire::{Envelope, VERSION, sha256};

/// Counter of single-use settlement keys.
const KEYS: &str = "settlement";
/// Label of claim keys.
const CLAIM_LABEL: &str = "settlement/claim";
/// Label of preimages.
const PREIMAGE_LABEL: &str = "settlement/preimage";
/// Label of the terms' nonce.
const NONCE_LABEL: &str = "settlement/nonce";
/// The seller waits this many times longer than the buyer, so that units are freed only
/// after the buyer has given up.
const PATIENCE: u64 = 2;

/// Why a request is refused: a stable reason code.
type Refused = &'static str;

/// One settlement as seller.
#[derive(Debug)]
pub(super) struct Selling {
    /// What its record keeps.
    pub(super) seller: Seller,
    /// Recomputed from the terms; in memory only.
    contract: Option<Contract>,
    /// Tries and certainty.
    pub(super) pace: Pace,
    slot_s: u32,
}

/// Id that an envelope has as Terms.
pub(super) fn terms_id(ctx: &Context<'_>, terms: &Envelope) -> TermsHash {
    TermsHash(terms.id::<Terms>(ctx.params.magic))
}

/// Terms that a TermsCancel names, before its signature is checked.
pub(super) fn cancelled_terms(cancel: &Envelope) -> Option<TermsHash> {
    cancel.peek::<TermsCancel>().ok().map(|cancel| cancel.terms_hash)
}

impl Selling {
    pub(super) fn open(
        ctx: &mut Context<'_>,
        row: &Row,
        trade: TradeId,
        buyer: Key,
        units: Units,
        features: u64,
    ) -> Self {
        let until_ms = ctx.now_ms.saturating_add(PATIENCE * ctx.params.settle.terms_ms);
        let seller = Seller {
            v: VERSION,
            trade,
            row: row.clone(),
            buyer,
            units,
            features,
            opened_ms: ctx.now_ms,
            state: State::Offered { until_ms },
        };
        let slot_s = ctx.params.slot_s;
        let selling = Self { seller, contract: None, pace: Pace::default(), slot_s };
        selling.save(ctx);
        notify(ctx, trade, "offered");
        selling
    }

    pub(super) fn load(
        ctx: &mut Context<'_>,
        seller: Seller,
        events: &mut Vec<TradeEvent>,
    ) -> Self {
        let slot_s = ctx.params.slot_s;
        let done = seller.state.is_done();
        let pace = if done { Pace::default() } else { Pace::resumed() };
        let mut selling = Self { seller, contract: None, pace, slot_s };
        selling.contract = selling.compute_contract(ctx);
        if !done {
            selling.watch(ctx);
        }
        selling.tell_sold(events);
        if let State::Released { code, .. } = &selling.seller.state {
            events.push(TradeEvent::Void { trade: selling.seller.trade, code: code.clone() });
        }
        let (fund, claim) = match &selling.seller.state {
            State::FundSeen(granted) => (granted.facts.fund.clone(), None),
            State::ClaimSent { granted, claim } => {
                (granted.facts.fund.clone(), Some(claim.tx.clone()))
            }
            _ => (None, None),
        };
        let waits = |fund: &FundFact| fund.height.is_none();
        selling.broadcast(ctx, fund.filter(waits).map(|fund| fund.tx));
        selling.broadcast(ctx, claim);
        selling
    }

    pub(super) fn terms_hash(&self) -> Option<TermsHash> {
        self.seller.state.agreement().map(|agreement| agreement.hash)
    }

    /// The contract's output script.
    pub(super) fn contract_spk(&self) -> Option<&ScriptBuf> {
        self.contract.as_ref().map(|contract| &contract.spk)
    }

    pub(super) fn deadlines(&self) -> Vec<(TimeMs, &'static str)> {
        self.seller.deadlines(self.slot_s)
    }

    fn compute_contract(&self, ctx: &Context<'_>) -> Option<Contract> {
        let agreement = self.seller.state.agreement()?;
        Contract::new(ctx.secp, &agreement.terms, agreement.hash, 0).ok()
    }

    fn save(&self, ctx: &mut Context<'_>) {
        ctx.out.put(Table::Seller, &self.seller.trade.0, &self.seller);
    }

    /// Enters a state: written before anything that follows from it.
    fn enter(&mut self, ctx: &mut Context<'_>, state: State) {
        if state.name() != self.seller.state.name() {
            self.pace.reset();
            notify(ctx, self.seller.trade, state.name());
        }
        self.seller.state = state;
        if self.contract.is_none() {
            self.contract = self.compute_contract(ctx);
        }
        self.save(ctx);
    }

    /// Watches the address, and the output once the funding is known.
    fn watch(&self, ctx: &mut Context<'_>) {
        let (Some(contract), Some(granted)) = (&self.contract, self.seller.state.granted()) else {
            return;
        };
        let outpoints = granted.facts.fund.iter().map(FundFact::outpoint).collect();
        let from = granted.heights(now(ctx)).rescan_from();
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
        if let (Some(contract), Some(facts)) = (&self.contract, self.seller.state.facts_mut()) {
            let learnt = self.pace.apply(facts, contract, batch, ctx.chain.height);
            if learnt.found_fund {
                self.watch(ctx);
            }
            if learnt.changed {
                self.save(ctx);
            }
            let trade = self.seller.trade;
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
            let settled = self.seller.state.clone().settle(now(ctx));
            let was_sold = self.is_sold();
            if settled.name() != self.seller.state.name() {
                self.enter(ctx, settled);
                if !was_sold {
                    self.tell_sold(events);
                }
            }
            let step = self.seller.due(now(ctx), self.pace.is_sure());
            let before = self.seller.state.name();
            self.perform(ctx, registrar, step, events);
            if self.seller.state.name() == before {
                break;
            }
        }
    }

    fn is_sold(&self) -> bool {
        matches!(self.seller.state, State::Claimed { .. } | State::Settled { .. })
    }

    fn tell_sold(&self, events: &mut Vec<TradeEvent>) {
        if let Some(granted) = self.seller.state.granted().filter(|_| self.is_sold()) {
            let cert = granted.signed.agreement.terms.cert_id;
            events.push(TradeEvent::Sold { trade: self.seller.trade, cert });
        }
    }

    fn perform(
        &mut self,
        ctx: &mut Context<'_>,
        registrar: &mut dyn Registrar,
        step: Step,
        events: &mut Vec<TradeEvent>,
    ) {
        match step {
            Step::Release { code, evidence } => {
                self.release(ctx, registrar, code, evidence, events);
                return;
            }
            Step::NeverReveal(code) => {
                if let Some(granted) = self.seller.state.granted() {
                    let granted = Box::new(granted.clone());
                    self.enter(ctx, State::NeverReveal { granted, code: code.to_owned() });
                }
                return;
            }
            _ => {}
        }
        // Nothing is spent or revealed without a chain.
        if !ctx.chain.up || !self.pace.tip_due(ctx.chain.height) {
            return;
        }
        match step {
            Step::BroadcastFund => {
                let fund =
                    self.seller.state.granted().and_then(|granted| granted.facts.fund.clone());
                self.pace.tried(ctx.now_ms, ctx.chain.height, ctx.params);
                self.broadcast(ctx, fund.map(|fund| fund.tx));
            }
            Step::Claim => self.claim(ctx),
            _ => {}
        }
    }

    fn release(
        &mut self,
        ctx: &mut Context<'_>,
        registrar: &mut dyn Registrar,
        code: &str,
        evidence: Option<[u8; 32]>,
        events: &mut Vec<TradeEvent>,
    ) {
        let agreement = self.seller.state.agreement().cloned();
        if let (Some(agreement), Some(evidence)) = (&agreement, evidence) {
            registrar.release(ctx, agreement.hash, evidence);
        }
        self.enter(ctx, State::Released { code: code.to_owned(), agreement });
        events.push(TradeEvent::Void { trade: self.seller.trade, code: code.to_owned() });
    }

    /// Sends the claim, or a better paying one, or the same once more.
    fn claim(&mut self, ctx: &mut Context<'_>) {
        let (granted, sent) = match &self.seller.state {
            State::FundFinal(granted) => (granted, None),
            State::ClaimSent { granted, claim } => (granted, Some(claim)),
            _ => return,
        };
        let (granted, sent) = (granted.clone(), sent.cloned());
        let Some(claim) = self.build_claim(ctx, &granted, sent) else { return };
        // A reorganisation may have thrown the funding out: it goes first.
        let fund = granted.facts.fund.clone().filter(|fund| fund.height.is_none());
        let tx = claim.tx.clone();
        self.enter(ctx, State::ClaimSent { granted, claim });
        self.pace.tried(ctx.now_ms, ctx.chain.height, ctx.params);
        self.broadcast(ctx, fund.map(|fund| fund.tx));
        self.broadcast(ctx, Some(tx));
    }

    fn build_claim(
        &self,
        ctx: &Context<'_>,
        granted: &Granted,
        sent: Option<OwnTx>,
    ) -> Option<OwnTx> {
        let fund = granted.facts.fund.as_ref()?;
        let heights = granted.heights(now(ctx));
        // Until the funding is back in a block after a reorganisation, its deadline stands in.
        let confirmed = fund.height.unwrap_or(heights.fund_by);
        let first = confirmed.saturating_add(heights.funding_confirmations).saturating_sub(1);
        let left = heights.refund_at.saturating_sub(ctx.chain.height);
        let fee_sat = fees::claim_fee_sat(ClaimProgress {
            value_sat: fund.value_sat(),
            estimate_sat_kvb: ctx.chain.feerate_sat_kvb(left / 2),
            elapsed: ctx.chain.height.saturating_sub(first),
            window: heights.refund_at.saturating_sub(first),
        })?;
        if let Some(sent) = sent
            && sent.spends(fund.outpoint())
            && fees::bump(sent.fee_sat, fee_sat, fees::CLAIM_VSIZE).is_none()
        {
            return Some(sent);
        }
        let index = granted.signed.key_index;
        let key = single_use_key(ctx, CLAIM_LABEL, index)?;
        let x = ctx.secret(PREIMAGE_LABEL, index);
        let to = ScriptBuf::from_bytes(granted.signed.agreement.terms.payout_spk.clone());
        transaction::claim(ctx.secp, fund.holding(self.contract.as_ref()?), &key, x, to, fee_sat)
    }

    /// Answers the buyer. The answer to a repeated request stands in the state.
    pub(super) fn answer(
        &mut self,
        ctx: &mut Context<'_>,
        registrar: &mut dyn Registrar,
        peer: Key,
        request: SettleRequest,
        events: &mut Vec<TradeEvent>,
    ) -> Result<SettleReply, Refused> {
        if peer != self.seller.buyer {
            return Err("trade.not_the_buyer");
        }
        let reply = match request {
            SettleRequest::Terms(request) => self.on_terms(ctx, registrar, &request),
            SettleRequest::Accept { terms, accepts } => {
                self.on_accept(ctx, registrar, &terms, &accepts)
            }
            SettleRequest::Fund { tx, .. } => self.on_fund(ctx, &tx),
            SettleRequest::Transfer(transfer) => self.on_transfer(ctx, registrar, &transfer),
            SettleRequest::Cancel(cancel) => self.on_cancel(ctx, registrar, &cancel, events),
            _ => Err("trade.no_agreement"),
        };
        self.drive(ctx, registrar, events);
        reply
    }

    fn on_terms(
        &mut self,
        ctx: &mut Context<'_>,
        registrar: &mut dyn Registrar,
        request: &TermsRequest,
    ) -> Result<SettleReply, Refused> {
        if matches!(self.seller.state, State::Released { .. }) {
            return Err("trade.void");
        }
        if let Some(agreement) = self.seller.state.agreement() {
            let same =
                agreement.terms.to == request.to && agreement.terms.funders == request.funders;
            return if same { Ok(terms_reply(agreement)) } else { Err("trade.already_agreed") };
        }
        let State::Offered { until_ms } = self.seller.state else { return Err("trade.void") };
        if ctx.now_ms >= until_ms {
            return Err("trade.void");
        }
        if !ctx.chain.up {
            return Err("chain.down");
        }
        if !tips_agree(ctx.params, ctx.chain.height, request.tip_height) {
            return Err("terms.tips_differ");
        }
        let price_sat = self.seller.row.price_sat();
        // One funder so far; contracts with several are later in the order of delivery.
        let [funder] = request.funders.as_slice() else { return Err("terms.one_funder") };
        if funder.amount_sat != price_sat {
            return Err("terms.wrong_amount");
        }
        let heights = Timelocks::new(ctx.params.profile(price_sat), ctx.chain.height);
        let (row, now_ms, tip) = (&self.seller.row, ctx.now_ms, ctx.chain.height);
        if !lead_suffices(ctx.params, now_ms, tip, heights.refund_at, row.window()) {
            return Err("terms.window_too_near");
        }
        let signed = self.sign_terms(ctx, registrar, request, heights)?;
        let reply = terms_reply(&signed.agreement);
        let until_ms = ctx.now_ms.saturating_add(PATIENCE * ctx.params.settle.terms_ms);
        self.enter(ctx, State::TermsSigned { signed, until_ms });
        Ok(reply)
    }

    fn sign_terms(
        &self,
        ctx: &mut Context<'_>,
        registrar: &mut dyn Registrar,
        request: &TermsRequest,
        heights: Timelocks,
    ) -> Result<Signed, Refused> {
        let fresh = ctx.wallet.fresh_spks.front().ok_or("wallet.no_address")?;
        let payout_spk = fresh.to_bytes();
        if !(1..=PAYOUT_SPK_MAX_BYTES).contains(&payout_spk.len()) {
            return Err("wallet.no_address");
        }
        let Seller { row, units, features, trade, .. } = &self.seller;
        let issue = registrar.issue(ctx, *trade, row.class, *features, units, row.window())?;
        let key_index = ctx.next_index(KEYS);
        let key = single_use_key(ctx, CLAIM_LABEL, key_index).ok_or("settle.key")?;
        let mut nonce16 = [0; 16];
        nonce16.copy_from_slice(&ctx.secret(NONCE_LABEL, key_index)[..16]);
        let terms = ctx.sign(Terms {
            v: VERSION,
            trade_id: *trade,
            cert_id: crate::ids::CertId(issue.id()),
            seq: 0,
            prev_hash: issue.id(),
            class: row.class,
            units: units.clone(),
            window: row.window(),
            from: ctx.me(),
            to: request.to,
            funders: request.funders.clone(),
            price_sat: row.price_sat(),
            payment_hash: sha256(&[&ctx.secret(PREIMAGE_LABEL, key_index)]),
            s_xonly: key.x_only_public_key().0.serialize(),
            payout_spk,
            t0: heights.t0,
            fund_by: heights.fund_by,
            refund_at: heights.refund_at,
            funding_confirmations: heights.funding_confirmations,
            template: TEMPLATE,
            nonce16,
        });
        let agreement = Agreement::new(&issue, &terms);
        // The buyer's key may be unusable: then there is no address to agree on.
        let contract = Contract::new(ctx.secp, &agreement.terms, agreement.hash, 0);
        contract.map_err(|error| error.code())?;
        ctx.wallet.fresh_spks.pop_front();
        Ok(Signed { agreement, key_index })
    }

    fn on_accept(
        &mut self,
        ctx: &mut Context<'_>,
        registrar: &mut dyn Registrar,
        terms: &Envelope,
        accepts: &[Envelope],
    ) -> Result<SettleReply, Refused> {
        if let Some(granted) = self.seller.state.granted() {
            return Ok(SettleReply::LockGrant(granted.lock.clone()));
        }
        let State::TermsSigned { signed, until_ms } = &self.seller.state else {
            return Err("trade.void");
        };
        let (signed, until_ms) = (signed.clone(), *until_ms);
        if ctx.now_ms >= until_ms {
            return Err("trade.void");
        }
        if !ctx.chain.up {
            return Err("chain.down");
        }
        if *terms != signed.agreement.signed {
            return Err("accept.does_not_fit");
        }
        let terms = terms.verify::<Terms>(ctx.params.magic).map_err(|error| error.code())?;
        check::reach(now(ctx), &terms).map_err(check::CheckError::code)?;
        let [accept] = accepts else { return Err("accept.does_not_fit") };
        // The buyer's clock may be ahead by as much as terms may take.
        let settle = ctx.params.settle;
        let latest_ms = ctx.now_ms.saturating_add(settle.fund_ms).saturating_add(settle.terms_ms);
        let accept = check::accept(ctx.params, &signed.agreement, 0, latest_ms, accept)
            .map_err(check::CheckError::code)?;
        if ctx.now_ms >= accept.release_at_ms {
            return Err("accept.elapsed");
        }
        let lock = registrar.lock(ctx, &terms, std::slice::from_ref(&accept))?;
        let granted = Granted {
            signed,
            lock: lock.envelope().clone(),
            accept_id: accept.id(),
            release_at_ms: accept.release_at_ms,
            facts: crate::settlement::facts::Facts::default(),
        };
        self.enter(ctx, State::LockGranted(Box::new(granted)));
        self.watch(ctx);
        Ok(SettleReply::LockGrant(lock.envelope().clone()))
    }

    fn on_fund(&mut self, ctx: &mut Context<'_>, bytes: &[u8]) -> Result<SettleReply, Refused> {
        let tx: Transaction =
            bitcoin::consensus::deserialize(bytes).map_err(|_| "fund.malformed")?;
        let granted = match &self.seller.state {
            State::Released { .. } => return Err("lock.released"),
            state => state.granted().ok_or("lock.not_granted")?,
        };
        let acknowledge = SettleReply::FundAck {
            terms_hash: granted.hash(),
            txid: tx.compute_txid().to_byte_array(),
        };
        if let Some(known) = &granted.facts.fund {
            // Two fundings of one contract could both be claimed with one preimage.
            let same = known.txid() == tx.compute_txid();
            return if same { Ok(acknowledge) } else { Err("fund.already_acknowledged") };
        }
        if !ctx.chain.up {
            return Err("chain.down");
        }
        if ctx.now_ms >= granted.release_at_ms {
            return Err("lock.released");
        }
        check::reach(now(ctx), &granted.signed.agreement.terms).map_err(check::CheckError::code)?;
        let contract = self.contract.as_ref().ok_or("lock.not_granted")?;
        let vout = contract_vout(&tx, contract).ok_or("fund.pays_not_the_contract")?;
        let mut granted = Box::new(granted.clone());
        granted.facts.fund = Some(FundFact { tx, vout, seen: true, height: None });
        self.enter(ctx, State::FundSeen(granted));
        self.watch(ctx);
        Ok(acknowledge)
    }

    fn on_transfer(
        &self,
        ctx: &mut Context<'_>,
        registrar: &mut dyn Registrar,
        transfer: &Transfer,
    ) -> Result<SettleReply, Refused> {
        let granted = self.seller.state.granted().ok_or("transfer.not_paid")?;
        if matches!(self.seller.state, State::NeverReveal { .. }) {
            return Err("transfer.not_paid");
        }
        if !self.is_sold() {
            return Ok(SettleReply::NotYet);
        }
        if !granted.is_paid_by(transfer) {
            return Err("transfer.not_the_claim");
        }
        let terms = &granted.signed.agreement.signed;
        let terms = terms.verify::<Terms>(ctx.params.magic).map_err(|error| error.code())?;
        registrar.activate_sale(ctx, &terms, transfer).map(SettleReply::Activation)
    }

    fn on_cancel(
        &mut self,
        ctx: &mut Context<'_>,
        registrar: &mut dyn Registrar,
        cancel: &Envelope,
        events: &mut Vec<TradeEvent>,
    ) -> Result<SettleReply, Refused> {
        let cancel = cancel.verify::<TermsCancel>(ctx.params.magic).map_err(|e| e.code())?;
        let funder = |agreement: &Agreement| {
            agreement.terms.funders.iter().any(|funder| funder.key.0 == cancel.key())
        };
        if !self.seller.state.agreement().is_some_and(funder) {
            return Err("trade.not_the_buyer");
        }
        match &self.seller.state {
            State::TermsSigned { .. } => {
                self.release(ctx, registrar, "trade.cancelled_by_buyer", None, events);
            }
            State::LockGranted(_) => {
                let evidence = Some(cancel.id());
                self.release(ctx, registrar, "trade.cancelled_by_buyer", evidence, events);
            }
            State::Released { .. } => {}
            // A funding is known: only the chain can end it now.
            _ => return Err("fund.already_acknowledged"),
        }
        Ok(SettleReply::Stored)
    }
}

fn terms_reply(agreement: &Agreement) -> SettleReply {
    SettleReply::Terms { issue: Some(agreement.issue.clone()), terms: agreement.signed.clone() }
}
