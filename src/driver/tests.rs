use std::collections::BTreeSet;
use std::sync::Arc;

use bitcoin::Network;

use super::*;
use crate::chain::devchain::{Cursor, Devchain, faucet_script};
use crate::sim::Disk;
use crate::wallet::Keys as WalletKeys;
use capex_core::book::OrderSet;
use capex_core::bundle::Candidates;
use capex_core::engine::leases::LeaseEffect;
use capex_core::engine::register::RegisterCommand;
use capex_core::engine::{Done, Event, Keys, Protocol, Refusal, Topic, Verdict};
use capex_core::ids::OrderId;
use capex_core::test_support::devnet;

const BEGIN_S: u32 = 1_800_000_000;

/// Writes down what it is asked, and does nothing of it.
#[derive(Default)]
struct Notes {
    /// Whether records are on disk at once.
    is_fast: bool,
    /// Whether each write is followed by a command that leads to the next.
    is_wild: bool,
    /// How often the chain source is too busy for a rescan.
    busy: u32,
    inputs: usize,
    chain_facts: Vec<u32>,
    written: Vec<u64>,
    left: Vec<String>,
    rescans: Vec<u32>,
}

impl Shell for Notes {
    fn now_ms(&self) -> TimeMs {
        1_800_000_000_000
    }

    fn on_input(&mut self, input: &Input) {
        self.inputs += 1;
        if let Input::Chain(facts) = input {
            self.chain_facts.push(facts.height);
        }
    }

    fn persist(
        &mut self,
        inputs: &mut Inputs,
        seq: u64,
        _records: Vec<Record>,
    ) -> Result<(), StoreError> {
        self.written.push(seq);
        if self.is_fast {
            inputs.push(Input::Persisted { seq });
        }
        if self.is_wild {
            let units = u32::try_from(seq % 8).unwrap();
            inputs.push(capacity(seq, units));
        }
        Ok(())
    }

    fn verdict(&mut self, _ticket: u64, _verdict: Verdict, _code: Option<String>) {}

    fn publish(&mut self, _topic: Topic, _bytes: Vec<u8>) {}

    fn send(
        &mut self,
        _inputs: &mut Inputs,
        _id: u64,
        _key: Key,
        _protocol: Protocol,
        _bytes: Vec<u8>,
    ) {
    }

    fn reply(&mut self, id: u64, _bytes: Vec<u8>) {
        self.left.push(format!("reply {id}"));
    }

    fn penalise(&mut self, _key: Key) {}

    fn addrs(&mut self, _key: Key, _addrs: Vec<String>, _is_connected: bool) {}

    fn broadcast(&mut self, _tx: Transaction) {}

    fn rescan_from(&mut self, height: u32) -> bool {
        self.rescans.push(height);
        self.busy = self.busy.saturating_sub(1);
        self.busy == 0
    }

    fn chain_refused(&mut self, _error: &WalletError) {}

    fn freeze(
        &mut self,
        _inputs: &mut Inputs,
        _job: u64,
        _epoch: u64,
        _set: Arc<OrderSet>,
        _own: BTreeSet<OrderId>,
    ) {
    }

    fn compute(&mut self, _inputs: &mut Inputs, _job: u64, _epoch: u64, _set: Arc<OrderSet>) {}

    fn discard(&mut self, _set: Arc<OrderSet>) {}

    fn mine(&mut self, _job: u64, _prefix: Vec<u8>, _bits: u8) {}

    fn verify(&mut self, _: &mut Inputs, _peer: Key, _ticket: u64, _candidates: Candidates) {}

    fn lease(&mut self, _effect: LeaseEffect) {}

    fn notify(&mut self, _event: Event) {}

    fn done(&mut self, id: u64, result: Result<Done, Refusal>) {
        self.left.push(format!("done {id} {}", result.is_ok()));
    }
}

fn capacity(id: u64, units: u32) -> Input {
    Input::Command { id, command: RegisterCommand::SetCapacity(vec![(1, units)]).into() }
}

fn question(id: u64) -> Input {
    Input::Request { peer: Key([9; 32]), id, protocol: Protocol::Sync, bytes: Vec::new() }
}

fn driver() -> Driver {
    let keys = WalletKeys::from_seed(&[7; 32], Network::Regtest).unwrap();
    let wallet = Wallet::open(&keys, Network::Regtest, Disk::default(), None).unwrap();
    Driver::new(Engine::new(devnet(), Keys::new([1; 32], [2; 32])), wallet)
}

/// A driver whose life has begun on a fast disk.
fn started(shell: &mut Notes) -> Driver {
    let mut driver = driver();
    shell.is_fast = true;
    driver.start(shell, Vec::new(), [3; 32], Vec::new());
    assert_eq!(driver.held(), 0);
    shell.left.clear();
    shell.written.clear();
    driver
}

#[test]
fn nothing_leaves_before_the_records_of_before_are_on_disk() {
    let mut shell = Notes::default();
    let mut driver = started(&mut shell);
    shell.is_fast = false;
    driver.feed(&mut shell, question(1));
    driver.feed(&mut shell, capacity(2, 4));
    driver.feed(&mut shell, question(3));
    driver.feed(&mut shell, capacity(4, 5));
    // The second write is under way before the first has ended: one fsync may cover both.
    let [first, second] = shell.written[..] else { panic!("{:?}", shell.written) };
    assert_eq!(shell.left, ["reply 1"]);
    driver.feed(&mut shell, Input::Persisted { seq: first });
    assert_eq!(shell.left, ["reply 1", "done 2 true", "reply 3"]);
    driver.feed(&mut shell, Input::Persisted { seq: second });
    assert_eq!(shell.left, ["reply 1", "done 2 true", "reply 3", "done 4 true"]);
    assert_eq!(driver.held(), 0);
}

#[test]
fn effects_without_end_stop_the_node_and_drop_no_input() {
    let mut shell = Notes::default();
    let mut driver = started(&mut shell);
    shell.is_wild = true;
    driver.feed(&mut shell, capacity(1, 4));
    let handled = shell.inputs;
    assert!(handled >= INPUTS_PER_EVENT_MAX);
    driver.feed(&mut shell, question(2));
    assert_eq!(shell.inputs, handled, "a driver that has tripped does nothing");
    let fault = driver.take_fault().unwrap();
    assert!(matches!(fault, Fault::Fuse { left: 1.. }), "{fault}");
    assert_eq!(fault.code(), "node.fuse");
}

#[test]
fn the_engine_hears_of_the_chain_when_all_of_it_was_read() {
    let mut chain = Devchain::new(BEGIN_S);
    // One update has 512 chain blocks at most.
    for second in 0..400 {
        chain.mine(&faucet_script(), BEGIN_S + 600 + second).unwrap();
    }
    let mut shell = Notes::default();
    let mut driver = started(&mut shell);
    let mut cursor = Cursor::at(1);
    let mut parts = 0;
    while let Some(update) = cursor.changes(&chain) {
        parts += 1;
        assert!(driver.on_chain(&mut shell, &update));
        assert_eq!(shell.chain_facts.is_empty(), update.behind.is_some());
    }
    assert_eq!((parts, shell.chain_facts), (2, vec![chain.height()]));
}

#[test]
fn a_rescan_that_the_source_was_too_busy_for_is_asked_for_again() {
    let (ours, theirs) = (Devchain::new(BEGIN_S), Devchain::new(BEGIN_S + 7));
    let mut shell = Notes { busy: 2, ..Notes::default() };
    let mut driver = started(&mut shell);
    let update = Cursor::at(1).changes(&ours).unwrap();
    assert!(driver.on_chain(&mut shell, &update));
    let update = Cursor::at(theirs.height()).changes(&theirs).unwrap();
    assert!(!driver.on_chain(&mut shell, &update), "the block before it is another");
    let from = theirs.height() - REWIND_BLOCKS;
    assert_eq!(shell.rescans, [from]);
    driver.feed(&mut shell, Input::Tick);
    driver.feed(&mut shell, Input::Tick);
    assert_eq!(shell.rescans, [from, from]);
    assert_eq!(shell.chain_facts, [ours.height()]);
}

/// The wallet follows a branch of its own from the second block on.
fn astray(shell: &mut Notes) -> (Driver, Devchain) {
    let (ours, theirs) = (Devchain::new(BEGIN_S), Devchain::new(BEGIN_S + 7));
    let mut driver = started(shell);
    assert!(driver.on_chain(shell, &Cursor::at(1).changes(&ours).unwrap()));
    (driver, theirs)
}

#[test]
fn a_branch_that_left_the_wallets_long_ago_is_read_from_further_below_each_time() {
    let mut shell = Notes { busy: 1, ..Notes::default() };
    let (mut driver, theirs) = astray(&mut shell);
    let height = theirs.height();
    let mut cursor = Cursor::at(height);
    for _ in 0..10 {
        let Some(update) = cursor.changes(&theirs) else { break };
        if !driver.on_chain(&mut shell, &update) {
            cursor.rescan_from(*shell.rescans.last().unwrap());
        }
    }
    assert_eq!(shell.rescans, [height - REWIND_BLOCKS, 0]);
    assert_eq!(driver.wallet().checkpoints()[0], (height, theirs.tip()));
    assert_eq!(shell.chain_facts.len(), 2);
}

#[test]
fn what_does_not_fit_from_the_first_block_on_waits_for_another_tip() {
    let mut shell = Notes { busy: 1, ..Notes::default() };
    let (mut driver, mut theirs) = astray(&mut shell);
    let height = theirs.height();
    // A source that never shows what is below.
    for _ in 0..20 {
        let update = Cursor::at(height).changes(&theirs).unwrap();
        assert!(!driver.on_chain(&mut shell, &update));
    }
    assert_eq!(shell.rescans, [height - REWIND_BLOCKS, 0]);
    theirs.mine(&faucet_script(), BEGIN_S + 600).unwrap();
    for _ in 0..20 {
        let update = Cursor::at(height).changes(&theirs).unwrap();
        assert!(!driver.on_chain(&mut shell, &update));
    }
    assert_eq!(shell.rescans, [height - REWIND_BLOCKS, 0, 0]);
}
