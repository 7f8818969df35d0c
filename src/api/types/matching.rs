//! A book as `capex match` reads it and `/epochs/{n}/export` answers it.

use serde_json::{Value, json};

use capex_core::matching::{Instance, Mode, Order, Side};

/// The form that `capex match` reads, for one book: all fields of the instance, defaults
/// included.
#[must_use]
pub fn book_json(instance: &Instance) -> Value {
    let mut value = json!({
        "beacon": instance.beacon.iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
        "now": instance.now,
        "epoch": instance.epoch,
        "starts": instance.starts,
        "orders": instance.orders.iter().map(order_json).collect::<Vec<_>>(),
        "cancels": instance
            .cancels
            .iter()
            .map(|cancel| json!({"order": cancel.order, "signer": cancel.signer}))
            .collect::<Vec<_>>(),
    });
    if let Some(legs) = instance.max_legs {
        value["max_legs"] = legs.into();
    }
    value
}

fn order_json(order: &Order) -> Value {
    let mut value = json!({
        "id": order.id,
        "owner": order.owner,
        "qty": order.qty,
        "filled": order.filled,
        "min_qty": order.min_qty,
        "window": [order.window.0, order.window.1],
        "features": order.features,
        "allow": order.allow,
        "deny": order.deny,
    });
    if let Some(epoch) = order.expiry_epoch {
        value["expiry_epoch"] = epoch.into();
    }
    match &order.side {
        Side::Buy { hours, mode, alts } => {
            value["side"] = "buy".into();
            value["hours"] = (*hours).into();
            value["mode"] = match mode {
                Mode::Sticky => "sticky".into(),
                Mode::Gang => "gang".into(),
            };
            value["alts"] = alts.iter().map(|(class, limit)| json!([class, limit])).collect();
        }
        Side::Sell { class, limit_msat, min_run, provider } => {
            value["side"] = "sell".into();
            value["class"] = (*class).into();
            value["limit"] = (*limit_msat).into();
            value["min_run"] = (*min_run).into();
            if let Some(provider) = provider {
                value["provider"] = provider.as_str().into();
            }
        }
    }
    value
}
