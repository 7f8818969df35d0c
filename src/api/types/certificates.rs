use serde::{Deserialize, Serialize};

use super::{SlotRange, UnitRanges};

/// How a certificate changed hands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TransferKind {
    /// Against payment.
    Sale,
    /// Free.
    Gift,
}

/// One change of holder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateTransfer {
    /// How.
    pub kind: TransferKind,
    /// Holder before.
    pub from: String,
    /// Holder after.
    pub to: String,
}

/// A certificate that this node issued, holds or held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// Object id of its Issue.
    pub cert_id: String,
    /// Whose capacity.
    pub provider: String,
    /// Class name.
    pub class: String,
    /// Delivery window, slots.
    pub window: SlotRange,
    /// Unit numbers at the provider.
    pub units: UnitRanges,
    /// Feature names.
    pub features: Vec<String>,
    /// Holder after the last transfer known here.
    pub holder: String,
    /// Transfers so far: 1 after the first sale.
    pub seq: u32,
    /// Every change of holder, oldest first.
    pub transfers: Vec<CertificateTransfer>,
    /// `issued`, `held`, `given`, `sold`, `redeemed` or `expired`, seen from this node.
    pub state: String,
    /// The provider's chain height at the last transfer; null before the first.
    pub p_height: Option<u32>,
    /// The lease, once redeemed.
    pub lease_id: Option<String>,
}

/// Body of `POST /api/v1/certificates/{id}/gift`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GiftTo {
    /// Key of the next holder.
    pub to: String,
}

/// Answer to a gift.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gifted {
    /// The certificate.
    pub cert_id: String,
    /// Next holder.
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

/// Body of `POST /api/v1/certificates/{id}/redeem`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedeemBody {
    /// WASI 0.2 command component, base64 with padding.
    pub component_base64: String,
    /// Arguments.
    #[serde(default)]
    pub args: Vec<String>,
    /// Input files, at most 16.
    #[serde(default)]
    pub inputs: Vec<FileBody>,
    /// Names of files to keep as results.
    #[serde(default)]
    pub results: Vec<String>,
}

/// Answer to a redemption.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redeemed {
    /// The certificate, now consumed.
    pub cert_id: String,
    /// The lease.
    pub lease_id: String,
}
