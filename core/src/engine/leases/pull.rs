//! Both sides of a pull: the holder of a certificate has its provider fetch an image. Neither keeps
//! anything of it here: the holder asks until it is there, the shell of the provider knows how far it
//! is, and the certificate is presented only then.

use super::io::LeaseEffect;
use super::{Bought, Context, Holdings, LeasePurpose, Leases, answer};
use crate::code;
use crate::engine::io::{Done, Effect, Protocol};
use crate::engine::kernel::remote_code;
use crate::engine::register::Register;
use crate::ids::{CertId, Key};
use crate::lease::objects::{LeaseReply, LeaseRequest, PayloadKind};
use crate::lease::pull::ImageRef;
use crate::limits::IMAGE_MAX_BYTES;

impl Leases {
    /// Asks the provider of a certificate, for a command.
    pub(super) fn pull(
        &self,
        ctx: &mut Context<'_>,
        holdings: &Holdings,
        command: u64,
        cert: CertId,
        image: ImageRef,
    ) {
        let code = match (holdings.held(&cert), image.parts()) {
            (None, _) => code!("redeem.unknown_certificate"),
            (Some(_), None) => code!("pull.name"),
            (Some(facts), Some(_)) => {
                let request = LeaseRequest::Pull { cert, image };
                let purpose = LeasePurpose::Pull(command);
                if ctx.out.send(facts.provider, Protocol::Lease, &request, purpose) {
                    return;
                }
                code!("lease.busy")
            }
        };
        answer(ctx, Some(command), Err(code));
    }

    pub(super) fn on_pull_reply(
        ctx: &mut Context<'_>,
        command: u64,
        result: Result<LeaseReply, String>,
    ) {
        let result = match result {
            Ok(LeaseReply::Pulled(pulled)) => Ok(Done::Pulled(Box::new(pulled))),
            Ok(LeaseReply::Refused { code }) => {
                return answer(ctx, Some(command), Err(remote_code(&code)));
            }
            Ok(_) | Err(_) => Err(code!("pull.no_answer")),
        };
        answer(ctx, Some(command), result);
    }

    /// Lets the shell fetch an image for the holder of a certificate whose window is not over, as
    /// large as what it has bought. It costs this host that disk, for a while, once for each
    /// certificate, and it costs the holder what the certificate did.
    ///
    /// # Errors
    /// What it is refused with.
    pub(super) fn on_pull(
        &self,
        ctx: &mut Context<'_>,
        register: &Register,
        peer: Key,
        id: u64,
        cert: CertId,
        image: ImageRef,
    ) -> Result<(), &'static str> {
        let facts = register.issued(&cert).ok_or(code!("redeem.unknown_certificate"))?;
        if facts.holder != peer {
            return Err(code!("redeem.not_holder"));
        }
        let bought = Bought::by(facts, ctx.params).ok_or(code!("redeem.unknown_certificate"))?;
        if bought.window.ends_at_ms(ctx.params.slot_s) <= ctx.now_ms {
            return Err(code!("redeem.window_past"));
        }
        if !self.offer.runtimes.contains(&PayloadKind::Oci) {
            return Err(code!("redeem.no_runtime"));
        }
        if image.parts().is_none() {
            return Err(code!("pull.name"));
        }
        let max_bytes = bought.disk_bytes.min(IMAGE_MAX_BYTES);
        ctx.out.push(Effect::Lease(LeaseEffect::Pull { id, cert, image, max_bytes }));
        Ok(())
    }
}
