//! What this node has to sell, as the market sees it: units of its own register, and certificates
//! that it holds.

use super::holdings::Holdings;
use super::market::{Inventory, Rectangle, Stock, UnitLedger};
use super::register::Register;
use crate::ids::{CertId, Key, TradeId};
use crate::settlement::objects::Row;
use crate::units::{Units, Window};

/// Both books, to look at.
pub(super) struct Shelf<'a> {
    pub(super) me: Key,
    pub(super) register: &'a Register,
    pub(super) holdings: &'a Holdings,
}

/// Both books, to reserve in.
pub(super) struct ShelfMut<'a> {
    pub(super) me: Key,
    pub(super) register: &'a mut Register,
    pub(super) holdings: &'a Holdings,
}

impl ShelfMut<'_> {
    fn shelf(&self) -> Shelf<'_> {
        Shelf { me: self.me, register: self.register, holdings: self.holdings }
    }
}

impl Inventory for Shelf<'_> {
    fn free_within(&self, class: u16, units: &Units, window: Window) -> Vec<Rectangle> {
        self.register.free_within(class, units, window)
    }

    fn pick(&self, class: u16, qty: u32, window: Window, taken: &[Units]) -> Option<Units> {
        self.register.pick(class, qty, window, taken)
    }

    fn others(&self, class: u16, taken: &[Units]) -> Option<Units> {
        self.register.others(class, taken)
    }

    fn may_offer(&self, class: u16) -> Result<(), &'static str> {
        self.register.may_offer(class)
    }

    fn stock(&self, cert: &CertId) -> Option<Stock<'_>> {
        self.holdings.stock(self.me, cert)
    }
}

impl Inventory for ShelfMut<'_> {
    fn free_within(&self, class: u16, units: &Units, window: Window) -> Vec<Rectangle> {
        self.shelf().free_within(class, units, window)
    }

    fn pick(&self, class: u16, qty: u32, window: Window, taken: &[Units]) -> Option<Units> {
        self.shelf().pick(class, qty, window, taken)
    }

    fn others(&self, class: u16, taken: &[Units]) -> Option<Units> {
        self.register.others(class, taken)
    }

    fn may_offer(&self, class: u16) -> Result<(), &'static str> {
        self.register.may_offer(class)
    }

    fn stock(&self, cert: &CertId) -> Option<Stock<'_>> {
        self.holdings.stock(self.me, cert)
    }
}

impl UnitLedger for ShelfMut<'_> {
    fn number(&self, rectangle: &Rectangle, rows: &[&Row]) -> Vec<Result<Units, &'static str>> {
        Register::number(rectangle, rows)
    }

    fn reserve(&mut self, trade: TradeId, row: &Row, units: &Units) -> Result<(), &'static str> {
        self.register.reserve(trade, row, units)
    }
}
