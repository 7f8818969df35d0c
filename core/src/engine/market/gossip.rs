//! Orders on gossip: what is cheap is judged here, signatures are an effect.
//!
//! Known, stale and hopeless orders are most of what comes, and only the engine knows them.
//! So it looks first, and what is left leaves as `Verify` for a pool and returns as `Checked`.

use super::epochs::Epochs;
use crate::book::Inserted;
use crate::bundle::{Bundle, BundleError, Candidates};
use crate::engine::Context;
use crate::engine::io::{Checked, Unchecked};
use crate::engine::kernel::{Judged, judge};
use crate::ids::OrderId;
use crate::order::Order;
use crate::reason;
use crate::reasons::Reason;
use crate::wire::Parsed;

impl Epochs {
    /// What has to be verified of a message of orders, or why it is not taken.
    pub(in crate::engine) fn on_orders(
        &self,
        ctx: &Context<'_>,
        bytes: &[u8],
    ) -> Result<Candidates, Reason> {
        let bundle = Bundle::decode(bytes, ctx.params.magic).map_err(BundleError::reason)?;
        let set = self.get(bundle.epoch()).map(|view| &*view.set);
        let known = |order: &Parsed<Order>| set.and_then(|set| set.get(&OrderId(order.id())));
        if bundle.orders().iter().all(|order| known(order).is_some()) {
            return Err(reason!("order.duplicate"));
        }
        self.is_open(ctx, bundle.epoch())?;
        let owner = bundle.owner();
        let has_no_room = |order: &Parsed<Order>| {
            set.is_some_and(|set| set.has_no_room_for(&owner, &OrderId(order.id())))
        };
        if bundle.orders().iter().all(|order| known(order).is_some() || has_no_room(order)) {
            return Err(reason!("order.quota"));
        }
        // A known order with another signature is looked at again: the message goes on as a
        // whole or not at all.
        let is_verified = |order: &Parsed<Order>| {
            known(order).is_some_and(|known| known.envelope() == order.envelope())
        };
        bundle.candidates(ctx.params, is_verified).map_err(BundleError::reason)
    }

    /// The answer to `Verify`.
    pub(in crate::engine) fn on_checked(&mut self, ctx: &Context<'_>, checked: Checked) -> Judged {
        judge(self.take_checked(ctx, checked))
    }

    fn take_checked(&mut self, ctx: &Context<'_>, checked: Checked) -> Result<(), Reason> {
        let orders = checked.map_err(|unchecked| match unchecked {
            Unchecked::Busy => reason!("node.busy"),
            Unchecked::Invalid(error) => error.reason(),
        })?;
        self.is_open(ctx, orders.epoch())?;
        let inserted: Vec<Inserted> =
            orders.into_orders().into_iter().map(|order| self.insert(order)).collect();
        if inserted.contains(&Inserted::New) {
            Ok(())
        } else if inserted.contains(&Inserted::Evicted) {
            Err(reason!("order.quota"))
        } else {
            Err(reason!("order.duplicate"))
        }
    }
}
