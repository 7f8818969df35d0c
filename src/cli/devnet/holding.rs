//! Certificates change hands, and are worth nothing in a former holder's.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::broken::Broken;
use super::document::{CertificatePart, RefusalPart};
use super::node::Node;
use super::reselling::RESALE;
use super::story::id;
use super::wait::{Awaited, Look};
use super::{Run, Title};
use crate::api::types::{
    Certificate, FileBody, GiftTo, Gifted, RedeemBody, Redeemed, SplitInto, SplitOff,
};
use crate::definitions;
use crate::executor::samples::WORDSUM;
use capex_core::certificate::{file, verify};
use capex_core::reason;

/// What a provider says to a former holder.
const NOT_HOLDER: &str = "redeem.not_holder";
/// Input of the workload.
const INPUT: &str = "input.txt";
/// What the workload leaves.
pub(super) const RESULT: &str = "result.txt";

const GIFT_TIME: Duration = Duration::from_secs(15);

impl Run<'_> {
    /// The first certificate is cut in halves, one of which its buyer gives to the bystander and
    /// sells the other; the buyer of the second gives it to the buyer of the first, and tries it
    /// all the same.
    ///
    /// # Errors
    /// What did not change hands, or a giver that was not refused.
    pub(super) fn hand_on(&mut self) -> Result<(), Broken> {
        let [first, second, ..] = &self.plan.trades;
        let (holder, provider) = (first.buyer, first.seller);
        let (giver, other) = (second.buyer, second.seller);
        let bystander = self.nodes.len() - 1;
        let [resold, given] = self.halve(holder)?;
        self.give(&given, holder, bystander)?;
        self.tell_halves([&resold, &given], holder, bystander)?;
        let whole = self.sold[1].cert_id.clone();
        self.give(&whole, giver, holder)?;
        self.refuse_former_holder(&whole, [giver, holder], other)?;
        let pool_id = self.found_pool(bystander)?;
        self.resell(&resold)?;
        let pooled = self.see_pool(&pool_id, bystander)?;
        self.titles = vec![
            Title { cert_id: whole, holder, provider: other },
            Title { cert_id: resold, holder: self.plan.trades[RESALE].buyer, provider },
            Title { cert_id: given, holder: bystander, provider },
            Title { cert_id: pooled, holder: bystander, provider: other },
        ];
        Ok(())
    }

    /// Cuts the first certificate in halves: their ids.
    fn halve(&self, holder: usize) -> Result<[String; 2], Broken> {
        let (holder, cert_id) = (&self.nodes[holder], &self.sold[0].cert_id);
        let half = SplitOff { qty: Some(self.plan.trades[0].qty / 2), window: None };
        let into: SplitInto = holder.post(&format!("/certificates/{cert_id}/split"), &half)?;
        let parts = into.parts.into_iter().map(|part| part.cert_id).collect::<Vec<_>>();
        parts.try_into().map_err(|parts: Vec<_>| {
            let message = format!("{} parts in place of two halves", parts.len());
            Broken::new(reason!("devnet.certificate"), message).at(holder.name())
        })
    }

    fn tell_halves(
        &mut self,
        halves: [&str; 2],
        holder: usize,
        receiver: usize,
    ) -> Result<(), Broken> {
        let [holder, receiver] = [holder, receiver].map(|n| self.nodes[n].name());
        let (whole, [kept, given]) = (id(&self.sold[0].cert_id), halves.map(id));
        self.story.tell(format_args!(
            "{holder} cut certificate {whole} in halves, {kept} and {given}, and gave {given} to {receiver}"
        ))
    }

    fn give(&self, cert_id: &str, giver: usize, receiver: usize) -> Result<(), Broken> {
        let (giver, receiver) = (&self.nodes[giver], &self.nodes[receiver]);
        let body = GiftTo { qty: None, window: None, to: receiver.key.clone() };
        let gifted: Gifted = giver.post(&format!("/certificates/{cert_id}/gift"), &body)?;
        let awaited = Awaited { what: "the gift", from: receiver.name(), limit: GIFT_TIME };
        self.wait(awaited, || {
            let certificate = receiver.certificate(cert_id)?;
            let is_held = certificate.holder == receiver.key && certificate.seq == gifted.seq;
            Ok(Look::when(is_held, || {
                format!("holder {} after {} transfers", id(&certificate.holder), certificate.seq)
            }))
        })
    }

    fn refuse_former_holder(
        &mut self,
        cert_id: &str,
        [giver, holder]: [usize; 2],
        provider: usize,
    ) -> Result<(), Broken> {
        let (giver, provider) = (&self.nodes[giver], &self.nodes[provider]);
        let attempt: Result<Redeemed, Broken> =
            giver.post(&format!("/certificates/{cert_id}/redeem"), &workload(&self.plan.inputs[0]));
        let broken = match attempt {
            Ok(_) => {
                let message = format!("{} redeemed what is not its own", giver.name());
                return Err(Broken::new(reason!("devnet.not_refused"), message).at(provider.name()));
            }
            Err(broken) if broken.failure.code == NOT_HOLDER => broken,
            Err(other) => return Err(other),
        };
        self.document.refusals.push(RefusalPart {
            what: "redeem",
            by: giver.key.clone(),
            cert_id: cert_id.to_owned(),
            code: broken.failure.code.clone(),
        });
        self.story.tell(format_args!(
            "{} gave certificate {} to {} and tried to redeem it all the same: {} refused with {NOT_HOLDER}",
            giver.name(),
            id(cert_id),
            self.nodes[holder].name(),
            provider.name(),
        ))
    }

    /// Presents a certificate with its workload; the lease's id.
    ///
    /// # Errors
    /// What the provider refused.
    pub(super) fn redeem(&self, title: &Title, input: &str) -> Result<String, Broken> {
        let path = format!("/certificates/{}/redeem", title.cert_id);
        let redeemed: Redeemed = self.nodes[title.holder].post(&path, &workload(input))?;
        Ok(redeemed.lease_id)
    }

    /// The certificates as their holders have them, verified offline for every other node.
    ///
    /// # Errors
    /// What cannot be exported.
    pub(super) fn note_certificates(&mut self) -> Result<(), Broken> {
        for title in &self.titles {
            let holder = &self.nodes[title.holder];
            let certificate = holder.certificate(&title.cert_id)?;
            let text = holder.text(&format!("/certificates/{}/file", certificate.cert_id))?;
            let verified_by = self.verifiers(holder, &certificate, &text)?;
            self.document.certificates.push(CertificatePart {
                cert_id: certificate.cert_id,
                provider: certificate.provider,
                class: certificate.class,
                window: certificate.window,
                units: certificate.units,
                holder: certificate.holder,
                seq: certificate.seq,
                transfers: certificate.transfers,
                verified_by,
            });
        }
        Ok(())
    }

    /// Nodes for which the exported file proves what the holder says. A node has no call to
    /// verify a stranger's file, as that needs no node: what `capex cert verify` does is done
    /// here once for each node but the holder's, with the definition of the network that its
    /// own status names.
    fn verifiers(
        &self,
        holder: &Node,
        certificate: &Certificate,
        text: &str,
    ) -> Result<Vec<&'static str>, Broken> {
        let mut names = Vec::new();
        for node in self.nodes.iter().filter(|node| node.key != holder.key) {
            let network = node.status()?.network;
            proves(text, &network, certificate).map_err(|what| {
                let message =
                    format!("certificate {} for {}: {what}", id(&certificate.cert_id), node.name());
                Broken::new(reason!("devnet.certificate"), message).at(holder.name())
            })?;
            names.push(node.name());
        }
        Ok(names)
    }
}

/// Whether a certificate file proves, by itself, what an API says of the certificate.
fn proves(text: &str, network: &str, said: &Certificate) -> Result<(), String> {
    let params = definitions::load(network)?;
    let parsed = file::parse(text, &params).map_err(|error| error.to_string())?;
    let facts = verify(&parsed, &params).map_err(|error| error.to_string())?;
    let proven = (facts.cert_id.to_string(), facts.holder.to_string(), facts.seq);
    if proven == (said.cert_id.clone(), said.holder.clone(), said.seq) {
        return Ok(());
    }
    Err("the file proves another holder than the node names".to_owned())
}

fn workload(input: &str) -> RedeemBody {
    RedeemBody {
        component_base64: BASE64.encode(WORDSUM),
        inputs: vec![FileBody { name: INPUT.to_owned(), base64: BASE64.encode(input) }],
        results: vec![RESULT.to_owned()],
        ..RedeemBody::default()
    }
}
