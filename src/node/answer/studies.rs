//! Collects what a study needs: which order is meant, and the book around it.

use std::collections::BTreeSet;

use crate::api::{ApiError, Noun, Prefix, Query};
use crate::clock::now_ms;
use crate::node::history::epoch_not_found;
use crate::node::offload::{EpochStudy, ExplainStudy, QuoteStudy, Study};
use crate::node::{Node, clock};
use capex_core::book::instance;
use capex_core::engine::market::{EpochView, Obstacle, OrderSpec, Standing, quote};
use capex_core::epoch::{Phase, computed_at_ms, epoch_at};
use capex_core::ids::{OrderId, StandingId};
use capex_core::limits::ORDERS_PER_OWNER_BOOK;
use capex_core::reason;

/// Confirmation target of the fees in a quote, chain blocks: that of `status`.
const FEE_TARGET: u32 = 3;

impl Node {
    /// The study behind a query, `None` for a query that the loop answers itself.
    pub(super) fn study(&self, query: &Query) -> Option<Result<Study, ApiError>> {
        match query {
            Query::Explain { order, epoch } => Some(self.explain_study(order, *epoch)),
            Query::Quote(spec) => Some(self.quote_study(spec)),
            Query::EpochCheck(epoch) => Some(self.epoch_study(*epoch, Study::EpochCheck)),
            Query::EpochExport(epoch) => Some(self.epoch_study(*epoch, Study::EpochExport)),
            Query::EpochSigned(epoch) => Some(self.epoch_study(*epoch, Study::EpochSigned)),
            Query::Epoch(Some(epoch)) if self.is_past(*epoch) => {
                Some(self.epoch_study(*epoch, Study::EpochShow))
            }
            Query::Status
            | Query::Orders(_)
            | Query::Order(_)
            | Query::Psbts
            | Query::Preview(_)
            | Query::Book(_)
            | Query::Depth(_)
            | Query::Trades(_)
            | Query::StuckTrades
            | Query::Trade(_)
            | Query::TradeProof(_)
            | Query::Certificates(_)
            | Query::Certificate(_)
            | Query::CertificateFile(_)
            | Query::Pools
            | Query::Pool(_)
            | Query::Leases(_)
            | Query::Lease(_)
            | Query::Logs { .. }
            | Query::Result { .. }
            | Query::Balance
            | Query::Coins
            | Query::Descriptors
            | Query::WalletHistory
            | Query::Peers
            | Query::Peer(_)
            | Query::PeerReceipts(_)
            | Query::Epochs(_)
            | Query::Epoch(_)
            | Query::BackupRecords => None,
        }
    }

    fn explain_study(&self, order: &Prefix, epoch: Option<u64>) -> Result<Study, ApiError> {
        if let Some(epoch) =
            epoch.or_else(|| self.last_epoch_of(order)).filter(|e| self.is_past(*e))
        {
            return Ok(self.explain_past(order.clone(), epoch));
        }
        let (epoch, view, id) = self.order_in_epoch(order, epoch)?;
        let result = view.result.clone().ok_or_else(|| self.not_computed(epoch))?;
        let (params, set) = (self.engine().params().clone(), view.set.clone());
        let market = self.engine().market();
        let standing = market.signed_for(epoch).find(|(signed, _)| **signed == id);
        let standing = standing.map(|(_, signed)| signed.standing).or_else(|| {
            market.standing().find(|standing| standing.last_order == Some(id)).map(|s| s.id)
        });
        let order_id = standing.map(|id| id.to_string());
        Ok(Study::Explain(Box::new(ExplainStudy { params, set, result, id, order_id })))
    }

    /// The last epoch that the standing order with this id was signed for; of several none.
    fn last_epoch_of(&self, prefix: &Prefix) -> Option<u64> {
        let standing = self.engine().market().standing();
        prefix.find(Noun::Order, standing, |standing| standing.id.0).ok()?.last_epoch
    }

    /// As [`Node::explain_study`], in an epoch that has to be read first.
    fn explain_past(&self, prefix: Prefix, epoch: u64) -> Study {
        let last = self.engine().market().standing();
        let last = last.filter(|standing| standing.last_epoch == Some(epoch));
        let own: Vec<(OrderId, StandingId)> =
            last.filter_map(|standing| Some((standing.last_order?, standing.id))).collect();
        self.past_study(
            epoch,
            Box::new(move |found| {
                let ids = found.set.ids_from(OrderId(prefix.lowest()));
                let mut ids: BTreeSet<OrderId> =
                    ids.take_while(|id| prefix.matches(&id.0)).collect();
                ids.extend(own.iter().filter(|(_, id)| prefix.matches(&id.0)).map(|(id, _)| *id));
                ids.retain(|id| found.set.get(id).is_some());
                if ids.len() > 1 {
                    return Err(several(epoch, &ids));
                }
                let not_found = || ApiError::not_found(Noun::Order, prefix.as_str());
                let id = ids.pop_first().ok_or_else(not_found)?;
                let order_id = own.iter().find(|(own, _)| *own == id).map(|(_, id)| id.to_string());
                let EpochStudy { params, set, result, .. } = found;
                Ok(Study::Explain(Box::new(ExplainStudy { params, set, result, id, order_id })))
            }),
        )
    }

    /// The order that is meant: by its id in an epoch, or by the standing order of this node
    /// that it came from; in the last computed epoch that has it unless one is named.
    fn order_in_epoch(
        &self,
        prefix: &Prefix,
        epoch: Option<u64>,
    ) -> Result<(u64, &EpochView, OrderId), ApiError> {
        let epochs = &self.engine().market().epochs;
        let mut views: Vec<(u64, &EpochView)> = match epoch {
            Some(epoch) => {
                let view = epochs
                    .get(epoch)
                    .ok_or_else(|| epoch_not_found("this node has nothing of that epoch"))?;
                vec![(epoch, view)]
            }
            None => epochs.iter().filter(|(_, view)| view.result.is_some()).collect(),
        };
        views.reverse();
        for (epoch, view) in views {
            let found = self.ids_in(prefix, epoch, view);
            match (found.first(), found.len()) {
                (Some(id), 1) => return Ok((epoch, view, *id)),
                (Some(_), _) => {
                    return Err(several(epoch, &found));
                }
                (None, _) => {}
            }
        }
        Err(self.took_no_part(prefix))
    }

    fn ids_in(&self, prefix: &Prefix, epoch: u64, view: &EpochView) -> BTreeSet<OrderId> {
        let market = self.engine().market();
        let ids = view.set.ids_from(OrderId(prefix.lowest()));
        let mut found: BTreeSet<OrderId> = ids.take_while(|id| prefix.matches(&id.0)).collect();
        let mine =
            market.signed_for(epoch).filter(|(_, signed)| prefix.matches(&signed.standing.0));
        found.extend(mine.map(|(id, _)| *id));
        let last = market.standing().filter(|standing| {
            standing.last_epoch == Some(epoch) && prefix.matches(&standing.id.0)
        });
        found.extend(last.filter_map(|standing| standing.last_order));
        found.retain(|id| view.set.get(id).is_some());
        found
    }

    /// Why an order is in no computed epoch.
    fn took_no_part(&self, prefix: &Prefix) -> ApiError {
        let mut standing = self.engine().market().standing();
        let Some(standing) = standing.find(|standing| prefix.matches(&standing.id.0)) else {
            return ApiError::not_found(Noun::Order, prefix.as_str());
        };
        let (message, hint) = self.not_signed(standing);
        ApiError::new(reason!("order.not_in_epoch"), message).with_hint(hint)
    }

    fn not_signed(&self, standing: &Standing) -> (String, String) {
        let id = standing.id.to_string();
        let engine = self.engine();
        let obstacle = engine.market().obstacle(now_ms(), engine.params(), engine.chain().up);
        if let Some(obstacle) = obstacle.filter(|_| standing.is_open()) {
            return self.held_up(obstacle);
        }
        if let Some(note) = &standing.note {
            let message = format!("the order was not signed for the last epoch: {note}");
            return (message, format!("see `capex order show {id}`"));
        }
        match standing.last_epoch {
            Some(epoch) if epoch > self.engine().market().epochs.computed_through => {
                let wait_ms =
                    computed_at_ms(epoch, self.engine().params()).saturating_sub(now_ms());
                let message = format!("the order is signed for epoch {epoch}, not computed yet");
                (message, format!("ask again in {} s", wait_ms.div_ceil(1000)))
            }
            Some(epoch) => (
                format!("the order was last signed for epoch {epoch}, which is forgotten"),
                format!("see `capex order show {id}`"),
            ),
            None => (
                "the order was not signed for any epoch yet".to_owned(),
                format!("ask again in a moment, or see `capex order show {id}`"),
            ),
        }
    }

    /// Why nothing is signed now, whatever the order.
    fn held_up(&self, obstacle: Obstacle) -> (String, String) {
        let status = "see `capex status`".to_owned();
        match obstacle {
            Obstacle::Clock(clock) => {
                (format!("nothing is signed: {}", clock::words(&clock)), status)
            }
            Obstacle::Chain => {
                ("nothing is signed while the chain source is away".to_owned(), status)
            }
            Obstacle::SignedBefore(epoch) => {
                let wait_ms =
                    computed_at_ms(epoch, self.engine().params()).saturating_sub(now_ms());
                let message = format!(
                    "this node has signed for epoch {epoch} in an earlier life, or by a clock \
                     that was ahead; the order is signed for the next one"
                );
                (message, format!("ask again in {} s", wait_ms.div_ceil(1000)))
            }
        }
    }

    fn not_computed(&self, epoch: u64) -> ApiError {
        let wait_ms = computed_at_ms(epoch, self.engine().params()).saturating_sub(now_ms());
        ApiError::new(reason!("epoch.not_computed"), format!("epoch {epoch} has no result"))
            .with_hint(format!("ask again in {} s", wait_ms.div_ceil(1000).max(1)))
    }

    fn quote_study(&self, spec: &OrderSpec) -> Result<Study, ApiError> {
        let params = self.engine().params().clone();
        let now = now_ms();
        let epoch = epoch_at(now, &params);
        let held = spec.cert.and_then(|cert| self.engine().holdings().held(&cert));
        let provider = held.map(|facts| facts.provider);
        let order = quote::hypothetical(spec, self.engine().me(), provider, epoch, &params)?;
        let (book_epoch, view) = self.shown_epoch();
        let set = view.map(|view| view.set.clone()).unwrap_or_default();
        let mut instance = instance(&[], epoch, &params);
        instance.orders.push(order);
        let study = QuoteStudy {
            phase: Phase::at(now, &params),
            params,
            instance,
            book_epoch,
            feerate_sat_kvb: self.engine().chain().feerate_sat_kvb(FEE_TARGET),
        };
        Ok(Study::Quote(Box::new(study), set))
    }
}

/// An ask stands for one rectangle of free units each time it is signed, so an epoch can hold
/// several orders of one standing ask.
fn several(epoch: u64, found: &BTreeSet<OrderId>) -> ApiError {
    let short = |id: &OrderId| id.to_string().chars().take(12).collect();
    let ids: Vec<String> = found.iter().take(ORDERS_PER_OWNER_BOOK).map(short).collect();
    let message = format!("that is {} orders of epoch {epoch}", found.len());
    ApiError::new(reason!("order.ambiguous"), message)
        .with_hint(format!("explain one of {}, with --epoch {epoch}", ids.join(", ")))
}
