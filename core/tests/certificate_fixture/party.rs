//! Nodes with certificates and leases alone, joined by a pipe in memory.

use std::collections::BTreeMap;

use bitcoin::secp256k1::{All, Secp256k1};
use capex_core::certificate::equivocation::Statement;
use capex_core::certificate::{Certificate, Claim, Hop};
use capex_core::engine::certificates::CertificateView;
use capex_core::engine::holdings::{Holdings, HoldingsCommand};
use capex_core::engine::io::{Done, Effect, Protocol, Topic, Verdict};
use capex_core::engine::kernel::{
    ChainView, Conduct, Context, Counters, Keys, Outbox, Record, Treasury, WalletView,
};
use capex_core::engine::leases::{LeaseEffect, LeaseView, Leases};
use capex_core::engine::messages::{Purpose, SettleReply, SettleRequest};
use capex_core::engine::register::Register;
use capex_core::engine::trades::Fresh;
use capex_core::engine::witness::Witness;
use capex_core::ids::{CertId, Key, LeaseId, TermsHash, TradeId};
use capex_core::lease::ExecutorEvent;
use capex_core::lease::objects::{LeaseReply, LeaseRequest, LeaseStatus};
use capex_core::params::Params;
use capex_core::reasons::{Blame, Reason};
use capex_core::settlement::objects::Terms;
use capex_core::units::{Units, Window};
use capex_core::wire::{self, Verified, sha256};

use super::files::{HeldFiles, Host};
use super::*;

/// Start of the tests: the windows of slots 1000 and later lie ahead.
pub const START_MS: u64 = 1000 * 4000 - 60_000;
pub const WINDOW: Window = Window { start: 1000, end: 1004 };

/// The components that are about certificates, and their part of the router.
#[derive(Debug, Default)]
pub struct Books {
    pub register: Register,
    pub holdings: Holdings,
    pub witness: Witness,
}

impl Books {
    fn load(&mut self, ctx: &mut Context<'_>, records: &[Record]) {
        self.register.load(ctx, records).unwrap();
        self.witness.load(ctx, records).unwrap();
        self.holdings.load(ctx, &mut self.witness, &|_| true, records).unwrap();
    }

    pub fn certificate(&self, id: &CertId) -> Option<&Certificate> {
        self.holdings.certificate(id).or_else(|| self.register.certificate(id))
    }

    pub fn acquire(
        &mut self,
        ctx: &mut Context<'_>,
        certificate: Certificate,
    ) -> Result<CertId, &'static str> {
        self.holdings.acquire(ctx, &mut self.witness, certificate)
    }

    pub fn on_gossip(
        &mut self,
        ctx: &mut Context<'_>,
        topic: Topic,
        bytes: &[u8],
    ) -> (Verdict, Option<&'static str>) {
        match topic {
            Topic::Locks => {
                let heard = self.witness.on_statement(ctx, &|_| true, bytes);
                if let Ok(statement) = &heard {
                    self.register.hear_own(ctx, statement);
                    if let Statement::Activation(activation) = statement {
                        self.holdings.hear_moved(ctx, activation);
                    }
                }
                verdict(heard.map(|_| ()))
            }
            Topic::Proofs => self.witness.on_proof_gossip(ctx, &|_| true, bytes),
            other => panic!("no {other:?} here"),
        }
    }

    pub fn on_request(
        &mut self,
        ctx: &mut Context<'_>,
        peer: Key,
        request: &SettleRequest,
    ) -> SettleReply {
        match request {
            SettleRequest::Register(request) => {
                let held = |id: &CertId| self.holdings.certificate_for(peer, id);
                SettleReply::of(self.register.on_request(ctx, peer, request, held))
            }
            SettleRequest::Courier(request) => {
                let reply = self.holdings.on_request(ctx, &mut self.witness, &|_| true, request);
                SettleReply::of(reply)
            }
            SettleRequest::Witness(request) => {
                SettleReply::Witness(self.witness.on_request(peer, *request))
            }
            other @ (SettleRequest::Trade(_) | SettleRequest::Pool(_)) => {
                panic!("no {other:?} here")
            }
        }
    }

    fn on_reply(
        &mut self,
        ctx: &mut Context<'_>,
        peer: Key,
        purpose: Purpose,
        reply: Result<SettleReply, String>,
    ) {
        match purpose {
            Purpose::Register(purpose) => {
                self.register.on_reply(ctx, peer, purpose, reply);
            }
            Purpose::Holdings(purpose) => {
                self.holdings.on_reply(ctx, &mut self.witness, &|_| true, peer, purpose, reply);
            }
            other => panic!("no {other:?} here"),
        }
    }

    pub fn next_deadline(&self, params: &Params) -> Option<u64> {
        let deadlines = [self.register.next_deadline(params), self.holdings.next_deadline()];
        deadlines.into_iter().flatten().min()
    }

    pub fn views(&self, me: Key, slot: u32) -> Vec<CertificateView> {
        self.register.views(slot).chain(self.holdings.views(me, slot)).collect()
    }
}

pub struct Party {
    pub number: u8,
    pub params: Params,
    pub now_ms: u64,
    pub up: bool,
    /// Answers that get lost on their way.
    pub loses: fn(&[u8]) -> bool,
    keys: Keys,
    secp: Secp256k1<All>,
    pub(crate) chain: ChainView,
    wallet: WalletView,
    counters: Counters,
    out: Outbox,
    pub books: Books,
    pub leases: Leases,
    pub disk: BTreeMap<(u8, Vec<u8>), Vec<u8>>,
    /// Effects for the shell, oldest first.
    pub log: Vec<Effect>,
    /// Its disk for leases held elsewhere; without one nothing is followed.
    pub files: Option<HeldFiles>,
    /// What runs on it.
    pub host: Host,
}

impl Party {
    pub fn new(number: u8, params: &Params) -> Self {
        Self {
            number,
            params: params.clone(),
            now_ms: START_MS,
            up: true,
            loses: |_| false,
            keys: Keys::new(secret(number), [number; 32]),
            secp: Secp256k1::new(),
            chain: ChainView { up: true, height: 103, ..ChainView::default() },
            wallet: WalletView::default(),
            counters: Counters::default(),
            out: Outbox::default(),
            books: Books::default(),
            leases: Leases::default(),
            disk: BTreeMap::new(),
            log: Vec::new(),
            files: None,
            host: Host::default(),
        }
    }

    pub fn views(&self) -> Vec<LeaseView> {
        self.leases.views(public(self.number), self.now_ms)
    }

    /// What its provider tells of a lease.
    pub fn status(&self, lease: &LeaseId) -> LeaseStatus {
        self.leases.status(self.now_ms, lease).unwrap()
    }

    pub fn with<R>(
        &mut self,
        act: impl FnOnce(&mut Context<'_>, &mut Books, &mut Leases) -> R,
    ) -> R {
        let mut ctx = Context {
            now_ms: self.now_ms,
            params: &self.params,
            keys: &self.keys,
            secp: &self.secp,
            chain: &self.chain,
            wallet: &mut self.wallet,
            treasury: &mut Treasury::default(),
            conduct: &mut Conduct::default(),
            counters: &mut self.counters,
            out: &mut self.out,
        };
        let result = act(&mut ctx, &mut self.books, &mut self.leases);
        ctx.out.flush();
        result
    }

    pub fn records(&self) -> Vec<Record> {
        let record = |((table, key), value): (&(u8, Vec<u8>), &Vec<u8>)| Record {
            table: *table,
            key: key.clone(),
            value: Some(value.clone()),
        };
        self.disk.iter().map(record).collect()
    }

    /// What is to be done now; records are on disk then.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        let mut effects = Vec::new();
        while let Some(effect) = self.out.poll() {
            if let Effect::Persist { records, .. } = effect {
                for record in records {
                    let key = (record.table, record.key);
                    match record.value {
                        Some(value) => self.disk.insert(key, value),
                        None => self.disk.remove(&key),
                    };
                }
            } else {
                effects.push(effect);
            }
        }
        effects
    }

    /// Requests of `settle/1` that are to be sent now, and to whom; other effects are dropped.
    pub fn take_asked(&mut self) -> Vec<(Key, SettleRequest)> {
        let asked = self.take_effects().into_iter().filter_map(|effect| match effect {
            Effect::Send { key, protocol: Protocol::Settle, bytes, .. } => {
                Some((key, wire::decode_record(&bytes).unwrap()))
            }
            _ => None,
        });
        asked.collect()
    }

    /// Serves the request that the engine has just allowed.
    fn serve(&mut self) -> LeaseReply {
        let effects = self.take_effects();
        let (served, others): (Vec<_>, Vec<_>) = effects
            .into_iter()
            .partition(|effect| matches!(effect, Effect::Lease(LeaseEffect::Serve { .. })));
        others.into_iter().for_each(|effect| self.out.push(effect));
        let [Effect::Lease(LeaseEffect::Serve { id: 0, lease, what })] = &served[..] else {
            panic!("{served:?}")
        };
        let (reply, fetched, is_complete) = self.host.serve(what);
        if let Some(name) = fetched {
            self.executor(*lease, ExecutorEvent::Fetched { name });
        }
        if is_complete {
            self.executor(*lease, ExecutorEvent::Complete);
        }
        reply
    }

    /// Does what an operator asks of the holdings, where providers that nothing here is of are
    /// known or not.
    pub fn command(&mut self, id: u64, command: HoldingsCommand, is_known: bool) -> Option<CertId> {
        self.with(|ctx, books, _| {
            let (holdings, witness) = (&mut books.holdings, &mut books.witness);
            holdings.on_command(ctx, witness, &|_| is_known, &|_| false, id, command)
        })
    }

    /// Answers of commands so far.
    pub fn done(&self) -> Vec<(u64, Result<Done, String>)> {
        let done = self.log.iter().filter_map(|effect| match effect {
            Effect::CommandDone { id, result } => Some((*id, result.clone().map_err(|r| r.code))),
            _ => None,
        });
        done.collect()
    }

    pub fn executor(&mut self, lease: LeaseId, event: ExecutorEvent) {
        self.with(|ctx, _, leases| leases.on_executor(ctx, lease, event));
    }
}

/// A provider (1) and further parties.
pub struct Net {
    pub parties: Vec<Party>,
}

impl Net {
    pub fn new(numbers: &[u8]) -> Self {
        let params = devnet();
        Self { parties: numbers.iter().map(|number| Party::new(*number, &params)).collect() }
    }

    pub fn party(&mut self, number: u8) -> &mut Party {
        self.parties.iter_mut().find(|party| party.number == number).unwrap()
    }

    fn by_key(&mut self, key: Key) -> Option<&mut Party> {
        self.parties.iter_mut().find(|party| public(party.number) == key)
    }

    /// Moves everything that is on its way, to the end.
    pub fn pump(&mut self) {
        for _ in 0..1000 {
            let mut moved = false;
            for index in 0..self.parties.len() {
                let from = self.parties[index].number;
                for effect in self.parties[index].take_effects() {
                    moved = true;
                    self.perform(from, effect);
                }
            }
            if !moved {
                return;
            }
        }
        panic!("the pipe never runs dry");
    }

    fn perform(&mut self, from: u8, effect: Effect) {
        match effect {
            Effect::Send { id, key, protocol, bytes } => {
                let up = self.by_key(key).is_some_and(|party| party.up);
                let answer = up.then(|| self.ask(key, public(from), protocol, &bytes));
                let loses = self.by_key(key).map(|party| party.loses);
                let arrives = |bytes: &Vec<u8>| loses.is_none_or(|loses| !loses(bytes));
                let answer = answer.filter(arrives).ok_or("down".to_owned());
                self.answer(from, id, protocol, answer);
            }
            Effect::Publish { topic, bytes } => {
                for party in
                    self.parties.iter_mut().filter(|party| party.number != from && party.up)
                {
                    let (verdict, code) =
                        party.with(|ctx, books, _| books.on_gossip(ctx, topic, &bytes));
                    assert_ne!(verdict, Verdict::Reject, "{code:?}");
                }
                self.party(from).log.push(Effect::Publish { topic, bytes });
            }
            Effect::Lease(effect) => {
                let party = self.party(from);
                let answer = match (&effect, &mut party.files) {
                    (LeaseEffect::Held(job), Some(files)) => files.perform(job),
                    _ => None,
                };
                if let Some((lease, event)) = answer {
                    party.with(|ctx, _, leases| leases.on_held(ctx, lease, event));
                }
                party.log.push(Effect::Lease(effect));
            }
            other => self.party(from).log.push(other),
        }
    }

    pub fn ask(&mut self, to: Key, peer: Key, protocol: Protocol, bytes: &[u8]) -> Vec<u8> {
        let party = self.by_key(to).unwrap();
        let reply = party.with(|ctx, books, leases| match protocol {
            Protocol::Settle => {
                let request: SettleRequest = wire::decode_record(bytes).unwrap();
                Some(wire::encode(&books.on_request(ctx, peer, &request)))
            }
            Protocol::Lease => {
                let request: LeaseRequest = wire::decode_record(bytes).unwrap();
                let reply = leases.on_request(ctx, &mut books.register, peer, 0, request);
                reply.map(|reply| wire::encode(&reply))
            }
            Protocol::Sync => panic!("no sync here"),
        });
        reply.unwrap_or_else(|| wire::encode(&party.serve()))
    }

    pub fn answer(&mut self, to: u8, id: u64, protocol: Protocol, answer: Result<Vec<u8>, String>) {
        self.party(to).with(|ctx, books, leases| {
            let (peer, purpose) = ctx.out.take_request(id).unwrap();
            match protocol {
                Protocol::Settle => {
                    let reply =
                        answer.map(|bytes| wire::decode_record::<SettleReply>(&bytes).unwrap());
                    books.on_reply(ctx, peer, purpose, reply);
                }
                _ => {
                    let Purpose::Lease(purpose) = purpose else { panic!("{purpose:?}") };
                    let reply =
                        answer.map(|bytes| wire::decode_record::<LeaseReply>(&bytes).unwrap());
                    leases.on_reply(ctx, &mut books.holdings, purpose, reply);
                }
            }
        });
    }

    pub fn settle(&mut self, to: u8, peer: u8, request: impl Into<SettleRequest>) -> SettleReply {
        let bytes = wire::encode(&request.into());
        let bytes = self.ask(public(to), public(peer), Protocol::Settle, &bytes);
        wire::decode_record(&bytes).unwrap()
    }

    pub fn lease(&mut self, to: u8, peer: u8, request: &LeaseRequest) -> LeaseReply {
        let bytes = self.ask(public(to), public(peer), Protocol::Lease, &wire::encode(request));
        wire::decode_record(&bytes).unwrap()
    }

    /// Lets time pass for all, with a tick at its end.
    pub fn pass(&mut self, ms: u64) {
        for party in &mut self.parties {
            party.now_ms += ms;
            party.with(|ctx, books, leases| {
                books.register.on_tick(ctx);
                books.holdings.on_tick(ctx);
                leases.on_tick(ctx);
            });
        }
        self.pump();
    }

    pub fn until(&mut self, at_ms: u64) {
        let now_ms = self.parties[0].now_ms;
        assert!(now_ms <= at_ms);
        self.pass(at_ms - now_ms);
    }

    /// A new life of a party from what is on its disk.
    pub fn restart(&mut self, number: u8) {
        self.pump();
        let old = self.party(number);
        let mut new = Party::new(number, &old.params);
        new.now_ms = old.now_ms;
        new.disk = old.disk.clone();
        new.files = old.files.take();
        new.host = std::mem::take(&mut old.host);
        let records = new.records();
        new.counters = Counters::load(&records, [9; 32]).unwrap();
        new.with(|ctx, books, leases| {
            books.load(ctx, &records);
            leases.load(ctx, &records).unwrap();
        });
        *self.party(number) = new;
        self.pump();
    }

    /// Terms of a first sale by the provider (1), its certificate issued.
    pub fn offer(&mut self, trade: u8, units: &Units, to: u8) -> Verified<Terms> {
        self.offer_of(trade, units, (1, WINDOW), to)
    }

    /// As `offer`, of a class and in a window.
    pub fn offer_of(
        &mut self,
        trade: u8,
        units: &Units,
        (class, window): (u16, Window),
        to: u8,
    ) -> Verified<Terms> {
        let provider = self.party(1);
        let trade_id = TradeId([trade; 32]);
        let issue = provider.with(|ctx, books, _| {
            if books.register.ledger.capacity(class) == 0 {
                books.register.set_capacity(ctx, &[(1, 64), (2, 64)]).unwrap();
            }
            books.register.ledger.claim(Claim::Row(trade_id), class, units, window).unwrap();
            books.register.issue(ctx, trade_id, &fresh(class, units, window)).unwrap()
        });
        let mut terms = terms(&issue, 0, issue.id(), public(1), public(to));
        terms.trade_id = trade_id;
        by(1, terms, &devnet())
    }

    pub fn activate(&mut self, terms: &Verified<Terms>) -> Certificate {
        let provider = self.party(1);
        provider.with(|ctx, books, _| {
            books.register.activate_sale(ctx, terms, &transfer(terms)).unwrap();
            books.certificate(&terms.cert_id).unwrap().clone()
        })
    }

    /// A whole first sale from the provider (1).
    pub fn sell(&mut self, trade: u8, units: &Units, to: u8) -> CertId {
        self.sell_of(trade, units, (1, WINDOW), to)
    }

    /// As `sell`, of a class and in a window.
    pub fn sell_of(&mut self, trade: u8, units: &Units, what: (u16, Window), to: u8) -> CertId {
        let terms = self.offer_of(trade, units, what, to);
        let accepts = [accept(to, &terms, &devnet())];
        self.party(1).with(|ctx, books, _| books.register.lock(ctx, &terms, &accepts).unwrap());
        let certificate = self.activate(&terms);
        let id = self.party(to).with(|ctx, books, _| books.acquire(ctx, certificate).unwrap());
        self.pump();
        id
    }

    pub fn give(&mut self, from: u8, command: u64, cert: CertId, to: u8) {
        let gift = HoldingsCommand::Gift { cert, to: public(to) };
        self.party(from).command(command, gift, false);
        self.pump();
    }

    pub fn state(&mut self, number: u8, cert: CertId) -> (&'static str, u32, Key) {
        let party = self.party(number);
        let me = public(number);
        let slot = party.params.slot_at(party.now_ms);
        let views = party.books.views(me, slot);
        let view = views.iter().rev().find(|view| view.facts.cert_id == cert).unwrap();
        (view.state, view.facts.seq, view.facts.holder)
    }
}

fn verdict(taken: Result<(), Reason>) -> (Verdict, Option<&'static str>) {
    let Err(reason) = taken else { return (Verdict::Accept, None) };
    let verdict = match reason.blame() {
        Blame::Peer => Verdict::Reject,
        Blame::Nobody | Blame::Local => Verdict::Ignore,
    };
    (verdict, Some(reason.code()))
}

pub fn evidence(n: u8) -> [u8; 32] {
    sha256(&[&[n]])
}

pub fn terms_hash(terms: &Verified<Terms>) -> TermsHash {
    TermsHash(terms.id())
}

pub fn is_published(effects: &[Effect], topic: Topic) -> usize {
    effects.iter().filter(|e| matches!(e, Effect::Publish { topic: t, .. } if *t == topic)).count()
}

pub fn hops(certificate: &Certificate) -> (usize, usize) {
    let sales = certificate.hops.iter().filter(|hop| matches!(hop, Hop::Sale { .. })).count();
    (sales, certificate.hops.len() - sales)
}

/// A whole window of units to be issued.
pub fn fresh(class: u16, units: &Units, window: Window) -> Fresh {
    let not_after_slot = window.end.saturating_sub(1);
    Fresh { class, features: 0, units: units.clone(), window, not_after_slot, recall: None }
}
