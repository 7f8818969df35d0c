//! Certificates on offer: standing asks of what this node holds, or of a part of it.
//!
//! A certificate on offer is sold by nobody else and moves in no other way. Where a row takes a
//! part of it, its provider splits that off first: the standing ask goes on with what is left.

use serde::{Deserialize, Serialize};

use super::records::StandingV1;
use super::{Circumstances, Inventory, Market, OrderSpec, SignedOrder, Standing, StandingState};
use crate::certificate::objects::Area;
use crate::certificate::{VerifiedCertificate, cut, lowest_units};
use crate::code;
use crate::engine::io::Refusal;
use crate::engine::kernel::Context;
use crate::epoch::{computed_at_ms, epoch_at};
use crate::ids::{CertId, StandingId};
use crate::order::Source;
use crate::params::Params;
use crate::reason;
use crate::units::{Slot, Window};
use crate::wire::Envelope;

/// A held certificate of which a standing ask sells something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    pub cert: CertId,
    /// What of it is for sale.
    pub area: Area,
    /// First slot of the certificate: nothing of it changes hands once that has begun.
    pub begins: Slot,
}

/// A certificate that may be sold, and what shows it to others.
#[derive(Debug, Clone, Copy)]
pub struct Title<'a> {
    pub facts: &'a VerifiedCertificate,
    /// The last Activation, as its provider signed it.
    pub activation: &'a Envelope,
}

/// What has become of a certificate.
#[derive(Debug, Clone)]
pub enum Stock<'a> {
    Held(Title<'a>),
    /// A gift, a split or a merge waits for its provider.
    Waits,
    /// It was split into these certificates.
    Cut(Vec<(CertId, Area)>),
    /// It is somebody else's.
    Moved,
    /// It was redeemed, merged or sold.
    Consumed,
}

impl Title<'_> {
    fn source(&self) -> Source {
        let activation = Box::new(self.activation.clone());
        Source::Resale { activation, salt16: self.facts.salt16 }
    }
}

impl Offer {
    /// Whether what an epoch matches comes too late: nothing of it can be settled, or its provider
    /// could not move it before its window begins.
    fn is_over(&self, epoch: u64, params: &Params) -> bool {
        let begins_ms = u64::from(self.begins) * u64::from(params.slot_s) * 1000;
        let moves_ms = computed_at_ms(epoch, params).saturating_add(params.settle.terms_ms);
        self.area.window.end <= params.first_slot(epoch) || moves_ms >= begins_ms
    }

    /// What of its window an epoch can trade.
    fn window_in(&self, epoch: u64, params: &Params) -> Option<Window> {
        let start = self.area.window.start.max(params.first_slot(epoch));
        Window::new(start, self.area.window.end.min(params.horizon_end(epoch)))
    }
}

impl Standing {
    /// Whether a row that is being settled takes something of an offer.
    fn is_selling(&self, offer: &Offer) -> bool {
        self.parts.values().any(|area| area.overlaps(&offer.area))
    }
}

impl Market {
    /// The standing ask for which a certificate is reserved, if there is one: while it is open, as
    /// long as an ask that was signed may still be matched, and until its sale has ended.
    #[must_use]
    pub fn offering(&self, cert: &CertId) -> Option<StandingId> {
        let reserves = |standing: &&Standing| {
            standing.offers.iter().filter(|offer| offer.cert == *cert).any(|offer| {
                standing.is_open() || standing.is_selling(offer) || self.is_firm(standing.id)
            })
        };
        self.standing.values().find(reserves).map(|standing| standing.id)
    }

    /// Whether something was signed of a standing order that has not been matched yet.
    pub(super) fn is_firm(&self, id: StandingId) -> bool {
        let through = self.epochs.computed_through;
        let mut signed = self.signed.values().chain(self.drafts.iter());
        signed.any(|signed| signed.standing == id && signed.epoch > through)
    }

    /// What an ask of a certificate offers, and what it shows.
    ///
    /// # Errors
    /// `resale.*`: it cannot be sold, or not so.
    pub(super) fn offer_of(
        &self,
        at: &Circumstances<'_>,
        inventory: &dyn Inventory,
        spec: &OrderSpec,
        cert: CertId,
    ) -> Result<(Offer, Source), Refusal> {
        let refuse = |reason, message: &str| Err(Refusal::new(reason, message));
        let title = match inventory.stock(&cert) {
            None => {
                return refuse(reason!("resale.unknown_certificate"), "no such certificate here");
            }
            Some(Stock::Held(title)) => title,
            Some(Stock::Waits) => {
                return refuse(
                    reason!("resale.pending"),
                    "a gift, a split or a merge of it waits for the provider",
                );
            }
            Some(Stock::Moved) => {
                return refuse(reason!("resale.not_holder"), "this node does not hold it");
            }
            Some(Stock::Consumed | Stock::Cut(_)) => {
                let message = "it was redeemed, split, merged or sold";
                return refuse(reason!("resale.consumed"), message);
            }
        };
        if let Some(standing) = self.offering(&cert) {
            let message = format!("it is on offer already, by order {standing}");
            return refuse(reason!("resale.on_offer"), &message);
        }
        let facts = title.facts;
        if facts.recall.is_some() {
            let message = "who paid for it may recall it";
            return refuse(reason!("resale.recallable"), message);
        }
        let fits = spec.alts.iter().all(|alt| alt.class == facts.class)
            && spec.features & !facts.features == 0;
        if !fits {
            let message = "the certificate has another class, or lacks a feature of the ask";
            return refuse(reason!("resale.other_kind"), message);
        }
        let units = lowest_units(&facts.units, spec.qty);
        let (Some(units), true) = (units, facts.window.covers(spec.window)) else {
            let message = "the certificate has not so many units, or not these slots";
            return refuse(reason!("resale.outside"), message);
        };
        let area = Area { units, window: spec.window };
        let offer = Offer { cert, area, begins: facts.window.start };
        if offer.is_over(epoch_at(at.now_ms, at.params), at.params) {
            let message = "its window begins too soon for a sale";
            return refuse(reason!("resale.window_too_near"), message);
        }
        Ok((offer, title.source()))
    }

    /// Signs an ask for each certificate on offer that no row takes anything of.
    pub(super) fn sign_resales(
        &mut self,
        ctx: &mut Context<'_>,
        inventory: &dyn Inventory,
        standing: &Standing,
        epoch: u64,
    ) {
        for offer in standing.offers.iter().filter(|offer| !standing.is_selling(offer)) {
            let Some(Stock::Held(title)) = inventory.stock(&offer.cert) else { continue };
            let window = offer.window_in(epoch, ctx.params);
            let long_enough = |window: &Window| window.len() >= u32::from(standing.spec.min_run);
            let Some(window) = window.filter(long_enough) else { continue };
            if offer.is_over(epoch, ctx.params) {
                continue;
            }
            if !self.has_room(standing.id, epoch) {
                return;
            }
            let units = offer.area.units.clone();
            let (qty, spec) = (units.count(), &standing.spec);
            if let Err(refusal) = Circumstances::of(ctx).check_signing(spec, qty) {
                return self.note(standing.id, &refusal.code);
            }
            let signed = SignedOrder {
                standing: standing.id,
                epoch,
                rectangle: Some((units, window)),
                features: spec.features,
                reserved_sat: 0,
            };
            self.begin(ctx, spec, (qty, window), title.source(), signed);
        }
    }

    /// Ends the asks of certificates whose windows begin too soon for a sale.
    pub(super) fn expire_resales(&mut self, ctx: &mut Context<'_>) {
        let epoch = epoch_at(ctx.now_ms, ctx.params);
        let open = self.standing.values_mut().filter(|standing| standing.is_open());
        for standing in open.filter(|standing| !standing.offers.is_empty()) {
            let is_over = |offer: &Offer| offer.is_over(epoch, ctx.params);
            if standing.parts.is_empty() && standing.offers.iter().all(is_over) {
                standing.state = StandingState::Expired;
                standing.note = Some(code!("resale.window_too_near").to_owned());
                ctx.out.store(&standing.id.0, &StandingV1::from(&*standing));
            }
        }
    }

    /// Goes on with what has become of the certificates on offer: the parts of one that was split
    /// take its place, and one that is gone is offered no more.
    pub fn follow_certificates(&mut self, ctx: &mut Context<'_>, inventory: &dyn Inventory) {
        for standing in self.standing.values_mut().filter(|one| !one.offers.is_empty()) {
            let mut offers = Vec::with_capacity(standing.offers.len());
            for offer in &standing.offers {
                match inventory.stock(&offer.cert) {
                    Some(Stock::Held(_) | Stock::Waits) => offers.push(offer.clone()),
                    Some(Stock::Cut(parts)) => offers.extend(parts_on_offer(offer, parts)),
                    Some(Stock::Moved | Stock::Consumed) if standing.is_selling(offer) => {
                        offers.push(offer.clone());
                    }
                    Some(Stock::Moved | Stock::Consumed) | None => {}
                }
            }
            if offers == standing.offers {
                continue;
            }
            standing.offers = offers;
            if standing.offers.is_empty() && standing.is_open() {
                standing.state = StandingState::Expired;
                standing.note = Some(code!("resale.consumed").to_owned());
            }
            ctx.out.store(&standing.id.0, &StandingV1::from(&*standing));
        }
    }

    /// The parts into which a certificate on offer has to be split for what rows take of it.
    #[must_use]
    pub fn cut_of(&self, inventory: &dyn Inventory, cert: &CertId) -> Option<Vec<Area>> {
        let Some(Stock::Held(title)) = inventory.stock(cert) else { return None };
        let mut offers =
            self.standing.values().flat_map(|one| one.offers.iter().map(move |o| (one, o)));
        let (standing, offer) =
            offers.find(|(standing, offer)| offer.cert == *cert && standing.is_selling(offer))?;
        let taken = standing.parts.values().filter(|area| area.overlaps(&offer.area));
        let taken: Vec<Area> = taken.cloned().collect();
        cut(&title.facts.area(), &offer.area, &taken)
    }

    /// A row of a certificate ended: sold, or on offer again.
    pub(super) fn end_part(standing: &mut Standing, area: &Area, is_sold: bool) {
        if !is_sold {
            return;
        }
        standing.offers.retain(|offer| !offer.area.overlaps(area));
        if standing.is_open() && standing.offers.is_empty() {
            standing.state = StandingState::Filled;
        }
    }
}

/// What of a certificate that was split is still for sale.
fn parts_on_offer(
    offer: &Offer,
    parts: Vec<(CertId, Area)>,
) -> impl Iterator<Item = Offer> + use<'_> {
    let is_offered =
        |area: &Area| offer.area.window.covers(area.window) && offer.area.units.covers(&area.units);
    let offered = parts.into_iter().filter(move |(_, area)| is_offered(area));
    offered.map(|(cert, area)| Offer { cert, begins: area.window.start, area })
}
