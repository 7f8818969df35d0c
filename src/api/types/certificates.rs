use serde::{Deserialize, Serialize};

use super::{SlotRange, UnitRanges};

/// How a certificate changed hands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TransferKind {
    Sale,
    Gift,
}

/// One change of holder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateTransfer {
    pub kind: TransferKind,
    pub from: String,
    pub to: String,
}

/// A certificate that this node issued, holds or held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    pub cert_id: String,
    pub provider: String,
    pub class: String,
    pub window: SlotRange,
    /// Unit numbers at the provider.
    pub units: UnitRanges,
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
    pub lease_id: Option<String>,
}

/// Body of `POST /api/v1/certificates/{id}/gift`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GiftTo {
    pub to: String,
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
    pub lease_id: String,
}
