//! `capex lease exec|attach`: a program beside the workload, and what the workload writes.

use std::cell::Cell;
use std::fs::File;
use std::io::{IsTerminal, Read, stdin, stdout};
use std::net::TcpStream as StdStream;
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::rc::Rc;

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, mpsc};

use super::Context;
use super::failure::Failure;
use super::lease_access::{Way, halves, lost, runtime};
use super::output::Io;
use super::sanitise;
use crate::api::types::StreamFor;
use crate::executor::access::frames::{AHEAD_BYTES, FRAME_MAX_BYTES, frame, kind, read_frame};
use capex_core::reason;

/// Parts of standard input that wait to be sent.
const PARTS: usize = 4;

/// Flags of `lease exec`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  capex lease exec 0123abcd -it -- sh
  capex lease exec 0123abcd --env LEVEL=9 -- ls -l /tmp

Next: capex lease ssh <id>")]
pub struct Exec {
    #[command(flatten)]
    pub way: Way,
    /// Give it standard input
    #[arg(short = 'i', long)]
    pub interactive: bool,
    /// Give it a terminal
    #[arg(short = 't', long)]
    pub tty: bool,
    /// Variable beside those of the workload
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    pub env: Vec<(String, String)>,
    /// Directory to begin in [default: that of the workload]
    #[arg(long, value_name = "DIR")]
    pub workdir: Option<String>,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("not NAME=VALUE".to_owned()),
    }
}

/// Flags of `lease attach`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  capex lease attach 0123abcd
  capex lease attach 0123abcd --all

Next: capex lease logs <id>")]
pub struct Attach {
    #[command(flatten)]
    pub way: Way,
    /// From its first line on, not from now
    #[arg(long)]
    pub all: bool,
}

/// Runs a program beside the workload; its exit code is the command's.
///
/// # Errors
/// What was refused, or a stream that ended too early.
pub fn exec(flags: &Exec, context: &mut Context<'_>) -> Result<ExitCode, Failure> {
    let mut env = flags.env.clone();
    let terminal = if flags.tty {
        if !stdin().is_terminal() {
            let text = "standard input is no terminal: leave -t out";
            return Err(Failure::new(reason!("cli.usage"), text));
        }
        if let Some(term) =
            std::env::var("TERM").ok().filter(|_| env.iter().all(|(n, _)| n != "TERM"))
        {
            env.push(("TERM".to_owned(), term));
        }
        Some(size())
    } else {
        None
    };
    let (command, workdir) = (flags.command.clone(), flags.workdir.clone());
    let open = StreamFor::Exec { command, env, workdir, terminal };
    let stream = flags.way.stream(&context.client()?, open)?;
    let _raw = flags.tty.then(Raw::new).flatten();
    let input = if flags.interactive { Input::Standard } else { Input::None };
    play(stream, input, flags.tty, &mut context.io)
}

/// Follows what the workload writes; its exit code is the command's.
///
/// # Errors
/// As [`exec`].
pub fn attach(flags: &Attach, context: &mut Context<'_>) -> Result<ExitCode, Failure> {
    let open = StreamFor::Attach { from_start: flags.all };
    let stream = flags.way.stream(&context.client()?, open)?;
    play(stream, Input::Never, false, &mut context.io)
}

/// What the other end is given to read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Input {
    Standard,
    /// Its end at once.
    None,
    /// Not even its end: there is nobody to read, and signals are our own.
    Never,
}

fn play(
    stream: StdStream,
    input: Input,
    is_tty: bool,
    io: &mut Io<'_>,
) -> Result<ExitCode, Failure> {
    let runtime = runtime()?;
    let done = runtime.block_on(async {
        let (read, write) = halves(stream)?;
        let ahead = Rc::new(Ahead::default());
        let giving = give(write, input, is_tty, Rc::clone(&ahead));
        tokio::select! {
            code = take(read, is_tty, &ahead, io) => code,
            failure = giving => Err(failure),
        }
    });
    // A thread may wait for standard input, which nobody needs any more.
    runtime.shutdown_background();
    // An exit code has eight bits, as everywhere.
    done.map(|code| ExitCode::from(u8::try_from(code & 0xff).unwrap_or(u8::MAX)))
}

/// Input that was sent and not taken.
#[derive(Default)]
struct Ahead {
    bytes: Cell<usize>,
    less: Notify,
}

/// Shows what the other end writes; answers its exit code.
async fn take(
    mut read: impl AsyncRead + Unpin,
    is_tty: bool,
    ahead: &Ahead,
    io: &mut Io<'_>,
) -> Result<i32, Failure> {
    let mut data = Vec::new();
    loop {
        let kind = read_frame(&mut read, &mut data).await.map_err(|_| lost())?;
        match (kind, data.as_slice()) {
            (kind::OUTPUT, bytes) => {
                io.out.write_all(bytes)?;
                // Whoever types sees each character; a pipe is flushed at the end.
                if is_tty || io.out_is_terminal {
                    io.out.flush()?;
                }
            }
            (kind::ERRORS, bytes) => {
                io.err.write_all(bytes)?;
                io.err.flush()?;
            }
            (kind::TAKEN, &[a, b, c, d]) => {
                let count = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(0);
                ahead.bytes.set(ahead.bytes.get().saturating_sub(count));
                ahead.less.notify_one();
            }
            (kind::EXIT, &[a, b, c, d]) => {
                io.out.flush()?;
                return Ok(i32::from_be_bytes([a, b, c, d]));
            }
            (kind::FAILED, bytes) => return Err(failed(bytes)),
            _ => return Err(lost()),
        }
    }
}

/// What a lease says of something that it could not do.
#[must_use]
pub fn failed(bytes: &[u8]) -> Failure {
    let text = String::from_utf8_lossy(bytes);
    let (code, text) = text.split_once('\n').unwrap_or(("access.refused", &text));
    Failure::coded(code, sanitise::line(text))
}

/// Sends input, sizes and signals, as long as it can.
async fn give(
    mut write: impl AsyncWrite + Unpin,
    input: Input,
    is_tty: bool,
    ahead: Rc<Ahead>,
) -> Failure {
    match try_give(&mut write, input, is_tty, &ahead).await {
        Ok(failure) => failure,
        // The other way tells more.
        Err(_) => std::future::pending().await,
    }
}

async fn try_give(
    write: &mut (impl AsyncWrite + Unpin),
    input: Input,
    is_tty: bool,
    ahead: &Ahead,
) -> std::io::Result<Failure> {
    let (queue, parts) = mpsc::channel(PARTS);
    let mut parts = Some(parts);
    match input {
        Input::Standard => read_standard(queue)?,
        Input::None => {
            let _ = queue.send(Vec::new()).await;
        }
        Input::Never => {}
    }
    let mut signals = Signals::new()?;
    let mut interrupts = 0;
    loop {
        let has_room = ahead.bytes.get() + FRAME_MAX_BYTES <= AHEAD_BYTES;
        tokio::select! {
            part = async { parts.as_mut()?.recv().await }, if has_room && parts.is_some() => {
                let Some(part) = part else {
                    parts = None;
                    continue;
                };
                ahead.bytes.set(ahead.bytes.get() + part.len());
                write.write_all(&frame(kind::INPUT, &part)).await?;
            }
            () = ahead.less.notified(), if !has_room => {}
            number = signals.next() => match number {
                SIZE if is_tty => {
                    let (rows, columns) = size();
                    let size = [rows.to_be_bytes(), columns.to_be_bytes()].concat();
                    write.write_all(&frame(kind::SIZE, &size)).await?;
                }
                SIZE => {}
                number => {
                    interrupts += 1;
                    if input == Input::Never || interrupts > 2 {
                        return Ok(Failure::new(reason!("cli.interrupted"), "interrupted"));
                    }
                    write.write_all(&frame(kind::SIGNAL, &[number])).await?;
                }
            },
        }
    }
}

/// Reads standard input on a thread of its own. An empty part is its end.
fn read_standard(queue: mpsc::Sender<Vec<u8>>) -> std::io::Result<()> {
    // Past the lock that the command holds on it.
    let mut input = File::from(stdin().as_fd().try_clone_to_owned()?);
    std::thread::Builder::new().name("input".into()).spawn(move || {
        let mut buffer = vec![0; FRAME_MAX_BYTES];
        loop {
            let count = input.read(&mut buffer).unwrap_or(0);
            if queue.blocking_send(buffer[..count].to_vec()).is_err() || count == 0 {
                return;
            }
        }
    })?;
    Ok(())
}

/// Signals that a program in a lease is to have.
struct Signals([(u8, Signal); 4]);

/// SIGWINCH: the terminal has another size.
const SIZE: u8 = 28;

impl Signals {
    fn new() -> std::io::Result<Self> {
        let of = |number: u8| signal(SignalKind::from_raw(number.into()));
        let [hangup, interrupt, terminate] = [1, 2, 15];
        Ok(Self([
            (hangup, of(hangup)?),
            (interrupt, of(interrupt)?),
            (terminate, of(terminate)?),
            (SIZE, of(SIZE)?),
        ]))
    }

    async fn next(&mut self) -> u8 {
        let [(a, one), (b, two), (c, three), (d, four)] = &mut self.0;
        tokio::select! {
            _ = one.recv() => *a,
            _ = two.recv() => *b,
            _ = three.recv() => *c,
            _ = four.recv() => *d,
        }
    }
}

/// Rows and columns of the terminal; those of old if it does not say.
fn size() -> (u16, u16) {
    let size = tcgetwinsize(stdout()).or_else(|_| tcgetwinsize(stdin()));
    let size = size.map(|size| (size.ws_row, size.ws_col));
    size.ok().filter(|(rows, columns)| *rows > 0 && *columns > 0).unwrap_or((24, 80))
}

/// The terminal hands on every key, until this is dropped.
struct Raw(Termios);

impl Raw {
    fn new() -> Option<Self> {
        let before = tcgetattr(stdin()).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Now, &raw).ok()?;
        Some(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // One that is gone needs nothing.
        let _ = tcsetattr(stdin(), OptionalActions::Now, &self.0);
    }
}
