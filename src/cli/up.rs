//! `capex up`: the node, in the foreground, until interrupted.

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use super::failure::Failure;
use super::output::Page;
use super::places::Places;
use super::{Context, log};
use crate::api::endpoints;
use crate::api::types::Endpoints;
use crate::node::config::{Config, Overrides};
use capex_core::reason;

/// How long blocking calls may go on when the node has stopped; everything that must be on
/// disk is there by then.
const STRAGGLERS: Duration = Duration::from_millis(500);

/// Flags of `up`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  capex up
  capex up --datadir /tmp/b --peer /ip4/127.0.0.1/tcp/7210/p2p/12D3Koo…

Next: capex status")]
pub struct Flags {
    #[command(flatten)]
    pub places: Places,
    /// Multiaddr to listen on
    #[arg(long, value_name = "ADDR")]
    pub listen: Vec<String>,
    /// File with the password of a sealed seed, readable by its owner alone
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// Sell more than this machine has
    #[arg(long)]
    pub allow_overcommit: bool,
    /// Filter of the log, such as info,capex=debug
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,
    /// Stop when standard input ends, so that the process does not outlive its parent
    #[arg(long, hide = true)]
    pub exit_on_stdin_eof: bool,
}

/// Runs the node.
///
/// # Errors
/// The configuration, or what stopped the node.
pub fn run(flags: &Flags, context: &mut Context<'_>) -> Result<(), Failure> {
    let overrides = flags.places.over(Overrides {
        listen: flags.listen.clone(),
        allow_overcommit: flags.allow_overcommit,
        log: flags.log.clone(),
        password_file: flags.password_file.as_ref().map(|path| path.to_string_lossy().into_owned()),
        ..context.overrides()
    });
    let config = Config::load(&overrides, context.env)?;
    let datadir = config.datadir.clone();
    run_in(runtime()?, config, flags.exit_on_stdin_eof, context, async move {
        Ok(Running { shown: ready(datadir).await, page })
    })
}

/// What is shown once a node serves.
pub(super) struct Running<T> {
    pub(super) shown: T,
    pub(super) page: fn(&T, &mut Page),
}

/// Runs a node until interrupted, and shows what `serves` comes to; a failure of that ends it.
///
/// # Errors
/// What stopped the node.
pub(super) fn run_in<T: Serialize>(
    runtime: tokio::runtime::Runtime,
    config: Config,
    exit_on_stdin_eof: bool,
    context: &mut Context<'_>,
    serves: impl Future<Output = Result<Running<T>, Failure>>,
) -> Result<(), Failure> {
    let log = log::start(&config.log)?;
    let result = runtime.block_on(serve(config, exit_on_stdin_eof, context, serves));
    // A call to a chain source that never answers must not hold up the end.
    runtime.shutdown_timeout(STRAGGLERS);
    log.flush();
    result
}

/// The runtime of a server in this process.
///
/// # Errors
/// The system gives no threads.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(reason!("node.runtime"), error.to_string()))
}

async fn serve<T: Serialize>(
    config: Config,
    exit_on_stdin_eof: bool,
    context: &mut Context<'_>,
    serves: impl Future<Output = Result<Running<T>, Failure>>,
) -> Result<(), Failure> {
    let node = crate::node::run(config, stop_asked(exit_on_stdin_eof)?);
    tokio::pin!(node);
    let stopped = |result: Result<(), crate::node::NodeError>| {
        result.map_err(|error| {
            let failure = Failure::coded(error.code(), error.to_string());
            let hint = error.hint().map(str::to_owned).or(failure.hint.clone());
            Failure { hint, ..failure }
        })
    };
    tokio::select! {
        result = &mut node => return stopped(result),
        serves = serves => {
            let Running { shown, page } = serves?;
            announce(context, &shown, page);
        }
    }
    stopped(node.await)
}

fn page(found: &Endpoints, page: &mut Page) {
    page.field("network", &found.network).field("node", &found.key).field("api", &found.api);
    for address in &found.p2p {
        page.field("p2p", address);
    }
}

/// Shows where a server is. It serves all the same if nobody can read that.
pub(super) fn announce<T: Serialize>(
    context: &mut Context<'_>,
    found: &T,
    page: impl FnOnce(&T, &mut Page),
) {
    if let Err(failure) = context.show(found, page) {
        tracing::warn!(%failure, "the addresses could not be shown");
    }
}

/// Waits for the file that this process writes once it can be asked.
async fn ready(datadir: PathBuf) -> Endpoints {
    const INTERVAL: Duration = Duration::from_millis(50);
    loop {
        match endpoints::read(&datadir) {
            Ok(found) if found.pid == std::process::id() => return found,
            _ => tokio::time::sleep(INTERVAL).await,
        }
    }
}

/// Resolves on SIGINT, SIGTERM, or the end of the terminal, unless `nohup` or a supervisor has
/// chosen to outlive it. The handlers are in place when this returns, so that a
/// signal that comes before the first poll is not lost.
///
/// # Errors
/// The system gives no handlers.
pub(super) fn interrupted() -> Result<impl Future<Output = ()> + Send + 'static, Failure> {
    let failed = |error: std::io::Error| Failure::new(reason!("node.signals"), error.to_string());
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    // A handler would undo the choice.
    let mut hangup =
        if ignores_hangup() { None } else { Some(signal(SignalKind::hangup()).map_err(failed)?) };
    Ok(async move {
        let hung_up = async {
            match &mut hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hung_up => {}
        }
    })
}

/// Whether SIGHUP, the first of all signals, is ignored by this process.
fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & 1 == 1)
}

/// As [`interrupted`], and, if asked to, at the end of standard input: whoever started this
/// process holds the other end, so it does not outlive them.
///
/// # Errors
/// As [`interrupted`], or standard input is closed.
pub(super) fn stop_asked(
    exit_on_stdin_eof: bool,
) -> Result<impl Future<Output = ()> + Send + 'static, Failure> {
    let interrupted = interrupted()?;
    let orphaned = if exit_on_stdin_eof { Some(stdin_ended()?) } else { None };
    Ok(async move {
        let Some(orphaned) = orphaned else {
            return interrupted.await;
        };
        tokio::select! {
            () = interrupted => {}
            // An error is the sender that went, as nothing is ever sent.
            _ = orphaned => {}
        }
    })
}

/// Reads in a thread of its own, on a descriptor of its own: the runtime would wait for a
/// read that blocks, and the command line holds the lock of the standard stream.
fn stdin_ended() -> Result<oneshot::Receiver<()>, Failure> {
    let failed = |error: std::io::Error| Failure::new(reason!("cli.stdin"), error.to_string());
    let stdin = std::io::stdin().as_fd().try_clone_to_owned().map_err(failed)?;
    let (ended, wait) = oneshot::channel();
    std::thread::spawn(move || {
        // An error is an end too.
        let _ = std::io::copy(&mut std::fs::File::from(stdin), &mut std::io::sink());
        drop(ended);
    });
    Ok(wait)
}
