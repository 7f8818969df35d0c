//! `capex invite`: one line of text from which a newcomer has everything to join the network.

use std::path::Path;
use std::time::Duration;

use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};
use serde::Serialize;

use super::failure::Failure;
use super::output::Page;
use super::time::utc;
use super::{Context, wait_ms};
use crate::api::types::Status;
use crate::clock::now_ms;
use crate::invite::{Invite, InviteError, PEERS_MAX, SharedChain};
use crate::node::config::{ChainConfig, Config};
use crate::store::read_private;
use capex_core::ids::Digest;
use capex_core::reason;

/// Longest token file, bytes.
const TOKEN_MAX_BYTES: u64 = 256;

/// Flags of `invite`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  capex invite
  capex invite --good-for 1d --address /dns4/harbour.example/tcp/7210 --json

Next: capex join INVITATION    on the other machine")]
pub struct Flags {
    /// How long it can be taken
    #[arg(long, default_value = "7d", value_parser = wait_ms, value_name = "TIME")]
    pub good_for: u64,
    /// Where this node can be reached, if it does not know; repeat for more
    #[arg(long, value_name = "ADDR")]
    pub address: Vec<String>,
}

/// An invitation, as it is shown.
#[derive(Debug, Serialize)]
pub(super) struct Shown {
    invitation: String,
    network: String,
    definition: String,
    peers: Vec<String>,
    /// Where newcomers read the chain, if this node serves it.
    chain: Option<String>,
    /// Unix ms.
    expires_at: u64,
}

/// Prints one.
///
/// # Errors
/// No daemon runs, or it has no address at which others reach it.
pub fn run(flags: &Flags, context: &mut Context<'_>) -> Result<(), Failure> {
    let status = context.client()?.status()?;
    let config = context.config()?;
    let good_for = Duration::from_millis(flags.good_for);
    let shown = made(&status, &flags.address, &config, good_for)?;
    context.show(&shown, page)
}

/// The invitation into the network of a running node.
///
/// # Errors
/// It has no address at which others reach it, or one that cannot be meant.
pub(super) fn made(
    status: &Status,
    addresses: &[String],
    config: &Config,
    good_for: Duration,
) -> Result<Shown, Failure> {
    let definition: Digest = status
        .definition
        .parse()
        .map_err(|_| Failure::new(reason!("daemon.malformed"), "the daemon names no definition"))?;
    let peers = peers(status, addresses);
    if peers.is_empty() {
        return Err(Failure::new(reason!("invite.no_address"), "this node listens nowhere"));
    }
    let chain = config.shared_chain.as_ref().map(shared).transpose()?;
    let expires_at_s =
        (now_ms() + u64::try_from(good_for.as_millis()).unwrap_or(u64::MAX / 2)) / 1000;
    let url = chain.as_ref().map(|chain| chain.url.clone());
    let network = status.network.clone();
    let invite = Invite::new(network, definition, peers.clone(), chain, expires_at_s)
        .map_err(|error: InviteError| Failure::new(error.reason(), error.to_string()))?;
    Ok(Shown {
        invitation: invite.text(),
        network: invite.network,
        definition: status.definition.clone(),
        peers,
        chain: url,
        expires_at: expires_at_s * 1000,
    })
}

/// The addresses named, else those at which the node listens, this machine's own last.
fn peers(status: &Status, named: &[String]) -> Vec<String> {
    let id = status.p2p.first().and_then(|addr| addr.rsplit_once("/p2p/")).map(|(_, id)| id);
    let with_id = |addr: &String| match id {
        Some(id) if !addr.contains("/p2p/") => format!("{addr}/p2p/{id}"),
        _ => addr.clone(),
    };
    let mut peers: Vec<String> =
        if named.is_empty() { status.p2p.clone() } else { named.iter().map(with_id).collect() };
    let is_own = |addr: &String| addr.starts_with("/ip4/127.") || addr.starts_with("/ip6/::1/");
    if peers.iter().any(|addr| !is_own(addr)) {
        peers.retain(|addr| !is_own(addr));
    }
    peers.truncate(PEERS_MAX);
    peers
}

fn shared(chain: &ChainConfig) -> Result<SharedChain, Failure> {
    Ok(SharedChain { url: chain.url.clone(), token: token(&chain.cookie)? })
}

/// The token in a file that only its owner may read.
pub(super) fn token(path: &Path) -> Result<String, Failure> {
    let token = read_private(path, TOKEN_MAX_BYTES)?;
    Ok(String::from_utf8_lossy(&token).trim().to_owned())
}

pub(super) fn page(shown: &Shown, page: &mut Page) {
    for line in picture(&shown.invitation).lines() {
        page.line(line);
    }
    page.line(&shown.invitation)
        .field("network", &shown.network)
        .field("good until", utc(shown.expires_at));
    for peer in &shown.peers {
        page.field("peer", peer);
    }
    match &shown.chain {
        Some(url) => page.field("chain", url).line(
            "Whoever has the line can read this chain and submit to it, and nothing else of yours.",
        ),
        None => {
            page.line("No secret is in it; whoever takes it brings a chain source of their own.")
        }
    };
    page.line("Next: capex join INVITATION    on the other machine");
}

/// The text as a picture that a camera reads, two rows of it in each line; light on dark or dark on
/// light, it is read alike.
fn picture(text: &str) -> String {
    match QrCode::with_error_correction_level(text, EcLevel::L) {
        Ok(code) => code.render::<Dense1x2>().quiet_zone(true).build(),
        // Longer than a picture of any size: the text is there all the same.
        Err(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invitation_fits_a_terminal_as_a_picture() {
        let text = format!("capex:{}", "x".repeat(450));
        let picture = picture(&text);
        let width = picture.lines().map(|line| line.chars().count()).max();
        assert!(width.is_some_and(|width| (40..=100).contains(&width)), "{width:?}");
    }
}
