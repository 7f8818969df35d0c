//! What is left of a sale whose provider was paid and gave nothing: a proof for anyone.

use bitcoin::hashes::Hash;
use capex_core::certificate::file::{parse_default, write_default};
use capex_core::certificate::objects::DefaultProof;
use capex_core::certificate::verify::verify_default;
use capex_core::settlement::objects::{LockGrant, Terms, Transfer};
use capex_core::wire::{Envelope, sha256};

use super::*;

/// A world in which the provider was paid and stayed away until the window was over.
fn defaulted() -> (World, DefaultProof) {
    let mut world = World::of_three(Faults::default()).open();
    world.until("revealed", |world| world.state(SELLER) == "claim_sent");
    world.parties[PROVIDER].online = false;
    world.until("defaulted", |world| world.state(BUYER) == "defaulted");
    let proof = *world.view(BUYER).unwrap().proof.unwrap();
    (world, proof)
}

/// The window is over, and the provider was paid: what is left is what shows it.
#[test]
fn a_provider_that_never_activates_leaves_the_proof_of_its_default() {
    let (mut world, proof) = defaulted();
    assert_eq!(world.state(SELLER), "settled");
    let slot_s = world.setup.params.slot_s;
    let ends_ms = world.setup.row.window().ends_at_ms(slot_s);
    assert!((ends_ms..ends_ms + 1_000).contains(&world.now_ms));
    let view = world.view(BUYER).unwrap();
    assert_eq!((view.code.as_deref(), view.done), (Some("settle.defaulted"), true));
    let params = &world.setup.params;
    let terms = proof.terms.verify::<Terms>(params.magic).unwrap();
    let lock = proof.lock.verify::<LockGrant>(params.magic).unwrap();
    let provider = world.parties[PROVIDER].key();
    assert_eq!(
        (verify(&proof.title, params).unwrap().provider, lock.provider),
        (provider, provider)
    );
    assert_eq!((lock.terms_hash.0, proof.transfer.terms_hash.0), (terms.id(), terms.id()));
    assert_eq!(sha256(&[&proof.transfer.x]), terms.payment_hash);
    assert_eq!(proof.transfer.spend_txid, view.claim.unwrap().txid.to_byte_array());
    // It stays known after a restart, and no late word changes it.
    world.parties[BUYER].restart(&world.setup, world.now_ms);
    world.settle(BUYER);
    world.heal();
    world.step();
    assert_eq!(world.state(BUYER), "defaulted");
}

#[test]
fn a_proof_of_default_is_a_file_that_verifies_offline() {
    let (world, proof) = defaulted();
    let (params, provider) = (&world.setup.params, world.parties[PROVIDER].keys());
    let text = write_default(&proof, params);
    assert_eq!(parse_default(&text, params).as_ref(), Ok(&proof));
    let facts = verify_default(&proof, params).unwrap();
    assert_eq!(facts.title.provider, provider.public());
    let parties = (facts.terms.from, facts.terms.to);
    assert_eq!(parties, (world.parties[SELLER].key(), world.parties[BUYER].key()));
    // Parts of it that are not what they should be.
    let lock: LockGrant = proof.lock.peek().unwrap();
    let locked = |change: fn(&mut LockGrant)| {
        let mut lock = lock.clone();
        change(&mut lock);
        DefaultProof { lock: provider.sign(lock, params).envelope().clone(), ..proof.clone() }
    };
    let mut by_seller = lock.clone();
    by_seller.provider = world.parties[SELLER].key();
    let by_seller = world.parties[SELLER].keys().sign(by_seller, params).envelope().clone();
    let forged = |envelope: &Envelope| {
        let mut forged = envelope.clone();
        forged.signature[1][0] ^= 1;
        forged
    };
    let mut terms: Terms = proof.terms.peek().unwrap();
    terms.from = provider.public();
    let sold_by_provider = provider.sign(terms, params).envelope().clone();
    let transfer = &proof.transfer;
    let table: [(&str, &str, DefaultProof); 8] = [
        ("other terms", "certificate.lock_mismatch", locked(|lock| lock.terms_hash.0 = [9; 32])),
        ("another number", "certificate.lock_mismatch", locked(|lock| lock.seq += 1)),
        ("another refund", "certificate.lock_mismatch", locked(|lock| lock.refund_at += 1)),
        (
            "no provider's lock",
            "certificate.foreign_part",
            DefaultProof { lock: by_seller, ..proof.clone() },
        ),
        (
            "a forged lock",
            "certificate.bad_signature",
            DefaultProof { lock: forged(&proof.lock), ..proof.clone() },
        ),
        (
            "forged terms",
            "certificate.bad_signature",
            DefaultProof { terms: forged(&proof.terms), ..proof.clone() },
        ),
        (
            "sold by another",
            "certificate.not_holder",
            DefaultProof { terms: sold_by_provider, ..proof.clone() },
        ),
        (
            "no preimage",
            "certificate.preimage",
            DefaultProof { transfer: Transfer { x: [9; 32], ..transfer.clone() }, ..proof.clone() },
        ),
    ];
    for (what, code, bad) in table {
        let refused = verify_default(&bad, params).unwrap_err();
        assert_eq!((refused.code(), refused.hop), (code, Some(1)), "{what}");
    }
    // A certificate is no proof, and a proof no certificate; nor is a part of one.
    let lines: Vec<&str> = text.lines().collect();
    let without_last = lines[..lines.len() - 1].join("\n");
    let files = [
        (text.replacen("capex-default", "capex-certificate", 1), "certificate.file_header"),
        (without_last, "certificate.file_truncated"),
        (lines[..2].join("\n"), "certificate.file_truncated"),
        (format!("{text}gift 00 00\n"), "certificate.file_kind"),
    ];
    for (text, code) in files {
        assert_eq!(parse_default(&text, params).unwrap_err().code(), code, "{text:.40}");
    }
    let read = capex_core::certificate::file::parse(&text, params);
    assert_eq!(read.unwrap_err().code(), "certificate.file_header");
}
