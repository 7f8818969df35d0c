//! One node as far as settlement goes: the component, its records, a wallet, a registrar.

use std::collections::BTreeMap;

use bitcoin::{OutPoint, ScriptBuf, Transaction, Txid};
use capex_core::certificate::objects::{Activation, Binding, Consumed, Issue, Payment, blinded};
use capex_core::certificate::{Certificate, VerifiedCertificate, verify};
use capex_core::engine::io::{Effect, Funding, Topic, Unsent};
use capex_core::engine::kernel::{
    ChainView, Conduct, Context, Counters, Keys, Miss, Outbox, Record, Subject, Timer, Treasury,
    WalletView,
};
use capex_core::engine::messages::{SettleReply, SettleRequest};
use capex_core::engine::trades::{
    BuyLimits, Fresh, PastTradeV1, Purchase, Titles, TradeEvent, TradeReply, TradeRequest,
    TradeView, Trades,
};
use capex_core::ids::{CertId, FundingId, Key, TermsHash, TradeId};
use capex_core::settlement::buyer::Buyer;
use capex_core::settlement::facts::{ChainFacts, Sighting};
use capex_core::settlement::objects::{Accept, LockGrant, Terms, TermsRequest, Transfer};
use capex_core::settlement::script::Contract;
use capex_core::settlement::seller::Goods;
use capex_core::settlement::transaction::KnownTx;
use capex_core::wire::{Envelope, VERSION, Verified};

use crate::chain::Chain;
use crate::setup::Setup;

/// What travels between parties.
#[derive(Clone)]
pub(crate) enum Message {
    Request {
        id: u64,
        bytes: Vec<u8>,
    },
    Reply {
        id: u64,
        bytes: Vec<u8>,
    },
    /// Gossip of a lock.
    Lock(Envelope),
}

/// A provider's ledger of one certificate, which outlives restarts here.
#[derive(Default)]
pub(crate) struct Ledger {
    pub(crate) title: Option<VerifiedCertificate>,
    issue: Option<Verified<Issue>>,
    lock: Option<Verified<LockGrant>>,
    activation: Option<Envelope>,
    pub(crate) locks: usize,
    pub(crate) activations: usize,
    pub(crate) released: Vec<TermsHash>,
    /// Sales that were taken back, of those that were activated.
    pub(crate) taken_back: Vec<TermsHash>,
    pub(crate) conflict: bool,
}

impl Titles for Ledger {
    fn issue(
        &mut self,
        ctx: &mut Context<'_>,
        _trade: TradeId,
        fresh: &Fresh,
    ) -> Result<Verified<Issue>, &'static str> {
        if self.issue.is_none() {
            let Fresh { class, features, window, not_after_slot, .. } = *fresh;
            let class_hash = ctx.params.class_hash(class).ok_or("class.unknown")?;
            let nonce32 = ctx.fresh("issue");
            self.issue = Some(ctx.sign(Issue {
                v: VERSION,
                provider: ctx.me(),
                class,
                class_hash,
                features,
                units: fresh.units.clone(),
                window,
                pay: Payment::Prepaid,
                binding: fresh.recall.map_or(Binding::Registrar, |by| Binding::Recallable { by }),
                nonce32,
                not_after_slot,
            }));
        }
        let issue = self.issue.clone().unwrap();
        let title = Certificate::issued(issue.envelope().clone());
        self.title = verify(&title, ctx.params).ok();
        Ok(issue)
    }

    fn holder(&self, cert: CertId) -> Option<Key> {
        let title = self.title.as_ref().filter(|title| title.cert_id == cert);
        title.map(|title| title.holder)
    }

    fn lock(
        &mut self,
        ctx: &mut Context<'_>,
        terms: &Verified<Terms>,
        accepts: &[Verified<Accept>],
    ) -> Result<Verified<LockGrant>, &'static str> {
        assert_eq!(accepts.len(), terms.funders.len());
        if self.lock.is_none() {
            self.locks += 1;
            self.lock = Some(ctx.sign(LockGrant {
                v: VERSION,
                provider: ctx.me(),
                cert_id: terms.cert_id,
                seq: terms.seq,
                attempt: 0,
                prev_release: [0; 32],
                terms_hash: TermsHash(terms.id()),
                fund_by: terms.fund_by,
                refund_at: terms.refund_at,
                p_height: ctx.chain.height,
            }));
            let grant = self.lock.as_ref().unwrap().envelope();
            let bytes = capex_core::wire::encode(grant);
            ctx.out.push(Effect::Publish { topic: Topic::Locks, bytes });
        }
        let lock = self.lock.clone().unwrap();
        if lock.terms_hash.0 == terms.id() { Ok(lock) } else { Err("lock.taken") }
    }

    fn release(&mut self, _ctx: &mut Context<'_>, terms_hash: TermsHash, evidence: [u8; 32]) {
        assert_ne!(evidence, [0; 32]);
        self.released.push(terms_hash);
    }

    fn take_back(&mut self, _ctx: &mut Context<'_>, terms_hash: TermsHash) {
        if self.activation.is_some() {
            self.taken_back.push(terms_hash);
        }
    }

    fn activate(
        &mut self,
        ctx: &mut Context<'_>,
        terms: &Verified<Terms>,
        transfer: &Transfer,
    ) -> Result<Envelope, &'static str> {
        assert_eq!(transfer.terms_hash.0, terms.id());
        assert!(!self.released.contains(&transfer.terms_hash), "activated after a release");
        if self.activation.is_none() {
            self.activations += 1;
            let activation = ctx.sign(Activation {
                v: VERSION,
                provider: ctx.me(),
                cert_id: terms.cert_id,
                seq: terms.seq + 1,
                consumes: vec![Consumed {
                    cert_id: terms.cert_id,
                    seq: terms.seq,
                    attempt: 0,
                    prev_hash: terms.prev_hash,
                }],
                roots: vec![terms.cert_id],
                holder_hash: blinded(terms.to, terms.nonce16, ctx.params.magic),
                class: terms.class,
                features: self.title.as_ref().unwrap().features,
                units: terms.units.clone(),
                window: terms.window,
                cause_hash: terms.id(),
                p_height: ctx.chain.height,
            });
            self.activation = Some(activation.envelope().clone());
        }
        Ok(self.activation.clone().unwrap())
    }

    fn activation(&self, _: TermsHash, _: Key) -> Option<Envelope> {
        None
    }

    fn conflicting_lock(
        &self,
        _provider: Key,
        _cert: CertId,
        _seq: u32,
        _attempt: u32,
        _terms_hash: TermsHash,
    ) -> bool {
        self.conflict
    }
}

pub(crate) struct Party {
    trades: Trades,
    keys: Keys,
    view: ChainView,
    wallet: WalletView,
    treasury: Treasury,
    pub(crate) conduct: Conduct,
    counters: Counters,
    out: Outbox,
    records: BTreeMap<(u8, Vec<u8>), Record>,
    persists: usize,
    spks: Vec<ScriptBuf>,
    outpoints: Vec<OutPoint>,
    journal: BTreeMap<FundingId, Funding>,
    pending_reply: Option<(Key, u64, Vec<u8>)>,
    pub(crate) registrar: Ledger,
    pub(crate) online: bool,
    pub(crate) chain_up: bool,
    pub(crate) rescan: bool,
    pub(crate) funded: Vec<(FundingId, Result<Funding, String>)>,
    /// Its coins wait for the change of another funding.
    pub(crate) is_short: bool,
    /// Most that it is willing to lose in fees, sat.
    pub(crate) max_loss_sat: u64,
    /// Why its wallet refuses everything.
    pub(crate) wallet_refuses: Option<&'static str>,
    /// What its wallet was asked for: the number of outputs, and sat per 1,000 vB.
    pub(crate) wallet_asked: Vec<(usize, u64)>,
    pub(crate) released: Vec<FundingId>,
    /// News for people.
    pub(crate) notified: usize,
    /// Fundings whose coins others may take.
    pub(crate) lent: Vec<FundingId>,
    /// Answers to broadcasts that it has not heard.
    answers: Vec<(Txid, Result<(), Unsent>)>,
    /// Its chain source passes on what it is handed without saying so, and shows no transaction.
    pub(crate) is_silent: bool,
    /// Its keys are elsewhere: what its wallet builds waits for a signature.
    pub(crate) is_watch_only: bool,
    /// What waits, as its signer sends it.
    pub(crate) built: BTreeMap<FundingId, Funding>,
    is_exported: bool,
    pub(crate) outgoing: Vec<(Option<Key>, Message)>,
    pub(crate) events: Vec<TradeEvent>,
    seed: u8,
}

macro_rules! context {
    ($party:ident, $setup:ident, $now_ms:expr) => {
        Context {
            now_ms: $now_ms,
            params: &$setup.params,
            keys: &$party.keys,
            secp: &$setup.secp,
            chain: &$party.view,
            wallet: &mut $party.wallet,
            treasury: &mut $party.treasury,
            conduct: &mut $party.conduct,
            counters: &mut $party.counters,
            out: &mut $party.out,
        }
    };
}

impl Party {
    pub(crate) fn new(seed: u8) -> Self {
        let setup = Setup::new();
        let fresh_spks = (100..120).map(|n| setup.spk(n + seed)).collect();
        Self {
            trades: Trades::default(),
            keys: Keys::new([seed; 32], [seed + 100; 32]),
            view: ChainView::default(),
            wallet: WalletView { fresh_spks, ..WalletView::default() },
            treasury: Treasury::default(),
            conduct: Conduct::default(),
            counters: Counters::default(),
            out: Outbox::default(),
            records: BTreeMap::new(),
            persists: 0,
            spks: Vec::new(),
            outpoints: Vec::new(),
            journal: BTreeMap::new(),
            pending_reply: None,
            registrar: Ledger::default(),
            online: true,
            chain_up: true,
            rescan: false,
            funded: Vec::new(),
            is_short: false,
            max_loss_sat: 10_000,
            wallet_refuses: None,
            wallet_asked: Vec::new(),
            released: Vec::new(),
            notified: 0,
            lent: Vec::new(),
            answers: Vec::new(),
            is_silent: false,
            is_watch_only: false,
            built: BTreeMap::new(),
            is_exported: false,
            outgoing: Vec::new(),
            events: Vec::new(),
            seed,
        }
    }

    pub(crate) fn key(&self) -> Key {
        self.keys.public()
    }

    pub(crate) fn keys(&self) -> &Keys {
        &self.keys
    }

    pub(crate) fn open_buy(&mut self, setup: &Setup, now_ms: u64, seller: Key, registrar: Key) {
        let events = self.try_buy(setup, now_ms, seller, registrar);
        assert!(!events.is_empty() || self.committed_sat() == 50_000 + 10_000);
        self.events.extend(events);
    }

    pub(crate) fn try_buy(
        &mut self,
        setup: &Setup,
        now_ms: u64,
        seller: Key,
        registrar: Key,
    ) -> Vec<TradeEvent> {
        let limits = BuyLimits {
            fee_cap_sat: 10_000,
            max_loss_sat: self.max_loss_sat,
            features: setup.features,
            use_by: None,
            is_recallable: false,
        };
        let (to, partners) = (self.key(), Vec::new());
        let together = None;
        let purchase = Purchase { seller, registrar, to, limits, partners, together };
        let mut ctx = context!(self, setup, now_ms);
        let (row, trade) = (&setup.row, setup.trade());
        self.trades.open_buy(&mut ctx, &mut self.registrar, row, trade, purchase)
    }

    pub(crate) fn open_sell(&mut self, setup: &Setup, now_ms: u64, buyer: Key, goods: Goods) {
        let mut ctx = context!(self, setup, now_ms);
        let (row, trade) = (&setup.row, setup.trade());
        let events = self.trades.open_sell(&mut ctx, &mut self.registrar, row, trade, buyer, goods);
        assert_eq!(events, []);
    }

    pub(crate) fn view(&self, setup: &Setup) -> Option<TradeView> {
        self.trades.view(setup.trade())
    }

    /// Another broke a promise earlier.
    pub(crate) fn has_missed(&mut self, setup: &Setup, miss: Miss, by: usize) {
        let by = Self::new(u8::try_from(by + 1).unwrap()).key();
        let mut ctx = context!(self, setup, setup.start_ms);
        ctx.missed(Subject::Key(by), miss);
    }

    /// The one funding that its wallet made.
    pub(crate) fn funding_id(&self) -> FundingId {
        *self.journal.keys().next().unwrap()
    }

    /// Scripts that its wallet must not hand out again.
    pub(crate) fn promised(&self) -> Vec<ScriptBuf> {
        self.trades.promised_scripts().into_iter().collect()
    }

    /// Its open and ended trades.
    pub(crate) fn trades(&self) -> &Trades {
        &self.trades
    }

    /// Whether its chain source watches anything.
    pub(crate) fn is_watching(&self) -> bool {
        !self.spks.is_empty() || !self.outpoints.is_empty()
    }

    /// The certificate of its sale came by another way than the answer to it.
    pub(crate) fn hear_certificate(
        &mut self,
        setup: &Setup,
        now_ms: u64,
        transfer: &Transfer,
        activation: &Envelope,
    ) {
        let read = |record: &Record| record.load::<Buyer>().ok().filter(|_| record.table == 5);
        let buyer = self.records.values().find_map(read).unwrap();
        let certificate = buyer.state.payment().unwrap().certificate(transfer, activation);
        let mut ctx = context!(self, setup, now_ms);
        let events = self.trades.on_certificate(&mut ctx, &mut self.registrar, &certificate);
        self.events.extend(events);
    }

    /// What it waits for next.
    pub(crate) fn next_timer(&self) -> Option<Timer> {
        self.trades.next_deadline().map(|(_, why)| why)
    }

    pub(crate) fn committed_sat(&self) -> u64 {
        self.treasury.reserved_sat()
    }

    pub(crate) fn persists(&self) -> usize {
        self.persists
    }

    pub(crate) fn idle(&self) -> bool {
        self.funded.is_empty() && self.answers.is_empty() && !self.rescan
    }

    /// A new process: only records, wallet journal and ledger are left.
    pub(crate) fn restart(&mut self, setup: &Setup, now_ms: u64) {
        self.trades = Trades::default();
        self.treasury = Treasury::default();
        self.out = Outbox::default();
        self.view = ChainView::default();
        (self.spks, self.outpoints) = (Vec::new(), Vec::new());
        (self.pending_reply, self.rescan) = (None, true);
        self.funded.clear();
        self.answers.clear();
        self.outgoing.clear();
        // Events of a handled input that was not taken to the end are lost too.
        self.events.clear();
        let fresh_spks = (120..140).map(|n| setup.spk(n + self.seed)).collect();
        self.wallet.fresh_spks = fresh_spks;
        let records: Vec<Record> = self.records.values().cloned().collect();
        self.counters = Counters::load(&records, [9; 32]).unwrap();
        let mut ctx = context!(self, setup, now_ms);
        let events = self.trades.load(&mut ctx, &mut self.registrar, &records).unwrap();
        self.events.extend(events);
        if self.is_exported {
            self.export(setup, now_ms);
        }
    }

    /// Performs effects in order. True if it crashed right after Persist number `crash_at`.
    pub(crate) fn pump(
        &mut self,
        setup: &Setup,
        chain: &mut Chain,
        crash_at: Option<usize>,
    ) -> bool {
        self.out.flush();
        while let Some(effect) = self.out.poll() {
            match effect {
                Effect::Persist { records, .. } => {
                    for record in records {
                        let key = (record.table, record.key.clone());
                        if record.value.is_none() {
                            self.records.remove(&key);
                        } else {
                            self.records.insert(key, record);
                        }
                    }
                    self.persists += 1;
                    if crash_at == Some(self.persists - 1) {
                        return true;
                    }
                }
                Effect::Send { id, key, bytes, .. } => {
                    self.outgoing.push((Some(key), Message::Request { id, bytes }));
                }
                Effect::Publish { bytes, .. } => {
                    let lock = capex_core::wire::decode_record(&bytes).unwrap();
                    self.outgoing.push((None, Message::Lock(lock)));
                }
                Effect::Unwatch { spks, outpoints } => {
                    self.spks.retain(|spk| !spks.contains(spk));
                    self.outpoints.retain(|outpoint| !outpoints.contains(outpoint));
                }
                Effect::Watch { spks, outpoints, from_height } => {
                    self.spks.extend(spks);
                    self.outpoints.extend(outpoints);
                    self.rescan |= from_height.is_some();
                }
                Effect::Broadcast { tx } => {
                    let sent = chain.broadcast(&tx);
                    let result = match self.is_silent {
                        true => Err(Unsent::NoAnswer("timeout".to_owned())),
                        false => sent.map_err(Unsent::Refused),
                    };
                    self.answers.push((tx.compute_txid(), result));
                }
                Effect::Fund { funding, outputs, feerate_sat_kvb } => {
                    self.adopt(chain);
                    self.fund(setup, funding, &outputs, feerate_sat_kvb);
                }
                Effect::Notify(_) => self.notified += 1,
                Effect::LendCoins { funding } => self.lent.push(funding),
                Effect::ReleaseCoins { funding } => {
                    self.released.push(funding);
                    self.journal.remove(&funding);
                }
                other => panic!("settlement asks for {other:?}"),
            }
        }
        if let Some((to, id, bytes)) = self.pending_reply.take() {
            self.outgoing.push((Some(to), Message::Reply { id, bytes }));
        }
        false
    }

    /// What its signer sent without bringing it back is known from the chain.
    fn adopt(&mut self, chain: &Chain) {
        let is_out = |tx: &Transaction| {
            chain.mempool.contains(tx) || chain.confirmed().any(|(_, known)| known == tx)
        };
        let sent = self.built.iter().filter(|(_, built)| is_out(&built.tx));
        let sent: Vec<_> = sent.map(|(id, built)| (*id, built.clone())).collect();
        self.journal.extend(sent);
    }

    /// Hands out what waits for its signature; again in each life.
    pub(crate) fn export(&mut self, setup: &Setup, now_ms: u64) {
        self.is_exported = true;
        for (id, mut built) in self.built.clone() {
            built.tx.input.iter_mut().for_each(|input| input.witness.clear());
            let mut ctx = context!(self, setup, now_ms);
            let events = self.trades.on_exported(&mut ctx, &mut self.registrar, id, &built);
            self.events.extend(events);
        }
    }

    /// What waited has come back signed.
    pub(crate) fn import(&mut self) {
        for (id, signed) in self.built.clone() {
            self.journal.insert(id, signed.clone());
            self.funded.push((id, Ok(signed)));
        }
    }

    /// Journals a funding before it answers; the same terms get the same funding.
    fn fund(
        &mut self,
        setup: &Setup,
        id: FundingId,
        outputs: &[(ScriptBuf, u64)],
        feerate_sat_kvb: u64,
    ) {
        self.wallet_asked.push((outputs.len(), feerate_sat_kvb));
        let short = self.is_short.then_some("wallet.insufficient_funds");
        if let Some(code) = self.wallet_refuses.or(short) {
            self.funded.push((id, Err(code.to_owned())));
            return;
        }
        let fee_sat = feerate_sat_kvb * 154 / 1000;
        if self.is_watch_only && (outputs.is_empty() || !self.journal.contains_key(&id)) {
            if !outputs.is_empty() {
                self.built.entry(id).or_insert_with(|| setup.pay(outputs, fee_sat));
            }
            self.funded.push((id, Err("wallet.unsigned".to_owned())));
            return;
        }
        let funding = if outputs.is_empty() {
            setup.pay(&[], fee_sat * 3)
        } else {
            let known = self.journal.get(&id).filter(|known| known.fee_sat >= fee_sat).cloned();
            known.unwrap_or_else(|| setup.pay(outputs, fee_sat))
        };
        if !outputs.is_empty() {
            self.journal.insert(id, funding.clone());
        }
        self.funded.push((id, Ok(funding)));
    }

    pub(crate) fn on_funded(
        &mut self,
        setup: &Setup,
        now_ms: u64,
        id: FundingId,
        result: Result<Funding, String>,
    ) {
        let mut ctx = context!(self, setup, now_ms);
        let events = self.trades.on_funded(&mut ctx, &mut self.registrar, id, result);
        self.events.extend(events);
    }

    /// Hears the answer to a broadcast; false if none waits.
    pub(crate) fn hear_broadcast(&mut self, setup: &Setup, now_ms: u64) -> bool {
        let Some((txid, result)) = self.answers.pop() else { return false };
        let mut ctx = context!(self, setup, now_ms);
        let events = self.trades.on_broadcasted(&mut ctx, &mut self.registrar, txid, &result);
        self.events.extend(events);
        true
    }

    pub(crate) fn tick(&mut self, setup: &Setup, now_ms: u64) {
        self.view.up &= self.chain_up;
        let mut ctx = context!(self, setup, now_ms);
        let events = self.trades.on_tick(&mut ctx, &mut self.registrar);
        self.events.extend(events);
        if let Some((at, why)) = self.trades.next_deadline() {
            assert!(at > now_ms, "{why:?} is due already and nothing was done");
        }
    }

    fn relevant(&self, tx: &Transaction) -> bool {
        tx.output.iter().any(|out| self.spks.contains(&out.script_pubkey))
            || tx.input.iter().any(|input| self.outpoints.contains(&input.previous_output))
    }

    pub(crate) fn tip_facts(&self, _: &Setup, chain: &Chain, disconnected: &[Txid]) -> ChainFacts {
        if self.is_silent {
            return self.blind_facts(chain);
        }
        let from = if disconnected.is_empty() { chain.height() } else { 0 };
        ChainFacts { disconnected: disconnected.to_vec(), ..self.facts_from(chain, from) }
    }

    /// The tip, and nothing of what is on the chain.
    pub(crate) fn blind_facts(&self, chain: &Chain) -> ChainFacts {
        ChainFacts {
            height: chain.height(),
            feerates: chain.feerates.clone(),
            ..ChainFacts::default()
        }
    }

    pub(crate) fn rescan_facts(&self, _: &Setup, chain: &Chain) -> ChainFacts {
        if self.is_silent {
            return self.blind_facts(chain);
        }
        self.facts_from(chain, 0)
    }

    fn facts_from(&self, chain: &Chain, from: u32) -> ChainFacts {
        let connected =
            chain.confirmed().filter(|(height, tx)| *height >= from && self.relevant(tx));
        ChainFacts {
            height: chain.height(),
            median_time_past_s: chain.median_time_past_s,
            feerates: chain.feerates.clone(),
            least_feerate_sat_kvb: 1000,
            seen: connected
                .map(|(height, tx)| (Some(height), tx))
                .chain(chain.mempool.iter().filter(|tx| self.relevant(tx)).map(|tx| (None, tx)))
                .map(|(height, tx)| Sighting { tx: KnownTx::new(tx.clone()), height })
                .collect(),
            disconnected: Vec::new(),
        }
    }

    pub(crate) fn on_chain(&mut self, setup: &Setup, now_ms: u64, facts: &ChainFacts) {
        self.view = ChainView {
            up: self.chain_up,
            height: facts.height,
            median_time_past_s: facts.median_time_past_s,
            feerates: facts.feerates.clone(),
            least_feerate_sat_kvb: facts.least_feerate_sat_kvb,
        };
        let mut ctx = context!(self, setup, now_ms);
        let events = self.trades.on_chain(&mut ctx, &mut self.registrar, facts);
        self.events.extend(events);
    }

    pub(crate) fn receive(&mut self, setup: &Setup, now_ms: u64, from: Key, message: Message) {
        let mut ctx = context!(self, setup, now_ms);
        match message {
            Message::Request { id, bytes } => {
                let request: SettleRequest = capex_core::wire::decode_record(&bytes).unwrap();
                let request = request.try_into().unwrap();
                let (reply, events) =
                    self.trades.on_request(&mut ctx, &mut self.registrar, from, request);
                self.events.extend(events);
                let reply = capex_core::wire::encode(&SettleReply::of(reply));
                self.pending_reply = Some((from, id, reply));
            }
            Message::Reply { id, bytes } => {
                let reply: SettleReply = capex_core::wire::decode_record(&bytes).unwrap();
                let Some((_, purpose)) = ctx.out.take_request(id) else { return };
                let (purpose, answer) = (purpose.try_into().unwrap(), SettleReply::told(Ok(reply)));
                let titles = &mut self.registrar;
                let events = self.trades.on_reply(&mut ctx, titles, from, purpose, answer);
                self.events.extend(events);
            }
            Message::Lock(lock) => {
                let grant = lock.verify::<LockGrant>(ctx.params.magic).unwrap();
                let events = self.trades.on_lock(&mut ctx, &mut self.registrar, &grant);
                self.events.extend(events);
            }
        }
    }

    /// What a request gets, past the network.
    pub(crate) fn answer(
        &mut self,
        setup: &Setup,
        now_ms: u64,
        peer: Key,
        request: TradeRequest,
    ) -> Result<TradeReply, &'static str> {
        let mut ctx = context!(self, setup, now_ms);
        let (reply, events) = self.trades.on_request(&mut ctx, &mut self.registrar, peer, request);
        self.events.extend(events);
        reply
    }

    /// Everything that is on its disk.
    pub(crate) fn records(&self) -> BTreeMap<(u8, Vec<u8>), Record> {
        self.records.clone()
    }

    /// An older copy of its disk, with the counters (table 1) as they are.
    pub(crate) fn restore(&mut self, mut records: BTreeMap<(u8, Vec<u8>), Record>) {
        let kept = self.records.iter().filter(|((table, _), _)| *table == 1);
        records.extend(kept.map(|(key, record)| (key.clone(), record.clone())));
        self.records = records;
    }

    /// Whether its wallet was asked for a funding, and signed it.
    pub(crate) fn has_funded(&self) -> bool {
        !self.journal.is_empty()
    }

    /// Codes for a request about an unknown trade, and one by a stranger.
    pub(crate) fn probe(&mut self, setup: &Setup, now_ms: u64, stranger: Key) -> Vec<&'static str> {
        let request = |trade_id| {
            TradeRequest::Terms(TermsRequest {
                trade_id,
                to: stranger,
                funders: Vec::new(),
                tip_height: 300,
                use_by: None,
            })
        };
        let mut ctx = context!(self, setup, now_ms);
        let mut ask = |request| {
            let register = &mut self.registrar;
            self.trades.on_request(&mut ctx, register, stranger, request).0.unwrap_err()
        };
        vec![ask(request(TradeId([9; 32]))), ask(request(setup.trade()))]
    }

    /// The contract that this buyer pays, recomputed from its terms, and its output.
    pub(crate) fn contract(&self) -> Option<(Contract, OutPoint)> {
        let setup = Setup::new();
        let view = self.trades.view(setup.trade())?;
        let fund = view.fund?;
        let read = |record: &Record| -> Option<Buyer> {
            match record.table {
                5 => record.load().ok(),
                16 => match record.load().ok()? {
                    PastTradeV1::Buyer(buyer) => Some(*buyer),
                    PastTradeV1::Seller(_) => None,
                },
                _ => None,
            }
        };
        let buyer = self.records.values().find_map(read)?;
        let agreement = buyer.state.agreement()?;
        let hash = agreement.hash();
        let contract = Contract::new(&setup.secp, agreement.terms(), hash, 0).ok()?;
        Some((contract, OutPoint { txid: fund.txid, vout: 0 }))
    }
}
