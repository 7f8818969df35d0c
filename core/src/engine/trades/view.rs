//! What people and programs see of a trade, the same for both sides.

use bitcoin::{ScriptBuf, Txid};

use super::Trades;
use super::driver::{Machine, Open};
use super::outlook::{self, Outlook};
use crate::certificate::objects::{Activation, DefaultProof};
use crate::ids::{CertId, FundingId, Key, TermsHash, TradeId};
use crate::params::Params;
use crate::settlement::Deadline;
use crate::settlement::buyer::{self, Buyer, Payment};
use crate::settlement::check::Agreement;
use crate::settlement::facts::{Facts, SpendFact};
use crate::settlement::objects::Row;
use crate::settlement::seller::{self, Seller};
use crate::settlement::transaction::OwnTx;
use crate::units::TimeMs;

/// On which side of the trade this node stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    Buyer,
    Seller,
}

/// A transaction of a settlement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TxView {
    pub txid: Txid,
    /// Its block; `None` while it waits.
    pub height: Option<u32>,
    /// Size, vB.
    pub vsize: u64,
    /// What the trade bears of its fee, sat; `None` if that is not known here.
    pub fee_sat: Option<u64>,
}

/// Something that happened in a trade.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepView {
    /// Stable name.
    pub what: &'static str,
    /// Unix ms, where this node noted the time.
    pub at_ms: Option<TimeMs>,
    /// Chain height, where it is known.
    pub height: Option<u32>,
    /// The transaction that it was.
    pub tx: Option<TxView>,
}

/// A settlement as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TradeView {
    pub trade: TradeId,
    pub role: Role,
    /// State, in lower case with underscores.
    pub state: &'static str,
    /// What happens next, for people.
    pub next: &'static str,
    /// Whether nothing can happen any more.
    pub done: bool,
    /// Reason code of an end without a sale, or the counterparty's last refusal.
    pub code: Option<String>,
    pub row: Row,
    pub counterparty: Key,
    /// The provider, which keeps the register of holders.
    pub registrar: Key,
    /// Holder after the sale, once known.
    pub to: Option<Key>,
    /// Object id of the terms, once signed.
    pub terms_hash: Option<TermsHash>,
    /// The certificate, once issued.
    pub cert: Option<CertId>,
    /// Script of the contract's output, once agreed.
    pub contract_spk: Option<ScriptBuf>,
    /// Price, sat.
    pub price_sat: u64,
    /// What this node pays of it, or earns, sat.
    pub share_sat: u64,
    /// Height at which the terms were signed (`t0`).
    pub t0: Option<u32>,
    /// Whether the provider's lock stands or stood, as far as it is known here.
    pub is_locked: bool,
    /// Last height for the funding to confirm (`F`).
    pub fund_by: Option<u32>,
    /// Height from which the buyer can refund (`T_R`).
    pub refund_at: Option<u32>,
    pub fund: Option<TxView>,
    /// The seller's claim, or what it spent with the buyer's key.
    pub claim: Option<TxView>,
    /// Whether that is spent with both keys, and shows no preimage.
    pub is_by_key: bool,
    /// The buyer's refund.
    pub refund: Option<TxView>,
    /// What replaces the funding by a payment to self.
    pub cancel: Option<TxView>,
    /// The provider's height when it activated the certificate for this buyer.
    pub activated_at: Option<u32>,
    /// Fees of this node so far, sat; `None` if they are not known here.
    pub fees_sat: Option<u64>,
    /// The preimage, once public.
    pub preimage: Option<[u8; 32]>,
    /// When the trade was opened here, unix ms.
    pub opened_ms: TimeMs,
    /// Times at which something falls due, unix ms, with what.
    pub deadlines: Vec<(TimeMs, Deadline)>,
    /// Against a provider that was paid and gave nothing.
    pub proof: Option<Box<DefaultProof>>,
    /// Why the last broadcast failed, in the chain source's words.
    pub trouble: Option<String>,
}

fn spend_view(spend: SpendFact) -> TxView {
    let SpendFact { txid, height, vsize, .. } = spend;
    TxView { txid, height, vsize, fee_sat: spend.known_fee_sat() }
}

fn own_view(own: &OwnTx) -> TxView {
    let vsize = own.tx.tx().vsize() as u64;
    TxView { txid: own.tx.txid(), height: None, vsize, fee_sat: Some(own.fee_sat) }
}

/// The first funding.
fn fund_view(facts: &Facts) -> Option<TxView> {
    let fund = facts.contracts().iter().find_map(|contract| contract.fund.as_ref())?;
    let (txid, height) = (fund.txid(), fund.height);
    Some(TxView { txid, height, vsize: fund.tx.tx().vsize() as u64, fee_sat: None })
}

/// The script of this node's contract, of which several may pay the price.
fn own_spk(open: &Open<Buyer>) -> Option<ScriptBuf> {
    let own = open.machine.state.payment()?.signed.own.first()?;
    open.rail.as_ref()?.spks().nth(usize::from(*own)).cloned()
}

fn own_fund_view(payment: &Payment) -> Option<TxView> {
    let fund = payment.own().find_map(|(_, facts)| facts.fund.as_ref())?;
    let (txid, height) = (fund.txid(), fund.height);
    let vsize = fund.tx.tx().vsize() as u64;
    Some(TxView { txid, height, vsize, fee_sat: Some(payment.fee_share_sat()) })
}

fn own_refund(payment: &Payment) -> Option<TxView> {
    payment.own().find_map(|(_, facts)| facts.refund).map(spend_view)
}

/// What both sides show alike; the rest is empty.
fn common<M: Machine>(open: &Open<M>, row: &Row, agreement: Option<&Agreement>) -> TradeView {
    let facts = open.machine.facts();
    let claim = facts.and_then(Facts::paid);
    let taken = facts.and_then(Facts::taken);
    let refunds = facts.into_iter().flat_map(Facts::contracts);
    let (trade, state) = open.machine.news().unwrap_or_default();
    TradeView {
        trade,
        role: Role::Buyer,
        state,
        next: "",
        done: open.machine.is_done(),
        code: None,
        row: row.clone(),
        counterparty: Key::default(),
        registrar: Key::default(),
        to: None,
        terms_hash: agreement.map(Agreement::hash),
        cert: agreement.map(|agreement| agreement.terms().cert_id),
        contract_spk: open.rail.as_ref().and_then(|rail| rail.spks().next().cloned()),
        price_sat: row.price_sat(),
        share_sat: row.price_sat(),
        t0: agreement.map(|agreement| agreement.terms().t0),
        is_locked: false,
        fund_by: agreement.map(|agreement| agreement.terms().fund_by),
        refund_at: agreement.map(|agreement| agreement.terms().refund_at),
        fund: facts.and_then(fund_view),
        claim: claim.map(spend_view),
        is_by_key: claim.is_some() && taken == claim,
        refund: refunds.filter_map(|contract| contract.refund).map(spend_view).next(),
        cancel: None,
        activated_at: None,
        fees_sat: None,
        preimage: facts.and_then(Facts::claim).map(|(_, x)| x),
        opened_ms: 0,
        deadlines: open.deadlines(),
        proof: None,
        trouble: open.trouble.clone(),
    }
}

pub(super) fn of_buyer(open: &Open<Buyer>) -> TradeView {
    let buyer = &open.machine;
    let payment = buyer.state.payment();
    let code = match &buyer.state {
        buyer::State::Aborted { code, .. }
        | buyer::State::Paying { phase: buyer::Phase::Abandoned { code }, .. } => {
            Some(code.clone())
        }
        buyer::State::Paying { phase: buyer::Phase::Cancelled, .. } => {
            Some("fund.cancelled".to_owned())
        }
        buyer::State::Paying { phase: buyer::Phase::Refunded, .. } => {
            Some("settle.refunded".to_owned())
        }
        buyer::State::Paying { phase: buyer::Phase::Defaulted { .. }, .. } => {
            Some("settle.defaulted".to_owned())
        }
        buyer::State::Draft { .. }
        | buyer::State::TermsSigned(_)
        | buyer::State::Locked { .. }
        | buyer::State::Funding { .. }
        | buyer::State::Paying { .. } => open.refusal.clone(),
    };
    let view = common(open, &buyer.row, buyer.state.agreement());
    TradeView {
        role: Role::Buyer,
        next: next_of_buyer(&buyer.state),
        code,
        counterparty: buyer.seller,
        registrar: buyer.registrar,
        is_locked: payment.is_some()
            || matches!(buyer.state, buyer::State::Locked { .. } | buyer::State::Funding { .. }),
        cancel: cancel_view(&buyer.state),
        activated_at: activated_at(&buyer.state),
        fees_sat: outlook::buyer_fees_sat(buyer),
        to: Some(buyer.to),
        share_sat: buyer.share_sat(),
        contract_spk: own_spk(open).or(view.contract_spk),
        fund: payment.and_then(own_fund_view),
        // The own refund is known before a mempool shows it.
        refund: payment.and_then(own_refund).or_else(|| refund_view(&buyer.state)),
        preimage: view.preimage.or_else(|| Some(payment?.quitted?.x)),
        opened_ms: buyer.opened_ms,
        proof: payment
            .filter(|_| buyer.state.has_defaulted())
            .and_then(|payment| payment.default_proof().map(Box::new)),
        ..view
    }
}

pub(super) fn of_seller(open: &Open<Seller>) -> TradeView {
    let seller = &open.machine;
    let phase = seller.state.agreed().map(|(_, phase)| phase);
    let code = match &seller.state {
        seller::State::Released { code, .. } => Some(code.clone()),
        seller::State::Agreed { phase: seller::Phase::NeverReveal { code }, .. } => {
            Some(code.clone())
        }
        seller::State::Offered { .. } | seller::State::Agreed { .. } => None,
    };
    let view = common(open, &seller.row, seller.state.agreement());
    // The own claim is known before a mempool shows it, and what it costs.
    let claims = phase.and_then(seller::Phase::claims);
    let sent = claims.and_then(|claims| claims.values().next());
    let facts = seller.state.agreed().and_then(|(signed, _)| signed.facts.contracts().first());
    let share_sat = sent.map(|own| outlook::claim_share_sat(facts, own));
    let claim = view.claim.or(sent.map(own_view));
    TradeView {
        role: Role::Seller,
        next: next_of_seller(&seller.state),
        code,
        counterparty: seller.buyer,
        registrar: seller.registrar,
        is_locked: phase.is_some_and(|phase| !matches!(phase, seller::Phase::TermsSigned { .. })),
        fees_sat: Some(outlook::seller_fees_sat(seller)),
        to: seller.state.agreement().map(|agreement| agreement.terms().to),
        claim: claim.map(|tx| TxView { fee_sat: share_sat.or(tx.fee_sat), ..tx }),
        is_by_key: match view.claim {
            Some(_) => view.is_by_key,
            None => seller.state.agreed().is_some_and(|(signed, _)| signed.handed.is_some()),
        },
        opened_ms: seller.opened_ms,
        ..view
    }
}

/// The replacement that was sent, or the one that a block holds.
fn cancel_view(state: &buyer::State) -> Option<TxView> {
    use buyer::{Phase, State};
    let State::Paying { payment, phase } = state else { return None };
    let known = payment.own().find_map(|(_, facts)| facts.conflict);
    let known = known.map(|spend| TxView { fee_sat: None, ..spend_view(spend) });
    match phase {
        Phase::Cancelling { cancel } => {
            let in_block = known.filter(|tx| tx.height.is_some());
            let own = |own| TxView { fee_sat: Some(payment.share_sat(own)), ..own_view(own) };
            in_block.or_else(|| cancel.as_ref().map(own))
        }
        Phase::Cancelled => known,
        Phase::Exported
        | Phase::Abandoned { .. }
        | Phase::Built
        | Phase::Lapsed
        | Phase::Sent
        | Phase::Confirmed
        | Phase::PreimageKnown
        | Phase::Active { .. }
        | Phase::Refunding { .. }
        | Phase::Refunded
        | Phase::Defaulted { .. } => None,
    }
}

/// The refund last sent.
fn refund_view(state: &buyer::State) -> Option<TxView> {
    let buyer::State::Paying { phase: buyer::Phase::Refunding { refunds }, .. } = state else {
        return None;
    };
    refunds.values().next().map(own_view)
}

fn activated_at(state: &buyer::State) -> Option<u32> {
    let buyer::State::Paying { phase: buyer::Phase::Active { activation, .. }, .. } = state else {
        return None;
    };
    activation.peek::<Activation>().ok().map(|activation| activation.p_height)
}

fn next_of_buyer(state: &buyer::State) -> &'static str {
    use buyer::{Phase, State};
    match state {
        State::Draft { .. } => "the seller signs terms",
        State::TermsSigned(_) => "the provider locks the certificate",
        State::Locked { .. } => "listening for a conflicting lock",
        State::Funding { plan, .. } if plan.gathering.is_some() => {
            "all members put in their coins and sign, else nobody pays"
        }
        State::Funding { .. } => "the wallet signs the funding",
        State::Paying { payment, phase: Phase::Exported } if payment.is_joint() => {
            "the other members sign, else nobody pays"
        }
        State::Paying { payment, phase: Phase::Built | Phase::Sent } if payment.is_joint() => {
            "the transaction of all members confirms, else nobody pays"
        }
        State::Paying { phase, .. } => match phase {
            Phase::Exported => {
                "what was handed out comes back signed: `capex wallet psbt import FILE`"
            }
            Phase::Abandoned { .. } => {
                "nothing: another payment takes its coins, else a refund if it is sent after all"
            }
            Phase::Built => {
                "the provider acknowledges the funding, else another payment may spend its coins"
            }
            Phase::Lapsed => "another funding takes its coins, or a payment to self does",
            Phase::Sent => "the funding confirms",
            Phase::Confirmed => "the seller claims, or the refund height comes",
            Phase::PreimageKnown => "the claim confirms and the provider activates",
            Phase::Active { hands_over: true, .. } => {
                "nothing: the certificate is held; the seller takes its coins with the key"
            }
            Phase::Active { .. } => "nothing: the certificate is held",
            Phase::Cancelling { .. } => "the replacement of the funding confirms",
            Phase::Refunding { .. } => "the refund confirms",
            Phase::Cancelled | Phase::Refunded => "nothing: the coins are back",
            Phase::Defaulted { .. } => {
                "nothing: the window is over; `capex trade proof` writes the proof"
            }
        },
        State::Aborted { .. } => "nothing: no coins left this node",
    }
}

fn next_of_seller(state: &seller::State) -> &'static str {
    use seller::{Phase, State};
    match state {
        State::Offered { .. } => "the buyer asks for terms",
        State::Agreed { phase, .. } => match phase {
            Phase::TermsSigned { .. } => "the buyer accepts",
            Phase::LockGranted { .. } => "the buyer sends its funding",
            Phase::FundSeen => "the funding confirms deep enough",
            Phase::FundFinal => "the buyer is asked for its key, or the claim is sent",
            Phase::Quitting { .. } => "the buyer gives its key, else the claim is sent by script",
            Phase::ClaimSent { .. } => "the claim confirms",
            Phase::Claimed { .. } => "the claim becomes final",
            Phase::Settled { .. } => "nothing: paid",
            Phase::NeverReveal { .. } => "the buyer takes its refund",
        },
        State::Released { .. } => "nothing: the units are free",
    }
}

impl Trades {
    /// Whether this node is buying of a provider.
    #[must_use]
    pub fn has_provider(&self, provider: &Key) -> bool {
        self.buyers.iter().any(|open| open.machine.registrar == *provider)
    }

    /// The purchase that a funding is for, and until when, unix ms, the funding can still be sent
    /// if it has not been built.
    #[must_use]
    pub fn purchase_of(&self, funding: FundingId) -> Option<(TradeId, Option<TimeMs>)> {
        let open =
            self.buyers.iter().find(|open| Machine::funding(&open.machine) == Some(funding))?;
        let until_ms = match &open.machine.state {
            buyer::State::Funding { signed, .. } => Some(signed.release_at_ms),
            buyer::State::Paying { payment, phase: buyer::Phase::Exported } => {
                Some(payment.plan.ack_by_ms)
            }
            buyer::State::Draft { .. }
            | buyer::State::TermsSigned(_)
            | buyer::State::Locked { .. }
            | buyer::State::Paying { .. }
            | buyer::State::Aborted { .. } => None,
        };
        Some((open.machine.trade, until_ms))
    }

    /// Whether an open purchase is paid by a funding.
    #[must_use]
    pub fn knows_funding(&self, funding: &FundingId) -> bool {
        !self.index.by_funding(funding).is_empty()
    }

    /// What lies ahead of a trade; nothing if it has ended or is not known.
    #[must_use]
    pub fn outlook(&self, role: Role, trade: TradeId, params: &Params) -> Outlook {
        let found = match role {
            Role::Buyer => {
                let open = self.buyers.get(&trade);
                open.map(|open| outlook::of_buyer(&open.machine, params))
            }
            Role::Seller => {
                let open = self.sellers.get(&trade);
                open.map(|open| outlook::of_seller(&open.machine, params))
            }
        };
        found.unwrap_or_default()
    }

    /// Every trade that this node remembers, buys first, by trade id.
    pub fn views(&self) -> impl Iterator<Item = TradeView> {
        let buys = self.buyers.iter().map(of_buyer);
        let sells = self.sellers.iter().map(of_seller);
        let past = [Role::Buyer, Role::Seller].map(|role| self.past.views(role).cloned());
        let mut all: Vec<TradeView> = buys.chain(sells).chain(past.into_iter().flatten()).collect();
        all.sort_by_key(|view| (view.role, view.trade));
        all.into_iter()
    }

    /// Trades in memory before a place, which is an epoch and a trade, in any order: all open
    /// ones, and of the ended ones of each side the newest, up to `limit`. The store has the
    /// rest.
    pub fn newest(
        &self,
        before: Option<(u64, TradeId)>,
        limit: usize,
    ) -> impl Iterator<Item = TradeView> {
        let is_before = move |row: &Row, trade| before.is_none_or(|b| (row.epoch, trade) < b);
        let buys = self.buyers.iter();
        let buys = buys.filter(move |open| is_before(&open.machine.row, open.machine.trade));
        let sells = self.sellers.iter();
        let sells = sells.filter(move |open| is_before(&open.machine.row, open.machine.trade));
        let past = [Role::Buyer, Role::Seller].into_iter();
        let past = past.flat_map(move |role| self.past.newest(role, before).take(limit).cloned());
        buys.map(of_buyer).chain(sells.map(of_seller)).chain(past)
    }

    /// One trade.
    #[must_use]
    pub fn view(&self, trade: TradeId) -> Option<TradeView> {
        let past = |role| self.past.view(role, &trade).cloned();
        let buy = self.buyers.get(&trade).map(of_buyer).or_else(|| past(Role::Buyer));
        let sell = || self.sellers.get(&trade).map(of_seller);
        buy.or_else(sell).or_else(|| past(Role::Seller))
    }
}
