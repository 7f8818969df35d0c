//! One CLAIM for several contracts of a seller, whoever funded them.
//!
//! Before the first refund height nobody but the seller can spend any of them, so none can spoil the
//! claim of the others; a claim that is late is sent alone from the start. One that was sent stays
//! together while it waits, since each change of a transaction has to pay for its relay. When a
//! contract of it is spent otherwise, or its funding has left the chain, the rest is claimed anew
//! without it.

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::{OutPoint, ScriptBuf, Txid};

use super::super::driver::{Driver, Turn};
use super::super::seller::{CLAIM_LABEL, PREIMAGE_LABEL};
use super::super::{Open, Party, Trades};
use crate::ids::TradeId;
use crate::limits::CLAIM_INPUTS_MAX;
use crate::settlement::buyer::batch_wait_ms;
use crate::settlement::facts::ContractFacts;
use crate::settlement::fees::{self, ClaimProgress};
use crate::settlement::script::Contract;
use crate::settlement::seller::{Seller, Signed};
use crate::settlement::transaction::{self, Holding, Means, OwnTx};

/// A contract that is due to be claimed.
#[derive(Debug)]
struct Due {
    trade: TradeId,
    /// Number of the contract.
    number: u8,
    contract: Contract,
    outpoint: OutPoint,
    value_sat: u64,
    means: Means,
    to: ScriptBuf,
    /// What its claim would cost alone now, sat.
    alone_sat: u64,
    sent: Option<OwnTx>,
    /// Whether its funding is in a block.
    is_confirmed: bool,
    /// Whether it is early enough to be sent with others.
    is_early: bool,
}

impl Due {
    fn vsize(&self) -> u64 {
        size_of(std::slice::from_ref(self))
    }

    fn holding(&self) -> Holding<'_> {
        let (contract, outpoint, value_sat) = (&self.contract, self.outpoint, self.value_sat);
        Holding { contract, outpoint, value_sat }
    }

    fn rate_sat_kvb(&self) -> u64 {
        self.alone_sat.saturating_mul(1000) / self.vsize().max(1)
    }
}

/// Size of the claim of all of them, vB.
fn size_of(all: &[Due]) -> u64 {
    let scripts = all.iter().filter(|due| matches!(due.means, Means::Script { .. })).count();
    fees::spend_vsize(scripts as u64, (all.len() - scripts) as u64)
}

/// Fee of the claim of all of them, sat: as urgent as the first of them, and never more than all
/// would pay alone.
fn fee_of(all: &[Due]) -> u64 {
    let rate_sat_kvb = all.iter().map(Due::rate_sat_kvb).max().unwrap_or(0);
    let alone_sat = all.iter().map(|due| due.alone_sat).fold(0, u64::saturating_add);
    let is_single = all.len() == 1;
    if is_single { alone_sat } else { fees::fee_sat(rate_sat_kvb, size_of(all)).min(alone_sat) }
}

impl Trades {
    /// Claims what is due, as much as possible in one transaction.
    pub(super) fn claim_together(&mut self, turn: &mut Turn<'_, '_>) {
        // Those that wait say again that they are due.
        let waiting: Vec<TradeId> = self.batches.claims.keys().copied().collect();
        for trade in waiting {
            self.sellers.touch(turn, trade, |_, _| ());
        }
        let mut due: BTreeSet<TradeId> = std::mem::take(&mut turn.shared.claimable);
        self.batches.claims.retain(|trade, _| due.contains(trade));
        if due.is_empty() {
            return;
        }
        self.let_claims_wait(turn, &mut due);
        let (mut fresh, mut known, mut together) = (Vec::new(), BTreeMap::new(), BTreeSet::new());
        for trade in due {
            let Some(open) = self.sellers.get(&trade) else { continue };
            together.extend(sharing(turn, open));
            for due in open.contracts_due(turn) {
                match due.sent.as_ref().map(|own| own.tx.txid()) {
                    Some(txid) => known.entry(txid).or_insert_with(Vec::new).push(due),
                    None => fresh.push(due),
                }
            }
        }
        // A claim in common concerns all of its trades.
        for trade in together {
            let Some(open) = self.sellers.get(&trade) else { continue };
            for due in open.contracts_due(turn) {
                let Some(txid) = due.sent.as_ref().map(|own| own.tx.txid()) else { continue };
                if let Some(group) = known.get_mut(&txid)
                    && group.iter().all(|known| known.outpoint != due.outpoint)
                {
                    group.push(due);
                }
            }
        }
        let mut made = Vec::new();
        known.into_values().for_each(|group| claim_again(turn, group, &mut made));
        claim_first(turn, fresh, &mut made);
        take(&mut self.sellers, turn, made);
    }

    /// Leaves out of those that are due who waits for others that are about to follow: all that are
    /// due for the first time, until the first of them has waited long enough.
    fn let_claims_wait(&mut self, turn: &Turn<'_, '_>, due: &mut BTreeSet<TradeId>) {
        let until_ms = turn.ctx.now_ms.saturating_add(batch_wait_ms(turn.ctx.params));
        let is_first = |trade: &TradeId| {
            let open = self.sellers.get(trade);
            open.is_some_and(|open| open.machine.may_wait_to_claim(turn.now()))
        };
        for trade in due.iter().filter(|trade| is_first(trade)) {
            self.batches.claims.entry(*trade).or_insert(until_ms);
        }
        let waiting = &mut self.batches.claims;
        if waiting.is_empty() {
            return;
        }
        let is_coming = |open: &Open<Seller>| {
            open.machine.is_claim_coming(turn.now()) && !waiting.contains_key(&open.machine.trade)
        };
        let is_soon = self.sellers.iter().any(is_coming);
        if is_soon && waiting.values().all(|until_ms| turn.ctx.now_ms < *until_ms) {
            due.retain(|trade| !waiting.contains_key(trade));
        } else {
            waiting.clear();
        }
    }
}

/// Trades with which the claims of a seller are sent.
fn sharing(turn: &Turn<'_, '_>, open: &Open<Seller>) -> Vec<TradeId> {
    let claims = open.machine.state.agreed().and_then(|(_, phase)| phase.claims());
    let shared = claims.into_iter().flatten().filter(|(_, own)| own.tx.tx().input.len() > 1);
    let txids: BTreeSet<Txid> = shared.map(|(_, own)| own.tx.txid()).collect();
    let parties = txids.iter().flat_map(|txid| turn.index.by_txid(txid));
    let sellers = parties.filter_map(|party| match party {
        Party::Seller(trade) => Some(trade),
        Party::Buyer(_) | Party::Registrar(_) => None,
    });
    sellers.filter(|trade| *trade != open.machine.trade).collect()
}

/// Claims that were sent together: the same once more, or a better one, or without what is spent
/// otherwise.
fn claim_again(turn: &Turn<'_, '_>, group: Vec<Due>, made: &mut Vec<(Vec<Due>, OwnTx)>) {
    let Some(sent) = group.first().and_then(|due| due.sent.clone()) else { return };
    let is_shared = sent.tx.tx().input.len() > 1;
    // One whose funding has left the chain goes its own way, and its funding before it.
    let (together, alone): (Vec<Due>, Vec<Due>) =
        group.into_iter().partition(|due| !is_shared || due.is_confirmed);
    let mut spent: Vec<OutPoint> = together.iter().map(|due| due.outpoint).collect();
    let mut before: Vec<OutPoint> =
        sent.tx.tx().input.iter().map(|input| input.previous_output).collect();
    spent.sort_unstable();
    before.sort_unstable();
    let (wanted_sat, vsize) = (fee_of(&together), size_of(&together));
    let is_same = spent == before;
    if is_same && fees::bump(sent.fee_sat, wanted_sat, vsize).is_none() {
        made.push((together, sent));
    } else {
        // What has lost an input to a reorganisation may still wait in a mempool.
        let least_sat = sent.fee_sat.saturating_add(fees::fee_sat(fees::STEP_SAT_KVB, vsize));
        let alone_sat = together.iter().map(|due| due.alone_sat).fold(0, u64::saturating_add);
        let replaces = !alone.is_empty();
        let fee_sat = if replaces { wanted_sat.max(least_sat.min(alone_sat)) } else { wanted_sat };
        build(turn, together, fee_sat, made);
    }
    for due in alone {
        let fee_sat = due.alone_sat;
        build(turn, vec![due], fee_sat, made);
    }
}

/// Claims that are sent for the first time.
fn claim_first(turn: &Turn<'_, '_>, fresh: Vec<Due>, made: &mut Vec<(Vec<Due>, OwnTx)>) {
    let (sociable, mut alone): (Vec<Due>, Vec<Due>) =
        fresh.into_iter().partition(|due| due.is_confirmed && due.is_early);
    let mut left = sociable;
    while !left.is_empty() {
        let more = left.split_off(left.len().min(CLAIM_INPUTS_MAX));
        // Nobody bears more than it would alone.
        let share_sat = |all: &[Due]| fees::share_sat(fee_of(all), all.len(), 0);
        while let Some(dear) = left.iter().position(|due| share_sat(&left) > due.alone_sat) {
            alone.push(left.swap_remove(dear));
        }
        let fee_sat = fee_of(&left);
        build(turn, left, fee_sat, made);
        left = more;
    }
    for due in alone {
        let fee_sat = due.alone_sat;
        build(turn, vec![due], fee_sat, made);
    }
}

fn build(turn: &Turn<'_, '_>, all: Vec<Due>, fee_sat: u64, made: &mut Vec<(Vec<Due>, OwnTx)>) {
    let Some(to) = all.first().map(|due| due.to.clone()) else { return };
    let contracts: Vec<(Holding<'_>, Means)> =
        all.iter().map(|due| (due.holding(), due.means)).collect();
    let own = transaction::claim_all(turn.ctx.secp, &contracts, to, fee_sat);
    match own {
        Some(own) => made.push((all, own)),
        // One that cannot be spent keeps nobody else from its own.
        None if all.len() > 1 => all.into_iter().for_each(|due| {
            let fee_sat = due.alone_sat;
            build(turn, vec![due], fee_sat, made);
        }),
        None => {}
    }
}

/// Written for each trade before anything is revealed.
fn take(sellers: &mut Driver<Seller>, turn: &mut Turn<'_, '_>, made: Vec<(Vec<Due>, OwnTx)>) {
    let mut by_trade: BTreeMap<TradeId, BTreeMap<u8, OwnTx>> = BTreeMap::new();
    for (all, own) in made {
        for due in all {
            by_trade.entry(due.trade).or_default().insert(due.number, own.clone());
        }
    }
    for (trade, claims) in by_trade {
        sellers.touch(turn, trade, |open, turn| open.send_claims(turn, claims));
    }
}

impl Open<Seller> {
    /// Its contracts that are still to be claimed, as far as that is worth it.
    fn contracts_due(&self, turn: &Turn<'_, '_>) -> Vec<Due> {
        let Some((signed, phase)) = self.machine.state.agreed() else { return Vec::new() };
        let sent = |n: u8| phase.claims().and_then(|claims| claims.get(&n)).cloned();
        let unclaimed = signed.unclaimed(turn.ctx.chain.height);
        unclaimed
            .filter_map(|(n, facts)| self.contract_due(turn, signed, n, facts, sent(n)))
            .collect()
    }

    fn contract_due(
        &self,
        turn: &Turn<'_, '_>,
        signed: &Signed,
        number: u8,
        facts: &ContractFacts,
        sent: Option<OwnTx>,
    ) -> Option<Due> {
        let ctx = &turn.ctx;
        let contract = self.rail.as_ref()?.contracts().get(usize::from(number))?.clone();
        let fund = facts.fund.as_ref()?;
        let terms = signed.agreement.terms();
        // From the first try on: one that comes late has been outbid by nobody yet.
        let first = signed.claimed_from.unwrap_or(ctx.chain.height);
        let left = terms.refund_at.saturating_sub(ctx.chain.height);
        let handed = signed.handed.and_then(|key| key.pair(ctx.secp));
        let key = turn.single_use_key(CLAIM_LABEL, signed.key_index)?;
        let means = match handed {
            Some(handed) => Means::Keys { keys: [key, handed], terms_hash: signed.hash() },
            None => Means::Script { key, x: ctx.secret(PREIMAGE_LABEL, signed.key_index) },
        };
        let alone_sat = fees::claim_fee_sat(ClaimProgress {
            vsize: handed.map_or(fees::CLAIM_VSIZE, |_| fees::KEY_SPEND_VSIZE),
            value_sat: fund.value_sat(),
            estimate_sat_kvb: ctx.chain.feerate_sat_kvb(left / 2),
            elapsed: ctx.chain.height.saturating_sub(first),
            window: terms.refund_at.saturating_sub(first),
        })?;
        Some(Due {
            trade: self.machine.trade,
            number,
            contract,
            outpoint: fund.outpoint(),
            value_sat: fund.value_sat(),
            means,
            to: ScriptBuf::from_bytes(terms.payout_spk.clone()),
            alone_sat,
            sent: sent.filter(|own| own.spends(fund.outpoint())),
            is_confirmed: fund.height.is_some(),
            is_early: ctx.chain.height < signed.heights(turn.now()).quit_by,
        })
    }
}
