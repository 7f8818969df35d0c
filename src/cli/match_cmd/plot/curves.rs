//! Supply and demand of one class and slot, as step curves with the clearing price.

use std::cmp::Reverse;

use super::scale::{Scale, cut, grouped, sat};
use super::svg::{Anchor, Svg};
use super::{Focus, LEFT, PictureBook, RIGHT};
use capex_core::matching::Order;

/// Height of the panel with its axis.
pub(super) const HEIGHT: i64 = 380;

/// Above the axes: heading and legend.
const HEAD: i64 = 52;
/// Below the axes: ticks and name of the axis.
const FOOT: i64 = 44;
/// An axis ends here times what trades, or prices: what lies beyond is far from the money.
const ZOOM: u64 = 3;
/// Steps with a text under the pointer, for each curve; the line itself has all.
const TITLED_STEPS_MAX: usize = 200;

/// One order as a step of its curve.
struct Step<'a> {
    label: &'a str,
    limit_msat: u64,
    units: u64,
    /// Units that trade in this slot.
    traded: u64,
}

struct Axes {
    units: Scale,
    price: Scale,
}

/// Draws the panel below `top`.
pub(super) fn draw(book: &PictureBook<'_>, focus: Focus, top: i64, svg: &mut Svg) {
    let demand = demand(book, focus);
    let supply = supply(book, focus);
    let price_msat = book.outcome.prices.get(&(focus.class, focus.slot)).copied();
    let traded: u64 = demand.iter().map(|step| step.traded).sum();
    let axes = axes(&demand, &supply, price_msat, traded, top);
    let heading = format!("Supply and demand of class {} in slot {}", focus.class, focus.slot);
    svg.text((LEFT, top), Anchor::Start, "h", &heading);
    legend(top + 20, svg);
    frame(&axes, svg);
    curve(&supply, &axes, axes.price.to, ("supply", "ask", "no less than"), svg);
    curve(&demand, &axes, axes.price.from, ("demand", "bid", "no more than"), svg);
    if let Some(price_msat) = price_msat {
        clearing(&axes, price_msat, traded, svg);
    }
    let notes = notes(&demand, &supply, &axes, price_msat);
    svg.text((LEFT, top + HEIGHT - 8), Anchor::Start, "s", &notes.join("; "));
}

fn demand<'a>(book: &PictureBook<'a>, focus: Focus) -> Vec<Step<'a>> {
    let mut steps = steps(book, focus, book.bids(focus.class));
    steps.sort_by_key(|step| (Reverse(step.limit_msat), step.label));
    steps
}

fn supply<'a>(book: &PictureBook<'a>, focus: Focus) -> Vec<Step<'a>> {
    let mut steps = steps(book, focus, book.asks(focus.class));
    steps.sort_by_key(|step| (step.limit_msat, step.label));
    steps
}

fn steps<'a>(
    book: &PictureBook<'a>,
    focus: Focus,
    orders: impl Iterator<Item = (&'a Order, u64)>,
) -> Vec<Step<'a>> {
    let traded = book.traded(focus);
    orders
        .filter(|(order, _)| book.reaches(order, focus.slot))
        .map(|(order, limit_msat)| Step {
            label: &order.id,
            limit_msat,
            units: u64::from(order.units_left()),
            traded: traded.get(order.id.as_str()).copied().unwrap_or(0),
        })
        .collect()
}

fn total(steps: &[Step<'_>]) -> u64 {
    steps.iter().map(|step| step.units).sum()
}

fn axes(
    demand: &[Step<'_>],
    supply: &[Step<'_>],
    price_msat: Option<u64>,
    traded: u64,
    top: i64,
) -> Axes {
    let mut units = total(demand).max(total(supply)).max(1);
    if traded > 0 {
        units = units.min(traded.saturating_mul(ZOOM));
    }
    let limits = || demand.iter().chain(supply).map(|step| step.limit_msat);
    let (mut low, mut high) = (limits().min().unwrap_or(0), limits().max().unwrap_or(1));
    if let Some(price_msat) = price_msat {
        low = low.max(price_msat / ZOOM).min(price_msat);
        high = high.min(price_msat.saturating_mul(ZOOM)).max(price_msat);
    }
    // A little air, so that no step lies on the frame.
    let units = units.saturating_add(units.div_ceil(20));
    let air = ((high - low) / 12).max(high / 50).max(1);
    let (low, high) = (low.saturating_sub(air), high.saturating_add(air));
    Axes {
        units: Scale::new(0, units, 10, LEFT, RIGHT),
        price: Scale::new(low, high, 6, top + HEIGHT - FOOT, top + HEAD),
    }
}

fn legend(y: i64, svg: &mut Svg) {
    let samples = [
        ("demand", "demand: bids that may run in this slot"),
        ("supply", "supply: asks open in this slot"),
        ("thick", "thick: trades in this slot"),
    ];
    let mut x = LEFT;
    for (class, text) in samples {
        let line = if class == "thick" { "demand traded" } else { class };
        svg.line((x, y - 4), (x + 22, y - 4), line);
        if class == "thick" {
            svg.line((x + 22, y - 4), (x + 44, y - 4), "supply traded");
            x += 22;
        }
        svg.text((x + 30, y), Anchor::Start, "s", text);
        x += 54 + 6 * text.chars().count() as i64;
    }
}

fn frame(axes: &Axes, svg: &mut Svg) {
    let bottom = axes.price.px(axes.price.from);
    for tick in axes.price.ticks() {
        let y = axes.price.px(tick);
        svg.line((LEFT, y), (RIGHT, y), if y == bottom { "axis" } else { "grid" });
        svg.text((LEFT - 8, y + 4), Anchor::End, "s", &sat(tick));
    }
    for tick in axes.units.ticks() {
        let x = axes.units.px(tick);
        svg.line((x, bottom), (x, bottom + 5), "axis");
        svg.text((x, bottom + 19), Anchor::Middle, "s", &grouped(tick));
    }
    let top = axes.price.px(axes.price.to);
    svg.text((LEFT - 8, top - 12), Anchor::End, "s", "sat per block");
    svg.text((RIGHT, bottom + 36), Anchor::End, "s", "blocks");
}

fn clearing(axes: &Axes, price_msat: u64, traded: u64, svg: &mut Svg) {
    let (x, y) = (axes.units.px(traded), axes.price.px(price_msat));
    let bottom = axes.price.px(axes.price.from);
    svg.titled(&format!("clearing price {} sat per block", sat(price_msat)), |svg| {
        svg.line((LEFT, y), (RIGHT, y), "clearing");
    });
    svg.titled(&format!("{} blocks trade in this slot", grouped(traded)), |svg| {
        svg.line((x, y), (x, bottom), "clearing");
    });
    let price = format!("clearing price {} sat", sat(price_msat));
    svg.text((RIGHT, y - 7), Anchor::End, "b halo", &price);
    let quantity = format!("{} blocks traded", grouped(traded));
    if x > (LEFT + RIGHT) / 2 {
        svg.text((x - 7, bottom - 8), Anchor::End, "b halo", &quantity);
    } else {
        svg.text((x + 7, bottom - 8), Anchor::Start, "b halo", &quantity);
    }
}

/// The steps from left to right, up to the end of the axis; what trades is drawn thick.
fn curve(
    steps: &[Step<'_>],
    axes: &Axes,
    ends_at_msat: u64,
    (class, side, sense): (&str, &str, &str),
    svg: &mut Svg,
) {
    let mut points = Vec::new();
    let mut thick = Vec::new();
    let mut units: u64 = 0;
    for (number, step) in steps.iter().enumerate() {
        let (from, y) = (axes.units.px(units), axes.price.px(step.limit_msat));
        let traded_to = axes.units.px(units + step.traded.min(step.units));
        units += step.units;
        let to = axes.units.px(units);
        if to == from {
            continue; // Narrower than a pixel, or beyond the axis.
        }
        points.extend([(from, y), (to, y)]);
        if number < TITLED_STEPS_MAX {
            let Step { label, limit_msat, units, traded } = step;
            let title = format!(
                "{side} {}: {} blocks at {sense} {} sat, of which {} trade here",
                cut(label, 80),
                grouped(units),
                sat(*limit_msat),
                grouped(traded)
            );
            thick.push((title, (from, y), (to, y), (traded_to, y)));
        }
    }
    if units <= axes.units.to && !points.is_empty() {
        points.push((axes.units.px(units), axes.price.px(ends_at_msat)));
    }
    svg.path(&points, class);
    for (title, from, to, traded_to) in thick {
        svg.titled(&title, |svg| {
            if traded_to.0 > from.0 {
                svg.line(from, traded_to, &format!("{class} traded"));
            }
            svg.line(from, to, "hover");
        });
    }
}

/// What the axes leave out, and what looks wrong but is not.
fn notes(
    demand: &[Step<'_>],
    supply: &[Step<'_>],
    axes: &Axes,
    price_msat: Option<u64>,
) -> Vec<String> {
    let mut notes = Vec::new();
    for (name, steps) in [("demand", demand), ("supply", supply)] {
        let all = total(steps);
        if steps.is_empty() {
            notes.push(format!("no {name}"));
        } else if all > axes.units.to {
            notes.push(format!("{name} goes on to {} blocks", grouped(all)));
        }
    }
    let beyond = |step: &&Step<'_>| !(axes.price.from..=axes.price.to).contains(&step.limit_msat);
    let beyond = demand.iter().chain(supply).filter(beyond).count();
    if beyond > 0 {
        notes.push(format!("{beyond} limits beyond the axis are drawn at its end"));
    }
    let price_msat = price_msat.unwrap_or(0);
    let trades = |step: &&Step<'_>| step.traded > 0;
    if demand.iter().filter(trades).any(|step| step.limit_msat < price_msat)
        || supply.iter().filter(trades).any(|step| step.limit_msat > price_msat)
    {
        notes.push("limits bind the sum over a run, not each slot".to_owned());
    }
    notes
}
