//! An event loop that answers canned values, behind the real server.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use capex::api::types::{
    Address, Balance, BookOrder, Certificate, Coin, Depth, Descriptors, Endpoints, EpochDifference,
    EpochHead, Explanation, Funded, Lease, Order, Part, Payment, Peer, Pool, Preview, PsbtText,
    Quote, Reason, Rescan, SignedPsbt, Status, Trade, WaitingPsbt, WalletTx,
};
use capex::api::{
    Answer, ApiError, ApiHandle, ApiState, Call, CookieFile, FileText, Noun, Place, Prefix, Query,
    ShellCommand, endpoints, serve,
};
use capex::definitions;
use capex_core::engine::holdings::HoldingsCommand;
use capex_core::engine::io::{Command, Done, Refusal};
use capex_core::engine::leases::LeaseCommand;
use capex_core::engine::market::MarketCommand;
use capex_core::epoch::signed::{SignedEpoch, write};
use capex_core::ids::{CertId, LeaseId, StandingId};
use capex_core::reason;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// Text of another node that tries to take over a terminal.
pub(crate) const HOSTILE: &str = "evil\u{1b}[2J\u{202e}gnp.exe";
/// A quantity that the loop refuses.
pub(crate) const REFUSED_QTY: u32 = 13;

/// A server with its data directory; stops when dropped.
pub(crate) struct Fake {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) addr: SocketAddr,
    pub(crate) cookie: String,
    /// Every command that reached the loop.
    pub(crate) commands: Arc<Mutex<Vec<String>>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Fake {
    pub(crate) fn start() -> Self {
        Self::start_with(true)
    }

    /// A loop that takes calls and never answers.
    pub(crate) fn mute() -> Self {
        Self::start_with(false)
    }

    fn start_with(answers: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let commands = Arc::new(Mutex::new(Vec::new()));
        let (stop, stopped) = oneshot::channel();
        let (ready, bound) = std::sync::mpsc::channel();
        let (datadir, seen) = (dir.path().to_path_buf(), commands.clone());
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(run(datadir, seen, answers, stopped, ready));
        });
        let addr = bound.recv().unwrap();
        let cookie = std::fs::read_to_string(dir.path().join("cookie")).unwrap();
        Self { dir, addr, cookie, commands, stop: Some(stop), thread: Some(thread) }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn run(
    datadir: PathBuf,
    seen: Arc<Mutex<Vec<String>>>,
    answers: bool,
    stopped: oneshot::Receiver<()>,
    ready: std::sync::mpsc::Sender<SocketAddr>,
) {
    let (node, mut calls) = ApiHandle::channel();
    let params = Arc::new(definitions::load("devnet").unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let cookie = Arc::new(CookieFile::create(&datadir).unwrap());
    let found = Endpoints {
        api: format!("http://{addr}"),
        p2p: Vec::new(),
        pid: std::process::id(),
        network: "devnet".to_owned(),
        key: "aa".repeat(32),
    };
    let file = endpoints::EndpointsFile::of(&datadir);
    file.write(&found).unwrap();
    ready.send(addr).unwrap();
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Some(request) = calls.recv().await {
            if answers {
                let _ = request.answer.send(answer(request.call, &seen));
            } else {
                seen.lock().unwrap().push("held".to_owned());
                held.push(request);
            }
        }
    });
    let shutdown = async {
        let _ = stopped.await;
    };
    serve(listener, ApiState::new(node, params, 20), cookie, shutdown).await.unwrap();
}

fn answer(call: Call, seen: &Mutex<Vec<String>>) -> Result<Answer, ApiError> {
    match call {
        Call::Query(query) => read(query),
        Call::Command(command) => {
            seen.lock().unwrap().push(format!("{command:?}"));
            perform(command).map(Answer::from).map_err(ApiError::from)
        }
        Call::Shell(command) => {
            seen.lock().unwrap().push(format!("{command:?}"));
            Ok(match command {
                ShellCommand::WalletAddress => Address { address: "bcrt1qexample".into() }.into(),
                ShellCommand::WalletFund { amount_sat } => {
                    Funded { txid: "11".repeat(32), amount_sat, fee_sat: 500, outputs: 4 }.into()
                }
                ShellCommand::WalletSend(body) if body.to == "nonsense" => {
                    return Err(ApiError::new(reason!("wallet.bad_address"), "no address"));
                }
                ShellCommand::WalletSend(body) => {
                    payment(body.amount_sat.unwrap_or(7_000), !body.dry_run).into()
                }
                ShellCommand::WalletRescan(_) => Rescan { from_height: 7 }.into(),
                ShellCommand::ExportPsbt(_) => PsbtText { psbt: "cHNidP8=".to_owned() }.into(),
                ShellCommand::DropPsbt(_) => Vec::<WaitingPsbt>::new().into(),
                ShellCommand::TakePsbt(_) => {
                    SignedPsbt { txid: "ab".repeat(32), trade_id: None }.into()
                }
                ShellCommand::WalletBump(_) => payment(7_000, true).into(),
                ShellCommand::Redeem(_) => Done::Redeemed { lease: LeaseId([0xee; 32]) }.into(),
                ShellCommand::AddPeer(_)
                | ShellCommand::OpenStream { .. }
                | ShellCommand::Shutdown => Done::Ok.into(),
            })
        }
    }
}

fn perform(command: Command) -> Result<Done, Refusal> {
    match command {
        Command::Market(MarketCommand::Place(spec)) if spec.qty == REFUSED_QTY => {
            Err(Refusal::new(reason!("order.capacity_exceeded"), "only 4 units: lower --qty"))
        }
        Command::Market(MarketCommand::Place(_)) => Ok(Done::Placed(StandingId([7; 32]))),
        Command::Holdings(
            HoldingsCommand::Gift { cert, .. } | HoldingsCommand::Split { cert, give: Some(_), .. },
        ) => Ok(Done::Gifted { cert, seq: 2 }),
        Command::Holdings(HoldingsCommand::Split { parts, .. }) => {
            Ok(Done::Split { parts: vec![CertId([0xcc; 32]); parts.len()] })
        }
        Command::Holdings(HoldingsCommand::Merge { .. }) => {
            Ok(Done::Held { cert: CertId([0xcc; 32]) })
        }
        Command::Lease(LeaseCommand::Announce(_)) => Ok(Done::Announced { number: 3 }),
        _ => Ok(Done::Ok),
    }
}

fn read(query: Query) -> Result<Answer, ApiError> {
    let one = |prefix: &Prefix, noun: Noun, byte: u8| prefix.find(noun, [[byte; 32]], |id| *id);
    Ok(match query {
        Query::Status => status().into(),
        Query::Orders(page) => page.cut([(place(7, 7), order())]).into(),
        Query::Order(id) => one(&id, Noun::Order, 7).map(|_| order())?.into(),
        Query::Trades(page) => page.cut([(place(7, 0x33), trade())]).into(),
        Query::StuckTrades => vec![stuck_trade()].into(),
        Query::Trade(id) if id.as_str().starts_with("44") => {
            one(&id, Noun::Trade, 0x44).map(|_| stuck_trade())?.into()
        }
        Query::Trade(id) => one(&id, Noun::Trade, 0x33).map(|_| trade())?.into(),
        Query::TradeProof(id) => {
            one(&id, Noun::Trade, 0x33).map(|_| FileText("capex-default 1 devnet\n".into()))?.into()
        }
        Query::Book(class) => capex::api::types::Book {
            epoch: 200,
            class,
            first_slot: 106,
            bids: vec![BookOrder {
                id: "bb".repeat(32),
                owner: HOSTILE.into(),
                limit_msat: 20_500,
                qty: 2,
                min_qty: 1,
                window: [110, 114],
                slots: 2,
                own: false,
            }],
            asks: Vec::new(),
            prices: Vec::new(),
            depth: Vec::new(),
        }
        .into(),
        Query::Depth(class) => depth(class).into(),
        Query::Explain { order, epoch } => {
            one(&order, Noun::Order, 7).map(|_| explanation(epoch.unwrap_or(199)))?.into()
        }
        Query::Preview(spec) => preview(spec.qty).into(),
        Query::Quote(spec) if spec.qty == REFUSED_QTY => {
            let refusal =
                Refusal::new(reason!("order.window"), "choose another with --from and --for");
            return Err(refusal.into());
        }
        Query::Quote(spec) => quote(spec.qty).into(),
        Query::Certificates(page) => page.cut([(place(7, 0xcc), certificate())]).into(),
        Query::Certificate(id) => one(&id, Noun::Certificate, 0xcc).map(|_| certificate())?.into(),
        Query::CertificateFile(_) => FileText("capex-certificate 1 devnet\n".into()).into(),
        Query::Pools => vec![pool()].into(),
        Query::Pool(id) => one(&id, Noun::Pool, 0xbb).map(|_| pool())?.into(),
        Query::Leases(page) => page.cut(Vec::<(Place, Lease)>::new()).into(),
        Query::Epochs(page) => page.cut((1..=5).map(|n| (place(n, 0), epoch_head(n)))).into(),
        Query::Lease(id) => one(&id, Noun::Lease, 0xee).map(|_| lease())?.into(),
        Query::Logs { from, .. } => part(b"hello\nworld\n", from).into(),
        Query::Result { name, .. } if name != "out file.txt" => {
            return Err(ApiError::new(reason!("result.not_found"), "no such result"));
        }
        Query::Result { from, .. } => part(b"result bytes", from).into(),
        Query::Balance => Balance { spendable_sat: 1_234_567, ..Balance::default() }.into(),
        Query::Descriptors => {
            Descriptors { receive: "tr(a)#x".into(), change: "tr(b)#y".into() }.into()
        }
        Query::Coins => vec![coin()].into(),
        Query::WalletHistory => vec![wallet_tx()].into(),
        Query::Psbts => vec![waiting_psbt()].into(),
        Query::Peers => vec![peer()].into(),
        Query::PeerReceipts(key) => one(&key, Noun::Peer, 0xab)
            .map(|_| FileText("capex-receipts 1 devnet\n".to_owned()))?
            .into(),
        Query::Peer(key) => one(&key, Noun::Peer, 0xab).map(|_| peer())?.into(),
        Query::Epoch(_) => {
            return Err(ApiError::new(reason!("epoch.not_computed"), "not computed"));
        }
        Query::EpochCheck(epoch) => capex::api::types::EpochCheck {
            epoch,
            orders: 3,
            differences: if epoch == 13 { vec![difference()] } else { Vec::new() },
            more_differences: 0,
            roots_equal: 2,
            roots_different: 0,
        }
        .into(),
        Query::EpochExport(epoch) => {
            capex::api::EpochInput(serde_json::json!({ "epoch": epoch }).to_string()).into()
        }
        Query::BackupRecords => capex::api::BackupRecords("{}\n".to_owned()).into(),
        Query::EpochSigned(epoch) => {
            let signed = SignedEpoch {
                epoch,
                algorithm: 1,
                beacon: [0; 32],
                root: [0; 32],
                count: 0,
                orders: Vec::new(),
                rows: Vec::new(),
                prices: Vec::new(),
                welfare_msat: 0,
                result_root: [0; 32],
            };
            capex::api::EpochFile(write(&signed, "devnet").unwrap()).into()
        }
    })
}

fn payment(amount_sat: u64, sent: bool) -> Payment {
    Payment {
        txid: "22".repeat(32),
        amount_sat,
        fee_sat: 300,
        change_sat: 5_000,
        vsize: 141,
        sent,
        awaits_signature: false,
    }
}

fn coin() -> Coin {
    let outpoint = format!("{}:1", "22".repeat(32));
    Coin { outpoint, amount_sat: 5_000, height: None, state: "locked".into() }
}

fn wallet_tx() -> WalletTx {
    WalletTx {
        txid: "22".repeat(32),
        height: Some(7),
        at: Some(1_800_000_000_000),
        what: "fund".into(),
        trade_id: Some("33".repeat(32)),
        sent_sat: 9_000,
        received_sat: 700,
        fee_sat: Some(300),
    }
}

fn place(number: u64, id: u8) -> Place {
    Place { number, id: [id; 32] }
}

fn epoch_head(epoch: u64) -> EpochHead {
    let (root, result_root) = ("ab".repeat(32), "cd".repeat(32));
    EpochHead { epoch, count: 3, rows: 1, root, result_root }
}

fn difference() -> EpochDifference {
    EpochDifference {
        code: "epoch.bad_price".into(),
        place: "price of class 1, slot 106".into(),
        expected: "20000 msat".into(),
        found: "20001 msat".into(),
    }
}

/// Five bytes at a time, so that readers have to ask again.
fn part(whole: &[u8], from: u64) -> Part {
    let rest = whole.get(usize::try_from(from).unwrap()..).unwrap_or_default();
    let bytes: Vec<u8> = rest.iter().take(5).copied().collect();
    let end = bytes.len() == rest.len();
    Part { bytes, end }
}

pub(crate) fn status() -> Status {
    serde_json::from_str(include_str!("status.json")).unwrap()
}

fn order() -> Order {
    serde_json::from_value(serde_json::json!({
        "order_id": "07".repeat(32), "placed_at": 7, "side": "sell", "class": "cpu.standard",
        "limit_msat": 20_000, "alternatives": [{"class": "cpu.standard", "limit_msat": 20_000}],
        "qty": 2, "filled_qty": 1, "min_qty": 1, "mode": "sticky", "window": [100, 200],
        "slots": 0, "features": [], "time_in_force": "gtc", "expires_at": null,
        "beneficiary": null, "use_by": null, "max_fee_sat": 500, "max_fee_percent": 20, "state": "standing",
        "code": null, "signed": [],
    }))
    .unwrap()
}

/// A pool of two that waits for a third.
fn pool() -> Pool {
    serde_json::from_value(serde_json::json!({
        "pool_id": "bb".repeat(32), "all_or_nothing": true, "invitation": "capex-pool 1 devnet 01 02",
        "creator": "aa".repeat(32), "holder": "dd".repeat(32), "class": "cpu.standard",
        "features": [], "qty": 2, "window": [107, 113], "slots": 3, "limit_msat": 5_000_000,
        "price_sat": 30_000, "expires_at": 1_800_000_000_000_u64, "invited": [],
        "share_sat": 10_000,
        "pledges": [
            {"key": "aa".repeat(32), "share_sat": 10_000},
            {"key": "ee".repeat(32), "share_sat": 5_000},
        ],
        "missing_sat": 15_000, "stage": "gathering", "code": null, "trade_id": null,
    }))
    .unwrap()
}

/// A purchase whose funding is in a block.
fn trade() -> Trade {
    let fund = serde_json::json!({
        "txid": "f1".repeat(32), "height": 203, "vsize": 154, "fee_sat": 308,
    });
    serde_json::from_value(serde_json::json!({
        "trade_id": "33".repeat(32), "epoch": 199, "side": "buy", "class": "cpu.standard",
        "window": [110, 112], "qty": 2, "price_msat": 100_000_000, "price_sat": 100_000,
        "buyer": "aa".repeat(32), "seller": "bb".repeat(32), "holder": "aa".repeat(32),
        "buy_order": "b0".repeat(32),
        "sell_order": "50".repeat(32), "cert_id": "cc".repeat(32), "state": "fund_confirmed",
        "code": null,
        "settlement": {
            "terms_hash": "7e".repeat(32), "address": "bcrt1pexample", "fund": fund,
            "claim": null, "by_key": false, "refund": null, "preimage": null, "state": "fund_confirmed",
        },
        "timeline": [
            {"what": "opened", "at": 1_800_000_000_000_u64, "height": null, "tx": null},
            {"what": "terms", "at": null, "height": 200, "tx": null},
            {"what": "locked", "at": null, "height": null, "tx": null},
            {"what": "fund", "at": null, "height": 203, "tx": fund},
        ],
        "next": "the seller claims, or the refund height comes",
        "due": {
            "kind": "refund", "height": 350, "expected_at": 1_800_084_000_000_u64,
            "minutes_left": 1400, "then": "the refund is sent",
        },
        "at_risk_sat": 446, "at_risk_units": 0, "fees_sat": 308, "trouble": null, "stuck": null,
        "advice": null,
    }))
    .unwrap()
}

/// A purchase whose refund nobody takes.
fn stuck_trade() -> Trade {
    let message = "the chain source refused a transaction of the trade".into();
    let mut due = trade().due;
    if let Some(due) = &mut due {
        (due.kind, due.then) = ("refund_final".into(), "the refund is final".into());
        due.minutes_left = 0;
    }
    Trade {
        trade_id: "44".repeat(32),
        state: "refunding".into(),
        due,
        trouble: Some(HOSTILE.into()),
        stuck: Some(Reason { code: "trade.broadcast_failed".into(), message }),
        advice: Some("look at the chain source".into()),
        ..trade()
    }
}

fn depth(class: Option<String>) -> Depth {
    let ladder = serde_json::json!([{"limit_msat": 20_500, "qty": 2, "cumulative_qty": 2}]);
    serde_json::from_value(serde_json::json!({
        "at": 400_000, "epoch": 200, "phase": "open", "epoch_ends_at": 402_000, "orders": 1,
        "classes": [{"class": class.unwrap_or("cpu.highmem".into()), "slots": [{
            "window": [110, 114], "best_ask_msat": 20_500, "ask_qty": 2, "ask_total_qty": 2,
            "best_bid_msat": null, "bid_qty": 0, "bid_total_qty": 0, "asks": ladder, "bids": [],
            "last_price_msat": null,
        }]}],
    }))
    .unwrap()
}

fn explanation(epoch: u64) -> Explanation {
    let accepted = serde_json::json!({
        "buy": "b0".repeat(32), "sell": "50".repeat(32), "class": "cpu.standard",
        "window": [110, 112], "qty": 2, "price_msat": 100_000,
    });
    serde_json::from_value(serde_json::json!({
        "epoch": epoch, "id": "1d".repeat(32), "order_id": "07".repeat(32), "owner": HOSTILE,
        "side": "buy", "alternatives": [{"class": "cpu.standard", "limit_msat": 20_000}],
        "qty": 2, "min_qty": 1, "window": [110, 114], "slots": 2, "state": "unmatched",
        "code": "explain.promised_price", "fills": [],
        "funnel": [
            {"code": "explain.class", "rule": "same class", "tried": 2, "passed": 1},
            {"code": "explain.promised_price", "rule": "within promised prices", "tried": 1,
             "passed": 0},
        ],
        "counter_orders": 2,
        "nearest": [
            {"id": "50".repeat(32), "owner": HOSTILE, "limit_msat": 18_000, "qty": 2,
             "window": [100, 200], "traded_qty": 0, "code": "explain.promised_price",
             "own": {"run_msat": 40_000}, "theirs": {"run_msat": 50_000}, "because": [accepted]},
            {"id": "51".repeat(32), "owner": HOSTILE, "limit_msat": 18_000, "qty": 2,
             "window": [100, 200], "traded_qty": 0, "code": "explain.class",
             "own": {"classes": ["cpu.standard"]}, "theirs": {"classes": ["cpu.highmem"]},
             "because": []},
        ],
        "best_limits": [{"class": "cpu.standard", "limit_msat": 25_000, "qty": 2,
                         "price_msat": 100_000, "code": null}],
        "best_limits_code": null,
        "paradox": {"class": "cpu.standard", "window": [110, 112], "limit_msat": 40_000,
                    "market_msat": 30_000, "code": "explain.promised_price",
                    "because": [accepted]},
    }))
    .unwrap()
}

fn preview(qty: u32) -> Preview {
    serde_json::from_value(serde_json::json!({
        "side": "buy", "class": "cpu.standard", "qty": qty, "window": [107, 109],
        "starts_at": 428_000, "ends_at": 436_000, "total_sat": 80, "fee_sat": 308,
        "worst_case_sat": 664, "max_fee_sat": 16,
        "warnings": [{"code": "trade.below_minimum", "message": HOSTILE}],
    }))
    .unwrap()
}

fn quote(qty: u32) -> Quote {
    serde_json::from_value(serde_json::json!({
        "binding": "indication",
        "reason": {"code": "quote.open_book", "message": "others may still come"},
        "book_epoch": 200, "orders": 1, "epoch": 200, "phase": "open", "joins_epoch": 200,
        "expires_at": 402_000, "side": "buy", "qty": qty, "filled_qty": 1,
        "fills": [{"trade_id": null, "order": "50".repeat(32), "counterparty": HOSTILE,
                   "class": "cpu.standard", "window": [110, 112], "qty": 1,
                   "price_msat": 36_000, "price_sat": 36, "code": "trade.below_minimum"}],
        "prices": [{"class": "cpu.standard", "slot": 110, "price_msat": 18_000}],
        "price_sat": 36, "fee_sat": 308, "total_sat": 344, "worst_fee_sat": 584,
        "explanation": explanation(200),
    }))
    .unwrap()
}

fn peer() -> Peer {
    serde_json::from_value(serde_json::json!({
        "key": "ab".repeat(32), "connected": false, "addresses": [],
        "misses": {"claim": 1, "terms": 2}, "denied_until": 1_800_000_000_000_u64,
        "equivocator": false,
        "record": {
            "leases": 2, "sold_block_s": "16", "delivered_block_s": "12",
            "unavailable": [{"cause": "interrupted", "unavailable_s": "4"}],
            "delivered_percent": "75", "settled": 3, "defaulted": 0,
        },
    }))
    .unwrap()
}

fn certificate() -> Certificate {
    serde_json::from_value(serde_json::json!({
        "cert_id": "cc".repeat(32), "provider": "aa".repeat(32), "class": "cpu.standard",
        "window": [110, 112], "not_after_slot": 111, "units": [[0, 2]], "features": [],
        "holder": "aa".repeat(32),
        "seq": 1, "transfers": [{
            "kind": "sale", "from": "aa", "to": "bb", "cert_id": "cc", "seq": 1,
            "consumed": ["cc"], "units": [[0, 1]], "window": [5, 6],
        }], "state": "held",
        "p_height": 210, "lease_id": null,
    }))
    .unwrap()
}

fn lease() -> Lease {
    serde_json::from_value(serde_json::json!({
        "lease_id": "ee".repeat(32), "cert_id": "cc".repeat(32), "extensions": [], "holder": "aa", "provider": "bb",
        "role": "holder", "class": "cpu.standard", "window": [110, 112], "backend": "wasm",
        "phase": "running", "runs": 1, "exited_at": null, "fetched": false, "exit_code": null, "outcome": null, "started_at": 440_000,
        "ended_at": null, "delivered_s": "1.5",
        "unavailable": [{"cause": "interrupted", "unavailable_s": "0.25"}],
        "cpu_us": 10, "memory_peak_bytes": 20, "throttled_us": 30,
        "receipts": 1, "countersigned": false, "results": [], "left_behind": [], "code": null,
    }))
    .unwrap()
}

fn waiting_psbt() -> WaitingPsbt {
    WaitingPsbt {
        txid: "ab".repeat(32),
        what: "fund".to_owned(),
        trade_id: Some("33".repeat(32)),
        amount_sat: 20_000,
        fee_sat: 300,
        until: Some(1_800_000_000_000),
    }
}
