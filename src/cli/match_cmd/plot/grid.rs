//! Who delivers what to whom: slots from left to right, the asks of one class as rows with a
//! lane for each unit, trades as blocks in the colour of their bid.

use std::collections::{BTreeMap, BTreeSet};

use super::scale::{counted, cut, grouped, sat};
use super::svg::{Anchor, Area, Svg};
use super::{Focus, LEFT, PictureBook, RIGHT};
use capex_core::matching::{Order, Side, Trade};

/// Columns: narrower than this and no label fits.
const SLOTS_MAX: u32 = 48;
/// Widest column.
const COLUMN_MAX_PX: i64 = 110;
/// Rows of one picture: about two screens.
const ASKS_MAX: usize = 16;
/// Lanes of one ask; the label of a block tells its units.
const LANES_MAX: u32 = 6;
/// Bids explained below the grid.
const BIDS_MAX: usize = 24;

const LANE_PX: i64 = 18;
/// A row holds two lines of text.
const ROW_MIN_PX: i64 = 36;
const ROW_GAP_PX: i64 = 8;
/// Heading, slots and prices.
const HEAD: i64 = 76;
/// One line of the list of bids, in two columns.
const BID_PX: i64 = 20;
/// Characters for which a column of that list has room.
const BID_CHARS: usize = 56;
/// Width of a character in blocks and lists, px.
const CHAR_PX: i64 = 7;

/// Fill and text colours that people with any colour vision tell apart (Okabe and Ito, 2008).
const COLOURS: [(&str, &str); 7] = [
    ("#e69f00", "#1a1a1a"),
    ("#56b4e9", "#1a1a1a"),
    ("#009e73", "#ffffff"),
    ("#f0e442", "#1a1a1a"),
    ("#0072b2", "#ffffff"),
    ("#d55e00", "#ffffff"),
    ("#cc79a7", "#1a1a1a"),
];

/// An ask with its place.
struct Row<'a> {
    order: &'a Order,
    limit_msat: u64,
    lanes: u32,
    top: i64,
    height: i64,
    blocks: Vec<Block<'a>>,
}

/// A trade on consecutive lanes.
struct Block<'a> {
    trade: &'a Trade,
    lane: u32,
    lanes: u32,
}

/// The part of the book that is drawn.
struct Layout<'a> {
    first_slot: u32,
    end_slot: u32,
    column_px: i64,
    rows: Vec<Row<'a>>,
    /// Numbers of the bids that trade here, by their first block.
    bids: BTreeMap<&'a str, usize>,
    left_out: Vec<String>,
    bottom: i64,
}

/// Draws the panel below `top` and says where it ends.
pub(super) fn draw(book: &PictureBook<'_>, focus: Focus, top: i64, svg: &mut Svg) -> i64 {
    let layout = layout(book, focus, top);
    let heading = format!("Who delivers class {} to whom", focus.class);
    svg.text((LEFT, top), Anchor::Start, "h", &heading);
    let what = "a row is an ask, a lane one of its units; grey is offered, a colour is a bid";
    svg.text((LEFT, top + 20), Anchor::Start, "s", what);
    header(book, focus, &layout, top, svg);
    for row in &layout.rows {
        draw_row(row, book, &layout, svg);
    }
    let y = bids(book, focus, &layout, layout.bottom + 26, svg);
    svg.text((LEFT, y), Anchor::Start, "s", &layout.left_out.join("; "));
    y + 10
}

fn layout<'a>(book: &PictureBook<'a>, focus: Focus, top: i64) -> Layout<'a> {
    let mut left_out = Vec::new();
    let (first_slot, end_slot) = slots(book, focus, &mut left_out);
    let shown = |order: &Order| order.window.1 > first_slot && book.first_slot(order) < end_slot;
    let mut asks: Vec<_> = book.asks(focus.class).filter(|(order, _)| shown(order)).collect();
    let visible = |trade: &&Trade| {
        let run = super::slots(trade);
        run.end > first_slot && run.start < end_slot
    };
    let sellers: BTreeSet<&str> =
        book.trades(focus.class).filter(visible).map(|trade| trade.sell.as_str()).collect();
    let sells = |order: &Order| sellers.contains(order.id.as_str());
    asks.sort_by_key(|(order, limit_msat)| (!sells(order), *limit_msat, &order.id));
    if asks.len() > ASKS_MAX {
        left_out.push(counted(asks.len() - ASKS_MAX, "more ask"));
        asks.truncate(ASKS_MAX);
    }
    let mut y = top + HEAD;
    let (mut rows, mut crowded_out) = (Vec::new(), 0);
    for (order, limit_msat) in asks {
        let trades = book.trades(focus.class).filter(|trade| trade.sell == order.id);
        let trades = trades.filter(visible);
        let lanes = order.units_left().min(LANES_MAX);
        let (blocks, hidden) = blocks(trades, order.units_left(), lanes);
        crowded_out += hidden;
        let height = (i64::from(lanes) * LANE_PX).max(ROW_MIN_PX);
        rows.push(Row { order, limit_msat, lanes, top: y, height, blocks });
        y += height + ROW_GAP_PX;
    }
    let mut bids = BTreeMap::new();
    for block in rows.iter().flat_map(|row| &row.blocks) {
        let number = bids.len() + 1;
        bids.entry(block.trade.buy.as_str()).or_insert(number);
    }
    if crowded_out > 0 {
        left_out.push(format!("{} for which no lane is left", counted(crowded_out, "trade")));
    }
    if !left_out.is_empty() {
        left_out[0] = format!("not shown: {}", left_out[0]);
    }
    let columns = i64::from(end_slot - first_slot).max(1);
    let column_px = ((RIGHT - LEFT) / columns).clamp(1, COLUMN_MAX_PX);
    Layout { first_slot, end_slot, column_px, rows, bids, left_out, bottom: y }
}

/// The slots of the class, or as many of them as fit around the focus.
fn slots(book: &PictureBook<'_>, focus: Focus, left_out: &mut Vec<String>) -> (u32, u32) {
    let asks = || book.asks(focus.class).map(|(order, _)| order);
    let first = asks().map(|order| book.first_slot(order)).min().unwrap_or(focus.slot);
    let end = asks().map(|order| order.window.1).max().unwrap_or(focus.slot);
    let (first, end) = (first.min(focus.slot), end.max(focus.slot.saturating_add(1)));
    if end - first <= SLOTS_MAX {
        return (first, end);
    }
    let start = focus.slot.saturating_sub(SLOTS_MAX / 3).clamp(first, end - SLOTS_MAX);
    left_out.push(format!("slots of [{first}, {end}) outside [{start}, {})", start + SLOTS_MAX));
    (start, start + SLOTS_MAX)
}

/// Gives each trade lanes that are free over its run, in the order of time, and counts the
/// trades for which none is left. A trade takes consecutive lanes: as large a part of them
/// as it takes of the units, as far as they are free.
fn blocks<'a>(
    trades: impl Iterator<Item = &'a Trade>,
    units: u32,
    lanes: u32,
) -> (Vec<Block<'a>>, usize) {
    let mut trades: Vec<&Trade> = trades.collect();
    trades.sort_by_key(|trade| (trade.start, &trade.buy));
    let mut free_from = vec![0u32; lanes as usize];
    let (mut blocks, mut hidden) = (Vec::new(), 0);
    for trade in trades {
        let free = |lane: &u32| *lane <= trade.start;
        let Some(first) = free_from.iter().position(free) else {
            hidden += 1;
            continue;
        };
        let run = free_from[first..].iter().take_while(|lane| free(lane)).count();
        let part = u64::from(trade.qty) * u64::from(lanes) / u64::from(units.max(1));
        let taken = run.min(part.max(1) as usize); // No more than `lanes`.
        free_from[first..first + taken].fill(trade.start.saturating_add(trade.hours.into()));
        blocks.push(Block { trade, lane: first as u32, lanes: taken as u32 });
    }
    (blocks, hidden)
}

impl Layout<'_> {
    /// Left edge of a slot; of one beyond the picture, its edge.
    fn x(&self, slot: u32) -> i64 {
        let column = slot.clamp(self.first_slot, self.end_slot) - self.first_slot;
        LEFT + i64::from(column) * self.column_px
    }

    /// Writes a text over each slot of the focus's distance, as wide as the widest needs.
    fn over_slots(
        &self,
        focus: Focus,
        texts: &[(u32, String)],
        y: i64,
        class: &str,
        svg: &mut Svg,
    ) {
        let chars = texts.iter().map(|(_, text)| text.chars().count()).max().unwrap_or(0);
        let stride = self.stride(chars);
        for (slot, text) in texts {
            if slot.abs_diff(focus.slot).is_multiple_of(stride) {
                // A text much wider than its column would begin left of it.
                let middle = (self.x(*slot) + self.column_px / 2, y);
                match stride {
                    1 | 2 => svg.text(middle, Anchor::Middle, class, text),
                    _ => svg.text((self.x(*slot), y), Anchor::Start, class, text),
                }
            }
        }
    }

    /// Every so many slots have room for a text.
    fn stride(&self, chars: usize) -> u32 {
        let width = CHAR_PX * (chars as i64 + 1);
        u32::try_from(width / self.column_px).unwrap_or(u32::MAX).saturating_add(1)
    }
}

fn header(book: &PictureBook<'_>, focus: Focus, layout: &Layout<'_>, top: i64, svg: &mut Svg) {
    let (slots_y, prices_y) = (top + 46, top + 64);
    let height = layout.bottom - (top + 32);
    let area = Area { x: layout.x(focus.slot), y: top + 32, width: layout.column_px, height };
    svg.titled(&format!("slot {}: drawn above", focus.slot), |svg| {
        svg.rect(area, r##"fill="#fff3c4""##);
    });
    let slots = layout.first_slot..layout.end_slot;
    // Long numbers are counted from the first slot, so that many fit.
    let counted = layout.stride(layout.end_slot.to_string().len()) > 2;
    let base = if counted { layout.first_slot } else { 0 };
    let name = if counted { format!("slot {base} +") } else { "slot".to_owned() };
    svg.text((LEFT - 8, slots_y), Anchor::End, "s", &name);
    let texts: Vec<_> = slots.clone().map(|slot| (slot, (slot - base).to_string())).collect();
    layout.over_slots(focus, &texts, slots_y, "s", svg);
    svg.text((LEFT - 8, prices_y), Anchor::End, "s", "price, sat");
    let texts: Vec<_> = slots
        .filter_map(|slot| Some((slot, sat(*book.outcome.prices.get(&(focus.class, slot))?))))
        .collect();
    layout.over_slots(focus, &texts, prices_y, "b", svg);
    for (slot, text) in &texts {
        let (x, width) = (layout.x(*slot), layout.column_px);
        svg.titled(&format!("slot {slot}: {text} sat per block"), |svg| {
            svg.rect(Area { x, y: prices_y - 12, width, height: 16 }, r#"fill-opacity="0""#);
        });
    }
}

fn draw_row(row: &Row<'_>, book: &PictureBook<'_>, layout: &Layout<'_>, svg: &mut Svg) {
    let middle = row.top + row.height / 2;
    let units = grouped(row.order.units_left());
    let terms = format!("≥ {} sat · {units} ×", sat(row.limit_msat));
    let (start, end) = (book.first_slot(row.order), row.order.window.1);
    let title = format!(
        "ask {} of {}: {units} units in slots [{start}, {end}) at no less than {} sat per block",
        cut(&row.order.id, 80),
        cut(&row.order.owner, 80),
        sat(row.limit_msat)
    );
    svg.titled(&title, |svg| {
        svg.text((LEFT - 8, middle - 2), Anchor::End, "b", &cut(&row.order.id, 14));
        svg.text((LEFT - 8, middle + 13), Anchor::End, "s", &terms);
        let lane_px = row.height / i64::from(row.lanes.max(1));
        let (x, end) = (layout.x(start), layout.x(end));
        for lane in 0..i64::from(row.lanes) {
            let y = row.top + lane * lane_px;
            let area = Area { x, y, width: end - x, height: lane_px - 2 };
            svg.rect(area, r##"fill="#e9ecef" rx="2""##);
        }
    });
    for block in &row.blocks {
        draw_block(block, row, layout, svg);
    }
}

fn draw_block(block: &Block<'_>, row: &Row<'_>, layout: &Layout<'_>, svg: &mut Svg) {
    let trade = block.trade;
    let number = layout.bids.get(trade.buy.as_str()).copied().unwrap_or_default();
    let end = trade.start.saturating_add(trade.hours.into());
    let (x, end_x) = (layout.x(trade.start), layout.x(end));
    if end_x == x {
        return; // Outside the slots that are shown.
    }
    let lane_px = row.height / i64::from(row.lanes.max(1));
    let y = row.top + i64::from(block.lane) * lane_px;
    let height = i64::from(block.lanes) * lane_px - 2;
    let area = Area { x: x + 1, y, width: end_x - x - 2, height };
    let title = format!(
        "bid {} takes {} units of ask {} for slots [{}, {end}): {} sat in all",
        cut(&trade.buy, 80),
        grouped(trade.qty),
        cut(&trade.sell, 80),
        trade.start,
        sat(trade.msat)
    );
    let (fill, ink) = COLOURS[number.saturating_sub(1) % COLOURS.len()];
    let times = if trade.qty > 1 { format!(" ×{}", grouped(trade.qty)) } else { String::new() };
    let whole = format!("{}{times}", cut(&trade.buy, 10));
    let texts = [whole, format!("{number}{times}"), number.to_string()];
    let fits = |text: &&String| text.chars().count() as i64 * CHAR_PX + 4 <= area.width;
    svg.titled(&title, |svg| {
        svg.rect(area, &format!(r#"fill="{fill}" rx="2""#));
        if let Some(text) = texts.iter().find(fits) {
            let class = if ink == "#ffffff" { "light" } else { "dark" };
            let at = (area.x + area.width / 2, y + height / 2 + 4);
            svg.text(at, Anchor::Middle, class, text);
        }
    });
}

/// The bids behind the colours, in two columns; says where they end.
fn bids(book: &PictureBook<'_>, focus: Focus, layout: &Layout<'_>, y: i64, svg: &mut Svg) -> i64 {
    let mut listed: Vec<_> = layout.bids.iter().map(|(label, number)| (*number, *label)).collect();
    listed.sort_unstable();
    let (more, column) = (listed.len().saturating_sub(BIDS_MAX), (RIGHT - LEFT) / 2);
    listed.truncate(BIDS_MAX);
    let lines = listed.len().div_ceil(2);
    for (at, (number, label)) in listed.into_iter().enumerate() {
        let x = LEFT + column * (at / lines.max(1)) as i64;
        let y = y + BID_PX * (at % lines.max(1)) as i64;
        let (fill, _) = COLOURS[(number - 1) % COLOURS.len()];
        let area = Area { x, y: y - 10, width: 12, height: 12 };
        svg.rect(area, &format!(r#"fill="{fill}" rx="2""#));
        svg.text((x + 18, y), Anchor::Start, "s", &bid_text(book, focus, number, label));
    }
    let mut end = y + BID_PX * lines as i64;
    if more > 0 {
        svg.text((LEFT, end), Anchor::Start, "s", &format!("and {more} more bids"));
        end += BID_PX;
    }
    end
}

fn bid_text(book: &PictureBook<'_>, focus: Focus, number: usize, label: &str) -> String {
    let found = book.bids(focus.class).find(|(order, _)| order.id == label);
    let got: u64 = book
        .trades(focus.class)
        .filter(|trade| trade.buy == label)
        .map(|trade| u64::from(trade.qty))
        .sum();
    let name = cut(label, 14);
    let Some((order, limit_msat)) = found else { return name };
    let hours = if let Side::Buy { hours, .. } = order.side { hours } else { 0 };
    let (got, wanted) = (grouped(got), grouped(order.units_left()));
    let (runs, limit) = (counted(hours.into(), "slot"), sat(limit_msat));
    cut(&format!("{number}. {name}: gets {got} of {wanted} for {runs}, ≤ {limit} sat"), BID_CHARS)
}
