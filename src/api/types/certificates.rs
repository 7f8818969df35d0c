use serde::{Deserialize, Serialize};

use super::{SlotRange, UnitRanges, slot_range, unit_ranges};
use capex_core::certificate::verify::{self, TransferFact};
use capex_core::certificate::{self, Origin, VerifiedCertificate, origins};
use capex_core::ids::Key;

/// How a certificate changed hands, or came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TransferKind {
    /// By the provider.
    Sale,
    /// By a holder.
    Resale,
    Gift,
    /// A part of a certificate of the same holder.
    Split,
    /// Made of certificates of the same holder.
    Merge,
    /// Taken back from its holder, or given to another, by who paid for it.
    Recall,
}

/// One hop of a certificate's history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateTransfer {
    pub kind: TransferKind,
    pub from: String,
    pub to: String,
    /// The certificate that moved, or came to be.
    pub cert_id: String,
    /// Its sequence number after the hop.
    pub seq: u32,
    /// The certificates that the hop consumed: itself, if it only moved.
    pub consumed: Vec<String>,
    /// Units after the hop.
    pub units: UnitRanges,
    /// Slots after the hop.
    pub window: SlotRange,
}

impl CertificateTransfer {
    /// Every hop of a verified certificate.
    #[must_use]
    pub fn all(certificate: &certificate::Certificate, facts: &VerifiedCertificate) -> Vec<Self> {
        let origins = origins(certificate, &facts.transfers);
        let hops = facts.transfers.iter().zip(&origins);
        hops.map(|(fact, origin)| Self::of(fact, origin, facts.provider)).collect()
    }

    fn of(fact: &TransferFact, origin: &Origin, provider: Key) -> Self {
        let kind = match fact.kind {
            verify::TransferKind::Sale if fact.from == provider => TransferKind::Sale,
            verify::TransferKind::Sale => TransferKind::Resale,
            verify::TransferKind::Gift => TransferKind::Gift,
            verify::TransferKind::Split => TransferKind::Split,
            verify::TransferKind::Merge => TransferKind::Merge,
            verify::TransferKind::Recall => TransferKind::Recall,
        };
        Self {
            kind,
            from: fact.from.to_string(),
            to: fact.to.to_string(),
            cert_id: fact.cert_id.to_string(),
            seq: fact.seq,
            consumed: origin.consumed.iter().map(ToString::to_string).collect(),
            units: unit_ranges(&origin.area.units),
            window: slot_range(origin.area.window),
        }
    }
}

/// A certificate that this node issued, holds or held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    pub cert_id: String,
    pub provider: String,
    pub class: String,
    pub window: SlotRange,
    /// Last slot in which a redemption may begin.
    pub not_after_slot: u32,
    /// Unit numbers at the provider.
    pub units: UnitRanges,
    pub features: Vec<String>,
    /// Holder after the last transfer known here.
    pub holder: String,
    /// Who may take it back from its holder until its first slot begins; until then its holder
    /// can only redeem it. Null for nobody.
    #[serde(default)]
    pub recall_by: Option<String>,
    /// Transfers so far: 1 after the first sale.
    pub seq: u32,
    /// Every hop of its history, each after those that it rests on.
    pub transfers: Vec<CertificateTransfer>,
    /// `issued`, `held`, `given`, `recalled`, `sold`, `split`, `merged`, `redeemed` or `expired`, seen from
    /// this node.
    pub state: String,
    /// What this node has signed as its holder, and its provider has still to activate; null if
    /// nothing waits.
    #[serde(default)]
    pub pending: Option<TransferKind>,
    /// The provider's chain height at the last transfer; null before the first.
    pub p_height: Option<u32>,
    pub lease_id: Option<String>,
    /// The standing ask for which it is reserved.
    #[serde(default)]
    pub order_id: Option<String>,
    /// What the best bid of others in the book would pay for it, or for a part of it, msat per
    /// block; null if none fits, or if this node has nothing to sell of it.
    #[serde(default)]
    pub best_bid_msat: Option<u64>,
    /// What came with its purchase and is to run by itself.
    #[serde(default)]
    pub workload: Option<AttachedWorkload>,
}

/// A workload that came with the purchase of a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachedWorkload {
    /// The order that brought the certificate.
    pub order_id: String,
    /// `wasm`, `oci` or `rootfs`.
    pub kind: String,
    /// When the certificate is redeemed with it, unix ms.
    pub redeems_at: u64,
    /// Why that has not succeeded so far; it is tried again until the window ends.
    pub code: Option<String>,
}

/// Body of `POST /api/v1/certificates/{id}/gift`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GiftTo {
    pub to: String,
    /// Give so many units and keep the others; null for all.
    #[serde(default)]
    pub qty: Option<u32>,
    /// Give these slots and keep the others; null for all.
    #[serde(default)]
    pub window: Option<SlotRange>,
}

/// Body of `POST /api/v1/certificates/{id}/split`: what is cut out of it. At least one of both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitOff {
    /// So many units, those with the lowest numbers; null for all.
    #[serde(default)]
    pub qty: Option<u32>,
    /// These slots; null for all.
    #[serde(default)]
    pub window: Option<SlotRange>,
}

/// Answer to a split.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitInto {
    /// The certificate, now consumed.
    pub cert_id: String,
    /// What was cut out, and then what is left: one to three more.
    pub parts: Vec<Certificate>,
}

/// Body of `POST /api/v1/certificates/merge`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MergeCertificates {
    /// Ids, or unique prefixes of them: 2 to 8.
    pub certs: Vec<String>,
}

/// Body of `POST /api/v1/certificates/{id}/fetch`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FetchFrom {
    pub provider: String,
}

/// Body of `POST /api/v1/certificates/import`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportCertificate {
    /// Text of the certificate file.
    pub file: String,
    /// Key of its provider, needed where this node knows nothing of it.
    #[serde(default)]
    pub provider: Option<String>,
}

/// Answer to a gift.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gifted {
    pub cert_id: String,
    pub to: String,
    /// Sequence number after the gift.
    pub seq: u32,
}

/// A named file inside a request body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileBody {
    /// Name in the working directory of the workload.
    pub name: String,
    /// Content, base64 with padding.
    pub base64: String,
}

/// A variable of a workload's environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnvBody {
    pub name: String,
    pub value: String,
}

/// What happens when a workload ends by itself while its window lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// The lease waits for its holder.
    #[default]
    No,
    /// It is run again, unless it exited with 0.
    OnFailure,
    /// It is run again.
    Always,
}

/// Body of `POST /api/v1/certificates/{id}/redeem`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedeemBody {
    /// WASI 0.2 command component, base64 with padding; empty for an image.
    #[serde(default)]
    pub component_base64: String,
    /// Absolute path, on the machine of the node, of an image: a directory with an OCI layout, a
    /// saved image, or an archive of a root file system.
    #[serde(default)]
    pub image: Option<String>,
    /// Instead, an image that the provider has fetched from a registry, as `NAME@sha256:DIGEST`: see
    /// `POST /api/v1/certificates/{id}/pull`.
    #[serde(default)]
    pub pull: Option<String>,
    /// Program and arguments; of a component the arguments alone.
    #[serde(default)]
    pub command: Vec<String>,
    /// Variables of the environment, at most 64.
    #[serde(default)]
    pub env: Vec<EnvBody>,
    /// Variables whose values only the provider can read, and only for this lease; not for a
    /// workload in the place of another one.
    #[serde(default)]
    pub env_sealed: Vec<EnvBody>,
    /// Absolute path; else what the image says.
    #[serde(default)]
    pub workdir: Option<String>,
    /// Input files, at most 16.
    #[serde(default)]
    pub inputs: Vec<FileBody>,
    /// Names of files to keep as results.
    #[serde(default)]
    pub results: Vec<String>,
    /// Ports on which the workload listens, at most 16.
    #[serde(default)]
    pub ports: Vec<u16>,
    /// Whether it may open connections to the outside.
    #[serde(default)]
    pub egress: bool,
    /// Time between stop signal and kill, ms, at most 30,000; 0 for no signal.
    #[serde(default)]
    pub grace_ms: u32,
    /// Number of the stop signal; 0 for what the image says, else SIGTERM.
    #[serde(default)]
    pub stop_signal: u8,
    #[serde(default)]
    pub restart: Restart,
}

/// Body of `POST /api/v1/certificates/{id}/pull`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PullImage {
    /// As `docker.io/library/alpine@sha256:DIGEST`.
    pub image: String,
}

/// How far the provider is that fetches an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pull {
    pub received_bytes: u64,
    /// 0 until it is known.
    pub total_bytes: u64,
    /// All of it is there: the certificate may be redeemed with it.
    pub complete: bool,
}

/// Answer to a redemption.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redeemed {
    /// The certificate, now consumed.
    pub cert_id: String,
    pub lease_id: String,
}
