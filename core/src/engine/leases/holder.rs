//! The holder's side: redeem, stop, take receipts. The provider decides who the holder is:
//! this side sends what it knows, even of a certificate that it has given away.

use super::records::{Answer, HeldLease};
use super::{Asker, Asking, Bought, Context, Holdings, LeasePurpose, Leases, Pace, Retry, notify};
use crate::certificate::objects::RedeemGrant;
use crate::code;
use crate::engine::io::{Done, Protocol};
use crate::engine::kernel::{Table, answer, remote_code};
use crate::ids::{CertId, Key, LeaseId};
use crate::lease::objects::{
    Countersign, LeaseReply, LeaseRequest, LeaseStatus, Receipt, Redeem, Verb, Workload,
};
use crate::lease::receipts::Seen;
use crate::lease::{Phase, receipts, workload};
use crate::limits::{CHALLENGE_MS, MAINTENANCES_MAX, OPEN_LEASES_MAX, WORKLOAD_FILES_MAX};
use crate::units::TimeMs;
use crate::wire::{Envelope, VERSION, Verified};

/// Unanswered tries after which a command is told so: 15 s.
const COMMAND_TRIES: u32 = 5;
/// Repetition of a Redeem that was sent: it may have been granted, and what was paid for is used
/// up by a grant that nobody hears of. Its window ends it.
const REDEEMING: Pace = Pace::between(1_000, 60_000);
/// Repetition of what asks by itself.
const ASKING_ATTACHED: Pace = Pace::between(1_000, 2_000);
/// Life of the call that stops a lease, s.
const STOP_LIFE_S: u64 = 60;

impl Leases {
    /// Redeems a certificate with a workload; tells who asked when the provider has answered.
    pub fn redeem(
        &mut self,
        ctx: &mut Context<'_>,
        holdings: &Holdings,
        asker: Asker,
        cert: CertId,
        workload: Workload,
    ) {
        let Some(facts) = holdings.held(&cert) else {
            self.refuse(ctx, asker, &workload, "redeem.unknown_certificate");
            return;
        };
        let disk_bytes = Bought::by(facts, ctx.params).map_or(0, |bought| bought.disk_bytes);
        let refused = if let Err(error) = workload::validate(&workload, disk_bytes) {
            Some(error.code())
        } else if self.asking.len() >= OPEN_LEASES_MAX || self.held.len() >= 4 * OPEN_LEASES_MAX {
            Some("redeem.busy")
        } else {
            None
        };
        if let Some(code) = refused {
            self.refuse(ctx, asker, &workload, code);
            return;
        }
        let pace = match asker {
            Asker::Command(_) => Pace::PEER,
            // A window passes while nobody looks.
            Asker::Attached(_) => ASKING_ATTACHED,
        };
        let retry = Retry::new(pace, ctx.now_ms);
        let provider = facts.provider;
        self.asking.insert(asker, Asking { cert_id: cert, provider, workload, retry });
        self.ask_challenge(ctx, asker);
    }

    /// Refuses a redemption before it was sent.
    fn refuse(&mut self, ctx: &mut Context<'_>, asker: Asker, workload: &Workload, code: &str) {
        self.tell_refused(ctx, asker, code);
        self.discard_content(ctx, workload::digest(workload));
    }

    fn tell_refused(&mut self, ctx: &mut Context<'_>, asker: Asker, code: &str) {
        match asker {
            Asker::Command(command) => answer(ctx, Some(command), Err(code)),
            Asker::Attached(cert) => self.note_attached(ctx, cert, code),
        }
    }

    fn ask_challenge(&mut self, ctx: &mut Context<'_>, asker: Asker) {
        let Some(asking) = self.asking.get_mut(&asker) else {
            return;
        };
        let (cert, provider) = (asking.cert_id, asking.provider);
        if asking.retry.tries() >= COMMAND_TRIES || !asking.retry.take(ctx.now_ms) {
            if let Some(asking) = self.asking.remove(&asker) {
                self.refuse(ctx, asker, &asking.workload, "redeem.no_answer");
            }
            return;
        }
        let request = LeaseRequest::Challenge(cert);
        ctx.out.send(provider, Protocol::Lease, &request, LeasePurpose::Challenge(cert, asker));
    }

    fn on_challenge_reply(
        &mut self,
        ctx: &mut Context<'_>,
        holdings: &Holdings,
        asker: Asker,
        result: Result<LeaseReply, String>,
    ) {
        match result {
            Ok(LeaseReply::Challenge(nonce)) => {
                if let Some(asking) = self.asking.remove(&asker) {
                    self.send_new_redeem(ctx, holdings, asker, asking, nonce);
                }
            }
            Ok(LeaseReply::Refused { code }) => {
                if let Some(asking) = self.asking.remove(&asker) {
                    self.refuse(ctx, asker, &asking.workload, remote_code(&code));
                }
            }
            // No answer: the timer asks again.
            Ok(_) | Err(_) => {}
        }
    }

    fn send_new_redeem(
        &mut self,
        ctx: &mut Context<'_>,
        holdings: &Holdings,
        asker: Asker,
        asking: Asking,
        challenge32: [u8; 32],
    ) {
        let Some(facts) = holdings.held(&asking.cert_id) else {
            self.refuse(ctx, asker, &asking.workload, "redeem.unknown_certificate");
            return;
        };
        let redeem = ctx.sign(Redeem {
            v: VERSION,
            cert_id: asking.cert_id,
            seq: facts.seq,
            holder: ctx.me(),
            workload_digest: workload::digest(&asking.workload),
            challenge32,
            not_after_s: self.good_until_s(ctx.now_ms, CHALLENGE_MS / 1000),
        });
        let lease = LeaseId(redeem.id());
        let record = HeldLease {
            redeem: redeem.envelope().clone(),
            cert_id: asking.cert_id,
            provider: facts.provider,
            workload: asking.workload,
            uploads: true,
            units: facts.units.count(),
            window: facts.window,
            answer: Answer::Waiting,
            extensions: Vec::new(),
            extending: None,
            receipts: Vec::new(),
            countersigned: 0,
            results: Vec::new(),
            is_fetched: false,
            is_stopped: false,
        };
        ctx.out.store(&lease.0, &record);
        self.held.insert(lease, record);
        self.redeeming.insert(lease, (Retry::new(REDEEMING, ctx.now_ms), Some(asker)));
        self.send_redeem(ctx, lease);
    }

    /// Sends a Redeem that is on disk. Repeating it is safe: its id is the lease's.
    fn send_redeem(&mut self, ctx: &mut Context<'_>, lease: LeaseId) {
        let Some((retry, asker)) = self.redeeming.get_mut(&lease) else {
            return;
        };
        let told = asker.filter(|_| retry.tries() >= COMMAND_TRIES);
        // A command is answered once; what asks by itself is told the end, too.
        *asker = asker.filter(|asker| told.is_none() || matches!(asker, Asker::Attached(_)));
        if let Some(told) = told {
            self.tell_refused(ctx, told, code!("redeem.no_answer"));
        }
        let Some((retry, _)) = self.redeeming.get_mut(&lease) else {
            return;
        };
        let Some(record) = self.held.get(&lease) else {
            return;
        };
        let is_over = record.window.ends_at_ms(ctx.params.slot_s) <= ctx.past_ms();
        if is_over || !retry.take(ctx.now_ms) {
            self.end_redeem(ctx, lease, Answer::Refused("redeem.no_answer".to_owned()));
            return;
        }
        let request = LeaseRequest::Redeem {
            redeem: record.redeem.clone(),
            workload: record.workload.clone(),
        };
        let purpose = LeasePurpose::Redeem(lease);
        ctx.out.send(record.provider, Protocol::Lease, &request, purpose);
    }

    fn on_redeem_reply(
        &mut self,
        ctx: &mut Context<'_>,
        holdings: &mut Holdings,
        lease: LeaseId,
        result: Result<LeaseReply, String>,
    ) {
        let Some(record) = self.held.get(&lease) else {
            return;
        };
        if record.answer != Answer::Waiting {
            return;
        }
        match result {
            Ok(LeaseReply::Lease { grant, .. }) => {
                let cert = record.cert_id;
                if is_grant(&grant, record.provider, cert, lease, ctx) {
                    holdings.mark_redeemed(ctx, cert, lease);
                    self.end_redeem(ctx, lease, Answer::Granted(grant));
                } else {
                    let refused = Answer::Refused("redeem.bad_grant".to_owned());
                    self.end_redeem(ctx, lease, refused);
                }
            }
            Ok(LeaseReply::Refused { code }) => {
                if code == "redeem.stale_seq" {
                    holdings.fetch(ctx, record.provider, record.cert_id, None);
                }
                let refused = Answer::Refused(remote_code(&code).to_owned());
                self.end_redeem(ctx, lease, refused);
            }
            // No answer: the timer repeats the Redeem.
            Ok(_) | Err(_) => {}
        }
    }

    fn end_redeem(&mut self, ctx: &mut Context<'_>, lease: LeaseId, result: Answer) {
        let asker = self.redeeming.remove(&lease).and_then(|(_, asker)| asker);
        if let (Answer::Refused(code), Some(Asker::Attached(cert))) = (&result, asker) {
            // It is tried again with another Redeem; nobody asked for this one.
            self.held.remove(&lease);
            ctx.out.delete(Table::HeldLease, &lease.0);
            return self.note_attached(ctx, cert, code);
        }
        let command = match asker {
            Some(Asker::Command(command)) => Some(command),
            Some(Asker::Attached(_)) | None => None,
        };
        let Some(record) = self.held.get_mut(&lease) else {
            return;
        };
        record.answer = result;
        ctx.out.store(&lease.0, record);
        match &record.answer {
            Answer::Refused(code) => {
                answer(ctx, command, Err(code));
                let digest = workload::digest(&record.workload);
                self.discard_content(ctx, digest);
            }
            Answer::Granted(_) | Answer::Waiting => {
                answer(ctx, command, Ok(Done::Redeemed { lease }));
                notify(ctx, lease, "reserved");
                self.follow(ctx.now_ms, lease);
                self.tick_fetching(ctx);
            }
        }
    }

    pub(super) fn stop_held(&mut self, ctx: &mut Context<'_>, command: u64, lease: LeaseId) {
        let call = self.sign_call(ctx, lease, Verb::Stop, STOP_LIFE_S);
        let (Ok(call), Some(record)) = (call, self.held.get_mut(&lease)) else {
            answer(ctx, Some(command), Err(code!("lease.not_found")));
            return;
        };
        // On disk before it is asked, or the provider would be blamed for what it was told to do.
        if !record.is_stopped && !record.has_ended() {
            record.is_stopped = true;
            ctx.out.store(&lease.0, record);
        }
        let request = LeaseRequest::Stop { call };
        let purpose = LeasePurpose::Stop(lease, command);
        if !ctx.out.send(record.provider, Protocol::Lease, &request, purpose) {
            answer(ctx, Some(command), Err(code!("lease.busy")));
        }
    }

    /// Asks the provider to run the workload again.
    pub fn restart_held(&mut self, ctx: &mut Context<'_>, command: u64, lease: LeaseId) {
        let restart = |call| LeaseRequest::Restart { call };
        self.ask_run(ctx, command, lease, Verb::Restart, restart, LeasePurpose::Restart);
    }

    /// Asks the provider to run another workload, whose content is on the own disk.
    pub fn replace_held(
        &mut self,
        ctx: &mut Context<'_>,
        command: u64,
        lease: LeaseId,
        workload: Workload,
    ) {
        let digest = workload::digest(&workload);
        if self.replacing.len() >= OPEN_LEASES_MAX {
            return self.refuse(ctx, Asker::Command(command), &workload, code!("redeem.busy"));
        }
        self.replacing.insert(command, (lease, workload.clone()));
        let replace = |call| LeaseRequest::Replace { call, workload };
        self.ask_run(ctx, command, lease, Verb::Replace(digest), replace, LeasePurpose::Replace);
    }

    fn ask_run(
        &mut self,
        ctx: &mut Context<'_>,
        command: u64,
        lease: LeaseId,
        verb: Verb,
        request: impl FnOnce(Envelope) -> LeaseRequest,
        purpose: fn(LeaseId, u64) -> LeasePurpose,
    ) {
        let call = self.sign_call(ctx, lease, verb, STOP_LIFE_S);
        let code = match (call, self.held.get(&lease)) {
            (Ok(call), Some(record)) => {
                let (provider, purpose) = (record.provider, purpose(lease, command));
                if ctx.out.send(provider, Protocol::Lease, &request(call), purpose) {
                    return;
                }
                code!("lease.busy")
            }
            _ => code!("lease.not_found"),
        };
        self.end_order(ctx, command, Err(code));
    }

    /// The provider has taken an order to run something or to stop, or has not.
    fn on_order_reply(
        &mut self,
        ctx: &mut Context<'_>,
        lease: LeaseId,
        command: u64,
        result: Result<LeaseReply, String>,
    ) {
        match result {
            Ok(LeaseReply::Status(status)) => {
                self.note_status(ctx, lease, status);
                self.end_order(ctx, command, Ok(Done::Ok));
            }
            Ok(LeaseReply::Refused { code }) => {
                self.end_order(ctx, command, Err(remote_code(&code)));
            }
            Ok(_) | Err(_) => self.end_order(ctx, command, Err(code!("lease.no_answer"))),
        }
    }

    fn end_order(&mut self, ctx: &mut Context<'_>, command: u64, result: Result<Done, &str>) {
        let is_taken = result.is_ok();
        answer(ctx, Some(command), result);
        let Some((lease, workload)) = self.replacing.remove(&command) else { return };
        let unused = match self.held.get_mut(&lease) {
            Some(record) if is_taken => {
                let before = std::mem::replace(&mut record.workload, workload);
                record.uploads = true;
                ctx.out.store(&lease.0, record);
                self.follow(ctx.now_ms, lease);
                before
            }
            Some(_) | None => workload,
        };
        self.discard_content(ctx, workload::digest(&unused));
    }

    /// Notes what the provider of a held lease says of it, unless it is not a state at all:
    /// its texts are shown to people, and kept.
    pub fn note_status(&mut self, ctx: &mut Context<'_>, lease: LeaseId, mut status: LeaseStatus) {
        if !self.held.contains_key(&lease) || Phase::named(&status.phase).is_none() {
            return;
        }
        status.need.truncate(WORKLOAD_FILES_MAX + 1);
        status.maintenance.truncate(2 * MAINTENANCES_MAX);
        status.unavailable = receipts::merged(status.unavailable.into_iter().map(Some));
        status.code = status.code.map(|code| remote_code(&code).to_owned());
        let known = self.told.insert(lease, status);
        let phase = self.told.get(&lease).map(|status| status.phase.clone()).unwrap_or_default();
        if known.is_none_or(|known| known.phase != phase) {
            notify(ctx, lease, &phase);
        }
    }

    /// Receipts of a held lease arrived: checks and stores them, and countersigns those that say
    /// what this node saw. Others are kept as the provider's own word against it.
    ///
    /// # Errors
    /// `lease.not_found`, `receipt.bad_chain` or `receipt.bad_signature`.
    pub fn store_receipts(
        &mut self,
        ctx: &mut Context<'_>,
        lease: LeaseId,
        new: &[Envelope],
    ) -> Result<(), &'static str> {
        let record = self.held.get_mut(&lease).ok_or(code!("lease.not_found"))?;
        let magic = ctx.params.magic;
        let mut chain: Vec<Verified<Receipt>> =
            record.receipts.iter().filter_map(|receipt| receipt.verify(magic).ok()).collect();
        receipts::extend(&mut chain, record.provider, lease, new, magic)
            .map_err(|error| error.code())?;
        let waits = usize::try_from(record.countersigned).is_ok_and(|n| n < chain.len());
        let slot_s = ctx.params.slot_s;
        let seen = Seen {
            window_ms: (record.window.starts_at_ms(slot_s), record.window.ends_at_ms(slot_s)),
            now_ms: ctx.now_ms,
            status: self.told.get(&lease),
        };
        let agreed = seen.agree(&chain);
        if chain.len() > record.receipts.len() {
            record.receipts = chain.iter().map(|receipt| receipt.envelope().clone()).collect();
            ctx.out.store(&lease.0, record);
        }
        if let Err(error) = agreed {
            self.disputes.insert(lease, error.reason());
            return Ok(());
        }
        self.disputes.remove(&lease);
        if waits {
            self.countersigning.insert(lease, Retry::new(Pace::PEER, ctx.now_ms));
            self.send_countersign(ctx, lease);
        }
        Ok(())
    }

    /// Countersigns the last receipt; through its hash chain that covers all before.
    fn send_countersign(&mut self, ctx: &mut Context<'_>, lease: LeaseId) {
        let taken = self.countersigning.get_mut(&lease).is_some_and(|r| r.take(ctx.now_ms));
        let last = self.held.get(&lease).and_then(|record| record.receipts.last());
        let (true, Some(last)) = (taken, last) else {
            self.countersigning.remove(&lease);
            return;
        };
        let receipt = last.id::<Receipt>(ctx.params.magic);
        let Some(record) = self.held.get(&lease) else {
            return;
        };
        let number = u32::try_from(record.receipts.len().saturating_sub(1)).unwrap_or(u32::MAX);
        let signature = ctx.sign(Countersign { v: VERSION, receipt }).envelope().clone();
        let request = LeaseRequest::Countersign { lease, signature };
        let purpose = LeasePurpose::Countersign(lease, number);
        ctx.out.send(record.provider, Protocol::Lease, &request, purpose);
    }

    fn on_countersign_reply(
        &mut self,
        ctx: &mut Context<'_>,
        lease: LeaseId,
        number: u32,
        result: Result<LeaseReply, String>,
    ) {
        let Some(record) = self.held.get_mut(&lease) else {
            return;
        };
        match result {
            Ok(LeaseReply::Stored) => {
                record.countersigned = record.countersigned.max(number.saturating_add(1));
                ctx.out.store(&lease.0, record);
                if usize::try_from(record.countersigned).is_ok_and(|n| n >= record.receipts.len()) {
                    self.countersigning.remove(&lease);
                }
            }
            Ok(LeaseReply::Refused { .. }) => {
                self.countersigning.remove(&lease);
            }
            Ok(_) | Err(_) => {}
        }
    }

    /// A provider answered, or could not be reached.
    pub fn on_reply(
        &mut self,
        ctx: &mut Context<'_>,
        holdings: &mut Holdings,
        purpose: LeasePurpose,
        result: Result<LeaseReply, String>,
    ) {
        match purpose {
            LeasePurpose::Challenge(_, asker) => {
                self.on_challenge_reply(ctx, holdings, asker, result);
            }
            LeasePurpose::Redeem(lease) => self.on_redeem_reply(ctx, holdings, lease, result),
            LeasePurpose::Countersign(lease, number) => {
                self.on_countersign_reply(ctx, lease, number, result);
            }
            LeasePurpose::Stop(lease, command)
            | LeasePurpose::Restart(lease, command)
            | LeasePurpose::Replace(lease, command) => {
                self.on_order_reply(ctx, lease, command, result);
            }
            LeasePurpose::Extend(lease) => self.on_extend_reply(ctx, holdings, lease, result),
            LeasePurpose::Fetch(lease) => self.on_fetch_reply(ctx, lease, result),
            LeasePurpose::Pull(command) => Self::on_pull_reply(ctx, command, result),
        }
    }

    pub(super) fn resume_held(&mut self, now_ms: TimeMs) {
        let mut unsigned = Vec::new();
        for (lease, record) in &self.held {
            if record.answer == Answer::Waiting {
                let asker = self.asker_of(record.cert_id);
                self.redeeming.insert(*lease, (Retry::new(REDEEMING, now_ms), asker));
            }
            if usize::try_from(record.countersigned).is_ok_and(|n| n < record.receipts.len()) {
                unsigned.push(*lease);
            }
        }
        // What an earlier life saw of them is not known any more.
        unsigned.into_iter().for_each(|lease| self.compare_again(now_ms, lease));
        let held: Vec<LeaseId> = self.held.keys().copied().collect();
        held.into_iter().for_each(|lease| self.follow(now_ms, lease));
    }

    pub(super) fn tick_held(&mut self, ctx: &mut Context<'_>) {
        let now_ms = ctx.now_ms;
        let due = |retry: &Retry| retry.is_due(now_ms);
        let asking = self.asking.iter().filter(|(_, asking)| due(&asking.retry));
        let askers: Vec<Asker> = asking.map(|(asker, _)| *asker).collect();
        askers.into_iter().for_each(|asker| self.ask_challenge(ctx, asker));
        let redeeming = self.redeeming.iter().filter(|(_, (retry, _))| due(retry));
        let leases: Vec<LeaseId> = redeeming.map(|(lease, _)| *lease).collect();
        leases.into_iter().for_each(|lease| self.send_redeem(ctx, lease));
        let signing = self.countersigning.iter().filter(|(_, retry)| due(retry));
        let leases: Vec<LeaseId> = signing.map(|(lease, _)| *lease).collect();
        leases.into_iter().for_each(|lease| self.send_countersign(ctx, lease));
    }

    pub(super) fn held_deadlines(&self) -> impl Iterator<Item = TimeMs> {
        let asking = self.asking.values().map(|asking| asking.retry.due_ms());
        let redeeming = self.redeeming.values().map(|(retry, _)| retry.due_ms());
        let extending = self.extending.values().map(|(retry, _)| retry.due_ms());
        asking
            .chain(redeeming)
            .chain(extending)
            .chain(self.countersigning.values().map(|retry| retry.due_ms()))
    }
}

/// Whether a grant is the provider's word that a certificate was consumed for this very lease.
pub(super) fn is_grant(
    grant: &Envelope,
    provider: Key,
    cert: CertId,
    lease: LeaseId,
    ctx: &Context<'_>,
) -> bool {
    grant.verify::<RedeemGrant>(ctx.params.magic).is_ok_and(|grant| {
        grant.provider == provider && grant.cert_id == cert && grant.redeem_hash == lease
    })
}
