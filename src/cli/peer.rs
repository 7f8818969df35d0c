//! `capex peer list|add`.

use super::Context;
use super::failure::Failure;
use super::output::short;
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
                    let state = if peer.connected { "connected" } else { "known" };
                    let address = peer.addresses.first().cloned().unwrap_or_default();
                    [short(&peer.key), state.to_owned(), address]
                };
                let empty = "no peers: see `capex help peer add`";
                page.table(["peer", "state", "address"], peers.iter().map(row), empty);
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
