//! `capex peer list|show|export|add|forgive`.

use super::failure::Failure;
use super::file_out::Out;
use super::output::{self, short};
use super::sanitise;
use super::time::utc;
use super::{Context, id};
use crate::api::types::{Acknowledged, AddPeer, Peer, PeerRecord, Unavailable};

/// What about peers.
#[derive(Debug, clap::Subcommand)]
pub enum Noun {
    /// List known peers
    #[command(after_help = "Examples:
  capex peer list
  capex peer list --json

Next: capex peer add <multiaddr>")]
    List,
    /// Show a peer: what it sold and delivered to this node, and what it failed to do
    #[command(after_help = "Examples:
  capex peer show 0123abcd
  capex peer show 0123abcd --json

Next: capex peer forgive <key>")]
    Show {
        /// Key, or its first 8 or more digits
        #[arg(value_parser = id)]
        key: String,
    },
    /// Write all receipts of leases between this node and a peer
    #[command(after_help = "Examples:
  capex peer export 0123abcd --out receipts.txt
  capex peer export 0123abcd

Next: capex peer show <key>")]
    Export {
        /// Key, or its first 8 or more digits
        #[arg(value_parser = id)]
        key: String,
        #[command(flatten)]
        out: Out,
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
                record(&peer.record, page);
            })
        }
        Noun::Export { key, out } => {
            let text = client.text(&format!("/peers/{key}/receipts"))?;
            match out.write(text.as_bytes(), context) {
                Some(written) => written,
                None if context.global.json => {
                    context.io.json(&serde_json::json!({ "receipts_file": text }))
                }
                None => Ok(context.io.out.write_all(sanitise::paragraph(&text).as_bytes())?),
            }
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

/// What it has done here, if it has done anything.
fn record(record: &PeerRecord, page: &mut output::Page) {
    if record.leases > 0 {
        let percent = record.delivered_percent.as_deref().unwrap_or("0");
        let early = (record.ended_early > 0)
            .then(|| format!("{} of them, before their windows", record.ended_early));
        page.field("leases", record.leases)
            .maybe("ended", early)
            .field("sold", format_args!("{} block-seconds", record.sold_block_s))
            .field(
                "delivered",
                format_args!("{} block-seconds, {percent} %", record.delivered_block_s),
            );
    }
    for Unavailable { cause, unavailable_s } in &record.unavailable {
        page.field("unavailable", format_args!("{unavailable_s} block-seconds, {cause}"));
    }
    page.field("settled", record.settled).field("defaulted", record.defaulted);
}

/// Until when nothing is signed towards it.
fn denied(peer: &Peer) -> Option<String> {
    if peer.equivocator {
        return Some("for good: it contradicted itself".to_owned());
    }
    peer.denied_until.map(|until| format!("until {}", utc(until)))
}
