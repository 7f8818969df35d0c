//! Flags that a configuration and a run have in common: where a node finds its chain and its
//! peers, and where its user finds it.

use std::path::PathBuf;

use crate::node::config::Overrides;

/// The flags.
#[derive(Debug, clap::Args)]
pub struct Places {
    /// RPC address of the chain source
    #[arg(long, value_name = "URL")]
    pub chain_url: Option<String>,
    /// Cookie file of the chain source
    #[arg(long, value_name = "FILE")]
    pub chain_cookie: Option<PathBuf>,
    /// Loopback address of the HTTP API
    #[arg(long, value_name = "ADDR")]
    pub api_listen: Option<String>,
    /// Peer to stay connected to, a multiaddr with /p2p/<id>
    #[arg(long, value_name = "ADDR")]
    pub peer: Vec<String>,
}

impl Places {
    /// These places in place of others.
    pub(super) fn over(&self, others: Overrides) -> Overrides {
        Overrides {
            chain_url: self.chain_url.clone(),
            chain_cookie: self.chain_cookie.as_ref().map(|path| path.to_string_lossy().into()),
            api_listen: self.api_listen.clone(),
            peers: self.peer.clone(),
            ..others
        }
    }
}
