//! `capex host maintenance`: when this host will not deliver, said before.

use super::Context;
use super::client::Client;
use super::failure::Failure;
use super::output::Page;
use super::time::{Moment, length_ms, utc};
use crate::api::types::{Acknowledged, AnnounceMaintenance, Maintenance};
use crate::clock::now_ms;

/// What about maintenance.
#[derive(Debug, clap::Subcommand)]
pub enum Noun {
    /// Announce that leases will rest: their holders are told, and nothing more is sold for that time
    #[command(after_help = "Examples:
  capex host maintenance announce --from +6h --for 2h --why disks
  capex host maintenance announce --from 2026-12-01T22:00:00Z --for 30m --json

Next: capex host maintenance list")]
    Announce {
        /// When it begins, at least a slot ahead: +6h, unix seconds or RFC 3339
        #[arg(long, value_name = "TIME")]
        from: Moment,
        /// How long it lasts: 30m, 2h
        #[arg(long = "for", value_name = "LENGTH", value_parser = length_ms)]
        length_ms: u64,
        /// What holders are told of it, at most 200 bytes
        #[arg(long, value_name = "TEXT", default_value = "")]
        why: String,
    },
    /// List those that are to come
    #[command(after_help = "Examples:
  capex host maintenance list
  capex host maintenance list --json

Next: capex host maintenance cancel <number>")]
    List,
    /// Call one off, or end one that has begun: leases go on at once
    #[command(after_help = "Examples:
  capex host maintenance cancel 1
  capex host maintenance cancel 1 --json

Next: capex host maintenance list")]
    Cancel {
        /// Its number
        number: u32,
    },
}

/// Runs it.
///
/// # Errors
/// What the daemon refused.
pub fn run(noun: &Noun, context: &mut Context<'_>) -> Result<(), Failure> {
    let client = context.client()?;
    match noun {
        Noun::Announce { from, length_ms, why } => {
            let starts_at = from.at_ms(now_ms());
            let ends_at = starts_at.saturating_add(*length_ms);
            let body = AnnounceMaintenance { starts_at, ends_at, why: why.clone() };
            let announced: Maintenance = client.post("/maintenance", &body)?;
            context.show(&announced, |announced, page| {
                show_all(std::slice::from_ref(announced), page);
                page.line("announced: nothing more is offered for that time, and holders are told");
            })
        }
        Noun::List => context.show(&announced(&client)?, |all, page| show_all(all, page)),
        Noun::Cancel { number } => {
            let done: Acknowledged = client.delete(&format!("/maintenance/{number}"))?;
            context.show(&done, |_, page| {
                page.line("called off: leases go on, and the time is offered again");
            })
        }
    }
}

/// Those that are not over.
///
/// # Errors
/// What the daemon refused.
pub(super) fn announced(client: &Client) -> Result<Vec<Maintenance>, Failure> {
    client.get("/maintenance")
}

/// As a table.
pub(super) fn show_all(all: &[Maintenance], page: &mut Page) {
    let row = |one: &Maintenance| {
        [one.number.to_string(), utc(one.starts_at), utc(one.ends_at), one.why.clone()]
    };
    let empty = "none: see `capex help host maintenance announce`";
    page.table(["number", "from", "to", "why"], all.iter().map(row), empty);
}
