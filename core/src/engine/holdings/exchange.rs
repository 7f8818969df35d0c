//! Whole certificates between peers: acquire, push, fetch.

use super::records::HeldRecord;
use super::{BROUGHT_HOPS_PER_PROVIDER, HELD_MAX, Holdings, HoldingsPurpose};
use crate::certificate::objects::{Activation, Base, Gift, Hop};
use crate::certificate::{Certificate, VerifiedCertificate, verify};
use crate::code;
use crate::engine::certificates::notify;
use crate::engine::courier::{self, CourierReply, CourierRequest};
use crate::engine::io::{Done, Protocol};
use crate::engine::kernel::{Answer, Context, answer, remote_code};
use crate::engine::messages::{SettleReply, SettleRequest};
use crate::engine::register::{RegisterReply, RegisterRequest};
use crate::engine::witness::Witness;
use crate::ids::{CertId, Key};

/// How a certificate comes here.
#[derive(Clone, Copy)]
enum How<'a> {
    Bought,
    /// An operator asked for it, or brought it as a file.
    Fetched,
    /// A peer brought it, or its provider told of it. Says who has an order.
    Brought(&'a dyn Fn(&Key) -> bool),
}

impl How<'_> {
    fn what(self) -> &'static str {
        match self {
            Self::Bought => "acquired",
            Self::Fetched | Self::Brought(_) => "received",
        }
    }

    /// The same where somebody else holds it.
    fn what_of_others(self) -> &'static str {
        match self {
            Self::Bought => "acquired",
            Self::Fetched | Self::Brought(_) => "given",
        }
    }
}

impl Holdings {
    /// Stores a certificate that this node has bought: for itself, or for another key as its
    /// receipt.
    ///
    /// # Errors
    /// A code of [`crate::certificate::CertificateError`], `acquire.window_past` or
    /// `acquire.full`.
    pub fn acquire(
        &mut self,
        ctx: &mut Context<'_>,
        witness: &mut Witness,
        certificate: Certificate,
    ) -> Result<CertId, &'static str> {
        self.take(ctx, witness, certificate, How::Bought)
    }

    /// Verifies a certificate and stores it if it is this node's, or paid by it, and longer than
    /// what it has.
    fn take(
        &mut self,
        ctx: &mut Context<'_>,
        witness: &mut Witness,
        certificate: Certificate,
        how: How<'_>,
    ) -> Result<CertId, &'static str> {
        let facts = verify(&certificate, ctx.params).map_err(|error| error.code())?;
        let id = facts.cert_id;
        match how {
            How::Bought => witness.testify(ctx, &certificate),
            How::Fetched | How::Brought(_)
                if facts.holder != ctx.me() && !self.has_moved_on(ctx, &facts, &certificate) =>
            {
                return Err(code!("acquire.not_holder"));
            }
            How::Fetched | How::Brought(_) => {}
        }
        // Anyone can make up a provider whose words cost nothing: they have no room.
        let matters = match how {
            How::Bought | How::Fetched => true,
            How::Brought(is_trader) => is_trader(&facts.provider),
        };
        if matters || self.has_provider(&facts.provider) {
            witness.learn_certificate(ctx, &certificate);
        }
        let is_wanted = !matches!(how, How::Brought(_));
        let known = self.held.get_mut(&id);
        let was_wanted = known.as_ref().is_some_and(|known| known.is_wanted);
        if let Some(known) = known.filter(|known| known.facts.seq >= facts.seq) {
            if is_wanted && !was_wanted {
                known.is_wanted = true;
                self.save(ctx, id);
            }
            return Ok(id);
        }
        if ctx.params.slot_at(ctx.now_ms) >= facts.window.end {
            return Err(code!("acquire.window_past"));
        }
        let is_known = self.held.contains_key(&id);
        if !is_known && self.held.len() >= HELD_MAX {
            return Err(code!("acquire.full"));
        }
        if let How::Brought(is_trader) = how
            && !was_wanted
        {
            if Self::is_beyond_horizon(ctx, facts.window.end) {
                return Err(code!("acquire.beyond_horizon"));
            }
            if !is_known {
                self.make_room(ctx, facts.provider, certificate.hops.len(), is_trader)?;
            }
        }
        let what = if facts.holder == ctx.me() { how.what() } else { how.what_of_others() };
        self.overtaken(ctx, id, &certificate.hops);
        self.pushes.end(id);
        self.spend_lineage(ctx, &certificate);
        self.held.insert(id, HeldRecord::new(certificate, facts, is_wanted || was_wanted));
        self.save(ctx, id);
        notify(ctx, id, what);
        self.ask_checkpoint(ctx, id);
        Ok(id)
    }

    /// Whether a certificate shows that who decides of what is here has signed it away: this node,
    /// or who may recall it. Its provider may grant a gift that it has refused before, if a copy
    /// of it comes later. Of a gift that lies before a checkpoint its provider says so, and it
    /// counts only if this node has signed one: otherwise what is here is the better proof.
    fn has_moved_on(
        &self,
        ctx: &Context<'_>,
        facts: &VerifiedCertificate,
        certificate: &Certificate,
    ) -> bool {
        let Some(record) = self.held.get(&facts.cert_id) else { return false };
        let known = &record.facts;
        let is_left_behind = certificate.bases.iter().any(|base| match base {
            Base::Checkpoint { activation, .. } => activation
                .peek::<Activation>()
                .is_ok_and(|said| said.cert_id == known.cert_id && said.seq > known.seq),
            Base::Issue(_) => false,
        });
        let head = (known.cert_id, known.seq, known.last_hash);
        let is_it = |hop: &Hop| match hop {
            Hop::Gift { gift, .. } => {
                let said = gift.peek::<Gift>().map(|gift| (gift.cert_id, gift.seq, gift.prev_hash));
                gift.key == known.giver().0 && said == Ok(head)
            }
            Hop::Sale { .. } | Hop::Split { .. } | Hop::Merge { .. } => false,
        };
        let is_left_behind = is_left_behind && record.has_signed_gift;
        let is_its = facts.provider == known.provider;
        known.holder == ctx.me() && is_its && (is_left_behind || certificate.hops.iter().any(is_it))
    }

    /// Forgets a certificate that this node has no right to: its own trades say so.
    pub fn let_go(&mut self, ctx: &mut Context<'_>, certificate: &Certificate) {
        let Some(id) = certificate.id(ctx.params.magic) else { return };
        let is_it = |record: &HeldRecord| record.certificate == *certificate;
        if self.held.get(&id).is_some_and(is_it) && self.evict(ctx, id).is_some() {
            notify(ctx, id, "taken_back");
        }
    }

    /// Takes in a certificate that an operator kept as a file: what this node was sold or given,
    /// though it may know nothing of it any more. One that is here already changes nothing.
    ///
    /// # Errors
    /// As [`Holdings::acquire`], `acquire.not_holder`; `acquire.unknown_provider` unless `is_known` knows its provider or the
    /// operator names it, `acquire.other_provider`, `acquire.stale`, `acquire.contradicted`.
    pub(super) fn import(
        &mut self,
        ctx: &mut Context<'_>,
        witness: &mut Witness,
        is_known: &dyn Fn(&Key) -> bool,
        certificate: Certificate,
        named: Option<Key>,
    ) -> Result<CertId, &'static str> {
        let facts = verify(&certificate, ctx.params).map_err(|error| error.code())?;
        if facts.holder != ctx.me() {
            return Err(code!("acquire.not_holder"));
        }
        match named {
            Some(key) if key != facts.provider => return Err(code!("acquire.other_provider")),
            // Anyone can make up a provider, and its certificates with it.
            None if !is_known(&facts.provider) && !self.has_provider(&facts.provider) => {
                return Err(code!("acquire.unknown_provider"));
            }
            Some(_) | None => {}
        }
        if let Some(known) = self.held(&facts.cert_id) {
            if known.seq > facts.seq {
                return Err(code!("acquire.stale"));
            }
            if known.seq == facts.seq && known.last_hash != facts.last_hash {
                return Err(code!("acquire.contradicted"));
            }
        }
        self.take(ctx, witness, certificate, How::Fetched)
    }

    /// Asks the provider for a certificate that has moved on without this node hearing of
    /// it, as one does that was given away and came back. Without a command, one that gets no
    /// answer is asked for again when the provider is asked what this node holds.
    pub fn fetch(&self, ctx: &mut Context<'_>, provider: Key, cert: CertId, command: Option<u64>) {
        let request = SettleRequest::Register(RegisterRequest::Get(cert));
        let purpose = HoldingsPurpose::Fetch(cert, command);
        if !ctx.out.send(provider, Protocol::Settle, &request, purpose) {
            answer(ctx, command, Err(code!("node.busy")));
        }
    }

    /// Answers a peer that brings a certificate.
    ///
    /// # Errors
    /// As [`Holdings::acquire`], `acquire.not_holder`, and `acquire.beyond_horizon`.
    pub fn on_request(
        &mut self,
        ctx: &mut Context<'_>,
        witness: &mut Witness,
        is_trader: &dyn Fn(&Key) -> bool,
        request: &CourierRequest,
    ) -> Result<CourierReply, &'static str> {
        let CourierRequest::Push(certificate) = request;
        // Signatures are checked only of what there could be room for.
        let is_full = certificate.signer().is_some_and(|key| self.is_provider_full(&key));
        if is_full && !self.knows(ctx, certificate) {
            return Err(code!("acquire.full"));
        }
        self.take(ctx, witness, certificate.clone(), How::Brought(is_trader))?;
        Ok(CourierReply::Stored)
    }

    fn knows(&self, ctx: &Context<'_>, certificate: &Certificate) -> bool {
        certificate.id(ctx.params.magic).is_some_and(|id| self.held.contains_key(&id))
    }

    fn is_provider_full(&self, provider: &Key) -> bool {
        let of = self.brought().filter(|(_, record)| record.facts.provider == *provider);
        let hops: usize = of.map(|(_, record)| record.certificate.hops.len()).sum();
        hops >= BROUGHT_HOPS_PER_PROVIDER
    }

    /// A peer answered, or could not be reached. Returns the certificate that is here by it.
    pub fn on_reply(
        &mut self,
        ctx: &mut Context<'_>,
        witness: &mut Witness,
        is_trader: &dyn Fn(&Key) -> bool,
        peer: Key,
        purpose: HoldingsPurpose,
        result: Result<SettleReply, String>,
    ) -> Option<CertId> {
        match purpose {
            HoldingsPurpose::Errand(kind, lead) => {
                self.on_errand_reply(ctx, witness, kind, lead, SettleReply::told(result));
                None
            }
            HoldingsPurpose::Push(cert, seq) => {
                // One that has moved on since is on its way to another holder.
                let is_current = self.held.get(&cert).is_some_and(|held| held.facts.seq == seq);
                if is_current && courier::ends(&SettleReply::told(result)) {
                    self.end_push(ctx, cert);
                }
                None
            }
            HoldingsPurpose::Fetch(cert, command) => {
                let how = command.map_or(How::Brought(is_trader), |_| How::Fetched);
                let fetched = self.take_fetched(ctx, witness, cert, SettleReply::told(result), how);
                let done = fetched.as_ref().map(|cert| Done::Held { cert: *cert });
                answer(ctx, command, done.map_err(|code| remote_code(code)));
                fetched.ok()
            }
            HoldingsPurpose::Checkpoint(cert) => {
                self.on_checkpoint_reply(ctx, cert, SettleReply::told(result));
                None
            }
            HoldingsPurpose::Held { after } => {
                if let Answer::Said(RegisterReply::Held(told)) = SettleReply::told(result) {
                    self.on_held(ctx, peer, after, &told);
                }
                None
            }
        }
    }

    fn take_fetched(
        &mut self,
        ctx: &mut Context<'_>,
        witness: &mut Witness,
        cert: CertId,
        told: Answer<RegisterReply>,
        how: How<'_>,
    ) -> Result<CertId, String> {
        match told {
            Answer::Said(RegisterReply::Certificate(certificate))
                if certificate.id(ctx.params.magic) == Some(cert) =>
            {
                self.take(ctx, witness, certificate, how).map_err(str::to_owned)
            }
            Answer::Refused(code) => Err(code),
            Answer::Said(_) | Answer::None => Err(code!("certificate.no_answer").to_owned()),
        }
    }

    /// Brings given certificates to their new holders, which can also fetch them.
    pub(super) fn bring_due(&mut self, ctx: &mut Context<'_>) {
        for (cert, to) in self.pushes.take_due(ctx.now_ms) {
            match (to, self.held.get(&cert)) {
                (Some(to), Some(record)) => {
                    let purpose = HoldingsPurpose::Push(cert, record.facts.seq);
                    courier::bring(ctx, to, record.certificate.clone(), purpose);
                }
                _ => self.end_push(ctx, cert),
            }
        }
    }

    fn end_push(&mut self, ctx: &mut Context<'_>, cert: CertId) {
        self.pushes.end(cert);
        if let Some(record) = self.held.get_mut(&cert).filter(|record| record.push.is_some()) {
            record.push = None;
            self.save(ctx, cert);
        }
    }
}
