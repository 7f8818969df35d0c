//! `capex db check|export|import`: the store of a data directory, without its daemon.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::Context;
use super::failure::Failure;
use super::output::{Io, Page};
use crate::node::config::Config;
use crate::store::{self, IndexState, Meta, Record, Report, Store, StoreError};
use crate::wallet;
use capex_core::engine::stored::reread;
use capex_core::engine::{Table, Unreadable};
use capex_core::reason;

/// Unreadable records that a check names; the others are counted.
const FAULTS_SHOWN: usize = 16;
/// Records between two lines of progress.
const PROGRESS_EVERY: usize = 100_000;

/// What about the store.
#[derive(Debug, clap::Subcommand)]
pub enum Noun {
    /// Read every record of the store as a start would, and repair nothing
    #[command(after_help = "Examples:
  capex db check
  capex db check --network devnet --datadir /tmp/a --json

Next: capex up")]
    Check,
    /// Write every record as lines of JSON. They hold secrets of open trades: keep them private
    #[command(after_help = "Examples:
  capex db export backup.jsonl
  capex db export - --datadir /tmp/a

Next: capex db import backup.jsonl")]
    Export {
        /// New file, `-` for standard output
        #[arg(value_name = "FILE|-")]
        to: PathBuf,
    },
    /// Make the store of a data directory that has none from an export
    #[command(after_help = "Examples:
  capex db import backup.jsonl
  capex db import backup.jsonl --datadir /tmp/b

Next: capex db check")]
    Import {
        /// File that `capex db export` wrote, `-` for standard input
        #[arg(value_name = "FILE|-")]
        from: PathBuf,
    },
}

/// What a check found.
#[derive(Debug, Serialize)]
struct Checked {
    network: Option<String>,
    files: usize,
    journal_bytes: u64,
    last_seq: u64,
    records: usize,
    /// Of a last write that was never acknowledged.
    torn_bytes: u64,
    /// `agrees`, `absent` or `disagrees`; the next start rebuilds the latter two.
    index: &'static str,
}

/// What was written.
#[derive(Debug, Serialize)]
struct Moved {
    path: PathBuf,
    records: usize,
}

/// Runs it.
///
/// # Errors
/// The store is in use, damaged or of another network; a file cannot be read or written.
pub fn run(noun: &Noun, context: &mut Context<'_>) -> Result<(), Failure> {
    match noun {
        Noun::Check => check(context),
        Noun::Export { to } => export(to, context),
        Noun::Import { from } => import(from, context),
    }
}

fn check(context: &mut Context<'_>) -> Result<(), Failure> {
    let config = context.config()?;
    let dir = existing(&config)?;
    let mut found = Faults::default();
    let report = store::check(&dir, &mut |record| found.look(record));
    let report = report.map_err(|error| refused(&error))?;
    let expected = meta(&config);
    if let Some(other) = report.meta.as_ref().filter(|meta| **meta != expected) {
        let (found, expected) = (other.network.clone(), expected.network);
        return Err(refused(&StoreError::WrongNetwork { found, expected }));
    }
    found.verdict()?;
    context.show(&checked(report), |found, page| {
        page.maybe("network", found.network.as_ref())
            .field("journal", format_args!("{} bytes, {} files", found.journal_bytes, found.files))
            .field("batches", found.last_seq)
            .field("records", format_args!("{}: all sound", found.records));
        if found.torn_bytes > 0 {
            let cut = "of an unfinished last write; the next start cuts them off";
            page.field("torn", format_args!("{} bytes {cut}", found.torn_bytes));
        }
        page.field("index", index_line(found.index));
    })
}

/// Records that no start could read.
#[derive(Default)]
struct Faults {
    first: Vec<Unreadable>,
    more: usize,
}

impl Faults {
    fn look(&mut self, record: &Record) {
        let read = if record.table < Table::FIRST_OF_SHELL {
            reread(record).map(drop)
        } else {
            wallet::check_row(record)
        };
        match read {
            Ok(()) => {}
            Err(fault) if self.first.len() < FAULTS_SHOWN => self.first.push(fault),
            Err(_) => self.more += 1,
        }
    }

    /// All of them in one message, with what to do about the first.
    fn verdict(self) -> Result<(), Failure> {
        let Some(first) = self.first.first() else { return Ok(()) };
        let lines: Vec<String> = self.first.iter().map(Unreadable::to_string).collect();
        let mut message = lines.join("\n  ");
        if self.more > 0 {
            message += &format!("\n  and {} more", self.more);
        }
        Err(Failure::coded(Unreadable::CODE, message).with_hint(first.hint()))
    }
}

fn checked(report: Report) -> Checked {
    Checked {
        network: report.meta.map(|meta| meta.network),
        files: report.files,
        journal_bytes: report.journal_bytes,
        last_seq: report.last_seq,
        records: report.records,
        torn_bytes: report.torn_bytes,
        index: match report.index {
            IndexState::Agrees => "agrees",
            IndexState::Absent => "absent",
            IndexState::Disagrees => "disagrees",
        },
    }
}

fn index_line(state: &'static str) -> &'static str {
    match state {
        "absent" => "absent: the next start fills it",
        "disagrees" => "disagrees with the journal: the next start rebuilds it",
        other => other,
    }
}

fn export(to: &Path, context: &mut Context<'_>) -> Result<(), Failure> {
    let config = context.config()?;
    let (store, _) =
        Store::open(&existing(&config)?, &meta(&config)).map_err(|error| refused(&error))?;
    if to == Path::new("-") {
        let written = store.export(&mut context.io.out, &mut |_| {});
        return written.map(drop).map_err(|error| refused(&error));
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let file = options.open(to).map_err(|error| Failure::file(to, &error))?;
    let mut out = BufWriter::new(&file);
    let mut progress = progress(&mut context.io, "exported");
    let records = store.export(&mut out, &mut progress).map_err(|error| refused(&error))?;
    drop(progress);
    let kept = out.flush().and_then(|()| file.sync_all());
    kept.map_err(|error| Failure::file(to, &error))?;
    show(to, records, context)
}

fn import(from: &Path, context: &mut Context<'_>) -> Result<(), Failure> {
    let config = context.config()?;
    let dir = store_dir(&config);
    let mut text: Box<dyn io::BufRead> = if from == Path::new("-") {
        Box::new(BufReader::new(io::stdin()))
    } else {
        let file = File::open(from).map_err(|error| Failure::file(from, &error))?;
        Box::new(BufReader::with_capacity(1 << 20, file))
    };
    let mut progress = progress(&mut context.io, "imported");
    let records = store::import(&dir, &meta(&config), &mut text, &mut progress)
        .map_err(|error| refused(&error))?;
    drop(progress);
    show(&dir, records, context)
}

fn show(path: &Path, records: usize, context: &mut Context<'_>) -> Result<(), Failure> {
    context.show(&Moved { path: path.to_owned(), records }, |moved, page: &mut Page| {
        page.field("path", moved.path.display()).field("records", moved.records);
    })
}

/// Lines on a terminal's standard error as records go by.
fn progress<'a>(io: &'a mut Io<'_>, what: &'static str) -> impl FnMut(usize) + 'a {
    let is_watched = io.can_ask;
    move |records| {
        if is_watched && records > 0 && records.is_multiple_of(PROGRESS_EVERY) {
            // Progress that cannot be shown is no failure.
            let _ = writeln!(io.err, "{what} {records} records");
        }
    }
}

fn meta(config: &Config) -> Meta {
    Meta { network: config.params.name.clone(), magic: config.params.magic }
}

fn store_dir(config: &Config) -> PathBuf {
    config.datadir.join(store::DIR)
}

/// The directory of a store that is there: looking must not make one.
fn existing(config: &Config) -> Result<PathBuf, Failure> {
    let dir = store_dir(config);
    if dir.is_dir() {
        return Ok(dir);
    }
    let message = format!("{} has no store", config.datadir.display());
    Err(Failure::new(reason!("store.absent"), message))
}

fn refused(error: &StoreError) -> Failure {
    Failure::coded(error.code(), error.to_string())
}
