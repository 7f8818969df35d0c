//! Waiting for a thing by asking for it: with a bound, and with a name for what is awaited.

use std::time::{Duration, Instant};

use super::broken::Broken;
use super::fleet::{Fleet, LOOK_EVERY};
use capex_core::reason;

/// What is awaited, from whom, and for how long at most.
#[derive(Debug, Clone, Copy)]
pub(super) struct Awaited<'a> {
    /// As in "the claim of the seller".
    pub(super) what: &'a str,
    /// Whose log says more if it does not come.
    pub(super) from: &'a str,
    /// The bound. Generous, for machines that are slow: what is late by then is lost.
    pub(super) limit: Duration,
}

/// What a look found.
#[derive(Debug)]
pub(super) enum Look<T> {
    /// It is there.
    Found(T),
    /// It is not; this is what there is instead.
    Not(String),
}

impl<T> Look<T> {
    /// Found, or what is there instead.
    pub(super) fn some(found: Option<T>, instead: impl FnOnce() -> String) -> Self {
        found.map_or_else(|| Self::Not(instead()), Self::Found)
    }
}

impl Look<()> {
    /// Found if `is_there`.
    pub(super) fn when(is_there: bool, instead: impl FnOnce() -> String) -> Self {
        Self::some(is_there.then_some(()), instead)
    }
}

/// Looks until the thing is there.
///
/// # Errors
/// `devnet.timeout`, an ended child, or what the look refused for good.
pub(super) fn wait<T>(
    fleet: &Fleet,
    awaited: Awaited<'_>,
    mut look: impl FnMut() -> Result<Look<T>, Broken>,
) -> Result<T, Broken> {
    let Awaited { what, from, limit } = awaited;
    let started = Instant::now();
    loop {
        let seen = look();
        // An ended child is the reason for whatever a look says of it.
        fleet.check()?;
        let instead = match seen {
            Ok(Look::Found(found)) => return Ok(found),
            Ok(Look::Not(instead)) => instead,
            Err(broken) if broken.may_pass() => broken.failure.message,
            Err(broken) => return Err(broken),
        };
        if started.elapsed() >= limit {
            let message = format!("waited {} s for {what} from {from}: {instead}", limit.as_secs());
            return Err(Broken::new(reason!("devnet.timeout"), message).at(from));
        }
        std::thread::sleep(LOOK_EVERY);
    }
}
