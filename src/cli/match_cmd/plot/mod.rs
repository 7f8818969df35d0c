//! `capex match --plot`: a matched book as a picture.
//!
//! Above, supply and demand of one class and slot with the clearing price; below, who
//! delivers to whom in all slots of that class. The file stands alone, has a light
//! background and depends on nothing but the book. A large book is cut: the picture says
//! what it leaves out.

mod curves;
mod grid;
mod scale;
mod svg;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;

use thiserror::Error;

use capex_core::matching::{Instance, Order, Outcome, Side, Trade};
use capex_core::reason;
use capex_core::reasons::Reason;
use scale::{counted, grouped};
use svg::{Anchor, Svg};

/// Width of the picture, px: fits a page and a screen.
const WIDTH: i64 = 960;
/// The plotted area, px: on its left stand the names of asks.
const LEFT: i64 = 150;
const RIGHT: i64 = 930;

const STYLE: &str = "
text{font-family:'DejaVu Sans',Verdana,Helvetica,sans-serif;font-size:11px;fill:#1a1a1a}
.t{font-size:19px;font-weight:600}.h{font-size:14px;font-weight:600}.b{font-weight:600}
.halo{paint-order:stroke;stroke:#ffffff;stroke-width:4px;stroke-linejoin:round}
.s{fill:#5a5f66}.light{fill:#ffffff}.dark{fill:#1a1a1a}
line,polyline{fill:none;stroke-width:2}
.grid{stroke:#e9ecef;stroke-width:1}.axis{stroke:#8a9098;stroke-width:1}
.demand{stroke:#d55e00}.supply{stroke:#0072b2}.traded{stroke-width:6}
.clearing{stroke:#1a1a1a;stroke-width:1.5;stroke-dasharray:5 4}
.hover{stroke:#ffffff;stroke-opacity:0;stroke-width:14}
";

/// A picture that is wanted.
#[derive(Debug, Clone)]
pub struct Plot {
    /// File to write.
    pub path: PathBuf,
    /// Class to draw; without one, that of the slot with the most traded units.
    pub class: Option<u16>,
    /// Slot to draw; without one, that with the most traded units.
    pub slot: Option<u32>,
}

/// Why a book has no picture.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum PlotError {
    #[error("the book has no order that could trade")]
    Empty,
    #[error("no order that could trade is of that class and slot")]
    NothingThere,
}

impl PlotError {
    pub(super) fn reason(&self) -> Reason {
        match self {
            Self::Empty => reason!("match.plot_empty"),
            Self::NothingThere => reason!("match.plot_nothing_there"),
        }
    }
}

/// The class and slot of the upper panel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Focus {
    class: u16,
    slot: u32,
}

/// A book with its result, asked by class.
struct PictureBook<'a> {
    instance: &'a Instance,
    live: Vec<&'a Order>,
    outcome: &'a Outcome,
}

/// The picture of a matched book.
///
/// # Errors
/// Nothing can be drawn.
pub(super) fn svg(
    instance: &Instance,
    outcome: &Outcome,
    plot: &Plot,
) -> Result<String, PlotError> {
    // A book that was matched has been checked.
    let live = instance.live().map_err(|_| PlotError::Empty)?;
    let book = PictureBook { instance, live, outcome };
    let focus = book.focus(plot.class, plot.slot)?;
    let mut svg = Svg::default();
    let title = format!("Epoch {}", instance.epoch);
    svg.text((LEFT, 38), Anchor::Start, "t", &title);
    svg.text((LEFT, 60), Anchor::Start, "s", &book.summary());
    let top = 96;
    curves::draw(&book, focus, top, &mut svg);
    let bottom = grid::draw(&book, focus, top + curves::HEIGHT + 40, &mut svg);
    Ok(svg.finish(WIDTH, bottom + 20, &title, STYLE))
}

impl<'a> PictureBook<'a> {
    fn summary(&self) -> String {
        let count = |buy: bool, noun: &str| {
            let is = |order: &&&Order| matches!(order.side, Side::Buy { .. }) == buy;
            counted(self.live.iter().filter(is).count(), noun)
        };
        let paid_sat: u128 = self.outcome.trades.iter().map(|trade| u128::from(trade.sat)).sum();
        format!(
            "{} and {} that can trade, {} for {} sat; gains from trade {} sat",
            count(true, "bid"),
            count(false, "ask"),
            counted(self.outcome.trades.len(), "trade"),
            grouped(paid_sat),
            grouped(self.outcome.welfare_msat / 1000),
        )
    }

    /// The class and slot asked for; else those with the most traded units, the lowest of
    /// equals; else those where the first order begins.
    fn focus(&self, class: Option<u16>, slot: Option<u32>) -> Result<Focus, PlotError> {
        let wanted = |focus: &Focus| {
            class.is_none_or(|class| focus.class == class)
                && slot.is_none_or(|slot| focus.slot == slot)
        };
        let mut units: BTreeMap<(u16, u32), u64> = BTreeMap::new();
        for trade in &self.outcome.trades {
            for slot in slots(trade) {
                *units.entry((trade.class, slot)).or_default() += u64::from(trade.qty);
            }
        }
        let traded = units.into_iter().map(|((class, slot), qty)| (Focus { class, slot }, qty));
        let best = traded
            .filter(|(focus, _)| wanted(focus))
            .reduce(|best, next| if next.1 > best.1 { next } else { best });
        let begins = || {
            let offered = self.live.iter().flat_map(|order| {
                let first = self.first_slot(order);
                let slot = slot.filter(|slot| self.reaches(order, *slot)).unwrap_or(first);
                classes(order).map(move |class| Focus { class, slot })
            });
            offered.filter(wanted).min_by_key(|focus| (focus.class, focus.slot))
        };
        let nothing = if self.live.is_empty() { PlotError::Empty } else { PlotError::NothingThere };
        best.map(|(focus, _)| focus).or_else(begins).ok_or(nothing)
    }

    /// Bids with their limit in a class, msat per block.
    fn bids(&self, class: u16) -> impl Iterator<Item = (&'a Order, u64)> {
        self.live.iter().filter_map(move |order| match &order.side {
            Side::Buy { alts, .. } => {
                let found = alts.iter().find(|(other, _)| *other == class)?;
                Some((*order, found.1))
            }
            Side::Sell { .. } => None,
        })
    }

    /// Asks of a class with their limit, msat per block.
    fn asks(&self, class: u16) -> impl Iterator<Item = (&'a Order, u64)> {
        self.live.iter().filter_map(move |order| match order.side {
            Side::Sell { class: own, limit_msat, .. } if own == class => Some((*order, limit_msat)),
            _ => None,
        })
    }

    fn trades(&self, class: u16) -> impl Iterator<Item = &'a Trade> {
        self.outcome.trades.iter().filter(move |trade| trade.class == class)
    }

    /// Units of each order, by label, that run in a class and slot.
    fn traded(&self, focus: Focus) -> BTreeMap<&'a str, u64> {
        let mut traded = BTreeMap::new();
        for trade in self.trades(focus.class).filter(|trade| slots(trade).contains(&focus.slot)) {
            for label in [&trade.buy, &trade.sell] {
                *traded.entry(label.as_str()).or_default() += u64::from(trade.qty);
            }
        }
        traded
    }

    fn first_slot(&self, order: &Order) -> u32 {
        order.first_slot(self.instance.now)
    }

    /// Whether an order's window holds a slot that can still be delivered.
    fn reaches(&self, order: &Order, slot: u32) -> bool {
        (self.first_slot(order)..order.window.1).contains(&slot)
    }
}

fn slots(trade: &Trade) -> Range<u32> {
    trade.start..trade.start.saturating_add(trade.hours.into())
}

fn classes(order: &Order) -> impl Iterator<Item = u16> {
    let classes: Vec<u16> = match &order.side {
        Side::Buy { alts, .. } => alts.iter().map(|(class, _)| *class).collect(),
        Side::Sell { class, .. } => vec![*class],
    };
    classes.into_iter()
}
