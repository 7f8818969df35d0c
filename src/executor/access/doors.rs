//! The doors of a lease process: who was let in by the provider's node knocks at a socket of the
//! lease's directory, says what for, and gets a session that outlives its streams.
//!
//! ```text
//! access.sock ── stream ──▶ session ──▶ a program, a port, files, the log
//!                            └ waits for another stream when one breaks
//! ```
//!
//! It all happens on threads of its own: the main thread, which keeps to the window, only says
//! what there is to be let in to.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener as StdListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use russh::keys::PrivateKey;
use tokio::io::{
    AsyncReadExt, AsyncWriteExt, DuplexStream, copy_bidirectional_with_sizes, duplex, split,
};
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use zeroize::Zeroizing;

use super::cut::{Cut, expired};
use super::files::{Place, Reading};
use super::follow;
use super::programs::{self, Running};
use super::session::{Carried, Session};
use super::ssh;
use super::words::{Knock, TAKEN, hear_knock, say};
use crate::executor::layout::LeaseDir;
use crate::executor::runtimes::{Beside, Exec, Failure, Files};
use crate::executor::spec::{SECRETS_MAX_BYTES, Secrets, parse_secrets};
use crate::executor::state::Outcome;
use capex_core::ids::Key;
use capex_core::lease::access::{Access, AccessCall, Admission, Answer};
use capex_core::reason;

/// Sessions of one lease. Each costs what was sent and has not arrived, 1 MiB at most, and some
/// 256 KiB of buffers.
const SESSIONS_MAX: usize = 64;
/// Sessions that are remembered after their end, so that none begins twice.
const ENDED_MAX: usize = 256;
/// Who knocks says what for within this.
const WORDS_TIME: Duration = Duration::from_secs(5);
/// A session without a stream is kept for so long: longer than its beginner tries.
const DETACHED_TIME: Duration = Duration::from_secs(150);
/// After the end of what it was for, a session has so long to carry the rest.
const REST_TIME: Duration = Duration::from_secs(120);
/// A session whose time is over says so within this.
const CUT_TIME: Duration = Duration::from_secs(2);
/// A run that is written down has begun within this: less than who knocks waits for an answer.
const BEGIN_TIME: Duration = Duration::from_secs(5);
/// Sessions end within this when the runtime gives back what it was lent.
const SHUT_TIME: Duration = Duration::from_millis(500);
const LOOK: Duration = Duration::from_millis(2);
/// On their way between a session and what it is for, bytes each way.
const BUFFER_BYTES: usize = 64 << 10;

/// What the main thread says of the lease.
#[derive(Clone, Default)]
pub(super) struct Now {
    /// Counts what was given back: sessions of before end.
    shut: u64,
    pub(super) files: Option<Arc<Files>>,
    pub(super) run: Run,
}

#[derive(Clone, Default)]
pub(super) enum Run {
    #[default]
    Waits,
    /// It is written down, and there in a moment.
    Begins,
    /// With what can be done beside it, if the runtime can.
    Runs(Option<Arc<dyn Beside>>),
    Exited {
        code: i32,
    },
}

/// The doors of one lease, as its main thread has them.
pub(in crate::executor) struct Doors {
    now: watch::Sender<Now>,
    open: Arc<AtomicUsize>,
    secrets: Handed,
}

/// Values that were handed over and not yet taken up.
type Handed = Arc<Mutex<Option<Secrets>>>;

impl Doors {
    /// Listens from now on.
    ///
    /// # Errors
    /// The socket, or a thread.
    pub(in crate::executor) fn open(dir: &LeaseDir) -> io::Result<Self> {
        let place = File::open(dir.path())?;
        // A socket's name has at most 107 bytes, a path of a directory as many as it likes.
        let path = format!("/proc/self/fd/{}/{}", place.as_raw_fd(), LeaseDir::DOOR);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = StdListener::bind(path)?;
        listener.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (now, seen) = watch::channel(Now::default());
        let open = Arc::new(AtomicUsize::new(0));
        let secrets = Handed::default();
        let house = House {
            dir: dir.clone(),
            now: seen,
            open: Arc::clone(&open),
            secrets: Arc::clone(&secrets),
            sessions: Arc::new(Mutex::new(Sessions::default())),
        };
        thread::Builder::new().name("doors".into()).spawn(move || {
            runtime.block_on(async move {
                let Ok(listener) = UnixListener::from_std(listener) else { return };
                house.listen(&listener).await;
            });
        })?;
        Ok(Self { now, open, secrets })
    }

    /// Values of sealed variables that were handed over since, for what is run next.
    pub(in crate::executor) fn handed(&self) -> Option<Secrets> {
        self.secrets.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// All is prepared.
    pub(in crate::executor) fn prepared(&self, files: io::Result<Files>) {
        let files = files.ok().map(Arc::new);
        self.now.send_modify(|now| now.files = files);
    }

    /// A run is about to be written down and begun: who comes from now on waits for it.
    pub(in crate::executor) fn beginning(&self) {
        self.now.send_modify(|now| now.run = Run::Begins);
    }

    /// A run has begun.
    pub(in crate::executor) fn running(&self, beside: Option<Arc<dyn Beside>>) {
        self.now.send_modify(|now| now.run = Run::Runs(beside));
    }

    /// The run has ended.
    pub(in crate::executor) fn exited(&self, outcome: &Outcome) {
        let code = match outcome {
            Outcome::Exited { code } => *code,
            _ => programs::UNKNOWN,
        };
        self.now.send_modify(|now| now.run = Run::Exited { code });
    }

    /// Ends what is in the way of giving back what the lease was lent, and lets nobody in.
    pub(in crate::executor) fn shut(&self) {
        self.now.send_modify(|now| {
            *now = Now { shut: now.shut + 1, files: None, run: Run::Waits };
        });
        let end = Instant::now() + SHUT_TIME;
        while self.open.load(Ordering::Acquire) > 0 && Instant::now() < end {
            thread::sleep(LOOK);
        }
    }
}

/// Behind the doors.
#[derive(Clone)]
struct House {
    dir: LeaseDir,
    now: watch::Receiver<Now>,
    open: Arc<AtomicUsize>,
    secrets: Handed,
    sessions: Arc<Mutex<Sessions>>,
}

/// Sessions that are there, and those that were.
#[derive(Default)]
struct Sessions {
    open: HashMap<[u8; 16], Entry>,
    ended: VecDeque<[u8; 16]>,
}

struct Entry {
    peer: Key,
    what: Access,
    streams: mpsc::Sender<Visit>,
}

/// A stream that was let in.
struct Visit {
    stream: UnixStream,
    /// Bytes of the session that have arrived at its other end.
    received: u64,
    until_s: Option<u64>,
}

/// What the name of a session leads to.
enum Found {
    Open(mpsc::Sender<Visit>),
    New(mpsc::Receiver<Visit>, Seat),
    Refused(&'static str),
}

/// A place among the sessions, which is free again when this is dropped.
struct Seat {
    sessions: Arc<Mutex<Sessions>>,
    open: Arc<AtomicUsize>,
    id: [u8; 16],
    /// Whether it came to a session.
    has_begun: bool,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut sessions = lock(&self.sessions);
        sessions.open.remove(&self.id);
        if self.has_begun {
            sessions.ended.push_back(self.id);
            if sessions.ended.len() > ENDED_MAX {
                sessions.ended.pop_front();
            }
        }
        self.open.fetch_sub(1, Ordering::AcqRel);
    }
}

fn lock(sessions: &Mutex<Sessions>) -> MutexGuard<'_, Sessions> {
    // Each change is one step, so a panic elsewhere leaves it whole.
    sessions.lock().unwrap_or_else(PoisonError::into_inner)
}

impl House {
    async fn listen(self, listener: &UnixListener) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    tokio::spawn(self.clone().let_in(stream));
                }
                // Too many files are open, or whoever knocked is gone.
                Err(_) => sleep(LOOK).await,
            }
        }
    }

    async fn let_in(self, mut stream: UnixStream) {
        let Admission { call, until_s } = match timeout(WORDS_TIME, hear_knock(&mut stream)).await {
            Ok(Ok(Some(Knock::Stream(admission)))) => admission,
            Ok(Ok(None)) => return refuse(stream, reason!("access.other_release").code()).await,
            Ok(Ok(Some(Knock::Secrets { bytes }))) => {
                // Whoever hands them over asks again if it hears nothing.
                let _ = timeout(WORDS_TIME, self.take_secrets(stream, bytes)).await;
                return;
            }
            Ok(Err(_)) | Err(_) => return,
        };
        let visit = Visit { stream, received: call.received, until_s };
        match self.find(&call) {
            Found::Open(streams) => {
                // One that is ending takes none.
                let _ = streams.send(visit).await;
            }
            Found::New(streams, mut seat) => match self.begin(&call.what).await {
                Ok(purpose) => {
                    seat.has_begun = true;
                    let shut = self.now.borrow().shut;
                    keep(purpose, streams, visit, (self.now, shut)).await;
                }
                Err(code) => refuse(visit.stream, code).await,
            },
            Found::Refused(code) => refuse(visit.stream, code).await,
        }
    }

    async fn take_secrets(&self, mut stream: UnixStream, bytes: u32) -> io::Result<()> {
        if bytes > SECRETS_MAX_BYTES {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut text = Zeroizing::new(vec![0; bytes as usize]);
        stream.read_exact(&mut text).await?;
        let secrets = parse_secrets(&text).ok_or(io::ErrorKind::InvalidData)?;
        *self.secrets.lock().unwrap_or_else(PoisonError::into_inner) = Some(secrets);
        stream.write_all(&[TAKEN]).await
    }

    fn find(&self, call: &AccessCall) -> Found {
        let mut sessions = lock(&self.sessions);
        let lost = reason!("access.lost_session").code();
        if let Some(entry) = sessions.open.get(&call.session16) {
            let is_same = entry.peer == call.peer && entry.what == call.what;
            return if is_same { Found::Open(entry.streams.clone()) } else { Found::Refused(lost) };
        }
        if call.received > 0 || sessions.ended.contains(&call.session16) {
            return Found::Refused(lost);
        }
        if sessions.open.len() >= SESSIONS_MAX {
            return Found::Refused(reason!("access.full").code());
        }
        let (streams, receiver) = mpsc::channel(1);
        let entry = Entry { peer: call.peer, what: call.what.clone(), streams };
        sessions.open.insert(call.session16, entry);
        self.open.fetch_add(1, Ordering::AcqRel);
        let (sessions, open) = (Arc::clone(&self.sessions), Arc::clone(&self.open));
        Found::New(receiver, Seat { sessions, open, id: call.session16, has_begun: false })
    }

    /// Begins what a session is for.
    async fn begin(&self, what: &Access) -> Result<Purpose, &'static str> {
        let now = settled(self.now.clone()).await;
        let begun = match what {
            Access::Exec { command, env, workdir, terminal } => {
                let terminal = terminal.map(|size| (size.rows, size.columns));
                let (command, env, workdir) = (command.clone(), env.clone(), workdir.clone());
                let exec = Exec { command, env, workdir, terminal };
                start(&now, exec).await.map(Purpose::Program)
            }
            Access::Bench => bench(&now).await.map(Purpose::Program),
            Access::Dial { port } => dial(&now, *port).await.map(Purpose::Port),
            Access::Get { path, is_tree } => {
                let (files, path, is_tree) = (files(&now), path.clone(), *is_tree);
                blocking(move || Reading::open(files?, &path, is_tree)).await.map(Purpose::Get)
            }
            Access::Put { path, mode, is_tree } => {
                let (files, path, mode, is_tree) = (files(&now), path.clone(), *mode, *is_tree);
                blocking(move || Place::open(files?, &path, mode, is_tree)).await.map(Purpose::Put)
            }
            Access::Attach { from_start } => follow::open(&self.dir, *from_start)
                .map(Purpose::Follow)
                .map_err(|error| Failure::host(error.to_string())),
            Access::Ssh => {
                let path = self.dir.host_key();
                let is_machine = files(&now).map(|files| files.is_writable);
                let key = blocking(move || match is_machine {
                    Ok(false) => Err(unsupported()),
                    Err(failure) => Err(failure),
                    Ok(true) => {
                        ssh::host_key(&path).map_err(|error| Failure::host(error.to_string()))
                    }
                });
                key.await.map(|key| Purpose::Ssh(Box::new(key)))
            }
        };
        begun.map_err(|failure| failure.reason().code())
    }
}

/// What there is, once a run that begins has begun: that it runs is on disk a moment before, and
/// whoever reads that may come at once.
pub(super) async fn settled(mut now: watch::Receiver<Now>) -> Now {
    // What takes longer than that is answered as it is.
    let _ = timeout(BEGIN_TIME, now.wait_for(|now| !matches!(now.run, Run::Begins))).await;
    now.borrow().clone()
}

fn unsupported() -> Failure {
    Failure::workload(reason!("runtime.unsupported"), "this runtime cannot do that")
}

fn files(now: &Now) -> Result<Arc<Files>, Failure> {
    now.files.clone().ok_or_else(not_running)
}

fn not_running() -> Failure {
    Failure::workload(reason!("lease.not_running"), "the lease does not run now")
}

/// What there is beside the workload.
fn beside(now: &Now) -> Result<Arc<dyn Beside>, Failure> {
    match &now.run {
        Run::Runs(Some(beside)) => Ok(Arc::clone(beside)),
        Run::Runs(None) => Err(unsupported()),
        Run::Waits | Run::Begins | Run::Exited { .. } => Err(not_running()),
    }
}

/// Starts a program beside the workload.
pub(super) async fn start(now: &Now, exec: Exec) -> Result<Running, Failure> {
    let beside = beside(now)?;
    let process = blocking(move || beside.exec(&exec)).await?;
    Running::new(process).map_err(|error| Failure::host(error.to_string()))
}

/// Starts the measurement of processor and memory.
async fn bench(now: &Now) -> Result<Running, Failure> {
    let beside = beside(now)?;
    let process = blocking(move || beside.bench()).await?;
    Running::new(process).map_err(|error| Failure::host(error.to_string()))
}

/// Connects to a port of the workload.
pub(super) async fn dial(now: &Now, port: u16) -> Result<TcpStream, Failure> {
    let beside = beside(now)?;
    let socket = std::net::TcpStream::from(blocking(move || beside.dial(port)).await?);
    let stream = socket.set_nonblocking(true).and_then(|()| TcpStream::from_std(socket));
    let stream = stream.map_err(|error| Failure::host(error.to_string()))?;
    // Who cannot have it has it later.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    spawn_blocking(work).await.unwrap_or_else(|error| Err(Failure::host(error.to_string())))
}

/// What a session is for.
enum Purpose {
    Program(Running),
    Port(TcpStream),
    Get(Reading),
    Put(Place),
    Follow(follow::Follow),
    Ssh(Box<PrivateKey>),
}

impl Purpose {
    /// Ends soon after the cut. What speaks in frames says why; of the rest the other end knows for
    /// how long it was let in.
    async fn serve(self, mut stream: DuplexStream, now: watch::Receiver<Now>, mut cut: Cut) {
        match self {
            Self::Program(running) => programs::serve(running, stream, cut).await,
            Self::Port(mut port) => {
                let sizes = (BUFFER_BYTES, BUFFER_BYTES);
                tokio::select! {
                    // Either end may leave at any time.
                    _ = copy_bidirectional_with_sizes(&mut port, &mut stream, sizes.0, sizes.1) => {}
                    () = cut.wait() => {}
                }
                drop(port);
                let _ = stream.shutdown().await;
                let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
            }
            Self::Get(reading) => reading.serve(stream, cut).await,
            Self::Put(place) => place.serve(stream, cut).await,
            Self::Follow(follow) => follow.serve(stream, now, cut).await,
            Self::Ssh(key) => tokio::select! {
                () = ssh::serve(*key, stream, now) => {}
                () = cut.wait() => {}
            },
        }
    }
}

async fn refuse(mut stream: UnixStream, code: &'static str) {
    let answer = Answer::Refused { code: code.to_owned() };
    // Whoever is gone needs no answer.
    let _ = timeout(WORDS_TIME, say(&mut stream, &answer)).await;
}

/// Keeps a session, over as many streams as it takes, to its end.
async fn keep(
    purpose: Purpose,
    mut streams: mpsc::Receiver<Visit>,
    first: Visit,
    (mut now, shut): (watch::Receiver<Now>, u64),
) {
    let (local, served) = duplex(BUFFER_BYTES);
    let (cut, told) = Cut::new();
    let (until_s, last_s) = watch::channel(first.until_s);
    let mut work = tokio::spawn(purpose.serve(served, now.clone(), told));
    let (mut read, mut write) = split(local);
    let session = Session::default();
    let mut next = Some(first);
    let carrying = async {
        loop {
            let Visit { mut stream, received, until_s: last_s } = match next.take() {
                Some(next) => next,
                None => match timeout(DETACHED_TIME, streams.recv()).await {
                    Ok(Some(next)) => next,
                    Ok(None) | Err(_) => return,
                },
            };
            until_s.send_replace(last_s);
            let answer = Answer::Open { received: session.received() };
            if !session.resume(received) {
                return refuse(stream, reason!("access.lost_session").code()).await;
            }
            let said = timeout(WORDS_TIME, say(&mut stream, &answer)).await;
            if !matches!(said, Ok(Ok(()))) {
                continue;
            }
            tokio::select! {
                carried = session.carry((&mut read, &mut write), stream.into_split()) => {
                    match carried {
                        Carried::Whole | Carried::Failed => return,
                        Carried::Broken => {}
                    }
                }
                // Whoever comes again has lost the stream before, whether that shows or not.
                other = streams.recv() => next = other,
            }
        }
    };
    let rest = async {
        // What is over does not wait for ever for those who do not listen.
        let _ = (&mut work).await;
        sleep(REST_TIME).await;
    };
    let cutting = async {
        expired(last_s).await;
        cut.send_replace(true);
        sleep(CUT_TIME).await;
    };
    tokio::select! {
        () = carrying => {}
        () = rest => {}
        () = cutting => {}
        _ = now.wait_for(|now| now.shut != shut) => {}
    }
    work.abort();
    // Its files are closed before its place is free.
    if !work.is_finished() {
        let _ = work.await;
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};
    use std::os::fd::OwnedFd;

    use super::super::words::{self, hear};
    use super::*;
    use crate::executor::runtimes::Process;

    const PATIENCE: Duration = Duration::from_secs(30);

    /// A workload that listens at one port, and does nothing else.
    struct Listening(TcpListener);

    impl Beside for Listening {
        fn exec(&self, _exec: &Exec) -> Result<Process, Failure> {
            Err(unsupported())
        }

        fn bench(&self) -> Result<Process, Failure> {
            Err(unsupported())
        }

        fn dial(&self, _port: u16) -> Result<OwnedFd, Failure> {
            let stream = self.0.local_addr().and_then(std::net::TcpStream::connect);
            stream.map(OwnedFd::from).map_err(|error| Failure::host(error.to_string()))
        }
    }

    /// Knocks for a port, and has taken a place when this returns.
    async fn knock(dir: &LeaseDir, doors: &Doors, session: u8) -> UnixStream {
        let (lease, peer) = (capex_core::ids::LeaseId([1; 32]), Key([2; 32]));
        let (what, not_after_s) = (Access::Dial { port: 80 }, u64::MAX);
        let session16 = [session; 16];
        let call = AccessCall { v: 1, lease, peer, session16, received: 0, what, not_after_s };
        let before = doors.open.load(Ordering::Acquire);
        let mut stream = UnixStream::connect(dir.path().join(LeaseDir::DOOR)).await.unwrap();
        words::knock(&mut stream, &Knock::Stream(Admission { call, until_s: None })).await.unwrap();
        let seated = async {
            while doors.open.load(Ordering::Acquire) == before {
                sleep(LOOK).await;
            }
        };
        timeout(PATIENCE, seated).await.expect("it waits for the run");
        stream
    }

    async fn answer(mut stream: UnixStream) -> (Answer, UnixStream) {
        let answer = timeout(PATIENCE, hear(&mut stream)).await.unwrap().unwrap();
        (answer, stream)
    }

    #[tokio::test]
    async fn who_comes_while_a_run_begins_waits_for_it() {
        let place = tempfile::tempdir().unwrap();
        let dir = LeaseDir::new(place.path().to_owned());
        let doors = Doors::open(&dir).unwrap();
        doors.beginning();
        let early = knock(&dir, &doors, 1).await;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        doors.running(Some(Arc::new(Listening(listener))));
        let (answer_to_early, _open) = answer(early).await;
        assert_eq!(answer_to_early, Answer::Open { received: 0 });

        // One that comes to nothing is not waited for any longer.
        doors.exited(&Outcome::Exited { code: 0 });
        doors.beginning();
        let late = knock(&dir, &doors, 2).await;
        doors.exited(&Outcome::Stopped);
        let code = reason!("lease.not_running").code().to_owned();
        assert_eq!(answer(late).await.0, Answer::Refused { code });
    }
}
