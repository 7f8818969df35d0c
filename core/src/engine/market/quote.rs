//! An order as if it stood in the open book: for asking what it would get. Never signed,
//! stored or gossiped.

use super::spec::{OrderSpec, TimeInForce};
use crate::engine::io::Refusal;
use crate::ids::Key;
use crate::matching;
use crate::order::{Mode, Side};
use crate::params::Params;
use crate::reason;

/// Label of the order that is asked about: no id in hex, so no order of the book.
pub const LABEL: &str = "quote";

/// The order that `owner` would sign for `epoch`, in the matcher's form; `provider` delivers what it
/// would resell. An ask is taken
/// whole: which unit numbers are free is the inventory's to say when it is placed.
///
/// # Errors
/// `order.window`, if nothing of the window can be traded in that epoch, or too little for
/// the run.
pub fn hypothetical(
    spec: &OrderSpec,
    owner: Key,
    provider: Option<Key>,
    epoch: u64,
    params: &Params,
) -> Result<matching::Order, Refusal> {
    let (first, horizon) = (params.first_slot(epoch), params.horizon_end(epoch));
    let start = spec.window.start.max(first);
    let end = spec.window.end.min(horizon);
    if end.saturating_sub(start) < u32::from(spec.slots).max(1) {
        return Err(Refusal::new(
            reason!("order.window"),
            format!(
                "epoch {epoch} trades slots [{first}, {horizon}), which leaves too little of the \
                 window"
            ),
        ));
    }
    let labels = |keys: &[Key]| keys.iter().map(ToString::to_string).collect();
    let fill_or_kill = spec.time_in_force == TimeInForce::FillOrKill;
    let first_alt = spec.alts.first().map_or((0, 0), |alt| (alt.class, alt.limit_msat));
    Ok(matching::Order {
        id: LABEL.to_owned(),
        owner: owner.to_string(),
        qty: spec.qty,
        filled: 0,
        min_qty: if fill_or_kill { spec.qty } else { spec.min_qty.min(spec.qty) },
        window: (spec.window.start, end),
        expiry_epoch: None,
        features: spec.features,
        allow: labels(&spec.allow),
        deny: labels(&spec.deny),
        side: match spec.side {
            Side::Buy => matching::Side::Buy {
                hours: spec.slots,
                mode: match spec.mode {
                    Mode::Sticky => matching::Mode::Sticky,
                    Mode::Gang => matching::Mode::Gang,
                },
                alts: spec.alts.iter().map(|alt| (alt.class, alt.limit_msat)).collect(),
            },
            Side::Sell => matching::Side::Sell {
                class: first_alt.0,
                limit_msat: first_alt.1,
                min_run: spec.min_run,
                provider: provider.map(|key| key.to_string()),
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::Alternative;
    use crate::settlement::fees::FeeLimit;
    use crate::units::Window;

    fn bid(start: u32, end: u32) -> OrderSpec {
        OrderSpec {
            side: Side::Buy,
            alts: vec![Alternative { class: 1, limit_msat: 5 }],
            qty: 4,
            min_qty: 2,
            mode: Mode::Gang,
            window: Window::new(start, end).unwrap(),
            slots: 3,
            features: 0,
            allow: Vec::new(),
            deny: Vec::new(),
            min_run: 0,
            time_in_force: TimeInForce::GoodTillCancelled,
            beneficiary: None,
            use_by: None,
            is_recallable: false,
            pool: None,
            fees: FeeLimit::default(),
            cert: None,
            is_spare: false,
        }
    }

    #[test]
    fn windows_are_cut_to_what_the_epoch_trades() {
        let params = crate::test_support::devnet();
        let (first, horizon) = (params.first_slot(9), params.horizon_end(9));
        let quoted = |spec: &OrderSpec| hypothetical(spec, Key([7; 32]), None, 9, &params);
        for (start, end, good) in [
            (first, first + 3, true),
            (0, first + 3, true),
            (0, first + 2, false),
            (horizon - 3, horizon + 9, true),
            (horizon - 2, horizon + 9, false),
        ] {
            match quoted(&bid(start, end)) {
                Ok(order) => assert!(good && order.window.1 <= horizon),
                Err(refusal) => assert!(!good && refusal.code == "order.window"),
            }
        }
        let all = OrderSpec { time_in_force: TimeInForce::FillOrKill, ..bid(first, first + 3) };
        assert_eq!(quoted(&all).unwrap().min_qty, 4);
        assert_eq!(quoted(&bid(first, first + 3)).unwrap().min_qty, 2);
    }
}
