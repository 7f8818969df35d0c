//! `capex lease`: what runs, what it wrote, and the way into it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use super::client::Client;
use super::failure::Failure;
use super::output::{self, short, slots};
use super::paging::{Page, show_list};
use super::time::utc;
use super::upload::{self, mib};
use super::workload::Given;
use super::{
    Context, file_out, id, lease_access, lease_bench, lease_exec, lease_files, lease_forward,
    lease_ssh, sanitise,
};
use crate::api::types::{
    Acknowledged, ExtendBody, HostScore, Lease, LeaseMaintenance, Unavailable,
};
use capex_core::reason;

/// What about leases.
#[derive(Debug, clap::Subcommand)]
pub enum Noun {
    /// List leases, newest first
    #[command(after_help = "Examples:
  capex lease list
  capex lease list --limit 20 --json

Next: capex lease show <id>")]
    List(Page),
    /// Show one lease
    #[command(after_help = "Examples:
  capex lease show 0123abcd
  capex lease show 0123abcd --json

Next: capex lease logs <id>")]
    Show {
        /// Id, or its first 8 or more digits
        #[arg(value_parser = id)]
        id: String,
    },
    /// Print what the workload printed
    #[command(after_help = "Examples:
  capex lease logs 0123abcd
  capex lease logs 0123abcd --stderr

Next: capex lease result <id> <name>")]
    Logs {
        /// Id, or its first 8 or more digits
        #[arg(value_parser = id)]
        id: String,
        /// Standard error instead of standard output
        #[arg(long)]
        stderr: bool,
    },
    /// Fetch a result file
    #[command(after_help = "Examples:
  capex lease result 0123abcd out.txt
  capex lease result 0123abcd out.txt --out /tmp/out.txt

Next: capex lease show <id>")]
    Result {
        /// Id, or its first 8 or more digits
        #[arg(value_parser = id)]
        id: String,
        /// Name of the result
        name: String,
        /// File to write; `-` for standard output [default: the name, here]
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Replace a file that is there
        #[arg(long)]
        force: bool,
    },
    /// Run the workload again
    #[command(after_help = "Examples:
  capex lease restart 0123abcd
  capex lease restart 0123abcd --json

Next: capex lease show <id>")]
    Restart {
        /// Id, or its first 8 or more digits
        #[arg(value_parser = id)]
        id: String,
    },
    /// Run another workload in its place, on the same disk
    #[command(after_help = "Examples:
  capex lease replace 0123abcd --wasm sort.wasm --result out.txt
  capex lease replace 0123abcd --wasm hash.wasm --env LEVEL=9 --env-sealed TOKEN=@./token -- --rounds 9

Next: capex lease show <id>")]
    Replace {
        /// Id, or its first 8 or more digits
        #[arg(value_parser = id)]
        id: String,
        #[command(flatten)]
        work: Box<Given>,
    },
    /// Run a program beside the workload; its exit code is the command's
    Exec(lease_exec::Exec),
    /// Measure processor and memory in the lease, beside what its provider has told; for two seconds,
    /// and with 64 MiB of its memory
    Bench(lease_bench::Bench),
    /// Follow what the workload writes, to its end
    Attach(lease_exec::Attach),
    /// Make ports of this machine lead into the lease
    Forward(lease_forward::Forward),
    /// Put a file or a directory into the lease
    Put(lease_files::Put),
    /// Get a file or a directory out of the lease
    Get(lease_files::Get),
    /// Run the system's ssh into the lease
    Ssh(lease_ssh::Ssh),
    /// Print what makes ssh, scp, sftp and rsync find the lease by a name
    SshConfig(lease_ssh::SshConfig),
    /// Let another key into the lease
    Grant(lease_access::Grant),
    /// Let a lease go on with another certificate, without a restart
    #[command(after_help = "Examples:
  capex lease extend 0123abcd --with 89abcdef
  capex lease extend 0123abcd --with 89abcdef --json

Next: capex lease show <id>")]
    Extend {
        /// Id, or its first 8 or more digits
        #[arg(value_parser = id)]
        id: String,
        /// Certificate of the same provider, class and number of units, whose window begins where
        /// that of the lease ends; id, or its first 8 or more digits
        #[arg(long, value_name = "CERT", value_parser = id)]
        with: String,
    },
    /// End a lease early
    #[command(after_help = "Examples:
  capex lease stop 0123abcd
  capex lease stop 0123abcd --json

Next: capex lease show <id>")]
    Stop {
        /// Id, or its first 8 or more digits
        #[arg(value_parser = id)]
        id: String,
    },
}

/// Runs it.
///
/// # Errors
/// What the daemon refused.
pub fn run(noun: &Noun, context: &mut Context<'_>) -> Result<ExitCode, Failure> {
    let done = match noun {
        Noun::Exec(flags) => return lease_exec::exec(flags, context),
        Noun::Attach(flags) => return lease_exec::attach(flags, context),
        Noun::Forward(flags) => return lease_forward::run(flags, context),
        Noun::Ssh(flags) => return lease_ssh::ssh(flags, context),
        Noun::Bench(flags) => lease_bench::bench(flags, context),
        Noun::Put(flags) => lease_files::put(flags, context),
        Noun::Get(flags) => lease_files::get(flags, context),
        Noun::SshConfig(flags) => lease_ssh::config(flags, context),
        Noun::Grant(flags) => lease_access::grant(flags, context),
        noun => show_and_steer(noun, context),
    };
    done.map(|()| ExitCode::SUCCESS)
}

fn show_and_steer(noun: &Noun, context: &mut Context<'_>) -> Result<(), Failure> {
    let client = context.client()?;
    match noun {
        // Handled by their own.
        Noun::Exec(_)
        | Noun::Bench(_)
        | Noun::Attach(_)
        | Noun::Forward(_)
        | Noun::Ssh(_)
        | Noun::Put(_)
        | Noun::Get(_)
        | Noun::SshConfig(_)
        | Noun::Grant(_) => Ok(()),
        Noun::List(page) => show_list(context, "/leases", "lease list", page, list),
        Noun::Show { id } => {
            let lease: Lease = client.get(&format!("/leases/{id}"))?;
            context.show(&lease, show)
        }
        Noun::Logs { id, stderr } => logs(&client, id, *stderr, context),
        Noun::Result { id, name, out, force } => {
            result(&client, id, name, (out.as_deref(), *force), context)
        }
        Noun::Restart { id } => {
            let done: Acknowledged = client.post_empty(&format!("/leases/{id}/restart"))?;
            context.show(&done, |_, page| {
                page.line("the workload is run again");
            })
        }
        Noun::Replace { id, work } => {
            let body = work.body()?;
            if let Some(image) = &body.pull {
                let lease: Lease = client.get(&format!("/leases/{id}"))?;
                upload::pull(&client, &lease.cert_id, image, context)?;
            }
            let done: Acknowledged = client.post(&format!("/leases/{id}/replace"), &body)?;
            context.show(&done, |_, page| {
                page.line("the new workload is sent, and then run");
            })
        }
        Noun::Extend { id, with } => {
            let body = ExtendBody { cert_id: with.clone() };
            let done: Acknowledged = client.post(&format!("/leases/{id}/extend"), &body)?;
            context.show(&done, |_, page| {
                page.line("the certificate is consumed, and the lease ends with its window");
            })
        }
        Noun::Stop { id } => {
            let done: Acknowledged = client.delete(&format!("/leases/{id}"))?;
            context.show(&done, |_, page| {
                page.line("stopping: the workload is ended and its results kept");
            })
        }
    }
}

/// The band of a host, in words.
fn host_score(HostScore { processor, memory }: HostScore) -> String {
    format!("at least {processor} million steps and {memory} MiB copied a second, as told")
}

fn logs(client: &Client, id: &str, stderr: bool, context: &mut Context<'_>) -> Result<(), Failure> {
    let stream = if stderr { "stderr" } else { "stdout" };
    let bytes = client.logs(id, stream)?;
    let text = String::from_utf8_lossy(&bytes);
    if context.global.json {
        let value = serde_json::json!({ "lease_id": id, "stream": stream, "text": text });
        return context.io.json(&value);
    }
    // A file or a program gets the bytes as they are; a terminal never obeys them.
    if context.io.out_is_terminal {
        return Ok(context.io.out.write_all(sanitise::paragraph(&text).as_bytes())?);
    }
    Ok(context.io.out.write_all(&bytes)?)
}

fn result(
    client: &Client,
    id: &str,
    name: &str,
    (out, force): (Option<&Path>, bool),
    context: &mut Context<'_>,
) -> Result<(), Failure> {
    let path = match out {
        Some(path) => path,
        // A name comes from this command line, yet must not leave the directory by mistake.
        None if name.contains('/') => {
            return Err(Failure::new(reason!("cli.usage"), "this name needs --out FILE"));
        }
        None => Path::new(name),
    };
    let bytes = client.result(id, name)?;
    if path == Path::new("-") {
        return Ok(context.io.out.write_all(&bytes)?);
    }
    file_out::write(path, &bytes, force)?;
    let value = serde_json::json!({ "path": path, "bytes": bytes.len() });
    context.show(&value, |_, page| {
        page.line(format_args!("{} bytes written to {}", bytes.len(), path.display()));
    })
}

/// Asks until the workload has ended and what it left is here, or the lease is over.
///
/// # Errors
/// Exit 7 after `timeout`.
pub fn wait_done(client: &Client, id: &str, timeout: Duration) -> Result<Lease, Failure> {
    const INTERVAL: Duration = Duration::from_millis(200);
    let started = std::time::Instant::now();
    loop {
        let lease: Lease = client.get(&format!("/leases/{id}"))?;
        if lease.is_done() {
            return Ok(lease);
        }
        if started.elapsed() >= timeout {
            let message = format!("lease {} is still {}", short(id), lease.phase);
            return Err(Failure::new(reason!("lease.wait_timeout"), message)
                .with_hint("it goes on without you: see `capex lease show`"));
        }
        std::thread::sleep(INTERVAL);
    }
}

fn list(leases: &[Lease], page: &mut output::Page) {
    let row = |lease: &Lease| {
        [
            short(&lease.lease_id),
            lease.role.clone(),
            lease.class.clone(),
            slots(lease.window),
            lease.phase.clone(),
            lease.outcome.clone().unwrap_or_default(),
        ]
    };
    let headings = ["lease", "role", "class", "slots", "phase", "outcome"];
    page.table(headings, leases.iter().map(row), "no leases: see `capex help cert redeem`");
}

/// One lease.
pub fn show(lease: &Lease, page: &mut output::Page) {
    page.field("lease", &lease.lease_id)
        .field("certificate", &lease.cert_id)
        .maybe("extended by", (!lease.extensions.is_empty()).then(|| lease.extensions.join(", ")))
        .field("provider", &lease.provider)
        .field("holder", &lease.holder)
        .field("class", &lease.class)
        .field("slots", slots(lease.window))
        .field("phase", &lease.phase)
        .maybe(
            "upload",
            lease.upload.map(|upload| {
                format!("{} of {} MiB", mib(upload.sent_bytes), mib(upload.total_bytes))
            }),
        )
        .maybe("outcome", lease.outcome.as_ref())
        .maybe("exit code", lease.exit_code)
        .maybe("runs", (lease.runs > 1).then_some(lease.runs))
        .maybe("reason", lease.code.as_ref())
        .maybe("started", lease.started_at.map(utc))
        .maybe("exited", lease.exited_at.map(utc))
        .maybe("ended", lease.ended_at.map(utc))
        .field("delivered", format_args!("{} s", lease.delivered_s))
        .field("cpu", format_args!("{} µs", lease.cpu_us))
        .field("memory peak", format_args!("{} bytes", lease.memory_peak_bytes))
        .maybe("host", lease.score.map(host_score))
        .maybe("throttled", (lease.throttled_us > 0).then(|| format!("{} µs", lease.throttled_us)));
    for Unavailable { cause, unavailable_s } in &lease.unavailable {
        page.field("unavailable", format_args!("{unavailable_s} s, {cause}"));
    }
    for LeaseMaintenance { starts_at, ends_at, why } in &lease.maintenance {
        let why = if why.is_empty() { String::new() } else { format!(": {why}") };
        let (from, to) = (utc(*starts_at), utc(*ends_at));
        page.field("maintenance", format_args!("{from} to {to}{why}"));
    }
    let signed = if lease.countersigned { "countersigned" } else { "not countersigned" };
    page.field("receipts", format_args!("{}, {signed}", lease.receipts));
    for result in &lease.results {
        let (name, bytes, sha256) = (&result.name, result.bytes, &result.sha256);
        page.field("result", format_args!("{name}, {bytes} bytes, sha256 {sha256}"));
    }
    for path in &lease.left_behind {
        page.field("left behind", path);
    }
}
