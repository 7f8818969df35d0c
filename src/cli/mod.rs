//! The command line: four verbs for the job, nouns for the rest, one file per noun.
//!
//! It speaks HTTP to the daemon and never touches chain or network; `devnet`, `devchain`, `up`,
//! `host`, `match`, `config`, `db`, `cert verify` and `epoch verify --from` work without one. With `--json` exactly one JSON value goes to standard output (`--watch`: one a line),
//! and errors go as JSON to standard error. Exit codes are in [`failure`].

#![allow(rustdoc::invalid_html_tags, reason = "help texts are for terminals")]

pub mod backup;
pub mod book;
pub mod buy;
pub mod cert;
mod cert_parts;
mod cert_verify;
pub mod client;
pub mod config;
pub mod db;
pub mod devchain;
pub mod devnet;
pub mod epoch;
mod epoch_verify;
pub mod explain;
pub mod failure;
pub mod file_out;
pub mod host;
pub mod init;
pub mod invite;
pub mod join;
mod known;
pub mod lease;
pub mod lease_access;
pub mod lease_bench;
pub mod lease_exec;
pub mod lease_files;
pub mod lease_forward;
pub mod lease_ssh;
mod log;
pub mod maintenance;
pub mod match_cmd;
pub mod order;
pub mod order_file;
pub mod order_flags;
pub mod output;
pub mod paging;
pub mod peer;
pub mod places;
pub mod pool;
pub mod preview;
pub mod psbt;
pub mod quote;
pub mod redeem;
pub mod sanitise;
pub mod seed;
pub mod sell;
pub mod status;
pub mod testnet;
pub mod time;
pub mod trade;
mod trade_proof;
pub mod up;
mod upload;
pub mod wallet;
pub mod watch;
mod workload;

use std::ffi::OsString;
use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::api::Prefix;
use crate::definitions;
use crate::executor::shim;
use crate::node::config::{self as settings, Config, Overrides, dirs, variables};
use capex_core::matching::Algorithm;
use capex_core::params::Params;
use capex_core::reason;
use client::Client;
use failure::{Exit, Failure};
use match_cmd::Plot;
use output::{Io, Page, typed};

/// Sell, buy, hold and redeem blocks of compute, settled in bitcoin.
#[derive(Debug, Parser)]
#[command(name = "capex", version, propagate_version = true, after_help = FIRST_HELP)]
pub struct Cli {
    /// Flags of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const FIRST_HELP: &str = "Examples:
  capex devnet --seed 7          a whole market on this machine, in about a minute
  capex init --network signet    then `capex up`: run a node

Next: capex help sell";

/// Flags of every command.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Global {
    /// mainnet, testnet4, signet, regtest or devnet [default: signet]
    #[arg(long, global = true, value_name = "NAME")]
    pub network: Option<String>,
    /// File that defines the network, if it is none of these
    #[arg(long, global = true, value_name = "FILE")]
    pub definition: Option<PathBuf>,
    /// Keep everything in this directory, the configuration included
    #[arg(long, global = true, value_name = "DIR")]
    pub datadir: Option<PathBuf>,
    /// Read this configuration file
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// One JSON value on standard output, errors as JSON on standard error
    #[arg(long, global = true)]
    pub json: bool,
    /// Answer yes to every question
    #[arg(long, short = 'y', global = true)]
    pub yes: bool,
}

/// Every verb and noun.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a whole market on this machine: nodes, chain, trade, lease
    Devnet(devnet::Flags),
    /// Run a development chain that speaks Bitcoin Core's RPC
    Devchain(devchain::Flags),
    /// Write a configuration file
    Init(init::Flags),
    /// Run the node in the foreground
    Up(up::Flags),
    /// Come into a network by an invitation, and run its node in the foreground
    Join(join::Flags),
    /// Print an invitation into the network of this node
    Invite(invite::Flags),
    /// A test network of one's own: host
    #[command(subcommand)]
    Testnet(testnet::Noun),
    /// Show this node on one screen
    Status(status::Flags),
    /// Offer capacity
    Sell(sell::Flags),
    /// Bid for capacity
    Buy(buy::Flags),
    /// What a bid or an ask would get in the open book
    #[command(subcommand)]
    Quote(quote::Noun),
    /// Standing orders of this node
    #[command(subcommand)]
    Order(order::Noun),
    /// Orders of everyone in the open epoch, units by slot and price
    Book(book::Flags),
    /// Trades of this node
    #[command(subcommand)]
    Trade(trade::Noun),
    /// Certificates: list, show, export, verify, gift, redeem
    #[command(subcommand)]
    Cert(cert::Noun),
    /// Several pay for one certificate together: create, join, status, leave
    #[command(subcommand)]
    Pool(pool::Noun),
    /// Leases: list, show, logs, result, exec, ssh, forward, put, get, stop
    #[command(subcommand)]
    Lease(lease::Noun),
    /// Wallet: balance, coins, history, address, send, bump, words, encrypt
    #[command(subcommand)]
    Wallet(wallet::Noun),
    /// Peers: list, show, add, forgive
    #[command(subcommand)]
    Peer(peer::Noun),
    /// Match a file of orders, without a node
    Match(MatchFlags),
    /// Computed epochs: show, verify, export
    #[command(subcommand)]
    Epoch(epoch::Noun),
    /// This machine as a provider: show, test, maintenance
    #[command(subcommand)]
    Host(host::Noun),
    /// Configuration: path, show
    #[command(subcommand)]
    Config(config::Noun),
    /// Store of the data directory, while no daemon runs: check, export, import
    #[command(subcommand)]
    Db(db::Noun),
    /// One sealed file from which a node goes on elsewhere: create, restore
    #[command(subcommand)]
    Backup(backup::Noun),
    /// Run one lease; the daemon starts this
    #[command(hide = true)]
    Shim(ShimFlags),
}

/// Flags of `match`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  capex match --input orders.json --plot orders.svg
  capex epoch export 5 | capex match --input - --json

Next: capex epoch verify 5")]
pub struct MatchFlags {
    /// JSON file of a book or an array of books, `-` for standard input
    #[arg(long, value_name = "FILE|-")]
    pub input: PathBuf,
    /// Version of the rules, 1 or 2 [default: the one that the book names, else 1]
    #[arg(long, value_name = "VERSION", value_parser = algorithm)]
    pub algorithm: Option<Algorithm>,
    /// Draw the book: supply, demand and price of one slot, and who delivers to whom
    #[arg(long, value_name = "FILE.svg")]
    pub plot: Option<PathBuf>,
    /// Number of the class to draw [default: where most units trade]
    #[arg(long, value_name = "NUMBER", requires = "plot")]
    pub class: Option<u16>,
    /// Slot to draw [default: where most units trade]
    #[arg(long, value_name = "SLOT", requires = "plot")]
    pub slot: Option<u32>,
}

fn algorithm(text: &str) -> Result<Algorithm, String> {
    let version: u8 = text.parse().map_err(|_| "not a version number".to_owned())?;
    Algorithm::try_from(version).map_err(|error| error.to_string())
}

/// Flags of `shim`.
#[derive(Debug, clap::Args)]
pub struct ShimFlags {
    /// Directory of the lease
    pub dir: PathBuf,
    /// Enter the container that lies there, for this request
    #[arg(long, hide = true)]
    pub enter: Option<String>,
    /// Values of sealed variables come on standard input
    #[arg(long, hide = true)]
    pub secrets: bool,
    /// Watch over the lease process, and end what it leaves behind
    #[arg(long, hide = true, conflicts_with_all = ["enter", "trial"])]
    pub guard: bool,
    /// Try, in a container, what must not be possible there
    #[arg(long, hide = true, conflicts_with = "enter")]
    pub trial: Option<String>,
}

/// What a command works with.
pub struct Context<'a> {
    /// Flags of every command.
    pub global: Global,
    /// Environment.
    pub env: dirs::Env<'a>,
    /// Where to read and write.
    pub io: Io<'a>,
}

impl Context<'_> {
    /// The configuration that flags, environment and file give.
    ///
    /// # Errors
    /// Exit 2 with file and line.
    pub fn config(&self) -> Result<Config, Failure> {
        Ok(Config::load(&self.overrides(), self.env)?)
    }

    /// The rules of a network by its name: those of the flags and of the configuration, else as they
    /// ship with the program.
    ///
    /// # Errors
    /// Neither knows the name, in one line.
    pub(crate) fn rules_of(&self, name: &str) -> Result<Params, String> {
        let configured = self.config().ok().map(|config| config.params);
        match configured.filter(|params| params.name == name) {
            Some(params) => Ok(params),
            None => definitions::load(name),
        }
    }

    /// The global flags as configuration.
    #[must_use]
    pub fn overrides(&self) -> Overrides {
        Overrides {
            network: self.global.network.clone(),
            definition: self.global.definition.clone(),
            datadir: self.global.datadir.clone(),
            config: self.global.config.clone(),
            ..Overrides::default()
        }
    }

    /// The daemon of the data directory.
    ///
    /// # Errors
    /// Exit 3 if none runs.
    pub fn client(&self) -> Result<Client, Failure> {
        // A directory that is named needs no configuration file to be understood.
        match settings::datadir_named(&self.overrides(), self.env)? {
            Some(named) => Client::open(&named.value),
            // Named by nobody, the directory would keep its configuration in another place.
            None => Client::open(&self.config()?.datadir).map_err(|failure| {
                let is_absent = failure.code == reason!("daemon.unreachable").code();
                let hint = format!("start it with `capex up{}`", self.flags());
                if is_absent { failure.with_hint(hint) } else { failure }
            }),
        }
    }

    /// The global flags that say which node is meant, as they stand behind a command.
    fn flags(&self) -> String {
        let Global { network, definition, datadir, config, .. } = &self.global;
        let network = network.as_ref().map(|name| format!(" --network {name}"));
        let path = |flag: &str, path: &Option<PathBuf>| {
            path.as_ref().map(|path| format!(" --{flag} {}", typed(path)))
        };
        let (definition, datadir) = (path("definition", definition), path("datadir", datadir));
        [network, definition, datadir, path("config", config)].into_iter().flatten().collect()
    }

    /// Shows a result: JSON or, for people, a page.
    ///
    /// # Errors
    /// Standard output.
    pub fn show<T: serde::Serialize>(
        &mut self,
        value: &T,
        page: impl FnOnce(&T, &mut Page),
    ) -> Result<(), Failure> {
        if self.global.json {
            return self.io.json(value);
        }
        let mut text = Page::with_flags(self.flags());
        page(value, &mut text);
        self.io.page(&text)
    }
}

/// Runs the process: standard streams, real environment.
#[must_use]
pub fn main() -> ExitCode {
    if let Some(code) = shim_alone() {
        return code;
    }
    let (stdin, mut stdout, mut stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    // Output stays unlocked: a node or a lease may write from other threads.
    let mut io = Io {
        can_ask: stdin.is_terminal() && stderr.is_terminal(),
        out_is_terminal: stdout.is_terminal(),
        out: &mut stdout,
        err: &mut stderr,
        input: &mut stdin.lock(),
    };
    let environment: Vec<(OsString, OsString)> = std::env::vars_os().collect();
    run(std::env::args_os(), &environment, &mut io)
}

/// `shim` by itself.
#[derive(clap::Parser)]
struct ShimAlone {
    #[command(flatten)]
    flags: ShimFlags,
}

/// A process of a lease, which has no use for the other commands: each program beside a workload would wait
/// milliseconds until all of them are known. What it does not understand the whole command line answers.
fn shim_alone() -> Option<ExitCode> {
    let mut args = std::env::args_os().skip(1).peekable();
    if args.peek()? != "shim" {
        return None;
    }
    let ShimAlone { flags } = ShimAlone::try_parse_from(args).ok()?;
    Some(run_shim(&flags))
}

fn run_shim(flags: &ShimFlags) -> ExitCode {
    ExitCode::from(match (&flags.enter, &flags.trial) {
        (Some(request), _) => shim::enter(&flags.dir, request),
        (None, Some(trial)) => crate::executor::trial(trial),
        (None, None) if flags.guard => shim::guard(&flags.dir),
        (None, None) => shim::run(&flags.dir, flags.secrets),
    })
}

/// Runs one command in an environment and gives its exit code.
pub fn run(
    args: impl IntoIterator<Item = OsString>,
    environment: &[(OsString, OsString)],
    io: &mut Io<'_>,
) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    let wants_json = args.iter().any(|arg| arg == "--json");
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => return usage(&error, wants_json, io),
    };
    let json = cli.global.json;
    let reborrowed = Io {
        out: &mut *io.out,
        err: &mut *io.err,
        input: &mut *io.input,
        can_ask: io.can_ask,
        out_is_terminal: io.out_is_terminal,
    };
    let env = |name: &str| dirs::text_of(environment, name);
    let mut context = Context { global: cli.global, env: &env, io: reborrowed };
    let checked = variables::check(environment).map_err(Failure::from);
    match checked.and_then(|()| dispatch(cli.command, &mut context)) {
        Ok(code) => code,
        Err(failure) => ExitCode::from(context.io.fail(&failure, json)),
    }
}

fn usage(error: &clap::Error, json: bool, io: &mut Io<'_>) -> ExitCode {
    if !error.use_stderr() {
        // Help and version: asked for, so they are the result.
        return match write!(io.out, "{}", error.render()).map_err(Failure::from) {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => ExitCode::from(io.fail(&failure, json)),
        };
    }
    if json {
        return ExitCode::from(
            io.fail(&Failure::new(reason!("cli.usage"), first_line(error)), true),
        );
    }
    // Standard error may be closed: then the exit code has to do.
    let _ = write!(io.err, "{}", error.render());
    ExitCode::from(Exit::Usage as u8)
}

/// The first paragraph of clap's error in one line, without its label.
fn first_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let lines = text.lines().take_while(|line| !line.is_empty()).map(str::trim);
    let line = lines.collect::<Vec<_>>().join(" ");
    line.strip_prefix("error: ").unwrap_or(&line).to_owned()
}

fn dispatch(command: Command, context: &mut Context<'_>) -> Result<ExitCode, Failure> {
    let done = match command {
        Command::Devnet(flags) => devnet::run(&flags, context),
        Command::Devchain(flags) => devchain::run(&flags, context),
        Command::Init(flags) => init::run(&flags, context),
        Command::Up(flags) => up::run(&flags, context),
        Command::Join(flags) => join::run(&flags, context),
        Command::Invite(flags) => invite::run(&flags, context),
        Command::Testnet(noun) => testnet::run(&noun, context),
        Command::Status(flags) => status::run(&flags, context),
        Command::Sell(flags) => sell::run(flags, context),
        Command::Buy(flags) => buy::run(flags, context),
        Command::Quote(noun) => quote::run(noun, context),
        Command::Order(noun) => order::run(&noun, context),
        Command::Book(flags) => book::run(&flags, context),
        Command::Trade(noun) => trade::run(&noun, context),
        Command::Cert(noun) => cert::run(&noun, context),
        Command::Pool(noun) => pool::run(noun, context),
        Command::Lease(noun) => return lease::run(&noun, context),
        Command::Wallet(noun) => wallet::run(&noun, context),
        Command::Peer(noun) => peer::run(&noun, context),
        Command::Match(flags) => return Ok(run_match(&flags, context)),
        Command::Epoch(noun) => epoch::run(&noun, context),
        Command::Host(noun) => host::run(&noun, context),
        Command::Config(noun) => config::run(&noun, context),
        Command::Db(noun) => db::run(&noun, context),
        Command::Backup(noun) => backup::run(&noun, context),
        Command::Shim(flags) => return Ok(run_shim(&flags)),
    };
    done.map(|()| ExitCode::SUCCESS)
}

fn run_match(flags: &MatchFlags, context: &mut Context<'_>) -> ExitCode {
    let input = flags.input.to_string_lossy();
    let plot = flags.plot.clone().map(|path| Plot { path, class: flags.class, slot: flags.slot });
    let (json, io) = (context.global.json, &mut context.io);
    let (out, err) = (&mut *io.out, &mut *io.err);
    ExitCode::from(match_cmd::run_and_plot(
        &input,
        flags.algorithm,
        plot.as_ref(),
        json,
        &mut io.input,
        out,
        err,
    ))
}

/// Reads a file of the user, at most `max_bytes`.
fn read_file(path: &Path, max_bytes: u64) -> Result<Vec<u8>, Failure> {
    let refuse = |error: std::io::Error| Failure::file(path, &error);
    let file = std::fs::File::open(path).map_err(refuse)?;
    let mut bytes = Vec::new();
    file.take(max_bytes + 1).read_to_end(&mut bytes).map_err(refuse)?;
    if bytes.len() as u64 > max_bytes {
        return Err(refuse(std::io::Error::other(format!("larger than {max_bytes} bytes"))));
    }
    Ok(bytes)
}

fn read_text(path: &Path, max_bytes: u64) -> Result<String, Failure> {
    text_of(path, read_file(path, max_bytes)?)
}

fn text_of(path: &Path, bytes: Vec<u8>) -> Result<String, Failure> {
    String::from_utf8(bytes)
        .map_err(|_| Failure::file(path, &std::io::Error::other("not UTF-8 text")))
}

/// The same with `-` for standard input.
fn read_text_or_input(
    path: &Path,
    max_bytes: u64,
    context: &mut Context<'_>,
) -> Result<String, Failure> {
    if path != Path::new("-") {
        return read_text(path, max_bytes);
    }
    let mut bytes = Vec::new();
    let mut input = (&mut *context.io.input).take(max_bytes + 1);
    input.read_to_end(&mut bytes).map_err(|error| Failure::file(path, &error))?;
    if bytes.len() as u64 > max_bytes {
        let error = std::io::Error::other(format!("larger than {max_bytes} bytes"));
        return Err(Failure::file(path, &error));
    }
    text_of(path, bytes)
}

/// Text that somebody copied: without the mark that some editors put first, and the blank lines
/// that others leave at the end.
fn pasted(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text).trim_end()
}

/// For clap: an id or a unique prefix of at least eight digits, as people copy it.
fn id(text: &str) -> Result<String, String> {
    match Prefix::parse(&text.trim().to_ascii_lowercase()) {
        Ok(prefix) => Ok(prefix.as_str().to_owned()),
        Err(error) => Err(error.message),
    }
}

/// For clap: a whole key.
fn key(text: &str) -> Result<String, String> {
    let text = text.trim().to_ascii_lowercase();
    text.parse::<capex_core::ids::Key>().map(|key| key.to_string()).map_err(|e| e.to_string())
}

/// For clap: a length of time in ms.
fn wait_ms(text: &str) -> Result<u64, String> {
    time::length_ms(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn ids_and_keys_are_taken_as_people_copy_them() {
        let digits = "0123456789abcdef".repeat(4);
        for text in [digits.clone(), digits.to_uppercase(), format!(" {digits}\n")] {
            assert_eq!((id(&text), key(&text)), (Ok(digits.clone()), Ok(digits.clone())));
        }
        assert!(id("0123 4567").is_err() && id("0123456").is_err());
    }

    #[test]
    fn pasted_text_loses_what_editors_add() {
        assert_eq!(pasted("\u{feff}a 1\r\nb 2\r\n\r\n \n"), "a 1\r\nb 2");
        assert_eq!(pasted("a\u{feff}"), "a\u{feff}");
    }

    #[test]
    fn the_command_tree_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_coin_takes_no_address_for_another_coin() {
        let coin = format!("{}:0", "11".repeat(32));
        let args = ["capex", "wallet", "send", "--coin", &coin, "--coin", &coin, "bcrt1q", "1btc"];
        let cli = Cli::try_parse_from(args).unwrap();
        let Command::Wallet(wallet::Noun::Send(send)) = cli.command else { panic!("no send") };
        assert_eq!((send.to.as_str(), send.coins.len()), ("bcrt1q", 2));
    }

    #[test]
    fn every_help_ends_in_two_examples_and_the_next_command() {
        let mut waiting = vec![("capex".to_owned(), Cli::command())];
        let mut leaves = 0;
        while let Some((name, command)) = waiting.pop() {
            let below = command.get_subcommands().filter(|command| !command.is_hide_set());
            let before = waiting.len();
            waiting.extend(below.map(|sub| (format!("{name} {}", sub.get_name()), sub.clone())));
            if waiting.len() > before {
                continue;
            }
            leaves += 1;
            let help = command.get_after_help().unwrap_or_else(|| panic!("{name}")).to_string();
            let (examples, next) = help.split_once("\n\n").unwrap();
            let lines: Vec<&str> = examples.lines().collect();
            assert_eq!((lines.len(), lines[0]), (3, "Examples:"), "{name}");
            assert!(lines[1..].iter().all(|line| line.contains("capex ")), "{name}: {help}");
            assert!(next.starts_with("Next: capex "), "{name}: {help}");
        }
        assert!(leaves >= 25, "{leaves}");
    }

    #[test]
    fn examples_are_commands_that_parse() {
        let mut waiting = vec![Cli::command()];
        while let Some(command) = waiting.pop() {
            waiting.extend(command.get_subcommands().cloned());
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            for line in help.lines().filter(|line| line.trim_start().starts_with("capex ")) {
                let line = line.split("   ").find(|part| part.contains("capex")).unwrap();
                let line = line
                    .split(['|', '>'])
                    .next()
                    .unwrap()
                    .replace("<key of the next holder", &"ab".repeat(32))
                    .replace("$CERT_ID", &"cd".repeat(32))
                    .replace("$PROVIDER_KEY", &"ab".repeat(32))
                    .replace("$HOLDER_KEY", &"ab".repeat(32))
                    .replace("$KEY", &"cd".repeat(32));
                let line = line.trim();
                let error = Cli::try_parse_from(line.split_whitespace()).err();
                assert!(error.is_none_or(|error| !error.use_stderr()), "{line}");
            }
        }
    }
}
