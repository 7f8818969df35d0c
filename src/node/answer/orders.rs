//! Standing orders, the book, peers.

use crate::api::types::{
    Book, BookOrder, ClassLimit, Mode, Order, Peer, Side, SignedOrder, SlotPrice, TimeInForce,
    slot_range,
};
use crate::api::{ApiError, Prefix};
use crate::domain::engine::io;
use crate::domain::engine::market::{EpochView, Standing};
use crate::domain::epoch::epoch_at;
use crate::domain::ids::{Key, to_hex};
use crate::domain::order;
use crate::node::{Node, now_ms};
use crate::wire::Verified;

/// Orders of one side that a book shows: more is noise on a screen.
const BOOK_DEPTH: usize = 200;

impl Node {
    pub(super) fn orders(&self) -> Vec<Order> {
        let mut standing: Vec<&Standing> = self.engine.market().standing().collect();
        standing.sort_by_key(|order| std::cmp::Reverse((order.placed_at_ms, order.id)));
        standing.into_iter().map(|order| self.order_dto(order)).collect()
    }

    pub(super) fn order(&self, prefix: &Prefix) -> Result<Order, ApiError> {
        let appears = |standing: &&Standing| {
            standing.last_order.is_some_and(|order| prefix.matches(&order.0))
        };
        if let Some(standing) = self.engine.market().standing().find(appears) {
            return Ok(self.order_dto(standing));
        }
        let found = prefix.find("order", self.engine.market().standing(), |order| order.id.0)?;
        Ok(self.order_dto(found))
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
            let known = self.engine.market().epochs.order(epoch, &order);
            SignedOrder { epoch, id: order.to_string(), qty: known.map_or(spec.qty, |o| o.qty) }
        });
        Order {
            order_id: standing.id.to_string(),
            side: side(spec.side),
            class: alternatives.first().map(|alt| alt.class.clone()).unwrap_or_default(),
            limit_msat: alternatives.first().map_or(0, |alt| alt.limit_msat),
            alternatives,
            qty: spec.qty,
            filled_qty: standing.filled.saturating_add(standing.matched.values().sum()),
            min_qty: spec.min_qty,
            mode: mode(spec.mode),
            window: slot_range(spec.window),
            slots: spec.slots,
            features: self.feature_names(spec.features),
            time_in_force,
            expires_at,
            beneficiary: spec.beneficiary.map(|key| key.to_string()),
            state: standing.state.name().to_owned(),
            code: standing.note.clone(),
            signed: signed.into_iter().collect(),
        }
    }

    pub(super) fn book(&self, class: &str) -> Result<Book, ApiError> {
        let params = self.engine.params();
        let class = params
            .class_named(class)
            .ok_or_else(|| ApiError::new(404, "class.not_found", "no such resource class"))?;
        let id = class.floors.id;
        let epochs = &self.engine.market().epochs;
        let now = epoch_at(now_ms(), params);
        // The open epoch, or the last one that had orders while this one has none yet.
        let (epoch, view) = epochs
            .iter()
            .filter(|(epoch, view)| *epoch <= now && !view.set.is_empty())
            .last()
            .map_or((now, None), |(epoch, view)| (epoch, Some(view)));
        let (mut bids, mut asks) = self.sides(view, id);
        bids.sort_by(|a, b| b.limit_msat.cmp(&a.limit_msat).then(a.id.cmp(&b.id)));
        asks.sort_by(|a, b| a.limit_msat.cmp(&b.limit_msat).then(a.id.cmp(&b.id)));
        bids.truncate(BOOK_DEPTH);
        asks.truncate(BOOK_DEPTH);
        let last = epochs.iter().filter_map(|(_, view)| view.result.as_ref()).last();
        let prices = last.map(|result| self.prices(&result.prices, Some(id))).unwrap_or_default();
        Ok(Book {
            epoch,
            class: class.name.clone(),
            first_slot: params.first_slot(epoch),
            bids,
            asks,
            prices,
        })
    }

    fn sides(&self, view: Option<&EpochView>, class: u16) -> (Vec<BookOrder>, Vec<BookOrder>) {
        let me = self.engine.me();
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

    pub(super) fn prices(
        &self,
        prices: &[crate::domain::epoch::SlotPrice],
        class: Option<u16>,
    ) -> Vec<SlotPrice> {
        prices
            .iter()
            .filter(|(of, _, _)| class.is_none_or(|class| class == *of))
            .map(|&(class, slot, price_msat)| SlotPrice {
                class: self.class_name(class),
                slot,
                price_msat,
            })
            .collect()
    }

    pub(super) fn peers(&self) -> Vec<Peer> {
        let connected = self.engine.peers();
        let known = self.peers.iter().map(|(key, _)| key).chain(connected);
        let keys: std::collections::BTreeSet<Key> = known.copied().collect();
        keys.into_iter()
            .map(|key| Peer {
                key: key.to_string(),
                connected: connected.contains(&key),
                addresses: self.peers.addrs(&key),
            })
            .collect()
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

fn time_in_force(time: io::TimeInForce) -> (TimeInForce, Option<u64>) {
    match time {
        io::TimeInForce::GoodTillCancelled => (TimeInForce::Gtc, None),
        io::TimeInForce::GoodTillTime(until_ms) => (TimeInForce::Gtt, Some(until_ms)),
        io::TimeInForce::ImmediateOrCancel => (TimeInForce::Ioc, None),
        io::TimeInForce::FillOrKill => (TimeInForce::Fok, None),
    }
}
