//! `capex order explain`: why an order matched, or did not.

use super::Context;
use super::failure::Failure;
use super::output::{Page, sat, short, side, slots};
use crate::api::types::{
    AcceptedTrade, BestLimit, CounterOrder, Explanation, Fact, Fill, Paradox, Side,
};
use capex_core::reasons::Reason;
use capex_core::units::msat_to_sat;

/// Asks and shows.
///
/// # Errors
/// What the daemon refused.
pub fn run(id: &str, epoch: Option<u64>, context: &mut Context<'_>) -> Result<(), Failure> {
    let query = epoch.map(|epoch| format!("?epoch={epoch}")).unwrap_or_default();
    let found: Explanation = context.client()?.get(&format!("/orders/{id}/explain{query}"))?;
    context.show(&found, |found, page| {
        page.field("order", format_args!("{} in epoch {}", found.id, found.epoch))
            .maybe("standing", found.order_id.as_ref());
        body(found, page);
        page.line(next(found));
    })
}

/// Everything but what the order is called.
pub fn body(found: &Explanation, page: &mut Page) {
    page.field("side", side(found.side));
    let resold = found.provider.as_ref();
    page.maybe("resells", resold.map(|key| format!("capacity of provider {}", short(key))));
    for limit in &found.alternatives {
        let price = msat_to_sat(limit.limit_msat);
        page.field("class", format_args!("{} at {price} sat/block", limit.class));
    }
    page.field("quantity", format_args!("{} (at least {})", found.qty, found.min_qty));
    let run =
        if found.side == Side::Buy { format!(", {} in a row", found.slots) } else { String::new() };
    page.field("slots", format_args!("{}{run}", slots(found.window)));
    let why = found.code.as_ref().map(|code| format!(" [{code}]: {}", because(code)));
    page.field("state", format_args!("{}{}", found.state, why.unwrap_or_default()));
    for fill in &found.fills {
        page.field("got", got(fill));
    }
    // Without a counter-order there is no limit to find, and nothing else to look at.
    for limit in found.best_limits.iter().filter(|_| found.counter_orders > 0) {
        page.field("best price", best(found.side, &found.state, limit));
    }
    if let Some(code) = &found.best_limits_code {
        page.field("best price", format_args!("not tried [{code}]: {}", because(code)));
    }
    match (&found.paradox, found.nearest.first()) {
        (Some(paradox), _) => paradoxical(found.side, paradox, page),
        (None, Some(nearest)) => because_of(&nearest.because, page),
        (None, None) => {}
    }
    funnel(found, page);
    nearest(found, page);
}

/// A trade in one line.
pub fn got(fill: &Fill) -> String {
    let void = fill.code.as_ref().map(|code| format!(", void [{code}]")).unwrap_or_default();
    let of = short(&fill.counterparty);
    let (qty, class, window) = (fill.qty, &fill.class, slots(fill.window));
    let resold = fill.provider.as_ref().map(|key| format!(", resold, of provider {}", short(key)));
    let resold = resold.unwrap_or_default();
    format!("{qty} × {class} in {window} with {of}{resold} for {}{void}", sat(fill.price_sat))
}

fn best(side: Side, state: &str, found: &BestLimit) -> String {
    if let Some(code) = &found.code {
        return indicated(side, found, code);
    }
    let Some(limit_msat) = found.limit_msat else {
        return format!("{}: no price matches it; see what else it asks for", found.class);
    };
    if side == Side::Buy && limit_msat == 1 {
        return format!("{}: any limit matches", found.class);
    }
    let price = |msat: u64| msat_to_sat(msat).to_string();
    let (edge, worse) = match side {
        Side::Buy => ("from", limit_msat.saturating_sub(1)),
        Side::Sell => ("up to", limit_msat.saturating_add(1)),
    };
    let verb = if state == "unmatched" { "would match" } else { "matches" };
    format!(
        "{}: {verb} {edge} {} sat/block ({} units), at {} it gets nothing",
        found.class,
        price(limit_msat),
        found.qty,
        price(worse)
    )
}

/// A limit by version 1 that the network's version does not confirm.
fn indicated(side: Side, found: &BestLimit, code: &str) -> String {
    let rest = format!("by version 1 of the rules; not confirmed [{code}]");
    let Some(limit_msat) = found.limit_msat else {
        return format!("{}: perhaps none, {rest}", found.class);
    };
    let edge = if side == Side::Buy { "from" } else { "up to" };
    format!("{}: perhaps {edge} {} sat/block, {rest}", found.class, msat_to_sat(limit_msat))
}

fn paradoxical(side: Side, found: &Paradox, page: &mut Page) {
    let than = if side == Side::Buy { "above" } else { "below" };
    page.field(
        "paradoxical",
        format_args!(
            "rejected in the money: its limit for {} of {} is {} sat, {than} the published {} sat [{}]",
            slots(found.window),
            found.class,
            msat_to_sat(found.limit_msat),
            msat_to_sat(found.market_msat),
            found.code
        ),
    );
    because_of(&found.because, page);
}

fn because_of(trades: &[AcceptedTrade], page: &mut Page) {
    for trade in trades {
        page.field("because of", accepted(trade));
    }
}

fn accepted(trade: &AcceptedTrade) -> String {
    format!(
        "bid {} and ask {}: {} × {} in {} for {} sat",
        short(&trade.buy),
        short(&trade.sell),
        trade.qty,
        trade.class,
        slots(trade.window),
        msat_to_sat(trade.price_msat)
    )
}

fn funnel(found: &Explanation, page: &mut Page) {
    let other = if found.side == Side::Buy { "asks" } else { "bids" };
    let rows = found.funnel.iter().filter(|step| step.tried > 0).map(|step| {
        let stopped = step.tried - step.passed;
        [
            step.rule.clone(),
            step.tried.to_string(),
            step.passed.to_string(),
            match stopped {
                0 => String::new(),
                _ => format!("{stopped} stopped by {}", step.code),
            },
        ]
    });
    page.table(["rule", other, "passed", ""], rows, &format!("no {other} in that epoch"));
}

fn nearest(found: &Explanation, page: &mut Page) {
    if found.nearest.is_empty() {
        return;
    }
    let row = |counter: &CounterOrder| {
        let fact = |fact: &Option<Fact>| fact.as_ref().map(text).unwrap_or_default();
        [
            short(&counter.id),
            match &counter.provider {
                Some(provider) => format!("{} of {}", short(&counter.owner), short(provider)),
                None => short(&counter.owner),
            },
            format!("{} × {} sat", counter.qty, msat_to_sat(counter.limit_msat)),
            slots(counter.window),
            match &counter.code {
                Some(code) => code.clone(),
                None => format!("traded {}", counter.traded_qty),
            },
            fact(&counter.own),
            fact(&counter.theirs),
        ]
    };
    let kind = if found.side == Side::Buy { "ask" } else { "bid" };
    let headings = [kind, "owner", "limit", "slots", "stopped by", "own", "theirs"];
    page.table(headings, found.nearest.iter().map(row), "");
    let more =
        found.counter_orders as usize - found.nearest.len().min(found.counter_orders as usize);
    if more > 0 {
        page.line(format_args!("and {more} further ones"));
    }
}

fn text(fact: &Fact) -> String {
    match fact {
        Fact::Live(_) => "takes part".to_owned(),
        Fact::Code(code) => code.clone(),
        Fact::Classes(classes) => classes.join(", "),
        Fact::Run { window, slots: run } => format!("{run} in {}", slots(*window)),
        Fact::Key(key) => short(key),
        Fact::Features(names) if names.is_empty() => "none".to_owned(),
        Fact::Features(names) => names.join(", "),
        Fact::Slots(count) => format!("{count} slots"),
        Fact::LimitMsat(msat) => format!("{} sat", msat_to_sat(*msat)),
        Fact::RunMsat(msat) => format!("{} sat a run", msat_to_sat(*msat)),
        Fact::Qty(qty) => format!("{qty} units"),
        Fact::Asks(asks) => format!("{asks} asks"),
    }
}

/// A reason code in words.
pub(super) fn because(code: &str) -> &'static str {
    Reason::find(code).map_or("see docs/api.md", Reason::sentence)
}

/// What to do now.
fn next(found: &Explanation) -> &'static str {
    let buys = found.side == Side::Buy;
    match found.code.as_deref() {
        None if found.fills.iter().any(|fill| fill.code.is_some()) => {
            "Next: ask for more blocks in one trade, or a later window: see `capex order show`"
        }
        None => "Next: capex trade list",
        Some("explain.class") if buys => "Next: accept another class with --or CLASS=PRICE",
        Some("explain.window" | "explain.window_past") => {
            "Next: choose another window with --from and --for, or fewer --slots"
        }
        Some("explain.features") if buys => "Next: leave out --feature, or wait for an offer",
        Some("explain.min_run") if buys => "Next: ask for a longer run with --slots and --for",
        Some("explain.min_run") => "Next: accept shorter runs with --min-run",
        Some("explain.allow" | "explain.deny") => "Next: look at --allow and --deny of both sides",
        Some("explain.gang") if buys => "Next: leave out --gang, or lower --min-qty",
        Some("explain.max_legs") if buys => "Next: lower --min-qty, or place several orders",
        Some("explain.min_fill") if buys => "Next: lower --min-qty, or wait for more offers",
        Some("explain.limit" | "explain.promised_price" | "explain.taken") if buys => {
            "Next: raise --max-price to the best price, or look for other slots: `capex book`"
        }
        Some("explain.limit" | "explain.promised_price") => {
            "Next: lower --price to the best price, or look for other slots: `capex book`"
        }
        Some(_) => "Next: capex book",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use capex_core::matching::explain::{Constraint, Dropped};

    #[test]
    fn every_reason_has_words() {
        let dropped = [Dropped::Cancelled, Dropped::Expired, Dropped::Filled];
        let codes = Constraint::ALL.map(Constraint::code).into_iter();
        for code in codes.chain(dropped.map(Dropped::code)) {
            assert_ne!(because(code), because("none such"), "{code}");
        }
    }
}
