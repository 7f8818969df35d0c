//! One sealed file from which a node goes on elsewhere.
//!
//! It holds the identity, the seed, and every record that a promise or a coin hangs on: standing
//! orders, open settlements, certificates held, units sold, leases, locked coins. What is only
//! read (past epochs, ended trades, the history of payments) is left out, and so are the files of
//! leases.
//!
//! ```text
//! {"capex_backup":1,"made_at_ms":…,"identity":"…","seed":"…","sealed":false}
//! … lines of an export of the store …
//! ```
//!
//! The text is sealed under a password, or under one that follows from the words of the wallet,
//! so that words and file are enough: in it, identity and seed lie open. A restored store is marked
//! as such: its node issues nothing until it has asked its peers what its own key has signed since.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};
use std::thread;

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::store::{
    self, IDENTITY_FILE, Meta, Password, SEED_FILE, SealError, Sealer, SecretError, Store,
    StoreError, create_secret, is_open_secret, load_secret, replace_private, unseal,
};
use crate::wallet::{FUND_TABLE, HISTORY_TABLE, Seed};
use capex_core::engine::kernel::{Record, RecordTooLarge, Table};
use capex_core::engine::register::RestoredV1;
use capex_core::ids::{from_hex, to_hex};
use capex_core::units::TimeMs;

/// Version of the text.
const VERSION: u8 = 1;
/// What a backup is sealed for.
const PURPOSE: &str = "capex backup";
/// Longest first line, bytes: two secrets and little more.
const HEAD_MAX_BYTES: u64 = 4096;
/// Longest file that is read, bytes. A settlement or a certificate takes some KiB, and a node has
/// thousands at most.
const FILE_MAX_BYTES: u64 = 1 << 30;

/// Why there is no backup, or nothing restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error("{}: {source}", .path.display())]
    Io { path: PathBuf, source: std::io::Error },
    /// The file is not a backup, or of a later release.
    #[error("{} is not a backup that this release reads", .0.display())]
    Form(PathBuf),
    /// Another password or other words, or the file was changed.
    #[error("{} does not open: the password or the words are wrong, or the file was changed", .0.display())]
    Password(PathBuf),
    /// The directory has keys or a store already.
    #[error("{} belongs to a node already", .0.display())]
    NotEmpty(PathBuf),
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Record(#[from] RecordTooLarge),
}

impl BackupError {
    /// Stable reason code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "file.unusable",
            Self::Form(_) => "backup.form",
            Self::Password(_) => "backup.password",
            Self::NotEmpty(_) => "backup.not_empty",
            Self::Seal(_) => "backup.seal",
            Self::Secret(error) => error.code(),
            Self::Store(error) => error.code(),
            Self::Record(_) => "record.too_large",
        }
    }

    fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    capex_backup: u8,
    made_at_ms: TimeMs,
    identity: String,
    seed: String,
    /// Whether identity and seed lay sealed in their directory.
    sealed: bool,
}

impl Drop for Head {
    fn drop(&mut self) {
        self.identity.zeroize();
        self.seed.zeroize();
    }
}

/// What a record is to a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Worth {
    /// A change of it makes the last backup dangerous to restore: coins in a contract that it does
    /// not know, a certificate that is missing, units that would be sold again.
    Promise,
    /// Kept, and no reason to write the backup anew.
    Kept,
    /// Only read, or of no use without files that are not in it: left out.
    History,
}

fn worth(table: u8) -> Worth {
    let Some(table) = Table::ALL.into_iter().find(|known| known.number() == table) else {
        return match table {
            FUND_TABLE => Worth::Promise,
            HISTORY_TABLE => Worth::History,
            _ => Worth::Kept,
        };
    };
    match table {
        Table::Standing
        | Table::Buyer
        | Table::Seller
        | Table::Registrar
        | Table::Issued
        | Table::Held
        | Table::Lease
        | Table::HeldLease
        | Table::Pool
        | Table::Salt => Worth::Promise,
        Table::Counter
        | Table::Order
        | Table::Capacity
        | Table::Proof
        | Table::Conduct
        | Table::SignedEpochs
        | Table::Behind
        | Table::Horizon
        | Table::Restored
        | Table::Heard
        | Table::Maintenance => Worth::Kept,
        // What shall run is in no backup, so that it shall is not, either.
        Table::Attached
        | Table::Epoch
        | Table::EpochPart
        | Table::EpochOrders
        | Table::Frozen
        | Table::PastTrade => Worth::History,
    }
}

fn is_kept(table: u8) -> bool {
    worth(table) != Worth::History
}

fn is_promise(table: u8) -> bool {
    worth(table) == Worth::Promise
}

/// The secrets of a node, and how its backups are sealed.
pub struct Backup {
    identity: Zeroizing<[u8; 32]>,
    seed_text: Zeroizing<String>,
    is_sealed: bool,
    sealer: Sealer,
}

impl std::fmt::Debug for Backup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Backup")
    }
}

impl Backup {
    /// Of the node in a data directory: backups under `password`, or without one under the words of
    /// its seed. `keys_password` opens identity and seed if they are sealed.
    ///
    /// # Errors
    /// A key file cannot be read, or the system lacks memory or randomness.
    pub fn read(
        datadir: &Path,
        keys_password: Option<&Password>,
        password: Option<&Password>,
    ) -> Result<Self, BackupError> {
        let (identity_file, seed_file) = (datadir.join(IDENTITY_FILE), datadir.join(SEED_FILE));
        let seed = Seed::load(&seed_file, keys_password)?;
        let sealer = match password {
            Some(password) => Sealer::new(password)?,
            None => Sealer::new(&seed.backup_password())?,
        };
        Ok(Self {
            identity: Zeroizing::new(load_secret(&identity_file, keys_password)?),
            seed_text: seed.plain_text(),
            is_sealed: !is_open_secret(&identity_file)? || !Seed::is_open(&seed_file)?,
            sealer,
        })
    }

    /// Seals what [`records`] gave.
    ///
    /// # Errors
    /// The system lacks memory or randomness.
    pub fn seal(&self, records: &[u8], now_ms: TimeMs) -> Result<Vec<u8>, BackupError> {
        let head = Head {
            capex_backup: VERSION,
            made_at_ms: now_ms,
            identity: to_hex(self.identity.as_ref()),
            seed: self.seed_text.to_string(),
            sealed: self.is_sealed,
        };
        let head = serde_json::to_vec(&head)
            .map_err(|error| BackupError::io(Path::new("the backup"), error.into()))?;
        let head = Zeroizing::new(head);
        let text = Zeroizing::new([head.as_slice(), b"\n", records].concat());
        Ok(self.sealer.seal(PURPOSE, &text)?)
    }

    /// Puts a backup in the place of the one before; a crash leaves one of the two, whole.
    ///
    /// # Errors
    /// The store cannot be read, or the file not written.
    fn replace(&self, store: &Store, path: &Path, now_ms: TimeMs) -> Result<(), BackupError> {
        let sealed = self.seal(&records(store)?, now_ms)?;
        Ok(replace_private(path, &sealed)?)
    }
}

/// The records of a store that a backup keeps, as lines of an export. They hold secrets of open
/// settlements.
///
/// # Errors
/// The store cannot be read.
pub fn records(store: &Store) -> Result<Zeroizing<Vec<u8>>, StoreError> {
    let mut text = Zeroizing::new(Vec::new());
    store.export_tables(is_kept, &mut *text, &mut |_| {})?;
    Ok(text)
}

/// What was restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    pub made_at_ms: TimeMs,
    pub records: usize,
    /// Whether identity and seed lie open now, though they were sealed where the backup was made.
    pub is_opened: bool,
}

/// Opens a backup and makes a node of it in `datadir`, which has none: store, identity and seed.
/// The two are sealed with `keys_password` if there is one.
///
/// # Errors
/// The directory belongs to a node, the file does not open or is of another network; nothing is
/// changed then.
pub fn restore(
    file: &Path,
    password: &Password,
    keys_password: Option<&Password>,
    datadir: &Path,
    meta: &Meta,
    now_ms: TimeMs,
) -> Result<Restored, BackupError> {
    let (identity_file, seed_file) = (datadir.join(IDENTITY_FILE), datadir.join(SEED_FILE));
    if [&identity_file, &seed_file].iter().any(|path| path.exists()) {
        return Err(BackupError::NotEmpty(datadir.to_owned()));
    }
    let text = open(file, password)?;
    let mut lines = BufReader::new(text.as_slice());
    let mut first = Zeroizing::new(Vec::new());
    Read::take(&mut lines, HEAD_MAX_BYTES)
        .read_until(b'\n', &mut first)
        .map_err(|source| BackupError::io(file, source))?;
    let form = || BackupError::Form(file.to_owned());
    let head: Head = serde_json::from_slice(&first).map_err(|_| form())?;
    let identity = Zeroizing::new(from_hex(&head.identity).unwrap_or_default());
    let identity = <&[u8; 32]>::try_from(identity.as_slice()).map_err(|_| form())?;
    if head.capex_backup != VERSION {
        return Err(form());
    }
    let seed = Seed::parse(&head.seed, &seed_file, None).map_err(|_| form())?;
    let sealer = keys_password.map(Sealer::new).transpose()?;
    let dir = datadir.join(store::DIR);
    let records = store::import(&dir, meta, &mut lines, &mut |_| {})?;
    mark_restored(&dir, meta, now_ms)?;
    create_secret(&identity_file, identity, sealer.as_ref())?;
    seed.create(&seed_file, sealer.as_ref())?;
    let is_opened = head.sealed && sealer.is_none();
    Ok(Restored { made_at_ms: head.made_at_ms, records, is_opened })
}

fn open(file: &Path, password: &Password) -> Result<Zeroizing<Vec<u8>>, BackupError> {
    let io = |source| BackupError::io(file, source);
    let mut sealed = Vec::new();
    let opened = fs::File::open(file).map_err(io)?;
    opened.take(FILE_MAX_BYTES + 1).read_to_end(&mut sealed).map_err(io)?;
    if sealed.len() as u64 > FILE_MAX_BYTES {
        return Err(BackupError::Form(file.to_owned()));
    }
    unseal(password, PURPOSE, &sealed).map_err(|error| match error {
        SealError::Form => BackupError::Form(file.to_owned()),
        SealError::Password => BackupError::Password(file.to_owned()),
        SealError::System => BackupError::Seal(error),
    })
}

/// Tells the node of the store that it may have signed more than it knows.
fn mark_restored(dir: &Path, meta: &Meta, now_ms: TimeMs) -> Result<(), BackupError> {
    let mark = Record::store(RestoredV1::KEY, &RestoredV1 { at_ms: now_ms })?;
    let (store, _) = Store::open(dir, meta)?;
    store.persist(&[mark])?;
    Ok(())
}

/// How the backup that is written by itself stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// Of the last file that was written, unix ms.
    pub written_at_ms: Option<TimeMs>,
    /// Why the one after it could not be written.
    pub trouble: Option<String>,
}

/// A thread that writes a backup anew when a promise has changed. Changes that come while it
/// writes share the next file.
#[derive(Debug)]
pub struct Keeper {
    path: PathBuf,
    standing: Arc<Mutex<Standing>>,
}

impl Keeper {
    /// Starts it, writes the first backup, and follows the store until that is closed.
    ///
    /// # Errors
    /// The system has no thread.
    pub fn start(
        backup: Backup,
        store: &Arc<Store>,
        path: PathBuf,
        now_ms: fn() -> TimeMs,
    ) -> std::io::Result<Self> {
        let (wake, woken) = sync_channel(1);
        let standing = Arc::new(Mutex::new(Standing::default()));
        let keeper = Self { path: path.clone(), standing: Arc::clone(&standing) };
        // The store has the sender and the thread no more than a weak store, so that both end.
        let weak = Arc::downgrade(store);
        // A full channel means that a backup is due already.
        let _ = wake.try_send(());
        store.on_durable(is_promise, move || {
            let _ = wake.try_send(());
        });
        thread::Builder::new().name("backup".to_owned()).spawn(move || {
            for () in woken {
                let Some(store) = weak.upgrade() else { return };
                let written_at_ms = now_ms();
                let written = backup.replace(&store, &path, written_at_ms);
                if let Err(error) = &written {
                    let code = error.code();
                    tracing::error!(code, %error, path = %path.display(), "no backup written");
                }
                let Ok(mut standing) = standing.lock() else { return };
                match written {
                    Ok(()) => {
                        *standing = Standing { written_at_ms: Some(written_at_ms), trouble: None };
                    }
                    Err(error) => standing.trouble = Some(error.to_string()),
                }
            }
        })?;
        Ok(keeper)
    }

    /// Where the file lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    #[must_use]
    pub fn standing(&self) -> Standing {
        self.standing.lock().map(|standing| standing.clone()).unwrap_or_default()
    }
}
