//! Sales of a part of a certificate, which its provider has to split off before.

use super::driver::Turn;
use super::titles::Titles;
use super::{TradeEvent, Trades, turn};
use crate::certificate::Certificate;
use crate::certificate::objects::Area;
use crate::engine::kernel::Context;
use crate::ids::{CertId, TradeId};
use crate::settlement::seller::Goods;

/// A part that is sold and has still to be split off.
#[derive(Debug, Clone, Copy)]
pub struct WaitingPart<'a> {
    pub trade: TradeId,
    pub cert: CertId,
    pub area: &'a Area,
    /// Whether the provider was asked for it, in this life of the node.
    pub is_asked: bool,
}

impl Trades {
    /// Sales of parts that have still to be split off.
    pub fn waiting_parts(&self) -> impl Iterator<Item = WaitingPart<'_>> {
        self.sellers.iter().filter_map(|open| match &open.machine.goods {
            Goods::Part { cert, area, .. } => {
                let (trade, is_asked) = (open.machine.trade, open.tries.has_tried());
                Some(WaitingPart { trade, cert: *cert, area, is_asked })
            }
            Goods::Capacity { .. } | Goods::Certificate(_) => None,
        })
    }

    /// The provider of a certificate was asked to split off what trades sell of it.
    pub fn split_asked(
        &mut self,
        ctx: &mut Context<'_>,
        titles: &mut dyn Titles,
        cert: CertId,
    ) -> Vec<TradeEvent> {
        let of_cert = self.waiting_parts().filter(|part| part.cert == cert);
        let waiting: Vec<TradeId> = of_cert.map(|part| part.trade).collect();
        turn!(self, ctx, titles, |turn| {
            for trade in waiting {
                self.sellers.touch(turn, trade, |open, turn| open.tried(turn));
            }
        })
        .1
    }

    /// The part that a trade sells has been split off, or will not be: the reason code.
    pub fn bring_part(
        &mut self,
        ctx: &mut Context<'_>,
        titles: &mut dyn Titles,
        trade: TradeId,
        part: Result<Certificate, &'static str>,
    ) -> Vec<TradeEvent> {
        turn!(self, ctx, titles, |turn| {
            self.sellers.touch(turn, trade, |open, turn| open.bring_part(turn, part))
        })
        .1
    }
}
