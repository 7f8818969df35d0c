//! Orders on gossip: what is cheap is judged here, signatures are an effect.
//!
//! Known, stale and hopeless orders are most of what comes, and only the engine knows them.
//! So it looks first, and what is left leaves as `Verify` for a pool and returns as `Checked`.

use super::epochs::Epochs;
use crate::book::Inserted;
use crate::bundle::{Bundle, BundleError, Candidates};
use crate::engine::Context;
use crate::engine::io::{Checked, Unchecked, Verdict};
use crate::engine::kernel::judge;
use crate::ids::OrderId;
use crate::order::Order;
use crate::wire::Parsed;

/// What is known before any signature is looked at.
type Judged = (Verdict, &'static str);

impl Epochs {
    /// A message of orders: its verdict, or what has to be verified first.
    pub(in crate::engine) fn on_orders(
        &self,
        ctx: &Context<'_>,
        bytes: &[u8],
    ) -> Result<Candidates, Judged> {
        let bundle = Bundle::decode(bytes, ctx.params.magic).map_err(blame)?;
        let set = self.get(bundle.epoch()).map(|view| &*view.set);
        let known = |order: &Parsed<Order>| set.and_then(|set| set.get(&OrderId(order.id())));
        if bundle.orders().iter().all(|order| known(order).is_some()) {
            return Err((Verdict::Ignore, "order.duplicate"));
        }
        self.is_open(ctx, bundle.epoch()).map_err(|code| (Verdict::Ignore, code))?;
        let owner = bundle.owner();
        let has_no_room = |order: &Parsed<Order>| {
            set.is_some_and(|set| set.has_no_room_for(&owner, &OrderId(order.id())))
        };
        if bundle.orders().iter().all(|order| known(order).is_some() || has_no_room(order)) {
            return Err((Verdict::Ignore, "order.quota"));
        }
        // A known order with another signature is looked at again: the message goes on as a
        // whole or not at all.
        let is_verified = |order: &Parsed<Order>| {
            known(order).is_some_and(|known| known.envelope() == order.envelope())
        };
        bundle.candidates(ctx.params, is_verified).map_err(blame)
    }

    /// The answer to `Verify`.
    pub(in crate::engine) fn on_checked(
        &mut self,
        ctx: &Context<'_>,
        checked: Checked,
    ) -> (Verdict, Option<&'static str>) {
        let orders = match checked {
            Ok(orders) => orders,
            Err(Unchecked::Busy) => return (Verdict::Ignore, Some("node.busy")),
            Err(Unchecked::Invalid(error)) => return judge(error.reason()),
        };
        if let Err(code) = self.is_open(ctx, orders.epoch()) {
            return (Verdict::Ignore, Some(code));
        }
        let inserted: Vec<Inserted> =
            orders.into_orders().into_iter().map(|order| self.insert(order)).collect();
        if inserted.contains(&Inserted::New) {
            (Verdict::Accept, None)
        } else if inserted.contains(&Inserted::Evicted) {
            (Verdict::Ignore, Some("order.quota"))
        } else {
            (Verdict::Ignore, Some("order.duplicate"))
        }
    }
}

fn blame(error: BundleError) -> Judged {
    let verdict = if error.is_blamable() { Verdict::Reject } else { Verdict::Ignore };
    (verdict, error.code())
}
