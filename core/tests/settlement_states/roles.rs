//! The roles of one trade as a node runs them: facts in, what is due until nothing is, and
//! what leaves the node by it. What the engine does around its machines is done here in a few
//! lines for each step.

use std::collections::BTreeMap;

use bitcoin::hashes::Hash;
use capex_core::ids::FundingId;
use capex_core::settlement::buyer::{self, Buyer};
use capex_core::settlement::check::{self, Now};
use capex_core::settlement::facts::{ChainFacts, Facts, Sighting};
use capex_core::settlement::registrar::{self, Registrar};
use capex_core::settlement::seller::{self, Answer, Goods, Seller};
use capex_core::units::Units;

use crate::cast::{Cast, FIRST, Stage};
use crate::quiet::Ends;

/// Steps that one input may cause: more than there are states.
const STEPS_MAX: usize = 16;

/// Messages of one trade, as bits: once sent, one may come at any time, any number of times,
/// or never.
pub(crate) mod message {
    pub(crate) const REQUEST: u16 = 1;
    pub(crate) const TERMS: u16 = 1 << 1;
    /// The consent given at the trade's first tip, and a block later.
    pub(crate) const ACCEPT: [u16; 2] = [1 << 2, 1 << 3];
    pub(crate) const LOCK: u16 = 1 << 4;
    pub(crate) const LOCK_HEARD: u16 = 1 << 5;
    pub(crate) const FUND: u16 = 1 << 6;
    pub(crate) const FUND_SHOWN: u16 = 1 << 7;
    pub(crate) const ACK: u16 = 1 << 8;
    pub(crate) const TRANSFER: u16 = 1 << 9;
    pub(crate) const ACTIVATION: u16 = 1 << 10;
    pub(crate) const CANCEL: u16 = 1 << 11;
    pub(crate) const CANCEL_SHOWN: u16 = 1 << 12;
    /// Not a message: the wallet of the buyer answers.
    pub(crate) const WALLET: u16 = 1 << 13;
    /// The chain source of the registrar says that it took the funding.
    pub(crate) const TAKEN: u16 = 1 << 14;
    /// The funding is at the registrar's chain source, which takes it or refuses it, once.
    pub(crate) const OFFERED: u16 = 1 << 15;
}

/// What moves a machine besides messages, and is not kept.
pub(crate) mod cause {
    /// Facts of the chain.
    pub(crate) const FACTS: u16 = 0;
    /// A new tip, or a new life.
    pub(crate) const TIP: u16 = 3;
    /// The lock is gone, as the register tells the seller of the same node.
    pub(crate) const LOCK_GONE: u16 = 5;
    /// The registrar's chain source refuses the funding, or cannot say.
    pub(crate) const REFUSED: u16 = 6;
    pub(crate) const NO_ANSWER: u16 = 7;
}

/// Transactions of one trade.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Tx {
    Fund,
    /// Pays the buyer what the funding would spend.
    Cancel,
    Claim,
    Refund,
}

impl Tx {
    pub(crate) const ALL: [Self; 4] = [Self::Fund, Self::Cancel, Self::Claim, Self::Refund];

    pub(crate) fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// What one trade looks like on the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub(crate) struct View {
    /// Blocks after the first tip, one more; 0 is not in a block.
    pub(crate) mined: [u8; 4],
    pub(crate) mempool: u8,
}

impl View {
    pub(crate) fn is_mined(&self, tx: Tx) -> bool {
        self.mined[tx as usize] > 0
    }

    pub(crate) fn waits(&self, tx: Tx) -> bool {
        self.mempool & tx.bit() != 0
    }

    /// Confirmations.
    pub(crate) fn depth(&self, tx: Tx, tip: u8) -> u8 {
        match self.mined[tx as usize] {
            0 => 0,
            mined => (tip + 2).saturating_sub(mined),
        }
    }
}

/// All that a role knows when it acts.
#[derive(Clone, Copy)]
pub(crate) struct Scene<'a> {
    pub(crate) stage: &'a Stage,
    pub(crate) cast: &'a Cast,
    pub(crate) view: View,
    /// Blocks after the first tip.
    pub(crate) tip: u8,
    /// Whether the absence of a fact means something.
    pub(crate) is_sure: bool,
}

/// What leaves the node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Left {
    pub(crate) sent: u16,
    pub(crate) offered: u8,
    /// A rule that this broke.
    pub(crate) broken: Option<&'static str>,
}

impl Left {
    /// This, and then that.
    pub(crate) fn and(self, then: Self) -> Self {
        Self {
            sent: self.sent | then.sent,
            offered: self.offered | then.offered,
            broken: self.broken.or(then.broken),
        }
    }
}

impl Scene<'_> {
    fn now(&self) -> Now<'_> {
        self.stage.now(self.tip)
    }

    /// Everything on the chain and in the mempool: what is known already changes nothing.
    fn facts(&self) -> ChainFacts {
        let cast = self.cast;
        let tx = |tx: Tx| match tx {
            Tx::Fund => cast.fund.clone(),
            Tx::Cancel => cast.fund_cancel.tx.clone(),
            Tx::Claim => cast.claim.tx.clone(),
            Tx::Refund => cast.refund.tx.clone(),
        };
        let height = |mined: u8| FIRST + u32::from(mined) - 1;
        let mined = Tx::ALL
            .into_iter()
            .filter(|tx| self.view.is_mined(*tx))
            .map(|of| Sighting { tx: tx(of), height: Some(height(self.view.mined[of as usize])) });
        let waiting = Tx::ALL.into_iter().filter(|tx| self.view.waits(*tx));
        let waiting = waiting.map(|of| Sighting { tx: tx(of), height: None });
        ChainFacts {
            height: FIRST + u32::from(self.tip),
            seen: mined.chain(waiting).collect(),
            ..ChainFacts::default()
        }
    }

    /// Notes what the chain shows, and forgets what it no longer does once that is sure.
    fn learn(&self, known: &mut Facts) {
        let change = known.apply(self.cast.rail.contracts(), &self.facts());
        if self.is_sure {
            known.forget_heights_but(&change.confirmed);
        }
    }
}

/// A role that can be driven.
pub(crate) trait Role {
    /// Does what is due after a message or another cause, until nothing is.
    fn drive(&mut self, scene: Scene<'_>, cause: u16) -> Left;
}

impl Role for Buyer {
    fn drive(&mut self, scene: Scene<'_>, _: u16) -> Left {
        if self.is_done() {
            return Left::default();
        }
        if let buyer::State::Paying { payment, .. } = &mut self.state {
            scene.learn(&mut payment.facts);
        }
        let mut left = Left::default();
        for _ in 0..STEPS_MAX {
            self.settle(scene.now());
            let before = self.state.clone();
            let step = self.due(scene.now(), scene.is_sure);
            perform(self, scene, step, &mut left);
            if self.state == before {
                return left;
            }
        }
        left.broken = Some("the buyer never comes to rest");
        left
    }
}

fn perform(buyer: &mut Buyer, scene: Scene<'_>, step: buyer::Step, left: &mut Left) {
    use buyer::{Phase, State, Step};
    match step {
        Step::Wait => {}
        Step::AskTerms => left.sent |= message::REQUEST,
        Step::AskLock => {
            let State::TermsSigned(signed) = &buyer.state else { return };
            left.sent |= message::ACCEPT[accepted_at(scene, signed.release_at_ms)];
        }
        Step::AskWallet => match &buyer.state {
            State::Locked { signed, lock, .. } => {
                if check::reach(scene.now(), signed.agreement.terms()).is_err() {
                    abort(buyer, left, "terms.window_too_near");
                    return;
                }
                let funding = FundingId::of(&[signed.agreement.hash()]);
                let (signed, lock) = (signed.clone(), lock.clone());
                buyer.state = State::Funding { signed, lock, funding };
            }
            _ => left.sent |= message::WALLET,
        },
        Step::SendFund => left.sent |= message::FUND | message::FUND_SHOWN,
        Step::BroadcastFund => left.offered |= Tx::Fund.bit(),
        Step::AskCancel => {
            left.sent |= message::WALLET;
            if let State::Paying {
                phase: phase @ (Phase::Built | Phase::Lapsed | Phase::Sent),
                ..
            } = &mut buyer.state
            {
                *phase = Phase::Cancelling { cancel: None };
            }
        }
        Step::BroadcastCancel => left.offered |= Tx::Cancel.bit(),
        Step::Refund => {
            left.offered |= Tx::Refund.bit();
            if let State::Paying { phase, .. } = &mut buyer.state {
                let refunds = BTreeMap::from([(0, scene.cast.refund.clone())]);
                *phase = Phase::Refunding { refunds };
            }
        }
        Step::AskActivation => left.sent |= message::TRANSFER,
        Step::Lapse => {
            if let State::Paying { phase, .. } = &mut buyer.state {
                *phase = Phase::Lapsed;
            }
        }
        Step::Default => {
            if let State::Paying { payment, phase } = &mut buyer.state
                && let Some(transfer) = payment.transfer()
            {
                *phase = Phase::Defaulted { transfer };
            }
        }
        Step::Abort(code) => abort(buyer, left, code),
    }
}

/// Blocks between a trade's first tip and its consent.
fn accepted_at(scene: Scene<'_>, release_at_ms: u64) -> usize {
    let first_ms = scene.stage.now(t0(scene.cast)).ms + scene.stage.params.settle.fund_ms;
    usize::from(release_at_ms > first_ms)
}

/// Blocks from the first tip to the one at which a trade's terms are signed.
pub(crate) fn t0(cast: &Cast) -> u8 {
    u8::try_from(cast.heights.t0 - FIRST).unwrap()
}

fn abort(buyer: &mut Buyer, left: &mut Left, code: &str) {
    let agreement = buyer.state.agreement().cloned();
    if agreement.is_some() {
        left.sent |= message::CANCEL | message::CANCEL_SHOWN;
    }
    buyer.state = buyer::State::Aborted { code: code.to_owned(), agreement };
}

impl Role for Seller {
    fn drive(&mut self, scene: Scene<'_>, _: u16) -> Left {
        use seller::{Phase, State, Step};
        if self.is_done() {
            return Left::default();
        }
        if let State::Agreed { signed, phase } = &mut self.state
            && !matches!(phase, Phase::TermsSigned { .. })
        {
            scene.learn(&mut signed.facts);
        }
        let mut left = Left::default();
        for _ in 0..STEPS_MAX {
            self.settle(scene.now());
            let before = self.state.clone();
            match self.due(scene.now(), scene.is_sure) {
                Step::Wait => {}
                Step::Release(code) => release(self, code),
                Step::NeverReveal(code) => {
                    if let State::Agreed { phase, .. } = &mut self.state {
                        *phase = Phase::NeverReveal { code: code.to_owned() };
                    }
                }
                Step::Claim => {
                    left.offered |= Tx::Claim.bit();
                    if let State::Agreed { phase, .. } = &mut self.state
                        && phase.claims().is_none()
                    {
                        left.broken = left.broken.or(wrong_to_reveal(scene));
                        let claims = BTreeMap::from([(0, scene.cast.claim.clone())]);
                        *phase = Phase::ClaimSent { claims };
                    }
                }
            }
            if self.state == before {
                return left;
            }
        }
        left.broken = Some("the seller never comes to rest");
        left
    }
}

/// The seller reveals only what it is sure to be paid for, and leaves the buyer its margin.
fn wrong_to_reveal(scene: Scene<'_>) -> Option<&'static str> {
    let heights = &scene.cast.heights;
    let depth = u32::from(scene.view.depth(Tx::Fund, scene.tip));
    if depth < heights.funding_confirmations {
        Some("the seller reveals before the funding is deep enough")
    } else if FIRST + u32::from(scene.tip) > heights.last_reveal {
        Some("the seller reveals inside the buyer's margin")
    } else {
        None
    }
}

fn release(seller: &mut Seller, code: &str) {
    let agreement = seller.state.agreement().cloned().map(Box::new);
    seller.state = seller::State::Released { code: code.to_owned(), agreement };
}

impl Role for Registrar {
    fn drive(&mut self, scene: Scene<'_>, cause: u16) -> Left {
        use registrar::{State, Step};
        if self.is_done() {
            return Left::default();
        }
        scene.learn(&mut self.facts);
        let mut left = Left::default();
        for _ in 0..STEPS_MAX {
            self.settle();
            let before = self.state.clone();
            match self.due(scene.now(), scene.is_sure) {
                Step::Wait => {}
                Step::BroadcastFund if self.state == State::Funded => {
                    left.offered |= Tx::Fund.bit();
                }
                // Once for each new tip, and each time that the buyer shows it.
                Step::BroadcastFund => {
                    let is_asked = cause == message::FUND && !self.facts.any_offered();
                    if is_asked || cause == cause::TIP {
                        self.facts.offer();
                        left.sent |= message::OFFERED;
                        return left;
                    }
                }
                Step::Activate(transfer) => {
                    let activation = scene.cast.activation.clone();
                    self.state = State::Activated { transfer, activation };
                }
                Step::Release { code, evidence } => {
                    // Without evidence the lock is kept: it has become worthless.
                    let holds = scene.view.is_mined(Tx::Fund) && !scene.view.is_mined(Tx::Refund);
                    if evidence.is_some() && scene.is_sure && holds {
                        left.broken = Some("the registrar frees a lock that holds money");
                    }
                    self.state = State::Released { code: code.to_owned() };
                }
            }
            if self.state == before {
                return left;
            }
        }
        left.broken = Some("the registrar never comes to rest");
        left
    }
}

/// A buyer whose row has just been matched.
pub(crate) fn new_buyer(stage: &Stage, cast: &Cast) -> Buyer {
    let until_ms = stage.now(t0(cast)).ms + stage.params.settle.terms_ms;
    Buyer {
        trade: cast.trade,
        row: cast.row.clone(),
        seller: stage.seller.public(),
        registrar: cast.registrar,
        to: stage.buyer.public(),
        title: cast.title.clone(),
        features: 0,
        fee_cap_sat: 10_000,
        max_loss_sat: 10_000,
        fee_reserve_sat: 10_000,
        key_index: 1,
        opened_ms: 0,
        state: buyer::State::Draft { request: Some(cast.request.clone()), until_ms },
    }
}

/// Its seller.
pub(crate) fn new_seller(stage: &Stage, cast: &Cast) -> Seller {
    let goods = match &cast.title {
        Some(title) => Goods::Certificate(Box::new(title.clone())),
        None => Goods::Capacity { units: Units::range(4, 6).unwrap(), features: 0 },
    };
    let until_ms = Seller::patience_ms(stage.now(t0(cast)));
    Seller {
        trade: cast.trade,
        row: cast.row.clone(),
        buyer: stage.buyer.public(),
        registrar: cast.registrar,
        goods,
        opened_ms: 0,
        state: seller::State::Offered { until_ms },
    }
}

/// The buyer gets a message, or its wallet's answer.
pub(crate) fn tell_buyer(buyer: &mut Buyer, scene: Scene<'_>, bit: u16) -> Left {
    use buyer::{Lock, Payment, Phase, Signed, State};
    let (cast, now) = (scene.cast, scene.now());
    let mut left = Left::default();
    match bit {
        message::TERMS => {
            let (issue, terms) = (cast.issue.clone(), cast.terms.envelope());
            match buyer.terms(&scene.stage.secp, now, issue, terms) {
                Some(Ok(agreement)) => {
                    let accept = cast.accept(scene.stage, scene.tip);
                    buyer.state = State::TermsSigned(Signed {
                        agreement,
                        accepts: vec![accept.envelope().clone()],
                        own: vec![0],
                        release_at_ms: accept.release_at_ms,
                    });
                }
                Some(Err(error)) => abort(buyer, &mut left, error.code()),
                None => {}
            }
        }
        message::LOCK => match (buyer.lock(now, &cast.lock), &buyer.state) {
            (Some(Ok(Lock { signed: lock, attempt })), State::TermsSigned(signed)) => {
                let (signed, lock) = (signed.clone(), Lock { signed: lock, attempt });
                buyer.state = State::Locked { signed, lock, quiet_until_ms: now.ms };
            }
            (Some(Err(error)), _) => abort(buyer, &mut left, error.code()),
            _ => {}
        },
        message::ACK => {
            let txid = cast.fund.txid().to_byte_array();
            if buyer.is_acknowledged(cast.agreement.hash(), txid)
                && let State::Paying { phase, .. } = &mut buyer.state
            {
                *phase = Phase::Sent;
            }
        }
        message::ACTIVATION => {
            if let Some(Ok(transfer)) = buyer.activation(now, &cast.activation)
                && let State::Paying { phase, .. } = &mut buyer.state
            {
                let activation = cast.activation.clone();
                *phase = Phase::Active { transfer, activation };
            }
        }
        message::WALLET => match &mut buyer.state {
            State::Funding { signed, lock, funding } => {
                let (signed, lock, funding) = (signed.clone(), lock.clone(), *funding);
                match buyer.funding(now, &signed, &cast.rail, &cast.fund, 500) {
                    Ok(facts) => {
                        let payment = Payment { signed, lock, funding, fee_sat: 500, facts };
                        let (payment, phase) = (Box::new(payment), Phase::Built);
                        buyer.state = State::Paying { payment, phase };
                    }
                    Err(code) => abort(buyer, &mut left, code),
                }
            }
            State::Paying { phase: Phase::Cancelling { cancel }, .. } => {
                *cancel = Some(cast.fund_cancel.clone());
            }
            _ => {}
        },
        _ => {}
    }
    left
}

/// The seller gets a message.
pub(crate) fn tell_seller(seller: &mut Seller, scene: Scene<'_>, bit: u16) -> Left {
    use seller::{Phase, Signed, State};
    let (cast, now) = (scene.cast, scene.now());
    let mut left = Left::default();
    match bit {
        message::REQUEST => match seller.request(now, &cast.request) {
            Ok(Answer::Agreed(_)) => left.sent |= message::TERMS,
            // Terms of a later tip would be another trade.
            Ok(Answer::Sign(heights)) if heights == cast.heights => {
                let facts = Facts::none(cast.rail.contracts().len());
                let agreement = cast.agreement.clone();
                let signed =
                    Box::new(Signed { agreement, key_index: 1, claimed_from: None, facts });
                let phase = Phase::TermsSigned { until_ms: Seller::patience_ms(now) };
                seller.state = State::Agreed { signed, phase };
                left.sent |= message::TERMS;
            }
            Ok(Answer::Sign(_)) | Err(_) => {}
        },
        message::LOCK_HEARD => {
            seller.lock_granted(now, cast.registrar, cast.agreement.hash());
        }
        message::FUND_SHOWN => {
            let _ = seller.fund(now, &cast.rail, &cast.fund);
        }
        message::CANCEL_SHOWN if seller.cancel(&cast.cancel) == Ok(true) => {
            release(seller, "trade.cancelled_by_buyer");
        }
        _ => {}
    }
    left
}

/// The registrar gets a message about a lock that it may have granted; `may_lock` says
/// whether its register has the certificate free.
pub(crate) fn tell_registrar(
    known: Option<Registrar>,
    scene: Scene<'_>,
    bit: u16,
    may_lock: bool,
) -> (Option<Registrar>, Left) {
    use registrar::State;
    let (cast, now) = (scene.cast, scene.now());
    let mut left = Left::default();
    let Some(mut registrar) = known else {
        let accept = message::ACCEPT.into_iter().position(|accept| accept == bit);
        let Some(accept) = accept.filter(|_| may_lock) else { return (None, left) };
        let accept = cast.accept(scene.stage, t0(cast) + u8::try_from(accept).unwrap());
        let (secp, peer) = (&scene.stage.secp, scene.stage.buyer.public());
        let accepts = [accept.envelope().clone()];
        let Ok(accepts) = registrar::request(secp, now, peer, &cast.terms, &accepts) else {
            return (None, left);
        };
        left.sent |= message::LOCK | message::LOCK_HEARD;
        return (Some(Registrar::locked(&cast.terms, cast.lock.clone(), &accepts)), left);
    };
    match bit {
        // What has ended answers from its record.
        message::FUND if matches!(registrar.state, State::Activated { .. }) => {
            left.sent |= message::ACK;
        }
        message::FUND => {
            let took = registrar.fund(now, &cast.rail, &cast.fund).is_ok();
            if took && registrar.facts.any_funding() {
                left.sent |= message::ACK;
            }
        }
        message::TAKEN | cause::REFUSED | cause::NO_ANSWER => {
            let took = match bit {
                message::TAKEN => Some(true),
                cause::REFUSED => Some(false),
                _ => None,
            };
            registrar.facts.answered(cast.fund.txid(), took);
        }
        message::TRANSFER if matches!(registrar.state, State::Activated { .. }) => {
            left.sent |= message::ACTIVATION;
        }
        message::TRANSFER => {
            let transfer = buyer::transfer(&registrar.facts, cast.agreement.hash());
            if let Some(transfer) = transfer
                && registrar.paid(now, &transfer).is_ok()
                && matches!(registrar.state, State::Activated { .. })
            {
                left.sent |= message::ACTIVATION;
            }
        }
        message::CANCEL if registrar.cancel(&cast.cancel) == Ok(true) => {
            registrar.state = State::Released { code: "trade.cancelled_by_buyer".to_owned() };
        }
        _ => {}
    }
    (Some(registrar), left)
}
