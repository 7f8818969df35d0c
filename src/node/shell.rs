//! The daemon's shell: effects become messages to its tasks, records and log lines.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use bitcoin::Transaction;
use capex_network::{Command as NetCommand, Handle, PeerKey, Ticket, Verdict as NetVerdict};
use tokio::sync::{mpsc, oneshot};

use super::chain_task::ChainHandle;
use super::lease_client::HeldFiles;
use super::lease_host::{LeaseHost, Room};
use super::peers::Peers;
use super::verify::Verifier;
use crate::clock::now_ms;
use crate::driver::{Inputs, START_COMMAND, Shell, search_nonce};
use crate::store::{Store, StoreError};
use crate::wallet::WalletError;
use capex_core::book::OrderSet;
use capex_core::bundle::Candidates;
use capex_core::engine::certificates::CertificateNews;
use capex_core::engine::kernel::{ClockState, KernelNews};
use capex_core::engine::leases::{LeaseEffect, LeaseNews};
use capex_core::engine::market::{ComputeError, Computed, Frozen, MarketNews};
use capex_core::engine::pools::PoolNews;
use capex_core::engine::trades::TradeNews;
use capex_core::engine::{Done, Event, Input, Protocol, Record, Refusal, Topic, Verdict};
use capex_core::ids::{Key, OrderId};
use capex_core::params::Params;
use capex_core::units::TimeMs;

/// The number of a `Persist` that is on disk now, or why it is not. As many can wait as the store
/// takes, which is bounded.
pub(super) type Written = Result<u64, StoreError>;

/// Answers to a command.
pub(super) type CommandAnswer = oneshot::Sender<Result<Done, Refusal>>;

/// The ends of everything that effects go to.
pub(super) struct Outside {
    pub(super) network: Handle,
    pub(super) chain: ChainHandle,
    pub(super) store: Arc<Store>,
    /// What became of each `Persist`, for the loop.
    written: mpsc::UnboundedSender<Written>,
    /// Threads that check signatures.
    pub(super) verifier: Verifier,
    /// Answers that come later. Each was asked for by the loop, which bounds them.
    answers: mpsc::UnboundedSender<Input>,
    pub(super) params: Arc<Params>,
    pub(super) peers: Peers,
    pub(super) leases: LeaseHost,
    /// Files of leases that this node holds.
    pub(super) held: HeldFiles,
    commands: BTreeMap<u64, CommandAnswer>,
    last_command: u64,
}

impl Outside {
    pub(super) fn new(
        network: Handle,
        chain: ChainHandle,
        (store, written): (Arc<Store>, mpsc::UnboundedSender<Written>),
        (answers, verifier): (mpsc::UnboundedSender<Input>, Verifier),
        params: Arc<Params>,
        peers: Peers,
        (leases, held): (LeaseHost, HeldFiles),
    ) -> Self {
        Self {
            network,
            chain,
            store,
            written,
            verifier,
            answers,
            params,
            peers,
            leases,
            held,
            commands: BTreeMap::new(),
            last_command: START_COMMAND,
        }
    }

    /// Names a command, and keeps who waits for its answer.
    pub(super) fn new_command(&mut self, answer: Option<CommandAnswer>) -> u64 {
        self.last_command += 1;
        if let Some(answer) = answer {
            self.commands.insert(self.last_command, answer);
        }
        self.last_command
    }

    /// Nothing is answered any more.
    pub(super) fn forget_commands(&mut self) {
        self.commands.clear();
    }

    /// Hands a command to the network task.
    ///
    /// # Errors
    /// The reason code: the task is too busy, and the command is lost.
    pub(super) fn network(&self, command: NetCommand) -> Result<(), &'static str> {
        self.network.try_send(command).map_err(|error| {
            tracing::warn!(code = error.code(), "the network is too busy; a message was dropped");
            error.code()
        })
    }

    /// Hands over what peers repeat, or can do without.
    pub(super) fn tell_network(&self, command: NetCommand) {
        // Logged where it was lost.
        let _ = self.network(command);
    }
}

impl Shell for Outside {
    fn now_ms(&self) -> TimeMs {
        now_ms()
    }

    fn persist(
        &mut self,
        _inputs: &mut Inputs,
        seq: u64,
        records: Vec<Record>,
    ) -> Result<(), StoreError> {
        let written = self.written.clone();
        self.store.submit(records, move |result| {
            // The loop may be gone.
            let _ = written.send(result.map(|_| seq));
        });
        Ok(())
    }

    fn verdict(&mut self, ticket: u64, verdict: Verdict, _code: Option<String>) {
        let verdict = match verdict {
            Verdict::Accept => NetVerdict::Accept,
            Verdict::Ignore => NetVerdict::Ignore,
            Verdict::Reject => NetVerdict::Reject,
        };
        self.tell_network(NetCommand::Verdict { ticket: Ticket(ticket), verdict });
    }

    fn publish(&mut self, topic: Topic, bytes: Vec<u8>) {
        self.tell_network(NetCommand::Publish { topic: topic.name().to_owned(), bytes });
    }

    fn send(&mut self, inputs: &mut Inputs, id: u64, key: Key, protocol: Protocol, bytes: Vec<u8>) {
        let protocol = protocol.name().to_owned();
        let peer = PeerKey(key.0);
        if let Err(code) = self.network(NetCommand::Request { id, peer, protocol, bytes }) {
            inputs.push(Input::Response { id, result: Err(code.to_owned()) });
        }
    }

    fn reply(&mut self, id: u64, bytes: Vec<u8>) {
        self.tell_network(NetCommand::Reply { id, bytes });
    }

    fn penalise(&mut self, key: Key) {
        self.tell_network(NetCommand::Penalise { peer: PeerKey(key.0) });
    }

    fn addrs(&mut self, key: Key, addrs: Vec<String>, is_connected: bool) {
        self.peers.hear(key, addrs.clone(), is_connected);
        self.tell_network(NetCommand::AddAddresses { peer: PeerKey(key.0), addrs });
    }

    fn broadcast(&mut self, tx: Transaction) {
        if !self.chain.broadcast(tx) {
            tracing::warn!("the chain task is too busy; the engine's timers will ask again");
        }
    }

    fn rescan_from(&mut self, height: u32) -> bool {
        self.chain.rescan_from(height)
    }

    fn chain_refused(&mut self, error: &WalletError) {
        tracing::error!(%error, "the wallet refused a chain update");
    }

    fn freeze(
        &mut self,
        _inputs: &mut Inputs,
        job: u64,
        epoch: u64,
        set: Arc<OrderSet>,
        own: BTreeSet<OrderId>,
    ) {
        let answers = self.answers.clone();
        tokio::spawn(async move {
            let work = tokio::task::spawn_blocking(move || Frozen::new(epoch, &set, &own));
            let frozen = work.await.unwrap_or(Err(ComputeError::Lost));
            // The loop may be gone.
            let _ = answers.send(Input::Frozen { job, frozen });
        });
    }

    fn compute(&mut self, _inputs: &mut Inputs, job: u64, epoch: u64, set: Arc<OrderSet>) {
        let (params, answers) = (Arc::clone(&self.params), self.answers.clone());
        tokio::spawn(async move {
            let started = Instant::now();
            let work = move || Computed::new(epoch, &set, &params).map(Arc::new);
            let result = tokio::task::spawn_blocking(work).await;
            tracing::debug!(epoch, took = ?started.elapsed(), "epoch matched");
            let result = result.unwrap_or(Err(ComputeError::Lost));
            // The loop may be gone.
            let _ = answers.send(Input::Matched { job, result });
        });
    }

    fn discard(&mut self, set: Arc<OrderSet>) {
        tokio::task::spawn_blocking(move || drop(set));
    }

    fn mine(&mut self, job: u64, prefix: Vec<u8>, bits: u8) {
        let answers = self.answers.clone();
        tokio::task::spawn_blocking(move || {
            if let Some(nonce) = search_nonce(&prefix, bits) {
                // The loop may be gone.
                let _ = answers.send(Input::Mined { job, nonce });
            }
        });
    }

    fn verify(&mut self, inputs: &mut Inputs, peer: Key, ticket: u64, candidates: Candidates) {
        if let Some(busy) = self.verifier.check(peer, ticket, candidates) {
            inputs.push(busy);
        }
    }

    fn lease(&mut self, effect: LeaseEffect) {
        match effect {
            LeaseEffect::Prepare {
                lease,
                cert,
                workload,
                order,
                starts_at_ms,
                ends_at_ms,
                cpu_max_milli,
                memory_max_bytes,
                disk_max_bytes,
                same_holder,
            } => {
                let room = Room {
                    order,
                    starts_at_ms,
                    ends_at_ms,
                    cpu_max_milli,
                    memory_max_bytes,
                    disk_max_bytes,
                };
                self.leases.prepare((lease, cert), &workload, &room, same_holder);
            }
            LeaseEffect::Launch { lease } => self.leases.launch(lease),
            LeaseEffect::Serve { id, lease, what } => self.leases.serve(id, lease, what),
            LeaseEffect::Pull { id, cert, image, max_bytes } => {
                self.leases.pull(id, cert, image, max_bytes);
            }
            LeaseEffect::Stop { lease, why } => self.leases.stop(lease, why),
            LeaseEffect::Release { lease } => self.leases.release(lease),
            LeaseEffect::Maintain { all } => self.leases.maintain(&all),
            LeaseEffect::Held(job) => self.held.ask(job),
        }
    }

    fn notify(&mut self, event: Event) {
        match event {
            // Strangers must not be able to fill a log; the engine counts them by code.
            Event::Kernel(KernelNews::Refused { peer, code }) => {
                tracing::debug!(%peer, %code, "message refused");
            }
            Event::Market(MarketNews::Computed { epoch, rows }) => {
                tracing::info!(epoch, rows, "epoch computed");
            }
            Event::Market(MarketNews::Failed { epoch, code }) => {
                tracing::error!(epoch, code, "epoch not computed");
            }
            Event::Market(MarketNews::Clock(clock)) => match clock.state {
                ClockState::Right => tracing::info!("the clock agrees with others again"),
                ClockState::Doubtful | ClockState::Off => {
                    tracing::warn!(code = "clock.off", "{}", super::clock::words(&clock));
                }
            },
            Event::Market(MarketNews::ClockWasAhead { through, epoch }) => {
                tracing::warn!(
                    code = "clock.was_ahead",
                    through,
                    epoch,
                    "the clock was ahead: what was signed and computed by it is forgotten"
                );
            }
            Event::Trade(TradeNews { trade, state }) => tracing::info!(%trade, %state, "trade"),
            Event::Certificate(CertificateNews { cert, what }) => {
                tracing::info!(%cert, what, "certificate");
            }
            Event::Pool(PoolNews { pool, stage }) => tracing::info!(%pool, %stage, "pool"),
            Event::Lease(LeaseNews { lease, phase }) => tracing::info!(%lease, %phase, "lease"),
        }
    }

    fn done(&mut self, id: u64, result: Result<Done, Refusal>) {
        match (self.commands.remove(&id), result) {
            // The caller may have hung up.
            (Some(waiting), result) => drop(waiting.send(result)),
            (None, Err(refusal)) if id == START_COMMAND => {
                tracing::error!(code = refusal.code, "{}", refusal.message);
            }
            (None, Ok(_) | Err(_)) => {}
        }
    }
}
