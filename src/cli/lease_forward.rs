//! `capex lease forward`: ports of this machine that lead into a lease.

use std::net::{Ipv4Addr, SocketAddr, TcpStream as StdStream};
use std::process::ExitCode;
use std::sync::Arc;

use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::Context;
use super::client::Client;
use super::failure::Failure;
use super::lease_access::{Way, expired, runtime};
use crate::api::types::{OpenStream, StreamFor};
use capex_core::reason;

/// On their way, bytes each way of each connection.
const BUFFER_BYTES: usize = 128 << 10;
/// Failures that wait to be shown.
const FAILURES: usize = 16;

/// Flags of `lease forward`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  capex lease forward 0123abcd 8080:80
  capex lease forward 0123abcd 5432 9000:9000

Next: capex lease exec <id> -- sh")]
pub struct Forward {
    #[command(flatten)]
    pub way: Way,
    /// Port here and port there, or one for both; here 0 takes any
    #[arg(required = true, value_name = "HERE:THERE", value_parser = ports)]
    pub ports: Vec<(u16, u16)>,
}

fn ports(text: &str) -> Result<(u16, u16), String> {
    let port = |text: &str| text.parse::<u16>().map_err(|_| format!("{text:?} is no port"));
    let (here, there) = text.split_once(':').unwrap_or((text, text));
    let (here, there) = (port(here)?, port(there)?);
    if there == 0 { Err("a lease has no port 0".to_owned()) } else { Ok((here, there)) }
}

/// Carries connections until it is interrupted.
///
/// # Errors
/// A port of this machine that is taken.
pub fn run(flags: &Forward, context: &mut Context<'_>) -> Result<ExitCode, Failure> {
    let client = Arc::new(context.client()?);
    let runtime = runtime()?;
    let done = runtime.block_on(forward(flags, &client, context));
    // Connections that are open end with the command.
    runtime.shutdown_background();
    done
}

async fn forward(
    flags: &Forward,
    client: &Arc<Client>,
    context: &mut Context<'_>,
) -> Result<ExitCode, Failure> {
    let (failures, mut failed) = mpsc::channel(FAILURES);
    let mut bound = Vec::new();
    for (here, there) in &flags.ports {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, *here));
        let refused = |error: std::io::Error| {
            Failure::new(reason!("cli.port"), format!("{address}: {error}"))
        };
        let listener = TcpListener::bind(address).await.map_err(refused)?;
        bound.push((listener.local_addr().map_err(refused)?, *there));
        let open = flags.way.open(StreamFor::Forward { port: *there })?;
        let (client, id) = (Arc::clone(client), flags.way.id.clone());
        tokio::spawn(listen(listener, client, id, open, failures.clone()));
    }
    let value: Vec<_> = bound
        .iter()
        .map(|(here, there)| serde_json::json!({ "listens": here, "port": there }))
        .collect();
    context.show(&serde_json::json!({ "forwards": value }), |_, page| {
        for (here, there) in &bound {
            page.line(format_args!("{here} leads to port {there} of the lease; Ctrl-C ends it"));
        }
    })?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    loop {
        tokio::select! {
            _ = interrupt.recv() => return Ok(ExitCode::SUCCESS),
            _ = terminate.recv() => return Ok(ExitCode::SUCCESS),
            Some(failure) = failed.recv() => {
                let failure: Failure = failure;
                let _ = context.io.fail(&failure, context.global.json);
            }
        }
    }
}

async fn listen(
    listener: TcpListener,
    client: Arc<Client>,
    id: String,
    open: OpenStream,
    failures: mpsc::Sender<Failure>,
) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Too many files are open.
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            continue;
        };
        let (client, id, open) = (Arc::clone(&client), id.clone(), open.clone());
        let failures = failures.clone();
        tokio::spawn(async move {
            let wanted = open.clone();
            let opened = tokio::task::spawn_blocking(move || client.stream(&id, &wanted)).await;
            let failure = match opened {
                Ok(Ok(lease)) => {
                    // Either end may leave at any time.
                    let _ = carry(stream, lease).await;
                    expired(&open)
                }
                Ok(Err(failure)) => Some(failure),
                Err(_) => None,
            };
            // One that is not shown is one of many.
            let _ = failure.map(|failure| failures.try_send(failure));
        });
    }
}

async fn carry(mut stream: TcpStream, lease: StdStream) -> std::io::Result<()> {
    lease.set_nonblocking(true)?;
    let mut lease = TcpStream::from_std(lease)?;
    stream.set_nodelay(true)?;
    lease.set_nodelay(true)?;
    copy_bidirectional_with_sizes(&mut stream, &mut lease, BUFFER_BYTES, BUFFER_BYTES).await?;
    Ok(())
}
