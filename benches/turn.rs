//! The longest turn of a node's loop while an epoch's orders arrive, are voted on, written and
//! matched: everything between two inputs, with a store on disk and with signatures, matching and
//! records made by other threads, as in the daemon.
//!
//! `cargo bench --bench turn`. Linux.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a command that prints, and a broken benchmark should end"
)]

#[path = "../core/benches/life/mod.rs"]
#[allow(dead_code, reason = "shared with other benchmarks")]
mod life;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use bitcoin::{Network, Transaction};
use rustix::time::{ClockId, clock_gettime};

use capex::driver::{Driver, Inputs, Shell};
use capex::sim::Disk;
use capex::store::{Meta, Store, StoreError};
use capex::wallet::{self, Wallet, WalletError};
use capex_core::book::OrderSet;
use capex_core::bundle::Candidates;
use capex_core::engine::leases::LeaseEffect;
use capex_core::engine::market::{Computed, Frozen};
use capex_core::engine::{
    Done, Engine, Event, Input, Keys, Protocol, Record, Refusal, Topic, Unchecked, Verdict,
};
use capex_core::epoch::{computed_at_ms, epoch_at, opens_at_ms, root_at_ms};
use capex_core::ids::{Key, OrderId};
use capex_core::params::Params;
use capex_core::test_support::devnet;
use capex_core::units::TimeMs;
use life::{BEGIN_MS, EPOCHS, messages};

/// Who hands over all messages.
const PEER: Key = Key([7; 32]);
/// Messages whose signatures a thread checks before it wakes the loop.
const BATCH: usize = 32;
/// Messages under way at most, as the network allows.
const UNDER_WAY: usize = 2_048;

type Job = (Key, u64, Candidates);

/// What comes back from other threads, as one turn each.
type Answers = Sender<(&'static str, Vec<Input>)>;

/// Performs effects as the daemon does, and counts verdicts.
struct Threads {
    now_ms: TimeMs,
    params: Arc<Params>,
    store: Arc<Store>,
    answers: Answers,
    jobs: Sender<Job>,
    accepted: usize,
    is_matched: bool,
}

impl Threads {
    fn new(params: Params, store: Store) -> (Self, Receiver<(&'static str, Vec<Input>)>) {
        let (answers, answered) = channel();
        let (jobs, waiting) = channel();
        let checked = answers.clone();
        thread::spawn(move || check(&waiting, &checked));
        let threads = Self {
            now_ms: BEGIN_MS,
            params: Arc::new(params),
            store: Arc::new(store),
            answers,
            jobs,
            accepted: 0,
            is_matched: false,
        };
        (threads, answered)
    }

    fn elsewhere(&self, kind: &'static str, work: impl FnOnce() -> Input + Send + 'static) {
        let answers = self.answers.clone();
        thread::spawn(move || answers.send((kind, vec![work()])));
    }
}

fn check(waiting: &Receiver<Job>, checked: &Answers) {
    while let Ok(first) = waiting.recv() {
        let batch: Vec<Job> =
            std::iter::once(first).chain(waiting.try_iter()).take(BATCH).collect();
        let run = |(peer, ticket, candidates): Job| Input::Checked {
            peer,
            ticket,
            checked: candidates.verify().map_err(Unchecked::Invalid),
        };
        if checked.send(("checked orders", batch.into_iter().map(run).collect())).is_err() {
            return;
        }
    }
}

impl Shell for Threads {
    fn now_ms(&self) -> TimeMs {
        self.now_ms
    }

    fn persist(
        &mut self,
        _inputs: &mut Inputs,
        seq: u64,
        records: Vec<Record>,
    ) -> Result<(), StoreError> {
        let answers = self.answers.clone();
        self.store.submit(records, move |result| {
            result.unwrap();
            // The loop is gone at the end of the life.
            let _ = answers.send(("written", vec![Input::Persisted { seq }]));
        });
        Ok(())
    }

    fn verdict(&mut self, _ticket: u64, verdict: Verdict, _code: Option<String>) {
        self.accepted += usize::from(verdict == Verdict::Accept);
    }

    fn publish(&mut self, _topic: Topic, _bytes: Vec<u8>) {}

    fn send(&mut self, _: &mut Inputs, _id: u64, _key: Key, _protocol: Protocol, _bytes: Vec<u8>) {}

    fn reply(&mut self, _id: u64, _bytes: Vec<u8>) {}

    fn penalise(&mut self, _key: Key) {}

    fn addrs(&mut self, _key: Key, _addrs: Vec<String>, _is_connected: bool) {}

    fn broadcast(&mut self, _tx: Transaction) {}

    fn rescan_from(&mut self, _height: u32) -> bool {
        true
    }

    fn chain_refused(&mut self, error: &WalletError) {
        panic!("{error}");
    }

    fn freeze(
        &mut self,
        _inputs: &mut Inputs,
        job: u64,
        epoch: u64,
        set: Arc<OrderSet>,
        own: BTreeSet<OrderId>,
    ) {
        self.elsewhere("records of the orders", move || Input::Frozen {
            job,
            frozen: Frozen::new(epoch, &set, &own),
        });
    }

    fn compute(&mut self, _inputs: &mut Inputs, job: u64, epoch: u64, set: Arc<OrderSet>) {
        let params = Arc::clone(&self.params);
        self.elsewhere("result", move || {
            let result = Computed::new(epoch, &set, &params).map(Arc::new);
            Input::Matched { job, result }
        });
    }

    fn discard(&mut self, set: Arc<OrderSet>) {
        thread::spawn(move || drop(set));
    }

    fn mine(&mut self, _job: u64, _prefix: Vec<u8>, _bits: u8) {}

    fn verify(&mut self, _: &mut Inputs, peer: Key, ticket: u64, candidates: Candidates) {
        self.jobs.send((peer, ticket, candidates)).unwrap();
    }

    fn lease(&mut self, _effect: LeaseEffect) {}

    fn notify(&mut self, _event: Event) {}

    fn done(&mut self, _id: u64, _result: Result<Done, Refusal>) {}
}

/// How long turns took: by the clock, and on a processor.
type Took = (Duration, Duration);

/// Processor time of this thread.
fn spent() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.try_into().unwrap(), now.tv_nsec.try_into().unwrap())
}

struct Life {
    driver: Driver,
    shell: Threads,
    answered: Receiver<(&'static str, Vec<Input>)>,
    turns: BTreeMap<&'static str, Vec<Took>>,
    under_way: usize,
    next_ticket: u64,
}

impl Life {
    fn begin(dir: &std::path::Path) -> Self {
        let params = Params { pow_bits: 0, ..devnet() };
        let meta = Meta { network: params.name.clone(), magic: params.magic };
        let (store, _) = Store::open(dir, &meta).unwrap();
        let keys = wallet::Keys::from_seed(&[1; 32], Network::Regtest).unwrap();
        let wallet = Wallet::open(&keys, Network::Regtest, Disk::default(), None).unwrap();
        let engine = Engine::new(params.clone(), Keys::new([1; 32], [2; 32]));
        let mut driver = Driver::new(engine, wallet);
        let (mut shell, answered) = Threads::new(params, store);
        driver.start(&mut shell, Vec::new(), [3; 32], Vec::new());
        let turns = BTreeMap::new();
        Self { driver, shell, answered, turns, under_way: 0, next_ticket: 0 }
    }

    /// One turn: inputs, all that follows from them, and when to wake next.
    fn turn(&mut self, kind: &'static str, inputs: Vec<Input>) {
        for input in &inputs {
            self.under_way -= usize::from(matches!(input, Input::Checked { .. }));
            self.shell.is_matched |= matches!(input, Input::Matched { .. });
        }
        let (clock, before) = (Instant::now(), spent());
        for input in inputs {
            self.driver.feed(&mut self.shell, input);
        }
        let _ = self.driver.poll_timeout(self.shell.now_ms);
        let took = (clock.elapsed(), spent() - before);
        self.turns.entry(kind).or_default().push(took);
        assert!(!self.driver.has_failed());
    }

    fn answers(&mut self) {
        while let Ok((kind, inputs)) = self.answered.try_recv() {
            self.turn(kind, inputs);
        }
        while self.under_way >= UNDER_WAY {
            self.wait();
        }
    }

    fn wait(&mut self) {
        let (kind, inputs) = self.answered.recv().unwrap();
        self.turn(kind, inputs);
    }

    /// One epoch: its orders, the vote, its end. What follows from the end meets the orders of
    /// the next.
    fn epoch(&mut self, epoch: u64, orders: usize, messages: Vec<Vec<u8>>) {
        let params = Arc::clone(&self.shell.params);
        let (all, before) = (messages.len(), self.shell.accepted);
        for (at, bytes) in messages.into_iter().enumerate() {
            self.shell.now_ms =
                opens_at_ms(epoch, &params) + params.epoch.open_ms * at as u64 / all as u64;
            self.next_ticket += 1;
            self.under_way += 1;
            let ticket = self.next_ticket;
            let gossip = Input::Gossip { peer: PEER, topic: Topic::Orders, bytes, ticket };
            self.turn("gossip of orders", vec![gossip]);
            self.answers();
        }
        while self.shell.accepted - before < all {
            self.wait();
        }
        let set = &self.driver.engine().market().epochs.get(epoch).unwrap().set;
        assert_eq!(set.len(), orders);
        self.shell.now_ms = root_at_ms(epoch, &params);
        self.turn("tick, vote", vec![Input::Tick]);
        self.shell.now_ms = computed_at_ms(epoch, &params);
        self.shell.is_matched = false;
        self.turn("tick, end of the epoch", vec![Input::Tick]);
    }
}

fn live(orders: usize) -> BTreeMap<&'static str, Vec<Took>> {
    let dir = tempfile::tempdir().unwrap();
    let mut life = Life::begin(dir.path());
    let first = epoch_at(BEGIN_MS, &life.shell.params) + 1;
    for epoch in first..first + EPOCHS {
        let messages = messages(epoch, orders, &life.shell.params);
        life.epoch(epoch, orders, messages);
    }
    while !life.shell.is_matched {
        life.wait();
    }
    life.turns
}

fn main() {
    for orders in [10_000, 100_000] {
        println!("{orders} orders, {EPOCHS} epochs, ms by the clock (of them on a processor):");
        for (kind, mut took) in live(orders) {
            let ms = |took: Duration| took.as_secs_f64() * 1e3;
            let busiest = took.iter().map(|(_, spent)| *spent).max().unwrap();
            took.sort_unstable();
            let (longest, spent) = took[took.len() - 1];
            let median = took[took.len() / 2].0;
            println!(
                "  {kind}: longest {:.3} ({:.3}), most on a processor {:.3}, median {:.3} of {}",
                ms(longest),
                ms(spent),
                ms(busiest),
                ms(median),
                took.len()
            );
        }
    }
}
