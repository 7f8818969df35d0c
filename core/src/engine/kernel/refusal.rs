//! What a reason code means to the person who asked.

use super::context::Context;
use crate::engine::io::{Done, Effect, Refusal};
use crate::limits::CODE_MAX_BYTES;

/// A peer's reason code, if it has the form of one; remote text never goes further.
#[must_use]
pub fn remote_code(code: &str) -> &str {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '.';
    let formed = (1..=CODE_MAX_BYTES).contains(&code.len()) && code.chars().all(plain);
    if formed { code } else { "peer.bad_code" }
}

/// Answers a command.
pub(in crate::engine) fn answer(
    ctx: &mut Context<'_>,
    command: Option<u64>,
    result: Result<Done, &str>,
) {
    if let Some(id) = command {
        let result = result.map_err(|code| Refusal::new(code, explain(code)));
        ctx.out.push(Effect::CommandDone { id, result });
    }
}

/// One line for people, ending in what to do.
fn explain(code: &str) -> &'static str {
    match code {
        "gift.unknown_certificate" | "redeem.unknown_certificate" => {
            "no such certificate: list yours with `capex cert list`"
        }
        "gift.not_holder" | "redeem.not_holder" => {
            "another key holds this certificate now: ask its holder"
        }
        "gift.window_started" => "the delivery window has begun: redeem it instead",
        "gift.consumed" | "redeem.consumed" => {
            "the certificate was redeemed already: see `capex lease list`"
        }
        "gift.locked" | "redeem.locked" => {
            "a sale of the certificate is open: wait until it settles or its lock is released"
        }
        "gift.pending" => "a gift to another key waits for the provider: wait for it",
        "gift.to_self" => "the certificate is yours already: name another key",
        "gift.no_answer" => "the provider does not answer: the gift is repeated until the window",
        "gift.stale_seq" | "redeem.stale_seq" => {
            "the certificate has moved on: fetch it again from its provider"
        }
        "redeem.window_past" => "the delivery window is over: buy a later one",
        "redeem.bad_challenge" | "redeem.expired" => {
            "the provider's challenge is no longer good: redeem again"
        }
        "redeem.bad_workload" => {
            "a name, count or size of the workload is not allowed: correct the workload"
        }
        "redeem.no_answer" => "the provider does not answer: redeem again later",
        "redeem.busy" => "too many redemptions are open: try again later",
        "lease.unknown" => "no such lease: list yours with `capex lease list`",
        "lease.not_holder" => "another key holds this lease",
        "receipt.bad_chain" | "receipt.bad_signature" => {
            "the receipts do not prove what was delivered: keep them, and do not countersign"
        }
        "capacity.below_claims" => {
            "capacity would shrink below what is offered or sold: cancel offers or wait"
        }
        "capacity.too_large" | "capacity.unknown_class" => {
            "not a capacity of this network: see `capex network show`"
        }
        _ => "refused: see the reason code in the documentation",
    }
}
