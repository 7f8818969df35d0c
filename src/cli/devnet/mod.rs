//! `capex devnet`: a whole market on this machine, as processes that only share a chain.
//!
//! One `capex devchain` (by itself, or around a real Bitcoin Core) and five `capex up` run as children, each node with its own
//! directory, keys, store and swarm. Everything is done and seen through their HTTP APIs,
//! as a user would: nothing here reaches into a node. What the nodes answer becomes a story
//! for people and a document for programs.

mod broken;
mod closing;
mod container;
mod document;
mod fleet;
mod holding;
mod home;
mod leasing;
mod node;
mod plan;
mod pooling;
mod reselling;
mod setup;
pub(super) mod story;
mod trading;
mod wait;

use std::io::Write;
use std::path::PathBuf;

use self::broken::Broken;
use self::document::{Document, ErrorPart};
use self::fleet::{Fleet, LOOK_EVERY, tail};
use self::home::Home;
use self::node::Node;
use self::plan::Plan;
use self::story::{Story, seconds};
use self::wait::{Awaited, Look, wait};
use super::Context;
use super::devchain::bitcoind;
use super::failure::{Exit, Failure};
use super::output::{Io, typed};
use super::sanitise;
use capex_core::reason;

/// Flags of `devnet`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  capex devnet --seed 8 --json > market.json
  capex devnet --containers

Next: capex init --network devnet")]
pub struct Flags {
    /// Decides names, keys, prices, quantities and inputs
    #[arg(long, default_value_t = 7)]
    pub seed: u64,
    /// What the market settles on
    #[arg(long, value_enum, default_value_t = ChainKind::Devchain)]
    pub chain: ChainKind,
    /// Also buy room for a container with what runs in it, and come into it; says why not where this
    /// machine runs none
    #[arg(long)]
    pub containers: bool,
    /// Keep the market running until interrupted; its directory goes then, unless --dir names one
    #[arg(long)]
    pub keep: bool,
    /// New or empty directory for everything; it stays [default: a temporary one]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// What a market settles on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ChainKind {
    /// The development chain: no further program is needed
    Devchain,
    /// The regtest of a real Bitcoin Core: $BITCOIND, or bitcoind on PATH, or what
    /// scripts/bitcoind has built
    Bitcoind,
}

impl ChainKind {
    /// As in the document, and of its directory and log.
    fn name(self) -> &'static str {
        match self {
            Self::Devchain => "devchain",
            Self::Bitcoind => "bitcoind",
        }
    }
}

/// A trade of this run and what came of it.
struct Sold {
    trade_id: String,
    cert_id: String,
}

/// A certificate as it is redeemed.
struct Title {
    cert_id: String,
    /// Who holds it: index of its node.
    holder: usize,
    /// Whose capacity it is.
    provider: usize,
}

/// A market in progress.
struct Run<'a> {
    chain: ChainKind,
    plan: Plan,
    home: &'a Home,
    fleet: &'a Fleet,
    story: Story<'a>,
    document: Document,
    nodes: Vec<Node>,
    /// Standing orders of the buyers, by planned trade.
    bids: Vec<String>,
    sold: Vec<Sold>,
    /// What there is in the end, by the start of its window.
    titles: Vec<Title>,
    /// The program of a container that was asked for, or why there can be none.
    container: Option<Result<PathBuf, String>>,
}

impl Run<'_> {
    fn wait<T>(
        &self,
        awaited: Awaited<'_>,
        look: impl FnMut() -> Result<Look<T>, Broken>,
    ) -> Result<T, Broken> {
        wait(self.fleet, awaited, look)
    }

    fn play(&mut self) -> Result<(), Broken> {
        self.set_up()?;
        self.excuse_container()?;
        self.trade()?;
        self.hand_on()?;
        self.lease()?;
        self.close()?;
        self.sum_up()
    }

    /// The children run on until somebody ends this process.
    fn keep_up(&mut self) -> Result<(), Broken> {
        for node in &self.nodes {
            let status = node.status()?;
            let name = node.name();
            self.story.line(format_args!("{name:<10} {}  {}", status.api, status.datadir))?;
        }
        let home = self.home.path().display();
        let after = if self.home.is_kept() {
            format!("{home} stays; remove it with: rm -r {}", typed(self.home.path()))
        } else {
            format!("{home} goes too; --dir DIR keeps it")
        };
        self.story.line(format_args!("Next: capex status --datadir DIR, with one of these"))?;
        self.story.line(format_args!("Ctrl-c ends it all, and {after}"))?;
        while self.fleet.check().is_ok() {
            std::thread::sleep(LOOK_EVERY);
        }
        match self.fleet.check() {
            Err(broken) if !broken.is_wanted() => Err(broken),
            _ => Ok(()),
        }
    }
}

/// Runs a whole market.
///
/// # Errors
/// What failed first, with exit 1; exit 2 for a directory that cannot be used, 130 if
/// interrupted.
pub fn run(flags: &Flags, context: &mut Context<'_>) -> Result<(), Failure> {
    if flags.chain == ChainKind::Bitcoind {
        // Said before anything is started.
        bitcoind::find(context.env)?;
    }
    let mut home = Home::open(flags.dir.as_deref()).map_err(|broken| broken.failure)?;
    let fleet = Fleet::new(home.path()).map_err(|broken| broken.failure)?;
    let Io { out, err, .. } = &mut context.io;
    let (story, document): (&mut dyn Write, _) =
        if context.global.json { (err, Some(out)) } else { (out, None) };
    let mut run = Run {
        chain: flags.chain,
        plan: Plan::of(flags.seed),
        home: &home,
        fleet: &fleet,
        story: Story::new(story),
        document: Document::new(flags.seed, flags.chain.name()),
        nodes: Vec::new(),
        bids: Vec::new(),
        sold: Vec::new(),
        titles: Vec::new(),
        container: flags.containers.then(container::program),
    };
    let played = run.play();
    run.record(&played);
    if let Some(out) = document {
        print(&run.document, &mut **out)?;
    }
    let ended = played.and_then(|()| run.end(flags.keep));
    let Err(broken) = ended else { return Ok(()) };
    run.show_trouble(&broken);
    // The logs are the evidence of what failed.
    if !broken.is_wanted() {
        home.keep();
    }
    Err(as_exit(broken))
}

impl Run<'_> {
    fn record(&mut self, played: &Result<(), Broken>) {
        self.document.elapsed_s = seconds(self.story.elapsed());
        self.document.ok = played.is_ok();
        let Err(broken) = played else { return };
        let Failure { code, message, .. } = &broken.failure;
        let (code, message) = (code.clone(), message.clone());
        self.document.error = Some(ErrorPart { code, message, whose: broken.whose.clone() });
        if !broken.is_wanted() && self.document.nodes.is_empty() {
            // The nodes may be what failed: then the document goes without them.
            let _ = self.note_nodes();
        }
    }

    fn end(&mut self, keep: bool) -> Result<(), Broken> {
        if keep {
            return self.keep_up();
        }
        self.fleet.stop();
        if self.home.is_kept() {
            let path = self.home.path().display();
            self.story.line(format_args!("Everything is in {path}; no process is left."))?;
        }
        self.story.line("Next: capex devnet --keep    then look around with `capex status`")?;
        self.story.line("      capex init --network signet    and run a node of your own")
    }

    fn show_trouble(&mut self, broken: &Broken) {
        if broken.is_wanted() {
            return;
        }
        if let Some(whose) = &broken.whose {
            let log = self.home.log(whose);
            let mut text = format!("last lines of {}:\n", log.display());
            for line in tail(&log) {
                text += &format!("  {line}\n");
            }
            // If nobody reads, the exit code and the document have to do.
            let _ = self.story.paragraph(&text);
        }
        let _ = self.story.line(format_args!("all logs stay in {}", self.home.path().display()));
    }
}

fn print(document: &Document, out: &mut dyn Write) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(document)
        .map_err(|error| Failure::new(reason!("cli.json"), error.to_string()))?;
    Ok(writeln!(out, "{}", sanitise::json(&text))?)
}

/// Whatever a node refused, here it is a market that failed.
fn as_exit(broken: Broken) -> Failure {
    let mut failure = broken.failure;
    if !matches!(failure.exit, Exit::Interrupted | Exit::Ok) {
        failure.exit = Exit::Failed;
    }
    failure
}
