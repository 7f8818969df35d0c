//! What a reason code means to the person who asked.

use super::context::Context;
use crate::engine::io::{Done, Effect, Refusal};
use crate::limits::CODE_MAX_BYTES;
use crate::reasons::Reason;

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
        let result = result.map_err(Refusal::of_code);
        ctx.out.push(Effect::CommandDone { id, result });
    }
}

/// One line for people. A code that the table does not have is a peer's, of another version:
/// it stands as that peer's word.
pub(in crate::engine) fn explain(code: &str) -> &'static str {
    Reason::find(code).map_or("the peer refused for a reason of its own", Reason::sentence)
}
