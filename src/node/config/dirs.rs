//! Where files live: the XDG base directories, or one directory for everything.
//!
//! ```text
//! $XDG_CONFIG_HOME/capex/config.toml      configuration
//! $XDG_DATA_HOME/capex/<network>/         keys, journal, cookie, endpoints, leases
//! $XDG_STATE_HOME/capex/devchain/         the development chain and its cookie
//! ```

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Reads the environment. A function, so that tests need not change the real one.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// A variable of an environment. One that is not UTF-8 counts as absent here;
/// [`super::variables::check`] refuses those that matter.
#[must_use]
pub fn text_of(environment: &[(OsString, OsString)], name: &str) -> Option<String> {
    let (_, value) = environment.iter().find(|(key, _)| key == name)?;
    value.to_str().map(str::to_owned)
}

/// Name of the configuration file.
pub const CONFIG_FILE: &str = "config.toml";

/// Where `scripts/bitcoind` leaves what it builds, in the cache folder.
const BUILT_BITCOIND: &str = "bitcoind-0.4.1/bin/bitcoind";

/// `$XDG_CONFIG_HOME/capex/config.toml`; `None` without a home directory.
#[must_use]
pub fn config_file(env: Env<'_>) -> Option<PathBuf> {
    Some(base(env, "XDG_CONFIG_HOME", ".config")?.join(CONFIG_FILE))
}

/// `$XDG_DATA_HOME/capex/<network>`; `None` without a home directory.
#[must_use]
pub fn data(env: Env<'_>, network: &str) -> Option<PathBuf> {
    Some(base(env, "XDG_DATA_HOME", ".local/share")?.join(network))
}

/// `$XDG_STATE_HOME/capex/devchain`; `None` without a home directory.
#[must_use]
pub fn devchain(env: Env<'_>) -> Option<PathBuf> {
    Some(base(env, "XDG_STATE_HOME", ".local/state")?.join("devchain"))
}

/// Cookie file of the development chain in a directory: Bitcoin Core's name and form.
#[must_use]
pub fn chain_cookie(dir: &Path) -> PathBuf {
    dir.join(".cookie")
}

/// Bitcoin Core's own directory.
#[must_use]
pub fn bitcoin_core(env: Env<'_>) -> Option<PathBuf> {
    Some(home(env)?.join(".bitcoin"))
}

/// The home directory. An empty or relative one is none: files would lie wherever a command runs.
#[must_use]
pub fn home(env: Env<'_>) -> Option<PathBuf> {
    env("HOME").map(PathBuf::from).filter(|path| path.is_absolute())
}

/// A Bitcoin Core daemon on this machine: the one that `BITCOIND` names, else `bitcoind` on
/// PATH, else the one that `scripts/bitcoind` built into the cache.
#[must_use]
pub fn found_bitcoind(env: Env<'_>) -> Option<PathBuf> {
    if let Some(named) = env("BITCOIND").filter(|named| !named.is_empty()) {
        return Some(PathBuf::from(named));
    }
    let path = env("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|dir| dir.join("bitcoind"));
    let built = base(env, "XDG_CACHE_HOME", ".cache").map(|cache| cache.join(BUILT_BITCOIND));
    on_path.chain(built).find(|program| program.is_file())
}

fn base(env: Env<'_>, variable: &str, fallback: &str) -> Option<PathBuf> {
    // The specification says that a relative path in these variables is to be ignored.
    let set = env(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    let dir = match set {
        Some(dir) => dir,
        None => home(env)?.join(fallback),
    };
    Some(dir.join("capex"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xdg_variables_win_over_home_unless_relative() {
        let env = |name: &str| match name {
            "HOME" => Some("/home/a".to_owned()),
            "XDG_DATA_HOME" => Some("/data".to_owned()),
            "XDG_STATE_HOME" => Some("state".to_owned()),
            _ => None,
        };
        assert_eq!(config_file(&env).unwrap(), Path::new("/home/a/.config/capex/config.toml"));
        assert_eq!(data(&env, "signet").unwrap(), Path::new("/data/capex/signet"));
        assert_eq!(devchain(&env).unwrap(), Path::new("/home/a/.local/state/capex/devchain"));
        assert_eq!(data(&|_| None, "signet"), None);
        for home in ["", "home", "./home"] {
            let env = |name: &str| (name == "HOME").then(|| home.to_owned());
            assert_eq!((data(&env, "signet"), bitcoin_core(&env)), (None, None), "{home:?}");
        }
    }
}
