//! Frozen messages of orders on gossip, and what a node says to them by their bytes alone.

use std::fmt::Write;

use capex_core::bundle::{Bundle, pack};
use capex_core::ids::{from_hex, to_hex};
use capex_core::order::Order;
use capex_core::wire::{Envelope, Verified, encode, sign};

use super::{MAGIC, samples};

const NAME: &str = "orders-message";
const HEADER: &str = "\
# A message on the topic `orders`: the number of orders as u64, then for each key, length of the
# payload as u64, payload and signature. Ascending by id, of one owner, epoch and version.
";
/// Messages are broken into lines of this many digits.
const WIDTH: usize = 96;

fn orders(count: u64) -> Vec<Verified<Order>> {
    let bid = samples::bid();
    let numbered = (0..count).map(|nonce| Order { nonce, ..bid.clone() });
    numbered.map(|order| sign(order, MAGIC, &samples::secret("buyer"))).collect()
}

fn list(envelopes: &[&Envelope]) -> Vec<u8> {
    encode(&envelopes)
}

fn made() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let mut two = orders(2);
    two.sort_by_key(Verified::id);
    let envelopes: Vec<&Envelope> = two.iter().map(Verified::envelope).collect();
    let [low, high] = envelopes[..] else { panic!("two orders") };
    let next = Order { epoch: samples::bid().epoch + 1, ..samples::bid() };
    let next = sign(next, MAGIC, &samples::secret("buyer"));
    let mut newer = low.clone();
    newer.payload[0] = 2;
    vec![
        ("one order", pack(&orders(1)).concat(), "read"),
        ("two orders", pack(&two).concat(), "read"),
        ("no order", list(&[]), "orders.count"),
        ("descending", list(&[high, low]), "orders.unsorted"),
        ("one order twice", list(&[low, low]), "orders.unsorted"),
        ("of two epochs", list(&[low, next.envelope()]), "orders.mixed"),
        ("of two versions", list(&[low, &newer]), "orders.mixed"),
        ("of a later version", list(&[&newer]), "wire.unknown_version"),
    ]
}

fn answer(bytes: &[u8]) -> &'static str {
    Bundle::decode(bytes, MAGIC).map_or_else(|error| error.code(), |_| "read")
}

#[test]
fn messages_of_orders_are_frozen() {
    let mut text = HEADER.to_owned();
    for (name, bytes, answer) in made() {
        writeln!(text, "\ncase {name}").unwrap();
        for line in to_hex(&bytes).as_bytes().chunks(WIDTH) {
            writeln!(text, "bytes {}", String::from_utf8_lossy(line)).unwrap();
        }
        writeln!(text, "answer {answer}").unwrap();
    }
    super::compare_text(NAME, &text);
}

#[test]
fn frozen_messages_get_their_frozen_answers() {
    let text = std::fs::read_to_string(super::folder().join(format!("{NAME}.hex"))).unwrap();
    let cases: Vec<&str> = text.split("\n\n").skip(1).collect();
    assert_eq!(cases.len(), made().len());
    for case in cases {
        let values = |word: &str| -> String {
            case.lines().filter_map(|line| line.strip_prefix(word)).map(str::trim).collect()
        };
        let bytes = from_hex(&values("bytes")).unwrap();
        assert_eq!(answer(&bytes), values("answer"), "{}", values("case"));
    }
}
