//! The roles of one trade as a node runs them: facts in, what is due until nothing is, and
//! what leaves the node by it. What the engine does around its machines is done here in a few
//! lines for each step.

use std::collections::BTreeMap;

use bitcoin::hashes::Hash;
use capex_core::settlement::buyer::{self, Buyer, Exit, FundPlan};
use capex_core::settlement::check::{self, Now};
use capex_core::settlement::exit::{self, Quitted};
use capex_core::settlement::facts::{ChainFacts, Facts, Sighting};
use capex_core::settlement::registrar::{self, Registrar};
use capex_core::settlement::seller::{self, Answer, Goods, Seller};

use crate::cast::{Cast, FIRST, Stage};
use crate::quiet::Ends;

/// Steps that one input may cause: more than there are states.
const STEPS_MAX: usize = 16;

/// Messages of one trade, as bits: once sent, one may come at any time, any number of times,
/// or never.
pub(crate) mod message {
    pub(crate) const REQUEST: u32 = 1;
    pub(crate) const TERMS: u32 = 1 << 1;
    /// The consent given at the trade's first tip, and a block later.
    pub(crate) const ACCEPT: [u32; 2] = [1 << 2, 1 << 3];
    pub(crate) const LOCK: u32 = 1 << 4;
    pub(crate) const LOCK_HEARD: u32 = 1 << 5;
    pub(crate) const FUND: u32 = 1 << 6;
    pub(crate) const FUND_SHOWN: u32 = 1 << 7;
    pub(crate) const ACK: u32 = 1 << 8;
    pub(crate) const TRANSFER: u32 = 1 << 9;
    pub(crate) const ACTIVATION: u32 = 1 << 10;
    pub(crate) const CANCEL: u32 = 1 << 11;
    pub(crate) const CANCEL_SHOWN: u32 = 1 << 12;
    /// Not a message: the wallet of the buyer answers.
    pub(crate) const WALLET: u32 = 1 << 13;
    /// The chain source of the registrar says that it took the funding.
    pub(crate) const TAKEN: u32 = 1 << 14;
    /// The funding is at the registrar's chain source, which takes it or refuses it, once.
    pub(crate) const OFFERED: u32 = 1 << 15;
    /// The seller calls the trade paid.
    pub(crate) const QUITTANCE: u32 = 1 << 16;
    /// The buyer shows that to the registrar, in place of a claim.
    pub(crate) const QUIT_SHOWN: u32 = 1 << 17;
    /// The registrar moves nothing on it.
    pub(crate) const QUIT_REFUSED: u32 = 1 << 18;
    /// The buyer's key.
    pub(crate) const KEY: u32 = 1 << 19;
    /// The seller asks whether the lock keeps the certificate.
    pub(crate) const KEPT_ASKED: u32 = 1 << 20;
    /// It does.
    pub(crate) const KEPT: u32 = 1 << 21;
    /// The lock is gone.
    pub(crate) const NOT_KEPT: u32 = 1 << 22;
    /// What is about a funding: about all that it pays.
    pub(crate) const COMMON: u32 = FUND | FUND_SHOWN | ACK | WALLET | TAKEN | OFFERED;
}

/// What moves a machine besides messages, and is not kept.
pub(crate) mod cause {
    /// Facts of the chain.
    pub(crate) const FACTS: u32 = 0;
    /// A new tip, or a new life.
    pub(crate) const TIP: u32 = 3;
    /// The lock is gone, as the register tells the seller of the same node.
    pub(crate) const LOCK_GONE: u32 = 5;
    /// The registrar's chain source refuses the funding, or cannot say.
    pub(crate) const REFUSED: u32 = 6;
    pub(crate) const NO_ANSWER: u32 = 7;
    /// What the wallet has built fits not all that were to share it.
    pub(crate) const PARTED: u32 = 9;
}

/// Transactions of one trade.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Tx {
    Fund,
    /// Pays the buyer what the funding would spend.
    Cancel,
    Claim,
    Refund,
    /// The spend with both keys.
    Taken,
}

impl Tx {
    pub(crate) const ALL: [Self; 5] =
        [Self::Fund, Self::Cancel, Self::Claim, Self::Refund, Self::Taken];
    /// What spends a contract: one of them at most is in the chain.
    pub(crate) const SPENDS: [Self; 3] = [Self::Claim, Self::Refund, Self::Taken];

    pub(crate) fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// What one trade looks like on the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub(crate) struct View {
    /// Blocks after the first tip, one more; 0 is not in a block.
    pub(crate) mined: [u8; 5],
    pub(crate) mempool: u8,
}

impl View {
    pub(crate) fn is_mined(&self, tx: Tx) -> bool {
        self.mined[tx as usize] > 0
    }

    pub(crate) fn waits(&self, tx: Tx) -> bool {
        self.mempool & tx.bit() != 0
    }

    /// Confirmations of what pays the seller.
    pub(crate) fn paid_depth(&self, tip: u8) -> u8 {
        self.depth(Tx::Claim, tip).max(self.depth(Tx::Taken, tip))
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
    pub(crate) sent: u32,
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
    pub(crate) fn now(&self) -> Now<'_> {
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
            Tx::Taken => cast.key_spend.tx.clone(),
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
    fn drive(&mut self, scene: Scene<'_>, cause: u32) -> Left;
}

impl Role for Buyer {
    fn drive(&mut self, scene: Scene<'_>, _: u32) -> Left {
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
        // Nobody else pays.
        Step::Wait | Step::AskOthers => {}
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
                let Some(stake) = buyer.stake(scene.now(), &scene.cast.rail) else { return };
                let (signed, lock) = (signed.clone(), lock.clone());
                buyer.state = State::Funding { signed, lock, plan: FundPlan::of(vec![stake]) };
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
        Step::AskActivation => {
            let transfer = buyer.state.payment().and_then(buyer::Payment::transfer);
            let is_quit = transfer.is_some_and(|transfer| transfer.quittance.is_some());
            left.sent |= if is_quit { message::QUIT_SHOWN } else { message::TRANSFER };
        }
        // No life here loses its records.
        Step::AskCertificate => left.broken = Some("a key was handed over without an Activation"),
        Step::Lapse => {
            if let State::Paying { phase, .. } = &mut buyer.state {
                *phase = Phase::Lapsed;
            }
        }
        Step::Abandon(code) => give_up(buyer, left, code),
        Step::Default => {
            if let State::Paying { payment, phase } = &mut buyer.state {
                *phase = Phase::Defaulted { transfer: payment.transfer() };
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

/// What was handed out is watched, and nobody is told that the trade is over.
fn give_up(buyer: &mut Buyer, left: &mut Left, code: &str) {
    match &mut buyer.state {
        buyer::State::Paying { phase: phase @ buyer::Phase::Exported, .. } => {
            *phase = buyer::Phase::Abandoned { code: code.to_owned() };
        }
        _ => abort(buyer, left, code),
    }
}

fn abort(buyer: &mut Buyer, left: &mut Left, code: &str) {
    let agreement = buyer.state.agreement().cloned();
    if agreement.is_some() {
        left.sent |= message::CANCEL | message::CANCEL_SHOWN;
    }
    buyer.state = buyer::State::Aborted { code: code.to_owned(), agreement };
}

impl Role for Seller {
    fn drive(&mut self, scene: Scene<'_>, _: u32) -> Left {
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
                Step::Quit => {
                    left.broken = left.broken.or(wrong_to_reveal(scene));
                    self.quit(scene.now());
                }
                Step::AskKept => left.sent |= message::KEPT_ASKED,
                Step::AskKey => left.sent |= message::QUITTANCE,
                Step::Claim => {
                    let State::Agreed { signed, phase } = &mut self.state else { return left };
                    let (tx, claim) = match signed.handed {
                        Some(_) => (Tx::Taken, &scene.cast.key_spend),
                        None => (Tx::Claim, &scene.cast.claim),
                    };
                    left.offered |= tx.bit();
                    if !phase.is_revealed() {
                        left.broken = left.broken.or(wrong_to_reveal(scene));
                    }
                    if phase.claims().is_none() {
                        let claims = BTreeMap::from([(0, claim.clone())]);
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
    fn drive(&mut self, scene: Scene<'_>, cause: u32) -> Left {
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
pub(crate) fn new_buyer(stage: &Stage, cast: &Cast, tip: u8) -> Buyer {
    let until_ms = stage.now(tip).ms + stage.params.settle.terms_ms;
    Buyer {
        trade: cast.trade,
        row: cast.row.clone(),
        seller: stage.seller.public(),
        registrar: cast.registrar,
        to: stage.buyer.public(),
        features: 0,
        fee_cap_sat: 10_000,
        max_loss_sat: 10_000,
        fee_reserve_sat: 10_000,
        key_index: 1,
        opened_ms: 0,
        use_by: None,
        partners: Vec::new(),
        together: None,
        state: buyer::State::Draft { request: Some(cast.request.clone()), until_ms },
        is_recallable: false,
    }
}

/// Its seller.
pub(crate) fn new_seller(stage: &Stage, cast: &Cast) -> Seller {
    let goods = match &cast.title {
        Some(title) => Goods::Certificate(Box::new(title.clone())),
        None => Goods::Capacity { units: cast.terms.units.clone(), features: 0 },
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
        is_kept: false,
    }
}

/// The buyer gets a message, or its wallet's answer.
pub(crate) fn tell_buyer(buyer: &mut Buyer, scene: Scene<'_>, bit: u32) -> Left {
    use buyer::{Lock, Payment, Phase, Signed, State};
    let (cast, now) = (scene.cast, scene.now());
    let mut left = Left::default();
    match bit {
        message::TERMS => {
            let (title, terms) = (cast.agreement.title.clone(), cast.terms.envelope());
            match buyer.terms(&scene.stage.secp, now, title, terms) {
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
            if buyer.is_acknowledged(&cast.paid, txid)
                && let State::Paying { phase, .. } = &mut buyer.state
            {
                *phase = Phase::Sent;
            }
        }
        message::ACTIVATION => {
            if let Some(Ok(active)) = buyer.activation(now, &cast.activation, None)
                && let State::Paying { phase, .. } = &mut buyer.state
            {
                *phase = active;
            }
        }
        message::QUITTANCE => {
            let seller = scene.stage.seller.public();
            if buyer.quit(now, seller, &cast.quittance) == Ok(Exit::HandOver) {
                left.sent |= message::KEY;
            }
        }
        message::QUIT_REFUSED => {
            buyer.quittance_refused(exit::TOO_LATE);
        }
        cause::PARTED if matches!(buyer.state, State::Funding { .. }) => {
            abort(buyer, &mut left, "fund.parted");
        }
        message::WALLET => match &mut buyer.state {
            // Handed out: from now on its signer can send it.
            State::Funding { signed, lock, plan } if scene.stage.is_signed_elsewhere => {
                let (signed, lock, plan) = (signed.clone(), lock.clone(), plan.clone());
                let contracts = cast.rail.contracts();
                let mut facts = Facts::none(contracts.len());
                facts.fund(contracts, &cast.fund);
                let (fee_sat, quitted) = (500, None);
                let payment = Payment { signed, lock, plan, fee_sat, quitted, facts };
                let payment = Box::new(payment);
                buyer.state = State::Paying { payment, phase: Phase::Exported };
                left.offered |= Tx::Fund.bit();
            }
            State::Paying { payment, phase: Phase::Exported } => {
                let (signed, plan) = (payment.signed.clone(), payment.plan.clone());
                match buyer.funding(now, (&signed, &plan), &cast.rail, &cast.fund, 500) {
                    Ok(_) => {
                        if let State::Paying { phase, .. } = &mut buyer.state {
                            *phase = Phase::Built;
                        }
                    }
                    Err(code) => give_up(buyer, &mut left, code),
                }
            }
            State::Funding { signed, lock, plan } => {
                let (signed, lock, plan) = (signed.clone(), lock.clone(), plan.clone());
                match buyer.funding(now, (&signed, &plan), &cast.rail, &cast.fund, 500) {
                    Ok(facts) => {
                        let (fee_sat, quitted) = (500, None);
                        let payment = Payment { signed, lock, plan, fee_sat, quitted, facts };
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
pub(crate) fn tell_seller(seller: &mut Seller, scene: Scene<'_>, bit: u32) -> Left {
    use seller::{Phase, Signed, State};
    let (cast, now) = (scene.cast, scene.now());
    let mut left = Left::default();
    match bit {
        message::REQUEST => match seller.request(now, &cast.request, false) {
            Ok(Answer::Agreed(_)) => left.sent |= message::TERMS,
            // Terms of a later tip would be another trade.
            Ok(Answer::Sign(heights)) if heights == cast.heights => {
                let facts = Facts::none(cast.rail.contracts().len());
                let agreement = cast.agreement.clone();
                let (key_index, claimed_from, handed) = (1, None, None);
                let signed = Signed { agreement, key_index, claimed_from, handed, facts };
                let signed = Box::new(signed);
                let phase = Phase::TermsSigned { until_ms: Seller::patience_ms(now) };
                seller.state = State::Agreed { signed, phase };
                left.sent |= message::TERMS;
            }
            Ok(Answer::Sign(_) | Answer::NotYet) | Err(_) => {}
        },
        message::LOCK_HEARD => {
            seller.lock_granted(now, cast.registrar, cast.agreement.hash());
        }
        message::FUND_SHOWN => {
            let _ = seller.fund(now, &cast.rail, &cast.fund);
        }
        message::KEPT | message::NOT_KEPT => {
            seller.hear_kept(bit == message::KEPT);
        }
        message::KEY => {
            seller.hand(&scene.stage.secp, cast.handed);
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
    bit: u32,
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
        message::KEPT_ASKED => match registrar.keeps(scene.stage.seller.public()) {
            Ok(true) => left.sent |= message::KEPT,
            Ok(false) => {}
            Err(_) => left.sent |= message::NOT_KEPT,
        },
        message::QUIT_SHOWN => show_quittance(&mut registrar, scene, &mut left),
        message::CANCEL if registrar.cancel(&cast.cancel) == Ok(true) => {
            registrar.state = State::Released { code: "trade.cancelled_by_buyer".to_owned() };
        }
        _ => {}
    }
    (Some(registrar), left)
}

/// The buyer shows that its seller calls the trade paid.
fn show_quittance(registrar: &mut Registrar, scene: Scene<'_>, left: &mut Left) {
    use registrar::{Paid, State};
    let (cast, magic) = (scene.cast, scene.stage.params.magic);
    let hash = cast.agreement.hash();
    let quitted = Quitted::new(magic, cast.agreement.terms(), hash, &cast.quittance).unwrap();
    let transfer = quitted.transfer(hash);
    match registrar.paid(scene.now(), &transfer) {
        Ok(Paid::Yes) => {
            let activation = cast.activation.clone();
            registrar.state = State::Activated { transfer, activation };
            left.sent |= message::ACTIVATION;
        }
        Ok(Paid::Activated(_)) => left.sent |= message::ACTIVATION,
        Ok(Paid::NotYet) => {}
        Err(_) => left.sent |= message::QUIT_REFUSED,
    }
}
