//! Brings each message, answer and command to the component that it is for: one line each.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Engine;
use super::courier::CourierRequest;
use super::holdings::{Holdings, HoldingsCommand};
use super::io::{Checked, Command, Done, Effect, Protocol, Refusal, Topic, Verdict};
use super::kernel::{KernelNews, answer, judge};
use super::leases::{LeaseCommand, Purchase};
use super::market::{Market, OrderSpec};
use super::messages::{Purpose, SettleReply, SettleRequest};
use super::register::Desk;
use super::shelf::Shelf;
use super::sync::{SyncReply, SyncRequest};
use super::trades::Trades;
use crate::certificate::Certificate;
use crate::certificate::equivocation::Statement;
use crate::certificate::objects::Consumed;
use crate::code;
use crate::ids::{CertId, Key};
use crate::lease::objects::{LeaseReply, LeaseRequest, Workload};
use crate::lease::workload;
use crate::limits::{LEASE_MAX_BYTES, SETTLE_MAX_BYTES, SYNC_MAX_BYTES};
use crate::order::Side;
use crate::units::TimeMs;
use crate::wire::{WireError, decode_record, encode};

impl Engine {
    pub(super) fn on_gossip(
        &mut self,
        now_ms: TimeMs,
        peer: Key,
        topic: Topic,
        bytes: &[u8],
        ticket: u64,
    ) {
        let mut ctx = self.kernel.context(now_ms);
        let (verdict, code) = match topic {
            Topic::Orders => match self.market.epochs.on_orders(&ctx, bytes) {
                Ok(candidates) => {
                    ctx.out.push(Effect::Verify { peer, ticket, candidates });
                    return;
                }
                Err(reason) => judge(Err(reason)),
            },
            Topic::Roots => {
                let judged = self.market.epochs.on_root(&mut ctx, peer, bytes);
                for lack in self.market.epochs.take_lacks() {
                    self.sync.ask(&mut ctx, lack);
                }
                judged
            }
            Topic::Contacts => {
                let epochs = &self.market.epochs;
                let is_trader = |key: &Key| epochs.is_trader(key) || epochs.is_resold(key);
                self.contacts.on_gossip(&mut ctx, is_trader, bytes)
            }
            Topic::Locks => {
                let heard = {
                    let is_known = known_to(&self.market, &self.holdings, &self.trades);
                    self.witness.on_statement(&mut ctx, &is_known, bytes)
                };
                if let Ok(statement) = &heard {
                    self.hear(now_ms, statement);
                }
                judge(heard.map(|_| ()))
            }
            Topic::Proofs => {
                let is_known = known_to(&self.market, &self.holdings, &self.trades);
                self.witness.on_proof_gossip(&mut ctx, &is_known, bytes)
            }
        };
        self.judge(peer, ticket, verdict, code);
    }

    pub(super) fn on_checked(&mut self, now_ms: TimeMs, peer: Key, ticket: u64, checked: Checked) {
        let ctx = self.kernel.context(now_ms);
        let (verdict, code) = self.market.epochs.on_checked(&ctx, checked);
        self.judge(peer, ticket, verdict, code);
    }

    /// Tells the network what becomes of a message, and counts what is not forwarded.
    fn judge(&mut self, peer: Key, ticket: u64, verdict: Verdict, code: Option<&'static str>) {
        if let Some(code) = code {
            self.count(code);
            if verdict == Verdict::Reject {
                self.kernel.out.notify(KernelNews::Refused { peer, code: code.to_owned() });
            }
        }
        let code = code.map(str::to_owned);
        self.kernel.out.push(Effect::Verdict { ticket, verdict, code });
    }

    /// A statement that the witness took may be the lock that a seller waits for, or one of this
    /// node.
    fn hear(&mut self, now_ms: TimeMs, statement: &Statement) {
        let mut ctx = self.kernel.context(now_ms);
        self.register.hear_own(&mut ctx, statement);
        if let Statement::Activation(activation) = statement {
            // What is on offer is moved by its sale.
            let is_sold = |spent: &Consumed| self.market.offering(&spent.cert_id).is_some();
            if !activation.consumes.iter().any(is_sold) {
                self.holdings.hear_moved(&mut ctx, activation);
            }
        }
        let Statement::Lock(grant) = statement else { return };
        let mut desk = Desk { register: &mut self.register, witness: &self.witness };
        let events = self.trades.on_lock(&mut ctx, &mut desk, grant);
        self.apply(now_ms, events);
    }

    pub(super) fn on_request(
        &mut self,
        now_ms: TimeMs,
        peer: Key,
        id: u64,
        protocol: Protocol,
        bytes: &[u8],
    ) {
        let reply = match protocol {
            Protocol::Settle => Some(self.on_settle(now_ms, peer, bytes)),
            Protocol::Sync => Some(self.on_sync(now_ms, peer, bytes)),
            Protocol::Lease => self.on_lease(now_ms, peer, id, bytes),
        };
        if let Some(bytes) = reply {
            self.kernel.out.push(Effect::Reply { id, bytes });
        }
    }

    fn on_settle(&mut self, now_ms: TimeMs, peer: Key, bytes: &[u8]) -> Vec<u8> {
        let request = match bounded(bytes, SETTLE_MAX_BYTES) {
            Ok(request) => request,
            Err(error) => return encode(&SettleReply::Refused { code: self.refuse(peer, error) }),
        };
        let mut ctx = self.kernel.context(now_ms);
        let reply = match request {
            SettleRequest::Trade(request) => {
                let mut desk = Desk { register: &mut self.register, witness: &self.witness };
                let (reply, events) = self.trades.on_request(&mut ctx, &mut desk, peer, request);
                self.apply(now_ms, events);
                SettleReply::of(reply)
            }
            SettleRequest::Register(request) => {
                let held = |id: &_| self.holdings.certificate_for(peer, id);
                SettleReply::of(self.register.on_request(&mut ctx, peer, &request, held))
            }
            SettleRequest::Courier(request) => {
                let is_trader = |key: &Key| self.market.epochs.is_trader(key);
                let (holdings, witness) = (&mut self.holdings, &mut self.witness);
                let reply = holdings.on_request(&mut ctx, witness, &is_trader, &request);
                if reply.is_ok() {
                    let CourierRequest::Push(certificate) = &request;
                    self.tell_buyer(now_ms, certificate);
                }
                SettleReply::of(reply)
            }
            SettleRequest::Pool(request) => {
                SettleReply::of(self.with_pools(now_ms, |pools, ctx, floor| {
                    pools.on_request(ctx, floor, peer, request)
                }))
            }
            SettleRequest::Witness(request) => {
                SettleReply::Witness(self.witness.on_request(peer, request))
            }
        };
        if let SettleReply::Refused { code } = &reply {
            self.count(code);
        }
        encode(&reply)
    }

    fn tell_of(&mut self, now_ms: TimeMs, here: Option<CertId>) {
        let certificate = here.and_then(|id| self.holdings.certificate(&id)).cloned();
        if let Some(certificate) = certificate {
            self.tell_buyer(now_ms, &certificate);
        }
    }

    /// A certificate that came by another way may be what a trade waits for.
    fn tell_buyer(&mut self, now_ms: TimeMs, certificate: &Certificate) {
        let mut ctx = self.kernel.context(now_ms);
        let mut desk = Desk { register: &mut self.register, witness: &self.witness };
        let events = self.trades.on_certificate(&mut ctx, &mut desk, certificate);
        if self.trades.has_refunded(certificate) {
            let mut ctx = self.kernel.context(now_ms);
            self.holdings.let_go(&mut ctx, certificate);
        }
        self.apply(now_ms, events);
    }

    fn on_sync(&mut self, now_ms: TimeMs, peer: Key, bytes: &[u8]) -> Vec<u8> {
        match bounded::<SyncRequest>(bytes, SYNC_MAX_BYTES) {
            Ok(request) => {
                let contacts = self.contacts.last_two(&peer).cloned().collect();
                encode(&self.sync.on_request(now_ms, &self.market.epochs, contacts, &request))
            }
            Err(error) => encode(&SyncReply::Refused { code: self.refuse(peer, error) }),
        }
    }

    /// `None` if the shell answers.
    fn on_lease(&mut self, now_ms: TimeMs, peer: Key, id: u64, bytes: &[u8]) -> Option<Vec<u8>> {
        let request = match bounded::<LeaseRequest>(bytes, LEASE_MAX_BYTES) {
            Ok(request) => request,
            Err(error) => {
                return Some(encode(&LeaseReply::Refused { code: self.refuse(peer, error) }));
            }
        };
        let mut ctx = self.kernel.context(now_ms);
        let reply = self.leases.on_request(&mut ctx, &mut self.register, peer, id, request)?;
        if let LeaseReply::Refused { code } = &reply {
            self.count(code);
        }
        Some(encode(&reply))
    }

    pub(super) fn on_response(&mut self, now_ms: TimeMs, id: u64, result: Result<Vec<u8>, String>) {
        let Some((peer, purpose)) = self.kernel.out.take_request(id) else { return };
        match purpose {
            Purpose::Trade(purpose) => {
                let answer = SettleReply::told(self.read_reply(peer, result, SETTLE_MAX_BYTES));
                let mut ctx = self.kernel.context(now_ms);
                let mut desk = Desk { register: &mut self.register, witness: &self.witness };
                let events = self.trades.on_reply(&mut ctx, &mut desk, peer, purpose, answer);
                self.apply(now_ms, events);
            }
            Purpose::Register(purpose) => {
                let reply = self.read_reply(peer, result, SETTLE_MAX_BYTES);
                self.register.on_reply(&mut self.kernel.context(now_ms), peer, purpose, reply);
            }
            Purpose::Holdings(purpose) => {
                let reply = self.read_reply(peer, result, SETTLE_MAX_BYTES);
                let mut ctx = self.kernel.context(now_ms);
                let is_trader = |key: &Key| self.market.epochs.is_trader(key);
                let (holdings, witness) = (&mut self.holdings, &mut self.witness);
                let here = holdings.on_reply(&mut ctx, witness, &is_trader, peer, purpose, reply);
                self.tell_of(now_ms, here);
                self.follow_certificates(now_ms);
            }
            Purpose::Lease(purpose) => {
                let reply = self.read_reply(peer, result, LEASE_MAX_BYTES);
                let mut ctx = self.kernel.context(now_ms);
                self.leases.on_reply(&mut ctx, &mut self.holdings, purpose, reply);
            }
            Purpose::Pool(purpose) => {
                let answer = SettleReply::told(self.read_reply(peer, result, SETTLE_MAX_BYTES));
                self.with_pools(now_ms, |pools, ctx, floor| {
                    pools.on_reply(ctx, floor, peer, purpose, answer);
                });
            }
            Purpose::Sync(purpose) => {
                if let Ok(reply) = self.read_reply(peer, result, SYNC_MAX_BYTES) {
                    let mut ctx = self.kernel.context(now_ms);
                    if let SyncReply::Clock { contacts, .. } = &reply {
                        self.contacts.on_told(&mut ctx, contacts);
                    }
                    self.sync.on_reply(&mut ctx, &mut self.market.epochs, peer, purpose, reply);
                    self.judge_clock(now_ms);
                }
            }
        }
    }

    pub(super) fn on_command(&mut self, now_ms: TimeMs, id: u64, command: Command) {
        let ctx = &mut self.kernel.context(now_ms);
        match command {
            Command::Market(command) => {
                let me = ctx.me();
                let shelf = Shelf { me, register: &self.register, holdings: &self.holdings };
                self.market.on_command(ctx, &shelf, id, command);
                self.share_room(now_ms);
            }
            Command::Register(command) => {
                self.register.on_command(ctx, id, &command);
                self.share_room(now_ms);
            }
            Command::Holdings(command) => self.on_holdings(now_ms, id, command),
            Command::Lease(
                LeaseCommand::Redeem { cert, .. } | LeaseCommand::Extend { cert, .. },
            ) if self.market.offering(&cert).is_some() => {
                answer(ctx, Some(id), Err(code!("redeem.on_offer")));
            }
            Command::Lease(command) => {
                self.leases.on_command(ctx, &self.holdings, id, command);
                self.register.close(self.leases.closed_slots(ctx.params));
            }
            Command::Contacts(command) => self.contacts.on_command(ctx, id, command),
            Command::Buy { spec, workload } => self.buy(now_ms, id, *spec, *workload),
            Command::Pool(command) => self.with_pools(now_ms, |pools, ctx, floor| {
                pools.on_command(ctx, floor, id, command);
            }),
        }
    }

    /// Places a bid, and keeps its workload with it.
    fn buy(&mut self, now_ms: TimeMs, id: u64, spec: OrderSpec, workload: Workload) {
        let ctx = &mut self.kernel.context(now_ms);
        let me = ctx.me();
        let classes: Vec<u16> = spec.alts.iter().map(|alt| alt.class).collect();
        let purchase = Purchase {
            is_bid: spec.side == Side::Buy,
            beneficiary: spec.beneficiary,
            classes: &classes,
            qty: spec.qty,
        };
        let shelf = Shelf { me, register: &self.register, holdings: &self.holdings };
        let fits = self.leases.check_attached(ctx.params, me, purchase, &workload);
        let placed = fits.map_err(Refusal::of_code);
        let placed = placed.and_then(|()| self.market.place(ctx, &shelf, spec));
        match &placed {
            Ok(order) => self.leases.attach(ctx, *order, workload),
            Err(_) => self.leases.discard_content(ctx, workload::digest(&workload)),
        }
        ctx.out.push(Effect::CommandDone { id, result: placed.map(Done::Placed) });
    }

    fn on_holdings(&mut self, now_ms: TimeMs, id: u64, command: HoldingsCommand) {
        let me = self.me();
        let mut ctx = self.kernel.context(now_ms);
        let known: &dyn Fn(&Key) -> bool =
            &|key| self.market.epochs.is_trader(key) || self.trades.has_provider(key) || *key == me;
        let (holdings, witness) = (&mut self.holdings, &mut self.witness);
        let is_on_offer = |cert: &CertId| self.market.offering(cert).is_some();
        let here = holdings.on_command(&mut ctx, witness, known, &is_on_offer, id, command);
        self.tell_of(now_ms, here);
    }

    fn refuse(&mut self, peer: Key, error: WireError) -> String {
        self.count(error.code());
        self.kernel.out.notify(KernelNews::Refused { peer, code: error.code().to_owned() });
        if error.is_blamable() {
            self.kernel.out.push(Effect::Penalise { key: peer });
        }
        error.code().to_owned()
    }

    /// Counts a refusal by its code.
    pub(super) fn count(&mut self, code: &str) {
        *self.refused.entry(code.to_owned()).or_default() += 1;
    }

    /// Reads an answer of a peer, which is to blame for one that is none.
    fn read_reply<T: Serialize + DeserializeOwned>(
        &mut self,
        peer: Key,
        result: Result<Vec<u8>, String>,
        limit: usize,
    ) -> Result<T, String> {
        bounded(&result?, limit).map_err(|error| self.refuse(peer, error))
    }
}

/// Whether a key trades, or is the provider of something that others resell, or that this node has
/// or buys: whose
/// statements are worth room here.
pub(super) fn known_to<'a>(
    market: &'a Market,
    holdings: &'a Holdings,
    trades: &'a Trades,
) -> impl Fn(&Key) -> bool + 'a {
    move |key| {
        market.epochs.is_trader(key)
            || market.epochs.is_resold(key)
            || trades.has_provider(key)
            || holdings.has_provider(key)
    }
}

fn bounded<T: Serialize + DeserializeOwned>(bytes: &[u8], limit: usize) -> Result<T, WireError> {
    if bytes.len() > limit {
        return Err(WireError::Oversize);
    }
    decode_record(bytes)
}
