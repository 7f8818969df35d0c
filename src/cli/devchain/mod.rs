//! `capex devchain`: a Bitcoin chain for development, in Bitcoin Core's RPC.

pub(super) mod bitcoind;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use super::failure::Failure;
use super::up::{announce, runtime, stop_asked};
use super::{Context, wait_ms};
use crate::chain::devchain::server::{ServeError, ServeOptions, serve};
use crate::node::config::{DEVCHAIN_LISTEN, devchain_dir};
use capex_core::reason;

/// Flags of `devchain`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  capex devchain --listen 127.0.0.1:0 --block-every 500ms --dir /tmp/chain
  capex devchain --bitcoind --dir /tmp/regtest

Next: capex init --network devnet")]
pub struct Flags {
    /// Address of the RPC server
    #[arg(long, default_value = DEVCHAIN_LISTEN, value_name = "ADDR")]
    pub listen: SocketAddr,
    /// Time between blocks; 0s mines on request only
    #[arg(long, default_value = "500ms", value_parser = wait_ms, value_name = "TIME")]
    pub block_every: u64,
    /// Directory of the cookie [default: the state directory]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Run the regtest of a real Bitcoin Core instead: $BITCOIND, or bitcoind on PATH, or what
    /// scripts/bitcoind has built
    #[arg(long)]
    pub bitcoind: bool,
    /// Stop when standard input ends, so that the process does not outlive its parent
    #[arg(long, hide = true)]
    pub exit_on_stdin_eof: bool,
}

/// Serves until interrupted.
///
/// # Errors
/// The address is taken, or the directory cannot be used.
pub fn run(flags: &Flags, context: &mut Context<'_>) -> Result<(), Failure> {
    let state_dir = devchain_dir(flags.dir.as_deref(), context.env)
        .ok_or_else(|| Failure::new(reason!("config.no_home"), "no home directory: pass --dir"))?;
    let block_every = (flags.block_every > 0).then(|| Duration::from_millis(flags.block_every));
    runtime()?.block_on(async {
        let shutdown = stop_asked(flags.exit_on_stdin_eof)?;
        if flags.bitcoind {
            let program = bitcoind::find(context.env)?;
            let core = bitcoind::Core::start(&program, flags.listen, &state_dir).await?;
            show(context, core.url.clone(), core.cookie.clone());
            return core.run(block_every, shutdown).await;
        }
        let shutdown = Box::pin(shutdown);
        let options =
            ServeOptions { listen: flags.listen, block_every, state_dir, guest: None, shutdown };
        let failed = |error: ServeError| Failure::coded(error.code(), error.to_string());
        let running = serve(options).await.map_err(failed)?;
        show(context, running.url(), running.cookie_path.clone());
        running.stopped().await;
        Ok(())
    })
}

fn show(context: &mut Context<'_>, url: String, cookie: PathBuf) {
    announce(context, &Serving { url, cookie }, |found, page| {
        page.field("url", &found.url).field("cookie", found.cookie.display());
    });
}

#[derive(Serialize)]
struct Serving {
    url: String,
    cookie: PathBuf,
}
