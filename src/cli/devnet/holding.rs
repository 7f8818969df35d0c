//! Certificates change hands, and are worth nothing in a former holder's.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::Run;
use super::broken::Broken;
use super::document::{CertificatePart, RefusalPart};
use super::node::Node;
use super::plan::PlannedTrade;
use super::story::id;
use super::wait::{Awaited, Look};
use crate::api::types::{Certificate, FileBody, GiftTo, Gifted, RedeemBody, Redeemed};
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
    /// Gives the second certificate to the buyer of the first, and lets the giver try it.
    ///
    /// # Errors
    /// The gift did not arrive, or the giver was not refused.
    pub(super) fn give(&mut self) -> Result<(), Broken> {
        let cert_id = self.sold[1].cert_id.clone();
        let (giver, receiver) = (&self.nodes[self.plan.trades[1].buyer], self.receiver());
        let body = GiftTo { qty: None, window: None, to: receiver.key.clone() };
        let _: Gifted = giver.post(&format!("/certificates/{cert_id}/gift"), &body)?;
        let awaited = Awaited { what: "the gift", from: receiver.name(), limit: GIFT_TIME };
        self.wait(awaited, || {
            let certificate = receiver.certificate(&cert_id)?;
            let is_held = certificate.holder == receiver.key && certificate.seq == 2;
            Ok(Look::when(is_held, || {
                format!("holder {} after {} transfers", id(&certificate.holder), certificate.seq)
            }))
        })?;
        let (from, to) = (giver.name(), receiver.name());
        self.story.tell(format_args!(
            "{from} gave certificate {} to {to}, free of charge",
            id(&cert_id)
        ))?;
        self.refuse_former_holder(&cert_id)
    }

    /// Who redeems both certificates: the buyer of the first.
    pub(super) fn receiver(&self) -> &Node {
        &self.nodes[self.plan.trades[0].buyer]
    }

    fn refuse_former_holder(&mut self, cert_id: &str) -> Result<(), Broken> {
        let planned = &self.plan.trades[1];
        let (giver, provider) = (&self.nodes[planned.buyer], &self.nodes[planned.seller]);
        let attempt: Result<Redeemed, Broken> =
            giver.post(&format!("/certificates/{cert_id}/redeem"), &workload(planned));
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
            "{} tried to redeem it all the same: {} refused with {NOT_HOLDER}",
            giver.name(),
            provider.name(),
        ))
    }

    /// Presents certificate `n` with its workload; the lease's id.
    ///
    /// # Errors
    /// What the provider refused.
    pub(super) fn redeem(&self, n: usize) -> Result<String, Broken> {
        let path = format!("/certificates/{}/redeem", self.sold[n].cert_id);
        let redeemed: Redeemed = self.receiver().post(&path, &workload(&self.plan.trades[n]))?;
        Ok(redeemed.lease_id)
    }

    /// The certificates as their holder has them, verified offline for every other node.
    ///
    /// # Errors
    /// What cannot be exported.
    pub(super) fn note_certificates(&mut self) -> Result<(), Broken> {
        for n in 0..self.sold.len() {
            let holder = self.receiver();
            let certificate = holder.certificate(&self.sold[n].cert_id)?;
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

fn workload(planned: &PlannedTrade) -> RedeemBody {
    RedeemBody {
        component_base64: BASE64.encode(WORDSUM),
        args: Vec::new(),
        inputs: vec![FileBody { name: INPUT.to_owned(), base64: BASE64.encode(&planned.input) }],
        results: vec![RESULT.to_owned()],
    }
}
