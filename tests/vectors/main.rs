//! Frozen bytes of everything that is signed, and of every way to be refused.
//!
//! The files under `tests/vectors/wire` are the wire format: an implementation that reads
//! and writes them speaks to this one. They change only on purpose:
//!
//! ```text
//! CAPEX_WRITE_VECTORS=1 cargo test --test vectors
//! ```
//!
//! writes them anew. Say in CHANGELOG.md who can no longer talk to whom.

#![allow(clippy::unwrap_used, reason = "a broken vector should end the test")]

mod messages;
mod page;
mod refusals;
mod samples;
mod text;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use capex_core::lease::objects::Countersign;
use capex_core::limits::{ORDER_MAX_BYTES, SIGNED_MAX_BYTES};
use capex_core::wire::{Magic, WireError};

use text::{Vector, parse, render};

/// Magic of the devnet.
const MAGIC: Magic = [0xca, 0xfe, 0x00, 0x05];
/// Magic of the signet.
const OTHER_MAGIC: Magic = [0xca, 0xfe, 0x00, 0x03];

const HEADER: &str = "\
# Network magic cafe0005 (devnet). The secret of a signer is SHA-256 of `capex vectors <signer>`.
# The id is SHA-256 of `capex/<object>/v1`, a zero byte, the magic and the payload; the
# signature covers the same bytes.
";

const WHAT_TO_DO: &str = "the wire format changed: old nodes will refuse what this one signs.\n\
    If that is intended: CAPEX_WRITE_VECTORS=1 cargo test --test vectors";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/wire")
}

fn read(name: &str) -> Vec<Vector> {
    let path = folder().join(format!("{name}.hex"));
    parse(&fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
}

/// Compares a file with what this program makes, or writes it if that was asked for.
fn compare(name: &str, vectors: &[Vector]) {
    compare_text(name, &render(HEADER, vectors));
}

fn compare_text(name: &str, made: &str) {
    let path = folder().join(format!("{name}.hex"));
    if std::env::var_os("CAPEX_WRITE_VECTORS").is_some() {
        assert!(std::env::var_os("CI").is_none(), "vectors are never written in CI");
        fs::write(&path, made).unwrap();
        return;
    }
    let frozen = fs::read_to_string(&path).unwrap_or_default();
    for (frozen, made) in frozen.lines().zip(made.lines()) {
        assert_eq!(frozen, made, "{name}: {WHAT_TO_DO}");
    }
    assert_eq!(frozen.len(), made.len(), "{name}: {WHAT_TO_DO}");
}

#[test]
fn the_magics_are_those_of_the_definitions() {
    for (name, magic) in [("devnet", MAGIC), ("signet", OTHER_MAGIC)] {
        assert_eq!(capex::definitions::load(name).unwrap().magic, magic, "{name}");
    }
}

#[test]
fn every_object_has_its_frozen_bytes_id_and_signature() {
    for kind in samples::kinds() {
        compare(kind.name, &kind.vectors);
    }
}

#[test]
fn frozen_bytes_are_read_encoded_and_signed_again() {
    for kind in samples::kinds() {
        for vector in read(kind.name) {
            let at = format!("{} {}", kind.name, vector.name);
            let seen =
                (kind.read)(&vector.envelope).unwrap_or_else(|error| panic!("{at}: {error}"));
            assert_eq!(Some(seen.id()), vector.id, "{at}: id");
            assert_eq!(seen.again.payload, vector.envelope.payload, "{at}: payload");
            assert_eq!(seen.again.signature, vector.envelope.signature, "{at}: signature");
            assert!(vector.envelope.payload.len() <= SIGNED_MAX_BYTES / 2, "{at}: size");
        }
    }
}

#[test]
fn every_object_of_the_sources_is_frozen() {
    let frozen: BTreeSet<String> =
        samples::kinds().iter().map(|kind| kind.name.to_owned()).collect();
    let mut named = BTreeSet::new();
    names_in(&Path::new(env!("CARGO_MANIFEST_DIR")).join("core/src"), &mut named);
    assert_eq!(named, frozen);
}

/// Every `const NAME: &'static str = "…"` of an `Object`.
fn names_in(dir: &Path, names: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            names_in(&path, names);
            continue;
        }
        let source = fs::read_to_string(&path).unwrap();
        let source = source.split("#[cfg(test)]").next().unwrap_or_default();
        let lines = source.lines().filter_map(|line| {
            line.trim().strip_prefix("const NAME: &'static str = \"")?.strip_suffix("\";")
        });
        names.extend(lines.map(str::to_owned));
    }
}

#[test]
fn an_order_ends_in_its_proof_of_work_and_stays_under_its_limit() {
    for vector in read("order") {
        let payload = &vector.envelope.payload;
        assert_eq!(
            payload[payload.len() - 8..],
            samples::POW_NONCE.to_be_bytes(),
            "{}",
            vector.name
        );
        assert!(payload.len() <= ORDER_MAX_BYTES, "{}: {} bytes", vector.name, payload.len());
    }
}

#[test]
fn every_refusal_has_its_frozen_bytes_and_code() {
    for table in refusals::tables() {
        compare(table.name, &table.vectors);
        let mut codes = BTreeSet::new();
        for vector in read(table.name) {
            let error = (table.read)(&vector.envelope).err();
            let code = error.map(WireError::code);
            assert_eq!(code, vector.answer.as_deref(), "{} {}", table.name, vector.name);
            codes.extend(code);
        }
        let all = [
            WireError::Oversize,
            WireError::Malformed,
            WireError::NotCanonical,
            WireError::UnknownVersion,
            WireError::WeakKey,
            WireError::BadSignature,
            WireError::WrongSigner,
        ];
        assert_eq!(codes, all.into_iter().map(WireError::code).collect(), "{}", table.name);
    }
}

/// Where verifiers of ed25519 differ, every node must give the same answer.
#[test]
fn signatures_are_verified_strictly() {
    let table = read("ed25519-strict");
    assert_eq!(table.len(), 18);
    for vector in table {
        let answer = match vector.envelope.verify::<Countersign>(MAGIC) {
            Ok(_) => "accepted",
            Err(error) => error.code(),
        };
        assert_eq!(Some(answer), vector.answer.as_deref(), "{}", vector.name);
    }
}
