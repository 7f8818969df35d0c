//! What this node has to sell as the market sees it: free units of its own, and certificates.

use super::Rectangle;
use super::offers::Stock;
use crate::ids::{CertId, TradeId};
use crate::settlement::objects::Row;
use crate::units::{Units, Window};

/// What the market needs to know before it signs.
pub trait Inventory {
    /// The free cells of the given units in a window, as at most 16 disjoint rectangles.
    fn free_within(&self, class: u16, units: &Units, window: Window) -> Vec<Rectangle>;
    /// The lowest `qty` units that are free in the whole window and not in `taken`.
    fn pick(&self, class: u16, qty: u32, window: Window, taken: &[Units]) -> Option<Units>;
    /// The units of a class that are not in `taken`, free or not.
    fn others(&self, class: u16, taken: &[Units]) -> Option<Units>;
    /// Whether units of a class may be offered.
    ///
    /// # Errors
    /// The reason code why not.
    fn may_offer(&self, class: u16) -> Result<(), &'static str>;
    /// What has become of a certificate; `None` if this node never held it.
    fn stock(&self, cert: &CertId) -> Option<Stock<'_>>;
}

/// The provider's unit ledger, in which rows become claims.
pub trait UnitLedger: Inventory {
    /// Numbers rows of one ask inside its rectangle, by (start, bid id), lowest free first;
    /// or the reason code why a row cannot be numbered.
    fn number(&self, rectangle: &Rectangle, rows: &[&Row]) -> Vec<Result<Units, &'static str>>;
    /// Reserves the units of a row.
    ///
    /// # Errors
    /// The reason code: the units are gone.
    fn reserve(&mut self, trade: TradeId, row: &Row, units: &Units) -> Result<(), &'static str>;
}
