//! Standing orders, the book, peers.

use std::collections::BTreeMap;

use crate::api::types::{
    Book, BookOrder, ClassDepth, ClassLimit, Depth, Level, Mode, Order, Side, SignedOrder,
    SlotDepth, TimeInForce, slot_range,
};
use crate::api::{ApiError, Listed, Noun, Page, Place, Prefix};
use crate::clock::now_ms;
use crate::node::Node;
use crate::node::offload::prices;
use capex_core::engine::market::TimeInForce as Force;
use capex_core::engine::market::depth::{self as market, depth};
use capex_core::engine::market::{EpochView, Standing};
use capex_core::epoch::{Phase, computed_at_ms, epoch_at};
use capex_core::ids::{Key, to_hex};
use capex_core::order;
use capex_core::reason;
use capex_core::units::Window;
use capex_core::wire::Verified;

/// Orders of one side that a book shows: more is noise on a screen.
const BOOK_DEPTH: usize = 200;

impl Node {
    pub(super) fn orders(&self, page: Page) -> Listed<Order> {
        let place = |order: &Standing| Place { number: order.placed_at_ms, id: order.id.0 };
        let standing = self.engine().market().standing();
        page.cut(standing.map(|order| (place(order), order))).map(|order| self.order_dto(order))
    }

    pub(super) fn order(&self, prefix: &Prefix) -> Result<Order, ApiError> {
        // By its own id, or by that of the order with which it stands in the book.
        let is_meant = |standing: &&Standing| {
            let appears = standing.last_order.is_some_and(|order| prefix.matches(&order.0));
            appears || prefix.matches(&standing.id.0)
        };
        let standing = self.engine().market().standing();
        Ok(self.order_dto(prefix.find_by(Noun::Order, standing, is_meant)?))
    }

    fn order_dto(&self, standing: &Standing) -> Order {
        let spec = &standing.spec;
        let alternatives: Vec<ClassLimit> = spec
            .alts
            .iter()
            .map(|alt| ClassLimit { class: self.class_name(alt.class), limit_msat: alt.limit_msat })
            .collect();
        let (time_in_force, expires_at) = time_in_force(spec.time_in_force);
        let signed = standing.last_epoch.zip(standing.last_order).map(|(epoch, order)| {
            let known = self.engine().market().epochs.order(epoch, &order);
            SignedOrder { epoch, id: order.to_string(), qty: known.map_or(spec.qty, |o| o.qty) }
        });
        Order {
            order_id: standing.id.to_string(),
            placed_at: standing.placed_at_ms,
            side: side(spec.side),
            class: alternatives.first().map(|alt| alt.class.clone()).unwrap_or_default(),
            limit_msat: alternatives.first().map_or(0, |alt| alt.limit_msat),
            alternatives,
            qty: spec.qty,
            all_spare: spec.is_spare,
            filled_qty: standing.filled.saturating_add(standing.matched.values().sum()),
            min_qty: spec.min_qty,
            mode: mode(spec.mode),
            window: slot_range(spec.window),
            slots: spec.slots,
            features: self.feature_names(spec.features),
            time_in_force,
            expires_at,
            beneficiary: spec.beneficiary.map(|key| key.to_string()),
            use_by: spec.use_by,
            recall: spec.is_recallable,
            max_fee_sat: spec.fees.cap_sat,
            max_fee_percent: spec.fees.share_percent,
            cert_id: spec.cert.map(|cert| cert.to_string()),
            offers: standing.offers.iter().map(|offer| offer.cert.to_string()).collect(),
            workload: self
                .engine()
                .leases()
                .workload_of_order(&standing.id)
                .map(|kind| kind.name().to_owned()),
            state: standing.state.name().to_owned(),
            code: standing.note.clone(),
            signed: signed.into_iter().collect(),
        }
    }

    pub(super) fn book(&self, class: &str) -> Result<Book, ApiError> {
        let params = self.engine().params();
        let class = params.class_named(class).ok_or_else(|| {
            ApiError::new(reason!("order.unknown_class"), "no such resource class")
        })?;
        let id = class.floors.id;
        let epochs = &self.engine().market().epochs;
        let (epoch, view) = self.shown_epoch();
        let (mut bids, mut asks) = self.sides(view, id);
        bids.sort_by(|a, b| b.limit_msat.cmp(&a.limit_msat).then(a.id.cmp(&b.id)));
        asks.sort_by(|a, b| a.limit_msat.cmp(&b.limit_msat).then(a.id.cmp(&b.id)));
        bids.truncate(BOOK_DEPTH);
        asks.truncate(BOOK_DEPTH);
        let last = epochs.iter().filter_map(|(_, view)| view.result.as_ref()).last();
        let prices = last
            .map(|result| prices(self.engine().params(), &result.prices, Some(id)))
            .unwrap_or_default();
        Ok(Book {
            epoch,
            class: class.name.clone(),
            first_slot: params.first_slot(epoch),
            bids,
            asks,
            prices,
            depth: self.slot_depths(&orders_of(view), epoch, id),
        })
    }

    /// The open epoch, or the last one that had orders while this one has none yet.
    pub(super) fn shown_epoch(&self) -> (u64, Option<&EpochView>) {
        let now = epoch_at(now_ms(), self.engine().params());
        let with_orders = self.engine().market().epochs.iter();
        with_orders
            .filter(|(epoch, view)| *epoch <= now && !view.set.is_empty())
            .last()
            .map_or((now, None), |(epoch, view)| (epoch, Some(view)))
    }

    pub(super) fn depth(&self, class: Option<&str>) -> Result<Depth, ApiError> {
        let params = self.engine().params();
        let (now, (epoch, view)) = (now_ms(), self.shown_epoch());
        let book = orders_of(view);
        let wanted = params.classes.iter().filter(|known| class.is_none_or(|c| c == known.name));
        let classes = wanted.map(|known| ClassDepth {
            class: known.name.clone(),
            slots: self.slot_depths(&book, epoch, known.floors.id),
        });
        Ok(Depth {
            at: now,
            epoch,
            phase: Phase::at(now, params).name().to_owned(),
            epoch_ends_at: computed_at_ms(epoch_at(now, params), params),
            orders: u32::try_from(book.len()).unwrap_or(u32::MAX),
            classes: classes.filter(|found| class.is_some() || !found.slots.is_empty()).collect(),
        })
    }

    fn slot_depths(&self, book: &[&order::Order], epoch: u64, class: u16) -> Vec<SlotDepth> {
        let mut last = BTreeMap::new();
        for (_, view) in self.engine().market().epochs.iter() {
            let prices = view.result.iter().flat_map(|result| &result.prices);
            let of_class = prices.filter(|price| price.0 == class);
            last.extend(of_class.map(|&(_, slot, price_msat)| (slot, price_msat)));
        }
        let rows = depth(book, class, self.engine().params().first_slot(epoch));
        rows.iter().flat_map(|row| by_price(row, &last)).collect()
    }

    fn sides(&self, view: Option<&EpochView>, class: u16) -> (Vec<BookOrder>, Vec<BookOrder>) {
        let me = self.engine().me();
        let mut sides = (Vec::new(), Vec::new());
        for order in view.map(|view| view.set.book()).unwrap_or_default() {
            let Some(alt) = order.alts.iter().find(|alt| alt.class == class) else { continue };
            let shown = book_order(order, alt.limit_msat, me);
            match order.side {
                order::Side::Buy => sides.0.push(shown),
                order::Side::Sell => sides.1.push(shown),
            }
        }
        sides
    }
}

/// The best that bids of others would pay for a block of a class in a window now, msat.
pub(super) fn best_bid_msat(
    book: &[&order::Order],
    me: Key,
    (class, features, window): (u16, u64, Window),
) -> Option<u64> {
    let fits = |bid: &&&order::Order| {
        let start = bid.window.start.max(window.start);
        let shared = bid.window.end.min(window.end).saturating_sub(start);
        bid.side == order::Side::Buy
            && bid.owner != me
            && bid.features & !features == 0
            && shared >= u32::from(bid.slots)
    };
    let limits = book.iter().filter(fits).flat_map(|bid| &bid.alts);
    limits.filter(|alt| alt.class == class).map(|alt| alt.limit_msat).max()
}

pub(super) fn orders_of(view: Option<&EpochView>) -> Vec<&order::Order> {
    let book = view.map(|view| view.set.book()).unwrap_or_default();
    book.into_iter().map(|order| &**order).collect()
}

/// A row of the depth, cut where the last clearing price changes.
fn by_price(row: &market::Depth, last: &BTreeMap<u32, u64>) -> Vec<SlotDepth> {
    let mut rows: Vec<SlotDepth> = Vec::new();
    for slot in row.window.start..row.window.end {
        let last_price_msat = last.get(&slot).copied();
        match rows.last_mut() {
            Some(before) if before.last_price_msat == last_price_msat => before.window[1] += 1,
            _ => {
                let window = [slot, slot + 1];
                rows.push(SlotDepth { window, last_price_msat, ..slot_depth(row) });
            }
        }
    }
    rows
}

fn slot_depth(row: &market::Depth) -> SlotDepth {
    let levels = |ladder: &market::Ladder| {
        let mut cumulative_qty = 0;
        let level = |level: &market::Level| {
            cumulative_qty += level.qty;
            Level { limit_msat: level.limit_msat, qty: level.qty, cumulative_qty }
        };
        ladder.levels.iter().map(level).collect::<Vec<Level>>()
    };
    let (asks, bids) = (levels(&row.asks), levels(&row.bids));
    SlotDepth {
        window: slot_range(row.window),
        best_ask_msat: asks.first().map(|level| level.limit_msat),
        ask_qty: asks.first().map_or(0, |level| level.qty),
        ask_total_qty: row.asks.total,
        best_bid_msat: bids.first().map(|level| level.limit_msat),
        bid_qty: bids.first().map_or(0, |level| level.qty),
        bid_total_qty: row.bids.total,
        asks,
        bids,
        last_price_msat: None,
    }
}

fn book_order(order: &Verified<order::Order>, limit_msat: u64, me: Key) -> BookOrder {
    BookOrder {
        id: to_hex(&order.id()),
        owner: order.owner.to_string(),
        limit_msat,
        qty: order.qty,
        min_qty: order.min_qty,
        window: slot_range(order.window),
        slots: order.slots,
        own: order.owner == me,
    }
}

pub(super) fn side(side: order::Side) -> Side {
    match side {
        order::Side::Buy => Side::Buy,
        order::Side::Sell => Side::Sell,
    }
}

fn mode(mode: order::Mode) -> Mode {
    match mode {
        order::Mode::Sticky => Mode::Sticky,
        order::Mode::Gang => Mode::Gang,
    }
}

fn time_in_force(time: Force) -> (TimeInForce, Option<u64>) {
    match time {
        Force::GoodTillCancelled => (TimeInForce::Gtc, None),
        Force::GoodTillTime(until_ms) => (TimeInForce::Gtt, Some(until_ms)),
        Force::ImmediateOrCancel => (TimeInForce::Ioc, None),
        Force::FillOrKill => (TimeInForce::Fok, None),
    }
}
