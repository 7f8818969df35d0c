//! `capex lease grant`, and how a command comes into a running lease.

use std::net::TcpStream as StdStream;
use std::path::{Path, PathBuf};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

use super::client::Client;
use super::failure::Failure;
use super::time::utc;
use super::{Context, file_out, id, key, read_text, wait_ms};
use crate::api::grant_ends_s;
use crate::api::types::{AccessGrant, GrantAccess, OpenStream, StreamFor};
use crate::clock::now_ms;
use capex_core::lease::access::AccessVerb;
use capex_core::reason;

/// Longest grant, as text.
const GRANT_MAX_BYTES: u64 = 16 << 10;

/// Which lease, and by whose leave.
#[derive(Debug, Clone, clap::Args)]
pub struct Way {
    /// Id, or its first 8 or more digits
    #[arg(value_parser = id)]
    pub id: String,
    /// For a lease of another holder: what `lease grant` gave, or a file with it
    #[arg(long, value_name = "GRANT|FILE")]
    pub grant: Option<String>,
}

impl Way {
    /// What a stream of this kind is asked for with.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn open(&self, open: StreamFor) -> Result<OpenStream, Failure> {
        let grant = match &self.grant {
            Some(text) if !text.starts_with("capex-grant-") => {
                Some(read_text(Path::new(text), GRANT_MAX_BYTES)?.trim().to_owned())
            }
            text => text.clone(),
        };
        Ok(OpenStream { open, grant })
    }

    /// Opens a stream.
    ///
    /// # Errors
    /// What the node or the provider refused.
    pub fn stream(&self, client: &Client, open: StreamFor) -> Result<StdStream, Failure> {
        client.stream(&self.id, &self.open(open)?)
    }
}

/// Why a stream has ended that says nothing by itself: its grant has.
#[must_use]
pub fn expired(open: &OpenStream) -> Option<Failure> {
    // The provider's clock decides, and may be a little ahead.
    const SLACK_S: u64 = 2;
    let last_s = grant_ends_s(open.grant.as_deref()?)?;
    let is_over = now_ms() / 1000 + SLACK_S > last_s;
    let failure = || Failure::new(reason!("access.grant_expired"), "the grant has expired");
    is_over.then(failure)
}

/// One thread, for what runs beside standard input and output.
///
/// # Errors
/// The system gives none.
pub fn runtime() -> Result<Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::new(reason!("cli.output"), error.to_string()))
}

/// A stream within a runtime.
///
/// # Errors
/// The system.
pub fn halves(
    stream: StdStream,
) -> std::io::Result<(impl AsyncRead + Unpin, impl AsyncWrite + Unpin)> {
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)?;
    Ok(TcpStream::from_std(stream)?.into_split())
}

/// What a lease says before a stream ends too early.
#[must_use]
pub fn lost() -> Failure {
    Failure::new(reason!("access.lost_session"), "the stream into the lease has ended")
}

/// Flags of `lease grant`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  capex lease grant 0123abcd --to $KEY --verbs exec,get --for 1h --out friend.grant
  capex lease grant 0123abcd --to $KEY --verbs attach --for 30m

Next: capex lease exec <id> --grant friend.grant -- sh, on the other node")]
pub struct Grant {
    /// Id, or its first 8 or more digits
    #[arg(value_parser = id)]
    pub id: String,
    /// Key of the node that is let in
    #[arg(long, value_parser = key)]
    pub to: String,
    /// What it may do: exec, forward (ports that the workload names), ssh, put, get, attach
    #[arg(long, value_delimiter = ',', required = true, value_name = "VERB,...", value_parser = verb)]
    pub verbs: Vec<String>,
    /// For how long, at most to the end of the window
    #[arg(long = "for", value_name = "TIME", value_parser = wait_ms)]
    pub for_ms: u64,
    /// File to write [default: standard output]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

fn verb(text: &str) -> Result<String, String> {
    // As `capex lease logs` has it: reading what the workload writes.
    let text = if text == "logs" { "attach" } else { text };
    let known = AccessVerb::ALL.map(AccessVerb::name);
    if known.contains(&text) {
        return Ok(text.to_owned());
    }
    Err(format!("not one of {}", known.join(", ")))
}

/// Lets another key into an own lease.
///
/// # Errors
/// What the node refused.
pub fn grant(flags: &Grant, context: &mut Context<'_>) -> Result<(), Failure> {
    let for_s = flags.for_ms.div_ceil(1000);
    let body = GrantAccess { to: flags.to.clone(), verbs: flags.verbs.clone(), for_s };
    let path = format!("/leases/{}/grants", flags.id);
    let granted: AccessGrant = context.client()?.post(&path, &body)?;
    if let Some(out) = &flags.out {
        file_out::write(out, format!("{}\n", granted.grant).as_bytes(), false)?;
    }
    context.show(&granted, |granted, page| match &flags.out {
        Some(out) => {
            page.line(format_args!("good until {}: {}", utc(granted.expires_at), out.display()));
        }
        None => {
            page.line(&granted.grant);
        }
    })
}
