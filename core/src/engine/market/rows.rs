//! Rows of a result that are this node's own: what binds, and what becomes of it.

use super::records::StandingV1;
use super::{Circumstances, Inventory, Market, SignedOrder, StandingState};
use crate::engine::kernel::Context;
use crate::epoch::ResultRow;
use crate::ids::{Key, OrderId, TradeId};
use crate::order::Side;
use crate::settlement::objects::Row;
use crate::units::Units;

/// A row of this node's own that binds, ready for settlement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Matched {
    Buy {
        row: Row,
        trade: TradeId,
        seller: Key,
        /// Who shall hold the certificate.
        to: Key,
        /// Feature bits that the bid requires.
        features: u64,
        /// Most that the owner of the bid is willing to lose in fees of this trade, sat.
        max_loss_sat: u64,
    },
    Sell {
        row: Row,
        trade: TradeId,
        buyer: Key,
        units: Units,
        features: u64,
    },
}

impl Market {
    /// Takes the rows of this node's own that bind.
    pub(super) fn own_rows(
        &mut self,
        ctx: &mut Context<'_>,
        inventory: &mut dyn Inventory,
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
            matched.extend(self.own_sells(ctx, inventory, &rows, &signed));
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
        let standing = self.standing.get_mut(&signed.standing)?;
        standing.matched.insert(result.trade, result.row.qty);
        ctx.out.store(&standing.id.0, &StandingV1::from(&*standing));
        let fees_sat = Circumstances::of(ctx).fee_reserve_sat();
        let needed_sat = result.row.price_sat().saturating_add(fees_sat);
        ctx.treasury.commit(result.trade, needed_sat);
        let worth_sat = standing.spec.worth_sat(Some(result.row.class), result.row.qty);
        Some(Matched::Buy {
            row: result.row.clone(),
            trade: result.trade,
            seller: result.seller,
            to: standing.spec.beneficiary.unwrap_or(me),
            features: standing.spec.features,
            max_loss_sat: standing.spec.fees.allowed_sat(worth_sat),
        })
    }

    fn own_sells(
        &mut self,
        ctx: &mut Context<'_>,
        inventory: &mut dyn Inventory,
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

    /// A trade of ours ended: filled, or its part goes back into the market.
    pub fn on_trade_end(&mut self, ctx: &mut Context<'_>, trade: TradeId, filled: bool) {
        let Some(standing) =
            self.standing.values_mut().find(|standing| standing.matched.contains_key(&trade))
        else {
            return;
        };
        let qty = standing.matched.remove(&trade).unwrap_or(0);
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
            if standing.matched.len() != before {
                ctx.out.store(&standing.id.0, &StandingV1::from(&*standing));
            }
        }
    }
}
