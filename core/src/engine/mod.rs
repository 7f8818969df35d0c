//! The engine: composes the domain behind one `handle`.
//!
//! It never fails and never waits: bad input becomes a verdict or a refusal, consequences become
//! effects, and so does work that takes long. It owns its signing keys and draws no randomness.
//! Every input may arrive twice.

pub mod certificates;
pub mod contacts;
pub mod courier;
pub mod holdings;
pub mod io;
pub mod kernel;
pub mod leases;
pub mod market;
pub mod messages;
pub mod pools;
mod queries;
pub mod register;
mod router;
mod shelf;
pub mod stored;
pub mod sync;
pub mod trades;
pub mod witness;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use self::contacts::Contacts;
use self::holdings::{Holdings, Part};
use self::kernel::{ClockCheck, Counters, Kernel};
use self::leases::{Leases, Place};
use self::market::{Circumstances, ComputeError, Computed, Frozen, Market, Matched, Stock};
use self::pools::{Floor, Pools};
use self::register::{Desk, Register};
use self::shelf::{Shelf, ShelfMut};
use self::sync::Sync;
use self::trades::{BuyLimits, Purchase, TradeEvent, Trades, WaitingPart};
use self::witness::Witness;
use crate::code;
use crate::ids::{CertId, Key, StandingId, TradeId};
use crate::params::Params;
use crate::settlement::facts::ChainFacts;
use crate::settlement::fees;
use crate::settlement::seller::Goods;
use crate::units::TimeMs;

pub use io::{
    Checked, Command, Done, Effect, Event, Input, Protocol, Refusal, Topic, Unchecked, Verdict,
};
pub use kernel::{
    ChainView, Context, Keys, Outbox, Record, Table, Timer, Unreadable, WalletView, remote_code,
};
pub use messages::Purpose;

/// One node's whole protocol state.
#[derive(Debug)]
pub struct Engine {
    kernel: Kernel,
    market: Market,
    trades: Trades,
    register: Register,
    holdings: Holdings,
    witness: Witness,
    leases: Leases,
    pools: Pools,
    contacts: Contacts,
    sync: Sync,
    peers: BTreeSet<Key>,
    refused: BTreeMap<String, u64>,
    /// A record could not be read: nothing is done any more.
    is_halted: bool,
}

impl Engine {
    /// An engine that has seen nothing yet; its first input is `Started`.
    #[must_use]
    pub fn new(params: Params, keys: Keys) -> Self {
        Self {
            kernel: Kernel::new(params, keys),
            market: Market::default(),
            trades: Trades::default(),
            register: Register::default(),
            holdings: Holdings::default(),
            witness: Witness::default(),
            leases: Leases::default(),
            pools: Pools::default(),
            contacts: Contacts::default(),
            sync: Sync::default(),
            peers: BTreeSet::new(),
            refused: BTreeMap::new(),
            is_halted: false,
        }
    }

    /// Applies one input. Never waits, never fails. After an [`Effect::Halt`] it does nothing.
    pub fn handle(&mut self, now_ms: TimeMs, input: Input) {
        if self.is_halted {
            return;
        }
        match input {
            Input::Started { records, salt } => self.start(now_ms, &records, salt),
            Input::Tick => self.tick(now_ms),
            Input::Gossip { peer, topic, bytes, ticket } => {
                self.on_gossip(now_ms, peer, topic, &bytes, ticket);
            }
            Input::Request { peer, id, protocol, bytes } => {
                self.on_request(now_ms, peer, id, protocol, &bytes);
            }
            Input::Response { id, result } => self.on_response(now_ms, id, result),
            Input::Peer { key, up } => {
                self.on_peer(now_ms, key, up);
            }
            Input::Chain(facts) => self.on_chain(now_ms, &facts),
            Input::ChainSource { up } => self.kernel.chain.up = up,
            Input::Wallet(facts) => {
                self.kernel.treasury.set_spendable(facts.spendable_sat);
                self.kernel.wallet.fresh_spks.extend(facts.fresh_spks);
                self.kernel.wallet.pay_out_to(facts.payout);
            }
            Input::Funded { funding, result } => {
                let mut ctx = self.kernel.context(now_ms);
                let mut desk = Desk { register: &mut self.register, witness: &self.witness };
                let events = self.trades.on_funded(&mut ctx, &mut desk, funding, result);
                self.apply(now_ms, events);
            }
            Input::Contributed { funding, result } => {
                let mut ctx = self.kernel.context(now_ms);
                let mut desk = Desk { register: &mut self.register, witness: &self.witness };
                let events = self.trades.on_contributed(&mut ctx, &mut desk, funding, &result);
                self.apply(now_ms, events);
            }
            Input::Exported { funding, built } => {
                let mut ctx = self.kernel.context(now_ms);
                let mut desk = Desk { register: &mut self.register, witness: &self.witness };
                let events = self.trades.on_exported(&mut ctx, &mut desk, funding, &built);
                self.apply(now_ms, events);
            }
            Input::Broadcasted { txid, result } => {
                let mut ctx = self.kernel.context(now_ms);
                let mut desk = Desk { register: &mut self.register, witness: &self.witness };
                let events = self.trades.on_broadcasted(&mut ctx, &mut desk, txid, &result);
                self.apply(now_ms, events);
            }
            Input::Frozen { job, frozen } => self.on_frozen(now_ms, job, frozen),
            Input::Matched { job, result } => self.on_matched(now_ms, job, result),
            Input::Mined { job, nonce } => {
                self.market.on_mined(&mut self.kernel.context(now_ms), job, nonce);
            }
            Input::Checked { peer, ticket, checked } => {
                self.on_checked(now_ms, peer, ticket, checked);
            }
            Input::Persisted { .. } => {}
            Input::Executor { lease, event } => {
                let mut ctx = self.kernel.context(now_ms);
                self.leases.on_executor(&mut ctx, lease, event);
            }
            Input::Held { lease, event } => {
                self.leases.on_held(&mut self.kernel.context(now_ms), lease, event);
            }
            Input::Command { id, command } => self.on_command(now_ms, id, command),
        }
        self.kernel.out.flush();
    }

    /// Next effect to perform. Poll until `None` after every [`Engine::handle`].
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.kernel.out.poll()
    }

    /// When [`Input::Tick`] is due, and why. May change after any `handle`.
    #[must_use]
    pub fn poll_timeout(&self, now_ms: TimeMs) -> (TimeMs, Timer) {
        let kernel = &self.kernel;
        let market = self.market.next_deadline(now_ms, &kernel.params, self.me(), kernel.chain.up);
        [
            self.trades.next_deadline(),
            self.register.next_deadline(&self.kernel.params).map(|at| (at, Timer::Register)),
            self.holdings.next_deadline().map(|at| (at, Timer::Holdings)),
            self.leases.next_deadline(&self.kernel.params).map(|at| (at, Timer::Leases)),
            self.pools.next_deadline().map(|at| (at, Timer::Pools)),
            self.contacts.next_deadline(),
            self.sync.next_deadline().map(|at| (at, Timer::Clocks)),
        ]
        .into_iter()
        .flatten()
        .fold(market, |first, other| if other.0 < first.0 { other } else { first })
    }

    fn on_peer(&mut self, now_ms: TimeMs, peer: Key, up: bool) {
        let mut ctx = self.kernel.context(now_ms);
        self.sync.on_peer(&mut ctx, peer, up);
        if up {
            self.peers.insert(peer);
            self.contacts.on_peer_up();
            self.register.on_peer_up(&mut ctx, peer);
            self.register.ask_witnesses(&mut ctx, [peer].into_iter());
            let is_trader = |key: &Key| self.market.epochs.is_trader(key);
            self.holdings.on_peer_up(&mut ctx, peer, &is_trader);
        } else {
            self.peers.remove(&peer);
        }
        self.judge_clock(now_ms);
    }

    fn judge_clock(&mut self, now_ms: TimeMs) {
        let mut ctx = self.kernel.context(now_ms);
        let clock = ClockCheck::new(now_ms, self.sync.clock_offset(), ctx.chain, ctx.params);
        self.market.on_clock(&mut ctx, clock);
        self.leases.on_clock(clock);
    }

    fn start(&mut self, now_ms: TimeMs, records: &[Record], salt: [u8; 32]) {
        if let Err(fault) = self.load(now_ms, records, salt) {
            self.is_halted = true;
            self.kernel.out.halt(fault.into());
            self.kernel.out.flush();
        }
    }

    fn load(
        &mut self,
        now_ms: TimeMs,
        records: &[Record],
        salt: [u8; 32],
    ) -> Result<(), Unreadable> {
        kernel::check_tables(records)?;
        self.kernel.counters = Counters::load(records, salt)?;
        let mut ctx = self.kernel.context(now_ms);
        ctx.conduct.load(records)?;
        self.contacts.begin(&ctx);
        self.market.load(&mut ctx, records)?;
        self.register.load(&mut ctx, records)?;
        self.witness.load(&mut ctx, records)?;
        let is_trader = |key: &Key| self.market.epochs.is_trader(key);
        self.holdings.load(&mut ctx, &mut self.witness, &is_trader, records)?;
        let mut desk = Desk { register: &mut self.register, witness: &self.witness };
        let events = self.trades.load(&mut ctx, &mut desk, records)?;
        self.pools.load(&mut ctx, records)?;
        let indices = self.trades.key_indices().chain(self.pools.key_indices());
        ctx.counters.keep_salts(ctx.out, indices)?;
        for (trade, row, units) in self.trades.open_sells() {
            // Refused where the certificate was issued already: then it has the claim.
            let _ = self.register.reserve(trade, row, units);
        }
        self.leases.load(&mut ctx, records)?;
        self.register.close(self.leases.closed_slots(ctx.params));
        self.market.forget_unopened(&mut ctx, |trade| self.trades.knows(trade));
        self.apply(now_ms, events);
        self.follow_certificates(now_ms);
        Ok(())
    }

    fn on_frozen(&mut self, now_ms: TimeMs, job: u64, frozen: Result<Frozen, ComputeError>) {
        let mut ctx = self.kernel.context(now_ms);
        if self.market.on_frozen(&mut ctx, job, frozen) {
            self.market.advance(&mut self.kernel.context(now_ms));
            self.tick(now_ms);
        }
    }

    fn on_matched(
        &mut self,
        now_ms: TimeMs,
        job: u64,
        result: Result<Arc<Computed>, ComputeError>,
    ) {
        let mut ctx = self.kernel.context(now_ms);
        let me = ctx.me();
        let mut shelf = ShelfMut { me, register: &mut self.register, holdings: &self.holdings };
        let matched = self.market.on_matched(&mut ctx, &mut shelf, job, result);
        let Some(matched) = matched else { return };
        for row in matched {
            self.open(now_ms, row);
        }
        self.follow_certificates(now_ms);
        self.market.advance(&mut self.kernel.context(now_ms));
        // What was held back until this epoch is computed.
        self.tick(now_ms);
    }

    /// Where classes share the room of this host, what one of them offers is not there for the
    /// others.
    fn share_room(&mut self, now_ms: TimeMs) {
        if self.register.is_shared() {
            let offered = self.market.offered_units();
            self.register.share_room(&mut self.kernel.context(now_ms), &offered);
        }
    }

    fn tick(&mut self, now_ms: TimeMs) {
        self.judge_clock(now_ms);
        self.share_room(now_ms);
        let mut ctx = self.kernel.context(now_ms);
        let me = ctx.me();
        let shelf = Shelf { me, register: &self.register, holdings: &self.holdings };
        self.market.on_tick(&mut ctx, &shelf);
        // What is spare may have been offered just now.
        self.share_room(now_ms);
        let mut ctx = self.kernel.context(now_ms);
        let mut desk = Desk { register: &mut self.register, witness: &self.witness };
        let events = self.trades.on_tick(&mut ctx, &mut desk);
        self.apply(now_ms, events);
        let mut ctx = self.kernel.context(now_ms);
        {
            let is_known = router::known_to(&self.market, &self.holdings, &self.trades);
            self.witness.on_tick(&mut ctx, &is_known);
        }
        self.register.ask_witnesses(&mut ctx, self.peers.iter().copied());
        self.register.on_tick(&mut ctx);
        self.holdings.on_tick(&mut ctx);
        self.follow_certificates(now_ms);
        let mut ctx = self.kernel.context(now_ms);
        self.leases.on_tick(&mut ctx);
        self.follow_attached(now_ms);
        self.with_pools(now_ms, |pools, ctx, floor| pools.on_tick(ctx, floor));
        let mut ctx = self.kernel.context(now_ms);
        self.contacts.on_tick(&mut ctx);
        self.sync.on_tick(&mut ctx, self.peers.iter().copied());
    }

    fn apply(&mut self, now_ms: TimeMs, events: Vec<TradeEvent>) {
        for event in events {
            let mut ctx = self.kernel.context(now_ms);
            match event {
                TradeEvent::Void { trade, code } => {
                    self.register.void_trade(&mut ctx, trade);
                    ctx.treasury.commit(trade, 0);
                    self.market.on_trade_end(&mut ctx, trade, false);
                    self.pools.on_trade_end(&mut ctx, &mut self.market, trade, Err(&code));
                }
                TradeEvent::Sold { trade, cert, seq } => {
                    self.holdings.mark_sold(&mut ctx, cert, seq);
                    self.market.on_trade_end(&mut ctx, trade, true);
                }
                TradeEvent::Bought { trade, certificate } => {
                    let bought = self.market.order_of(&trade).zip(certificate.id(ctx.params.magic));
                    let acquired = self.holdings.acquire(&mut ctx, &mut self.witness, certificate);
                    if let Err(code) = acquired {
                        *self.refused.entry(code.to_owned()).or_default() += 1;
                    }
                    let facts = bought.and_then(|(_, cert)| self.holdings.held(&cert));
                    if let (Some((order, cert)), Some(facts)) = (bought, facts) {
                        self.leases.attach_to(&mut ctx, order, cert, facts.window);
                    }
                    self.market.on_trade_end(&mut ctx, trade, true);
                    self.pools.on_trade_end(&mut ctx, &mut self.market, trade, Ok(()));
                }
                TradeEvent::Unsold { cert, seq } => {
                    self.holdings.mark_unsold(&mut ctx, cert, seq);
                }
                TradeEvent::Wanted { trade, cert } => self.split_off(now_ms, trade, cert),
                TradeEvent::Signed { trade } => {
                    self.with_pools(now_ms, |pools, ctx, floor| {
                        pools.on_signed(ctx, floor, trade);
                    });
                }
                TradeEvent::Missing { cert, provider } => {
                    self.holdings.fetch(&mut ctx, provider, cert, None);
                }
            }
        }
    }

    /// The buyer of a part has asked for terms: its provider is asked to split it off, with all
    /// else that rows take of the certificate.
    fn split_off(&mut self, now_ms: TimeMs, trade: TradeId, cert: CertId) {
        let mut ctx = self.kernel.context(now_ms);
        let me = ctx.me();
        if !self.holdings.is_whole(me, &cert) {
            return;
        }
        let shelf = Shelf { me, register: &self.register, holdings: &self.holdings };
        let parts = self.market.cut_of(&shelf, &cert).ok_or(code!("resale.not_split"));
        let asked = parts.and_then(|parts| self.holdings.cut(&mut ctx, cert, parts));
        let mut desk = Desk { register: &mut self.register, witness: &self.witness };
        let events = match asked {
            Ok(()) => self.trades.split_asked(&mut ctx, &mut desk, cert),
            Err(code) => self.trades.bring_part(&mut ctx, &mut desk, trade, Err(code)),
        };
        self.apply(now_ms, events);
    }

    /// Sales of parts go on once these are split off, and so do the asks of what is left.
    fn follow_certificates(&mut self, now_ms: TimeMs) {
        let me = self.me();
        let waiting = self.trades.waiting_parts();
        let look = |part: WaitingPart<'_>| {
            let WaitingPart { trade, cert, area, is_asked } = part;
            (trade, is_asked, self.holdings.part(me, &cert, area))
        };
        let parts: Vec<_> = waiting.map(look).collect();
        for (trade, is_asked, part) in parts {
            let part = match part {
                Part::Waits => continue,
                Part::Whole if !is_asked => continue,
                Part::Here(certificate) => Ok(*certificate),
                Part::Whole | Part::Lost => Err(code!("resale.not_split")),
            };
            let mut ctx = self.kernel.context(now_ms);
            let mut desk = Desk { register: &mut self.register, witness: &self.witness };
            let events = self.trades.bring_part(&mut ctx, &mut desk, trade, part);
            self.apply(now_ms, events);
        }
        let mut ctx = self.kernel.context(now_ms);
        let me = ctx.me();
        let shelf = Shelf { me, register: &self.register, holdings: &self.holdings };
        self.market.follow_certificates(&mut ctx, &shelf);
    }

    /// Workloads go with the certificates that their orders brought, as long as this node holds
    /// these.
    fn follow_attached(&mut self, now_ms: TimeMs) {
        let mut ctx = self.kernel.context(now_ms);
        let (me, market, holdings) = (ctx.me(), &self.market, &self.holdings);
        let place = |cert: &CertId| match holdings.stock(me, cert) {
            Some(Stock::Held(_)) if market.offering(cert).is_none() => Place::Free,
            Some(Stock::Held(_) | Stock::Waits) => Place::Waits,
            Some(Stock::Moved | Stock::Consumed | Stock::Cut(_)) | None => Place::Gone,
        };
        let may_bring = |order: &StandingId| market.may_bring(order);
        self.leases.tick_attached(&mut ctx, holdings, &place, &may_bring);
    }

    /// Lets pools use the components that they stand on, and applies what comes of it.
    fn with_pools<T>(
        &mut self,
        now_ms: TimeMs,
        go: impl FnOnce(&mut Pools, &mut Context<'_>, &mut Floor<'_>) -> T,
    ) -> T {
        let mut floor = Floor {
            market: &mut self.market,
            trades: &mut self.trades,
            register: &mut self.register,
            holdings: &self.holdings,
            witness: &self.witness,
            events: Vec::new(),
        };
        let result = go(&mut self.pools, &mut self.kernel.context(now_ms), &mut floor);
        let events = floor.events;
        self.apply(now_ms, events);
        result
    }

    fn on_chain(&mut self, now_ms: TimeMs, facts: &ChainFacts) {
        let chain = &mut self.kernel.chain;
        chain.up = true;
        chain.height = facts.height;
        chain.median_time_past_s = facts.median_time_past_s;
        chain.least_feerate_sat_kvb = facts.least_feerate_sat_kvb;
        chain.set_feerates(&facts.feerates, self.kernel.params.fees);
        let mut ctx = self.kernel.context(now_ms);
        let mut desk = Desk { register: &mut self.register, witness: &self.witness };
        let events = self.trades.on_chain(&mut ctx, &mut desk, facts);
        self.apply(now_ms, events);
    }

    fn open(&mut self, now_ms: TimeMs, matched: Matched) {
        let ctx = &mut self.kernel.context(now_ms);
        let mut desk = Desk { register: &mut self.register, witness: &self.witness };
        let events = match matched {
            Matched::Buy {
                row,
                trade,
                seller,
                provider,
                to,
                features,
                use_by,
                is_recallable,
                max_loss_sat,
                pool,
            } => {
                let fee_cap_sat = Circumstances::of(ctx).fee_reserve_sat();
                let partners = pool.map(|pool| self.pools.partners(ctx.params, pool, &row));
                let registrar = provider.unwrap_or(seller);
                let partners = partners.transpose().and_then(|partners| {
                    let is_together = partners.as_ref().is_some_and(|all| all.together);
                    let together = is_together.then(|| joint_feerate(ctx, seller, registrar));
                    Ok((partners, together.transpose()?))
                });
                let (partners, max_loss_sat, together) = match partners {
                    Ok((None, _)) => (Vec::new(), max_loss_sat, None),
                    Ok((Some(all), together)) => (all.others, all.max_loss_sat, together),
                    Err(code) => {
                        let code = code.to_owned();
                        return self.apply(now_ms, vec![TradeEvent::Void { trade, code }]);
                    }
                };
                let limits =
                    BuyLimits { fee_cap_sat, max_loss_sat, features, use_by, is_recallable };
                let purchase = Purchase { seller, registrar, to, limits, partners, together };
                let events = self.trades.open_buy(ctx, &mut desk, &row, trade, purchase);
                if let Some(pool) = pool {
                    self.pools.on_opened(ctx, pool, trade);
                }
                events
            }
            Matched::Sell { row, trade, buyer, units, features } => {
                let goods = Goods::Capacity { units, features };
                self.trades.open_sell(ctx, &mut desk, &row, trade, buyer, goods)
            }
            Matched::Resell { row, trade, buyer, cert, area, is_whole } => {
                let held = self.holdings.held(&cert).zip(self.holdings.certificate(&cert));
                let Some((facts, certificate)) = held else { return };
                let goods = if is_whole {
                    Goods::Certificate(Box::new(certificate.clone()))
                } else {
                    Goods::Part { cert, provider: facts.provider, area }
                };
                self.trades.open_sell(ctx, &mut desk, &row, trade, buyer, goods)
            }
        };
        self.apply(now_ms, events);
    }
}

/// What each of several pays for its part of one transaction, sat/kvB: enough for the next blocks,
/// since nothing can raise it once all have signed.
fn joint_feerate(
    ctx: &kernel::Context<'_>,
    seller: Key,
    registrar: Key,
) -> Result<u64, &'static str> {
    if seller != registrar {
        return Err(code!("joint.resale"));
    }
    ctx.chain.estimate(fees::URGENT_TARGET).ok_or(code!("chain.down"))
}
