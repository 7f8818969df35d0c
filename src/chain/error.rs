//! Why a chain source did not answer, or a transaction was refused.

use thiserror::Error;

/// Longest text of a remote error that is kept, in characters.
const MAX_MESSAGE_CHARS: usize = 300;

/// A failed call to a chain source.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ChainError {
    /// No connection, a timeout, or an overloaded server.
    #[error("chain source unreachable: {0}")]
    Unreachable(String),
    /// The server does not accept our cookie, or the cookie cannot be read.
    #[error("no access to the chain source: {0}")]
    Unauthorized(String),
    /// The server is starting and answers nothing yet.
    #[error("chain source is warming up: {0}")]
    WarmingUp(String),
    /// The transaction was refused.
    #[error("transaction refused: {message}")]
    Rejected {
        /// What kind of refusal this is.
        kind: RejectKind,
        /// The node's own words.
        message: String,
    },
    /// The server follows another network than this node.
    #[error("chain source follows {got}, not {expected}")]
    WrongNetwork { expected: String, got: String },
    /// The server answered a call with an error of its own.
    #[error("chain source error {code}: {message}")]
    Rpc {
        /// Bitcoin Core's error code (`src/rpc/protocol.h`).
        code: i32,
        /// The server's words.
        message: String,
    },
    /// A block that is needed is not kept any more.
    #[error("the chain source has pruned a block that this wallet has not read yet")]
    Pruned,
    /// The answer is not what the call promises.
    #[error("chain source answered nonsense: {0}")]
    Malformed(String),
}

impl ChainError {
    /// A refusal in the node's words, which are bounded and stripped of control
    /// characters here because they end on terminals and pages.
    pub fn rejected(message: &str) -> Self {
        Self::Rejected { kind: RejectKind::of(message), message: clean(message) }
    }

    /// Whether a transaction may be on its way although handing it over ended like this. A server
    /// that answers with an error of its own has not taken it.
    pub fn may_have_sent(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Malformed(_) => true,
            Self::Unauthorized(_)
            | Self::WarmingUp(_)
            | Self::Rejected { .. }
            | Self::WrongNetwork { .. }
            | Self::Rpc { .. }
            | Self::Pruned => false,
        }
    }

    /// The stable reason code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "chain.unreachable",
            Self::Unauthorized(_) => "chain.unauthorised",
            Self::WarmingUp(_) => "chain.warming_up",
            Self::Rejected { kind, .. } => kind.code(),
            Self::WrongNetwork { .. } => "chain.wrong_network",
            Self::Rpc { .. } => "chain.rpc",
            Self::Pruned => "chain.pruned",
            Self::Malformed(_) => "chain.malformed",
        }
    }
}

/// The kinds of refusal that a caller treats differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RejectKind {
    /// An input is unknown or already spent; Core does not tell which.
    MissingInputs,
    /// nLockTime is not reached.
    NonFinal,
    /// A BIP-68 relative lock is not reached.
    NonBip68Final,
    /// A coinbase output is not 100 deep.
    ImmatureCoinbase,
    /// A script or signature is wrong.
    Script,
    /// The feerate is under the relay minimum.
    FeeTooLow,
    /// A replacement pays too little more than what it replaces.
    ReplacementFee,
    /// It conflicts with the mempool and may not replace.
    Conflict,
    /// It pays more than the caller's own maximum.
    FeeTooHigh,
    /// An output is too small to be worth spending.
    Dust,
    /// The mempool has no room, or the chain of unconfirmed ancestors is too long.
    MempoolFull,
    /// Valid, but not relayed.
    NonStandard,
    Invalid,
    /// Words this table does not know.
    Other,
}

/// Core's reasons by prefix (`src/validation.cpp`, `src/policy/`, `src/consensus/`).
const REASONS: &[(&str, RejectKind)] = &[
    ("bad-txns-inputs-missingorspent", RejectKind::MissingInputs),
    ("missing-inputs", RejectKind::MissingInputs),
    ("missingorspent", RejectKind::MissingInputs),
    ("non-final", RejectKind::NonFinal),
    ("bad-txns-nonfinal", RejectKind::NonFinal),
    ("non-BIP68-final", RejectKind::NonBip68Final),
    ("bad-txns-premature-spend-of-coinbase", RejectKind::ImmatureCoinbase),
    ("mandatory-script-verify-flag-failed", RejectKind::Script),
    ("non-mandatory-script-verify-flag", RejectKind::Script),
    ("mempool-script-verify-flag-failed", RejectKind::Script),
    ("min relay fee not met", RejectKind::FeeTooLow),
    ("mempool min fee not met", RejectKind::FeeTooLow),
    ("insufficient fee", RejectKind::ReplacementFee),
    ("replacement-failed", RejectKind::ReplacementFee),
    ("txn-mempool-conflict", RejectKind::Conflict),
    ("too many potential replacements", RejectKind::Conflict),
    ("replacement-adds-unconfirmed", RejectKind::Conflict),
    ("bad-txns-spends-conflicting-tx", RejectKind::Conflict),
    ("max-fee-exceeded", RejectKind::FeeTooHigh),
    ("Fee exceeds maximum", RejectKind::FeeTooHigh),
    ("dust", RejectKind::Dust),
    ("mempool full", RejectKind::MempoolFull),
    ("too-long-mempool-chain", RejectKind::MempoolFull),
    ("too-large-cluster", RejectKind::MempoolFull),
    ("bad-txns-nonstandard", RejectKind::NonStandard),
    ("bad-witness-nonstandard", RejectKind::NonStandard),
    ("version", RejectKind::NonStandard),
    ("tx-size", RejectKind::NonStandard),
    ("scriptpubkey", RejectKind::NonStandard),
    ("scriptsig", RejectKind::NonStandard),
    ("multi-op-return", RejectKind::NonStandard),
    ("bad-txns-", RejectKind::Invalid),
    ("coinbase", RejectKind::Invalid),
];

impl RejectKind {
    /// The kind of a refusal from its first words, as Core says them.
    pub fn of(message: &str) -> Self {
        REASONS
            .iter()
            .find(|(prefix, _)| message.starts_with(prefix))
            .map_or(Self::Other, |(_, kind)| *kind)
    }

    /// The stable reason code.
    pub fn code(self) -> &'static str {
        match self {
            Self::MissingInputs => "chain.reject.missing_inputs",
            Self::NonFinal => "chain.reject.non_final",
            Self::NonBip68Final => "chain.reject.non_bip68_final",
            Self::ImmatureCoinbase => "chain.reject.immature_coinbase",
            Self::Script => "chain.reject.script",
            Self::FeeTooLow => "chain.reject.fee_too_low",
            Self::ReplacementFee => "chain.reject.replacement_fee",
            Self::Conflict => "chain.reject.conflict",
            Self::FeeTooHigh => "chain.reject.fee_too_high",
            Self::Dust => "chain.reject.dust",
            Self::MempoolFull => "chain.reject.mempool_full",
            Self::NonStandard => "chain.reject.non_standard",
            Self::Invalid => "chain.reject.invalid",
            Self::Other => "chain.reject.other",
        }
    }
}

/// Remote text made fit to show.
pub(super) fn clean(text: &str) -> String {
    text.chars().take(MAX_MESSAGE_CHARS).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_classified_by_cores_first_words() {
        let table = [
            ("bad-txns-inputs-missingorspent", "chain.reject.missing_inputs"),
            ("non-final", "chain.reject.non_final"),
            ("non-BIP68-final", "chain.reject.non_bip68_final"),
            (
                "mandatory-script-verify-flag-failed (Invalid Schnorr signature)",
                "chain.reject.script",
            ),
            ("min relay fee not met, 0 < 110", "chain.reject.fee_too_low"),
            ("insufficient fee, rejecting replacement 00", "chain.reject.replacement_fee"),
            ("dust, tx with dust output must be 0-fee", "chain.reject.dust"),
            ("bad-txns-in-belowout, value in (1) < value out (2)", "chain.reject.invalid"),
            ("something new", "chain.reject.other"),
        ];
        for (words, code) in table {
            assert_eq!(ChainError::rejected(words).code(), code, "{words}");
        }
    }

    /// A server that has taken a transaction and died before its answer looks like one that
    /// was never reached.
    #[test]
    fn only_an_answer_says_that_a_transaction_was_not_sent() {
        let text = String::new;
        for (error, expected) in [
            (ChainError::Unreachable(text()), true),
            (ChainError::Malformed(text()), true),
            (ChainError::rejected("dust"), false),
            (ChainError::Rpc { code: -22, message: text() }, false),
            (ChainError::Unauthorized(text()), false),
            (ChainError::WarmingUp(text()), false),
        ] {
            assert_eq!(error.may_have_sent(), expected, "{error:?}");
        }
    }

    #[test]
    fn remote_words_are_bounded_and_printable() {
        let ChainError::Rejected { message, .. } =
            ChainError::rejected(&format!("dust\u{1b}[2J{}", "x".repeat(1_000)))
        else {
            unreachable!("rejected() builds Rejected");
        };
        assert!(message.starts_with("dust [2J"));
        assert_eq!(message.chars().count(), MAX_MESSAGE_CHARS);
    }
}
