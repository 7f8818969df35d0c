//! The published vectors, forwards and reversed.

use serde_json::Value;

use super::command::matched;

pub(crate) const GOLDEN: &str = include_str!("../vectors/matching-golden.json");

#[test]
fn golden_vectors_hold_forwards_and_reversed() {
    let vectors: Vec<Value> = serde_json::from_str(GOLDEN).unwrap();
    assert_eq!(vectors.len(), 26);
    for vector in vectors {
        let mut input = vector["input"].clone();
        assert_eq!(matched(&input), vector["expect"], "{}", vector["name"]);
        input["orders"].as_array_mut().unwrap().reverse();
        assert_eq!(matched(&input), vector["expect"], "{} reversed", vector["name"]);
    }
}
