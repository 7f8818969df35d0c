//! One value of every object and of every tag in it, all fields different.

use capex_core::certificate::objects::{
    Activation, Area, Binding, Checkpoint, Consumed, Gift, Issue, Merge, Parent, Payment,
    RedeemGrant, Split, blinded,
};
use capex_core::engine::contacts::Contact;
use capex_core::engine::pools::Pool;
use capex_core::epoch::Root;
use capex_core::ids::{CertId, Digest, Key, LeaseId, TermsHash, TradeId};
use capex_core::lease::access::{Access, AccessCall, AccessVerb, Grant, Terminal};
use capex_core::lease::objects::{
    Cause, Countersign, Extend, LeaseCall, Outcome, Receipt, Redeem, Unavailable, Verb,
};
use capex_core::order::{Alternative, Backing, Mode, Order, Side, Source};
use capex_core::params::{ClassDef, Isolation};
use capex_core::settlement::objects::{
    Accept, Funder, LockGrant, Quittance, Row, Terms, TermsCancel, Transfer,
};
use capex_core::units::{UnitRange, Units, Window};
use capex_core::wire::{Envelope, Object, WireError, object_id, sha256, sign};
use ed25519_dalek::SigningKey;

use super::MAGIC;
use super::text::Vector;

pub(super) const POW_NONCE: u64 = 0x0102_0304_0506_0708;
const PARTIES: [&str; 3] = ["provider", "buyer", "holder"];

/// A kind of object: its frozen cases, and how its bytes are read.
pub(super) struct Kind {
    pub(super) name: &'static str,
    pub(super) vectors: Vec<Vector>,
    pub(super) read: fn(&Envelope) -> Result<Seen, WireError>,
}

/// What reading bytes gave.
pub(super) struct Seen {
    id: [u8; 32],
    /// The decoded value, encoded and signed again.
    pub(super) again: Envelope,
}

impl Seen {
    pub(super) fn id(&self) -> [u8; 32] {
        self.id
    }
}

pub(super) fn secret(party: &str) -> SigningKey {
    SigningKey::from_bytes(&hash(party))
}

fn hash(label: &str) -> [u8; 32] {
    sha256(&[b"capex vectors ", label.as_bytes()])
}

fn public(party: &str) -> Key {
    Key(secret(party).verifying_key().to_bytes())
}

pub(super) fn read<T: Object>(envelope: &Envelope) -> Result<Seen, WireError> {
    let verified = envelope.verify::<T>(MAGIC)?;
    let party = PARTIES.iter().find(|party| public(party).0 == envelope.key);
    let (id, signer) = (verified.id(), secret(party.expect("one of the parties signs")));
    Ok(Seen { id, again: sign(verified.into_value(), MAGIC, &signer).envelope().clone() })
}

pub(super) fn vector<T: Object>(name: &str, signer: &str, value: T) -> Vector {
    let id = object_id(&value, MAGIC);
    let envelope = sign(value, MAGIC, &secret(signer)).envelope().clone();
    let signer = Some(signer.to_owned());
    Vector { name: name.to_owned(), signer, envelope, id: Some(id), answer: None }
}

fn kind<T: Object>(signer: &str, cases: Vec<(&str, T)>) -> Kind {
    let vectors = cases.into_iter().map(|(name, value)| vector(name, signer, value)).collect();
    Kind { name: T::NAME, vectors, read: read::<T> }
}

pub(super) fn kinds() -> Vec<Kind> {
    let orders = vec![
        vector("bid", "buyer", bid()),
        vector("primary ask", "provider", primary_ask()),
        vector("resale ask with backing", "holder", resale_ask()),
        vector("largest", "holder", largest_order()),
    ];
    let mut kinds = vec![Kind { name: Order::NAME, vectors: orders, read: read::<Order> }];
    kinds.extend(market());
    kinds.extend(settlement());
    kinds.extend(custody());
    kinds.extend(leases());
    kinds
}

fn market() -> Vec<Kind> {
    let row = Row {
        v: 1,
        epoch: 871_234_567,
        buy: hash("bid"),
        sell: hash("ask"),
        class: 2,
        start: 435_617_300,
        slots: 3,
        qty: 4,
        msat: 61_234_567,
    };
    let root = Root { v: 1, epoch: 871_234_567, root: hash("orders"), count: 12 };
    let addrs =
        vec!["/ip4/127.0.0.1/tcp/7210".to_owned(), "/ip4/127.0.0.1/udp/7210/quic-v1".to_owned()];
    let contact = Contact { v: 1, key: public("provider"), addrs, seq: 1_742_469_134_000 };
    let silent = Contact { addrs: Vec::new(), ..contact.clone() };
    let class = ClassDef {
        v: 1,
        id: 4,
        cpu_milli: 8000,
        memory_mib: 65_536,
        disk_mib: 131_072,
        gpus: 1,
        gpu_memory_mib: 80_000,
        features: 3,
        isolation: Isolation::Container,
    };
    let pool = Pool {
        v: 1,
        creator: public("buyer"),
        to: public("holder"),
        class: 2,
        features: 3,
        qty: 4,
        window: Window { start: 435_617_300, end: 435_617_312 },
        slots: 5,
        limit_msat: 2_500_000,
        until_ms: 1_742_469_200_000,
        invited: Vec::new(),
        all_or_nothing: true,
        nonce16: [7; 16],
    };
    vec![
        kind("buyer", vec![("a pool", pool)]),
        kind("buyer", vec![("a row", row)]),
        kind("buyer", vec![("a root", root)]),
        kind("provider", vec![("two addresses", contact), ("no address", silent)]),
        kind("provider", vec![("a class", class)]),
    ]
}

fn settlement() -> Vec<Kind> {
    let terms_hash = TermsHash(hash("terms"));
    let accept = Accept {
        v: 1,
        terms_hash,
        release_at_height: 246,
        release_at_ms: 1_742_469_137_250,
        together: true,
    };
    let lock = LockGrant {
        v: 1,
        provider: public("provider"),
        cert_id: CertId(hash("certificate")),
        seq: 1,
        attempt: 2,
        prev_release: hash("release"),
        terms_hash,
        fund_by: 242,
        refund_at: 258,
        p_height: 231,
    };
    let first_lock = LockGrant { seq: 0, attempt: 0, prev_release: [0; 32], ..lock.clone() };
    let transfer = Transfer {
        v: 1,
        terms_hash,
        x: hash("preimage"),
        spend_txid: hash("claim"),
        vin: 1,
        quittance: None,
    };
    let quittance = Quittance { v: 1, terms_hash, x: transfer.x };
    let signed = sign(quittance.clone(), MAGIC, &secret("provider"));
    let quit = Transfer {
        spend_txid: [0; 32],
        vin: 0,
        quittance: Some(signed.envelope().signature),
        ..transfer.clone()
    };
    vec![
        kind("provider", vec![("primary sale", terms()), ("largest", largest_terms())]),
        kind("buyer", vec![("an accept", accept)]),
        kind("provider", vec![("first lock", first_lock), ("after a release", lock)]),
        kind("provider", vec![("a quittance", quittance)]),
        kind("buyer", vec![("a transfer", transfer), ("with a quittance", quit)]),
        kind("buyer", vec![("a cancel", TermsCancel { v: 1, terms_hash })]),
    ]
}

fn custody() -> Vec<Kind> {
    let issue = Issue {
        v: 1,
        provider: public("provider"),
        class: 2,
        class_hash: hash("class"),
        features: 1,
        units: units(),
        window: window(),
        pay: Payment::Prepaid,
        binding: Binding::Registrar,
        nonce32: hash("nonce"),
        not_after_slot: 435_617_302,
    };
    let metered = Issue { pay: Payment::Metered, ..issue.clone() };
    let by_buyer = Binding::Recallable { by: public("buyer") };
    let recallable = Issue { binding: by_buyer, ..issue.clone() };
    let gift = Gift {
        v: 1,
        cert_id: CertId(hash("certificate")),
        seq: 1,
        prev_hash: hash("activation"),
        to: public("holder"),
        nonce16: nonce16(),
    };
    let grant = RedeemGrant {
        v: 1,
        provider: public("provider"),
        cert_id: CertId(hash("certificate")),
        seq: 2,
        attempt: 1,
        redeem_hash: LeaseId(hash("redeem")),
        p_height: 263,
    };
    vec![
        kind(
            "provider",
            vec![("prepaid", issue), ("metered", metered), ("recallable", recallable)],
        ),
        kind("provider", vec![("an activation", activation()), ("largest", largest_activation())]),
        kind("buyer", vec![("a gift", gift)]),
        kind("provider", vec![("a grant", grant)]),
        kind("buyer", vec![("a split", split())]),
        kind("buyer", vec![("a merge", merge())]),
        kind("provider", vec![("a checkpoint", checkpoint())]),
    ]
}

fn split() -> Split {
    let part = |first, end| Area { units: Units::range(first, end).unwrap(), window: window() };
    Split {
        v: 1,
        cert_id: CertId(hash("certificate")),
        seq: 1,
        prev_hash: hash("activation"),
        parts: vec![part(0, 2), part(2, 5)],
        nonce16: nonce16(),
    }
}

fn merge() -> Merge {
    let part = |cert: &str, seq| Parent {
        cert_id: CertId(hash(cert)),
        seq,
        prev_hash: hash(&format!("activation of {cert}")),
    };
    let mut parts = vec![part("certificate", 2), part("other certificate", 1)];
    parts.sort_unstable();
    Merge { v: 1, parts, nonce16: nonce16() }
}

fn checkpoint() -> Checkpoint {
    Checkpoint {
        v: 1,
        provider: public("provider"),
        last_hash: hash("activation"),
        holder: public("holder"),
        salt16: nonce16(),
        class_hash: hash("class"),
        pay: Payment::Prepaid,
        not_after_slot: 435_617_302,
        hops: 40,
        p_height: 263,
    }
}

fn accesses() -> [(&'static str, Access); 7] {
    let exec = Access::Exec {
        command: vec!["sh".to_owned(), "-c".to_owned(), "true".to_owned()],
        env: vec![("A".to_owned(), "b".to_owned())],
        workdir: Some("/tmp".to_owned()),
        terminal: Some(Terminal { rows: 24, columns: 80 }),
    };
    [
        ("exec", exec),
        ("dial", Access::Dial { port: 8080 }),
        ("ssh", Access::Ssh),
        ("get", Access::Get { path: "out/log".to_owned(), is_tree: true }),
        ("put", Access::Put { path: "/data".to_owned(), mode: 0o644, is_tree: false }),
        ("attach", Access::Attach { from_start: true }),
        ("bench", Access::Bench),
    ]
}

fn access(what: Access) -> AccessCall {
    AccessCall {
        v: 1,
        lease: LeaseId(hash("redeem")),
        peer: public("holder"),
        session16: [7; 16],
        received: 17,
        what,
        not_after_s: 1_742_469_200,
    }
}

fn grant() -> Grant {
    Grant {
        v: 1,
        lease: LeaseId(hash("redeem")),
        provider: public("provider"),
        to: public("buyer"),
        verbs: vec![AccessVerb::Exec, AccessVerb::Get],
        not_after_s: 1_742_469_200,
    }
}

fn leases() -> Vec<Kind> {
    let redeem = Redeem {
        v: 1,
        cert_id: CertId(hash("certificate")),
        seq: 2,
        holder: public("holder"),
        workload_digest: Digest(hash("workload")),
        challenge32: hash("challenge"),
        not_after_s: 1_742_469_200,
    };
    let verbs = [
        ("put", Verb::Put),
        ("logs", Verb::Logs),
        ("get", Verb::Get),
        ("status", Verb::Status),
        ("stop", Verb::Stop),
        ("receipt", Verb::Receipt),
        ("restart", Verb::Restart),
        ("replace", Verb::Replace(Digest(hash("workload")))),
    ];
    let call = |verb| LeaseCall {
        v: 1,
        lease: LeaseId(hash("redeem")),
        verb,
        counter: 17,
        not_after_s: 1_742_469_200,
    };
    let extend = Extend {
        v: 1,
        lease: LeaseId(hash("redeem")),
        cert_id: CertId(hash("next certificate")),
        seq: 3,
        holder: public("holder"),
        not_after_s: 1_742_469_200,
    };
    let outcomes = [
        ("still running", None),
        ("exited", Some(Outcome::Exited { code: -3 })),
        ("trapped", Some(Outcome::Trapped)),
        ("deadline", Some(Outcome::Deadline)),
        ("stopped", Some(Outcome::Stopped)),
        ("out of memory", Some(Outcome::OutOfMemory)),
        ("out of disk", Some(Outcome::OutOfDisk)),
        ("failed", Some(Outcome::Failed)),
        ("unfit", Some(Outcome::Unfit)),
        ("interrupted", Some(Outcome::Interrupted)),
    ];
    let receipts = outcomes.map(|(name, outcome)| (name, receipt(outcome)));
    vec![
        kind("holder", vec![("a redemption", redeem)]),
        kind("holder", vec![("an extension", extend)]),
        kind("holder", verbs.map(|(name, verb)| (name, call(verb))).to_vec()),
        kind("provider", receipts.to_vec()),
        kind("holder", accesses().map(|(name, what)| (name, access(what))).to_vec()),
        kind("holder", vec![("two verbs for another key", grant())]),
        kind(
            "holder",
            vec![("a countersignature", Countersign { v: 1, receipt: hash("receipt") })],
        ),
    ]
}

fn receipt(outcome: Option<Outcome>) -> Receipt {
    Receipt {
        v: 1,
        provider: public("provider"),
        lease: LeaseId(hash("redeem")),
        seq: 1,
        prev_hash: hash("receipt before"),
        units: 4,
        from_ms: 1_742_469_200_000,
        to_ms: 1_742_469_208_000,
        delivered_ms: 7900,
        unavailable: vec![Unavailable { cause: Cause::Interrupted, ms: 100 }],
        cpu_us: 123_456,
        memory_peak_bytes: 1_114_112,
        throttled_us: 45_678,
        output_bytes: 321,
        outcome,
    }
}

fn window() -> Window {
    Window { start: 435_617_300, end: 435_617_303 }
}

fn units() -> Units {
    Units::new(vec![UnitRange { first: 0, end: 2 }, UnitRange { first: 5, end: 7 }]).unwrap()
}

fn many_units() -> Units {
    let ranges = (0..16).map(|n| UnitRange { first: 10 * n, end: 10 * n + 1 + n % 8 });
    Units::new(ranges.collect()).unwrap()
}

fn nonce16() -> [u8; 16] {
    *hash("nonce").first_chunk().unwrap()
}

pub(super) fn bid() -> Order {
    Order {
        v: 1,
        epoch: 871_234_567,
        side: Side::Buy,
        owner: public("buyer"),
        nonce: 11,
        alts: vec![
            Alternative { class: 2, limit_msat: 20_500_000 },
            Alternative { class: 1, limit_msat: 18_000_000 },
        ],
        qty: 4,
        min_qty: 3,
        mode: Mode::Gang,
        window: Window { start: 435_617_300, end: 435_617_312 },
        slots: 3,
        features: 1,
        allow: vec![public("provider")],
        deny: Vec::new(),
        min_run: 0,
        source: Source::Primary,
        created_ms: 812,
        backing: None,
        pow_nonce: POW_NONCE,
    }
}

fn primary_ask() -> Order {
    Order {
        side: Side::Sell,
        owner: public("provider"),
        alts: vec![Alternative { class: 2, limit_msat: 15_000_000 }],
        mode: Mode::Sticky,
        slots: 0,
        allow: Vec::new(),
        deny: vec![public("holder")],
        min_run: 2,
        ..bid()
    }
}

fn resale_ask() -> Order {
    let activation = Activation { holder_hash: held_by("holder"), ..activation() };
    let activation = sign(activation, MAGIC, &secret("provider")).envelope().clone();
    let backing = Backing {
        txid: hash("coin"),
        vout: 1,
        amount_sat: 50_000,
        height: 229,
        xonly: hash("coin key"),
        signature: [hash("first half"), hash("second half")],
    };
    Order {
        owner: public("holder"),
        deny: Vec::new(),
        source: Source::Resale { activation: Box::new(activation), salt16: nonce16() },
        backing: Some(Box::new(backing)),
        ..primary_ask()
    }
}

/// The resale of what eight certificates were merged into, in as many ranges as may be: it has
/// room for seven keys.
fn largest_order() -> Order {
    let activation = Activation { holder_hash: held_by("holder"), ..largest_activation() };
    let activation = sign(activation, MAGIC, &secret("provider")).envelope().clone();
    let mut keys: Vec<Key> = (0..7).map(|n| Key(hash(&format!("key {n}")))).collect();
    keys.sort_unstable();
    Order {
        allow: keys,
        source: Source::Resale { activation: Box::new(activation), salt16: nonce16() },
        ..resale_ask()
    }
}

pub(super) fn terms() -> Terms {
    Terms {
        v: 1,
        trade_id: TradeId(hash("row")),
        cert_id: CertId(hash("certificate")),
        seq: 0,
        prev_hash: hash("certificate"),
        class: 2,
        units: units(),
        window: window(),
        from: public("provider"),
        to: public("buyer"),
        funders: vec![Funder {
            key: public("buyer"),
            refund_xonly: hash("refund key"),
            amount_sat: 61_234,
        }],
        price_sat: 61_234,
        payment_hash: hash("payment"),
        s_xonly: hash("claim key"),
        payout_spk: [vec![0x51, 0x20], hash("payout").to_vec()].concat(),
        t0: 230,
        fund_by: 242,
        refund_at: 258,
        funding_confirmations: 1,
        template: 1,
        nonce16: nonce16(),
    }
}

fn largest_terms() -> Terms {
    let funder = |n: u64| Funder {
        key: Key(hash(&format!("funder {n}"))),
        refund_xonly: hash(&format!("refund key {n}")),
        amount_sat: 1000 + n,
    };
    Terms {
        seq: 7,
        prev_hash: hash("activation"),
        units: many_units(),
        funders: (0..8).map(funder).collect(),
        price_sat: 8028,
        payout_spk: vec![0x6a; 42],
        ..terms()
    }
}

pub(super) fn activation() -> Activation {
    Activation {
        v: 1,
        provider: public("provider"),
        cert_id: CertId(hash("certificate")),
        seq: 1,
        consumes: vec![consumed("certificate", 0)],
        roots: vec![CertId(hash("certificate"))],
        holder_hash: held_by("buyer"),
        class: 2,
        features: 1,
        units: units(),
        window: window(),
        cause_hash: hash("terms"),
        p_height: 233,
    }
}

fn held_by(party: &str) -> [u8; 32] {
    blinded(public(party), nonce16(), MAGIC)
}

fn consumed(cert: &str, seq: u32) -> Consumed {
    let (cert_id, prev_hash) = (CertId(hash(cert)), hash(cert));
    Consumed { cert_id, seq, attempt: 2, prev_hash }
}

/// Of a merge with every list full.
fn largest_activation() -> Activation {
    let mut consumes: Vec<Consumed> =
        (0..8).map(|n| consumed(&format!("certificate {n}"), n)).collect();
    consumes.sort_unstable();
    let mut roots: Vec<CertId> = (0..16).map(|n| CertId(hash(&format!("root {n}")))).collect();
    roots.sort_unstable();
    Activation { units: many_units(), consumes, roots, ..activation() }
}
