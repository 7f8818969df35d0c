//! The document that `--json` prints: what the nodes said, and nothing else.

use serde::Serialize;

use super::plan::Role;
use crate::api::types::{CertificateTransfer, SlotRange, UnitRanges};

/// Version of the document.
const SCHEMA: &str = "capex.devnet/1";

/// A whole run.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Document {
    schema: &'static str,
    /// What decided everything.
    seed: u64,
    network: &'static str,
    chain: &'static str,
    /// From start to summary, s.
    pub(super) elapsed_s: String,
    /// Whether everything came about.
    pub(super) ok: bool,
    /// What did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<ErrorPart>,
    /// Each by its own `status`.
    pub(super) nodes: Vec<NodePart>,
    /// The epoch of the first trades, as each node computed it.
    pub(super) epoch: Option<EpochPart>,
    /// The epoch of the resale.
    pub(super) resale_epoch: Option<EpochPart>,
    /// What was sold.
    pub(super) trades: Vec<TradePart>,
    /// What is held in the end, as its holders have it, with every transfer.
    pub(super) certificates: Vec<CertificatePart>,
    /// What ran.
    pub(super) leases: Vec<LeasePart>,
    /// The container, if one was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) container: Option<ContainerPart>,
    /// What was asked for and must not be granted.
    pub(super) refusals: Vec<RefusalPart>,
    /// Wallets before the first trade and after the last.
    pub(super) balances: Vec<BalancePart>,
    /// Fees of all fundings and claims, sat.
    pub(super) fees_paid_sat: u64,
}

impl Document {
    /// Nothing has happened yet.
    pub(super) fn new(seed: u64, chain: &'static str) -> Self {
        Self {
            schema: SCHEMA,
            seed,
            network: crate::definitions::DEVNET,
            chain,
            elapsed_s: String::new(),
            ok: false,
            error: None,
            nodes: Vec::new(),
            epoch: None,
            resale_epoch: None,
            trades: Vec::new(),
            certificates: Vec::new(),
            leases: Vec::new(),
            container: None,
            refusals: Vec::new(),
            balances: Vec::new(),
            fees_paid_sat: 0,
        }
    }
}

/// Why a run failed.
#[derive(Debug, Clone, Serialize)]
pub(super) struct ErrorPart {
    /// Stable dotted code.
    pub(super) code: String,
    /// One line for people.
    pub(super) message: String,
    /// Child whose log is shown.
    pub(super) whose: Option<String>,
}

/// A node.
#[derive(Debug, Clone, Serialize)]
pub(super) struct NodePart {
    pub(super) name: &'static str,
    pub(super) role: Role,
    pub(super) key: String,
    pub(super) api: String,
    pub(super) datadir: String,
    pub(super) peers: u32,
    pub(super) orders_seen: u64,
}

/// An epoch.
#[derive(Debug, Clone, Serialize)]
pub(super) struct EpochPart {
    pub(super) epoch: u64,
    pub(super) roots: Vec<RootPart>,
    /// Whether all roots and all results are equal.
    pub(super) agreed: bool,
}

/// What one node computed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct RootPart {
    pub(super) node: &'static str,
    pub(super) root: String,
    pub(super) count: u32,
    pub(super) result_root: String,
}

/// A trade. Buyer and seller agree on every field of the row.
#[derive(Debug, Clone, Serialize)]
pub(super) struct TradePart {
    pub(super) trade_id: String,
    pub(super) epoch: u64,
    pub(super) cert_id: String,
    pub(super) class: String,
    pub(super) window: SlotRange,
    pub(super) qty: u32,
    pub(super) price_msat: u64,
    pub(super) price_sat: u64,
    /// Who bid.
    pub(super) buyer: String,
    /// For whom.
    pub(super) holder: String,
    pub(super) seller: String,
    /// Whose capacity it is: the seller, but where a holder sells on.
    pub(super) provider: String,
    pub(super) buy_order: String,
    pub(super) sell_order: String,
    pub(super) settlement: SettlementPart,
    /// Fees of all that the seller claimed, one contract or several, sat. By its own node.
    pub(super) seller_fees_sat: u64,
    /// Who paid, where several did.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) funders: Vec<FunderPart>,
}

/// Who paid a part, into a contract of its own.
#[derive(Debug, Clone, Serialize)]
pub(super) struct FunderPart {
    pub(super) key: String,
    /// The most that it had to pay.
    pub(super) pledged_sat: u64,
    /// By its own node.
    pub(super) fund: TxPart,
}

/// How it was paid.
#[derive(Debug, Clone, Serialize)]
pub(super) struct SettlementPart {
    pub(super) terms_hash: String,
    pub(super) address: String,
    /// By the buyer's node: it knows its inputs.
    pub(super) fund: TxPart,
    /// By the seller's node.
    pub(super) claim: TxPart,
    /// By the seller's node: whether it spent with the buyer's key.
    pub(super) by_key: bool,
    /// By the buyer's node, which read it from the chain or had it from the seller.
    pub(super) preimage: String,
    /// By the seller's node.
    pub(super) state: String,
}

/// A confirmed transaction.
#[derive(Debug, Clone, Serialize)]
pub(super) struct TxPart {
    pub(super) txid: String,
    pub(super) height: u32,
    pub(super) vsize: u64,
    pub(super) fee_sat: u64,
}

/// A certificate.
#[derive(Debug, Clone, Serialize)]
pub(super) struct CertificatePart {
    pub(super) cert_id: String,
    pub(super) provider: String,
    pub(super) class: String,
    pub(super) window: SlotRange,
    pub(super) units: UnitRanges,
    pub(super) holder: String,
    pub(super) seq: u32,
    pub(super) transfers: Vec<CertificateTransfer>,
    /// Names of the nodes for whose network the exported file was verified offline.
    pub(super) verified_by: Vec<&'static str>,
}

/// A lease.
#[derive(Debug, Clone, Serialize)]
pub(super) struct LeasePart {
    pub(super) lease_id: String,
    pub(super) cert_id: String,
    pub(super) holder: String,
    pub(super) provider: String,
    pub(super) backend: String,
    pub(super) exit_code: Option<i32>,
    /// By the holder's node.
    pub(super) stdout: String,
    /// By the holder's node.
    pub(super) stderr: String,
    /// By the holder's node.
    pub(super) result: ResultPart,
    pub(super) started_at: Option<u64>,
    pub(super) ended_at: Option<u64>,
    pub(super) delivered_s: String,
    pub(super) cpu_us: u64,
    pub(super) memory_peak_bytes: u64,
    pub(super) receipts: u32,
    pub(super) countersigned: bool,
    /// By the provider's node.
    pub(super) left_behind: Vec<String>,
}

/// A result file as the holder has it.
#[derive(Debug, Clone, Serialize)]
pub(super) struct ResultPart {
    pub(super) name: &'static str,
    pub(super) sha256: String,
    /// Equal to what the same work gives in this process.
    pub(super) matches_expected: bool,
}

/// A container, or why there was none.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct ContainerPart {
    pub(super) ran: bool,
    /// What this machine lacks.
    pub(super) why_not: Option<String>,
    pub(super) trade: Option<TradePart>,
    pub(super) lease: Option<ContainerLease>,
    pub(super) entry: Option<EntryPart>,
    pub(super) file: Option<FilePart>,
}

/// Its lease, by the provider's node.
#[derive(Debug, Clone, Serialize)]
pub(super) struct ContainerLease {
    pub(super) lease_id: String,
    pub(super) cert_id: String,
    pub(super) holder: String,
    pub(super) provider: String,
    pub(super) backend: String,
    pub(super) outcome: Option<String>,
    pub(super) started_at: Option<u64>,
    pub(super) ended_at: Option<u64>,
    pub(super) window: SlotRange,
    pub(super) delivered_s: String,
    pub(super) receipts: u32,
    pub(super) countersigned: bool,
    pub(super) left_behind: Vec<String>,
}

/// A program that its holder ran in it.
#[derive(Debug, Clone, Serialize)]
pub(super) struct EntryPart {
    pub(super) command: Vec<String>,
    pub(super) stdout: String,
}

/// A file that its holder got out of it.
#[derive(Debug, Clone, Serialize)]
pub(super) struct FilePart {
    pub(super) path: &'static str,
    pub(super) bytes: u64,
    pub(super) sha256: String,
    /// Equal to what the same work gives in this process.
    pub(super) matches_expected: bool,
}

/// A refusal that had to come.
#[derive(Debug, Clone, Serialize)]
pub(super) struct RefusalPart {
    pub(super) what: &'static str,
    /// Key of who was refused.
    pub(super) by: String,
    pub(super) cert_id: String,
    pub(super) code: String,
}

/// A wallet: confirmed and pending coins.
#[derive(Debug, Clone, Serialize)]
pub(super) struct BalancePart {
    pub(super) node: &'static str,
    pub(super) before_sat: u64,
    pub(super) after_sat: u64,
}
