//! The configuration file: TOML, every key optional, unknown keys refused with their line.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;

/// A mistake in a TOML text: its line (from 1) and what is wrong, in one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Line, from 1.
    pub line: usize,
    pub what: String,
}

/// The file as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FileConfig {
    pub network: Option<Spanned<String>>,
    /// File of the definition of a network that does not ship with the program.
    pub definition: Option<Spanned<String>>,
    pub allow_mainnet: Option<bool>,
    /// Sell what this machine does not have.
    pub allow_overcommit: Option<bool>,
    /// Sell from a host whose limits were not proved.
    pub accept_untested: Option<bool>,
    /// Filter of the log, as in `info,capex=debug`.
    pub log: Option<Spanned<String>>,
    /// Share of its worth that a trade may cost in fees, as in `20%`.
    pub max_fee_share: Option<Spanned<String>>,
    /// `[chain]`
    pub chain: ChainFile,
    /// `[shared_chain]`
    pub shared_chain: SharedFile,
    /// `[p2p]`
    pub p2p: P2pFile,
    /// `[api]`
    pub api: ApiFile,
    /// `[wallet]`
    pub wallet: WalletFile,
    /// `[backup]`
    pub backup: BackupFile,
    /// `[egress]`
    pub egress: EgressFile,
    /// `[host]`
    pub host: HostFile,
    /// `[capacity]`: units for sale by class name. Any value, so that a mistake gets a word.
    pub capacity: BTreeMap<String, Spanned<toml::Value>>,
}

/// `[chain]`: where chain facts come from.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ChainFile {
    /// RPC address, `http://host:port`.
    pub url: Option<Spanned<String>>,
    /// Cookie file of the RPC server.
    pub cookie: Option<Spanned<String>>,
}

/// `[shared_chain]`: the chain as newcomers are told of it in invitations.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SharedFile {
    /// RPC address, `http://host:port`, as others reach it.
    pub url: Option<Spanned<String>>,
    /// File with the `user:password` by which they read and submit.
    pub token: Option<Spanned<String>>,
}

/// `[p2p]`: the peer-to-peer network.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct P2pFile {
    pub listen: Option<Vec<Spanned<String>>>,
    /// Multiaddrs of first peers, with `/p2p/<id>`.
    pub peers: Option<Vec<Spanned<String>>>,
}

/// `[api]`: the HTTP API.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ApiFile {
    /// Loopback address and port; port 0 lets the system choose.
    pub listen: Option<Spanned<String>>,
}

/// `[wallet]`: coins.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WalletFile {
    /// Address that sales are paid out to, or a descriptor of which each takes a fresh one,
    /// instead of a fresh address of the wallet.
    pub payout: Option<Spanned<String>>,
    /// Public descriptor of coins whose keys are elsewhere; with `<0;1>`, change included.
    pub descriptor: Option<Spanned<String>>,
    /// The one of its change, where it has no `<0;1>`.
    pub change_descriptor: Option<Spanned<String>>,
    /// File with the password of a sealed seed.
    pub password_file: Option<Spanned<String>>,
}

/// `[backup]`: a backup that the node writes anew at each change.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BackupFile {
    /// Where it is written; best on another disk.
    pub path: Option<Spanned<String>>,
    /// File with its password, instead of the words of the wallet.
    pub password_file: Option<Spanned<String>>,
}

/// `[egress]`: the way out of leases.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EgressFile {
    /// Containers that ask for it may open connections to the outside.
    pub allow: Option<bool>,
    /// IPv4 addresses that they ask for names, instead of those of this host.
    pub resolvers: Option<Vec<Spanned<String>>>,
}

/// `[host]`: what this machine does for leases.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HostFile {
    /// Registries from which it fetches images for holders.
    pub registries: Option<Vec<Spanned<String>>>,
}

/// Parses a TOML text into `T`.
///
/// # Errors
/// The first mistake, with its line.
pub fn parse<T: for<'de> Deserialize<'de>>(text: &str) -> Result<T, Mistake> {
    toml::from_str(text).map_err(|error| Mistake {
        line: error.span().map_or(1, |span| line_of(text, &span)),
        what: error.message().lines().collect::<Vec<_>>().join(", "),
    })
}

/// Line in which a span begins, from 1.
#[must_use]
pub fn line_of(text: &str, span: &Range<usize>) -> usize {
    text.as_bytes().iter().take(span.start).filter(|byte| **byte == b'\n').count() + 1
}
