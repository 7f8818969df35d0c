//! `capex peer list|show|add|forgive`.

use super::failure::Failure;
use super::output::short;
use super::time::utc;
use super::{Context, id};
use crate::api::types::{Acknowledged, AddPeer, Peer};

/// What about peers.
#[derive(Debug, clap::Subcommand)]
pub enum Noun {
    /// List known peers
    #[command(after_help = "Examples:
  capex peer list
  capex peer list --json

Next: capex peer add <multiaddr>")]
    List,
    /// Show a peer, and what it failed to do in trades with this node
    #[command(after_help = "Examples:
  capex peer show 0123abcd
  capex peer show 0123abcd --json

Next: capex peer forgive <key>")]
    Show {
        /// Key, or its first 8 or more digits
        #[arg(value_parser = id)]
        key: String,
    },
    /// Forget what a peer failed to do, and trade with it again
    #[command(after_help = "Examples:
  capex peer forgive 0123abcd
  capex peer forgive 0123abcd --json

Next: capex peer list")]
    Forgive {
        /// Key, or its first 8 or more digits
        #[arg(value_parser = id)]
        key: String,
    },
    /// Stay connected to a peer
    #[command(after_help = "Examples:
  capex peer add /ip4/127.0.0.1/tcp/7210/p2p/12D3Koo…
  capex peer add /dns4/node.example/udp/7210/quic-v1/p2p/12D3Koo… --json

Next: capex peer list")]
    Add {
        /// Multiaddr with /p2p/<id>, as `capex status` prints it
        address: String,
    },
}

/// Runs it.
///
/// # Errors
/// What the daemon refused.
pub fn run(noun: &Noun, context: &mut Context<'_>) -> Result<(), Failure> {
    let client = context.client()?;
    match noun {
        Noun::List => {
            let peers: Vec<Peer> = client.get("/peers")?;
            context.show(&peers, |peers, page| {
                let row = |peer: &Peer| {
                    let address = peer.addresses.first().cloned().unwrap_or_default();
                    let misses: u32 = peer.misses.values().sum();
                    let misses = if misses == 0 { String::new() } else { misses.to_string() };
                    let denied = denied(peer).unwrap_or_default();
                    [short(&peer.key), state(peer).to_owned(), misses, denied, address]
                };
                let empty = "no peers: see `capex help peer add`";
                let headings = ["peer", "state", "misses", "denied", "address"];
                page.table(headings, peers.iter().map(row), empty);
            })
        }
        Noun::Show { key } => {
            let peer: Peer = client.get(&format!("/peers/{key}"))?;
            context.show(&peer, |peer, page| {
                page.field("peer", &peer.key).field("state", state(peer));
                for address in &peer.addresses {
                    page.field("address", address);
                }
                for (kind, count) in &peer.misses {
                    page.field("missed", format_args!("{kind}: {count}"));
                }
                page.maybe("denied", denied(peer).as_ref());
            })
        }
        Noun::Forgive { key } => {
            let done: Acknowledged = client.delete(&format!("/peers/{key}/misses"))?;
            context.show(&done, |_, page| {
                page.line("forgiven: its misses count no more");
            })
        }
        Noun::Add { address } => {
            let body = AddPeer { address: address.clone() };
            let done: Acknowledged = client.post("/peers", &body)?;
            context.show(&done, |_, page| {
                page.line("added: the node connects and stays connected");
            })
        }
    }
}

fn state(peer: &Peer) -> &'static str {
    match (peer.connected, peer.addresses.is_empty()) {
        (true, _) => "connected",
        (false, false) => "known",
        (false, true) => "away",
    }
}

/// Until when nothing is signed towards it.
fn denied(peer: &Peer) -> Option<String> {
    if peer.equivocator {
        return Some("for good: it contradicted itself".to_owned());
    }
    peer.denied_until.map(|until| format!("until {}", utc(until)))
}
