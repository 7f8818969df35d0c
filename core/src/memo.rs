//! Signatures that were found good, for a thread that runs many engines.
//!
//! In a simulated network every node is handed the same bytes, and to check them once is enough:
//! whether a signature is good follows from its bytes alone. A node does not use this.

use std::cell::RefCell;
use std::collections::BTreeSet;

use crate::wire::sha256;

/// Most that are remembered: those of some epochs of a large market, in 10 MB. All are forgotten
/// when it is full.
const GOOD_MAX: usize = 1 << 17;

thread_local! {
    /// Hashes of key, signature and message.
    static GOOD: RefCell<Option<BTreeSet<[u8; 32]>>> = const { RefCell::new(None) };
}

/// From now on this thread checks no signature again that it has found good.
pub fn remember_good_signatures() {
    GOOD.with_borrow_mut(|good| {
        good.get_or_insert_default();
    });
}

/// Checks a signature, unless it is known to be good.
///
/// # Errors
/// Those of `check`.
pub(crate) fn once<E>(
    key: &[u8; 32],
    signature: &[u8; 64],
    message: &[u8],
    check: impl FnOnce() -> Result<(), E>,
) -> Result<(), E> {
    let name = GOOD.with_borrow(|good| {
        let good = good.as_ref()?;
        let name = sha256(&[key, signature, message]);
        Some((name, good.contains(&name)))
    });
    let Some((name, is_good)) = name else { return check() };
    if !is_good {
        check()?;
        GOOD.with_borrow_mut(|good| {
            let Some(good) = good else { return };
            if good.len() >= GOOD_MAX {
                good.clear();
            }
            good.insert(name);
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_found_good_with_all_its_bytes_is_not_checked_again() {
        let asked = |key: u8, signature: u8, message: &[u8], found: Result<(), ()>| {
            let mut checks = 0;
            let count = || {
                checks += 1;
                found
            };
            let result = once(&[key; 32], &[signature; 64], message, count);
            (result, checks)
        };
        assert_eq!(asked(1, 2, b"text", Ok(())), (Ok(()), 1));
        assert_eq!(asked(1, 2, b"text", Ok(())), (Ok(()), 1), "nobody asked to remember");
        remember_good_signatures();
        assert_eq!(asked(1, 2, b"text", Err(())), (Err(()), 1));
        assert_eq!(asked(1, 2, b"text", Ok(())), (Ok(()), 1), "what was bad is checked again");
        assert_eq!(asked(1, 2, b"text", Err(())), (Ok(()), 0));
        remember_good_signatures();
        assert_eq!(asked(1, 2, b"text", Err(())), (Ok(()), 0), "nothing is forgotten");
        for (key, signature, message) in [(3, 2, b"text"), (1, 3, b"text"), (1, 2, b"tex_")] {
            assert_eq!(asked(key, signature, message, Err(())), (Err(()), 1));
        }
    }
}
