//! Books: as the JSON of `capex match`, and built from bytes so that most are valid. The
//! result of a valid book verifies, and does not depend on the order of its orders.

use std::io::Write;

use capex::cli::match_cmd;
use capex_core::matching::{Algorithm, Instance, Mode, Order, Side, solve, verify};

pub fn run(bytes: &[u8]) {
    as_json(bytes);
    let mut instance = instance(bytes);
    if let Ok(outcome) = solve(&instance, Algorithm::One) {
        assert_eq!(verify(&instance, &outcome), Ok(()));
        instance.orders.reverse();
        assert_eq!(solve(&instance, Algorithm::One).ok(), Some(outcome));
    }
}

fn as_json(bytes: &[u8]) {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(bytes).expect("room for it");
    let path = file.path().to_str().expect("a plain path").to_owned();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = match_cmd::run(&path, None, true, &mut std::io::empty(), &mut out, &mut err);
    assert!(code == 0 || code == 6, "exit {code}");
    let answer = if out.is_empty() { err } else { out };
    assert!(serde_json::from_slice::<serde_json::Value>(&answer).is_ok());
}

fn instance(bytes: &[u8]) -> Instance {
    let orders = bytes.chunks_exact(8).take(24).enumerate().map(|(n, part)| order(n, part));
    Instance {
        beacon: [7; 32],
        now: 100,
        epoch: 1,
        starts: 4,
        max_legs: None,
        orders: orders.collect(),
        cancels: Vec::new(),
    }
}

fn order(n: usize, part: &[u8]) -> Order {
    let at = |index: usize| u32::from(part[index]);
    let class = (at(0) >> 1) as u16 % 2;
    let limit_msat = 1_000 * u64::from(at(1)) + u64::from(at(7) & 1);
    let start = 98 + at(2) % 16;
    let min = 1 + at(6) % 3;
    let side = if at(0) & 1 == 0 {
        let mut alts = vec![(class, limit_msat)];
        if at(0) & 4 != 0 {
            alts.push((1 - class, limit_msat / 2));
        }
        let mode = if at(0) & 8 == 0 { Mode::Sticky } else { Mode::Gang };
        Side::Buy { hours: 1 + at(4) as u16 % 6, mode, alts }
    } else {
        Side::Sell { class, limit_msat, min_run: min as u16, provider: None }
    };
    Order {
        id: format!("{n:02}"),
        owner: format!("o{}", at(5) % 8),
        qty: at(3) % 12,
        filled: at(7) >> 6,
        min_qty: min,
        window: (start, start + at(4) % 12),
        expiry_epoch: (at(7) & 32 != 0).then_some(u64::from(at(7) & 2)),
        features: u64::from(at(7) >> 2 & 3),
        allow: Vec::new(),
        deny: if at(7) & 16 == 0 { Vec::new() } else { vec![format!("o{}", at(6) % 8)] },
        side,
    }
}
