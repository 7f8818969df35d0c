//! The seller's side of one trade.
//!
//! ```text
//! Offered → TermsSigned → LockGranted → FundSeen → FundFinal → ClaimSent → Claimed → Settled
//!    └───────────┴────────────┴────────────┘ Released   ├→ Quitting ─┘
//!                                                       └→ NeverReveal → Released
//! ```
//!
//! ClaimSent is the point of no return: the preimage is public. So is Quitting, where the buyer
//! alone has it: from there on the seller is paid only if it spends the contract before the
//! refund can. Before them every phase can end without loss for either side. The lock protects the buyer, so the seller only needs
//! to know of it to wait longer; where it is the registrar too, that role tells it when the
//! lock is gone.

use std::collections::BTreeMap;

use bitcoin::secp256k1::{Secp256k1, Signing};
use serde::{Deserialize, Serialize};

use super::check::{Agreement, CheckError, Now, reach, shares_add_up};
use super::deadline::Deadline;
use super::exit::HandedKey;
use super::objects::{Funder, Row, TermsCancel, TermsRequest};
use super::rails::Rail;
use super::rails::chain::facts::{ContractFacts, Facts};
use super::rails::chain::timelock::{Timelocks, lead_suffices, tips_agree};
use super::rails::chain::transaction::{KnownTx, OwnTx};
use crate::certificate::Certificate;
use crate::certificate::objects::Area;
use crate::code;
use crate::ids::{CertId, Key, TermsHash, TradeId};
use crate::units::{TimeMs, Units};
use crate::wire::Verified;

/// Why a request is refused: a stable reason code.
pub type Refused = &'static str;

/// The seller waits this many times longer for the buyer than terms may take, so that it
/// gives up only after the buyer has.
const PATIENCE: u64 = 2;

/// A seller's side of one trade, as its record keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seller {
    pub trade: TradeId,
    pub row: Row,
    pub buyer: Key,
    pub registrar: Key,
    pub goods: Goods,
    /// When the trade was opened, unix ms.
    pub opened_ms: TimeMs,
    pub state: State,
    /// Whether a registrar that is another node has said that its lock keeps the certificate for
    /// the payment.
    pub is_kept: bool,
}

/// What a seller sells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Goods {
    /// Units of its own capacity, for which a certificate is issued.
    Capacity {
        /// Unit numbers that this row got.
        units: Units,
        /// Feature bits that the ask offered.
        features: u64,
    },
    /// A certificate that it holds.
    Certificate(Box<Certificate>),
    /// A part of one, which the provider has still to split off.
    Part { cert: CertId, provider: Key, area: Area },
}

/// Terms that this seller signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed {
    pub agreement: Agreement,
    /// Index of the claim key and of the preimage.
    pub key_index: u64,
    /// Chain height at which the first claim was sent: its fee climbs from there.
    pub claimed_from: Option<u32>,
    /// The buyer's key, once it has been handed over: with it the seller spends by key path.
    pub handed: Option<HandedKey>,
    pub facts: Facts,
}

/// Where a seller's side stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// Waits for the buyer's request.
    Offered {
        /// Until when, unix ms.
        until_ms: TimeMs,
    },
    Agreed {
        signed: Box<Signed>,
        phase: Phase,
    },
    Released {
        code: String,
        /// Terms, if it came so far.
        agreement: Option<Box<Agreement>>,
    },
}

/// How far a sale has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    TermsSigned {
        /// Until when, unix ms.
        until_ms: TimeMs,
    },
    /// The lock stands; waits for the funding.
    LockGranted {
        /// When every consent to it has elapsed for sure, unix ms: without a funding the
        /// registrar has freed it by then.
        until_ms: TimeMs,
    },
    /// A funding is known, and not every contract is funded deep enough.
    FundSeen,
    /// Every contract is funded deep enough, and the seller may reveal.
    FundFinal,
    /// The buyer has the preimage, or may have it, with the seller's word that it has paid, and
    /// is asked for its key.
    Quitting {
        /// Until when, unix ms: then the seller claims by script.
        until_ms: TimeMs,
    },
    /// The claims are out: the preimage is public, unless the buyer's key spends.
    ClaimSent {
        /// The claims last sent, by number of their contract.
        claims: BTreeMap<u8, OwnTx>,
    },
    /// A claim is in a block: the certificate may move.
    Claimed {
        /// The claims last sent, by number of their contract.
        claims: BTreeMap<u8, OwnTx>,
    },
    /// Every contract is spent for good.
    Settled {
        /// The claims last sent, by number of their contract.
        claims: BTreeMap<u8, OwnTx>,
    },
    /// Too late to reveal: waits for the buyer's refund.
    NeverReveal { code: String },
}

/// What a seller does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing until something happens.
    Wait,
    /// Ask the registrar whether its lock still stands.
    AskKept,
    /// Reveal the preimage to the buyer, as paid.
    Quit,
    /// Show the buyer the Quittance, for its key.
    AskKey,
    /// Build, bump or repeat the claims.
    Claim,
    /// Decide never to reveal.
    NeverReveal(&'static str),
    Release(&'static str),
}

/// What a buyer's request for terms gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer<'a> {
    Agreed(&'a Agreement),
    /// New terms with these heights.
    Sign(Timelocks),
    /// What is sold is not there yet.
    NotYet,
}

impl Phase {
    /// Name, as people and the API see it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::TermsSigned { .. } => "terms_signed",
            Self::LockGranted { .. } => "lock_granted",
            Self::FundSeen => "fund_seen",
            Self::FundFinal => "fund_final",
            Self::Quitting { .. } => "quitting",
            Self::ClaimSent { .. } => "claim_sent",
            Self::Claimed { .. } => "claimed",
            Self::Settled { .. } => "settled",
            Self::NeverReveal { .. } => "never_reveal",
        }
    }

    /// The claims last sent.
    #[must_use]
    pub fn claims(&self) -> Option<&BTreeMap<u8, OwnTx>> {
        match self {
            Self::ClaimSent { claims } | Self::Claimed { claims } | Self::Settled { claims } => {
                Some(claims)
            }
            Self::TermsSigned { .. }
            | Self::LockGranted { .. }
            | Self::FundSeen
            | Self::FundFinal
            | Self::Quitting { .. }
            | Self::NeverReveal { .. } => None,
        }
    }

    /// Whether anybody else may know the preimage.
    #[must_use]
    pub fn is_revealed(&self) -> bool {
        matches!(self, Self::Quitting { .. }) || self.claims().is_some()
    }

    /// Whether a claim has stood in a block.
    #[must_use]
    pub fn is_sold(&self) -> bool {
        matches!(self, Self::Claimed { .. } | Self::Settled { .. })
    }
}

impl State {
    /// Name, as people and the API see it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Offered { .. } => "offered",
            Self::Agreed { phase, .. } => phase.name(),
            Self::Released { .. } => "released",
        }
    }

    /// Whether nothing can happen any more.
    #[must_use]
    pub fn is_done(&self) -> bool {
        match self {
            Self::Offered { .. } => false,
            Self::Agreed { phase, .. } => matches!(phase, Phase::Settled { .. }),
            Self::Released { .. } => true,
        }
    }

    /// Terms, once signed.
    #[must_use]
    pub fn agreement(&self) -> Option<&Agreement> {
        match self {
            Self::Offered { .. } => None,
            Self::Agreed { signed, .. } => Some(&signed.agreement),
            Self::Released { agreement, .. } => agreement.as_deref(),
        }
    }

    /// The signed terms and how far they have come.
    #[must_use]
    pub fn agreed(&self) -> Option<(&Signed, &Phase)> {
        match self {
            Self::Agreed { signed, phase } => Some((signed, phase)),
            Self::Offered { .. } | Self::Released { .. } => None,
        }
    }
}

impl Signed {
    /// Object id of the terms.
    #[must_use]
    pub fn hash(&self) -> TermsHash {
        self.agreement.hash()
    }

    /// Heights of the terms.
    #[must_use]
    pub fn heights(&self, now: Now<'_>) -> Timelocks {
        Timelocks::of(self.agreement.terms(), now.params)
    }

    /// Contracts that are still to be claimed, with their numbers.
    pub fn unclaimed(&self, tip: u32) -> impl Iterator<Item = (u8, &ContractFacts)> {
        let open = move |contract: &ContractFacts| {
            contract.paid_depth(tip) == 0 && contract.refund_depth(tip) == 0
        };
        (0_u8..).zip(self.facts.contracts()).filter(move |(_, contract)| open(contract))
    }

    /// Whether it is too late to reveal first: past `R`, or delivery has begun by the clock
    /// and by the chain. A clock that jumped decides nothing for good.
    fn is_too_late(&self, now: Now<'_>) -> bool {
        let starts = self.agreement.terms().window.starts_at_ms(now.params.slot_s);
        now.tip > self.heights(now).last_reveal || now.ms >= starts && now.median_ms() >= starts
    }

    /// Whether the clock says that delivery has begun: then nothing is revealed first.
    fn has_begun(&self, now: Now<'_>) -> bool {
        now.ms >= self.agreement.terms().window.starts_at_ms(now.params.slot_s)
    }

    /// Whether the buyer's key may still come in time.
    fn may_wait(&self, until_ms: TimeMs, now: Now<'_>) -> bool {
        self.handed.is_none() && now.ms < until_ms && now.tip < self.heights(now).quit_by
    }

    fn is_over(&self, now: Now<'_>) -> bool {
        now.has_passed(self.agreement.terms().window.ends_at_ms(now.params.slot_s))
    }

    fn is_refunded(&self, now: Now<'_>) -> bool {
        self.facts.refund(now.tip, now.params.chain.final_blocks).is_some()
    }

    /// Whether the funding can never be in a block any more.
    fn is_cancelled(&self, now: Now<'_>) -> bool {
        self.facts.conflict(now.tip, now.params.chain.final_blocks).is_some()
    }

    /// The phase that the facts demand, if it is another one.
    fn settle(&self, phase: &Phase, now: Now<'_>) -> Option<Phase> {
        match phase {
            // The news of the lock was lost: a funding that is shown says that it stands.
            Phase::TermsSigned { .. } if self.facts.any_unseen() && !self.facts.any_funding() => {
                Some(Phase::LockGranted { until_ms: now.ms })
            }
            Phase::TermsSigned { .. }
            | Phase::LockGranted { .. }
            | Phase::FundSeen
            | Phase::FundFinal => self.funded(now).filter(|demanded| demanded != phase),
            // An earlier life, whose last records are lost, has spent it.
            Phase::Quitting { .. } => self.spent(now),
            Phase::ClaimSent { claims } | Phase::Claimed { claims } => {
                let claims = || claims.clone();
                let is_claimed = self.facts.paid_depth(now.tip) > 0;
                if is_claimed && self.facts.is_spent(now.tip, now.params.chain.final_blocks) {
                    return Some(Phase::Settled { claims: claims() });
                }
                match phase {
                    Phase::ClaimSent { .. } if is_claimed => {
                        Some(Phase::Claimed { claims: claims() })
                    }
                    Phase::Claimed { .. } if !is_claimed => {
                        Some(Phase::ClaimSent { claims: claims() })
                    }
                    Phase::TermsSigned { .. }
                    | Phase::LockGranted { .. }
                    | Phase::FundSeen
                    | Phase::FundFinal
                    | Phase::Quitting { .. }
                    | Phase::ClaimSent { .. }
                    | Phase::Claimed { .. }
                    | Phase::Settled { .. }
                    | Phase::NeverReveal { .. } => None,
                }
            }
            Phase::Settled { .. } | Phase::NeverReveal { .. } => None,
        }
    }

    /// The phase of a contract that has been spent to the seller without this life knowing how.
    fn spent(&self, now: Now<'_>) -> Option<Phase> {
        let is_paid = self.facts.paid_depth(now.tip) > 0;
        is_paid.then_some(Phase::Claimed { claims: BTreeMap::new() })
    }

    /// The phase of a funding that the own chain source knows.
    fn funded(&self, now: Now<'_>) -> Option<Phase> {
        if let Some(spent) = self.spent(now) {
            return Some(spent);
        }
        let heights = self.heights(now);
        let late = |contract: &ContractFacts| {
            contract.fund_height().is_some_and(|height| height > heights.fund_by)
        };
        if self.facts.contracts().iter().any(late) {
            // The buyer was told that it would not count.
            Some(Phase::NeverReveal { code: "fund.late".to_owned() })
        } else if self.facts.fund_depth(now.tip) >= heights.funding_confirmations.max(1) {
            Some(Phase::FundFinal)
        } else {
            self.facts.any_funding().then_some(Phase::FundSeen)
        }
    }

    fn due(&self, phase: &Phase, now: Now<'_>, sure: bool) -> Step {
        let release_at = self.heights(now).release_at();
        match phase {
            Phase::TermsSigned { until_ms } if now.ms >= *until_ms => {
                Step::Release("trade.buyer_silent")
            }
            Phase::FundSeen
            | Phase::Quitting { .. }
            | Phase::ClaimSent { .. }
            | Phase::NeverReveal { .. }
                if self.is_cancelled(now) =>
            {
                Step::Release("fund.cancelled")
            }
            // Whoever keeps the lock has let it go: no funding came in the time consented to. One
            // that was shown may be on its way to a block where no mempool is seen.
            Phase::LockGranted { until_ms }
                if sure && now.ms >= *until_ms && !self.facts.any_unseen() =>
            {
                Step::Release("fund.not_sent")
            }
            Phase::LockGranted { .. } | Phase::FundSeen
                if sure && now.tip >= release_at && !self.facts.any_confirmed() =>
            {
                Step::Release("fund.not_confirmed")
            }
            Phase::FundSeen | Phase::FundFinal
                if self.facts.any_confirmed() && self.is_too_late(now) =>
            {
                Step::NeverReveal("settle.too_late_to_reveal")
            }
            Phase::FundFinal if sure && !self.has_begun(now) => Step::Claim,
            Phase::Quitting { .. } | Phase::ClaimSent { .. } if self.is_refunded(now) => {
                Step::Release("settle.claim_lost")
            }
            Phase::Quitting { until_ms } if self.may_wait(*until_ms, now) => Step::AskKey,
            Phase::Quitting { .. } | Phase::ClaimSent { .. } => Step::Claim,
            Phase::Claimed { .. } if self.unclaimed(now.tip).next().is_some() => Step::Claim,
            Phase::NeverReveal { .. } if self.is_refunded(now) => Step::Release("settle.refunded"),
            // Delivery is over, so what was sold is worth nothing.
            Phase::NeverReveal { .. } if sure && self.is_over(now) => {
                Step::Release("settle.window_over")
            }
            Phase::TermsSigned { .. }
            | Phase::LockGranted { .. }
            | Phase::FundSeen
            | Phase::FundFinal
            | Phase::Claimed { .. }
            | Phase::Settled { .. }
            | Phase::NeverReveal { .. } => Step::Wait,
        }
    }
}

impl Seller {
    /// Moves to what the facts say. Returns whether it moved.
    pub fn settle(&mut self, now: Now<'_>) -> bool {
        let State::Agreed { signed, phase } = &mut self.state else { return false };
        let moved = signed.settle(phase, now);
        let is_moved = moved.is_some();
        if let Some(moved) = moved {
            *phase = moved;
        }
        is_moved
    }

    /// What to do next; `sure` as for a buyer.
    #[must_use]
    pub fn due(&self, now: Now<'_>, sure: bool) -> Step {
        match &self.state {
            State::Offered { until_ms } if now.ms >= *until_ms => {
                Step::Release("trade.buyer_silent")
            }
            State::Agreed { signed, phase } => {
                let step = signed.due(phase, now, sure);
                let would_claim = step == Step::Claim && *phase == Phase::FundFinal;
                if would_claim && self.must_ask() {
                    Step::AskKept
                } else if would_claim && self.may_quit(signed, now) {
                    Step::Quit
                } else {
                    step
                }
            }
            State::Offered { .. } | State::Released { .. } => Step::Wait,
        }
    }

    /// Whether nothing may be revealed before the registrar has answered. A funding can come when
    /// its lock is gone: one that was signed elsewhere is sent by others. Who is paid by it would
    /// sell what the buyer never gets.
    #[must_use]
    pub fn must_ask(&self) -> bool {
        let State::Agreed { signed, phase: Phase::FundFinal } = &self.state else { return false };
        self.registrar != signed.agreement.terms().from && !self.is_kept
    }

    /// The registrar said that its lock keeps the certificate, or that it is gone: then nothing is
    /// ever revealed. Returns whether that is news.
    pub fn hear_kept(&mut self, is_kept: bool) -> bool {
        if !self.must_ask() {
            return false;
        }
        self.is_kept = is_kept;
        if let State::Agreed { phase, .. } = &mut self.state
            && !is_kept
        {
            *phase = Phase::NeverReveal { code: code!("lock.released").to_owned() };
        }
        true
    }

    /// Whether the buyer, who pays alone, is asked for its key before the seller, who keeps the
    /// register, claims.
    fn may_quit(&self, signed: &Signed, now: Now<'_>) -> bool {
        let is_sole = |funders: &[Funder]| match funders {
            [funder] => funder.key == self.buyer,
            _ => false,
        };
        now.params.settle.quit_ms > 0
            && signed.agreement.terms().from == self.registrar
            && is_sole(&signed.agreement.terms().funders)
            && now.tip < signed.heights(now).quit_by
    }

    /// Whether its first claim, where it is due, may wait for those of others.
    #[must_use]
    pub fn may_wait_to_claim(&self, now: Now<'_>) -> bool {
        let State::Agreed { signed, phase } = &self.state else { return false };
        let is_first = matches!(phase, Phase::FundFinal | Phase::Quitting { .. });
        is_first && now.tip < signed.heights(now).quit_by
    }

    /// Whether its first claim is about to be due: the registrar or the buyer is being asked.
    #[must_use]
    pub fn is_claim_coming(&self, now: Now<'_>) -> bool {
        let State::Agreed { signed, phase } = &self.state else { return false };
        match phase {
            Phase::FundFinal => now.tip < signed.heights(now).quit_by,
            Phase::Quitting { until_ms } => signed.may_wait(*until_ms, now),
            Phase::TermsSigned { .. }
            | Phase::LockGranted { .. }
            | Phase::FundSeen
            | Phase::ClaimSent { .. }
            | Phase::Claimed { .. }
            | Phase::Settled { .. }
            | Phase::NeverReveal { .. } => false,
        }
    }

    /// Reveals the preimage to the buyer, from now on until it has had its time. Returns whether
    /// it moved.
    pub fn quit(&mut self, now: Now<'_>) -> bool {
        let State::Agreed { phase: phase @ Phase::FundFinal, .. } = &mut self.state else {
            return false;
        };
        let until_ms = now.ms.saturating_add(now.params.settle.quit_ms);
        *phase = Phase::Quitting { until_ms };
        true
    }

    /// Takes the key that a buyer answers a Quittance with. Returns whether it is news; no other
    /// key than the one of the contract is.
    pub fn hand<C: Signing>(&mut self, secp: &Secp256k1<C>, key: HandedKey) -> bool {
        let State::Agreed { signed, phase: Phase::Quitting { .. } } = &mut self.state else {
            return false;
        };
        let Some(pair) = key.pair(secp) else { return false };
        let xonly = pair.x_only_public_key().0.serialize();
        let [funder] = signed.agreement.terms().funders.as_slice() else { return false };
        if signed.handed.is_some() || funder.refund_xonly != xonly {
            return false;
        }
        signed.handed = Some(key);
        true
    }

    /// The buyer gives no key: the seller waits no longer for it. Returns whether it moved.
    pub fn keeps_key(&mut self) -> bool {
        let State::Agreed { phase: Phase::Quitting { until_ms }, .. } = &mut self.state else {
            return false;
        };
        std::mem::replace(until_ms, 0) != 0
    }

    /// The terms of a sale that the chain has undone for good though its preimage was out. If the
    /// own register has moved the certificate on them, it takes it back: only the buyer, who then
    /// had not taken it or broke its word, can have the coins.
    #[must_use]
    pub fn takes_back(&self) -> Option<TermsHash> {
        let State::Released { code, agreement: Some(agreement) } = &self.state else { return None };
        let is_own = agreement.terms().from == self.registrar;
        let is_undone = code == "settle.claim_lost" || code == "fund.cancelled";
        (is_own && is_undone).then(|| agreement.hash())
    }

    /// Times at which something falls due, unix ms, with what.
    #[must_use]
    pub fn deadlines(&self, slot_s: u32) -> Vec<(TimeMs, Deadline)> {
        let window = self.row.window();
        match &self.state {
            State::Offered { until_ms } => vec![(*until_ms, Deadline::Terms)],
            State::Agreed { phase, .. } => match phase {
                Phase::TermsSigned { until_ms } => vec![(*until_ms, Deadline::Accept)],
                Phase::FundSeen | Phase::FundFinal => {
                    vec![(window.starts_at_ms(slot_s), Deadline::DeliveryStarts)]
                }
                Phase::NeverReveal { .. } => {
                    vec![(window.ends_at_ms(slot_s), Deadline::DeliveryEnds)]
                }
                Phase::LockGranted { until_ms } => vec![(*until_ms, Deadline::Funding)],
                Phase::Quitting { until_ms } => vec![(*until_ms, Deadline::Key)],
                Phase::ClaimSent { .. } | Phase::Claimed { .. } | Phase::Settled { .. } => {
                    Vec::new()
                }
            },
            State::Released { .. } => Vec::new(),
        }
    }

    /// Until when it waits for the buyer's next message, unix ms.
    #[must_use]
    pub fn patience_ms(now: Now<'_>) -> TimeMs {
        now.ms.saturating_add(PATIENCE * now.params.settle.terms_ms)
    }

    /// What a request for terms gets: of a certificate that who pays may recall, or not. The same
    /// request gets the same terms.
    ///
    /// # Errors
    /// `trade.void`, `trade.already_agreed`, `chain.down`, `terms.tips_differ`,
    /// `terms.wrong_amount`, `terms.use_by`, `terms.recall` or `terms.window_too_near`.
    pub fn request(
        &self,
        now: Now<'_>,
        request: &TermsRequest,
        is_recallable: bool,
    ) -> Result<Answer<'_>, Refused> {
        let until_ms = match &self.state {
            State::Released { .. } => return Err(code!("trade.void")),
            State::Agreed { signed, .. } => {
                let terms = signed.agreement.terms();
                let same = terms.to == request.to && terms.funders == request.funders;
                let agreed = Answer::Agreed(&signed.agreement);
                return if same { Ok(agreed) } else { Err(code!("trade.already_agreed")) };
            }
            State::Offered { until_ms } => *until_ms,
        };
        if now.ms >= until_ms {
            return Err(code!("trade.void"));
        }
        if matches!(self.goods, Goods::Part { .. }) {
            return Ok(Answer::NotYet);
        }
        if !now.chain_up {
            return Err(code!("chain.down"));
        }
        if !tips_agree(now.params, now.tip, request.tip_height) {
            return Err(code!("terms.tips_differ"));
        }
        let price_sat = self.row.price_sat();
        if !shares_add_up(now.params, &request.funders, price_sat) {
            return Err(code!("terms.wrong_amount"));
        }
        let heights = Timelocks::new(now.params.profile(price_sat), now.tip);
        let window = self.row.window();
        if let Some(use_by) = request.use_by
            && (use_by <= window.start || !matches!(self.goods, Goods::Capacity { .. }))
        {
            return Err(code!("terms.use_by"));
        }
        // The Issue says who may recall it, and every later holder is bound by that.
        let is_issued = matches!(self.goods, Goods::Capacity { .. });
        if is_recallable && (request.sponsor().is_none() || !is_issued) {
            return Err(code!("terms.recall"));
        }
        if !lead_suffices(now.params, now.ms, now.tip, heights.refund_at, window) {
            return Err(code!("terms.window_too_near"));
        }
        Ok(Answer::Sign(heights))
    }

    /// The certificate that a buyer who asks for terms now wants split: while that buyer, if it is
    /// honest, still waits, so that its provider has time.
    #[must_use]
    pub fn wants_split(&self, now: Now<'_>) -> Option<CertId> {
        let (State::Offered { until_ms }, Goods::Part { cert, .. }) = (&self.state, &self.goods)
        else {
            return None;
        };
        let is_early = now.ms.saturating_add(now.params.settle.terms_ms) <= *until_ms;
        is_early.then_some(*cert)
    }

    /// The part that it sells has been split off. Returns whether that is news.
    pub fn take_part(&mut self, part: Certificate) -> bool {
        let waits =
            matches!((&self.state, &self.goods), (State::Offered { .. }, Goods::Part { .. }));
        if waits {
            self.goods = Goods::Certificate(Box::new(part));
        }
        waits
    }

    /// The registrar locked the certificate for these terms. Returns whether it moved.
    pub fn lock_granted(&mut self, now: Now<'_>, registrar: Key, terms_hash: TermsHash) -> bool {
        let State::Agreed { signed, phase } = &mut self.state else { return false };
        let ours = registrar == self.registrar && signed.hash() == terms_hash;
        let waits = matches!(phase, Phase::TermsSigned { .. });
        if ours && waits {
            let settle = now.params.settle;
            // A consent that the registrar takes lasts no longer.
            let until_ms = now.ms.saturating_add(settle.fund_ms).saturating_add(settle.terms_ms);
            *phase = Phase::LockGranted { until_ms };
        }
        ours && waits
    }

    /// The own register gave the lock up: what is not public yet never will be, and with a
    /// preimage that its buyer alone has that one can do nothing. Returns whether it moved.
    pub fn lock_released(&mut self, code: &str) -> bool {
        let State::Agreed { signed, phase } = &self.state else { return false };
        if phase.claims().is_some() {
            return false;
        }
        let agreement = Some(Box::new(signed.agreement.clone()));
        self.state = State::Released { code: code.to_owned(), agreement };
        true
    }

    /// Takes note of a funding that the buyer shows. Returns whether that is news.
    ///
    /// # Errors
    /// `lock.released`, `lock.not_granted`, `chain.down`, `fund.already_acknowledged`,
    /// `fund.pays_not_the_contract`, or why it can no longer confirm in time.
    pub fn fund(&mut self, now: Now<'_>, rail: &Rail, tx: &KnownTx) -> Result<bool, Refused> {
        let signed = match &mut self.state {
            State::Offered { .. } => return Err(code!("lock.not_granted")),
            State::Released { .. } => return Err(code!("lock.released")),
            State::Agreed { signed, .. } => signed,
        };
        let terms = signed.agreement.terms();
        take_fund(now, terms, rail, &mut signed.facts, tx)
    }

    /// The buyer gives up. Returns whether that ends the sale now.
    ///
    /// # Errors
    /// `trade.not_the_buyer`; `fund.already_acknowledged`: a funding is known, and only the
    /// chain can end it.
    pub fn cancel(&self, cancel: &Verified<TermsCancel>) -> Result<bool, Refused> {
        let Some(agreement) = self.state.agreement().filter(|agreed| {
            agreed.terms().funders.iter().any(|funder| funder.key.0 == cancel.key())
        }) else {
            return Err(code!("trade.not_the_buyer"));
        };
        if agreement.hash() != cancel.terms_hash {
            return Err(code!("trade.not_the_buyer"));
        }
        match &self.state {
            State::Agreed {
                phase: Phase::TermsSigned { .. } | Phase::LockGranted { .. }, ..
            } => Ok(true),
            State::Released { .. } => Ok(false),
            State::Offered { .. } | State::Agreed { .. } => Err(code!("fund.already_acknowledged")),
        }
    }
}

/// Takes a funding into the facts, for the seller and the registrar alike, as something that
/// the own chain source has yet to accept. Returns whether it was news.
pub(super) fn take_fund(
    now: Now<'_>,
    terms: &super::objects::Terms,
    rail: &Rail,
    facts: &mut Facts,
    tx: &KnownTx,
) -> Result<bool, Refused> {
    let contracts = rail.contracts();
    let mut funded = Facts::none(contracts.len());
    if funded.fund(contracts, tx) == 0 {
        return Err(code!("fund.pays_not_the_contract"));
    }
    let mut news = false;
    for (known, new) in facts.contracts().iter().zip(funded.contracts()) {
        match (&known.fund, &new.fund) {
            // Two fundings of one contract could both be claimed with one preimage.
            (Some(known), Some(new)) if known.txid() != new.txid() => {
                if known.is_seen() {
                    return Err(code!("fund.already_acknowledged"));
                }
                news = true;
            }
            (None, Some(_)) => news = true,
            _ => {}
        }
    }
    if news {
        if !now.chain_up {
            return Err(code!("chain.down"));
        }
        reach(now, terms).map_err(CheckError::code)?;
        facts.fund(contracts, tx);
    }
    Ok(news)
}

#[cfg(test)]
mod tests;
