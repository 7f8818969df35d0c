//! `capex host show|test`: this machine, before it sells anything, which needs no daemon;
//! `capex host maintenance`: when it will not deliver.

use std::path::Path;

use serde::Serialize;

use super::failure::Failure;
use super::output::Page;
use super::up::runtime;
use super::{Context, maintenance};
use crate::api::types::Maintenance;
use crate::executor::inventory::{self, Demand, HostCapacity, cpus};
use crate::executor::{HostProof, Proved, disk_limits, no_containers, self_test};
use crate::node::config::Config;
use capex_core::engine::register::Room;
use capex_core::lease::score::Score;
use capex_core::params::{ClassDef, Isolation, NamedClass};
use capex_core::reason;

/// What about this host.
#[derive(Debug, clap::Subcommand)]
pub enum Noun {
    /// Print what this machine has, what it can sell of each class, and why not more
    #[command(after_help = "Examples:
  capex host show
  capex host show --datadir /tmp/a --json

Next: capex host test")]
    Show,
    /// Prove that the limits of a lease hold here, and measure it: for four seconds, and ten more with
    /// containers
    #[command(after_help = "Examples:
  capex host test
  capex host test --datadir /tmp/a --json

Next: capex up")]
    Test,
    /// Times in which leases rest: announce, list, cancel
    #[command(subcommand)]
    Maintenance(maintenance::Noun),
}

#[derive(Serialize)]
struct Shown {
    host: HostCapacity,
    /// Free on the disk of the data directory, bytes.
    disk_free_bytes: u64,
    /// What each class of the network comes to here.
    classes: Vec<ClassHere>,
    /// What all configured units need at once.
    configured: Demand,
    fits: bool,
    /// What this machine does not have.
    beyond: Option<String>,
    /// Why it runs no containers; null if it does.
    no_containers: Option<String>,
    /// What of the rate at which leases use their disks is limited.
    disk_limits: &'static str,
    /// Whether leases get a way out that ask for one.
    egress: bool,
    /// Why not.
    no_egress: Option<String>,
    /// Registries from which it fetches images for holders.
    registries: Vec<String>,
    /// When it will not deliver, as announced; null while no daemon answers that knows.
    maintenance: Option<Vec<Maintenance>>,
}

/// A class on this host.
#[derive(Serialize)]
struct ClassHere {
    class: String,
    isolation: &'static str,
    /// Units that are for sale, as configured or, if nothing is, as many as there is room for while
    /// no other class is sold.
    units: u32,
    /// Whether a self-test of this program on this kernel has proved its limits.
    is_proved: bool,
    /// Why no more units, or why none are offered.
    because: &'static str,
}

/// Runs it.
///
/// # Errors
/// A mistake in the configuration; a limit that does not hold.
pub fn run(noun: &Noun, context: &mut Context<'_>) -> Result<(), Failure> {
    let config = context.config()?;
    match noun {
        Noun::Maintenance(noun) => maintenance::run(noun, context),
        Noun::Show => {
            let known = context.client().and_then(|client| maintenance::announced(&client)).ok();
            let shown = show(inventory::read(Path::new("/")), &config, known);
            context.show(&shown, print_shown)
        }
        Noun::Test => {
            let beyond = Demand::of(&config.capacity, &config.params)
                .beyond(inventory::read(Path::new("/")));
            if let Some(beyond) = beyond.filter(|_| !config.allow_overcommit) {
                return Err(Failure::new(reason!("capacity.exceeds_host"), beyond));
            }
            context.show(&test(&config)?, print_proved)
        }
    }
}

fn print_shown(shown: &Shown, page: &mut Page) {
    let mib = |bytes: u64| format!("{} MiB", bytes >> 20);
    let by = |is_limited| if is_limited { ", by a control group" } else { "" };
    let host = &shown.host;
    let processors = format!("{}{}", cpus(host.cpu_milli), by(host.cpu_is_limited));
    let memory = mib(host.memory_bytes) + by(host.memory_is_limited);
    let way_out = match &shown.no_egress {
        None => "for leases that ask for one".to_owned(),
        Some(why) => format!("none: {why}"),
    };
    let registries = match shown.registries.as_slice() {
        [] => "their holders alone: no [host] registries in the configuration".to_owned(),
        named => named.join(", "),
    };
    let containers = match &shown.no_containers {
        None => "can be run",
        Some(why) => why,
    };
    page.field("processors", processors)
        .field("memory", memory)
        .field("free disk", mib(shown.disk_free_bytes))
        .field("containers", containers)
        .field("disk rate held", shown.disk_limits)
        .field("a way out", way_out)
        .field("images from", registries);
    match &shown.maintenance {
        None => page.field("maintenance", "not known: no daemon answers"),
        Some(all) if all.is_empty() => page.field("maintenance", "none announced"),
        Some(_) => page,
    };
    let row = |class: &ClassHere| {
        let units = class.units.to_string();
        let isolation = class.isolation.to_owned();
        [class.class.clone(), isolation, units, class.because.to_owned()]
    };
    page.table(["class", "runs in", "units", "why no more"], shown.classes.iter().map(row), "");
    if let Some(all) = shown.maintenance.as_ref().filter(|all| !all.is_empty()) {
        page.line("announced maintenance:");
        maintenance::show_all(all, page);
    }
    if let Some(beyond) = &shown.beyond {
        page.line(format_args!("{beyond}: lower [capacity] in the configuration"));
    }
}

fn print_proved(proved: &Proved, page: &mut Page) {
    page.field("back end", proved.backend)
        .field("isolation", proved.isolation)
        .field("memory limit", format!("held at {} bytes", proved.memory_peak_bytes))
        .field("deadline", format!("held within {} ms", proved.deadline_overrun_ms));
    page.field("component", score(proved.score));
    let Some(containers) = &proved.containers else {
        page.field("containers", proved.no_containers.as_deref().unwrap_or("none"));
        return;
    };
    let way_out = match (&containers.egress, &containers.no_egress) {
        (Some(egress), _) => format!("held back from {} addresses", egress.refused),
        (None, why) => format!("none: {}", why.as_deref().unwrap_or("not tried")),
    };
    let [direct, all] =
        [containers.disk_direct_bytes_per_s, containers.disk_bytes_per_s].map(|rate| rate >> 20);
    page.field("containers", "every limit held")
        .field("memory", format!("{} MiB at most", containers.memory_peak_bytes >> 20))
        .field("processor time", format!("{} ms of 1500", containers.cpu_us / 1_000))
        .field("processes", containers.processes)
        .field("disk", format!("full after {} MiB", containers.disk_bytes >> 20))
        .field("disk rate", format!("{direct} MiB/s, {all} by way of memory"))
        .field("disk rate held", containers.disk_rates)
        .field("a way out", way_out)
        .maybe("container", containers.score.map(score))
        .field("window", format!("held within {} ms", containers.deadline_overrun_ms));
}

fn score(Score { processor, memory }: Score) -> String {
    format!("{processor} million steps, {memory} MiB copied a second")
}

fn show(host: HostCapacity, config: &Config, maintenance: Option<Vec<Maintenance>>) -> Shown {
    let configured = Demand::of(&config.capacity, &config.params);
    let beyond = configured.beyond(host);
    let disk_free_bytes = inventory::free_disk_bytes(&config.datadir).unwrap_or(0);
    let room = host.room(disk_free_bytes);
    let unproved = HostProof::of(&config.datadir).unproved(&config.params);
    let (no_containers, disk_limits) = (no_containers(), disk_limits());
    let cannot =
        |class: &ClassDef| class.isolation == Isolation::Container && no_containers.is_some();
    let here = |class: &NamedClass| {
        let floors = &class.floors;
        let fits = room.units(floors);
        let numbered = config.capacity.get(&floors.id).copied();
        let units = if config.capacity.is_empty() { fits } else { numbered.unwrap_or(0) };
        let is_proved = !unproved.contains(&floors.id);
        let because = match is_proved || config.accept_untested || config.params.loopback {
            false if cannot(floors) => "no containers can be run here",
            false => "not tested: capex host test",
            true if !config.capacity.is_empty() => "[capacity] of the configuration",
            true => scarce(room, floors, units),
        };
        let isolation = floors.isolation.name();
        ClassHere { class: class.name.clone(), isolation, units, is_proved, because }
    };
    let classes = config.params.classes.iter().map(here).collect();
    let (no_egress, fits) = (config.no_egress(), beyond.is_none());
    let egress = no_egress.is_none();
    Shown {
        host,
        disk_free_bytes,
        classes,
        configured,
        fits,
        beyond,
        no_containers,
        disk_limits,
        egress,
        no_egress,
        registries: config.registries.names().collect(),
        maintenance,
    }
}

/// What one more unit lacks.
fn scarce(room: Room, class: &ClassDef, units: u32) -> &'static str {
    let more = Room::of(class, units.saturating_add(1));
    if more.gpus > room.gpus {
        "no GPU that a lease could use"
    } else if more.cpu_milli > room.cpu_milli {
        "processors"
    } else if more.memory_mib > room.memory_mib {
        "memory, of which 512 MiB are kept back"
    } else if more.disk_mib > room.disk_mib {
        "free disk, of which 512 MiB are kept back"
    } else {
        "more cannot be numbered"
    }
}

/// In the data directory, since that is the disk where leases run.
fn test(config: &Config) -> Result<Proved, Failure> {
    let failed = |code, error: String| Failure::coded(code, error);
    let shim = std::env::current_exe().map_err(|e| failed("executor.io", e.to_string()))?;
    let dir = &config.datadir;
    std::fs::create_dir_all(dir).map_err(|e| failed("executor.io", e.to_string()))?;
    let proof = HostProof::of(dir);
    let proved = runtime()?.block_on(self_test(dir, &shim, config.egress.clone()));
    let kept = match &proved {
        Ok(proved) => proof.keep(proved),
        Err(_) => proof.forget(),
    };
    kept.map_err(|e| failed("executor.io", format!("what was found cannot be kept: {e}")))?;
    proved.map_err(|error| {
        failed(error.code(), error.to_string())
            .with_hint("nothing is offered from this host until it passes")
    })
}
