//! The registrar's side of one trade: the life of a lock.
//!
//! ```text
//! Locked → Funded → Activated
//!    └───────┴→ Released
//! ```
//!
//! The registrar locks one (certificate, seq) for one Terms and frees it only on evidence:
//! the buyer's word, its elapsed consent, or a final refund; never by a clock alone while
//! money is locked, or may be: a funding that was handed to the chain source and not refused
//! keeps the lock as long as one that is known. It moves the certificate by itself once a claim
//! is in a block, and at once if it is shown that the seller counts the sale as paid. Whether a
//! certificate may be locked at all is known to the provider's register.

use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{Secp256k1, Verification};
use serde::{Deserialize, Serialize};

use super::buyer::transfer;
use super::check::{CheckError, Now, SignedTerms, consents};
use super::deadline::Deadline;
use super::exit;
use super::objects::{Accept, Terms, TermsCancel, Transfer};
use super::rails::Rail;
use super::rails::chain::facts::{Facts, SpendFact};
use super::rails::chain::timelock::Timelocks;
use super::rails::chain::transaction::KnownTx;
use super::seller::{Refused, take_fund};
use crate::code;
use crate::ids::{Key, TermsHash};
use crate::units::TimeMs;
use crate::wire::{Envelope, Verified};

/// A registrar's side of one trade, as its record keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registrar {
    /// Terms that the seller signed.
    pub signed: SignedTerms,
    pub lock: Envelope,
    /// The consent that elapses last.
    pub consent: Consent,
    /// Whether the funders pay by one transaction.
    pub together: bool,
    pub facts: Facts,
    pub state: State,
}

/// When the funders' consent elapses, and what proves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Consent {
    pub accept_id: [u8; 32],
    /// Until when a funding must be acknowledged, unix ms.
    pub release_at_ms: TimeMs,
}

/// Where a lock stands.
#[allow(clippy::large_enum_variant, reason = "a trade has one, and ended ones leave memory")]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    Locked,
    Funded,
    Activated { transfer: Transfer, activation: Envelope },
    Released { code: String },
}

/// What a registrar does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing until something happens.
    Wait,
    /// Offer the fundings that wait to the own chain source (again).
    BroadcastFund,
    Activate(Transfer),
    Release {
        code: &'static str,
        /// Evidence; `None` where the lock has become worthless.
        evidence: Option<[u8; 32]>,
    },
}

/// What a buyer that asks for the Activation gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paid<'a> {
    NotYet,
    /// One is, and it is the one that the buyer names.
    Yes,
    Activated(&'a Envelope),
}

impl State {
    /// Name, as people see it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Locked => "locked",
            Self::Funded => "funded",
            Self::Activated { .. } => "activated",
            Self::Released { .. } => "released",
        }
    }

    /// Whether nothing can happen any more.
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Activated { .. } | Self::Released { .. })
    }
}

/// Checks a request for a lock, as far as the register does not: terms that anyone could
/// fund, and the consent of every funder. `peer` is who asks.
///
/// # Errors
/// `trade.not_the_buyer`, `chain.down`, or a code of [`CheckError`].
pub fn request<C: Verification>(
    secp: &Secp256k1<C>,
    now: Now<'_>,
    peer: Key,
    terms: &Verified<Terms>,
    accepts: &[Envelope],
) -> Result<Vec<Verified<Accept>>, Refused> {
    // The holder signs nothing, so it may be a stranger whom somebody named.
    if !is_funder(terms, peer) {
        return Err(code!("trade.not_the_buyer"));
    }
    if !now.chain_up {
        return Err(code!("chain.down"));
    }
    consents(secp, now, terms, accepts).map_err(CheckError::code)
}

fn is_funder(terms: &Terms, peer: Key) -> bool {
    terms.funders.iter().any(|funder| funder.key == peer)
}

impl Registrar {
    /// A lock was granted on these consents.
    #[must_use]
    pub fn locked(terms: &Verified<Terms>, lock: Envelope, accepts: &[Verified<Accept>]) -> Self {
        let consents = accepts
            .iter()
            .map(|accept| Consent { accept_id: accept.id(), release_at_ms: accept.release_at_ms });
        let last = consents.max_by_key(|consent| consent.release_at_ms);
        Self {
            signed: SignedTerms::from(terms),
            lock,
            together: accepts.iter().any(|accept| accept.together),
            consent: last.unwrap_or(Consent { accept_id: [0; 32], release_at_ms: 0 }),
            facts: Facts::none(terms.funders.len()),
            state: State::Locked,
        }
    }

    /// Object id of the terms.
    #[must_use]
    pub fn hash(&self) -> TermsHash {
        self.signed.hash
    }

    /// Whether a peer is a party of the trade on the buyer's side.
    #[must_use]
    pub fn is_party(&self, peer: Key) -> bool {
        self.signed.terms.to == peer || self.is_funder(peer)
    }

    /// Whether a peer signed that it pays.
    #[must_use]
    pub fn is_funder(&self, peer: Key) -> bool {
        is_funder(&self.signed.terms, peer)
    }

    /// Heights of the terms.
    #[must_use]
    pub fn heights(&self, now: Now<'_>) -> Timelocks {
        Timelocks::of(&self.signed.terms, now.params)
    }

    /// Moves to what the facts say. Returns whether it moved.
    pub fn settle(&mut self) -> bool {
        let moves = self.state == State::Locked && self.facts.any_funding();
        if moves {
            self.state = State::Funded;
        }
        moves
    }

    /// What to do next; `sure` as for a buyer.
    #[must_use]
    pub fn due(&self, now: Now<'_>, sure: bool) -> Step {
        match self.state {
            State::Locked => self.due_locked(now, sure),
            State::Funded => self.due_funded(now, sure),
            State::Activated { .. } | State::Released { .. } => Step::Wait,
        }
    }

    /// The consent frees a lock without a funding, and one whose funding the own chain source
    /// refused: what never left this node is nowhere, since no buyer sends it unacknowledged.
    /// One without an answer may be in mempools that this node does not see, and its seller be
    /// paid by it: the lock outlasts it.
    ///
    /// A stranger gains nothing by that. It cannot silence a provider's chain source, and while
    /// that is down no funding is taken. Where it fails in between, the units of one lock for
    /// each key without a paid sale stay out of the market until `F + g`: 8 chain blocks for a
    /// small sale, 42 for a large one, no longer than for coins that exist.
    fn due_locked(&self, now: Now<'_>, sure: bool) -> Step {
        let heights = self.heights(now);
        let evidence = Some(self.consent.accept_id);
        if self.facts.any_undecided() {
            if sure && now.tip >= heights.release_at() {
                return Step::Release { code: "fund.not_confirmed", evidence };
            }
        } else if sure && now.ms >= self.consent.release_at_ms {
            return Step::Release { code: "fund.not_sent", evidence };
        }
        if now.tip < heights.cancel_at() && self.facts.any_unseen() {
            return Step::BroadcastFund;
        }
        Step::Wait
    }

    /// Whether it can be said that the funders let the lock lapse: not as long as their payment
    /// may be where this node does not see it.
    #[must_use]
    pub fn is_lapsed(&self) -> bool {
        let State::Released { code } = &self.state else { return false };
        (code == "fund.not_sent" || code == "fund.not_confirmed") && !self.facts.any_undecided()
    }

    /// Funders whose contract was never funded, in a trade of which others have their coins back.
    pub fn who_did_not_pay(&self) -> impl Iterator<Item = Key> {
        let is_refunded =
            matches!(&self.state, State::Released { code } if code == "settle.refunded");
        let funders = self.signed.terms.funders.iter().zip(self.facts.contracts());
        let missing = funders.filter(|(_, facts)| facts.was_never_funded());
        missing.filter(move |_| is_refunded).map(|(funder, _)| funder.key)
    }

    fn due_funded(&self, now: Now<'_>, sure: bool) -> Step {
        if self.is_paid(now)
            && let Some(transfer) = transfer(&self.facts, self.hash())
        {
            return Step::Activate(transfer);
        }
        let deep = now.params.chain.final_blocks;
        if let Some(txid) = self.facts.refund(now.tip, deep) {
            let evidence = Some(txid.to_byte_array());
            return Step::Release { code: "settle.refunded", evidence };
        }
        if let Some(txid) = self.facts.conflict(now.tip, deep) {
            let evidence = Some(txid.to_byte_array());
            return Step::Release { code: "fund.cancelled", evidence };
        }
        // Not before this life has seen whether there is a claim.
        let is_claimed = self.facts.claim_depth(now.tip) > 0;
        let ends_at_ms = self.signed.terms.window.ends_at_ms(now.params.slot_s);
        if sure && !is_claimed && now.has_passed(ends_at_ms) {
            // Delivery is over, so a lock is worth nothing.
            return Step::Release { code: "settle.window_over", evidence: None };
        }
        let heights = self.heights(now);
        // A funding that was thrown out of its block may come back, and its claim with it.
        if sure && now.tip >= heights.release_at() && !self.facts.any_was_confirmed() {
            let evidence = Some(self.consent.accept_id);
            return Step::Release { code: "fund.not_confirmed", evidence };
        }
        // Near F the buyer replaces it: no reason to help the old one.
        if now.tip < heights.cancel_at() && !self.facts.waiting_fundings().is_empty() {
            return Step::BroadcastFund;
        }
        Step::Wait
    }

    /// Whether a claim is deep enough to move the certificate: one block, while it could be
    /// thrown out and mined again before the buyer's refund is valid; else it must be final,
    /// or a reorganisation could give the buyer both.
    fn is_paid(&self, now: Now<'_>) -> bool {
        let deep = now.params.chain.final_blocks;
        let Some((SpendFact { height: Some(height), .. }, _)) = self.facts.claim() else {
            return false;
        };
        let in_time = height.saturating_add(deep) <= self.heights(now).last_reveal + 1;
        self.facts.claim_depth(now.tip) >= if in_time { 1 } else { deep }
    }

    /// Whether the lock keeps the certificate for the payment, as its seller asks: from when the
    /// funding has stood in a block only the chain can end it.
    ///
    /// # Errors
    /// `trade.not_the_seller`; `lock.released`.
    pub fn keeps(&self, peer: Key) -> Result<bool, Refused> {
        if peer != self.signed.terms.from {
            return Err(code!("trade.not_the_seller"));
        }
        match self.state {
            State::Released { .. } => Err(code!("lock.released")),
            State::Activated { .. } => Ok(true),
            State::Locked | State::Funded => Ok(self.facts.any_was_confirmed()),
        }
    }

    /// Times at which something falls due, unix ms, with what.
    #[must_use]
    pub fn deadlines(&self, slot_s: u32) -> Vec<(TimeMs, Deadline)> {
        match self.state {
            State::Locked => vec![(self.consent.release_at_ms, Deadline::Funding)],
            State::Funded => {
                vec![(self.signed.terms.window.ends_at_ms(slot_s), Deadline::DeliveryEnds)]
            }
            State::Activated { .. } | State::Released { .. } => Vec::new(),
        }
    }

    /// Takes note of a funding, which counts from when the own chain source has been asked about
    /// it and has not refused it: until then the lock goes with the consent. Returns whether that
    /// is news.
    ///
    /// # Errors
    /// `lock.released`, `chain.down`, `fund.already_acknowledged`, `fund.undecided`: another is
    /// on its way; `fund.pays_not_the_contract`, or why it can no longer confirm in time.
    pub fn fund(&mut self, now: Now<'_>, rail: &Rail, tx: &KnownTx) -> Result<bool, Refused> {
        if matches!(self.state, State::Released { .. }) {
            return Err(code!("lock.released"));
        }
        let late = now.ms >= self.consent.release_at_ms;
        let mut facts = self.facts.clone();
        let news = take_fund(now, &self.signed.terms, rail, &mut facts, tx)?;
        if news && late {
            return Err(code!("lock.released"));
        }
        let taken = facts.contracts().iter().filter_map(|contract| contract.fund.as_ref());
        let kept = |txid| taken.clone().any(|fund| fund.txid() == txid);
        let mut known = self.facts.contracts().iter().filter_map(|known| known.fund.as_ref());
        if known.any(|fund| fund.standing.is_undecided() && !kept(fund.txid())) {
            return Err(code!("fund.undecided"));
        }
        self.facts = facts;
        Ok(news)
    }

    /// Whether the certificate has been paid for, as a buyer says.
    ///
    /// # Errors
    /// `transfer.not_paid`: the lock is free; `transfer.not_the_claim`: the chain shows
    /// another claim; `quittance.does_not_fit`, `quittance.resale` or `quittance.too_late`.
    pub fn paid(&self, now: Now<'_>, named: &Transfer) -> Result<Paid<'_>, Refused> {
        match &self.state {
            State::Released { .. } => Err(code!("transfer.not_paid")),
            State::Activated { activation, .. } => Ok(Paid::Activated(activation)),
            State::Locked | State::Funded if named.quittance.is_some() => self.quit(now, named),
            State::Locked | State::Funded if !self.is_paid(now) => Ok(Paid::NotYet),
            State::Locked | State::Funded if self.is_claim(now.tip, named) => Ok(Paid::Yes),
            State::Locked | State::Funded => Err(code!("transfer.not_the_claim")),
        }
    }

    /// Whether the provider's own word as the seller moves the certificate. It alone may lose by
    /// it, and only until the buyer can refund: from then on, as long as its own spend is not
    /// final, it counts for nothing. A buyer that is refused here may take its coins back, so a
    /// source that lags behind must not say that it is too late.
    fn quit(&self, now: Now<'_>, named: &Transfer) -> Result<Paid<'_>, Refused> {
        let (terms, deep) = (&self.signed.terms, now.params.chain.final_blocks);
        if !exit::has_quit(now.params.magic, terms, self.hash(), named) {
            return Err(exit::DOES_NOT_FIT);
        }
        if terms.from.0 != self.lock.key {
            return Err(exit::RESALE);
        }
        if !now.chain_up {
            return Ok(Paid::NotYet);
        }
        let is_early = now.tip <= self.heights(now).last_reveal
            && !self.facts.any_refund()
            && self.facts.conflict(now.tip, 1).is_none();
        let is_final = self.facts.taken_depth(now.tip) >= deep;
        if is_early || is_final || self.is_paid(now) {
            Ok(Paid::Yes)
        } else if self.facts.taken().is_some() {
            Ok(Paid::NotYet)
        } else {
            Err(exit::TOO_LATE)
        }
    }

    fn is_claim(&self, tip: u32, named: &Transfer) -> bool {
        self.facts.contracts().iter().filter(|contract| contract.claim_depth(tip) > 0).any(
            |contract| {
                contract.claim.is_some_and(|(spend, x)| {
                    named.terms_hash == self.hash()
                        && named.x == x
                        && named.spend_txid == spend.txid.to_byte_array()
                        && named.vin == spend.vin
                })
            },
        )
    }

    /// The buyer gives up. Returns whether that frees the lock now.
    ///
    /// # Errors
    /// `trade.not_the_buyer`; `fund.already_acknowledged` or `fund.undecided`: a funding is known,
    /// or may be on its way, and only the chain can end it.
    pub fn cancel(&self, cancel: &Verified<TermsCancel>) -> Result<bool, Refused> {
        let is_funder = |funder: &super::objects::Funder| funder.key.0 == cancel.key();
        let ours = cancel.terms_hash == self.hash();
        if !ours || !self.signed.terms.funders.iter().any(is_funder) {
            return Err(code!("trade.not_the_buyer"));
        }
        match self.state {
            State::Locked if self.facts.any_undecided() => Err(code!("fund.undecided")),
            State::Locked => Ok(true),
            State::Released { .. } => Ok(false),
            State::Funded | State::Activated { .. } => Err(code!("fund.already_acknowledged")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::rails::chain::facts::Standing;
    use super::super::sample;
    use super::*;

    /// t0 of the sample terms: F − g, F, F + g, R, T_R are 830, 836, 842, 914, 950.
    const T0: u32 = 800;
    const UNTIL_MS: TimeMs = 60_000;
    const NO: Option<u32> = None;
    const WAITS: Option<u32> = Some(0);

    fn registrar(contracts: &[[Option<u32>; 4]]) -> Registrar {
        let terms = if contracts.len() == 2 { sample::two_funders(T0) } else { sample::terms(T0) };
        let mut registrar = Registrar {
            signed: sample::signed_terms(terms),
            lock: sample::envelope(),
            consent: Consent { accept_id: [8; 32], release_at_ms: UNTIL_MS },
            together: false,
            facts: Facts::new(contracts.iter().map(|c| sample::contract_facts(*c)).collect()),
            state: State::Locked,
        };
        registrar.settle();
        registrar
    }

    fn claim() -> Transfer {
        let (terms_hash, x, spend_txid) = (TermsHash([7; 32]), [3; 32], [1; 32]);
        Transfer { v: 1, terms_hash, x, spend_txid, vin: 0, quittance: None }
    }

    #[test]
    fn what_is_due() {
        let release = |code, evidence| Step::Release { code, evidence };
        let elapsed = Some([8; 32]);
        let ends = 500_004 * 3_600_000;
        let funded = [Some(801), NO, NO, NO];
        let refunded = [Some(801), NO, Some(951), NO];
        let table: [(&[[Option<u32>; 4]], _, _, _); 22] = [
            (&[[NO; 4]], 59_999, 900, Step::Wait),
            (&[[NO; 4]], 60_000, 800, release("fund.not_sent", elapsed)),
            (&[[WAITS, NO, NO, NO]], 90_000, 829, Step::BroadcastFund),
            (&[[WAITS, NO, NO, NO]], 90_000, 830, Step::Wait),
            (&[[WAITS, NO, NO, NO]], 90_000, 842, release("fund.not_confirmed", elapsed)),
            // Confirmed, so never by height alone.
            (&[funded], 90_000, 960, Step::Wait),
            (&[funded], ends, 960, release("settle.window_over", None)),
            // In a mempool the claim moves nothing.
            (&[[Some(801), WAITS, NO, NO]], 90_000, 810, Step::Wait),
            (&[[Some(801), Some(810), NO, NO]], 90_000, 809, Step::Wait),
            (&[[Some(801), Some(810), NO, NO]], 90_000, 810, Step::Activate(claim())),
            (&[[Some(801), Some(810), NO, NO]], ends, 810, Step::Activate(claim())),
            (&[refunded], 90_000, 955, Step::Wait),
            (&[refunded], 90_000, 956, release("settle.refunded", Some([2; 32]))),
            // Two funders: one confirmed, one missing; one refunded, one not; one claimed.
            (&[funded, [NO; 4]], 90_000, 842, Step::Wait),
            (&[funded, [WAITS, NO, NO, NO]], 90_000, 829, Step::BroadcastFund),
            (&[[WAITS, NO, NO, NO], [NO; 4]], 90_000, 842, release("fund.not_confirmed", elapsed)),
            (&[refunded, funded], 90_000, 956, Step::Wait),
            (&[refunded, refunded], 90_000, 956, release("settle.refunded", Some([2; 32]))),
            (&[refunded, [NO; 4]], 90_000, 956, release("settle.refunded", Some([2; 32]))),
            (&[refunded, [Some(801), Some(810), NO, NO]], 90_000, 956, Step::Activate(claim())),
            // One has spent its coins twice: the lock stands for the other's.
            (&[funded, [WAITS, NO, NO, Some(835)]], 90_000, 945, Step::Wait),
            (
                &[refunded, [WAITS, NO, NO, Some(835)]],
                90_000,
                956,
                release("settle.refunded", Some([2; 32])),
            ),
        ];
        let params = sample::params("mainnet");
        for (contracts, now_ms, tip, expected) in table {
            let got = registrar(contracts).due(sample::now(&params, now_ms, tip), true);
            assert_eq!(got, expected, "{contracts:?} at {now_ms} ms, {tip}");
        }
    }

    /// A peer can show a payment of coins that do not exist; but what a chain source may have
    /// passed on can confirm, and pay the seller.
    #[test]
    fn a_funding_holds_the_lock_from_when_it_may_have_left_this_node() {
        let params = sample::params("mainnet");
        let due = |standing, now_ms, tip| {
            let mut shown = registrar(&[[NO; 4]]);
            shown.facts = sample::standing(standing);
            assert!(!shown.settle(), "{standing:?}");
            shown.due(sample::now(&params, now_ms, tip), true)
        };
        let release = |code| Step::Release { code, evidence: Some([8; 32]) };
        for standing in [Standing::Shown, Standing::Refused] {
            assert_eq!(due(standing, 59_999, 829), Step::BroadcastFund, "{standing:?}");
            assert_eq!(due(standing, 59_999, 830), Step::Wait, "{standing:?}");
            assert_eq!(due(standing, 60_000, 801), release("fund.not_sent"), "{standing:?}");
        }
        for standing in [Standing::Offered, Standing::Unanswered] {
            assert_eq!(due(standing, 60_000, 829), Step::BroadcastFund, "{standing:?}");
            assert_eq!(due(standing, 60_000, 841), Step::Wait, "{standing:?}");
            assert_eq!(due(standing, 60_000, 842), release("fund.not_confirmed"), "{standing:?}");
        }
    }

    #[test]
    fn only_a_refusal_each_time_says_that_a_funding_is_nowhere() {
        use Standing::{Offered, Refused, Seen, Shown, Unanswered};
        let txid = sample::tx().txid();
        let table: [(Standing, Option<bool>, Standing); 12] = [
            (Shown, Some(true), Seen),
            (Shown, Some(false), Shown),
            (Shown, None, Shown),
            (Offered, Some(true), Seen),
            (Offered, Some(false), Refused),
            (Offered, None, Unanswered),
            (Unanswered, Some(true), Seen),
            (Unanswered, Some(false), Unanswered),
            (Refused, Some(true), Seen),
            (Refused, None, Refused),
            (Seen, Some(false), Seen),
            (Seen, None, Seen),
        ];
        for (before, took, after) in table {
            let mut facts = sample::standing(before);
            assert_eq!(facts.answered(txid, took), before != after, "{before:?} {took:?}");
            assert_eq!(facts.standing(txid), Some(after), "{before:?} {took:?}");
        }
        let again = [
            (Shown, Offered),
            (Refused, Offered),
            (Offered, Unanswered),
            (Unanswered, Unanswered),
            (Seen, Seen),
        ];
        for (before, after) in again {
            let mut facts = sample::standing(before);
            assert_eq!(facts.offer(), before != after, "{before:?}");
            assert_eq!(facts.standing(txid), Some(after), "{before:?}");
        }
    }

    #[test]
    fn who_let_the_others_wait_for_their_refund_is_known() {
        let funded = [Some(801), NO, Some(951), NO];
        let missing = |contracts: &[[Option<u32>; 4]], code: &str| -> Vec<Key> {
            let mut released = registrar(contracts);
            released.state = State::Released { code: code.to_owned() };
            released.who_did_not_pay().collect()
        };
        let second = vec![Key([3; 32])];
        assert_eq!(missing(&[funded, [NO; 4]], "settle.refunded"), second);
        assert_eq!(missing(&[funded, [WAITS, NO, NO, Some(835)]], "settle.refunded"), second);
        assert_eq!(missing(&[funded, funded], "settle.refunded"), []);
        assert_eq!(missing(&[funded, [NO; 4]], "settle.window_over"), []);
    }

    #[test]
    fn nobody_is_blamed_for_a_payment_that_may_be_on_its_way() {
        let lapsed = |standing, code: &str| {
            let mut released = registrar(&[[NO; 4]]);
            released.facts = sample::standing(standing);
            released.state = State::Released { code: code.to_owned() };
            released.is_lapsed()
        };
        assert!(lapsed(Standing::Refused, "fund.not_sent"));
        assert!(lapsed(Standing::Seen, "fund.not_confirmed"));
        assert!(!lapsed(Standing::Unanswered, "fund.not_confirmed"));
        assert!(!lapsed(Standing::Seen, "settle.refunded"));
    }

    #[test]
    fn while_a_rescan_runs_nothing_is_released_by_absence() {
        let params = sample::params("mainnet");
        let due = |contract, now_ms, tip| {
            registrar(&[contract]).due(sample::now(&params, now_ms, tip), false)
        };
        assert_eq!(due([NO; 4], UNTIL_MS, 810), Step::Wait);
        assert_eq!(due([WAITS, NO, NO, NO], 0, 842), Step::Wait);
        // The claim may have come while this node was away.
        assert_eq!(due([Some(801), NO, NO, NO], 500_004 * 3_600_000, 960), Step::Wait);
    }

    #[test]
    fn a_claim_that_a_refund_could_still_outrun_must_be_final() {
        let params = sample::params("mainnet");
        let due = |claim, tip| {
            let claimed = registrar(&[[Some(801), Some(claim), NO, NO]]);
            claimed.due(sample::now(&params, 0, tip), true)
        };
        // Six blocks deep at R + 1, with the margin to be mined again in.
        assert_eq!(due(909, 909), Step::Activate(claim()));
        assert_eq!(due(910, 914), Step::Wait);
        assert_eq!(due(910, 915), Step::Activate(claim()));
        // It is no longer free to lapse with the window, either.
        let ends = 500_004 * 3_600_000;
        let claimed = registrar(&[[Some(801), Some(910), NO, NO]]);
        assert_eq!(claimed.due(sample::now(&params, ends, 914), true), Step::Wait);
        let late = registrar(&[[Some(801), Some(910), NO, NO]]);
        assert_eq!(late.paid(sample::now(&params, 0, 914), &claim()), Ok(Paid::NotYet));
        assert_eq!(late.paid(sample::now(&params, 0, 915), &claim()), Ok(Paid::Yes));
    }

    #[test]
    fn a_funding_that_stood_in_a_block_keeps_its_lock() {
        let params = sample::params("mainnet");
        let mut contract = sample::contract_facts([Some(836), NO, NO, NO]);
        contract.fund.as_mut().unwrap().height = None;
        let mut thrown_out = registrar(&[[Some(836), NO, NO, NO]]);
        thrown_out.facts = Facts::new(vec![contract.clone()]);
        let due = |registrar: &Registrar, tip| registrar.due(sample::now(&params, 0, tip), true);
        assert_eq!(due(&thrown_out, 842), Step::Wait);
        contract.conflict = sample::contract_facts([NO, NO, NO, Some(845)]).conflict;
        thrown_out.facts = Facts::new(vec![contract]);
        assert_eq!(due(&thrown_out, 849), Step::Wait);
        let evidence = Some([3; 32]);
        assert_eq!(due(&thrown_out, 850), Step::Release { code: "fund.cancelled", evidence });
    }

    #[test]
    fn a_clock_that_is_ahead_releases_no_lock_that_may_still_be_paid() {
        let params = sample::params("mainnet");
        let funded = registrar(&[[Some(801), NO, NO, NO]]);
        let ends_ms = funded.signed.terms.window.ends_at_ms(params.slot_s);
        let ends_s = u32::try_from(ends_ms / 1000).unwrap();
        for (ms, median_time_past_s, is_over) in
            [(ends_ms, ends_s, true), (ends_ms, ends_s - 1, false), (ends_ms - 1, ends_s, false)]
        {
            let now = Now { median_time_past_s, ..sample::now(&params, ms, 820) };
            let released = matches!(funded.due(now, true), Step::Release { .. });
            assert_eq!(released, is_over, "{ms} {median_time_past_s}");
        }
    }

    #[test]
    fn only_the_claim_on_the_chain_pays() {
        let params = sample::params("mainnet");
        let now = sample::now(&params, 0, 810);
        let paid = registrar(&[[Some(801), Some(810), NO, NO]]);
        assert_eq!(paid.paid(now, &claim()), Ok(Paid::Yes));
        for wrong in [
            Transfer { x: [4; 32], ..claim() },
            Transfer { spend_txid: [2; 32], ..claim() },
            Transfer { vin: 1, ..claim() },
            Transfer { terms_hash: TermsHash([8; 32]), ..claim() },
        ] {
            assert_eq!(paid.paid(now, &wrong), Err("transfer.not_the_claim"), "{wrong:?}");
        }
        let waits = registrar(&[[Some(801), WAITS, NO, NO]]);
        assert_eq!(waits.paid(now, &claim()), Ok(Paid::NotYet));
    }

    /// R of the sample terms is 914.
    #[test]
    fn a_quittance_counts_while_its_seller_can_still_be_paid() {
        use ed25519_dalek::SigningKey;

        use crate::settlement::exit::Quitted;
        use crate::settlement::objects::Quittance;
        use crate::wire::{sha256, sign};

        let params = sample::params("mainnet");
        let (key, x) = (SigningKey::from_bytes(&[1; 32]), [3; 32]);
        let quit = |facts: Facts| {
            let mut registrar = registrar(&[[Some(801), NO, NO, NO]]);
            registrar.signed.terms.from = Key(key.verifying_key().to_bytes());
            registrar.lock.key = registrar.signed.terms.from.0;
            registrar.signed.terms.payment_hash = sha256(&[&x]);
            registrar.facts = facts;
            registrar
        };
        let quittance = Quittance { v: 1, terms_hash: TermsHash([7; 32]), x };
        let signed = sign(quittance, params.magic, &key).envelope().clone();
        let of = quit(Facts::none(1));
        let quitted = Quitted::new(params.magic, &of.signed.terms, of.hash(), &signed).unwrap();
        let transfer = quitted.transfer(of.hash());
        let paid = |facts: Facts, tip| {
            quit(facts).paid(sample::now(&params, 0, tip), &transfer).map(|paid| paid == Paid::Yes)
        };
        let one = |heights| Facts::new(vec![sample::contract_facts(heights)]);
        let (yes, not_yet, late) = (Ok(true), Ok(false), Err("quittance.too_late"));
        let funded = [Some(801), NO, NO, NO];
        let table = [
            (one(funded), 810, yes),
            (one(funded), 914, yes),
            (one(funded), 915, late),
            // Its own source may lag: the seller knows what it has seen.
            (one([NO; 4]), 810, yes),
            // A refund that was seen, in a block or not.
            (one([Some(801), NO, WAITS, NO]), 914, late),
            (one([Some(801), NO, Some(914), NO]), 914, late),
            (one([WAITS, NO, NO, Some(835)]), 835, late),
            (one([WAITS, NO, NO, WAITS]), 835, yes),
            // The price has been taken: for good, or as far as one sees.
            (one([Some(801), Some(914), NO, NO]), 919, yes),
            (sample::taken(801, 914), 919, yes),
            (sample::taken(801, 914), 918, not_yet),
        ];
        for (facts, tip, expected) in table {
            assert_eq!(paid(facts.clone(), tip), expected, "{facts:?} at {tip}");
        }
        let now = |chain_up| Now { chain_up, ..sample::now(&params, 0, 915) };
        let late = quit(one(funded));
        assert_eq!(late.paid(now(false), &transfer), Ok(Paid::NotYet), "the tip may be old");
        let forged = Transfer { quittance: Some([[1; 32]; 2]), ..transfer.clone() };
        assert_eq!(late.paid(now(true), &forged), Err("quittance.does_not_fit"));
        let mut resale = quit(one(funded));
        resale.lock.key = [9; 32];
        let early = sample::now(&params, 0, 810);
        assert_eq!(resale.paid(early, &transfer), Err("quittance.resale"));
        let mut released = late;
        released.state = State::Released { code: "settle.refunded".to_owned() };
        assert_eq!(released.paid(now(true), &transfer), Err("transfer.not_paid"));
    }
}
