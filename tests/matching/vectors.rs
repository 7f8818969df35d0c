//! The published vectors, forwards and reversed.

use capex_core::matching::Algorithm;
use serde_json::Value;

use super::command::matched_as;

pub(crate) const GOLDEN: &str = include_str!("../vectors/matching-golden.json");
pub(crate) const GOLDEN_2: &str = include_str!("../vectors/matching-golden-2.json");

#[test]
fn golden_vectors_of_both_versions_hold_forwards_and_reversed() {
    for (text, algorithm, count) in [(GOLDEN, Algorithm::One, 26), (GOLDEN_2, Algorithm::Two, 40)] {
        let vectors: Vec<Value> = serde_json::from_str(text).unwrap();
        assert_eq!(vectors.len(), count);
        for vector in vectors {
            let mut input = vector["input"].clone();
            assert_eq!(matched_as(Some(algorithm), &input), vector["expect"], "{}", vector["name"]);
            input["orders"].as_array_mut().unwrap().reverse();
            assert_eq!(
                matched_as(Some(algorithm), &input),
                vector["expect"],
                "{} reversed",
                vector["name"]
            );
        }
    }
}
