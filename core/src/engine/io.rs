//! What goes into the engine and what comes out: nothing else changes it, and nothing else makes
//! anything happen. What it knows can be read at any time.

use std::collections::BTreeSet;
use std::sync::Arc;

use bitcoin::{OutPoint, ScriptBuf, Transaction, Txid};
use serde::{Deserialize, Serialize};

use super::certificates::CertificateNews;
use super::contacts::ContactsCommand;
use super::holdings::HoldingsCommand;
use super::kernel::{Halt, KernelNews, Payout, Record, explain};
use super::leases::{HeldEvent, LeaseCommand, LeaseEffect, LeaseNews};
use super::market::{ComputeError, Computed, Frozen, MarketCommand, MarketNews, OrderSpec};
use super::messages::wraps;
use super::pools::{PoolCommand, PoolNews};
use super::register::RegisterCommand;
use super::trades::TradeNews;
use crate::admission::AdmissionError;
use crate::book::OrderSet;
use crate::bundle::{Admitted, Candidates};
use crate::ids::{CertId, FundingId, Key, LeaseId, OrderId, PoolId, StandingId};
use crate::lease::ExecutorEvent;
use crate::lease::access::Hello;
use crate::lease::objects::Workload;
use crate::lease::pull::Pulled;
use crate::limits::{GOSSIP_MAX_BYTES, PROOF_MAX_BYTES};
use crate::reasons::Reason;
use crate::settlement::facts::ChainFacts;
use crate::settlement::joint::Contribution;
use crate::wire::Envelope;

/// Gossip topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Topic {
    Orders,
    Roots,
    /// LockGrants and RedeemGrants.
    Locks,
    Contacts,
    Proofs,
}

impl Topic {
    /// Every topic.
    pub const ALL: [Self; 5] =
        [Self::Orders, Self::Roots, Self::Locks, Self::Contacts, Self::Proofs];

    /// Name on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Orders => "orders",
            Self::Roots => "roots",
            Self::Locks => "locks",
            Self::Contacts => "contacts",
            Self::Proofs => "proofs",
        }
    }

    /// Largest message, bytes.
    #[must_use]
    pub fn max_bytes(self) -> usize {
        match self {
            Self::Orders | Self::Roots | Self::Locks | Self::Contacts => GOSSIP_MAX_BYTES,
            Self::Proofs => PROOF_MAX_BYTES,
        }
    }

    /// The topic of a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|topic| topic.name() == name)
    }
}

/// Request-response protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Protocol {
    /// Terms, locks, funding, transfers, certificates.
    Settle,
    /// Reconciliation of order sets.
    Sync,
    Lease,
}

impl Protocol {
    /// Every protocol.
    pub const ALL: [Self; 3] = [Self::Settle, Self::Sync, Self::Lease];

    /// Name on the wire, with its version.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Settle => "settle/1",
            Self::Sync => "sync/1",
            Self::Lease => "lease/1",
        }
    }

    /// The protocol of a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.name() == name)
    }
}

/// What becomes of a gossip message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    Accept,
    /// Not to be forwarded, nobody's fault: stale, known, beyond a quota.
    Ignore,
    /// The bytes alone prove the sender at fault.
    Reject,
}

/// What a check of signatures came to.
pub type Checked = Result<Admitted, Unchecked>;

/// Why a message was not found good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unchecked {
    /// Too many wait for their check already: nobody's fault.
    Busy,
    /// One of its signatures is wrong.
    Invalid(AdmissionError),
}

/// A refusal with its stable reason code and what to do next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    pub code: String,
    /// One line for people, ending in what to do.
    pub message: String,
}

impl Refusal {
    /// A refusal.
    #[must_use]
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { code: reason.code().to_owned(), message: message.into() }
    }

    /// A refusal in the words of the table of reasons.
    #[must_use]
    pub fn of_code(code: &str) -> Self {
        Self { code: code.to_owned(), message: explain(code).to_owned() }
    }
}

/// What the wallet can do now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WalletFacts {
    /// Coins that are neither locked nor unconfirmed of others, sat.
    pub spendable_sat: u64,
    /// Unused scripts for payouts and refunds.
    pub fresh_spks: Vec<ScriptBuf>,
    /// Where sales are paid out; fresh places come to those that were told before.
    pub payout: Payout,
}

/// Why a broadcast is not known to have gone out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unsent {
    /// The source did not take the transaction, in its words: by this try it went nowhere.
    Refused(String),
    /// The source did not say: it may have sent the transaction.
    NoAnswer(String),
}

impl Unsent {
    /// The source's words, or what happened to it.
    #[must_use]
    pub fn words(&self) -> &str {
        match self {
            Self::Refused(words) | Self::NoAnswer(words) => words,
        }
    }
}

/// A funding transaction that the wallet signed, locked and journaled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Funding {
    pub tx: Transaction,
    /// Outputs that pay the contracts, in the order asked for.
    pub outpoints: Vec<OutPoint>,
    /// Its fee, sat.
    pub fee_sat: u64,
}

/// What an operator, or the shell for them, asks of the engine.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    Market(MarketCommand),
    Register(RegisterCommand),
    Holdings(HoldingsCommand),
    Lease(LeaseCommand),
    Contacts(ContactsCommand),
    Pool(PoolCommand),
    /// Place a bid whose workload runs by itself on what it brings.
    Buy {
        spec: Box<OrderSpec>,
        /// Its content is on the own disk.
        workload: Box<Workload>,
    },
}

/// Answer to a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    Ok,
    Placed(StandingId),
    /// A certificate moved on: its new sequence number.
    Gifted {
        cert: CertId,
        seq: u32,
    },
    /// The certificates of its parts, in their order.
    Split {
        parts: Vec<CertId>,
    },
    /// A merged or fetched certificate is here.
    Held {
        cert: CertId,
    },
    Redeemed {
        lease: LeaseId,
    },
    /// Who has the lease, and what to say to open a stream.
    Access {
        provider: Key,
        hello: Box<Hello>,
    },
    /// What lets another key into a lease.
    Granted {
        grant: Box<Envelope>,
        /// Unix s.
        not_after_s: u64,
    },
    /// Founded, or joined.
    Pool(PoolId),
    /// How far the pull of an image is.
    Pulled(Box<Pulled>),
    /// A maintenance stands.
    Announced {
        number: u32,
    },
}

/// One thing that happened outside.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// First input of a life: every record of the journal.
    Started {
        /// In no particular order.
        records: Vec<Record>,
        /// Random bytes of this life alone: what is derived in it comes from no other, not
        /// even from a copy of the same journal.
        salt: [u8; 32],
    },
    Tick,
    /// A gossip message waits for its verdict.
    Gossip {
        peer: Key,
        topic: Topic,
        bytes: Vec<u8>,
        ticket: u64,
    },
    Request {
        /// Who: the authenticated host key.
        peer: Key,
        id: u64,
        protocol: Protocol,
        bytes: Vec<u8>,
    },
    /// An answer to `Effect::Send`, or why there is none.
    Response {
        /// Of the `Send`.
        id: u64,
        /// As received, or a short reason.
        result: Result<Vec<u8>, String>,
    },
    Peer {
        key: Key,
        up: bool,
    },
    Chain(ChainFacts),
    /// The chain source came (true) or went: without one nothing is spent.
    ChainSource {
        up: bool,
    },
    Wallet(WalletFacts),
    /// Answer to `Effect::Fund`.
    Funded {
        funding: FundingId,
        /// Signed and journaled, or why not (reason code).
        result: Result<Funding, String>,
    },
    /// Answer to `Effect::Contribute`.
    Contributed {
        funding: FundingId,
        /// Selected, locked and journaled, or why not (reason code).
        result: Result<Contribution, String>,
    },
    /// A funding that the wallet has built and cannot sign is being handed out to be signed
    /// elsewhere; again at the start of each life while it has not come back. Whoever signs it
    /// can send it.
    Exported {
        funding: FundingId,
        /// Without signatures; its id is final.
        built: Funding,
    },
    /// Answer to `Effect::Broadcast`.
    Broadcasted {
        txid: Txid,
        /// In the mempool or chain, or why that is not known.
        result: Result<(), Unsent>,
    },
    /// Answer to `Effect::Freeze`.
    Frozen {
        /// Of the `Freeze`.
        job: u64,
        frozen: Result<Frozen, ComputeError>,
    },
    /// Answer to `Effect::Match`.
    Matched {
        /// Of the `Match`.
        job: u64,
        /// Shared where many nodes computed the same.
        result: Result<Arc<Computed>, ComputeError>,
    },
    /// Answer to `Effect::Mine`.
    Mined {
        job: u64,
        /// The nonce that makes the id small enough.
        nonce: u64,
    },
    /// Answer to `Effect::Verify`.
    Checked {
        /// Who delivered the message.
        peer: Key,
        ticket: u64,
        /// Its orders, or why they are none.
        checked: Checked,
    },
    /// Records up to this number are on disk.
    Persisted {
        /// Of the `Persist`.
        seq: u64,
    },
    /// Something happened to a lease on this host.
    Executor {
        lease: LeaseId,
        event: ExecutorEvent,
    },
    /// The own disk answered for a lease that this node holds.
    Held {
        lease: LeaseId,
        event: HeldEvent,
    },
    Command {
        id: u64,
        command: Command,
    },
}

/// Something people or programs may want to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Kernel(KernelNews),
    Market(MarketNews),
    Trade(TradeNews),
    Certificate(CertificateNews),
    Lease(LeaseNews),
    Pool(PoolNews),
}

wraps! {
    Command {
        Market(MarketCommand),
        Register(RegisterCommand),
        Holdings(HoldingsCommand),
        Lease(LeaseCommand),
        Contacts(ContactsCommand),
        Pool(PoolCommand),
    }
    Event {
        Kernel(KernelNews),
        Market(MarketNews),
        Trade(TradeNews),
        Certificate(CertificateNews),
        Lease(LeaseNews),
        Pool(PoolNews),
    }
}

/// One thing for the shell to do. Performed in order: nothing after a `Persist` leaves the
/// node before its fsync.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Stop the node: going on could break a promise. Nothing follows.
    Halt {
        fault: Halt,
    },
    Persist {
        seq: u64,
        records: Vec<Record>,
    },
    /// Verdict on a gossip message.
    Verdict {
        ticket: u64,
        verdict: Verdict,
        /// Reason code unless accepted.
        code: Option<String>,
    },
    Publish {
        topic: Topic,
        bytes: Vec<u8>,
    },
    /// Ask a peer; answered by `Input::Response`.
    Send {
        id: u64,
        key: Key,
        protocol: Protocol,
        bytes: Vec<u8>,
    },
    /// Answer a peer's request.
    Reply {
        id: u64,
        bytes: Vec<u8>,
    },
    /// A peer sent bytes that prove it at fault: lower its standing.
    Penalise {
        key: Key,
    },
    /// Where a peer can be dialled, from its signed Contact.
    Addrs {
        key: Key,
        addrs: Vec<String>,
    },
    /// Watch these, from now on or from a height on; the source rescans from there.
    Watch {
        spks: Vec<ScriptBuf>,
        /// Outputs whose spending matters.
        outpoints: Vec<OutPoint>,
        /// First height.
        from_height: Option<u32>,
    },
    /// Watch these no longer: what they belong to has ended.
    Unwatch {
        spks: Vec<ScriptBuf>,
        outpoints: Vec<OutPoint>,
    },
    /// Select coins, lock them, sign and journal; answered by `Input::Funded`. No outputs:
    /// replace this funding by a payment to self.
    Fund {
        /// Which: the same one gets the same transaction.
        funding: FundingId,
        /// Contract outputs of one trade or of several, sat.
        outputs: Vec<(ScriptBuf, u64)>,
        /// Sat per 1,000 vB.
        feerate_sat_kvb: u64,
    },
    /// Select coins for a part of a transaction that others pay too, lock them and journal them;
    /// answered by `Input::Contributed`.
    Contribute {
        /// Which: the same one gets the same coins.
        funding: FundingId,
        /// The own contract, sat.
        output: (ScriptBuf, u64),
        /// Sat per 1,000 vB.
        feerate_sat_kvb: u64,
    },
    /// Sign those coins in that transaction, for all its outputs, and journal it; answered by
    /// `Input::Funded`.
    SignPart {
        funding: FundingId,
        /// Without signatures.
        tx: Transaction,
    },
    /// Send to the Bitcoin network; answered by `Input::Broadcasted`.
    Broadcast {
        tx: Transaction,
    },
    /// The coins of a funding that was never sent are free again.
    ReleaseCoins {
        funding: FundingId,
    },
    /// Other fundings may spend the coins of this one, which nobody acknowledged: a conflict
    /// cancels it at no extra cost.
    LendCoins {
        funding: FundingId,
    },
    /// Encode the orders of an epoch with [`Frozen::new`]; always answered by
    /// `Input::Frozen`. One at a time, unless the clock is set back: then nobody waits for the
    /// earlier answer any more.
    Freeze {
        /// Names what was handed out, here and in [`Effect::Match`]: an epoch that ends twice is
        /// handed out twice.
        job: u64,
        epoch: u64,
        /// Its orders, which change no more.
        set: Arc<OrderSet>,
        /// Those of this node, which are on disk.
        own: BTreeSet<OrderId>,
    },
    /// Match the orders of an epoch with [`Computed::new`]; always answered by
    /// `Input::Matched`. One at a time, as [`Effect::Freeze`].
    Match {
        job: u64,
        epoch: u64,
        /// Its orders, which change no more.
        set: Arc<OrderSet>,
    },
    /// Drop orders that nobody needs any more: of a large set that takes a while.
    Discard {
        set: Arc<OrderSet>,
    },
    /// Search a nonce; answered by `Input::Mined`.
    Mine {
        job: u64,
        /// What is hashed before the 8 bytes of the nonce (big endian).
        prefix: Vec<u8>,
        bits: u8,
    },
    /// Check the signatures of a message, on any thread and in any order: nothing waits for
    /// it but the verdict. Answered by `Input::Checked`.
    Verify {
        /// Who delivered the message.
        peer: Key,
        ticket: u64,
        /// What passed all other checks.
        candidates: Candidates,
    },
    /// Do something for a lease, on this host or elsewhere.
    Lease(LeaseEffect),
    /// For logs, the event stream and counters.
    Notify(Event),
    CommandDone {
        id: u64,
        result: Result<Done, Refusal>,
    },
}
