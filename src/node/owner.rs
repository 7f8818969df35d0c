//! Whose data directory it is. The promises in a store were made with one identity key and one
//! seed; under another key they would be told as somebody else's, and a fresh one in place of a
//! lost one would hide that the old one is needed.

use std::path::{Path, PathBuf};

use crate::store::{Store, StoreError, upsert};
use capex_core::ids::Key;
use capex_core::reason;
use capex_core::reasons::Reason;

/// Table of what the node knows of itself. Numbers from `Table::FIRST_OF_SHELL` on are not the
/// engine's; the wallet's begin at 0xe0.
const TABLE: u8 = 0xd0;
/// Row of the public identity key.
const IDENTITY: &[u8] = b"identity";

/// A file of a secret that does not go with the store beside it.
#[derive(Debug, thiserror::Error)]
pub enum OwnerError {
    /// The store was used with a secret that is not there any more.
    #[error("{} is missing, and the store beside it was written with it", .0.display())]
    Missing(PathBuf),
    /// The store was used with another secret.
    #[error("{} is not the file with which the store beside it was written{}", .path.display(), named(*.keys))]
    Foreign {
        path: PathBuf,
        /// Identity in the file and identity of the store; a seed has no name.
        keys: Option<(Key, Key)>,
    },
}

fn named(keys: Option<(Key, Key)>) -> String {
    let name = |(found, owner)| format!(": it is the key of {found}, the store belongs to {owner}");
    keys.map(name).unwrap_or_default()
}

impl OwnerError {
    /// Its row in the table of reasons.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Missing(_) => reason!("secret.missing"),
            Self::Foreign { .. } => reason!("secret.foreign"),
        }
    }
}

/// What a store says of its owner.
pub(super) struct Owner {
    identity: Option<Key>,
    /// Something was written already.
    is_used: bool,
}

impl Owner {
    pub(super) fn of(store: &Store) -> Result<Self, StoreError> {
        let identity = store.get(TABLE, IDENTITY)?.and_then(|bytes| bytes.try_into().ok());
        Ok(Self { identity: identity.map(Key), is_used: store.last_seq() > 0 })
    }

    /// Refuses to go on without a file whose secret the store was written with: it would be made
    /// anew.
    pub(super) fn expect(&self, path: &Path) -> Result<(), OwnerError> {
        // A file that cannot even be looked for is for its reader to refuse.
        if self.is_used && matches!(path.try_exists(), Ok(false)) {
            return Err(OwnerError::Missing(path.to_owned()));
        }
        Ok(())
    }

    /// Takes the identity of a file: it has to be the store's, or is from now on.
    ///
    /// # Errors
    /// [`OwnerError::Foreign`], or the store cannot be written.
    pub(super) fn admit(
        self,
        store: &Store,
        path: &Path,
        identity: Key,
    ) -> Result<(), super::NodeError> {
        match self.identity {
            Some(owner) if owner == identity => Ok(()),
            Some(owner) => {
                let keys = Some((identity, owner));
                Err(OwnerError::Foreign { path: path.to_owned(), keys }.into())
            }
            None => {
                store.persist(&[upsert(TABLE, IDENTITY, identity.0)])?;
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::node::NodeError;
    use crate::node::config::{Config, Overrides};
    use crate::node::startup::open_datadir;
    use crate::store::{
        IDENTITY_FILE, Password, SEED_FILE, Sealer, create_private, is_open_secret, replace_secret,
    };
    use crate::wallet::Seed;

    fn config(dir: &Path) -> Config {
        let flags = Overrides {
            network: Some("devnet".to_owned()),
            datadir: Some(dir.to_owned()),
            ..Overrides::default()
        };
        Config::load(&flags, &|_| None).unwrap()
    }

    #[test]
    fn a_store_opens_with_the_secrets_that_it_was_written_with_and_no_others() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        let open = || open_datadir(&config).map(drop);
        open().unwrap();
        open().unwrap();
        for name in ["identity.key", "wallet.seed"] {
            let path = dir.path().join(name);
            let own = fs::read(&path).unwrap();
            fs::remove_file(&path).unwrap();
            let missing = open().unwrap_err();
            assert_eq!(missing.code(), "secret.missing", "{name}");
            assert!(missing.to_string().contains(name), "{missing}");
            assert!(missing.hint().unwrap().contains("backup"));
            assert!(!path.exists(), "no fresh one stands in its place");

            let other = tempfile::tempdir().unwrap();
            open_datadir(&self::config(other.path())).map(drop).unwrap();
            fs::copy(other.path().join(name), &path).unwrap();
            let foreign = open().unwrap_err();
            assert_eq!(foreign.code(), "secret.foreign", "{name}");
            assert!(foreign.to_string().contains(name), "{foreign}");

            fs::write(&path, own).unwrap();
            open().unwrap();
        }
    }

    /// Identity and seed, each sealed or open: what a crash in the middle of sealing or opening
    /// them can leave.
    #[test]
    fn a_directory_opens_with_the_password_whatever_a_crash_left_sealed() {
        let dir = tempfile::tempdir().unwrap();
        let open = config(dir.path());
        let opened = |config: &Config| open_datadir(config).map(|opened| opened.identity);
        let identity = opened(&open).unwrap();
        let file = dir.path().join("password");
        create_private(&file, "correct horse\n").unwrap();
        let mut sealed = config(dir.path());
        sealed.wallet.password_file = Some(file.clone());
        let (key, seed) = (dir.path().join(IDENTITY_FILE), dir.path().join(SEED_FILE));
        let words = Seed::load(&seed, None).unwrap();
        let sealer = Sealer::new(&Password::read(&file).unwrap()).unwrap();
        for (seals_key, seals_seed) in [(false, true), (true, true), (true, false), (false, false)]
        {
            replace_secret(&key, &identity, seals_key.then_some(&sealer)).unwrap();
            words.replace(&seed, seals_seed.then_some(&sealer)).unwrap();
            assert_eq!(opened(&sealed).unwrap(), identity, "{seals_key} {seals_seed}");
            let code = opened(&open).map_err(|error| error.code().to_owned());
            let refused = seals_key || seals_seed;
            let expected = if refused { Err("secret.sealed".to_owned()) } else { Ok(identity) };
            assert_eq!(code, expected, "{seals_key} {seals_seed}");
        }
        // The first start with a password leaves no key open.
        let other = tempfile::tempdir().unwrap();
        let fresh = Config { wallet: sealed.wallet, ..config(other.path()) };
        opened(&fresh).unwrap();
        assert!(!is_open_secret(&other.path().join(IDENTITY_FILE)).unwrap());
        assert!(!Seed::is_open(&other.path().join(SEED_FILE)).unwrap());
    }

    #[test]
    fn secrets_without_a_store_begin_one() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        let identity = |opened: Result<_, NodeError>| {
            let opened: crate::node::startup::Opened = opened.unwrap();
            opened.identity
        };
        let first = identity(open_datadir(&config));
        fs::remove_dir_all(dir.path().join("store")).unwrap();
        assert_eq!(identity(open_datadir(&config)), first);
    }
}
