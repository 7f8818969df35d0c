//! The matcher's explanation in the API's form.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::api::ApiError;
use crate::api::types::{
    AcceptedTrade, BestLimit, ClassLimit, CounterOrder, Explanation, Fact, Fill, FunnelStep,
    Paradox, Side,
};
use capex_core::book::{OrderSet, instance};
use capex_core::epoch::EpochResult;
use capex_core::ids::{OrderId, to_hex};
use capex_core::matching::explain::{
    self, Boundary, Constraint, Counter, ExplainError, Fate, Value, boundaries, explain,
};
use capex_core::matching::{self, Algorithm, Instance, Order, Outcome, Trade};
use capex_core::params::Params;
use capex_core::reason;

/// Counter-orders that an explanation names: a screenful.
const NEAREST_MAX: usize = 16;
/// Largest book in which limits are tried out, orders: 42 times matching this many by version
/// 1 takes some seconds, and the question is not worth more.
const TRIED_ORDERS_MAX: usize = 2_000;
/// Most work of trying out the limits of one order, in looks at an ask: some seconds of one
/// core.
const TRIED_WORK_MAX: u64 = 1 << 32;
/// Reason code of a limit that version 1 found and the network's version did not confirm.
const LIMIT_NOT_CONFIRMED: &str = "explain.limit_not_confirmed";
/// Reason code of an order that met nobody.
const NO_COUNTER_ORDERS: &str = "explain.no_counter_orders";

/// A computed epoch and the order to explain in it.
pub(in crate::node) struct ExplainStudy {
    pub(in crate::node) params: Params,
    /// Orders of the epoch.
    pub(in crate::node) set: Arc<OrderSet>,
    pub(in crate::node) result: Arc<EpochResult>,
    pub(in crate::node) id: OrderId,
    /// Standing order that it came from.
    pub(in crate::node) order_id: Option<String>,
}

impl ExplainStudy {
    pub(super) fn run(self) -> Result<Explanation, ApiError> {
        let book = self.set.book();
        if !book.iter().any(|order| order.id() == self.id.0) {
            let message = "the order did not enter the book: of each key the 16 lowest ids count, \
                           of one nonce or resold certificate the lowest";
            return Err(ApiError::new(reason!("order.not_in_book"), message)
                .with_hint("keep fewer orders in the market: `capex order list`"));
        }
        let instance = instance(&book, self.result.epoch, &self.params);
        let (outcome, id) = (self.result.outcome(), self.id.to_string());
        let mut found = explanation(&self.params, &instance, &outcome, &id)?;
        found.order_id = self.order_id;
        let rows = self.result.rows.iter();
        let rows: BTreeMap<(String, String), _> =
            rows.map(|row| ((to_hex(&row.row.buy), to_hex(&row.row.sell)), row)).collect();
        for fill in &mut found.fills {
            let pair = match found.side {
                Side::Buy => (id.clone(), fill.order.clone()),
                Side::Sell => (fill.order.clone(), id.clone()),
            };
            if let Some(row) = rows.get(&pair) {
                fill.trade_id = Some(row.trade.to_string());
                fill.code.clone_from(&row.void);
            }
        }
        Ok(found)
    }
}

/// Explains one order of a matched book.
pub(super) fn explanation(
    params: &Params,
    instance: &Instance,
    outcome: &Outcome,
    id: &str,
) -> Result<Explanation, ApiError> {
    let refuse = |error: ExplainError| {
        ApiError::coded(error.code(), error.to_string())
            .with_hint("see `capex epoch show` for what the epoch holds")
    };
    let found = explain(instance, outcome, id, NEAREST_MAX).map_err(refuse)?;
    let algorithm = Algorithm::try_from(params.matching_version);
    let limits = match (found.fate, algorithm) {
        (Fate::Dropped(_), _) | (_, Err(_)) => Ok(Vec::new()),
        _ if instance.orders.len() > TRIED_ORDERS_MAX => Err(ExplainError::BookTooLarge),
        (_, Ok(algorithm)) => boundaries(instance, outcome, algorithm, id, TRIED_WORK_MAX),
    };
    let limits = match limits {
        Err(too_large @ ExplainError::BookTooLarge) => Err(too_large.code()),
        limits => Ok(limits.map_err(refuse)?),
    };
    let writer = Writer::new(params, instance);
    writer.write(instance, id, &found, limits)
}

/// Puts names of the network in the place of numbers.
struct Writer<'a> {
    params: &'a Params,
    orders: BTreeMap<&'a str, &'a Order>,
}

impl<'a> Writer<'a> {
    fn new(params: &'a Params, instance: &'a Instance) -> Self {
        let orders = instance.orders.iter().map(|order| (order.id.as_str(), order)).collect();
        Self { params, orders }
    }

    fn write(
        &self,
        instance: &Instance,
        id: &str,
        found: &explain::Explanation,
        limits: Result<Vec<Boundary>, &'static str>,
    ) -> Result<Explanation, ApiError> {
        let unknown = || ApiError::internal("the explained order is not in the book");
        let order = *self.orders.get(id).ok_or_else(unknown)?;
        let (side, slots) = match order.side {
            matching::Side::Buy { hours, .. } => (Side::Buy, hours),
            matching::Side::Sell { .. } => (Side::Sell, 0),
        };
        let (state, code) = state(found);
        let fills = found.trades.iter();
        let fills = fills.map(|trade| fill(self.params, &self.orders, trade, side)).collect();
        Ok(Explanation {
            epoch: instance.epoch,
            id: id.to_owned(),
            order_id: None,
            owner: order.owner.clone(),
            provider: provider(order),
            side,
            alternatives: self.alternatives(order),
            qty: found.qty,
            min_qty: order.min_qty,
            window: [order.window.0, order.window.1],
            slots,
            state: state.to_owned(),
            code: code.map(str::to_owned),
            fills,
            funnel: found.funnel.iter().map(step).collect(),
            counter_orders: found.funnel.first().map_or(0, |step| step.tried),
            nearest: found.counters.iter().filter_map(|c| self.counter(order, c)).collect(),
            best_limits_code: limits.as_ref().err().map(|code| (*code).to_owned()),
            best_limits: self.best_limits(&limits.unwrap_or_default()),
            paradox: found.paradox.as_ref().map(|paradox| self.paradox(paradox)),
        })
    }

    fn alternatives(&self, order: &Order) -> Vec<ClassLimit> {
        alternatives(order)
            .into_iter()
            .map(|(class, limit_msat)| ClassLimit {
                class: class_name(self.params, class),
                limit_msat,
            })
            .collect()
    }

    fn counter(&self, explained: &Order, counter: &Counter) -> Option<CounterOrder> {
        let order = self.orders.get(counter.id.as_str())?;
        let classes: Vec<u16> = alternatives(explained).iter().map(|alt| alt.0).collect();
        let limits = alternatives(order);
        let common = limits.iter().find(|alt| classes.contains(&alt.0)).or(limits.first());
        let finding = counter.finding.as_ref();
        Some(CounterOrder {
            id: counter.id.clone(),
            owner: order.owner.clone(),
            provider: provider(order),
            limit_msat: common.map_or(0, |alt| alt.1),
            qty: order.qty.saturating_sub(order.filled),
            window: [order.window.0, order.window.1],
            traded_qty: counter.traded,
            code: finding.map(|found| found.constraint.code().to_owned()),
            own: finding.map(|found| self.fact(&found.own)),
            theirs: finding.map(|found| self.fact(&found.theirs)),
            because: finding.map(|found| self.accepted(&found.because)).unwrap_or_default(),
        })
    }

    fn fact(&self, value: &Value) -> Fact {
        match value {
            Value::Live => Fact::Live(true),
            Value::Dropped(why) => Fact::Code(why.code().to_owned()),
            Value::Classes(classes) => {
                Fact::Classes(classes.iter().map(|class| class_name(self.params, *class)).collect())
            }
            Value::Window { start, end, slots } => {
                Fact::Run { window: [*start, *end], slots: *slots }
            }
            Value::Party(label) => Fact::Key(label.clone()),
            Value::Features(bits) => Fact::Features(feature_names(self.params, *bits)),
            Value::Slots(slots) => Fact::Slots(*slots),
            Value::LimitMsat(msat) => Fact::LimitMsat(*msat),
            Value::RunMsat(msat) => Fact::RunMsat(*msat),
            Value::Qty(qty) => Fact::Qty(*qty),
            Value::Asks(asks) => Fact::Asks(*asks),
        }
    }

    fn accepted(&self, trades: &[Trade]) -> Vec<AcceptedTrade> {
        let accepted = |trade: &Trade| AcceptedTrade {
            buy: trade.buy.clone(),
            sell: trade.sell.clone(),
            class: class_name(self.params, trade.class),
            window: run(trade),
            qty: trade.qty,
            price_msat: trade.msat,
        };
        trades.iter().map(accepted).collect()
    }

    fn best_limits(&self, limits: &[Boundary]) -> Vec<BestLimit> {
        let best = |found: &Boundary| BestLimit {
            class: class_name(self.params, found.class),
            limit_msat: found.limit_msat,
            qty: found.qty,
            price_msat: found.msat,
            code: (!found.is_confirmed).then(|| LIMIT_NOT_CONFIRMED.to_owned()),
        };
        limits.iter().map(best).collect()
    }

    fn paradox(&self, found: &explain::Paradox) -> Paradox {
        Paradox {
            class: class_name(self.params, found.class),
            window: [found.start, found.start + found.slots],
            limit_msat: found.limit_msat,
            market_msat: found.market_msat,
            code: found.constraint.code().to_owned(),
            because: self.accepted(&found.because),
        }
    }
}

/// State in one word, and why the order got nothing.
fn state(found: &explain::Explanation) -> (&'static str, Option<&'static str>) {
    match found.fate {
        Fate::Dropped(why) => ("dropped", Some(why.code())),
        Fate::Matched => ("matched", None),
        Fate::Partly => ("partly", None),
        Fate::Unmatched => {
            let nearest = found.counters.first().and_then(|counter| counter.finding.as_ref());
            let code = nearest.map_or(NO_COUNTER_ORDERS, |found| found.constraint.code());
            ("unmatched", Some(code))
        }
    }
}

fn step(step: &explain::Step) -> FunnelStep {
    let constraint: Constraint = step.constraint;
    FunnelStep {
        code: constraint.code().to_owned(),
        rule: constraint.rule().to_owned(),
        tried: step.tried,
        passed: step.passed,
    }
}

/// A trade as the order of one side sees it.
pub(super) fn fill(
    params: &Params,
    orders: &BTreeMap<&str, &Order>,
    trade: &Trade,
    side: Side,
) -> Fill {
    let other = if side == Side::Buy { &trade.sell } else { &trade.buy };
    let owner = orders.get(other.as_str()).map(|order| order.owner.clone());
    let sell = orders.get(trade.sell.as_str());
    Fill {
        trade_id: None,
        order: other.clone(),
        counterparty: owner.unwrap_or_default(),
        provider: sell.and_then(|ask| provider(ask)),
        class: class_name(params, trade.class),
        window: run(trade),
        qty: trade.qty,
        price_msat: trade.msat,
        price_sat: trade.sat,
        code: None,
    }
}

/// Who delivers what an ask resells.
fn provider(order: &Order) -> Option<String> {
    match &order.side {
        matching::Side::Sell { provider, .. } => provider.clone(),
        matching::Side::Buy { .. } => None,
    }
}

fn run(trade: &Trade) -> [u32; 2] {
    [trade.start, trade.start + u32::from(trade.hours)]
}

fn alternatives(order: &Order) -> Vec<(u16, u64)> {
    match &order.side {
        matching::Side::Buy { alts, .. } => alts.clone(),
        matching::Side::Sell { class, limit_msat, .. } => vec![(*class, *limit_msat)],
    }
}

/// Name of a class, or its number if the network has none.
pub(in crate::node) fn class_name(params: &Params, class: u16) -> String {
    params.class(class).map_or_else(|| class.to_string(), |named| named.name.clone())
}

/// Names of feature bits; a bit that the network does not name has none.
pub(in crate::node) fn feature_names(params: &Params, bits: u64) -> Vec<String> {
    let named = params.features.iter().filter(|(_, bit)| bits >> **bit & 1 == 1);
    named.map(|(name, _)| name.clone()).collect()
}
