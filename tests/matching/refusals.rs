//! Every refusal with its code, and what is dropped instead.

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
        (json!({"class": 1u64 << 40}), "match.class_range"),
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
        (json!({"starts": 8}), "matched"),
        (json!({"now": 1u64 << 32}), "match.integer_range"),
        (json!({"orders": [bid("b"), ask("b")]}), "match.duplicate_id"),
    ];
    for (change, expected) in table {
        let book = with(book(&[bid("b"), ask("s")]), change.clone());
        assert_eq!(code(&book.to_string()), expected, "{change}");
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
fn dropped_orders_are_checked_before_they_are_dropped() {
    let dead = with(bid("b"), json!({"expiry_epoch": 0, "hours": 0}));
    let book = with(book(&[dead, ask("s")]), json!({"epoch": 1}));
    assert_eq!(code(&book.to_string()), "match.zero_hours");
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
