//! What may be read of an engine. Components tell the rest themselves.

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::ScriptBuf;

use super::Engine;
use super::certificates::CertificateView;
use super::contacts::Contacts;
use super::holdings::Holdings;
use super::kernel::{ChainView, Conduct, Kernel, Payout, Treasury};
use super::leases::Leases;
use super::market::{Circumstances, Judgement, Market, OrderSpec};
use super::pools::Pools;
use super::register::Register;
use super::shelf::Shelf;
use super::trades::Trades;
use super::witness::Witness;
use crate::certificate::Certificate;
use crate::ids::{CertId, Key};
use crate::params::Params;
use crate::units::{Slot, TimeMs};

impl Engine {
    /// Network definition.
    #[must_use]
    pub fn params(&self) -> &Params {
        &self.kernel.params
    }

    /// Public identity.
    #[must_use]
    pub fn me(&self) -> Key {
        self.kernel.keys.public()
    }

    /// Chain view.
    #[must_use]
    pub fn chain(&self) -> &ChainView {
        &self.kernel.chain
    }

    /// Unused scripts of the wallet at hand.
    pub fn fresh_scripts(&self) -> impl ExactSizeIterator<Item = &ScriptBuf> {
        self.kernel.wallet.fresh_spks.iter()
    }

    /// Places for what sales earn that are at hand, each for one sale.
    pub fn fresh_payouts(&self) -> impl Iterator<Item = &ScriptBuf> {
        let fresh = match &self.kernel.wallet.payout {
            Payout::Fresh(spks) => Some(spks),
            Payout::Wallet | Payout::Fixed(_) => None,
        };
        fresh.into_iter().flatten()
    }

    /// Coins and what they are reserved for.
    #[must_use]
    pub fn treasury(&self) -> &Treasury {
        &self.kernel.treasury
    }

    /// Who let trades lapse, and whom nothing is signed towards.
    #[must_use]
    pub fn conduct(&self) -> &Conduct {
        &self.kernel.conduct
    }

    /// Standing orders, epochs, results.
    #[must_use]
    pub fn market(&self) -> &Market {
        &self.market
    }

    /// What would become of an order that were placed now.
    #[must_use]
    pub fn judge_order(&self, now_ms: TimeMs, spec: &OrderSpec) -> Judgement {
        let shelf = Shelf { me: self.me(), register: &self.register, holdings: &self.holdings };
        self.market.judge(&self.circumstances(now_ms), &shelf, spec)
    }

    /// What orders are judged by now.
    #[must_use]
    pub fn circumstances(&self, now_ms: TimeMs) -> Circumstances<'_> {
        let Kernel { params, chain, treasury, conduct, .. } = &self.kernel;
        Circumstances { now_ms, params, me: self.me(), chain, treasury, conduct }
    }

    /// Settlements.
    #[must_use]
    pub fn trades(&self) -> &Trades {
        &self.trades
    }

    /// Certificates issued here and the ledger of units.
    #[must_use]
    pub fn register(&self) -> &Register {
        &self.register
    }

    /// Certificates that this node holds or held.
    #[must_use]
    pub fn holdings(&self) -> &Holdings {
        &self.holdings
    }

    /// What was heard of providers.
    #[must_use]
    pub fn witness(&self) -> &Witness {
        &self.witness
    }

    /// Every signed byte of a certificate held or issued.
    #[must_use]
    pub fn certificate(&self, id: &CertId) -> Option<&Certificate> {
        self.holdings.certificate(id).or_else(|| self.register.certificate(id))
    }

    /// Certificates issued here, then those held, as they are in a slot.
    #[must_use]
    pub fn certificates(&self, slot: Slot) -> Vec<CertificateView> {
        let held = self.holdings.views(self.me(), slot);
        let held = held.map(|view| CertificateView {
            on_offer: self.market.offering(&view.facts.cert_id),
            ..view
        });
        self.register.views(slot).chain(held).collect()
    }

    /// Leases on both sides.
    #[must_use]
    pub fn leases(&self) -> &Leases {
        &self.leases
    }

    /// Pools of which this node is a member.
    #[must_use]
    pub fn pools(&self) -> &Pools {
        &self.pools
    }

    /// Contacts heard.
    #[must_use]
    pub fn contacts(&self) -> &Contacts {
        &self.contacts
    }

    /// Connected peers.
    #[must_use]
    pub fn peers(&self) -> &BTreeSet<Key> {
        &self.peers
    }

    /// Refused messages by reason code.
    #[must_use]
    pub fn refused(&self) -> &BTreeMap<String, u64> {
        &self.refused
    }
}
