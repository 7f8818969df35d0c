//! What each party checks before it signs: everything is recomputed, nothing is believed.

use bitcoin::secp256k1::{Secp256k1, Verification};
use serde::{Deserialize, Serialize};

use super::objects::{Accept, Funder, LockGrant, Row, Terms};
use super::script::{Contract, ScriptError, TEMPLATE};
use super::timelock::{Timelocks, lead_suffices, tips_agree};
use crate::certificate::objects::{Activation, Issue, Payment};
use crate::ids::{Key, TermsHash, TradeId};
use crate::params::Params;
use crate::units::TimeMs;
use crate::wire::{Envelope, Verified, WireError};

/// Longest payout script, bytes: any segwit program of today.
pub const PAYOUT_SPK_MAX_BYTES: usize = 42;

/// Why a party does not sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// Form or signature.
    #[error("{0}")]
    Wire(#[from] WireError),
    /// No address follows from the terms.
    #[error("{0}")]
    Script(#[from] ScriptError),
    /// Names another trade, price, class, window or number of units than the row.
    #[error("terms differ from the matched row")]
    Row,
    /// Names another seller, holder or funder than agreed.
    #[error("terms name other parties")]
    Party,
    /// The Issue is not the one that this row needs.
    #[error("the certificate does not fit the row")]
    Issue,
    /// Heights differ from the network's profile of this price.
    #[error("timelocks differ from the network's profile")]
    Timelock,
    /// The parties' chain tips are too far apart.
    #[error("chain tips differ too much")]
    Tips,
    /// A refund might come after the start of delivery.
    #[error("the delivery window starts before a refund would be possible")]
    Lead,
    /// Payout script that is empty or too long.
    #[error("payout script is unusable")]
    Payout,
    /// A consent that is not for these terms, by this funder, until this time.
    #[error("consent does not fit the terms")]
    Accept,
    /// A lock that is not for these terms.
    #[error("lock does not fit the terms")]
    Lock,
    /// An Activation that does not follow from the sale.
    #[error("activation does not follow from the sale")]
    Activation,
}

impl CheckError {
    /// Stable reason code.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Wire(error) => error.code(),
            Self::Script(error) => error.code(),
            Self::Row => "terms.not_the_row",
            Self::Party => "terms.wrong_party",
            Self::Issue => "terms.wrong_issue",
            Self::Timelock => "terms.wrong_timelock",
            Self::Tips => "terms.tips_differ",
            Self::Lead => "terms.window_too_near",
            Self::Payout => "terms.payout",
            Self::Accept => "accept.does_not_fit",
            Self::Lock => "lock.does_not_fit",
            Self::Activation => "activation.does_not_fit",
        }
    }
}

fn ensure(ok: bool, error: CheckError) -> Result<(), CheckError> {
    if ok { Ok(()) } else { Err(error) }
}

/// Terms and Issue of a primary sale, checked and kept as signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Stored", into = "Stored")]
pub struct Agreement {
    /// Signed Issue.
    pub issue: Envelope,
    /// Signed Terms.
    pub signed: Envelope,
    /// The terms inside.
    pub terms: Terms,
    /// Feature bits of the Issue.
    pub features: u64,
    /// Object id of the terms.
    pub hash: TermsHash,
}

/// What a record keeps: the payloads are decoded again.
#[derive(Serialize, Deserialize)]
struct Stored {
    issue: Envelope,
    signed: Envelope,
    hash: TermsHash,
}

impl From<Agreement> for Stored {
    fn from(full: Agreement) -> Self {
        Self { issue: full.issue, signed: full.signed, hash: full.hash }
    }
}

impl TryFrom<Stored> for Agreement {
    type Error = WireError;
    fn try_from(stored: Stored) -> Result<Self, WireError> {
        let terms = stored.signed.peek::<Terms>()?;
        let features = stored.issue.peek::<Issue>()?.features;
        Ok(Self { terms, features, issue: stored.issue, signed: stored.signed, hash: stored.hash })
    }
}

impl Agreement {
    /// Of objects that have been verified.
    #[must_use]
    pub fn new(issue: &Verified<Issue>, terms: &Verified<Terms>) -> Self {
        Self {
            issue: issue.envelope().clone(),
            signed: terms.envelope().clone(),
            terms: (**terms).clone(),
            features: issue.features,
            hash: TermsHash(terms.id()),
        }
    }
}

/// When a party checks, by its clock and by its chain.
#[derive(Debug, Clone, Copy)]
pub struct Now<'a> {
    /// Unix ms.
    pub ms: TimeMs,
    /// Own chain tip.
    pub tip: u32,
    /// Network definition.
    pub params: &'a Params,
}

/// What a buyer agreed to by its order and request.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// Object id of the row.
    pub trade: TradeId,
    /// The row.
    pub row: &'a Row,
    /// Owner of the ask, and of the capacity.
    pub provider: Key,
    /// Holder after the sale.
    pub to: Key,
    /// Who pays.
    pub funders: &'a [Funder],
    /// Feature bits that the bid required.
    pub features: u64,
}

/// A buyer checks the seller's answer.
///
/// # Errors
/// The first [`CheckError`] found.
pub fn agreement<C: Verification>(
    secp: &Secp256k1<C>,
    now: Now<'_>,
    expected: Expected<'_>,
    issue: &Envelope,
    terms: &Envelope,
) -> Result<Agreement, CheckError> {
    let issue = issue.verify::<Issue>(now.params.magic)?;
    let terms = terms.verify::<Terms>(now.params.magic)?;
    check_issue(now.params, expected, &issue)?;
    check_row(expected, &issue, &terms)?;
    check_timelocks(now, &terms)?;
    let length = terms.payout_spk.len();
    ensure((1..=PAYOUT_SPK_MAX_BYTES).contains(&length), CheckError::Payout)?;
    Contract::new(secp, &terms, TermsHash(terms.id()), 0)?;
    Ok(Agreement::new(&issue, &terms))
}

fn check_issue(params: &Params, expected: Expected<'_>, issue: &Issue) -> Result<(), CheckError> {
    let row = expected.row;
    let floor = params.class(row.class).map_or(0, |class| class.floors.features);
    let needed = expected.features | floor;
    let fits = issue.provider == expected.provider
        && issue.class == row.class
        && Some(issue.class_hash) == params.class_hash(row.class)
        && issue.features & needed == needed
        && issue.units.is_canonical()
        && issue.units.count() == row.qty
        && issue.window == row.window()
        && issue.pay == Payment::Prepaid
        && issue.not_after_slot >= issue.window.start;
    ensure(fits, CheckError::Issue)
}

fn check_row(
    expected: Expected<'_>,
    issue: &Verified<Issue>,
    terms: &Terms,
) -> Result<(), CheckError> {
    let row = expected.row;
    let paid = terms.funders.iter().map(|funder| funder.amount_sat);
    let fits = terms.trade_id == expected.trade
        && terms.class == row.class
        && terms.window == row.window()
        && terms.units == issue.units
        && terms.price_sat == row.price_sat()
        && paid.fold(0_u64, u64::saturating_add) == terms.price_sat;
    ensure(fits, CheckError::Row)?;
    let first = terms.cert_id.0 == issue.id() && terms.seq == 0 && terms.prev_hash == issue.id();
    ensure(first, CheckError::Issue)?;
    let parties = terms.from == expected.provider
        && terms.to == expected.to
        && terms.funders == expected.funders;
    ensure(parties, CheckError::Party)
}

fn check_timelocks(now: Now<'_>, terms: &Terms) -> Result<(), CheckError> {
    let heights = Timelocks::of(terms, now.params);
    let fits = terms.template == TEMPLATE
        && terms.fund_by == heights.fund_by
        && terms.refund_at == heights.refund_at
        && terms.funding_confirmations == heights.funding_confirmations;
    ensure(fits, CheckError::Timelock)?;
    ensure(tips_agree(now.params, now.tip, terms.t0), CheckError::Tips)?;
    reach(now, terms)
}

/// What every party checks again at each signature before the funding: it can still confirm
/// in time, and a refund is possible before delivery starts.
///
/// # Errors
/// [`CheckError::Tips`], [`CheckError::Lead`].
pub fn reach(now: Now<'_>, terms: &Terms) -> Result<(), CheckError> {
    // The own tip may lag as far as tips may differ, and move on to where the buyer would
    // replace its funding.
    let heights = Timelocks::of(terms, now.params);
    let from = heights.t0.saturating_sub(now.params.chain.tip_tolerance_blocks);
    ensure((from..heights.cancel_at()).contains(&now.tip), CheckError::Tips)?;
    let enough = lead_suffices(now.params, now.ms, now.tip, terms.refund_at, terms.window);
    ensure(enough, CheckError::Lead)
}

/// A provider checks a funder's consent. `latest_ms` bounds how long a lock may wait.
///
/// # Errors
/// The signature, or [`CheckError::Accept`].
pub fn accept(
    params: &Params,
    agreement: &Agreement,
    funder: usize,
    latest_ms: TimeMs,
    signed: &Envelope,
) -> Result<Verified<Accept>, CheckError> {
    let accept = signed.verify::<Accept>(params.magic)?;
    let funder = agreement.terms.funders.get(funder).ok_or(CheckError::Accept)?;
    let heights = Timelocks::of(&agreement.terms, params);
    let fits = accept.key() == funder.key.0
        && accept.terms_hash == agreement.hash
        && accept.release_at_height == heights.release_at()
        && accept.release_at_ms <= latest_ms;
    ensure(fits, CheckError::Accept)?;
    Ok(accept)
}

/// A buyer checks the provider's lock; returns its attempt.
///
/// # Errors
/// The signature, or [`CheckError::Lock`].
pub fn lock(now: Now<'_>, agreement: &Agreement, signed: &Envelope) -> Result<u32, CheckError> {
    let lock = signed.verify::<LockGrant>(now.params.magic)?;
    let terms = &agreement.terms;
    let fits = lock.provider == terms.from
        && lock.cert_id == terms.cert_id
        && lock.seq == terms.seq
        && lock.terms_hash == agreement.hash
        && lock.fund_by == terms.fund_by
        && lock.refund_at == terms.refund_at
        && (lock.attempt == 0) == (lock.prev_release == [0; 32]);
    ensure(fits, CheckError::Lock)?;
    ensure(tips_agree(now.params, now.tip, lock.p_height), CheckError::Tips)?;
    Ok(lock.attempt)
}

/// A buyer checks that the certificate moved as paid for.
///
/// # Errors
/// The signature, or [`CheckError::Activation`].
pub fn activation(
    params: &Params,
    agreement: &Agreement,
    attempt: u32,
    signed: &Envelope,
) -> Result<(), CheckError> {
    let got = signed.verify::<Activation>(params.magic)?;
    let terms = &agreement.terms;
    let fits = got.provider == terms.from
        && got.cert_id == terms.cert_id
        && got.seq == terms.seq.saturating_add(1)
        && got.attempt == attempt
        && got.holder == terms.to
        && got.class == terms.class
        && got.features == agreement.features
        && got.units == terms.units
        && got.window == terms.window
        && got.prev_hash == terms.prev_hash
        && got.cause_hash == agreement.hash.0;
    ensure(fits, CheckError::Activation)
}
