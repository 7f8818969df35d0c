//! What a buyer begins with.

use super::{BuyLimits, KEYS};
use crate::certificate::Certificate;
use crate::engine::kernel::Context;
use crate::ids::{Key, TradeId};
use crate::settlement::buyer::{Buyer, State};
use crate::settlement::objects::{Funder, Row};
use crate::wire::Envelope;

/// What a buyer knows of the seller's side when a trade is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Purchase {
    pub seller: Key,
    /// Who keeps the register of the certificate: the seller itself, unless it resells.
    pub registrar: Key,
    pub to: Key,
    /// What the buyer insists on beyond the row.
    pub limits: BuyLimits,
    /// Others who pay a part of the price.
    pub partners: Vec<Funder>,
    /// Set where all pay by one transaction: what each pays for its part of it, sat/kvB.
    pub together: Option<u64>,
}

/// What another who pays a part of the price is shown, to sign it too.
#[derive(Debug)]
pub struct Invited<'a> {
    /// Index of the refund key that the terms name for it.
    pub key_index: u64,
    /// The certificate on sale; at a primary sale its Issue alone.
    pub title: Certificate,
    /// As the seller signed them.
    pub terms: &'a Envelope,
}

/// A new buyer's side.
pub(super) fn draft(ctx: &mut Context<'_>, row: &Row, trade: TradeId, buy: Purchase) -> Buyer {
    let until_ms = ctx.now_ms.saturating_add(ctx.params.settle.terms_ms);
    Buyer {
        trade,
        row: row.clone(),
        seller: buy.seller,
        registrar: buy.registrar,
        to: buy.to,
        features: buy.limits.features,
        fee_cap_sat: buy.limits.fee_cap_sat,
        max_loss_sat: buy.limits.max_loss_sat,
        fee_reserve_sat: buy.limits.fee_cap_sat,
        key_index: ctx.next_index(KEYS),
        opened_ms: ctx.now_ms,
        use_by: buy.limits.use_by,
        is_recallable: buy.limits.is_recallable,
        partners: buy.partners,
        together: buy.together,
        state: State::Draft { request: None, until_ms },
    }
}
