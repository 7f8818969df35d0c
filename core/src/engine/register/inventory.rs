//! The ledger of units as the market sees it.

use super::Register;
use crate::certificate::ledger::{Claim, RowNeed, number_rows};
use crate::engine::market::{Inventory, Rectangle};
use crate::ids::TradeId;
use crate::settlement::objects::Row;
use crate::units::{Units, Window};

impl Inventory for Register {
    fn free_within(&self, class: u16, units: &Units, window: Window) -> Vec<Rectangle> {
        // What may not be sold is not offered.
        if self.halted().is_some() {
            return Vec::new();
        }
        let free = self.ledger.free_rectangles(class, window);
        free.into_iter()
            .filter_map(|(free, window)| Some((free.intersection(units)?, window)))
            .collect()
    }

    fn pick(&self, class: u16, qty: u32, window: Window, taken: &[Units]) -> Option<Units> {
        self.ledger.pick(class, qty, window, taken)
    }

    fn number(&self, rectangle: &Rectangle, rows: &[&Row]) -> Vec<Result<Units, &'static str>> {
        let needs: Vec<RowNeed> = rows
            .iter()
            .map(|row| RowNeed { buy: row.buy, window: row.window(), qty: row.qty })
            .collect();
        let numbered = number_rows(rectangle, &needs);
        numbered.into_iter().map(|units| units.map_err(|error| error.code())).collect()
    }

    fn reserve(&mut self, trade: TradeId, row: &Row, units: &Units) -> Result<(), &'static str> {
        let claim = Claim::Row(trade);
        self.ledger.claim(claim, row.class, units, row.window()).map_err(|error| error.code())
    }
}
