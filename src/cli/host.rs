//! `capex host show|test`: this machine, before it sells anything. Needs no daemon.

use std::path::Path;

use serde::Serialize;

use super::Context;
use super::failure::Failure;
use super::up::runtime;
use crate::executor::inventory::{self, Demand, HostCapacity, cpus};
use crate::executor::{Proved, self_test};
use crate::node::config::Config;
use capex_core::reason;

/// What about this host.
#[derive(Debug, clap::Subcommand)]
pub enum Noun {
    /// Print processors and memory, and what the configured capacity asks of them
    #[command(after_help = "Examples:
  capex host show
  capex host show --datadir /tmp/a --json

Next: capex host test")]
    Show,
    /// Try whether the limits of a lease hold here: three workloads, three seconds
    #[command(after_help = "Examples:
  capex host test
  capex host test --datadir /tmp/a --json

Next: capex up")]
    Test,
}

#[derive(Serialize)]
struct Shown {
    host: HostCapacity,
    /// What all configured units need at once.
    configured: Demand,
    fits: bool,
    /// What this machine does not have.
    beyond: Option<String>,
}

/// Runs it.
///
/// # Errors
/// A mistake in the configuration; a limit that does not hold.
pub fn run(noun: &Noun, context: &mut Context<'_>) -> Result<(), Failure> {
    let config = context.config()?;
    match noun {
        Noun::Show => {
            let shown = show(inventory::read(Path::new("/")), &config);
            context.show(&shown, |shown, page| {
                let mib = |bytes: u64| format!("{} MiB", bytes >> 20);
                page.field("processors", cpus(shown.host.cpu_milli))
                    .field("memory", mib(shown.host.memory_bytes))
                    .field("configured", cpus(shown.configured.cpu_milli))
                    .field("configured memory", mib(shown.configured.memory_bytes));
                match &shown.beyond {
                    None => page.line("the configured capacity fits"),
                    Some(beyond) => {
                        page.line(format_args!("{beyond}: lower [capacity] in the configuration"))
                    }
                };
            })
        }
        Noun::Test => {
            let beyond = Demand::of(&config.capacity, &config.params)
                .beyond(inventory::read(Path::new("/")));
            if let Some(beyond) = beyond.filter(|_| !config.allow_overcommit) {
                return Err(Failure::new(reason!("capacity.exceeds_host"), beyond));
            }
            let proved = test(&config)?;
            context.show(&proved, |proved, page| {
                page.field("back end", proved.backend)
                    .field("isolation", proved.isolation)
                    .field("memory limit", format!("held at {} bytes", proved.memory_peak_bytes))
                    .field("deadline", format!("held within {} ms", proved.deadline_overrun_ms));
            })
        }
    }
}

fn show(host: HostCapacity, config: &Config) -> Shown {
    let configured = Demand::of(&config.capacity, &config.params);
    let beyond = configured.beyond(host);
    Shown { host, configured, fits: beyond.is_none(), beyond }
}

/// In the data directory, since that is the disk where leases run.
fn test(config: &Config) -> Result<Proved, Failure> {
    let failed = |code, error: String| Failure::coded(code, error);
    let shim = std::env::current_exe().map_err(|e| failed("executor.io", e.to_string()))?;
    let dir = &config.datadir;
    std::fs::create_dir_all(dir).map_err(|e| failed("executor.io", e.to_string()))?;
    let proved = runtime()?.block_on(self_test(dir, &shim));
    proved.map_err(|error| {
        failed(error.code(), error.to_string()).with_hint("do not sell from this host")
    })
}
