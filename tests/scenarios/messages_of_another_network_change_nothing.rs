use super::kit::{assert_sound, devnet, pair, reach, rest, window, worked};
use capex::sim::World;
use capex_core::certificate::objects::Gift;
use capex_core::engine::contacts::Contact;
use capex_core::engine::messages::{SettleReply, SettleRequest};
use capex_core::engine::register::RegisterRequest;
use capex_core::engine::sync::SyncReply;
use capex_core::engine::trades::TradeRequest;
use capex_core::engine::{Keys, Protocol, Topic, Verdict};
use capex_core::epoch::{Root, epoch_at};
use capex_core::ids::{CertId, Key, TermsHash};
use capex_core::lease::objects::LeaseReply;
use capex_core::limits::{GOSSIP_MAX_BYTES, LEASE_MAX_BYTES, SETTLE_MAX_BYTES, SYNC_MAX_BYTES};
use capex_core::order::{Alternative, Order};
use capex_core::params::Params;
use capex_core::settlement::objects::LockGrant;
use capex_core::wire::{Envelope, Object, VERSION, decode_record, encode};

fn stranger() -> Keys {
    Keys::new([9; 32], [9; 32])
}

fn elsewhere() -> Params {
    Params { magic: *b"else", ..devnet() }
}

/// A bid that this network would take, but for what a test does to it.
fn order(epoch: u64) -> Order {
    Order {
        alts: vec![Alternative { class: 1, limit_msat: 1_000_000 }],
        window: window(30, 40),
        slots: 3,
        ..Order::sample(stranger().public(), epoch)
    }
}

fn signed<T: Object>(object: T, params: &Params) -> Envelope {
    stranger().sign(object, params).envelope().clone()
}

fn lock() -> LockGrant {
    LockGrant {
        v: VERSION,
        provider: stranger().public(),
        cert_id: CertId([1; 32]),
        seq: 0,
        attempt: 0,
        prev_release: [0; 32],
        terms_hash: TermsHash([2; 32]),
        fund_by: 1,
        refund_at: 2,
        p_height: 1,
    }
}

fn contact(key: Key) -> Contact {
    Contact { v: VERSION, key, addrs: Vec::new(), seq: 1 }
}

/// Everything that a node knows, but for what it counts of refusals and how much of them it has
/// heard of late.
fn state(world: &World, node: usize) -> String {
    let engine = world.engine(node).unwrap();
    let disk = world.nodes[node].disk.records();
    format!(
        "{:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {disk:?}",
        engine.market(),
        engine.trades(),
        engine.register(),
        engine.holdings(),
        engine.witness(),
        engine.leases(),
        engine.pools(),
        engine.contacts().iter().collect::<Vec<_>>()
    )
}

fn count(world: &World, node: usize, code: &str) -> u64 {
    world.engine(node).unwrap().refused().get(code).copied().unwrap_or(0)
}

type Gossip = (&'static str, Topic, Vec<u8>, Verdict, &'static str);

/// A message of one order.
fn message(order: Envelope) -> Vec<u8> {
    encode(&[order].as_slice())
}

fn gossip(now_epoch: u64, known: Envelope) -> Vec<Gossip> {
    use Verdict::{Ignore, Reject};
    let (here, there) = (devnet(), elsewhere());
    let fresh = worked(order(now_epoch), true);
    let mut newer = signed(fresh.clone(), &here);
    newer.payload[0] = VERSION + 1;
    let mut others = fresh.clone();
    others.owner = Key([3; 32]);
    let mut long = message(signed(fresh.clone(), &here));
    long.push(0);
    let root = Root { v: VERSION, epoch: now_epoch, root: [0; 32], count: 0 };
    let me = stranger().public();
    vec![
        (
            "of another network",
            Topic::Orders,
            message(signed(fresh, &there)),
            Reject,
            "wire.bad_signature",
        ),
        ("one byte too long", Topic::Orders, long, Reject, "wire.not_canonical"),
        (
            "of someone else",
            Topic::Orders,
            message(signed(worked(others, true), &here)),
            Reject,
            "wire.wrong_signer",
        ),
        (
            "without work",
            Topic::Orders,
            message(signed(worked(order(now_epoch), false), &here)),
            Reject,
            "order.proof_of_work",
        ),
        ("of a later version", Topic::Orders, message(newer), Ignore, "wire.unknown_version"),
        ("replayed", Topic::Orders, message(known), Ignore, "order.duplicate"),
        (
            "late",
            Topic::Orders,
            message(signed(worked(order(now_epoch - 1), true), &here)),
            Ignore,
            "order.stale_epoch",
        ),
        (
            "early",
            Topic::Orders,
            message(signed(worked(order(now_epoch + 3), true), &here)),
            Ignore,
            "order.future_epoch",
        ),
        ("another root", Topic::Roots, encode(&signed(root, &there)), Reject, "wire.bad_signature"),
        (
            "another contact",
            Topic::Contacts,
            encode(&signed(contact(me), &there)),
            Reject,
            "wire.bad_signature",
        ),
        (
            "foreign contact",
            Topic::Contacts,
            encode(&signed(contact(Key([3; 32])), &here)),
            Reject,
            "wire.wrong_signer",
        ),
        (
            "another lock",
            Topic::Locks,
            encode(&signed(lock(), &there)),
            Ignore,
            "lock.not_a_trader",
        ),
    ]
}

fn judge(world: &mut World, (what, topic, bytes, verdict, code): Gossip) {
    let (before, counted) = (state(world, 0), count(world, 0, code));
    let found = world.gossip_from(stranger().public(), 0, topic, &bytes);
    assert_eq!(found, Some((verdict, Some(code.to_owned()))), "{what} on {topic:?}");
    assert_eq!(count(world, 0, code), counted + 1, "{what} is counted");
    assert!(state(world, 0) == before, "{what} on {topic:?} changed something");
}

fn refusal(protocol: Protocol, bytes: &[u8]) -> Option<String> {
    match protocol {
        Protocol::Settle => match decode_record(bytes).unwrap() {
            SettleReply::Refused { code } => Some(code),
            _ => None,
        },
        Protocol::Sync => match decode_record(bytes).unwrap() {
            SyncReply::Refused { code } => Some(code),
            _ => None,
        },
        Protocol::Lease => match decode_record(bytes).unwrap() {
            LeaseReply::Refused { code } => Some(code),
            _ => None,
        },
    }
}

fn requests() -> Vec<(Protocol, Vec<u8>, &'static str)> {
    let there = elsewhere();
    let gift = Gift {
        v: VERSION,
        cert_id: CertId([1; 32]),
        seq: 1,
        prev_hash: [0; 32],
        to: Key([3; 32]),
        nonce16: [0; 16],
    };
    let fund = TradeRequest::Fund { terms: vec![TermsHash([4; 32])], tx: vec![1, 2, 3] };
    let accept = TradeRequest::Accept { terms: signed(lock(), &there), accepts: Vec::new() };
    let get = RegisterRequest::Get(CertId([1; 32]));
    let mut all = vec![
        (
            Protocol::Settle,
            encode(&SettleRequest::Register(RegisterRequest::Gift(signed(gift, &there)))),
            "wire.bad_signature",
        ),
        (Protocol::Settle, encode(&SettleRequest::Trade(fund)), "trade.no_agreement"),
        (Protocol::Settle, encode(&SettleRequest::Trade(accept)), "trade.no_agreement"),
        (Protocol::Settle, encode(&SettleRequest::Register(get)), "certificate.not_a_party"),
        (Protocol::Settle, vec![0; SETTLE_MAX_BYTES + 1], "wire.oversize"),
        (Protocol::Sync, vec![0; SYNC_MAX_BYTES + 1], "wire.oversize"),
        (Protocol::Lease, vec![0; LEASE_MAX_BYTES + 1], "wire.oversize"),
    ];
    for protocol in Protocol::ALL {
        all.extend([
            (protocol, Vec::new(), "wire.malformed"),
            (protocol, vec![0xff; 80], "wire.malformed"),
        ]);
    }
    all
}

#[test]
fn a_verdict_blames_only_what_the_bytes_prove() {
    let mut world = pair(17, 2);
    reach(&mut world, 0, "lock_granted");
    // Into the open phase of the next epoch, after both have signed for it.
    let epoch_ms = devnet().epoch_ms();
    world.run_for(epoch_ms - world.now_ms % epoch_ms + 200);
    let epoch = epoch_at(world.now_ms, &devnet());
    let view = world.engine(0).unwrap().market().epochs.get(epoch).expect("an order this epoch");
    let known = view.set.iter().next().unwrap().envelope().clone();

    for case in gossip(epoch, known) {
        judge(&mut world, case);
    }
    for topic in Topic::ALL {
        judge(&mut world, ("nothing", topic, Vec::new(), Verdict::Reject, "wire.malformed"));
        judge(&mut world, ("noise", topic, vec![0xff; 200], Verdict::Reject, "wire.malformed"));
    }
    for topic in [Topic::Orders, Topic::Roots, Topic::Contacts] {
        let long = vec![0; GOSSIP_MAX_BYTES + 1];
        judge(&mut world, ("oversize", topic, long, Verdict::Reject, "wire.oversize"));
    }
    rest(&mut world);
    assert_sound(&world);
}

#[test]
fn a_bad_request_is_refused_and_counted() {
    let mut world = pair(18, 2);
    reach(&mut world, 0, "lock_granted");
    for (protocol, bytes, code) in requests() {
        let (before, counted) = (state(&world, 0), count(&world, 0, code));
        let reply = world.ask_from(stranger().public(), 0, protocol, &bytes).unwrap();
        assert_eq!(
            refusal(protocol, &reply).as_deref(),
            Some(code),
            "{protocol:?} {}",
            bytes.len()
        );
        assert_eq!(count(&world, 0, code), counted + 1, "{protocol:?} {code} is counted");
        assert!(state(&world, 0) == before, "{protocol:?} {code} changed something");
    }
    rest(&mut world);
    assert_sound(&world);
}
