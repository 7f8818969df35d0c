//! What people and programs see of a settlement, the same for both sides.

use bitcoin::{ScriptBuf, Txid};

use super::Trades;
use super::buying::Buying;
use super::selling::Selling;
use crate::ids::{CertId, Key, TermsHash, TradeId};
use crate::settlement::check::Agreement;
use crate::settlement::facts::{Facts, SpendFact};
use crate::settlement::objects::Row;
use crate::settlement::{buyer, seller};
use crate::units::TimeMs;

/// On which side of the trade this node stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Pays.
    Buyer,
    /// Delivers.
    Seller,
}

/// A transaction of a settlement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TxView {
    /// Its id.
    pub txid: Txid,
    /// Its block; `None` while it waits.
    pub height: Option<u32>,
    /// Size, vB.
    pub vsize: u64,
    /// Fee, sat; `None` if another wallet paid it.
    pub fee_sat: Option<u64>,
}

/// A settlement as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TradeView {
    /// Object id of the row.
    pub trade: TradeId,
    /// Own side.
    pub role: Role,
    /// State, in lower case with underscores.
    pub state: &'static str,
    /// What happens next, for people.
    pub next: &'static str,
    /// Whether nothing can happen any more.
    pub done: bool,
    /// Reason code of an end without a sale, or the counterparty's last refusal.
    pub code: Option<String>,
    /// What was matched.
    pub row: Row,
    /// The other side.
    pub counterparty: Key,
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
    /// Last height for the funding to confirm (`F`).
    pub fund_by: Option<u32>,
    /// Height from which the buyer can refund (`T_R`).
    pub refund_at: Option<u32>,
    /// The funding.
    pub fund: Option<TxView>,
    /// The seller's claim.
    pub claim: Option<TxView>,
    /// The buyer's refund.
    pub refund: Option<TxView>,
    /// The preimage, once public.
    pub preimage: Option<[u8; 32]>,
    /// When the trade was opened here, unix ms.
    pub opened_ms: TimeMs,
    /// Times at which something falls due, unix ms, with what.
    pub deadlines: Vec<(TimeMs, &'static str)>,
    /// Why the last broadcast failed, in the chain source's words.
    pub trouble: Option<String>,
}

impl Trades {
    /// Every settlement that this node remembers, buys first, by trade id.
    pub fn views(&self) -> impl Iterator<Item = TradeView> {
        self.buys.values().map(of_buy).chain(self.sells.values().map(of_sell))
    }

    /// One settlement.
    #[must_use]
    pub fn view(&self, trade: TradeId) -> Option<TradeView> {
        let sell = || self.sells.get(&trade).map(of_sell);
        self.buys.get(&trade).map(of_buy).or_else(sell)
    }
}

/// The parts that both sides show alike.
struct Common<'a> {
    agreement: Option<&'a Agreement>,
    facts: Option<&'a Facts>,
    fund_fee_sat: Option<u64>,
}

fn spend_view(spend: SpendFact) -> TxView {
    let SpendFact { txid, height, vsize, fee_sat, .. } = spend;
    TxView { txid, height, vsize, fee_sat: Some(fee_sat) }
}

impl Common<'_> {
    fn fund(&self) -> Option<TxView> {
        let fund = self.facts?.fund.as_ref()?;
        Some(TxView {
            txid: fund.txid(),
            height: fund.height,
            vsize: fund.tx.vsize() as u64,
            fee_sat: self.fund_fee_sat,
        })
    }

    fn claim(&self) -> Option<TxView> {
        self.facts?.claim.map(|(spend, _)| spend_view(spend))
    }

    fn refund(&self) -> Option<TxView> {
        self.facts?.refund.map(spend_view)
    }

    fn preimage(&self) -> Option<[u8; 32]> {
        self.facts?.claim.map(|(_, x)| x)
    }
}

fn of_buy(buying: &Buying) -> TradeView {
    let buyer = &buying.buyer;
    let funded = buyer.state.funded();
    let common = Common {
        agreement: buyer.state.agreement(),
        facts: funded.map(|funded| &funded.facts),
        fund_fee_sat: funded.map(|funded| funded.fee_sat),
    };
    let code = match &buyer.state {
        buyer::State::Aborted { code, .. } => Some(code.clone()),
        buyer::State::Cancelled(_) => Some("fund.cancelled".to_owned()),
        buyer::State::Refunded(_) => Some("settle.refunded".to_owned()),
        _ => buying.refusal.clone(),
    };
    TradeView {
        trade: buyer.trade,
        role: Role::Buyer,
        state: buyer.state.name(),
        next: next_of_buy(&buyer.state),
        done: buyer.state.is_done(),
        code,
        row: buyer.row.clone(),
        counterparty: buyer.provider,
        to: Some(buyer.to),
        terms_hash: common.agreement.map(|agreement| agreement.hash),
        cert: common.agreement.map(|agreement| agreement.terms.cert_id),
        contract_spk: buying.contract_spk().cloned(),
        price_sat: buyer.row.price_sat(),
        fund_by: common.agreement.map(|agreement| agreement.terms.fund_by),
        refund_at: common.agreement.map(|agreement| agreement.terms.refund_at),
        fund: common.fund(),
        claim: common.claim(),
        refund: common.refund(),
        preimage: common.preimage(),
        opened_ms: buyer.opened_ms,
        deadlines: buyer.deadlines(),
        trouble: buying.pace.trouble.clone(),
    }
}

fn of_sell(selling: &Selling) -> TradeView {
    let seller = &selling.seller;
    let common = Common {
        agreement: seller.state.agreement(),
        facts: seller.state.granted().map(|granted| &granted.facts),
        fund_fee_sat: None,
    };
    let code = match &seller.state {
        seller::State::Released { code, .. } | seller::State::NeverReveal { code, .. } => {
            Some(code.clone())
        }
        _ => None,
    };
    // The own claim is known before a mempool shows it.
    let sent = seller.state.claim().map(|claim| TxView {
        txid: claim.txid(),
        height: None,
        vsize: claim.tx.vsize() as u64,
        fee_sat: Some(claim.fee_sat),
    });
    TradeView {
        trade: seller.trade,
        role: Role::Seller,
        state: seller.state.name(),
        next: next_of_sell(&seller.state),
        done: seller.state.is_done(),
        code,
        row: seller.row.clone(),
        counterparty: seller.buyer,
        to: common.agreement.map(|agreement| agreement.terms.to),
        terms_hash: common.agreement.map(|agreement| agreement.hash),
        cert: common.agreement.map(|agreement| agreement.terms.cert_id),
        contract_spk: selling.contract_spk().cloned(),
        price_sat: seller.row.price_sat(),
        fund_by: common.agreement.map(|agreement| agreement.terms.fund_by),
        refund_at: common.agreement.map(|agreement| agreement.terms.refund_at),
        fund: common.fund(),
        claim: common.claim().or(sent),
        refund: common.refund(),
        preimage: common.preimage(),
        opened_ms: seller.opened_ms,
        deadlines: selling.deadlines(),
        trouble: selling.pace.trouble.clone(),
    }
}

fn next_of_buy(state: &buyer::State) -> &'static str {
    match state {
        buyer::State::Draft { .. } => "the seller signs terms",
        buyer::State::TermsSigned(_) => "the provider locks the certificate",
        buyer::State::Locked { .. } => "listening for a conflicting lock",
        buyer::State::Funding { .. } => "the wallet signs the funding",
        buyer::State::FundBuilt(_) => "the provider acknowledges the funding",
        buyer::State::FundSent(_) => "the funding confirms",
        buyer::State::FundConfirmed(_) => "the seller claims, or the refund height comes",
        buyer::State::PreimageKnown(_) => "the claim confirms and the provider activates",
        buyer::State::Active { .. } => "nothing: the certificate is held",
        buyer::State::Cancelling { .. } => "the replacement of the funding confirms",
        buyer::State::Refunding { .. } => "the refund confirms",
        buyer::State::Cancelled(_) | buyer::State::Refunded(_) => "nothing: the coins are back",
        buyer::State::Aborted { .. } => "nothing: no coins left this node",
    }
}

fn next_of_sell(state: &seller::State) -> &'static str {
    match state {
        seller::State::Offered { .. } => "the buyer asks for terms",
        seller::State::TermsSigned { .. } => "the buyer accepts",
        seller::State::LockGranted(_) => "the buyer sends its funding",
        seller::State::FundSeen(_) => "the funding confirms deep enough",
        seller::State::FundFinal(_) => "the claim is sent",
        seller::State::ClaimSent { .. } => "the claim confirms",
        seller::State::Claimed { .. } => "the claim becomes final",
        seller::State::Settled { .. } => "nothing: paid",
        seller::State::NeverReveal { .. } => "the buyer takes its refund",
        seller::State::Released { .. } => "nothing: the units are free",
    }
}
