//! What the API asks of the event loop, through one bounded channel.

use std::time::Duration;

use tokio::io::DuplexStream;
use tokio::sync::{mpsc, oneshot};

use super::error::ApiError;
use super::paging::{Listed, Page};
use super::prefix::Prefix;
use super::types;
use capex_core::engine::io::{Command, Done};
use capex_core::engine::leases::Wanted;
use capex_core::engine::market::OrderSpec;
use capex_core::ids::{CertId, LeaseId};
use capex_core::reason;

/// Calls that may wait for the event loop. It answers from memory, most queries in well under
/// a millisecond and those over the open book in a time that grows with its orders; what
/// verifies, matches or writes a whole epoch it hands on. So a longer queue only hides that it
/// is stuck.
pub const CALL_QUEUE: usize = 256;
/// How long a call may take: a redemption asks a remote provider and uploads 64 MiB.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(120);

/// One question to the event loop.
#[derive(Debug)]
pub enum Call {
    Query(Query),
    Command(Command),
    /// Asks the shell around the engine.
    Shell(ShellCommand),
}

/// What can be read. The answer's type stands behind the arrow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Query {
    /// → [`types::Status`]
    Status,
    /// By when they were placed → [`Listed`] of [`types::Order`]
    Orders(Page),
    /// By standing id, or by the id of an appearance → [`types::Order`]
    Order(Prefix),
    /// By class name → [`types::Book`]
    Book(String),
    /// By class name, or of all classes → [`types::Depth`]
    Depth(Option<String>),
    /// By standing id or id in the epoch; `None` for the last epoch it took part in →
    /// [`types::Explanation`]
    Explain { order: Prefix, epoch: Option<u64> },
    /// What an order can cost, and why it would be refused → [`types::Preview`]
    Preview(Box<OrderSpec>),
    /// What an order would get → [`types::Quote`]
    Quote(Box<OrderSpec>),
    /// By epoch → [`Listed`] of [`types::Trade`]
    Trades(Page),
    /// Open ones that do not go on by themselves → `Vec<`[`types::Trade`]`>`
    StuckTrades,
    /// → [`types::Trade`]
    Trade(Prefix),
    /// What shows that its provider has defaulted → [`FileText`]
    TradeProof(Prefix),
    /// By first slot → [`Listed`] of [`types::Certificate`]
    Certificates(Page),
    /// → [`types::Certificate`]
    Certificate(Prefix),
    /// → [`FileText`]
    CertificateFile(Prefix),
    /// → `Vec<`[`types::Pool`]`>`
    Pools,
    /// → [`types::Pool`]
    Pool(Prefix),
    /// By first slot → [`Listed`] of [`types::Lease`]
    Leases(Page),
    /// → [`types::Lease`]
    Lease(Prefix),
    /// → [`types::Part`], at most 256 KiB
    Logs { lease: Prefix, stream: types::Stream, from: u64 },
    /// → [`types::Part`], at most 256 KiB
    Result { lease: Prefix, name: String, from: u64 },
    /// → [`types::Balance`]
    Balance,
    /// → `Vec<`[`types::Coin`]`>`
    Coins,
    /// → [`types::Descriptors`]
    Descriptors,
    /// → `Vec<`[`types::WalletTx`]`>`, newest first
    WalletHistory,
    /// What waits for a signature made elsewhere → `Vec<`[`types::WaitingPsbt`]`>`
    Psbts,
    /// → `Vec<`[`types::Peer`]`>`
    Peers,
    /// By a prefix of its key → [`types::Peer`]
    Peer(Prefix),
    /// Receipts of all leases with it → [`FileText`]
    PeerReceipts(Prefix),
    /// Computed ones → [`Listed`] of [`types::EpochHead`]
    Epochs(Page),
    /// `None` for the last computed → [`types::Epoch`]
    Epoch(Option<u64>),
    /// The epoch computed again from its orders → [`types::EpochCheck`]
    EpochCheck(u64),
    /// The form that `capex match` reads → [`EpochInput`]
    EpochExport(u64),
    /// The signed orders with the result → [`EpochFile`]
    EpochSigned(u64),
    /// What a backup keeps of the store → [`BackupRecords`]
    BackupRecords,
}

/// What the shell around the engine does.
#[derive(Debug)]
pub enum ShellCommand {
    /// Stay connected to a multiaddr with `/p2p/<id>` → [`Done::Ok`]
    AddPeer(String),
    /// → [`types::Address`]
    WalletAddress,
    /// Pay, or say what would be paid → [`types::Payment`]
    WalletSend(types::SendCoins),
    /// Replace a payment → [`types::Payment`]
    WalletBump(types::BumpPayment),
    /// Hand out what waits for a signature, which is journaled → [`types::PsbtText`]
    ExportPsbt(Prefix),
    /// Take back what was signed elsewhere → [`types::SignedPsbt`]
    TakePsbt(Vec<u8>),
    /// Leave a payment without its signature → [`Answer::Psbts`]
    DropPsbt(Prefix),
    /// Look for coins further ahead, in old chain blocks too → [`types::Rescan`]
    WalletRescan(types::RescanWallet),
    /// Let the faucet of a development network pay this wallet → [`types::Funded`]
    WalletFund {
        /// How much, sat.
        amount_sat: u64,
    },
    /// Open a stream into a lease and carry what is written into the other end of `local`
    /// → [`Done::Ok`]
    OpenStream { wanted: Box<Wanted>, local: DuplexStream },
    /// Redeem a certificate and upload what shall run → [`Done::Redeemed`]; or run another
    /// workload in a lease → [`Done::Ok`]; or place a bid whose workload runs by itself on what it
    /// brings → [`Done::Placed`]
    Redeem(Box<RedeemCall>),
    /// Stop the daemon → [`Done::Ok`]
    Shutdown,
}

/// Where a workload is to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// In a new lease, for which the certificate is used up.
    Certificate(CertId),
    /// In place of what runs in a lease.
    Lease(LeaseId),
    /// On what this bid will bring, by itself.
    Order(Box<OrderSpec>),
}

/// A workload with its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedeemCall {
    pub target: Target,
    /// WASI 0.2 command component; empty if the body names an image.
    pub component: Vec<u8>,
    /// Name and content of each input.
    pub inputs: Vec<(String, Vec<u8>)>,
    /// All else of the body.
    pub body: types::RedeemBody,
}

/// Text of a file for people and other nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileText(pub String);

/// Text of an epoch with its signed orders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochFile(pub String);

/// What a backup keeps of a store, as lines of an export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupRecords(pub String);

/// An epoch in the form that `capex match` reads, as JSON text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochInput(pub String);

macro_rules! answers {
    ($($variant:ident($type:ty)),* $(,)?) => {
        /// What the event loop answers: every type that a [`Query`] or command names.
        #[derive(Debug)]
        pub enum Answer {$(
            #[doc = concat!("`", stringify!($type), "`")]
            $variant(Box<$type>),
        )*}
        $(
            impl From<$type> for Answer {
                fn from(value: $type) -> Self {
                    Self::$variant(Box::new(value))
                }
            }
            impl TryFrom<Answer> for $type {
                type Error = ApiError;
                fn try_from(answer: Answer) -> Result<Self, ApiError> {
                    match answer {
                        Answer::$variant(value) => Ok(*value),
                        _ => Err(ApiError::internal(concat!("expected ", stringify!($type)))),
                    }
                }
            }
        )*
    };
}

answers! {
    Status(types::Status),
    Orders(Listed<types::Order>),
    Order(types::Order),
    Book(types::Book),
    Depth(types::Depth),
    Explanation(types::Explanation),
    Preview(types::Preview),
    Quote(types::Quote),
    Trades(Listed<types::Trade>),
    Trade(types::Trade),
    StuckTrades(Vec<types::Trade>),
    Certificates(Listed<types::Certificate>),
    Certificate(types::Certificate),
    FileText(FileText),
    Pools(Vec<types::Pool>),
    Pool(types::Pool),
    Leases(Listed<types::Lease>),
    Epochs(Listed<types::EpochHead>),
    Lease(types::Lease),
    Part(types::Part),
    Balance(types::Balance),
    Address(types::Address),
    Funded(types::Funded),
    Coins(Vec<types::Coin>),
    WalletHistory(Vec<types::WalletTx>),
    Payment(types::Payment),
    Psbts(Vec<types::WaitingPsbt>),
    PsbtText(types::PsbtText),
    SignedPsbt(types::SignedPsbt),
    Descriptors(types::Descriptors),
    Rescan(types::Rescan),
    Peers(Vec<types::Peer>),
    Peer(types::Peer),
    Epoch(types::Epoch),
    EpochCheck(types::EpochCheck),
    EpochInput(EpochInput),
    EpochFile(EpochFile),
    BackupRecords(BackupRecords),
    Done(Done),
}

/// A call on its way to the event loop.
#[derive(Debug)]
pub struct Request {
    pub call: Call,
    /// Where the answer goes. Nobody listens any more if the client gave up.
    pub answer: oneshot::Sender<Result<Answer, ApiError>>,
}

/// The API's end of the channel. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ApiHandle {
    calls: mpsc::Sender<Request>,
}

impl ApiHandle {
    /// Both ends: the event loop keeps the receiver.
    #[must_use]
    pub fn channel() -> (Self, mpsc::Receiver<Request>) {
        let (calls, receiver) = mpsc::channel(CALL_QUEUE);
        (Self { calls }, receiver)
    }

    /// Asks and waits for the answer.
    ///
    /// # Errors
    /// What the event loop refused; `api.busy`, `api.stopping` or `api.timeout` if it did
    /// not answer.
    pub async fn call<T>(&self, call: Call) -> Result<T, ApiError>
    where
        T: TryFrom<Answer, Error = ApiError>,
    {
        let (answer, waiting) = oneshot::channel();
        self.calls.try_send(Request { call, answer }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                ApiError::new(reason!("api.busy"), "too many calls wait for the node")
            }
            mpsc::error::TrySendError::Closed(_) => stopping(),
        })?;
        match tokio::time::timeout(CALL_TIMEOUT, waiting).await {
            Ok(Ok(answer)) => T::try_from(answer?),
            Ok(Err(_)) => Err(stopping()),
            Err(_) => Err(ApiError::new(reason!("api.timeout"), "the node did not answer in time")),
        }
    }

    /// Reads.
    ///
    /// # Errors
    /// As [`ApiHandle::call`].
    pub async fn query<T>(&self, query: Query) -> Result<T, ApiError>
    where
        T: TryFrom<Answer, Error = ApiError>,
    {
        self.call(Call::Query(query)).await
    }

    /// Asks the engine.
    ///
    /// # Errors
    /// As [`ApiHandle::call`].
    pub async fn command(&self, command: impl Into<Command>) -> Result<Done, ApiError> {
        self.call(Call::Command(command.into())).await
    }

    /// Asks the shell.
    ///
    /// # Errors
    /// As [`ApiHandle::call`].
    pub async fn shell<T>(&self, command: ShellCommand) -> Result<T, ApiError>
    where
        T: TryFrom<Answer, Error = ApiError>,
    {
        self.call(Call::Shell(command)).await
    }
}

fn stopping() -> ApiError {
    ApiError::new(reason!("api.stopping"), "the node is stopping")
}
