//! Pools: several pay for one certificate together, each into a contract of its own.
//!
//! The creator signs the pool and invites by a line of text. Whoever joins reserves what it
//! pledges; no coin moves before the pledges make up the highest price. Then the creator bids
//! under its own key. When the bid is matched it asks the seller for terms that name every member
//! as a funder, has every member sign them, and hands all their consents to all: from there on each
//! settles as a buyer by itself, with the provider's lock and its own refund. In an all-or-nothing
//! pool they pay by one transaction, which is invalid until each has signed, so that a member that
//! does not pay costs nobody anything. Else each has its own funding, and since the seller reveals
//! nothing before every contract is funded, such a member costs the others a fee and time.
//!
//! Members find each other by invitation alone, and no gossip names them or the holder. What the
//! creator cannot do: change price, holder or shares, since each member compares the terms with
//! the invitation and its pledge. What it can do: not bid, or let the pool lapse.

mod created;
mod invitation;
mod joined;
mod messages;
mod objects;
mod records;
mod round;

use std::collections::BTreeMap;

pub use created::Partners;
pub use invitation::{INVITATION_MAX_BYTES, InvitationError, read as read_invitation};
pub use messages::{PoolCommand, PoolNews, PoolPurpose, PoolReply, PoolRequest};
pub use objects::{Pool, Share, is_fair, may_pledge, pool_id, split};
pub use records::PoolV1;

use self::joined::Shown;
use self::records::{Part, Stage};
use self::round::Round;
use super::holdings::Holdings;
use super::io::Done;
use super::kernel::{
    Answer, Cause, Context, Pace, Record, Retry, Table, Unreadable, answer, records as read,
};
use super::market::{Circumstances, Market};
use super::register::{Desk, Register};
use super::trades::{TradeEvent, Trades};
use super::witness::Witness;
use crate::code;
use crate::ids::{Key, PoolId, StandingId, TradeId};
use crate::limits::POOLS_MAX;
use crate::params::Params;
use crate::settlement::fees::FeeLimit;
use crate::units::TimeMs;

/// How often a member tells the creator that it still pledges, and hears who does: often enough
/// to watch a pool fill, too rarely to cost anybody anything.
const PACE: Pace = Pace::between(1_000, 10_000);
/// Tries without an answer after which joining has failed.
const JOIN_TRIES: u32 = 4;

/// What pools use of the rest of the engine while they handle one input, and what came of it.
#[derive(Debug)]
pub struct Floor<'a> {
    pub market: &'a mut Market,
    pub trades: &'a mut Trades,
    pub register: &'a mut Register,
    pub holdings: &'a Holdings,
    pub witness: &'a Witness,
    /// For the engine to apply.
    pub events: Vec<TradeEvent>,
}

impl Floor<'_> {
    fn trade<T>(
        &mut self,
        go: impl FnOnce(&mut Trades, &mut Desk<'_>) -> (T, Vec<TradeEvent>),
    ) -> T {
        let mut desk = Desk { register: self.register, witness: self.witness };
        let (result, events) = go(self.trades, &mut desk);
        self.events.extend(events);
        result
    }
}

/// Every pool of this node.
#[derive(Debug, Default)]
pub struct Pools {
    pools: BTreeMap<PoolId, PoolV1>,
    /// When the creator is asked again: while a pledge waits, or until it knows that none does.
    asks: BTreeMap<PoolId, Retry>,
    /// When a complete pool may bid again, unix ms: each bid is one of the creator's few orders of
    /// an epoch, and members that come and go are not to use them up.
    bids_from_ms: BTreeMap<PoolId, TimeMs>,
    /// Consents that are being gathered.
    rounds: BTreeMap<TradeId, Round>,
    /// Commands that wait for the creator.
    commands: BTreeMap<PoolId, u64>,
}

/// What people and the API see of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolView {
    pub id: PoolId,
    pub pool: Pool,
    /// One line of text that lets others join.
    pub invitation: String,
    pub is_creator: bool,
    /// What this node pledged, sat.
    pub share_sat: u64,
    /// Pledges known here, sat, the creator's first.
    pub members: Vec<(Key, u64)>,
    /// Pledges that are missing, as far as is known here, sat.
    pub missing_sat: u64,
    pub stage: &'static str,
    /// Why it ended.
    pub code: Option<String>,
    pub trade: Option<TradeId>,
}

impl Pools {
    /// Takes its records back after a restart.
    ///
    /// # Errors
    /// The first record that cannot be read.
    pub fn load(&mut self, ctx: &mut Context<'_>, all: &[Record]) -> Result<(), Unreadable> {
        for found in read::<PoolV1>(all) {
            let (record, kept) = found?;
            let id = PoolId(record.key_array()?);
            if kept.signed.id::<Pool>(ctx.params.magic) != id.0 {
                return Err(record.unreadable(Cause::Content));
            }
            self.pools.insert(id, kept);
            self.resume(ctx, id);
        }
        Ok(())
    }

    /// Reserves the coins of a pledge, and asks the creator.
    fn resume(&mut self, ctx: &mut Context<'_>, id: PoolId) {
        let Some(kept) = self.pools.get(&id) else { return };
        let is_pledged = kept.stage.is_pledged();
        ctx.treasury.pledge(id, if is_pledged { kept.reserved_sat } else { 0 });
        if is_pledged && matches!(kept.part, Part::Member { .. }) {
            self.asks.entry(id).or_insert(Retry::new(PACE, ctx.now_ms));
        }
    }

    /// Indices from which refund keys of open pledges derive.
    pub fn key_indices(&self) -> impl Iterator<Item = u64> {
        self.pools.values().filter(|kept| kept.stage.is_pledged()).filter_map(|kept| {
            match kept.part {
                Part::Member { key_index, .. } => Some(key_index),
                Part::Creator { .. } => None,
            }
        })
    }

    /// Does what an operator asks.
    pub fn on_command(
        &mut self,
        ctx: &mut Context<'_>,
        floor: &mut Floor<'_>,
        id: u64,
        command: PoolCommand,
    ) {
        let result = match command {
            PoolCommand::Create { pool, share_sat, fees } => {
                self.create(ctx, *pool, share_sat, fees).map(Done::Pool)
            }
            PoolCommand::Join { pool, share_sat, fees } => {
                match self.join(ctx, &pool, share_sat, fees) {
                    Ok(pool) => {
                        self.commands.insert(pool, id);
                        return self.ask_creator(ctx, pool);
                    }
                    Err(code) => Err(code),
                }
            }
            PoolCommand::Leave(pool) => self.leave(ctx, floor, pool).map(|()| Done::Ok),
        };
        answer(ctx, Some(id), result);
    }

    /// Answers another member.
    ///
    /// # Errors
    /// The reason code.
    pub fn on_request(
        &mut self,
        ctx: &mut Context<'_>,
        floor: &mut Floor<'_>,
        peer: Key,
        request: PoolRequest,
    ) -> Result<PoolReply, &'static str> {
        match request {
            PoolRequest::Join { pool, share_sat, refund_xonly } => {
                self.on_join(ctx, floor, peer, pool, share_sat, refund_xonly)
            }
            PoolRequest::Leave(pool) => self.on_leave(ctx, floor, peer, pool),
            PoolRequest::Terms { pool, row, title, terms, feerate_sat_kvb } => {
                let shown = Shown { row: &row, title: *title, terms: &terms, feerate_sat_kvb };
                self.on_terms(ctx, floor, peer, pool, shown)
            }
            PoolRequest::Agreed { terms_hash, accepts } => {
                self.on_agreed_by_all(ctx, floor, peer, terms_hash, &accepts)
            }
        }
    }

    /// Another member answered, or could not be reached.
    pub fn on_reply(
        &mut self,
        ctx: &mut Context<'_>,
        floor: &mut Floor<'_>,
        peer: Key,
        purpose: PoolPurpose,
        answer: Answer<PoolReply>,
    ) {
        match purpose {
            PoolPurpose::Join(pool) => self.on_joined(ctx, peer, pool, answer),
            PoolPurpose::Leave(pool) => {
                // Whatever the creator says, it knows; unless this node has joined once more.
                let has_left = self.pools.get(&pool).is_none_or(|kept| !kept.stage.is_pledged());
                if has_left && !matches!(answer, Answer::None) {
                    self.asks.remove(&pool);
                }
            }
            PoolPurpose::Terms(_, terms) => {
                if let Answer::Said(PoolReply::Accept(accept)) = answer {
                    self.on_accept(ctx, floor, peer, terms, accept);
                }
            }
            PoolPurpose::Agreed(_, terms) => {
                if !matches!(answer, Answer::None) {
                    self.on_told(peer, terms);
                }
            }
        }
    }

    /// Repeats what was not answered, and ends what is over.
    pub fn on_tick(&mut self, ctx: &mut Context<'_>, floor: &mut Floor<'_>) {
        let open = self.pools.iter().filter(|(_, kept)| kept.stage.is_pledged());
        let late = open.filter(|(_, kept)| ctx.now_ms >= kept.pool.until_ms);
        let late: Vec<PoolId> = late.map(|(id, _)| *id).collect();
        for id in late {
            self.end(ctx, floor.market, id, code!("pool.expired"));
        }
        // A bid that was cancelled by hand, or whose window has become too near.
        let given_up: Vec<PoolId> = self.given_up(floor.market).collect();
        for id in given_up {
            self.end(ctx, floor.market, id, code!("pool.dissolved"));
        }
        self.bid_due(ctx, floor);
        let due = self.asks.iter().filter(|(_, ask)| ask.is_due(ctx.now_ms));
        let due: Vec<PoolId> = due.map(|(id, _)| *id).collect();
        due.into_iter().for_each(|id| self.ask_creator(ctx, id));
        self.ask_members_due(ctx, floor);
    }

    /// When [`Pools::on_tick`] has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<TimeMs> {
        let open = self.pools.values().filter(|kept| kept.stage.is_pledged());
        let ends = open.map(|kept| kept.pool.until_ms);
        let asks = self.asks.values().map(|ask| ask.due_ms());
        let bids = self.complete().map(|id| self.bids_from_ms(&id));
        ends.chain(asks).chain(bids).chain(self.rounds.values().map(Round::due_ms)).min()
    }

    /// A trade of this node ended: bought, or why not.
    pub fn on_trade_end(
        &mut self,
        ctx: &mut Context<'_>,
        market: &mut Market,
        trade: TradeId,
        end: Result<(), &str>,
    ) {
        let round = self.rounds.remove(&trade);
        // What came late may come all the same, if its seller was quick.
        let of = |kept: &PoolV1| match &kept.stage {
            Stage::Settling { trade: settling, .. } => *settling == trade,
            Stage::Ended { trade: ended, .. } => *ended == Some(trade) && end.is_ok(),
            Stage::Gathering | Stage::Bidding(_) | Stage::Bought(_) => false,
        };
        let found = self.pools.iter().find(|(_, kept)| of(kept)).map(|(id, _)| *id);
        let Some(id) = found else { return };
        let Some(kept) = self.pools.get_mut(&id) else { return };
        if end.is_ok() {
            kept.stage = Stage::Bought(trade);
            self.moved(ctx, id);
            return;
        }
        let Stage::Settling { standing, is_asked, .. } = kept.stage else { return };
        match (end, standing) {
            // Nobody was asked for anything yet: the next epoch may be better.
            (Err(_), Some(standing)) if !is_asked => {
                kept.stage = Stage::Bidding(standing);
                self.moved(ctx, id);
            }
            (Ok(()), _) => {}
            (Err(code), _) => {
                if let Some(round) = round {
                    round.blame(ctx, kept);
                }
                self.end(ctx, market, id, code);
            }
        }
    }

    /// Ends a pool, and the bid with it.
    fn end(&mut self, ctx: &mut Context<'_>, market: &mut Market, id: PoolId, code: &str) {
        if let Some(standing) = self.close(ctx, id, code) {
            // One that has left the market already is none to cancel.
            let _ = market.cancel(ctx, standing);
        }
    }

    /// Ends a pool. Returns the bid that it had.
    fn close(&mut self, ctx: &mut Context<'_>, id: PoolId, code: &str) -> Option<StandingId> {
        let kept = self.pools.get_mut(&id)?;
        let standing = match kept.stage {
            Stage::Bidding(standing) => Some(standing),
            Stage::Settling { standing, .. } => standing,
            Stage::Gathering | Stage::Bought(_) | Stage::Ended { .. } => None,
        };
        let trade = kept.stage.trade();
        kept.stage = Stage::Ended { code: code.to_owned(), trade };
        self.asks.remove(&id);
        let command = self.commands.remove(&id);
        answer(ctx, command, Err(code));
        self.moved(ctx, id);
        standing
    }

    /// Its stage is another one: written, and its coins with it.
    fn moved(&mut self, ctx: &mut Context<'_>, id: PoolId) {
        let Some(kept) = self.pools.get(&id) else { return };
        ctx.out.store(&id.0, kept);
        if kept.stage.is_over() {
            self.bids_from_ms.remove(&id);
        }
        let stage = kept.stage.code().unwrap_or(kept.stage.name()).to_owned();
        ctx.out.notify(PoolNews { pool: id, stage });
        self.resume(ctx, id);
    }

    fn changed(&self, ctx: &mut Context<'_>, id: PoolId) {
        if let Some(kept) = self.pools.get(&id) {
            ctx.out.store(&id.0, kept);
        }
    }

    /// Takes a new pool in, if its coins are free. The oldest that is over makes room.
    fn keep(
        &mut self,
        ctx: &mut Context<'_>,
        id: PoolId,
        make: impl FnOnce(&mut Context<'_>, u64) -> PoolV1,
        needs: (u64, FeeLimit),
    ) -> Result<PoolId, &'static str> {
        let (share_sat, fees) = needs;
        let at = Circumstances::of(ctx);
        if !ctx.chain.up {
            return Err(code!("chain.down"));
        }
        let reserved_sat = share_sat.saturating_add(at.fee_reserve_sat());
        at.check_share(share_sat, fees)?;
        ctx.treasury.check(reserved_sat).map_err(|_| code!("order.insufficient_funds"))?;
        if self.pools.len() >= POOLS_MAX {
            let over = self.pools.iter().filter(|(_, kept)| kept.stage.is_over());
            let oldest = over.min_by_key(|(_, kept)| kept.pool.until_ms).map(|(id, _)| *id);
            let oldest = oldest.ok_or(code!("pool.too_many"))?;
            self.pools.remove(&oldest);
            ctx.out.delete(Table::Pool, &oldest.0);
        }
        let kept = make(ctx, reserved_sat);
        self.pools.insert(id, kept);
        self.moved(ctx, id);
        Ok(id)
    }

    /// Every pool, by id.
    pub fn views(&self, me: Key, params: &Params) -> impl Iterator<Item = PoolView> {
        self.pools.iter().map(move |(id, kept)| PoolView {
            id: *id,
            pool: kept.pool.clone(),
            invitation: invitation::write(&kept.signed, params),
            is_creator: kept.pool.creator == me,
            share_sat: kept.share_sat,
            members: kept.pledges(),
            missing_sat: kept.missing_sat(),
            stage: kept.stage.name(),
            code: kept.stage.code().map(str::to_owned),
            trade: kept.stage.trade(),
        })
    }
}
