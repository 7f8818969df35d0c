//! Rows of a result that are this node's own: what binds, and what becomes of it.

use super::records::StandingV1;
use super::{Circumstances, Market, SignedOrder, StandingState, Stock, UnitLedger};
use crate::admission::resale_activation;
use crate::certificate::cut;
use crate::certificate::objects::{Activation, Area};
use crate::code;
use crate::engine::kernel::Context;
use crate::epoch::ResultRow;
use crate::ids::{CertId, Key, OrderId, PoolId, TradeId};
use crate::order::Side;
use crate::settlement::objects::Row;
use crate::units::{Slot, Units};

/// A row of this node's own that binds, ready for settlement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Matched {
    Buy {
        row: Row,
        trade: TradeId,
        seller: Key,
        /// Whose certificate a reseller sells.
        provider: Option<Key>,
        /// Who shall hold the certificate.
        to: Key,
        /// Feature bits that the bid requires.
        features: u64,
        /// From this slot on the holder is not to redeem any more.
        use_by: Option<Slot>,
        is_recallable: bool,
        /// Most that the owner of the bid is willing to lose in fees of this trade, sat.
        max_loss_sat: u64,
        /// Several pay.
        pool: Option<PoolId>,
    },
    Sell {
        row: Row,
        trade: TradeId,
        buyer: Key,
        units: Units,
        features: u64,
    },
    /// Of a held certificate.
    Resell {
        row: Row,
        trade: TradeId,
        buyer: Key,
        cert: CertId,
        /// What the row takes.
        area: Area,
        /// Whether that is all of the certificate.
        is_whole: bool,
    },
}

impl Market {
    /// Takes the rows of this node's own that bind.
    pub(super) fn own_rows(
        &mut self,
        ctx: &mut Context<'_>,
        inventory: &mut dyn UnitLedger,
        rows: &[ResultRow],
    ) -> Vec<Matched> {
        let binding: Vec<&ResultRow> = rows.iter().filter(|row| row.void.is_none()).collect();
        let mut matched = Vec::new();
        for row in &binding {
            if let Some(signed) = self.signed.get(&OrderId(row.row.buy)).cloned() {
                matched.extend(self.own_buy(ctx, row, &signed));
            }
        }
        let asks: Vec<(OrderId, SignedOrder)> = self
            .signed
            .iter()
            .filter(|(_, signed)| signed.rectangle.is_some())
            .map(|(id, signed)| (*id, signed.clone()))
            .collect();
        for (ask, signed) in asks {
            let rows: Vec<&ResultRow> =
                binding.iter().copied().filter(|row| row.row.sell == ask.0).collect();
            let resold =
                self.epochs.order(signed.epoch, &ask).and_then(|ask| resale_activation(ask));
            matched.extend(match resold {
                None => self.own_sells(ctx, inventory, &rows, &signed),
                Some(title) => self.own_resales(ctx, inventory, &rows, &signed, &title),
            });
        }
        matched
    }

    fn own_buy(
        &mut self,
        ctx: &mut Context<'_>,
        result: &ResultRow,
        signed: &SignedOrder,
    ) -> Option<Matched> {
        let me = ctx.me();
        let ask = self.epochs.order(result.row.epoch, &OrderId(result.row.sell));
        let provider = ask.and_then(|ask| resale_activation(ask)).map(|title| title.provider);
        let standing = self.standing.get_mut(&signed.standing)?;
        standing.matched.insert(result.trade, result.row.qty);
        ctx.out.store(&standing.id.0, &StandingV1::from(&*standing));
        // The members of a pool have reserved it themselves.
        if standing.spec.pool.is_none() {
            let fees_sat = Circumstances::of(ctx).fee_reserve_sat();
            let needed_sat = result.row.price_sat().saturating_add(fees_sat);
            ctx.treasury.commit(result.trade, needed_sat);
        }
        let worth_sat = standing.spec.worth_sat(Some(result.row.class), result.row.qty);
        let to = standing.spec.beneficiary.unwrap_or(me);
        Some(Matched::Buy {
            row: result.row.clone(),
            trade: result.trade,
            seller: result.seller,
            provider,
            to,
            features: standing.spec.features,
            use_by: standing.spec.use_by,
            // A right against oneself is none.
            is_recallable: standing.spec.is_recallable && to != me,
            max_loss_sat: standing.spec.fees.allowed_sat(worth_sat),
            pool: standing.spec.pool,
        })
    }

    fn own_sells(
        &mut self,
        ctx: &mut Context<'_>,
        inventory: &mut dyn UnitLedger,
        results: &[&ResultRow],
        signed: &SignedOrder,
    ) -> Vec<Matched> {
        let (Some(rectangle), Some(standing)) =
            (&signed.rectangle, self.standing.get_mut(&signed.standing))
        else {
            return Vec::new();
        };
        let mut results = results.to_vec();
        results.sort_by_key(|result| (result.row.start, result.row.buy));
        let rows: Vec<&Row> = results.iter().map(|result| &result.row).collect();
        let numbered = inventory.number(rectangle, &rows);
        let mut matched = Vec::new();
        for (result, units) in results.iter().zip(numbered) {
            let reserved = units.and_then(|units| {
                inventory.reserve(result.trade, &result.row, &units).map(|()| units)
            });
            let units = match reserved {
                Ok(units) => units,
                Err(code) => {
                    standing.note = Some(code.to_owned());
                    continue;
                }
            };
            standing.matched.insert(result.trade, result.row.qty);
            matched.push(Matched::Sell {
                row: result.row.clone(),
                trade: result.trade,
                buyer: result.buyer,
                units,
                features: signed.features,
            });
        }
        if !rows.is_empty() {
            ctx.out.store(&standing.id.0, &StandingV1::from(&*standing));
        }
        matched
    }

    /// Rows of a certificate on offer. What they take of it is reserved here; where they take a
    /// part, its provider has to split it off when the first buyer asks for terms.
    fn own_resales(
        &mut self,
        ctx: &mut Context<'_>,
        inventory: &dyn UnitLedger,
        results: &[&ResultRow],
        signed: &SignedOrder,
        title: &Activation,
    ) -> Vec<Matched> {
        let (Some(rectangle), Some(standing)) =
            (&signed.rectangle, self.standing.get_mut(&signed.standing))
        else {
            return Vec::new();
        };
        let offer = standing.offers.iter().find(|offer| offer.cert == title.cert_id).cloned();
        let (Some(offer), false) = (offer, results.is_empty()) else { return Vec::new() };
        // The owner of a certificate that moved on meanwhile sells nothing of it.
        let whole = match inventory.stock(&offer.cert) {
            Some(Stock::Held(held)) if held.facts.seq == title.seq => held.facts.area(),
            _ => {
                standing.note = Some(code!("resale.consumed").to_owned());
                ctx.out.store(&standing.id.0, &StandingV1::from(&*standing));
                return Vec::new();
            }
        };
        let mut results = results.to_vec();
        results.sort_by_key(|result| (result.row.start, result.row.buy));
        let rows: Vec<&Row> = results.iter().map(|result| &result.row).collect();
        let numbered = inventory.number(rectangle, &rows).into_iter().zip(&results);
        let mut taken: Vec<(&ResultRow, Area)> = Vec::new();
        for (units, result) in numbered {
            match units {
                Ok(units) => taken.push((result, Area { units, window: result.row.window() })),
                Err(code) => standing.note = Some(code.to_owned()),
            }
        }
        let parts = loop {
            let areas: Vec<Area> = taken.iter().map(|(_, area)| area.clone()).collect();
            match cut(&whole, &offer.area, &areas) {
                Some(parts) if !areas.is_empty() => break parts,
                _ if taken.pop().is_some() => {
                    standing.note = Some(code!("trade.fragmented").to_owned());
                }
                _ => return Vec::new(),
            }
        };
        let is_whole = parts.len() == 1;
        let mut matched = Vec::new();
        for (result, area) in taken {
            standing.matched.insert(result.trade, result.row.qty);
            standing.parts.insert(result.trade, area.clone());
            let (row, trade, buyer) = (result.row.clone(), result.trade, result.buyer);
            matched.push(Matched::Resell { row, trade, buyer, cert: offer.cert, area, is_whole });
        }
        ctx.out.store(&standing.id.0, &StandingV1::from(&*standing));
        matched
    }

    /// A trade of ours ended: filled, or its part goes back into the market.
    pub fn on_trade_end(&mut self, ctx: &mut Context<'_>, trade: TradeId, filled: bool) {
        let Some(standing) =
            self.standing.values_mut().find(|standing| standing.matched.contains_key(&trade))
        else {
            return;
        };
        let qty = standing.matched.remove(&trade).unwrap_or(0);
        if let Some(area) = standing.parts.remove(&trade) {
            Self::end_part(standing, &area, filled);
        }
        if filled {
            standing.filled = standing.filled.saturating_add(qty);
            // What still settles may come back: then it has to be signed again.
            let all = standing.matched.is_empty() && standing.remainder() == 0;
            if standing.is_open() && standing.spec.side == Side::Buy && all {
                standing.state = StandingState::Filled;
            }
        } else if standing.state == StandingState::Filled {
            // It lived for one epoch, and not all of it came true.
            standing.state = StandingState::Expired;
        }
        ctx.out.store(&standing.id.0, &StandingV1::from(&*standing));
    }

    /// Puts back what was matched just before a crash and never became a settlement.
    pub fn forget_unopened(&mut self, ctx: &mut Context<'_>, is_known: impl Fn(&TradeId) -> bool) {
        for standing in self.standing.values_mut() {
            let before = standing.matched.len();
            standing.matched.retain(|trade, _| is_known(trade));
            standing.parts.retain(|trade, _| is_known(trade));
            if standing.matched.len() != before {
                ctx.out.store(&standing.id.0, &StandingV1::from(&*standing));
            }
        }
    }
}
