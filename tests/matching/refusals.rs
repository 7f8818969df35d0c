//! Every refusal with its code, and what is dropped instead.

use capex_core::matching::MatchError;
use serde_json::{Value, json};

use super::command::{matched, run_on};

fn bid(id: &str) -> Value {
    json!({"id": id, "owner": "alice", "side": "buy", "qty": 1, "window": [0, 4], "class": 0, "limit": 100})
}

fn ask(id: &str) -> Value {
    json!({"id": id, "owner": "bob", "side": "sell", "qty": 1, "window": [0, 4], "class": 0, "limit": 90})
}

fn book(orders: &[Value]) -> Value {
    json!({"beacon": "00".repeat(32), "orders": orders})
}

/// `base` with the fields of `change`; `null` removes a field.
fn with(mut base: Value, change: Value) -> Value {
    for (name, value) in change.as_object().unwrap() {
        if value.is_null() {
            base.as_object_mut().unwrap().remove(name);
        } else {
            base[name.as_str()] = value.clone();
        }
    }
    base
}

fn code(text: &str) -> String {
    let ran = run_on(text, false);
    let answer: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(ran.exit_code, if answer.get("error").is_some() { 6 } else { 0 });
    answer["error"]["code"].as_str().unwrap_or("matched").to_owned()
}

fn alternatives(classes: std::ops::Range<u16>) -> Value {
    let alts: Vec<Value> = classes.map(|class| json!([class, 100])).collect();
    json!({"class": null, "limit": null, "alts": alts})
}

#[test]
fn bids_outside_the_form_are_refused() {
    let table = [
        (json!({"colour": 1}), "match.unknown_field"),
        (json!({"min_run": 1}), "match.unknown_field"),
        (json!({"alts": [[1, 100]]}), "match.unknown_field"),
        (json!({"qty": null}), "match.missing_field"),
        (json!({"owner": null}), "match.missing_field"),
        (json!({"qty": "1"}), "match.wrong_type"),
        (json!({"qty": true}), "match.wrong_type"),
        (json!({"qty": 1.0}), "match.wrong_type"),
        (json!({"id": 1}), "match.wrong_type"),
        (json!({"window": [0]}), "match.wrong_type"),
        (json!({"window": [0, 4, 8]}), "match.wrong_type"),
        (json!({"allow": "bob"}), "match.wrong_type"),
        (json!({"deny": [1]}), "match.wrong_type"),
        (json!({"class": null, "limit": null, "alts": [[1, 100, 2]]}), "match.wrong_type"),
        (json!({"qty": -1}), "match.integer_range"),
        (json!({"window": [0, 1u64 << 32]}), "match.integer_range"),
        (json!({"class": 65536}), "match.class_range"),
        (json!({"side": "hold"}), "match.unknown_side"),
        (json!({"mode": "loose"}), "match.unknown_mode"),
        (json!({"window": [4, 4]}), "match.empty_window"),
        (json!({"window": [5, 4]}), "match.empty_window"),
        (json!({"hours": 0}), "match.zero_hours"),
        (json!({"hours": 169}), "match.hours_too_long"),
        (json!({"hours": 1u64 << 40}), "match.hours_too_long"),
        (json!({"hours": 168}), "matched"),
        (json!({"qty": 10_001}), "match.qty_too_large"),
        (json!({"qty": 1u64 << 40}), "match.qty_too_large"),
        (json!({"qty": 10_000}), "matched"),
        (json!({"min_qty": 0}), "match.zero_min_qty"),
        (json!({"min_qty": u64::MAX}), "matched"),
        (json!({"allow": vec!["a"; 9], "deny": vec!["b"; 8]}), "match.too_many_keys"),
        (json!({"allow": vec!["a"; 8], "deny": vec!["b"; 8]}), "matched"),
        (alternatives(0..0), "match.no_alternatives"),
        (alternatives(0..5), "match.too_many_alternatives"),
        (alternatives(0..4), "matched"),
        (alternatives(65_535..65_535), "match.no_alternatives"),
        (json!({"class": 65_535}), "matched"),
        (json!({"class": null, "limit": null, "alts": [[65_536, 5]]}), "match.class_range"),
        (json!({"class": null, "limit": null, "alts": [[65_535, 5]]}), "matched"),
        (json!({"hours": 1}), "matched"),
        (json!({"min_qty": 1}), "matched"),
        (json!({"allow": vec!["a"; 17]}), "match.too_many_keys"),
        (json!({"deny": vec!["a"; 16]}), "matched"),
        (json!({"class": null, "limit": null, "alts": [[1, 5], [1, 6]]}), "match.repeated_class"),
        (json!({"expiry_epoch": u64::MAX, "features": u64::MAX}), "matched"),
    ];
    for (change, expected) in table {
        let orders = [with(bid("b"), change.clone()), ask("s")];
        assert_eq!(code(&book(&orders).to_string()), expected, "{change}");
    }
}

#[test]
fn asks_outside_the_form_are_refused() {
    let table = [
        (json!({"hours": 1}), "match.unknown_field"),
        (json!({"mode": "sticky"}), "match.unknown_field"),
        (json!({"limit": null}), "match.missing_field"),
        (json!({"provider": 1}), "match.wrong_type"),
        (json!({"min_run": 0}), "match.zero_min_run"),
        (json!({"min_run": u64::MAX}), "matched"),
        (json!({"min_run": 1}), "matched"),
        (json!({"class": 65_535}), "matched"),
        (json!({"class": 65_536}), "match.class_range"),
        (json!({"class": 1u64 << 40}), "match.class_range"),
        (json!({"min_qty": 0}), "match.zero_min_qty"),
        (json!({"qty": 10_000}), "matched"),
        (json!({"qty": 10_001}), "match.qty_too_large"),
        (json!({"window": [4, 4]}), "match.empty_window"),
        (json!({"window": [3, 4]}), "matched"),
        (json!({"allow": vec!["a"; 16]}), "matched"),
        (json!({"allow": vec!["a"; 16], "deny": ["b"]}), "match.too_many_keys"),
        (json!({"alts": [[1, 100]]}), "match.unknown_field"),
    ];
    for (change, expected) in table {
        let orders = [bid("b"), with(ask("s"), change.clone())];
        assert_eq!(code(&book(&orders).to_string()), expected, "{change}");
    }
}

#[test]
fn books_outside_the_form_are_refused() {
    let table = [
        (json!({"colour": 1}), "match.unknown_field"),
        (json!({"beacon": null}), "match.missing_field"),
        (json!({"orders": null}), "match.missing_field"),
        (json!({"orders": {}}), "match.wrong_type"),
        (json!({"orders": [[]]}), "match.wrong_type"),
        (json!({"cancels": [{"order": "b"}]}), "match.missing_field"),
        (json!({"cancels": [{"order": "b", "signer": "x", "at": 1}]}), "match.unknown_field"),
        (json!({"beacon": "00".repeat(31)}), "match.beacon"),
        (json!({"beacon": "00".repeat(33)}), "match.beacon"),
        (json!({"beacon": "0".repeat(63)}), "match.beacon"),
        (json!({"beacon": "0g".repeat(32)}), "match.beacon"),
        (json!({"starts": 0}), "match.starts"),
        (json!({"starts": 9}), "match.starts"),
        (json!({"starts": 300}), "match.starts"),
        (json!({"max_legs": 1}), "match.max_legs"),
        (json!({"max_legs": 65}), "match.max_legs"),
        (json!({"max_legs": 70_000}), "match.max_legs"),
        (json!({"max_legs": "2"}), "match.wrong_type"),
        (json!({"max_legs": 2}), "matched"),
        (json!({"max_legs": 64}), "matched"),
        (json!({"starts": 8}), "matched"),
        (json!({"starts": 1}), "matched"),
        (json!({"beacon": "00".repeat(32)}), "matched"),
        (json!({"now": u32::MAX, "epoch": u64::MAX}), "matched"),
        (json!({"now": 1u64 << 32}), "match.integer_range"),
        (json!({"orders": [bid("b"), ask("b")]}), "match.duplicate_id"),
    ];
    for (change, expected) in table {
        let book = with(book(&[bid("b"), ask("s")]), change.clone());
        assert_eq!(code(&book.to_string()), expected, "{change}");
    }
}

/// Every field of an order, its fields beside, and a good value.
fn fields() -> Vec<(Value, &'static str, Value)> {
    let common = ["qty", "filled", "min_qty", "features", "expiry_epoch", "limit", "class"];
    let mut fields = Vec::new();
    for order in [bid("o"), ask("o")] {
        for name in common {
            fields.push((order.clone(), name, json!(1)));
        }
        for name in ["id", "owner"] {
            fields.push((order.clone(), name, json!("o")));
        }
        fields.push((order.clone(), "window", json!([0, 4])));
        fields.push((order.clone(), "allow", json!(["a"])));
        fields.push((order, "deny", json!(["a"])));
    }
    fields.extend([(bid("o"), "hours", json!(1)), (bid("o"), "mode", json!("gang"))]);
    fields.extend([(ask("o"), "min_run", json!(1)), (ask("o"), "provider", json!("p"))]);
    fields.push((with(bid("o"), json!({"class": null, "limit": null})), "alts", json!([[1, 1]])));
    fields
}

#[test]
fn a_field_of_another_type_is_refused_whatever_the_field() {
    let others =
        [json!(true), json!(-1.5), json!("1"), json!(1), json!([]), json!([{}]), json!({})];
    for (order, name, good) in fields() {
        let with_field = |value: &Value| {
            let mut order = order.clone();
            order[name] = value.clone();
            code(&book(&[order]).to_string())
        };
        assert_eq!(with_field(&good), "matched", "{name}");
        assert_eq!(with_field(&Value::Null), "match.wrong_type", "{name}");
        for other in &others {
            let is_type = (good.is_string() && other.is_string())
                || (good.is_number() && other == &json!(1))
                || (good.is_array() && other == &json!([]) && name != "window");
            if !is_type {
                assert_eq!(with_field(other), "match.wrong_type", "{name}: {other}");
            }
        }
    }
}

#[test]
fn an_integer_beyond_64_bits_is_refused_whatever_the_field() {
    const BEYOND: &str = "18446744073709551616";
    const HOLE: u64 = 987_654_321;
    let integers = fields().into_iter().filter(|(_, _, good)| good.is_number());
    for (mut order, name, _) in integers {
        order[name] = HOLE.into();
        let text = book(&[order]).to_string().replace(&HOLE.to_string(), BEYOND);
        assert_eq!(code(&text), "match.integer_range", "{name}");
    }
    for hole in [
        with(book(&[]), json!({"now": HOLE})),
        with(book(&[]), json!({"epoch": HOLE})),
        with(book(&[]), json!({"starts": HOLE})),
        book(&[with(bid("b"), json!({"window": [0, HOLE]}))]),
        book(&[with(bid("b"), json!({"window": [HOLE, HOLE]}))]),
        book(&[with(bid("b"), json!({"class": null, "limit": null, "alts": [[1, HOLE]]}))]),
        book(&[with(bid("b"), json!({"class": null, "limit": null, "alts": [[HOLE, 1]]}))]),
    ] {
        let text = hole.to_string().replace(&HOLE.to_string(), BEYOND);
        assert_eq!(code(&text), "match.integer_range", "{hole}");
    }
}

#[test]
fn integers_beyond_64_bits_are_told_from_fractions() {
    let text = book(&[bid("b")]).to_string();
    for (number, expected) in [
        ("18446744073709551615", "matched"),
        ("18446744073709551616", "match.integer_range"),
        ("100000000000000000000000000000", "match.integer_range"),
        ("-5", "match.integer_range"),
        ("1e2", "match.wrong_type"),
        ("0.5", "match.wrong_type"),
    ] {
        let changed = text.replace("\"limit\":100", &format!("\"limit\":{number}"));
        assert_ne!(changed, text);
        assert_eq!(code(&changed), expected, "{number}");
    }
}

#[test]
fn the_horizon_is_that_of_the_live_orders() {
    let far = |change| [bid("b"), ask("s"), with(ask("far"), change)];
    let wide = far(json!({"window": [336, 337]}));
    assert_eq!(code(&book(&wide).to_string()), "match.horizon_too_long");
    let fits = far(json!({"window": [335, 336]}));
    assert_eq!(code(&book(&fits).to_string()), "matched");
    let dead = far(json!({"window": [336, 337], "filled": 1}));
    assert_eq!(code(&book(&dead).to_string()), "matched");
    let later = with(book(&wide), json!({"now": 1}));
    assert_eq!(code(&later.to_string()), "matched");
}

#[test]
fn the_horizon_starts_at_the_first_slot_that_can_be_delivered() {
    let orders = |end: u32| [with(ask("s"), json!({"window": [0, end]})), bid("b")];
    let table = [
        (0, 336, "matched"),
        (0, 337, "match.horizon_too_long"),
        (1, 337, "matched"),
        (1, 338, "match.horizon_too_long"),
    ];
    for (now, end, expected) in table {
        let book = with(book(&orders(end)), json!({"now": now}));
        assert_eq!(code(&book.to_string()), expected, "{now} {end}");
    }
    // Neither a cancelled nor an expired order, nor one without a price, counts.
    let far = |change| with(with(ask("far"), json!({"window": [900, 901]})), change);
    let cancelled = with(
        book(&[far(json!({})), bid("b")]),
        json!({"cancels": [{"order": "far", "signer": "bob"}]}),
    );
    assert_eq!(code(&cancelled.to_string()), "matched");
    for change in [json!({"expiry_epoch": 0}), json!({"limit": 0}), json!({"qty": 0})] {
        let book = with(book(&[far(change.clone()), bid("b")]), json!({"epoch": 1}));
        assert_eq!(code(&book.to_string()), "matched", "{change}");
    }
}

#[test]
fn dropped_orders_are_checked_before_they_are_dropped() {
    let faults = [
        (json!({"hours": 0}), "match.zero_hours"),
        (json!({"hours": 169}), "match.hours_too_long"),
        (json!({"min_qty": 0}), "match.zero_min_qty"),
        (json!({"qty": 10_001, "filled": 10_001}), "match.qty_too_large"),
        (json!({"window": [1, 1]}), "match.empty_window"),
        (json!({"allow": vec!["a"; 17]}), "match.too_many_keys"),
        (alternatives(0..0), "match.no_alternatives"),
        (alternatives(0..5), "match.too_many_alternatives"),
        (json!({"class": null, "limit": null, "alts": [[1, 0], [1, 0]]}), "match.repeated_class"),
        (json!({"id": "s"}), "match.duplicate_id"),
        (json!({"colour": 1}), "match.unknown_field"),
    ];
    let drops = [
        json!({"expiry_epoch": 0}),
        json!({"filled": 1_000_000}),
        json!({"id": "cancelled"}),
        json!({"window": [0, 1]}),
    ];
    let cancels = json!([{"order": "cancelled", "signer": "alice"}]);
    let around = |order| {
        let change = json!({"epoch": 1, "now": 1, "cancels": cancels});
        with(book(&[order, with(ask("s"), json!({"owner": "alice"}))]), change)
    };
    for drop in drops {
        let dropped = with(bid("b"), drop.clone());
        let left = matched(&around(dropped.clone()));
        assert_eq!(left["trades"], json!([]), "{drop}");
        for (fault, expected) in &faults {
            let book = around(with(dropped.clone(), fault.clone()));
            assert_eq!(code(&book.to_string()), *expected, "{drop} {fault}");
        }
    }
}

#[test]
fn what_cannot_trade_is_dropped() {
    let pmax = 1_000_000_000_000u64;
    let table = [
        (json!({}), 1),
        (json!({"expiry_epoch": 6}), 0),
        (json!({"expiry_epoch": 7}), 1),
        (json!({"qty": 0}), 0),
        (json!({"filled": 1}), 0),
        (json!({"filled": u64::MAX}), 0),
        (json!({"window": [0, 2]}), 0),
        (json!({"window": [0, 3]}), 1),
        (json!({"limit": 0}), 0),
        (json!({"limit": pmax}), 1),
        (json!({"limit": pmax + 1}), 0),
        (json!({"hours": 3}), 0),
    ];
    for (change, trades) in table {
        let orders = [with(bid("b"), change.clone()), ask("s")];
        let result = matched(&with(book(&orders), json!({"now": 2, "epoch": 7})));
        assert_eq!(result["trades"].as_array().unwrap().len(), trades, "{change}");
    }
    for (signer, trades) in [("alice", 0), ("bob", 1)] {
        let cancels = json!({"cancels": [{"order": "b", "signer": signer}]});
        let result = matched(&with(book(&[bid("b"), ask("s")]), cancels));
        assert_eq!(result["trades"].as_array().unwrap().len(), trades, "{signer}");
    }
}

#[test]
fn the_last_slots_there_are_can_be_traded() {
    let last = json!({"window": [u32::MAX - 3, u32::MAX], "hours": 3});
    let supply = json!({"window": [u32::MAX - 3, u32::MAX]});
    let orders = [with(bid("b"), last), with(ask("s"), supply)];
    let result = matched(&with(book(&orders), json!({"now": u32::MAX - 3})));
    assert_eq!(result["trades"][0]["start"], u32::MAX - 3);
    assert_eq!(result["prices"].as_object().unwrap().len(), 3);
}

/// No book leads there: the closure excludes it, whose own tests reach it.
#[test]
fn what_the_closure_excludes_has_a_code_too() {
    assert_eq!(MatchError::Infeasible.code(), "match.infeasible");
}

#[test]
fn the_last_epochs_there_are_can_be_matched() {
    let table = [
        (json!({"expiry_epoch": u64::MAX}), u64::MAX, 1),
        (json!({"expiry_epoch": u64::MAX - 1}), u64::MAX, 0),
        // No expiry stands for 2^62.
        (json!({}), 1 << 62, 1),
        (json!({}), (1 << 62) + 1, 0),
    ];
    for (expiry, epoch, trades) in table {
        let orders = [with(bid("b"), expiry.clone()), with(ask("s"), expiry.clone())];
        let result = matched(&with(book(&orders), json!({"epoch": epoch})));
        assert_eq!(result["trades"].as_array().unwrap().len(), trades, "{expiry} {epoch}");
    }
}

/// The largest of everything at once: 16 gangs of 10,000 units for 168 slots at the highest
/// price, over the longest horizon, at the end of all slots.
#[test]
fn sums_of_the_largest_values_do_not_overflow() {
    const PMAX: u64 = 1_000_000_000_000;
    let window = [u32::MAX - 336, u32::MAX];
    let largest = |order: Value, at: usize, limit: u64| {
        let name = format!("{}{at}", order["id"].as_str().unwrap());
        let change = json!({"id": name, "owner": name, "qty": 10_000, "window": window,
            "limit": limit, "expiry_epoch": u64::MAX, "features": u64::MAX});
        with(order, change)
    };
    for (ask_msat, mode) in [(PMAX, "gang"), (1, "sticky"), (1, "gang")] {
        let mut orders = Vec::new();
        for at in 0..16 {
            orders.push(largest(ask("s"), at, ask_msat));
            let bid = with(bid("b"), json!({"hours": 168, "mode": mode, "min_qty": 10_000}));
            orders.push(largest(bid, at, PMAX));
        }
        let limits = json!({"starts": 8, "now": window[0], "epoch": u64::MAX});
        let ran = run_on(&with(book(&orders), limits).to_string(), false);
        assert_eq!((ran.exit_code, ran.err.as_str()), (0, ""), "{}", ran.out);
        let welfare = 16 * 10_000 * 168 * u128::from(PMAX - ask_msat);
        assert!(ran.out.starts_with(&format!("{{\"welfare_msat\":{welfare},")), "{}", ran.out);
        if ask_msat == PMAX {
            let total = format!("\"msat\":{}", 10_000 * 168 * PMAX);
            assert!(ran.out.contains(&total), "{}", ran.out);
        }
    }
}
