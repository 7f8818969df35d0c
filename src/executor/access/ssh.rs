//! ssh into a lease: programs, terminals, files and ports, with no server in the image.
//!
//! Whoever speaks here was let in by the stream that carries it, so no key is asked for.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use russh::keys::PrivateKey;
use russh::keys::ssh_key::private::Ed25519Keypair;
use russh::server::{Auth, ChannelOpenHandle, Config, Handler, Msg, Session, run_stream};
use russh::{
    Channel, ChannelId, ChannelMsg, ChannelOpenFailure, ChannelReadHalf, MethodKind, MethodSet,
    Pty, Sig,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex, split};
use tokio::sync::{Notify, mpsc, watch};

use super::backlog::{Backlog, Gate, Line};
use super::doors::{Now, dial, settled, start};
use super::programs::{Control, Running, Sink, UNKNOWN, pump};
use super::sftp::Sftp;
use crate::executor::runtimes::{Exec, Files};
use capex_core::limits::{ACCESS_STRINGS_MAX_BYTES, WORKLOAD_STRINGS_MAX};

/// Channels of one connection: each is a program, a port or a session of sftp.
const CHANNELS_MAX: usize = 32;
/// Parts of data that wait for the program of a channel, of 32 KiB at most each.
const PARTS: usize = 16;
/// On their way between a channel and what it is for, bytes each way.
const BUFFER_BYTES: usize = 64 << 10;
/// Exit code of shells for a program that is not there.
const NOT_FOUND: u32 = 127;
/// Standard error, as the protocol numbers it.
const ERRORS: u32 = 1;
const SHELL: &str = "/bin/sh";
const END_OF_INPUT: &[u8] = &[4];

/// The lease's own host key: made when it is first needed, and the same from then on.
pub(super) fn host_key(path: &Path) -> io::Result<PrivateKey> {
    let mut seed = [0; 32];
    match fs::read(path) {
        Ok(bytes) => {
            seed = bytes.try_into().map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            getrandom::fill(&mut seed).map_err(|_| io::Error::other("no random bytes"))?;
            let mut options = fs::OpenOptions::new();
            options.write(true).create_new(true).mode(0o600).open(path)?.write_all(&seed)?;
        }
        Err(error) => return Err(error),
    }
    Ok(Ed25519Keypair::from_seed(&seed).into())
}

/// Speaks ssh until the other end has enough.
pub(super) async fn serve(key: PrivateKey, stream: DuplexStream, now: watch::Receiver<Now>) {
    let config = Config {
        methods: MethodSet::from(&[MethodKind::None][..]),
        keys: vec![key],
        inactivity_timeout: None,
        channel_buffer_size: PARTS,
        ..Config::default()
    };
    let line = Arc::new(Line::default());
    let stream = Gate::new(stream, Arc::clone(&line));
    let guest = Guest { now, open: Arc::new(AtomicUsize::new(0)), line };
    // Who does not speak ssh is left.
    if let Ok(session) = run_stream(Arc::new(config), stream, guest).await {
        let _ = session.await;
    }
}

struct Guest {
    now: watch::Receiver<Now>,
    open: Arc<AtomicUsize>,
    line: Arc<Line>,
}

/// A place among the channels, free again when this is dropped.
struct Seat(Arc<AtomicUsize>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Guest {
    fn seat(&self) -> Option<Seat> {
        let seat = Seat(Arc::clone(&self.open));
        (self.open.fetch_add(1, Ordering::AcqRel) < CHANNELS_MAX).then_some(seat)
    }
}

impl Handler for Guest {
    type Error = russh::Error;

    async fn auth_none(&mut self, _user: &str) -> Result<Auth, Self::Error> {
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        match self.seat() {
            Some(seat) => {
                let line = Arc::clone(&self.line);
                tokio::spawn(talk(channel, self.now.clone(), line, seat));
                reply.accept().await;
            }
            None => reply.reject(ChannelOpenFailure::ResourceShortage).await,
        }
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        _from: &str,
        _from_port: u32,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        let is_own = matches!(host, "localhost" | "127.0.0.1" | "::1" | "0.0.0.0");
        let port = u16::try_from(port).ok().filter(|port| *port > 0 && is_own);
        let (Some(port), Some(seat)) = (port, self.seat()) else {
            // There is no other network than the lease's own.
            reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
            return Ok(());
        };
        let (now, line) = (self.now.clone(), Arc::clone(&self.line));
        tokio::spawn(async move {
            let _seat = seat;
            match dial(&settled(now).await, port).await {
                Ok(stream) => {
                    reply.accept().await;
                    relay(channel, &line, stream.into_split(), None).await;
                }
                Err(_) => reply.reject(ChannelOpenFailure::ConnectFailed).await,
            }
        });
        Ok(())
    }

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        _term: &str,
        _columns: u32,
        _rows: u32,
        _width: u32,
        _height: u32,
        _modes: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_success(channel)
    }

    async fn env_request(
        &mut self,
        channel: ChannelId,
        _name: &str,
        _value: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_success(channel)
    }

    async fn shell_request(
        &mut self,
        channel: ChannelId,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_success(channel)
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        _command: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_success(channel)
    }

    async fn subsystem_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        if name == SFTP {
            session.channel_success(channel)
        } else {
            session.channel_failure(channel)
        }
    }
}

const SFTP: &str = "sftp";

/// What a channel asked for before it began.
#[derive(Default)]
struct Wishes {
    env: Vec<(String, String)>,
    terminal: Option<(u16, u16)>,
}

impl Wishes {
    /// What goes beyond the bounds of a program's environment is not heeded.
    fn add(&mut self, name: String, value: String) {
        let bytes: usize = self.env.iter().map(|(name, value)| name.len() + value.len()).sum();
        let is_fine = !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0');
        let has_room = self.env.len() < WORKLOAD_STRINGS_MAX
            && bytes + name.len() + value.len() <= ACCESS_STRINGS_MAX_BYTES;
        if is_fine && has_room {
            self.env.push((name, value));
        }
    }
}

/// What a channel is for.
enum Wanted {
    Shell,
    Command(String),
    Files,
}

async fn talk(mut channel: Channel<Msg>, now: watch::Receiver<Now>, line: Arc<Line>, _seat: Seat) {
    let mut wishes = Wishes::default();
    let wanted = loop {
        match channel.wait().await {
            Some(ChannelMsg::RequestPty { term, col_width, row_height, .. }) => {
                wishes.terminal = Some((short(row_height), short(col_width)));
                wishes.add("TERM".to_owned(), term);
            }
            Some(ChannelMsg::SetEnv { variable_name, variable_value, .. }) => {
                wishes.add(variable_name, variable_value);
            }
            Some(ChannelMsg::RequestShell { .. }) => break Wanted::Shell,
            Some(ChannelMsg::Exec { command, .. }) => {
                break Wanted::Command(String::from_utf8_lossy(&command).into_owned());
            }
            Some(ChannelMsg::RequestSubsystem { name, .. }) if name == SFTP => break Wanted::Files,
            Some(ChannelMsg::Close) | None => return,
            Some(_) => {}
        }
    };
    let now = settled(now).await;
    let command = match (wanted, &now.files) {
        (_, None) => return,
        (Wanted::Files, Some(files)) => {
            let sftp = Sftp::new(Arc::clone(files));
            let (ours, theirs) = duplex(BUFFER_BYTES);
            russh_sftp::server::run(theirs, sftp).await;
            return relay(channel, &line, split(ours), Some(0)).await;
        }
        (Wanted::Shell, Some(_)) => None,
        (Wanted::Command(command), Some(_)) => Some(command),
    };
    let account = now.files.as_deref().map(Account::of).unwrap_or_default();
    let mut env = account.env();
    env.extend(wishes.env);
    let command = match command {
        None => vec![account.shell, "-l".to_owned()],
        Some(command) => vec![account.shell, "-c".to_owned(), command],
    };
    let exec = Exec { command, env, workdir: None, terminal: wishes.terminal };
    match start(&now, exec).await {
        Ok(running) => play(running, &line, channel).await,
        Err(failure) => {
            let text = format!("capex: {failure} ({})\r\n", failure.reason().code());
            // Whoever is gone needs no reason.
            let _ = channel.extended_data_bytes(ERRORS, text.into_bytes()).await;
            let _ = channel.exit_status(NOT_FOUND).await;
            let _ = channel.close().await;
        }
    }
}

fn short(size: u32) -> u16 {
    u16::try_from(size).unwrap_or(u16::MAX)
}

/// Who a program is, as the lease's own files say.
#[derive(Default)]
struct Account {
    name: String,
    home: String,
    shell: String,
}

impl Account {
    fn of(files: &Files) -> Self {
        let text = files.root.text("/etc/passwd");
        let uid = files.owner.0.to_string();
        let mut lines = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
        let line = lines.find(|line| line.get(2) == Some(&uid.as_str()));
        let field = |number: usize| {
            line.as_ref().and_then(|line| line.get(number)).map_or("", |field| field.trim())
        };
        let or = |text: &str, other: &str| {
            if text.is_empty() { other.to_owned() } else { text.to_owned() }
        };
        // An account that nobody is meant to log in to has a program that says so.
        let shell = field(6);
        let is_refusal = shell.ends_with("/nologin") || shell.ends_with("/false");
        let shell = if is_refusal { SHELL.to_owned() } else { or(shell, SHELL) };
        Self { name: or(field(0), "root"), home: or(field(5), "/"), shell }
    }

    fn env(&self) -> Vec<(String, String)> {
        let pair = |name: &str, value: &String| (name.to_owned(), value.clone());
        let mut env =
            vec![pair("HOME", &self.home), pair("SHELL", &self.shell), pair("USER", &self.name)];
        env.push(pair("LOGNAME", &self.name));
        env
    }
}

/// What has come over a channel, in order.
struct Inbox {
    queue: mpsc::UnboundedReceiver<ChannelMsg>,
    backlog: Arc<Backlog>,
    /// Whether the connection is gone, whatever still waits here.
    gone: watch::Receiver<bool>,
}

impl Inbox {
    /// Takes in all that comes, and has the connection wait where that is much. A channel for which
    /// there is no room ends.
    fn of(mut read: ChannelReadHalf, line: &Arc<Line>) -> Self {
        let (queue, inbox) = mpsc::unbounded_channel();
        let (end, gone) = watch::channel(false);
        let backlog = Arc::new(Backlog::new(Arc::clone(line)));
        let taken_in = Arc::clone(&backlog);
        tokio::spawn(async move {
            // Noted when this task ends.
            let _end = end;
            while let Some(message) = read.wait().await {
                let bytes = data_bytes(&message);
                if !taken_in.add(bytes) || queue.send(message).is_err() {
                    taken_in.remove(bytes);
                    return;
                }
            }
        });
        Self { queue: inbox, backlog, gone }
    }

    /// Waits until the connection is gone.
    fn gone(&self) -> impl Future<Output = ()> + use<> {
        let mut gone = self.gone.clone();
        async move { while gone.changed().await.is_ok() {} }
    }

    async fn next(&mut self) -> Option<ChannelMsg> {
        let message = self.queue.recv().await?;
        self.backlog.remove(data_bytes(&message));
        Some(message)
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.queue.close();
        while let Ok(message) = self.queue.try_recv() {
            self.backlog.remove(data_bytes(&message));
        }
    }
}

fn data_bytes(message: &ChannelMsg) -> usize {
    match message {
        ChannelMsg::Data { data } | ChannelMsg::ExtendedData { data, .. } => data.len(),
        _ => 0,
    }
}

/// Carries bytes between a channel and what it is for; it ends with this code, if it has one.
async fn relay(
    channel: Channel<Msg>,
    line: &Arc<Line>,
    (mut from, mut to): (impl AsyncRead + Unpin, impl AsyncWrite + Unpin),
    code: Option<u32>,
) {
    let (read, write) = channel.split();
    let mut inbox = Inbox::of(read, line);
    let (gone, has_ended) = (inbox.gone(), Notify::new());
    let up = async {
        loop {
            match inbox.next().await {
                // What is gone takes no more, and may have more to say.
                Some(ChannelMsg::Data { data }) => drop(to.write_all(&data).await),
                Some(ChannelMsg::Eof) => {
                    let _ = to.shutdown().await;
                    has_ended.notify_one();
                }
                Some(ChannelMsg::Close) | None => return,
                Some(_) => {}
            }
        }
    };
    let down = async {
        let mut buffer = vec![0; BUFFER_BYTES];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            if line.giving(write.data_bytes(buffer[..count].to_vec())).await.is_err() {
                return;
            }
        }
        let _ = write.eof().await;
        if let Some(code) = code {
            // Without a code scp takes it for a failure.
            let _ = write.exit_status(code).await;
            return;
        }
        has_ended.notified().await;
    };
    tokio::select! {
        () = up => {}
        () = down => {}
        () = gone => {}
    }
    // Whoever is gone needs no word.
    let _ = write.close().await;
}

/// Lets a channel have a program.
async fn play(running: Running, line: &Arc<Line>, channel: Channel<Msg>) {
    let Running { input, outputs, exit, control } = running;
    let (read, write) = channel.split();
    let mut inbox = Inbox::of(read, line);
    let gone = inbox.gone();
    let broken = |_| io::Error::from(io::ErrorKind::BrokenPipe);
    let [(_, output), (_, errors)] = outputs;
    let work = async {
        let ((), ()) = tokio::join!(
            pump(output, control.ended(), None, |bytes| async {
                line.giving(write.data_bytes(bytes)).await.map_err(broken)
            }),
            pump(errors, control.ended(), None, |bytes| async {
                line.giving(write.extended_data_bytes(ERRORS, bytes)).await.map_err(broken)
            }),
        );
        exit.await.unwrap_or(UNKNOWN)
    };
    let code = tokio::select! {
        code = work => code,
        // Whoever asked for it is gone.
        () = heed(&mut inbox, &control, input) => return,
        () = gone => return,
    };
    let code = u32::try_from(code).unwrap_or(NOT_FOUND);
    // Whoever is gone needs no code.
    let _ = write.eof().await;
    let _ = write.exit_status(code).await;
    let _ = write.close().await;
}

/// Obeys a channel until it is closed.
async fn heed(inbox: &mut Inbox, control: &Control, input: Sink) {
    let mut input = Some(input);
    while let Some(message) = inbox.next().await {
        match message {
            ChannelMsg::Data { data } => {
                if let Some(sink) = &mut input
                    && sink.write_all(&data).await.is_err()
                {
                    input = None;
                }
            }
            ChannelMsg::Eof => match &mut input {
                Some(sink) if control.is_terminal() => {
                    // A terminal that is gone has no end of input either.
                    let _ = sink.write_all(END_OF_INPUT).await;
                }
                _ => input = None,
            },
            ChannelMsg::WindowChange { col_width, row_height, .. } => {
                control.resize(short(row_height), short(col_width));
            }
            ChannelMsg::Signal { signal } => {
                if let Some(number) = number(&signal) {
                    control.signal(number);
                }
            }
            ChannelMsg::Close => return,
            _ => {}
        }
    }
}

fn number(signal: &Sig) -> Option<u8> {
    Some(match signal {
        Sig::HUP => 1,
        Sig::INT => 2,
        Sig::QUIT => 3,
        Sig::ILL => 4,
        Sig::ABRT => 6,
        Sig::FPE => 8,
        Sig::KILL => 9,
        Sig::USR1 => 10,
        Sig::SEGV => 11,
        Sig::PIPE => 13,
        Sig::ALRM => 14,
        Sig::TERM => 15,
        _ => return None,
    })
}
