//! What each party checks before it signs: everything is recomputed, nothing is believed.

use bitcoin::secp256k1::{Secp256k1, Verification};
use serde::{Deserialize, Serialize};

use super::objects::{Accept, Funder, LockGrant, Row, Terms};
use super::rails::Rail;
use super::rails::chain::script::{ScriptError, TEMPLATE};
use super::rails::chain::timelock::{Timelocks, lead_suffices, tips_agree};
use crate::certificate::objects::{Activation, Consumed, Payment, blinded};
use crate::certificate::verify::{Fault, check_terms, verify};
use crate::certificate::{Certificate, VerifiedCertificate};
use crate::ids::{CertId, Key, TermsHash, TradeId};
use crate::limits::FUNDERS_MAX;
use crate::params::Params;
use crate::units::{Slot, TimeMs};
use crate::wire::{Envelope, Verified, WireError};

/// Longest payout script, bytes: any segwit program of today.
pub const PAYOUT_SPK_MAX_BYTES: usize = 42;

/// Of several funders each has this part of the time of its consent left when the lock is granted,
/// one in so many: else whoever gathers the consents could have it so late that one of them cannot
/// pay in time, and is blamed for it.
const FUNDING_TIME_OF_SEVERAL: u64 = 3;

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
    /// Funders whose amounts are not the price, or more than eight.
    #[error("the funders' amounts do not make up the price")]
    Shares,
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
    /// A consent whose time has run out.
    #[error("consent has elapsed")]
    Elapsed,
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
            Self::Shares => "terms.wrong_amount",
            Self::Issue => "terms.wrong_issue",
            Self::Timelock => "terms.wrong_timelock",
            Self::Tips => "terms.tips_differ",
            Self::Lead => "terms.window_too_near",
            Self::Payout => "terms.payout",
            Self::Accept => "accept.does_not_fit",
            Self::Elapsed => "accept.elapsed",
            Self::Lock => "lock.does_not_fit",
            Self::Activation => "activation.does_not_fit",
        }
    }
}

fn ensure(ok: bool, error: CheckError) -> Result<(), CheckError> {
    if ok { Ok(()) } else { Err(error) }
}

/// When a party decides, by its clock and by its chain.
#[derive(Debug, Clone, Copy)]
pub struct Now<'a> {
    /// Unix ms.
    pub ms: TimeMs,
    pub tip: u32,
    /// Median time past of the tip, unix s: what the chain holds for the time, at most an hour
    /// or so behind.
    pub median_time_past_s: u32,
    /// Whether a chain source delivers facts: without one nothing is signed that leads to
    /// spending.
    pub chain_up: bool,
    pub params: &'a Params,
}

impl Now<'_> {
    /// Median time past of the tip, unix ms.
    #[must_use]
    pub fn median_ms(&self) -> TimeMs {
        u64::from(self.median_time_past_s).saturating_mul(1000)
    }

    /// Whether a time has passed for certain, by the own clock and by the chain. What is given up
    /// for good then is not given up by a clock that was ahead for a moment; each new tip asks
    /// again.
    #[must_use]
    pub fn has_passed(&self, at_ms: TimeMs) -> bool {
        self.ms >= at_ms && self.median_ms() >= at_ms
    }
}

/// Terms as their seller signed them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "StoredTerms", into = "StoredTerms")]
pub struct SignedTerms {
    pub envelope: Envelope,
    pub terms: Terms,
    pub hash: TermsHash,
}

/// What a record keeps: the payload is decoded again.
#[derive(Serialize, Deserialize)]
struct StoredTerms {
    envelope: Envelope,
    hash: TermsHash,
}

impl From<SignedTerms> for StoredTerms {
    fn from(full: SignedTerms) -> Self {
        Self { envelope: full.envelope, hash: full.hash }
    }
}

impl TryFrom<StoredTerms> for SignedTerms {
    type Error = WireError;
    fn try_from(stored: StoredTerms) -> Result<Self, WireError> {
        let terms = stored.envelope.peek::<Terms>()?;
        Ok(Self { terms, envelope: stored.envelope, hash: stored.hash })
    }
}

impl From<&Verified<Terms>> for SignedTerms {
    fn from(terms: &Verified<Terms>) -> Self {
        Self {
            envelope: terms.envelope().clone(),
            terms: (**terms).clone(),
            hash: TermsHash(terms.id()),
        }
    }
}

/// What a buyer and a seller agreed on: which certificate is sold, and on which terms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agreement {
    /// The certificate up to this sale: at a primary sale its Issue alone.
    pub title: Certificate,
    /// Its provider, who keeps the register of its holders.
    pub registrar: Key,
    pub features: u64,
    /// Issues to which the certificate goes back.
    pub roots: Vec<CertId>,
    pub signed: SignedTerms,
}

impl Agreement {
    /// Of a title and terms that have been verified.
    #[must_use]
    pub fn new(title: Certificate, facts: &VerifiedCertificate, terms: &Verified<Terms>) -> Self {
        let (registrar, features, roots) = (facts.provider, facts.features, facts.roots.clone());
        Self { title, registrar, features, roots, signed: SignedTerms::from(terms) }
    }

    /// The terms.
    #[must_use]
    pub fn terms(&self) -> &Terms {
        &self.signed.terms
    }

    /// Object id of the terms.
    #[must_use]
    pub fn hash(&self) -> TermsHash {
        self.signed.hash
    }
}

/// What a buyer agreed to by its order and request.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    pub trade: TradeId,
    pub row: &'a Row,
    pub seller: Key,
    pub registrar: Key,
    pub to: Key,
    pub funders: &'a [Funder],
    /// Feature bits that the bid required.
    pub features: u64,
    /// Last slot in which the certificate is to be redeemed.
    pub not_after_slot: Slot,
    /// Who may take the certificate back from its holder.
    pub recall: Option<Key>,
}

/// A buyer checks the seller's answer: the certificate on sale and the terms.
///
/// # Errors
/// The first [`CheckError`] found.
pub fn agreement<C: Verification>(
    secp: &Secp256k1<C>,
    now: Now<'_>,
    expected: Expected<'_>,
    title: Certificate,
    terms: &Envelope,
) -> Result<Agreement, CheckError> {
    let facts = check_title(now.params, expected, &title)?;
    let terms = terms.verify::<Terms>(now.params.magic)?;
    check_row(expected, &terms)?;
    check_terms(&facts, &terms).map_err(|fault| match fault {
        Fault::NotHolder => CheckError::Party,
        Fault::Wire(_)
        | Fault::TooManyHops
        | Fault::Class
        | Fault::Area
        | Fault::Foreign
        | Fault::Seq
        | Fault::PrevHash
        | Fault::Changed
        | Fault::Lock
        | Fault::Preimage
        | Fault::Cause
        | Fault::Unsold
        | Fault::Bases
        | Fault::Loose
        | Fault::Parts
        | Fault::Outside
        | Fault::Sum
        | Fault::OtherKind
        | Fault::Apart
        | Fault::TooManyRoots
        | Fault::Recallable => CheckError::Issue,
    })?;
    check_parties(expected, &terms)?;
    check_form(secp, now.params, &terms)?;
    ensure(tips_agree(now.params, now.tip, terms.t0), CheckError::Tips)?;
    reach(now, &terms)?;
    Ok(Agreement::new(title, &facts, &terms))
}

fn check_title(
    params: &Params,
    expected: Expected<'_>,
    title: &Certificate,
) -> Result<VerifiedCertificate, CheckError> {
    let facts = verify(title, params).map_err(|error| match error.fault {
        Fault::Wire(error) => CheckError::Wire(error),
        Fault::TooManyHops
        | Fault::Class
        | Fault::Area
        | Fault::Foreign
        | Fault::Seq
        | Fault::PrevHash
        | Fault::NotHolder
        | Fault::Changed
        | Fault::Lock
        | Fault::Preimage
        | Fault::Cause
        | Fault::Unsold
        | Fault::Bases
        | Fault::Loose
        | Fault::Parts
        | Fault::Outside
        | Fault::Sum
        | Fault::OtherKind
        | Fault::Apart
        | Fault::TooManyRoots
        | Fault::Recallable => CheckError::Issue,
    })?;
    let row = expected.row;
    let floor = params.class(row.class).map_or(0, |class| class.floors.features);
    let needed = expected.features | floor;
    let fits = facts.provider == expected.registrar
        && facts.class == row.class
        && facts.features & needed == needed
        && facts.units.count() == row.qty
        && facts.window == row.window()
        // One that lapses earlier would be worth less than what was matched.
        && facts.not_after_slot == expected.not_after_slot
        && facts.recall == expected.recall
        && facts.pay == Payment::Prepaid;
    ensure(fits, CheckError::Issue)?;
    Ok(facts)
}

fn check_row(expected: Expected<'_>, terms: &Terms) -> Result<(), CheckError> {
    let row = expected.row;
    let fits = terms.trade_id == expected.trade
        && terms.class == row.class
        && terms.window == row.window()
        && terms.price_sat == row.price_sat();
    ensure(fits, CheckError::Row)
}

fn check_parties(expected: Expected<'_>, terms: &Terms) -> Result<(), CheckError> {
    let fits = terms.from == expected.seller
        && terms.to == expected.to
        && terms.funders == expected.funders;
    ensure(fits, CheckError::Party)
}

/// What must hold of any terms, no matter who signed them: heights by the network's profile of the
/// price, amounts that make up the price, and an address for each funder.
fn check_form<C: Verification>(
    secp: &Secp256k1<C>,
    params: &Params,
    terms: &Verified<Terms>,
) -> Result<(), CheckError> {
    let heights = Timelocks::of(terms, params);
    let fits = terms.template == TEMPLATE
        && terms.fund_by == heights.fund_by
        && terms.refund_at == heights.refund_at
        && terms.funding_confirmations == heights.funding_confirmations;
    ensure(fits, CheckError::Timelock)?;
    ensure(shares_add_up(params, &terms.funders, terms.price_sat), CheckError::Shares)?;
    let length = terms.payout_spk.len();
    ensure((1..=PAYOUT_SPK_MAX_BYTES).contains(&length), CheckError::Payout)?;
    Rail::of(secp, terms, TermsHash(terms.id()))?;
    Ok(())
}

/// Whether 1 to 8 funders pay the price, none of several less than the smallest trade: a
/// smaller output would cost more to claim than it holds.
#[must_use]
pub fn shares_add_up(params: &Params, funders: &[Funder], price_sat: u64) -> bool {
    let amounts = funders.iter().map(|funder| funder.amount_sat);
    let large = |amount_sat| funders.len() == 1 || amount_sat >= params.min_trade_sat;
    (1..=FUNDERS_MAX).contains(&funders.len())
        && amounts.clone().all(large)
        && amounts.fold(0_u64, u64::saturating_add) == price_sat
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

/// A registrar checks terms that a seller signed and the consent of every funder, in their
/// order; of several each must leave its funder time to pay. Whether the seller may sell is the
/// register's to say.
///
/// # Errors
/// The first [`CheckError`] found.
pub fn consents<C: Verification>(
    secp: &Secp256k1<C>,
    now: Now<'_>,
    terms: &Verified<Terms>,
    accepts: &[Envelope],
) -> Result<Vec<Verified<Accept>>, CheckError> {
    ensure(accepts.len() == terms.funders.len(), CheckError::Accept)?;
    check_form(secp, now.params, terms)?;
    reach(now, terms)?;
    let funders = terms.funders.iter().zip(accepts);
    let all: Result<Vec<_>, _> =
        funders.map(|(funder, signed)| accept(now, terms, funder, signed)).collect();
    let all = all?;
    // Either all of them pay together, or each by itself.
    let is_together = |one: &Verified<Accept>| one.together;
    ensure(all.len() > 1 || !all.iter().any(is_together), CheckError::Accept)?;
    ensure(all.iter().all(is_together) || !all.iter().any(is_together), CheckError::Accept)?;
    let least_ms = now.params.settle.fund_ms / FUNDING_TIME_OF_SEVERAL;
    let lasts = |one: &Verified<Accept>| one.release_at_ms.saturating_sub(now.ms) >= least_ms;
    ensure(all.len() == 1 || all.iter().all(lasts), CheckError::Elapsed)?;
    Ok(all)
}

/// Checks the consent of one funder, while those of others are missing.
///
/// # Errors
/// `accept.does_not_fit` or `accept.elapsed`.
pub fn consent(
    now: Now<'_>,
    terms: &Verified<Terms>,
    key: Key,
    signed: &Envelope,
) -> Result<(), CheckError> {
    let funder = terms.funders.iter().find(|funder| funder.key == key);
    accept(now, terms, funder.ok_or(CheckError::Accept)?, signed).map(drop)
}

fn accept(
    now: Now<'_>,
    terms: &Verified<Terms>,
    funder: &Funder,
    signed: &Envelope,
) -> Result<Verified<Accept>, CheckError> {
    let accept = signed.verify::<Accept>(now.params.magic)?;
    // The funder's clock may be ahead by as much as terms may take.
    let settle = now.params.settle;
    let latest_ms = now.ms.saturating_add(settle.fund_ms).saturating_add(settle.terms_ms);
    let fits = accept.key() == funder.key.0
        && accept.terms_hash.0 == terms.id()
        && accept.release_at_height == Timelocks::of(terms, now.params).release_at()
        && accept.release_at_ms <= latest_ms;
    ensure(fits, CheckError::Accept)?;
    ensure(now.ms < accept.release_at_ms, CheckError::Elapsed)?;
    Ok(accept)
}

/// A buyer checks the registrar's lock; returns its attempt.
///
/// # Errors
/// The signature, [`CheckError::Lock`] or [`CheckError::Tips`].
pub fn lock(now: Now<'_>, agreement: &Agreement, signed: &Envelope) -> Result<u32, CheckError> {
    let lock = signed.verify::<LockGrant>(now.params.magic)?;
    let terms = agreement.terms();
    let fits = lock.provider == agreement.registrar
        && lock.cert_id == terms.cert_id
        && lock.seq == terms.seq
        && lock.terms_hash == agreement.hash()
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
    let terms = agreement.terms();
    let (cert_id, seq, prev_hash) = (terms.cert_id, terms.seq, terms.prev_hash);
    let fits = got.provider == agreement.registrar
        && got.cert_id == cert_id
        && got.seq == seq.saturating_add(1)
        && got.consumes == [Consumed { cert_id, seq, attempt, prev_hash }]
        && got.roots == agreement.roots
        && got.holder_hash == blinded(terms.to, terms.nonce16, params.magic)
        && got.class == terms.class
        && got.features == agreement.features
        && got.units == terms.units
        && got.window == terms.window
        && got.cause_hash == agreement.hash().0;
    ensure(fits, CheckError::Activation)
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;

    use super::super::sample;
    use super::*;
    use crate::wire::{VERSION, sign};

    const T0: u32 = 800;

    #[test]
    fn of_several_each_has_time_to_pay_when_the_lock_is_granted() {
        let (params, secp) = (sample::params("mainnet"), Secp256k1::new());
        let keys = [2, 3].map(|seed| SigningKey::from_bytes(&[seed; 32]));
        let public = |key: &SigningKey| Key(key.verifying_key().to_bytes());
        let seller = SigningKey::from_bytes(&[1; 32]);
        let checked = |funders: usize, lasts_ms: [u64; 2]| {
            let mut terms = if funders == 1 { sample::terms(T0) } else { sample::two_funders(T0) };
            terms.from = public(&seller);
            for (funder, key) in terms.funders.iter_mut().zip(&keys) {
                funder.key = public(key);
            }
            let terms = sign(terms, params.magic, &seller);
            let release_at_height = Timelocks::of(&terms, &params).release_at();
            let accept = |(key, lasts_ms)| {
                let terms_hash = TermsHash(terms.id());
                let release_at_ms = 1_000 + lasts_ms;
                let together = false;
                let accept =
                    Accept { v: VERSION, terms_hash, release_at_height, release_at_ms, together };
                sign(accept, params.magic, key).envelope().clone()
            };
            let accepts: Vec<Envelope> = keys.iter().zip(lasts_ms).map(accept).collect();
            let now = sample::now(&params, 1_000, T0);
            consents(&secp, now, &terms, &accepts[..funders]).map(|accepts| accepts.len())
        };
        let least_ms = params.settle.fund_ms / 3;
        assert_eq!(checked(2, [least_ms, least_ms]), Ok(2));
        for late in [[least_ms - 1, 120_000], [120_000, least_ms - 1]] {
            assert_eq!(checked(2, late), Err(CheckError::Elapsed), "{late:?}");
        }
        // One alone has nobody to wait for.
        assert_eq!(checked(1, [1, 0]), Ok(1));
        assert_eq!(checked(1, [0, 0]), Err(CheckError::Elapsed));
    }
}
