//! `docs/protocol.md` beside what this program says: a program that knows nothing but the page
//! decodes every frozen object, and one message of each kind.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use capex_core::certificate::objects::{EquivProof, StatementKind};
use capex_core::certificate::{Base, Certificate, Hop};
use capex_core::engine::courier::{CourierReply, CourierRequest};
use capex_core::engine::messages::{SettleReply, SettleRequest};
use capex_core::engine::pools::{PoolReply, PoolRequest};
use capex_core::engine::register::{RegisterReply, RegisterRequest};
use capex_core::engine::sync::{SyncReply, SyncRequest};
use capex_core::engine::trades::{TradeReply, TradeRequest};
use capex_core::engine::witness::{WitnessReply, WitnessRequest};
use capex_core::ids::{CertId, Digest, Key, LeaseId, OrderId, PoolId, TermsHash, TradeId};
use capex_core::lease::Maintenance;
use capex_core::lease::access::{AccessVerb, Answer, Hello};
use capex_core::lease::objects::{
    Cause, Content, EnvValue, EnvVar, InputFile, LeaseReply, LeaseRequest, LeaseStatus, Outcome,
    Payload, RestartPolicy, Stream, Unavailable, Workload,
};
use capex_core::lease::pull::{ImageRef, Pulled};
use capex_core::lease::score::Score;
use capex_core::params::Isolation;
use capex_core::settlement::buyer::Part;
use capex_core::settlement::exit::HandedKey;
use capex_core::settlement::joint::{Change, Coin, Contribution};
use capex_core::settlement::objects::{Funder, Row, TermsRequest, Transfer};
use capex_core::wire::{Envelope, encode};
use serde::Serialize;

const HASH: [u8; 32] = [0xa5; 32];

/// Messages, each with its type on the page.
struct Said(String);

impl Said {
    fn all<T: Serialize>(&mut self, kind: &str, values: impl IntoIterator<Item = T>) {
        for value in values {
            writeln!(self.0, "{kind} {}", capex_core::ids::to_hex(&encode(&value))).unwrap();
        }
    }

    fn settle(
        &mut self,
        requests: impl IntoIterator<Item = impl Into<SettleRequest>>,
        replies: impl IntoIterator<Item = impl Into<SettleReply>>,
    ) {
        self.all("SettleRequest", requests.into_iter().map(Into::into));
        self.all("SettleReply", replies.into_iter().map(Into::into));
    }
}

fn envelope() -> Envelope {
    Envelope { key: HASH, payload: vec![1, 2, 3], signature: [[7; 32], [8; 32]] }
}

fn transfer() -> Transfer {
    let (terms_hash, quittance) = (TermsHash(HASH), Some([[1; 32], [2; 32]]));
    Transfer { v: 1, terms_hash, x: HASH, spend_txid: HASH, vin: 3, quittance }
}

/// Every kind of base and of hop.
fn certificate() -> Certificate {
    let one = envelope;
    Certificate {
        bases: vec![Base::Issue(one()), Base::Checkpoint { checkpoint: one(), activation: one() }],
        hops: vec![
            Hop::Sale { terms: one(), lock: one(), transfer: transfer(), activation: one() },
            Hop::Gift { gift: one(), activation: one() },
            Hop::Split { split: one(), activations: vec![one(), one()] },
            Hop::Merge { merge: one(), activation: one() },
        ],
    }
}

fn part() -> Part {
    let coin = Coin { txid: HASH, vout: 1, value_sat: 2, key: HASH };
    let change = Some(Change { spk: vec![0x51, 0x20], value_sat: 9 });
    let contribution = Contribution { coins: vec![coin, coin], change };
    Part { contribution, signatures: vec![[[3; 32], [4; 32]]] }
}

fn trades(said: &mut Said) {
    let terms = TermsHash(HASH);
    let funder = Funder { key: Key(HASH), refund_xonly: HASH, amount_sat: 5 };
    let request = TermsRequest {
        trade_id: TradeId(HASH),
        to: Key(HASH),
        funders: vec![funder.clone(), funder],
        tip_height: 800,
        use_by: Some(7),
    };
    let requests = [
        TradeRequest::Terms(request.clone()),
        TradeRequest::RecallableTerms(request),
        TradeRequest::Accept { terms: envelope(), accepts: vec![envelope(), envelope()] },
        TradeRequest::Fund { terms: vec![terms, terms], tx: vec![2, 0, 0, 0] },
        TradeRequest::Transfer(transfer()),
        TradeRequest::Cancel(envelope()),
        TradeRequest::Quittance(envelope()),
        TradeRequest::IsKept(terms),
        TradeRequest::Part { terms, part: part() },
        TradeRequest::Parts { terms, parts: vec![part(), part()] },
    ];
    let replies = [
        TradeReply::Terms { title: Box::new(certificate()), terms: envelope() },
        TradeReply::LockGrant(envelope()),
        TradeReply::FundAck { terms: vec![terms], txid: HASH },
        TradeReply::Activation(envelope()),
        TradeReply::NotYet,
        TradeReply::Cancelled,
        TradeReply::Key(HandedKey(HASH)),
        TradeReply::Kept,
        TradeReply::Part(part()),
        TradeReply::Parts(vec![part()]),
    ];
    said.settle(requests, replies);
}

fn custody(said: &mut Said) {
    let cert = CertId(HASH);
    let requests = [
        RegisterRequest::Gift(envelope()),
        RegisterRequest::Split(envelope()),
        RegisterRequest::Merge(envelope()),
        RegisterRequest::Checkpoint(cert),
        RegisterRequest::Get(cert),
        RegisterRequest::Held { after: cert },
    ];
    let replies = [
        RegisterReply::Activation(envelope()),
        RegisterReply::Activations(vec![envelope(), envelope()]),
        RegisterReply::Certificate(certificate()),
        RegisterReply::Held(vec![(cert, 1), (cert, 2)]),
    ];
    said.settle(requests, replies);
    said.settle([CourierRequest::Push(certificate())], [CourierReply::Stored]);
    let kinds = [StatementKind::LockGrant, StatementKind::Activation, StatementKind::RedeemGrant];
    let heard = kinds.map(|kind| (kind, envelope())).to_vec();
    said.settle([WitnessRequest::Mine], [WitnessReply::Heard(heard)]);
    said.all("SettleReply", [SettleReply::Refused { code: "lock.live".to_owned() }]);
    let of = |kind| (kind, envelope());
    let proof = EquivProof { a: of(StatementKind::Activation), b: of(StatementKind::RedeemGrant) };
    said.all("Proof", [proof]);
}

fn pools(said: &mut Said) {
    let (pool, terms_hash) = (PoolId(HASH), TermsHash(HASH));
    let row = Row {
        v: 1,
        epoch: 2,
        buy: HASH,
        sell: HASH,
        class: 3,
        start: 4,
        slots: 5,
        qty: 6,
        msat: 7,
    };
    let terms = |feerate_sat_kvb| PoolRequest::Terms {
        pool,
        row: row.clone(),
        title: Box::new(certificate()),
        terms: envelope(),
        feerate_sat_kvb,
    };
    let requests = [
        PoolRequest::Join { pool, share_sat: 5, refund_xonly: HASH },
        PoolRequest::Leave(pool),
        terms(None),
        terms(Some(4_000)),
        PoolRequest::Agreed { terms_hash, accepts: vec![envelope()] },
    ];
    let members = PoolReply::Members(vec![(Key(HASH), 5), (Key(HASH), 6)]);
    said.settle(requests, [members, PoolReply::Accept(envelope()), PoolReply::Noted]);
}

fn sync(said: &mut Said) {
    let (epoch, order) = (9, OrderId(HASH));
    let requests =
        [SyncRequest::Ids { epoch }, SyncRequest::Orders { epoch, ids: vec![order, order] }];
    said.all("SyncRequest", requests.into_iter().chain([SyncRequest::Clock]));
    let replies = [
        SyncReply::Ids(vec![order]),
        SyncReply::Orders(vec![envelope(), envelope()]),
        SyncReply::Refused { code: "sync.quota".to_owned() },
        SyncReply::Clock { unix_ms: 5, contacts: vec![envelope()] },
    ];
    said.all("SyncReply", replies);
    said.all("Orders", [vec![envelope(), envelope()]]);
}

/// One of each kind of payload, of value and of restart policy.
fn workloads() -> [Workload; 3] {
    let content = |bytes| Content { digest: Digest(HASH), bytes };
    let payloads = [
        (Payload::Wasm { component: content(1) }, RestartPolicy::No),
        (
            Payload::Oci { manifest: content(2), blobs: vec![content(3), content(4)] },
            RestartPolicy::OnFailure,
        ),
        (Payload::Rootfs { archive: content(5) }, RestartPolicy::Always),
    ];
    let values = [EnvValue::Plain("on".to_owned()), EnvValue::Sealed(vec![1, 2])];
    payloads.map(|(payload, restart)| Workload {
        payload,
        command: vec!["sh".to_owned(), "-c".to_owned()],
        env: values.clone().map(|value| EnvVar { name: "MODE".to_owned(), value }).to_vec(),
        workdir: Some("/srv".to_owned()),
        inputs: vec![InputFile { name: "in".to_owned(), digest: Digest(HASH), bytes: 6 }],
        results: vec!["out".to_owned()],
        ports: vec![80, 443],
        egress: true,
        grace_ms: 1_000,
        stop_signal: 15,
        restart,
    })
}

fn status() -> LeaseStatus {
    let causes =
        [Cause::Late, Cause::Failed, Cause::Interrupted, Cause::Maintenance, Cause::Withdrawn];
    LeaseStatus {
        phase: "exited".to_owned(),
        runs: 2,
        started_at_ms: Some(1),
        exited_at_ms: Some(2),
        ended_at_ms: None,
        outcome: Some(Outcome::Exited { code: -1 }),
        cpu_us: 3,
        memory_peak_bytes: 4,
        unavailable: causes.map(|cause| Unavailable { cause, ms: 5 }).to_vec(),
        maintenance: vec![Maintenance { from_ms: 6, to_ms: 7, why: "disks".to_owned() }],
        need: vec![Digest(HASH)],
        code: Some("runtime.gone".to_owned()),
        score: Some(Score { processor: 8, memory: 9 }),
    }
}

fn leases(said: &mut Said) {
    let (call, lease) = (envelope, LeaseId(HASH));
    let image = ImageRef { name: "docker.io/a".to_owned(), digest: Digest(HASH) };
    let [wasm, oci, rootfs] = workloads();
    let logs = |stream| LeaseRequest::Logs { call: call(), stream, from: 1 };
    let requests = [
        LeaseRequest::Challenge(CertId(HASH)),
        LeaseRequest::Redeem { redeem: envelope(), workload: wasm },
        LeaseRequest::Redeem { redeem: envelope(), workload: oci },
        LeaseRequest::Extend { extend: envelope() },
        LeaseRequest::Put { call: call(), digest: Digest(HASH), offset: 1, bytes: vec![2] },
        logs(Stream::Stdout),
        logs(Stream::Stderr),
        LeaseRequest::Get { call: call(), name: "out".to_owned(), from: 1 },
        LeaseRequest::Status { call: call() },
        LeaseRequest::Stop { call: call() },
        LeaseRequest::Restart { call: call() },
        LeaseRequest::Replace { call: call(), workload: rootfs },
        LeaseRequest::Receipts { call: call(), from_seq: 1 },
        LeaseRequest::Countersign { lease, signature: envelope() },
        LeaseRequest::Pull { cert: CertId(HASH), image },
    ];
    said.all("LeaseRequest", requests);
    let (grant, need) = (envelope(), vec![Digest(HASH)]);
    let replies = [
        LeaseReply::Challenge(HASH),
        LeaseReply::Lease { lease, grant, need, starts_at_ms: 1, ends_at_ms: 2 },
        LeaseReply::Extended { grant: envelope(), ends_at_ms: 3 },
        LeaseReply::Progress { received: 1, complete: true },
        LeaseReply::Bytes { bytes: vec![1], end: false },
        LeaseReply::Status(status()),
        LeaseReply::Receipts(vec![envelope()]),
        LeaseReply::Stored,
        LeaseReply::Refused { code: "lease.not_running".to_owned() },
        LeaseReply::Pulled(Pulled {
            received_bytes: 1,
            total_bytes: 2,
            documents: vec![vec![3], vec![4]],
        }),
    ];
    said.all("LeaseReply", replies);
    said.all("Hello", [None, Some(envelope())].map(|grant| Hello { call: envelope(), grant }));
    said.all("[AccessVerb]", [AccessVerb::ALL.to_vec()]);
    said.all("Isolation", [Isolation::Wasm, Isolation::Container]);
    let refused = Answer::Refused { code: "access.not_granted".to_owned() };
    said.all("Answer", [Answer::Open { received: 1 }, refused]);
}

#[test]
fn the_page_of_the_protocol_decodes_all_that_is_said() {
    if Command::new("python3").arg("--version").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "no python3");
        println!("skipped: no python3");
        return;
    }
    let mut said = Said(String::new());
    for part in [trades, custody, pools, sync, leases] {
        part(&mut said);
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut child = Command::new("python3")
        .arg(root.join("tests/vectors/protocol_page.py"))
        .args([root.join("docs/protocol.md"), root.join("tests/vectors/wire")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(said.0.as_bytes()).unwrap();
    let told = child.wait_with_output().unwrap();
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
}
