//! Verdicts on what peers send follow from the table of reasons.

use capex_core::admission::AdmissionError;
use capex_core::certificate::equivocation::ProofError;
use capex_core::reasons::{Blame, Reason};
use capex_core::wire::WireError;

/// What bytes alone prove is the sender's fault. A version that this release does not know may
/// be right: such a message is ignored, and its sender keeps its standing.
#[test]
fn senders_are_to_blame_for_their_bytes_but_not_for_a_newer_version() {
    let wire = [
        WireError::Oversize,
        WireError::Malformed,
        WireError::NotCanonical,
        WireError::WeakKey,
        WireError::BadSignature,
        WireError::WrongSigner,
    ];
    let admission = [
        AdmissionError::Work,
        AdmissionError::Oversize,
        AdmissionError::Quantity,
        AdmissionError::Alternatives,
        AdmissionError::UnknownClass,
        AdmissionError::Limit,
        AdmissionError::Run,
        AdmissionError::Window,
        AdmissionError::Counterparties,
        AdmissionError::Resale,
    ];
    let proof = [ProofError::Compatible, ProofError::Order];
    let blamed = wire.map(WireError::reason).into_iter();
    let blamed = blamed.chain(admission.map(AdmissionError::reason));
    for reason in blamed.chain(proof.map(ProofError::reason)) {
        assert_eq!(reason.blame(), Blame::Peer, "{reason}");
    }
    let newer = WireError::UnknownVersion;
    for reason in [newer.reason(), AdmissionError::from(newer).reason()] {
        assert_eq!(reason.blame(), Blame::Nobody, "{reason}");
    }
    assert!(!newer.is_blamable());
}

#[test]
fn what_depends_on_time_or_place_blames_nobody() {
    let local = ["order.duplicate", "order.stale_epoch", "order.quota", "root.not_a_trader"];
    for code in local.into_iter().chain(["lock.known", "proof.known", "contact.stale"]) {
        assert_eq!(Reason::find(code).map(Reason::blame), Some(Blame::Nobody), "{code}");
    }
}

#[test]
fn key_aggregation_fails_by_its_codes() {
    use capex_core::settlement::keyagg::KeyAggError::{Empty, Infinity, Scalar};
    let codes = [Empty, Scalar, Infinity].map(|error| error.code());
    assert_eq!(codes, ["keyagg.empty", "keyagg.scalar", "keyagg.infinity"]);
}
