//! Streams into leases: the provider checks who wants one, the holder signs for its own.

use super::{Context, Leases};
use crate::code;
use crate::engine::io::Done;
use crate::ids::{Key, LeaseId};
use crate::lease::Phase;
use crate::lease::access::{Access, AccessCall, AccessVerb, Admission, Asked, Grant, Hello};
use crate::limits::ACCESS_LIFE_MAX_S;
use crate::params::Params;
use crate::units::TimeMs;
use crate::wire::{Envelope, VERSION};

/// Life of a call that opens a stream, s: it is used at once.
const CALL_LIFE_S: u64 = 60;

/// A stream that this node wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    pub lease: LeaseId,
    pub what: Access,
    /// Names its session.
    pub session16: [u8; 16],
    /// Bytes of the session that have arrived here.
    pub received: u64,
    /// What lets this node in, if it is not the holder.
    pub grant: Option<Envelope>,
}

impl Leases {
    /// Checks a stream that a peer opened to a lease on this host. It changes nothing: a call
    /// that is copied is worth nothing to another peer.
    ///
    /// # Errors
    /// `lease.bad_call`, `lease.not_found`, those of [`Asked::check`], `lease.not_running`.
    pub fn authorise_access(
        &self,
        now_ms: TimeMs,
        params: &Params,
        peer: Key,
        hello: &Hello,
    ) -> Result<Admission, &'static str> {
        let call = hello.call.peek::<AccessCall>().map_err(|_| code!("lease.bad_call"))?;
        let record = self.hosted.get(&call.lease).ok_or(code!("lease.not_found"))?;
        let asked = Asked {
            lease: call.lease,
            holder: record.holder,
            ports: &record.workload.ports,
            peer,
            now_s: now_ms / 1000,
            magic: params.magic,
        };
        let admission = asked.check(hello)?;
        match record.phase {
            // Of a workload that has exited the files are there: its process knows what else.
            Phase::Running { .. } | Phase::Exited { .. } => Ok(admission),
            Phase::Reserved
            | Phase::Ready
            | Phase::Interrupted { .. }
            | Phase::Ended(_)
            | Phase::Released { .. } => Err(code!("lease.not_running")),
        }
    }

    /// Signs for a stream: of an own lease, or of one that its holder granted to this key.
    pub(super) fn open_access(
        &self,
        ctx: &Context<'_>,
        wanted: Wanted,
    ) -> Result<Done, &'static str> {
        let provider = match (&wanted.grant, self.held.get(&wanted.lease)) {
            (None, held) => held.ok_or(code!("lease.not_found"))?.provider,
            (Some(grant), _) => {
                let granted = grant.peek::<Grant>().map_err(|_| code!("access.bad_grant"))?;
                if granted.lease != wanted.lease || granted.to != ctx.me() {
                    return Err(code!("access.bad_grant"));
                }
                granted.provider
            }
        };
        if !wanted.what.is_valid() {
            return Err(code!("access.bad_request"));
        }
        let call = ctx.sign(AccessCall {
            v: VERSION,
            lease: wanted.lease,
            peer: ctx.me(),
            session16: wanted.session16,
            received: wanted.received,
            what: wanted.what,
            not_after_s: self.good_until_s(ctx.now_ms, CALL_LIFE_S),
        });
        let call = call.envelope().clone();
        Ok(Done::Access { provider, hello: Box::new(Hello { call, grant: wanted.grant }) })
    }

    /// Signs what lets another key into an own lease.
    pub(super) fn grant_access(
        &self,
        ctx: &Context<'_>,
        lease: LeaseId,
        to: Key,
        mut verbs: Vec<AccessVerb>,
        life_s: u64,
    ) -> Result<Done, &'static str> {
        let held = self.held.get(&lease).ok_or(code!("lease.not_found"))?;
        verbs.sort_unstable();
        verbs.dedup();
        if verbs.is_empty() || life_s == 0 {
            return Err(code!("access.bad_request"));
        }
        let ends_s = held.window.ends_at_ms(ctx.params.slot_s).div_ceil(1000);
        let not_after_s = self.good_until_s(ctx.now_ms, life_s).min(ends_s);
        let provider = held.provider;
        let grant = ctx.sign(Grant { v: VERSION, lease, provider, to, verbs, not_after_s });
        Ok(Done::Granted { grant: Box::new(grant.envelope().clone()), not_after_s })
    }
}

// A call lives no longer than a provider takes it to.
const _: () = assert!(CALL_LIFE_S <= ACCESS_LIFE_MAX_S);
