//! `capex lease ssh|ssh-config`: the system's ssh, and all that is built on it, into a lease.
//!
//! The stream is authorised before ssh says its first word, so the lease asks for no password and
//! no key. What ssh knows it by is the lease's own host key, kept beside the node's data.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use super::Context;
use super::client::Client;
use super::failure::Failure;
use super::lease_access::{Way, expired};
use super::output::{short, typed};
use crate::api::types::{Lease, StreamFor};
use capex_core::reason;

/// Where ssh keeps the host keys of leases, in the data directory.
const KNOWN_HOSTS: &str = "ssh_known_hosts";

/// Read at once of what passes.
const PASS_BYTES: usize = 64 << 10;

/// Flags of `lease ssh`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  capex lease ssh 0123abcd
  capex lease ssh 0123abcd -- -L 8080:localhost:80 uname -a

Next: capex lease ssh-config <id>")]
pub struct Ssh {
    #[command(flatten)]
    pub way: Way,
    /// Be the way of another ssh: carry standard input and output
    #[arg(long, conflicts_with = "args")]
    pub stdio: bool,
    /// Options and command for ssh
    #[arg(last = true, value_name = "ARGS")]
    pub args: Vec<String>,
}

/// Flags of `lease ssh-config`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  capex lease ssh-config 0123abcd >> ~/.ssh/config
  capex lease ssh-config 0123abcd --grant friend.grant

Next: capex lease exec <id> -- sh")]
pub struct SshConfig {
    #[command(flatten)]
    pub way: Way,
}

/// Runs ssh, or is its way.
///
/// # Errors
/// What was refused, or a machine without ssh.
pub fn ssh(flags: &Ssh, context: &mut Context<'_>) -> Result<ExitCode, Failure> {
    let client = context.client()?;
    if flags.stdio {
        let open = flags.way.open(StreamFor::Ssh)?;
        carry(client.stream(&flags.way.id, &open)?)?;
        return expired(&open).map_or(Ok(ExitCode::SUCCESS), Err);
    }
    let options = options(&client, &flags.way)?;
    let mut command = Command::new("ssh");
    for (name, value) in &options.settings {
        command.arg("-o").arg(format!("{name}={value}"));
    }
    // ssh takes options behind a host as well, up to the command.
    command.arg(&options.host).args(&flags.args);
    let error = command.exec();
    let text = format!("ssh cannot be run: {error}");
    Err(Failure::new(reason!("cli.no_ssh"), text))
}

/// What ssh is told.
struct Options {
    host: String,
    settings: Vec<(&'static str, String)>,
}

fn options(client: &Client, way: &Way) -> Result<Options, Failure> {
    // A lease that somebody let this node into is not among its own.
    let id = match &way.grant {
        None => client.get::<Lease>(&format!("/leases/{}", way.id))?.lease_id,
        Some(_) => way.id.clone(),
    };
    let exe = std::env::current_exe().map_err(Failure::from)?;
    let grant = way.grant.as_ref().map(|grant| match Path::new(grant).canonicalize() {
        Ok(path) if !grant.starts_with("capex-grant-") => typed(&path),
        _ => grant.clone(),
    });
    let grant = grant.map(|grant| format!(" --grant {grant}")).unwrap_or_default();
    // ssh is started anywhere.
    let datadir = std::path::absolute(client.datadir()).map_err(Failure::from)?;
    let known = datadir.join(KNOWN_HOSTS);
    let (exe, datadir) = (typed(&exe), typed(&datadir));
    let way = format!("{exe} --datadir {datadir} lease ssh {id} --stdio{grant}");
    let host = format!("capex-{}", short(&id));
    let settings = vec![
        ("ProxyCommand", way.replace('%', "%%")),
        ("HostKeyAlias", format!("capex-{id}")),
        ("UserKnownHostsFile", quoted(&known)),
        ("StrictHostKeyChecking", "accept-new".to_owned()),
        ("CheckHostIP", "no".to_owned()),
        ("User", "root".to_owned()),
    ];
    Ok(Options { host, settings })
}

fn quoted(path: &Path) -> String {
    let text = path.display().to_string().replace('%', "%%");
    if text.contains(' ') { format!("\"{text}\"") } else { text }
}

/// Prints what makes ssh find the lease by a name.
///
/// # Errors
/// What the node refused.
pub fn config(flags: &SshConfig, context: &mut Context<'_>) -> Result<(), Failure> {
    let options = options(&context.client()?, &flags.way)?;
    let settings: serde_json::Map<_, _> = options
        .settings
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.clone().into()))
        .collect();
    let value = serde_json::json!({ "host": options.host, "settings": settings });
    context.show(&value, |_, page| {
        page.line(format_args!("Host {}", options.host));
        for (name, value) in &options.settings {
            page.line(format_args!("    {name} {value}"));
        }
    })
}

/// Standard input and output, for an ssh that is here.
fn carry(stream: std::net::TcpStream) -> Result<(), Failure> {
    let closer = stream.try_clone()?;
    let mut up = stream.try_clone()?;
    std::thread::Builder::new().name("input".into()).spawn(move || {
        let input = io::stdin().as_fd().try_clone_to_owned().map(File::from);
        if let Ok(mut input) = input {
            let _ = pass(&mut input, &mut up);
        }
        let _ = closer.shutdown(Shutdown::Write);
    })?;
    let mut down = stream;
    let output = io::stdout().as_fd().try_clone_to_owned()?;
    // Either end may leave at any time.
    let _ = pass(&mut down, &mut File::from(output));
    Ok(())
}

/// Not by [`io::copy`]: that has the kernel move what comes into a pipe, which it locks while it waits
/// for more, and ssh cannot read what is in it then.
fn pass(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = vec![0; PASS_BYTES];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => to.write_all(&buffer[..count])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
