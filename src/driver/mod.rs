//! The driver: runs one engine with its wallet and its view of the chain.
//!
//! It owns everything between "something happened" and "this must be done": the queue of
//! inputs, the order of effects, what waits for the disk, what the engine is told of wallet
//! and chain and when, and how a life begins. It has no clock, no thread and no socket: a
//! [`Shell`] performs effects and reports back. The daemon is one shell, the simulator is the
//! other, so that a rule in here holds in both.
//!
//! ```text
//! event → Driver::feed → Engine::handle → effects → (held until durable) → Shell
//!              ▲                                                            │
//!              └──────────────── inputs that a shell has at once ◄──────────┘
//! ```

// A new variant must be decided on wherever it arrives; a test looks for what it expects.
#![cfg_attr(not(test), warn(clippy::wildcard_enum_match_arm))]

mod bridge;
mod shell;

use std::collections::{BTreeSet, VecDeque};

use bitcoin::{Address, BlockHash, OutPoint, ScriptBuf, Transaction, Txid};

use crate::chain::{Behind, ChainUpdate, Relevant, WatchFull, Watcher};
use crate::store::StoreError;
use crate::wallet::{Amounts, Payment, PayoutDescriptor, Taken, Wallet, WalletError};
use capex_core::engine::io::{Unsent, WalletFacts};
use capex_core::engine::kernel::{Halt, Payout};
use capex_core::engine::register::RegisterCommand;
use capex_core::engine::{Effect, Engine, Input, Record, Timer};
use capex_core::ids::{FundingId, Key};
use capex_core::units::TimeMs;

pub use bridge::search_nonce;
pub use shell::{Inputs, Shell};

/// Names the command that a life begins with; a shell counts its own from 1.
pub const START_COMMAND: u64 = 0;
/// Inputs that one event may lead to; more means a loop of effects, which is a bug.
const INPUTS_PER_EVENT_MAX: usize = 10_000;
/// Addresses for payouts and refunds that the engine has at hand.
const FRESH_SCRIPTS: usize = 8;
/// How deep the chain is read again when an update does not fit the wallet, chain blocks; twice
/// as deep each time that it still does not.
const REWIND_BLOCKS: u32 = 144;

/// Why a node must stop: the engine may be ahead of what is on disk.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The journal cannot be written: a promise that is not on disk must not be made.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The wallet cannot keep what it signed.
    #[error(transparent)]
    Wallet(#[from] WalletError),
    /// The engine cannot go on.
    #[error(transparent)]
    Halt(#[from] Halt),
    /// A contract cannot be watched: a node that does not see it paid or spent would release
    /// what is paid for.
    #[error(transparent)]
    Watch(#[from] WatchFull),
    /// One event led to inputs without end. Dropping some could lose the answer to a funding,
    /// and with it the coins' owner.
    #[error("one event led to more than {INPUTS_PER_EVENT_MAX} inputs; {left} are left")]
    Fuse {
        /// Inputs not handled.
        left: usize,
    },
}

impl Fault {
    /// Stable reason code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Store(error) => error.code(),
            Self::Wallet(error) => error.code(),
            Self::Halt(fault) => fault.code(),
            Self::Watch(full) => full.code(),
            Self::Fuse { .. } => "node.fuse",
        }
    }
}

/// Where sales are paid out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum PayTo {
    #[default]
    Wallet,
    /// All to one place.
    Script(ScriptBuf),
    /// Each to a fresh address of this descriptor.
    Descriptor(PayoutDescriptor),
}

/// An update that did not fit the wallet.
#[derive(Debug, Clone, Copy)]
struct RefusedUpdate {
    /// Tip of its branch.
    tip: Option<BlockHash>,
    /// From how far below its last block on the chain was to be read again.
    depth: u32,
}

/// One node without its surroundings.
#[derive(Debug)]
pub struct Driver {
    engine: Engine,
    wallet: Wallet,
    watcher: Watcher,
    /// What concerns the engine of updates that it has not been told yet.
    backlog: Relevant,
    /// From where the chain source has to read again.
    rescan_from: Option<u32>,
    /// What the wallet refused last, until it has followed to a tip.
    refused: Option<RefusedUpdate>,
    /// Where sales are paid out.
    payout: PayTo,
    inputs: Inputs,
    /// Effects in order, each with the last `Persist` before it.
    held: VecDeque<(u64, Effect)>,
    /// Last `Persist` handed to the shell, and last one that is on disk.
    written: u64,
    durable: u64,
    fault: Option<Fault>,
}

impl Driver {
    /// A driver that has seen nothing yet; [`Driver::start`] comes first.
    #[must_use]
    pub fn new(engine: Engine, wallet: Wallet) -> Self {
        Self {
            engine,
            wallet,
            watcher: Watcher::new(),
            backlog: Relevant::default(),
            rescan_from: None,
            refused: None,
            payout: PayTo::Wallet,
            inputs: Inputs::default(),
            held: VecDeque::new(),
            written: 0,
            durable: 0,
            fault: None,
        }
    }

    /// Lets sales be paid out elsewhere.
    #[must_use]
    pub fn paying_out_to(self, payout: PayTo) -> Self {
        Self { payout, ..self }
    }

    /// Begins a life: records, what this host sells, fundings that may not have reached the
    /// Bitcoin network, coins, and whatever is due.
    pub fn start(
        &mut self,
        shell: &mut impl Shell,
        records: Vec<Record>,
        salt: [u8; 32],
        capacity: Vec<(u16, u32)>,
    ) {
        self.feed(shell, Input::Started { records, salt });
        if self.has_failed() {
            return;
        }
        self.release_unknown();
        // What was handed out just before a crash must be known before its time is over.
        for (id, built) in self.wallet.exported() {
            let built = bridge::funding(built);
            self.feed(shell, Input::Exported { funding: FundingId(id), built });
        }
        let command = RegisterCommand::SetCapacity(capacity).into();
        self.feed(shell, Input::Command { id: START_COMMAND, command });
        for (_, tx) in self.wallet.unsettled() {
            shell.broadcast(tx);
        }
        self.queue_wallet();
        self.feed(shell, Input::Tick);
    }

    /// Frees the coins of fundings that no trade knows: one that did not fit all of its trades,
    /// before a crash. Nobody has seen it.
    fn release_unknown(&mut self) {
        let trades = self.engine.trades();
        let unknown = |id: &[u8; 32]| !trades.knows_funding(&FundingId(*id));
        let ids: Vec<[u8; 32]> = self.wallet.unsent().into_iter().filter(unknown).collect();
        for id in ids {
            if let Err(error) = self.wallet.release(id) {
                self.fail(error);
            }
        }
    }

    /// Gives the engine an input, and performs all that follows from it. After a fault it
    /// does nothing: the engine might speak of what will be forgotten.
    pub fn feed(&mut self, shell: &mut impl Shell, input: Input) {
        if self.fault.is_some() {
            return;
        }
        self.inputs.push(input);
        if let Err(fault) = self.run(shell) {
            self.fault = Some(fault);
        }
    }

    fn run(&mut self, shell: &mut impl Shell) -> Result<(), Fault> {
        let mut handled = 0;
        while let Some(input) = self.inputs.pop() {
            if handled >= INPUTS_PER_EVENT_MAX {
                return Err(Fault::Fuse { left: self.inputs.len() + 1 });
            }
            handled += 1;
            shell.on_input(&input);
            if let Input::Persisted { seq } = &input {
                self.durable = self.durable.max(*seq);
            }
            self.engine.handle(shell.now_ms(), input);
            while let Some(effect) = self.engine.poll_effect() {
                self.take(shell, effect)?;
            }
            while let Some((_, effect)) =
                self.held.pop_front_if(|(after, _)| *after <= self.durable)
            {
                self.perform(shell, effect)?;
            }
        }
        if let Some(height) = self.rescan_from
            && shell.rescan_from(height)
        {
            self.rescan_from = None;
        }
        Ok(())
    }

    /// Records go to the disk at once, so that one fsync may cover many; everything else
    /// waits for those before it.
    fn take(&mut self, shell: &mut impl Shell, effect: Effect) -> Result<(), Fault> {
        shell.on_effect(&effect);
        match effect {
            Effect::Halt { fault } => return Err(fault.into()),
            Effect::Persist { seq, records } => {
                self.written = seq;
                shell.persist(&mut self.inputs, seq, records)?;
            }
            // It promises nothing, so it waits for no disk.
            Effect::Verify { peer, ticket, candidates } => {
                shell.verify(&mut self.inputs, peer, ticket, candidates);
            }
            // Nothing of these leaves the node.
            Effect::Freeze { job, epoch, set, own } => {
                shell.freeze(&mut self.inputs, job, epoch, set, own);
            }
            Effect::Match { job, epoch, set } => {
                shell.compute(&mut self.inputs, job, epoch, set);
            }
            Effect::Discard { set } => shell.discard(set),
            other @ (Effect::Verdict { .. }
            | Effect::Publish { .. }
            | Effect::Send { .. }
            | Effect::Reply { .. }
            | Effect::Penalise { .. }
            | Effect::Addrs { .. }
            | Effect::Watch { .. }
            | Effect::Unwatch { .. }
            | Effect::Fund { .. }
            | Effect::Contribute { .. }
            | Effect::SignPart { .. }
            | Effect::Broadcast { .. }
            | Effect::ReleaseCoins { .. }
            | Effect::LendCoins { .. }
            | Effect::Mine { .. }
            | Effect::Lease(_)
            | Effect::Notify(_)
            | Effect::CommandDone { .. }) => self.held.push_back((self.written, other)),
        }
        Ok(())
    }

    fn perform(&mut self, shell: &mut impl Shell, effect: Effect) -> Result<(), Fault> {
        match effect {
            // Dealt with when they were polled.
            Effect::Halt { .. }
            | Effect::Persist { .. }
            | Effect::Verify { .. }
            | Effect::Freeze { .. }
            | Effect::Match { .. }
            | Effect::Discard { .. } => {}
            Effect::Watch { spks, outpoints, from_height } => {
                bridge::watch(&mut self.watcher, spks, outpoints)?;
                if let Some(height) = from_height {
                    self.ask_rescan(height);
                }
            }
            Effect::Unwatch { spks, outpoints } => self.watcher.unwatch(&spks, &outpoints),
            Effect::Fund { funding, outputs, feerate_sat_kvb } => {
                self.fund(funding, &outputs, feerate_sat_kvb)?;
            }
            Effect::Contribute { funding, output, feerate_sat_kvb } => {
                self.contribute(funding, &output, feerate_sat_kvb)?;
            }
            Effect::SignPart { funding, tx } => {
                let signed = self.wallet.sign_part(funding.0, &tx).map(bridge::funding);
                let result = told(signed)?;
                self.inputs.push(Input::Funded { funding, result });
            }
            Effect::ReleaseCoins { funding } => {
                match self.wallet.release(funding.0) {
                    // None were taken: the engine does not always know.
                    Ok(()) | Err(WalletError::NoFund) => {}
                    Err(error) => return Err(error.into()),
                }
                self.try_queue_wallet()?;
            }
            Effect::LendCoins { funding } => {
                match self.wallet.lend(funding.0) {
                    Ok(()) | Err(WalletError::NoFund) => {}
                    Err(error) => return Err(error.into()),
                }
                self.try_queue_wallet()?;
            }
            Effect::Verdict { ticket, verdict, code } => shell.verdict(ticket, verdict, code),
            Effect::Publish { topic, bytes } => shell.publish(topic, bytes),
            Effect::Send { id, key, protocol, bytes } => {
                shell.send(&mut self.inputs, id, key, protocol, bytes);
            }
            Effect::Reply { id, bytes } => shell.reply(id, bytes),
            Effect::Penalise { key } => shell.penalise(key),
            Effect::Addrs { key, addrs } => {
                let is_connected = self.engine.peers().contains(&key);
                shell.addrs(key, addrs, is_connected);
            }
            Effect::Broadcast { tx } => shell.broadcast(tx),
            Effect::Mine { job, prefix, bits } => shell.mine(job, prefix, bits),
            Effect::Lease(effect) => shell.lease(effect),
            Effect::Notify(event) => shell.notify(event),
            Effect::CommandDone { id, result } => shell.done(id, result),
        }
        Ok(())
    }

    fn fund(
        &mut self,
        funding: FundingId,
        outputs: &[(ScriptBuf, u64)],
        feerate_sat_kvb: u64,
    ) -> Result<(), Fault> {
        let height = self.engine.chain().height;
        let built = bridge::fund(&mut self.wallet, funding, outputs, feerate_sat_kvb, height);
        let result = told(built)?;
        self.inputs.push(Input::Funded { funding, result });
        self.try_queue_wallet()
    }

    fn contribute(
        &mut self,
        funding: FundingId,
        output: &(ScriptBuf, u64),
        feerate_sat_kvb: u64,
    ) -> Result<(), Fault> {
        let height = self.engine.chain().height;
        let part = self.wallet.contribute(funding.0, output, feerate_sat_kvb, height);
        let result = told(part)?;
        self.inputs.push(Input::Contributed { funding, result });
        self.try_queue_wallet()
    }

    /// Queues what the wallet can do now, with as many fresh scripts as the engine lacks.
    fn try_queue_wallet(&mut self) -> Result<(), Fault> {
        let at_hand = self.engine.fresh_scripts().chain(self.inputs.fresh_scripts());
        let at_hand: Vec<ScriptBuf> = at_hand.cloned().collect();
        let lacking = FRESH_SCRIPTS.saturating_sub(at_hand.len());
        let fresh_spks = match lacking {
            0 => Vec::new(),
            lacking => {
                let mut taken = self.engine.trades().promised_scripts();
                taken.extend(at_hand);
                self.wallet.trade_scripts(lacking, &taken)?
            }
        };
        let spendable_sat = self.wallet.balance().spendable_sat;
        let payout = self.payout()?;
        self.inputs.push(Input::Wallet(WalletFacts { spendable_sat, fresh_spks, payout }));
        Ok(())
    }

    /// Where sales are paid out from now on, with as many fresh places as the engine lacks.
    fn payout(&mut self) -> Result<Payout, WalletError> {
        let descriptor = match &self.payout {
            PayTo::Wallet => return Ok(Payout::Wallet),
            PayTo::Script(spk) => return Ok(Payout::Fixed(spk.clone())),
            PayTo::Descriptor(descriptor) => descriptor,
        };
        let at_hand = self.engine.fresh_payouts().chain(self.inputs.fresh_payouts());
        let at_hand: BTreeSet<ScriptBuf> = at_hand.cloned().collect();
        let lacking = FRESH_SCRIPTS.saturating_sub(at_hand.len());
        if lacking == 0 {
            return Ok(Payout::Fresh(VecDeque::new()));
        }
        let promised = self.engine.trades().promised_scripts();
        let fresh = self.wallet.payout_scripts(descriptor, lacking, &at_hand, &promised)?;
        Ok(Payout::Fresh(fresh.into()))
    }

    fn queue_wallet(&mut self) {
        if let Err(fault) = self.try_queue_wallet() {
            self.fault = Some(fault);
        }
    }

    fn ask_rescan(&mut self, height: u32) {
        self.rescan_from = Some(self.rescan_from.map_or(height, |lowest| lowest.min(height)));
    }

    /// A peer came or went. One that came may be what something due was waiting for.
    pub fn on_peer(&mut self, shell: &mut impl Shell, key: Key, up: bool) {
        self.feed(shell, Input::Peer { key, up });
        if up {
            self.feed(shell, Input::Tick);
        }
    }

    /// The chain changed. Returns whether the wallet could follow.
    pub fn on_chain(&mut self, shell: &mut impl Shell, update: &ChainUpdate) -> bool {
        match self.wallet.apply(update, shell.now_ms() / 1000) {
            Ok(()) => {}
            Err(error @ WalletError::Store(_)) => {
                self.fault = Some(error.into());
                return false;
            }
            Err(error) => {
                shell.chain_refused(&error);
                self.read_deeper(shell, update);
                return false;
            }
        }
        if !matches!(update.behind, Some(Behind::Reading { .. })) {
            self.refused = None;
        }
        self.backlog.append(self.watcher.reduce(update));
        match update.behind {
            None => {}
            // Half a scan would show old heights, and fundings without their spends: a
            // preimage could be revealed after its last height, or a lock be released.
            Some(Behind::Reading { .. }) => return true,
            Some(Behind::Downloading { .. } | Behind::Old { .. }) => {
                self.feed(shell, Input::ChainSource { up: false });
                return true;
            }
        }
        if !update.connected.is_empty() {
            // Trades send their own transactions again.
            for tx in self.wallet.open_payments() {
                shell.broadcast(tx);
            }
        }
        let relevant = std::mem::take(&mut self.backlog);
        self.queue_wallet();
        self.feed(shell, Input::Chain(bridge::chain_facts(update, relevant)));
        true
    }

    /// What a signer needs of a transaction that waits. Its trade, and a later life, know from now
    /// on that it may be sent by others.
    ///
    /// # Errors
    /// The wallet's refusal.
    pub fn export_psbt(
        &mut self,
        shell: &mut impl Shell,
        txid: Txid,
    ) -> Result<Vec<u8>, WalletError> {
        let (bytes, exported) = self.wallet.export(txid)?;
        if let Some((id, built)) = exported {
            let built = bridge::funding(built);
            self.feed(shell, Input::Exported { funding: FundingId(id), built });
        }
        Ok(bytes)
    }

    /// Takes back what was signed elsewhere: the trade that waits for it goes on, a payment is
    /// broadcast. Answers the transaction and, if it is of a trade, the funding.
    ///
    /// # Errors
    /// The wallet's refusal; nothing has changed then.
    pub fn take_psbt(
        &mut self,
        shell: &mut impl Shell,
        bytes: &[u8],
    ) -> Result<(Txid, Option<FundingId>), WalletError> {
        match self.wallet.take_psbt(bytes)? {
            Taken::Payment(payment) => {
                self.sent(shell, &payment);
                Ok((payment.tx.compute_txid(), None))
            }
            Taken::Funding { terms_hash, funded } => {
                let (id, txid) = (FundingId(terms_hash), funded.tx.compute_txid());
                self.queue_wallet();
                let result = Ok(bridge::funding(funded));
                self.feed(shell, Input::Funded { funding: id, result });
                self.feed(shell, Input::Tick);
                Ok((txid, Some(id)))
            }
        }
    }

    /// Ends the wait for the signature of a payment.
    ///
    /// # Errors
    /// The wallet's refusal.
    pub fn drop_psbt(&mut self, shell: &mut impl Shell, txid: Txid) -> Result<(), WalletError> {
        self.wallet.drop_psbt(txid)?;
        self.queue_wallet();
        self.feed(shell, Input::Tick);
        Ok(())
    }

    /// Reads the chain again after an update that did not fit: from further below each time, since
    /// a branch may have left the wallet's longer ago than any reading began. What does not fit
    /// from the first block on is not read again before there is another tip.
    fn read_deeper(&mut self, shell: &mut impl Shell, update: &ChainUpdate) {
        let depth = match self.refused {
            Some(last) if last.depth < update.height => last.depth.saturating_mul(2),
            Some(last) if last.tip == update.tip => return,
            Some(_) => update.height,
            None => REWIND_BLOCKS,
        };
        self.refused = Some(RefusedUpdate { tip: update.tip, depth });
        self.ask_rescan(update.height.saturating_sub(depth));
        if self.rescan_from.is_some_and(|height| shell.rescan_from(height)) {
            self.rescan_from = None;
        }
    }

    /// Pays to an address: journaled, then, as soon as it is signed, handed to the Bitcoin network,
    /// and again at every new tip until it confirms.
    ///
    /// # Errors
    /// The wallet's refusal; nothing was sent.
    pub fn pay(
        &mut self,
        shell: &mut impl Shell,
        to: &Address,
        amount: Amounts,
        feerate_sat_kvb: u64,
        coins: &[OutPoint],
    ) -> Result<Payment, WalletError> {
        let payment = self.wallet.send(to, amount, feerate_sat_kvb, coins)?;
        self.sent(shell, &payment);
        Ok(payment)
    }

    /// Replaces a payment by one with a higher fee.
    ///
    /// # Errors
    /// The wallet's refusal; the payment stays as it was.
    pub fn bump_payment(
        &mut self,
        shell: &mut impl Shell,
        txid: Txid,
        feerate_sat_kvb: u64,
    ) -> Result<Payment, WalletError> {
        let payment = self.wallet.bump_payment(txid, feerate_sat_kvb)?;
        self.sent(shell, &payment);
        Ok(payment)
    }

    /// Looks for coins further beyond the last address that was handed out, in all chain blocks
    /// from a height on, or from the first that the wallet knew.
    ///
    /// # Errors
    /// The wallet's refusal.
    pub fn rescan_wallet(
        &mut self,
        shell: &mut impl Shell,
        gap: u32,
        from_height: Option<u32>,
    ) -> Result<u32, WalletError> {
        self.wallet.widen(gap)?;
        let from_height = from_height.unwrap_or_else(|| self.wallet.first_height());
        self.ask_rescan(from_height);
        self.feed(shell, Input::Tick);
        Ok(from_height)
    }

    fn sent(&mut self, shell: &mut impl Shell, payment: &Payment) {
        if !payment.awaits {
            shell.broadcast(payment.tx.clone());
        }
        self.queue_wallet();
        self.feed(shell, Input::Tick);
    }

    /// The answer to a broadcast.
    pub fn on_broadcasted(
        &mut self,
        shell: &mut impl Shell,
        tx: &Transaction,
        result: Result<(), Unsent>,
    ) {
        if result.is_ok() {
            // Change of an own funding can be spent before it confirms.
            if let Err(error) = self.wallet.mark_broadcast(tx, shell.now_ms() / 1000) {
                self.fault = Some(error.into());
                return;
            }
            self.queue_wallet();
        }
        self.feed(shell, Input::Broadcasted { txid: tx.compute_txid(), result });
    }

    /// When [`Input::Tick`] is due, and why.
    #[must_use]
    pub fn poll_timeout(&self, now_ms: TimeMs) -> (TimeMs, Timer) {
        self.engine.poll_timeout(now_ms)
    }

    /// Effects that wait for the disk.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// The engine, to read.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The wallet, to read.
    #[must_use]
    pub fn wallet(&self) -> &Wallet {
        &self.wallet
    }

    /// The wallet, to draw addresses from.
    pub fn wallet_mut(&mut self) -> &mut Wallet {
        &mut self.wallet
    }

    /// Whether the node must stop.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.fault.is_some()
    }

    /// Stops the node: what the shell was asked to do could not be done.
    pub fn fail(&mut self, fault: impl Into<Fault>) {
        self.fault.get_or_insert(fault.into());
    }

    /// Why the node must stop, once.
    pub fn take_fault(&mut self) -> Option<Fault> {
        self.fault.take()
    }
}

/// What the engine is told of an answer of the wallet; a failure of the store ends the node.
fn told<T>(answer: Result<T, WalletError>) -> Result<Result<T, String>, Fault> {
    match answer {
        Err(error @ WalletError::Store(_)) => Err(error.into()),
        other => Ok(other.map_err(|error| error.code().to_owned())),
    }
}

#[cfg(test)]
mod tests;
