//! What a node believes of what it hears of providers, and for how long.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod certificate_fixture;

use capex_core::certificate::equivocation::Statement;
use capex_core::certificate::equivocation::prove;
use capex_core::certificate::objects::{RedeemGrant, StatementKind};
use capex_core::engine::io::{Effect, Topic, Verdict};
use capex_core::engine::witness::{WitnessReply, WitnessRequest};
use capex_core::ids::{CertId, LeaseId, TermsHash};
use capex_core::limits::{HORIZON_SLOTS, PROOF_MAX_BYTES};
use capex_core::settlement::objects::LockGrant;
use capex_core::units::Window;
use capex_core::wire::{self, Object, Verified};
use certificate_fixture::party::*;
use certificate_fixture::*;

const ME: u8 = 1;
const PROVIDER: u8 = 2;
const BUYER: u8 = 4;
const CERT: CertId = CertId([3; 32]);

fn hear<T: Object>(net: &mut Net, said: &Verified<T>, is_known: bool) -> Result<(), &'static str> {
    let bytes = wire::encode(said.envelope());
    let heard =
        net.party(ME).with(|ctx, books, _| books.witness.on_statement(ctx, &|_| is_known, &bytes));
    heard.map(|_| ()).map_err(|reason| reason.code())
}

fn redeemed(provider: u8, number: u32, attempt: u32) -> Verified<RedeemGrant> {
    let mut cert = CERT;
    cert.0[..4].copy_from_slice(&number.to_be_bytes());
    redeem_grant(provider, cert, 1, attempt, &devnet())
}

fn locked(terms: u8, attempt: u32) -> Verified<LockGrant> {
    let window = Window { start: 1000, end: 1004 };
    let issue = issue(PROVIDER, 1, units(0, 2), window, &devnet());
    let value = certificate_fixture::terms(&issue, 1, [0; 32], public(PROVIDER), public(ME));
    let value = by(PROVIDER, value, &devnet());
    let mut value = grant(PROVIDER, &value, attempt, &devnet()).into_value();
    (value.cert_id, value.terms_hash) = (CERT, TermsHash([terms; 32]));
    by(PROVIDER, value, &devnet())
}

#[test]
fn only_those_who_trade_are_heard_and_whoever_was_heard_before() {
    let mut net = Net::new(&[ME]);
    assert_eq!(hear(&mut net, &redeemed(PROVIDER, 1, 0), false), Err("lock.not_a_trader"));
    assert_eq!(hear(&mut net, &redeemed(PROVIDER, 1, 0), true), Ok(()));
    assert_eq!(hear(&mut net, &redeemed(PROVIDER, 2, 0), false), Ok(()));
    assert_eq!(hear(&mut net, &redeemed(PROVIDER, 2, 0), false), Err("lock.known"));
    assert_eq!(hear(&mut net, &redeemed(9, 1, 0), false), Err("lock.not_a_trader"));
    assert_eq!(hear(&mut net, &redeemed(ME, 1, 0), false), Ok(()), "its own statements matter");
}

#[test]
fn a_grant_conflicts_with_later_attempts_and_with_what_is_final() {
    let ours = TermsHash([1; 32]);
    let lock = |terms, attempt| {
        let lock = locked(terms, attempt);
        Statement::verify(StatementKind::LockGrant, lock.envelope(), devnet().magic).unwrap()
    };
    let redeemed = |attempt| {
        let grant = redeem_grant(PROVIDER, CERT, 1, attempt, &devnet());
        Statement::verify(StatementKind::RedeemGrant, grant.envelope(), devnet().magic).unwrap()
    };
    // What was heard, attempt of the own lock, whether it conflicts
    let table = [
        ("a lock for other terms", lock(2, 1), 1, true),
        ("a later one", lock(2, 2), 1, true),
        ("an earlier one, released since", lock(2, 0), 1, false),
        ("the own one", lock(1, 1), 1, false),
        ("a redemption, earlier", redeemed(0), 1, true),
        ("a redemption, later", redeemed(2), 1, true),
    ];
    for (name, said, attempt, expected) in table {
        let mut net = Net::new(&[ME]);
        let bytes = wire::encode(said.envelope());
        net.party(ME)
            .with(|ctx, books, _| books.witness.on_statement(ctx, &|_| true, &bytes).map(|_| ()))
            .unwrap();
        let witness = &net.party(ME).books.witness;
        let conflicts = |seq| witness.conflicting_lock(public(PROVIDER), CERT, seq, attempt, ours);
        assert_eq!(conflicts(1), expected, "{name}");
        assert!(!conflicts(2), "{name}: of another number");
        assert!(
            !witness.conflicting_lock(public(9), CERT, 1, attempt, ours),
            "of another provider"
        );
    }
}

#[test]
fn whoever_was_convicted_conflicts_with_everything() {
    let statement = |terms| {
        let lock = locked(terms, 0);
        Statement::verify(StatementKind::LockGrant, lock.envelope(), devnet().magic).unwrap()
    };
    let proof = wire::encode(&prove(&statement(1), &statement(2)).unwrap());
    let mut net = Net::new(&[ME]);
    let judged =
        net.party(ME).with(|ctx, books, _| books.witness.on_proof_gossip(ctx, &|_| true, &proof));
    assert_eq!(judged, (Verdict::Accept, None));
    let witness = &net.party(ME).books.witness;
    assert!(witness.conflicting_lock(public(PROVIDER), CertId([8; 32]), 0, 0, TermsHash([1; 32])));
}

#[test]
fn a_proof_is_as_long_as_its_limit_and_no_longer() {
    let mut net = Net::new(&[ME]);
    let mut judged = |bytes: usize| {
        let bytes = vec![0xff; bytes];
        net.party(ME).with(|ctx, books, _| books.witness.on_proof_gossip(ctx, &|_| true, &bytes))
    };
    for (bytes, code) in [
        (PROOF_MAX_BYTES - 1, "wire.malformed"),
        (PROOF_MAX_BYTES, "wire.malformed"),
        (PROOF_MAX_BYTES + 1, "wire.oversize"),
        (2 * PROOF_MAX_BYTES, "wire.oversize"),
    ] {
        assert_eq!(judged(bytes), (Verdict::Reject, Some(code)), "{bytes} bytes");
    }
}

#[test]
fn what_was_heard_is_forgotten_after_the_horizon() {
    let mut net = Net::new(&[ME]);
    let said = redeemed(PROVIDER, 1, 0);
    hear(&mut net, &said, true).unwrap();
    let slot = devnet().slot_at(START_MS);
    let mut tick = |slot: u32, past: u32| {
        net.party(ME).now_ms = u64::from(slot) * 4_000;
        net.party(ME).chain.median_time_past_s = past * 4;
        net.party(ME).with(|ctx, books, _| books.witness.on_tick(ctx, &|_| true));
        hear(&mut net, &said, true)
    };
    let later = slot + HORIZON_SLOTS;
    assert_eq!(tick(slot, slot), Err("lock.known"));
    assert_eq!(tick(2 * later, slot), Err("lock.known"), "a clock that is ahead forgets nothing");
    assert_eq!(tick(later, later + 1), Err("lock.known"));
    assert_eq!(tick(later + 1, later + 1), Ok(()));
}

#[test]
fn of_one_number_the_last_sixteen_attempts_are_remembered() {
    let mut net = Net::new(&[ME]);
    let all: Vec<_> = (0..17).map(|attempt| locked(1, attempt)).collect();
    for said in &all[..16] {
        hear(&mut net, said, true).unwrap();
    }
    assert_eq!(hear(&mut net, &all[0], true), Err("lock.known"));
    hear(&mut net, &all[16], true).unwrap();
    for said in &all[1..] {
        assert_eq!(hear(&mut net, said, true), Err("lock.known"));
    }
    let WitnessReply::Heard(said) =
        net.party(ME).books.witness.on_request(public(PROVIDER), WitnessRequest::Mine);
    assert_eq!(said.len(), 16);
    assert_eq!(hear(&mut net, &all[0], true), Ok(()), "the oldest is forgotten");
}

#[test]
fn of_one_provider_the_last_8192_statements_are_remembered() {
    let mut net = Net::new(&[ME]);
    let said = |number: u32| redeemed(PROVIDER, number, 0);
    for number in 0..8_192 {
        // It may say 3,072 in an epoch of two seconds.
        net.party(ME).now_ms = START_MS + u64::from(number / 3_072) * 2_000;
        hear(&mut net, &said(number), true).unwrap();
    }
    net.party(ME).now_ms += 2_000;
    assert_eq!(hear(&mut net, &said(0), true), Err("lock.known"));
    hear(&mut net, &said(8_192), true).unwrap();
    assert_eq!(hear(&mut net, &said(1), true), Err("lock.known"));
    assert_eq!(hear(&mut net, &said(8_192), true), Err("lock.known"));
    assert_eq!(hear(&mut net, &said(0), true), Ok(()), "the oldest is forgotten");
}

#[test]
fn an_old_lock_that_is_said_again_on_a_slow_chain_halts_nobody() {
    const NOTE_SLOTS: u32 = HORIZON_SLOTS / 16;
    let mut net = Net::new(&[ME, BUYER]);
    let cert = net.sell(7, &units(0, 3), BUYER);
    let lock = net.party(ME).log.iter().find_map(|effect| match effect {
        Effect::Publish { topic: Topic::Locks, bytes } => Some(bytes.clone()),
        _ => None,
    });
    // 32 chain blocks, where the network means 5,376.
    let step_ms = u64::from(NOTE_SLOTS) * 4_000;
    for _ in 0..32 {
        let provider = net.party(ME);
        provider.chain.height += 1;
        provider.chain.median_time_past_s =
            u32::try_from((provider.now_ms + step_ms) / 1000).unwrap();
        net.pass(step_ms);
    }
    let height = net.party(ME).chain.height;
    assert!(net.party(ME).books.register.issued(&cert).is_none(), "it is forgotten");
    let said_at = |p_height| {
        let (provider, redeem_hash) = (public(ME), LeaseId([3; 32]));
        let grant = RedeemGrant {
            v: 1,
            provider,
            cert_id: cert,
            seq: 1,
            attempt: 1,
            redeem_hash,
            p_height,
        };
        wire::encode(by(ME, grant, &devnet()).envelope())
    };
    let table = [
        (lock.unwrap(), None),
        (said_at(height - 17), None),
        // Within a horizon the register knows all that it says.
        (said_at(height - 16), Some("register.behind")),
    ];
    for (said, halted) in table {
        let (chain, now_ms) = (net.party(ME).chain.clone(), net.party(ME).now_ms);
        net.restart(ME);
        (net.party(ME).chain, net.party(ME).now_ms) = (chain, now_ms);
        net.party(ME).with(|ctx, books, _| books.on_gossip(ctx, Topic::Locks, &said));
        assert_eq!(net.party(ME).books.register.halted(), halted);
    }
}
