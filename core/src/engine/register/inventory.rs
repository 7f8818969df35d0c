//! The ledger of units as the market sees it.

use super::Register;
use crate::certificate::ledger::{Claim, RECTANGLES_MAX, RowNeed, number_rows};
use crate::code;
use crate::engine::market::Rectangle;
use crate::ids::TradeId;
use crate::lease::maintenance::outside;
use crate::settlement::objects::Row;
use crate::units::{Units, Window};

impl Register {
    /// Whether units of a class may be offered.
    ///
    /// # Errors
    /// `host.untested`, `register.behind` or `register.restored`.
    pub fn may_offer(&self, class: u16) -> Result<(), &'static str> {
        if self.withheld.contains(&class) {
            return Err(code!("host.untested"));
        }
        self.may_issue()
    }

    /// The free cells of the given units in a window, as at most 16 disjoint rectangles.
    #[must_use]
    pub fn free_within(&self, class: u16, units: &Units, window: Window) -> Vec<Rectangle> {
        // What may not be sold is not offered.
        if self.may_offer(class).is_err() {
            return Vec::new();
        }
        let free = self.ledger.free_rectangles(class, window).into_iter();
        let mut open: Vec<Rectangle> = free
            .filter_map(|(free, window)| Some((free.intersection(units)?, window)))
            .flat_map(|(units, window)| {
                outside(window, &self.closed).into_iter().map(move |part| (units.clone(), part))
            })
            .collect();
        if !self.closed.is_empty() {
            let area =
                |(units, window): &Rectangle| u64::from(units.count()) * u64::from(window.len());
            open.sort_by_key(|rectangle| std::cmp::Reverse(area(rectangle)));
            open.truncate(RECTANGLES_MAX);
        }
        open
    }

    /// The lowest `qty` units that are free in the whole window and not in `taken`.
    #[must_use]
    pub fn pick(&self, class: u16, qty: u32, window: Window, taken: &[Units]) -> Option<Units> {
        self.ledger.pick(class, qty, window, taken)
    }

    /// The units of a class that are not in `taken`.
    #[must_use]
    pub fn others(&self, class: u16, taken: &[Units]) -> Option<Units> {
        self.ledger.others(class, taken)
    }

    /// Numbers rows of one ask inside its rectangle.
    #[must_use]
    pub fn number(rectangle: &Rectangle, rows: &[&Row]) -> Vec<Result<Units, &'static str>> {
        let needs: Vec<RowNeed> = rows
            .iter()
            .map(|row| RowNeed { buy: row.buy, window: row.window(), qty: row.qty })
            .collect();
        let numbered = number_rows(rectangle, &needs);
        numbered.into_iter().map(|units| units.map_err(|error| error.code())).collect()
    }

    /// Reserves the units of a row.
    ///
    /// # Errors
    /// The reason code: the units are gone.
    pub fn reserve(
        &mut self,
        trade: TradeId,
        row: &Row,
        units: &Units,
    ) -> Result<(), &'static str> {
        let claim = Claim::Row(trade);
        self.ledger.claim(claim, row.class, units, row.window()).map_err(|error| error.code())
    }
}
