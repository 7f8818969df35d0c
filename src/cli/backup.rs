//! `capex backup create|restore`: one sealed file from which a node goes on elsewhere.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::Context;
use super::client::Client;
use super::failure::Failure;
use super::time::utc;
use crate::backup::{self, Backup, BackupError};
use crate::clock::now_ms;
use crate::node::config::Config;
use crate::store::{self, Meta, Password, Store, create_private};
use crate::wallet::Seed;
use capex_core::reason;

/// What about backups.
#[derive(Debug, clap::Subcommand)]
pub enum Noun {
    /// Write a sealed file with keys, open settlements, certificates and units sold
    ///
    /// The file opens with the words of the wallet (`capex wallet words`), or with a password if one
    /// is named. It is as old as the moment it was made: let the node write one at each change, with
    /// `[backup] path` in the configuration.
    #[command(after_help = "Examples:
  capex backup create /media/usb/capex.backup
  capex backup create capex.backup --password-file password.txt

Next: capex backup restore capex.backup --words-file words.txt --datadir other")]
    Create {
        /// New file
        #[arg(value_name = "FILE")]
        to: PathBuf,
        /// File with the password, mode 0600 [default: under the words of the wallet]
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
    },
    /// Make a node of a backup, in a data directory that has none
    ///
    /// Never run the old node beside the restored one. The restored node first asks its peers what
    /// its key has signed since the backup was made, and sells nothing before. Keys are sealed if
    /// the configuration names a password for them (wallet.password_file), else they lie open.
    #[command(after_help = "Examples:
  capex backup restore capex.backup --words-file words.txt
  capex backup restore capex.backup --password-file password.txt --datadir other

Next: capex up")]
    Restore {
        /// File that `capex backup create` or the node wrote
        #[arg(value_name = "FILE")]
        from: PathBuf,
        /// File with the password, mode 0600
        #[arg(long, value_name = "FILE", required_unless_present = "words_file")]
        password_file: Option<PathBuf>,
        /// File with the words of the wallet, mode 0600
        #[arg(long, value_name = "FILE", conflicts_with = "password_file")]
        words_file: Option<PathBuf>,
    },
}

/// What was written.
#[derive(Debug, Serialize)]
struct Created {
    path: PathBuf,
    bytes: usize,
    opens_with: &'static str,
}

/// What was restored.
#[derive(Debug, Serialize)]
struct RestoredNode {
    datadir: PathBuf,
    made_at: u64,
    records: usize,
    encrypted: bool,
}

/// Runs it.
///
/// # Errors
/// A file cannot be read or written, does not open, or is of another network; the directory has a
/// node already.
pub fn run(noun: &Noun, context: &mut Context<'_>) -> Result<(), Failure> {
    match noun {
        Noun::Create { to, password_file } => create(to, password_file.as_deref(), context),
        Noun::Restore { from, password_file, words_file } => {
            let password = match (password_file, words_file) {
                (Some(file), _) => Password::read(file),
                (None, Some(file)) => Seed::read_words(file, None).map(|s| s.backup_password()),
                (None, None) => {
                    let message = "name a password file or a file with the words";
                    return Err(Failure::new(reason!("cli.usage"), message));
                }
            };
            restore(from, &password?, context)
        }
    }
}

fn create(to: &Path, password: Option<&Path>, context: &mut Context<'_>) -> Result<(), Failure> {
    if to.exists() {
        return Err(Failure::file(to, &ErrorKind::AlreadyExists.into()));
    }
    let config = context.config()?;
    let password = password.map(Password::read).transpose()?;
    let seed_password = config.wallet.password_file.as_deref().map(Password::read).transpose()?;
    let backup = Backup::read(&config.datadir, seed_password.as_ref(), password.as_ref())
        .map_err(|error| refused(&error))?;
    let sealed = backup.seal(&records(&config)?, now_ms()).map_err(|error| refused(&error))?;
    create_private(to, &sealed)?;
    let opens_with = if password.is_some() { "the password" } else { "the words of the wallet" };
    let created = Created { path: to.to_owned(), bytes: sealed.len(), opens_with };
    context.show(&created, |created, page| {
        page.field("path", created.path.display())
            .field("bytes", created.bytes)
            .field("opens with", created.opens_with);
    })
}

/// From the daemon if one runs, which has the store; else from the store itself.
fn records(config: &Config) -> Result<zeroize::Zeroizing<Vec<u8>>, Failure> {
    match Client::open(&config.datadir) {
        Ok(client) => Ok(zeroize::Zeroizing::new(client.text("/backup")?.into_bytes())),
        Err(_) => {
            let meta = Meta { network: config.params.name.clone(), magic: config.params.magic };
            let dir = config.datadir.join(store::DIR);
            let (store, _) = Store::open(&dir, &meta).map_err(|error| refused(&error.into()))?;
            backup::records(&store).map_err(|error| refused(&error.into()))
        }
    }
}

fn restore(from: &Path, password: &Password, context: &mut Context<'_>) -> Result<(), Failure> {
    let config = context.config()?;
    let meta = Meta { network: config.params.name.clone(), magic: config.params.magic };
    let keys = config.wallet.password_file.as_deref().map(Password::read).transpose()?;
    let restored = backup::restore(from, password, keys.as_ref(), &config.datadir, &meta, now_ms())
        .map_err(|error| refused(&error))?;
    let shown = RestoredNode {
        datadir: config.datadir,
        made_at: restored.made_at_ms,
        records: restored.records,
        encrypted: keys.is_some(),
    };
    context.show(&shown, |shown, page| {
        page.field("datadir", shown.datadir.display())
            .field("made", utc(shown.made_at))
            .field("records", shown.records)
            .line(
                "What was signed after that moment is not in it: the node asks its peers for it.",
            );
        if restored.is_opened {
            page.line("Keys that were sealed lie open here: capex wallet encrypt");
        }
        page.next("up");
    })
}

fn refused(error: &BackupError) -> Failure {
    Failure::coded(error.code(), error.to_string())
}
