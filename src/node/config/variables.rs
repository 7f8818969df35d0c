//! The environment as a whole: settings that nothing reads, and values that are no text.
//!
//! A key that is unknown is an error in the file. Here other programs write too (an orchestrator
//! names the ports of a service `capex` in variables such as `CAPEX_PORT`), so only what looks
//! like a slip of one of ours is refused.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use super::layers::Origin;
use super::{ConfigError, PREFIX};

/// Every variable that sets something.
pub const SETTINGS: [&str; 18] = [
    "CAPEX_API_LISTEN",
    "CAPEX_BACKUP_PASSWORD_FILE",
    "CAPEX_BACKUP_PATH",
    "CAPEX_CAPACITY",
    "CAPEX_CHAIN_COOKIE",
    "CAPEX_CHAIN_URL",
    "CAPEX_CONFIG",
    "CAPEX_DATADIR",
    "CAPEX_DEFINITION",
    "CAPEX_LOG",
    "CAPEX_MAX_FEE_SHARE",
    "CAPEX_NETWORK",
    "CAPEX_P2P_LISTEN",
    "CAPEX_P2P_PEERS",
    "CAPEX_PASSWORD_FILE",
    "CAPEX_WALLET_CHANGE_DESCRIPTOR",
    "CAPEX_WALLET_DESCRIPTOR",
    "CAPEX_WALLET_PAYOUT",
];

/// What else decides where files are.
const PLACES: [&str; 5] =
    ["HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "BITCOIND"];

/// Changes of one letter that make a slip: two exchanged letters are two.
const SLIP_MAX: usize = 2;

/// Refuses an environment in which a setting would be overlooked.
///
/// # Errors
/// A name that is nearly one of [`SETTINGS`], or a value of ours that is not UTF-8.
pub fn check(environment: &[(OsString, OsString)]) -> Result<(), ConfigError> {
    for (name, value) in environment {
        let Some(name) = name.to_str() else { continue };
        let known = SETTINGS.iter().chain(&PLACES).find(|known| **known == name);
        match known {
            Some(name) if value.to_str().is_none() => {
                return Err(Origin::Env(name).refuse(format!("{} is not UTF-8", shown(value))));
            }
            Some(_) => {}
            None => {
                if let Some(meant) = nearest(name) {
                    let what = format!("no such setting: did you mean {meant}?");
                    return Err(Origin::Other(name.to_owned()).refuse(what));
                }
            }
        }
    }
    Ok(())
}

fn shown(value: &OsStr) -> String {
    format!("`{}`", value.as_bytes().escape_ascii())
}

/// The setting that a name of ours was probably meant to be.
fn nearest(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_uppercase();
    let own = name.strip_prefix(PREFIX)?;
    let mut near: Vec<(usize, &'static str)> = SETTINGS
        .into_iter()
        .filter_map(|setting| {
            let known = setting.strip_prefix(PREFIX)?;
            let distance = distance(own.as_bytes(), known.as_bytes());
            // A short name is soon near another.
            let is_slip = distance <= SLIP_MAX && distance * 2 < own.len();
            (is_slip || is_part(own, known)).then_some((distance, setting))
        })
        .collect();
    near.sort_unstable();
    near.first().map(|(_, setting)| *setting)
}

/// Whether words of a name were left out, as in `MAX_FEE` or `PEERS`.
fn is_part(own: &str, known: &str) -> bool {
    let mut known = known.split('_');
    own.split('_').all(|word| known.any(|known| known == word))
}

/// Letters to insert, remove or change to get from one text to the other.
fn distance(from: &[u8], to: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (at, letter) in from.iter().enumerate() {
        let mut diagonal = at;
        let mut left = at + 1;
        for (cell, other) in row.iter_mut().skip(1).zip(to) {
            let changed = diagonal + usize::from(letter != other);
            diagonal = *cell;
            left = changed.min(left + 1).min(diagonal + 1);
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = at + 1;
        }
    }
    row.last().copied().unwrap_or(from.len())
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    fn checked(name: &str, value: &[u8]) -> Result<(), String> {
        let variable = (OsString::from(name), OsString::from_vec(value.to_vec()));
        check(&[variable]).map_err(|error| error.to_string())
    }

    #[test]
    fn a_slip_is_refused_with_what_was_meant_and_names_of_others_are_not() {
        let slips = [
            ("CAPEX_CAPACTY", "CAPEX_CAPACITY"),
            ("CAPEX_MAX_FEE_SHAER", "CAPEX_MAX_FEE_SHARE"),
            ("CAPEX_MAX_FEE", "CAPEX_MAX_FEE_SHARE"),
            ("CAPEX_PEERS", "CAPEX_P2P_PEERS"),
            ("CAPEX_COOKIE", "CAPEX_CHAIN_COOKIE"),
            ("CAPEX_DATA_DIR", "CAPEX_DATADIR"),
            ("CAPEX_LOGS", "CAPEX_LOG"),
            ("capex_capacity", "CAPEX_CAPACITY"),
            ("CAPEX_NETWOKR", "CAPEX_NETWORK"),
        ];
        for (name, meant) in slips {
            let expected = format!("{name}: no such setting: did you mean {meant}?");
            assert_eq!(checked(name, b"1"), Err(expected));
        }
        for name in
            ["CAPEX_PORT", "CAPEX_SERVICE_HOST", "CAPEX_STATES", "PATH", "CAPACITY", "CAPEX_"]
        {
            assert_eq!(checked(name, b"1"), Ok(()), "{name}");
        }
        for name in SETTINGS {
            assert_eq!(checked(name, b"1"), Ok(()), "{name}");
        }
    }

    #[test]
    fn a_value_of_ours_that_is_no_text_is_refused() {
        for name in ["CAPEX_DATADIR", "HOME", "XDG_DATA_HOME"] {
            let refused = checked(name, b"/tmp/\xff").unwrap_err();
            assert_eq!(refused, format!("{name}: `/tmp/\\xff` is not UTF-8"));
        }
        assert_eq!(checked("CAPEX_PORT", b"\xff"), Ok(()));
    }

    #[test]
    fn every_setting_that_is_read_is_known() {
        let read = include_str!("mod.rs");
        let names = read.split('"').filter(|word| word.starts_with(PREFIX) && !word.contains(' '));
        let read: std::collections::BTreeSet<&str> = names.filter(|name| *name != PREFIX).collect();
        assert_eq!(read, SETTINGS.into_iter().collect());
    }
}
