//! A program beside the workload, as whoever asked for it has it.

use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex as PlainMutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::termios::{Winsize, tcsetwinsize};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf, split};
use tokio::net::unix::pipe;
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use super::cut::Cut;
use super::files::failed;
use super::frames::{AHEAD_BYTES, FRAME_MAX_BYTES, frame, kind, read_frame};
use crate::executor::runtimes::{Process, ProcessControl, ProcessIo};

/// Once a program has ended, what it started may hold its streams: nothing more is waited for
/// after so long a silence.
const SILENCE: Duration = Duration::from_millis(250);
/// Who has lost its terminal may take so long to end.
const HANG_UP_TIME: Duration = Duration::from_secs(5);
const SIGHUP: u8 = 1;
const SIGKILL: u8 = 9;
/// Answered for a program whose end is not known.
pub(super) const UNKNOWN: i32 = 255;
/// End of input, as a terminal has it.
const END_OF_INPUT: &[u8] = &[4];

/// What a program is read from and written to.
pub(super) type Source = Box<dyn AsyncRead + Send + Unpin>;
pub(super) type Sink = Box<dyn AsyncWrite + Send + Unpin>;

/// A program that runs. It is hung up on when this is dropped.
pub(super) struct Running {
    pub(super) input: Sink,
    pub(super) outputs: [(u8, Source); 2],
    pub(super) exit: oneshot::Receiver<i32>,
    pub(super) control: Control,
}

/// What reaches a program beside its streams.
pub(super) struct Control {
    process: Arc<dyn ProcessControl>,
    terminal: Option<Terminal>,
    ended: watch::Receiver<bool>,
}

impl Running {
    /// To be called within a runtime.
    pub(super) fn new(process: Process) -> io::Result<Self> {
        let (tell, exit) = oneshot::channel();
        let (end, ended) = watch::channel(false);
        let waited = Arc::clone(&process.control);
        spawn_blocking(move || {
            let code = waited.wait().unwrap_or(UNKNOWN);
            // Whoever asked may be gone.
            let _ = (end.send(true), tell.send(code));
        });
        let mut control = Control { process: process.control, terminal: None, ended };
        let (input, output, errors): (Sink, Source, Source) = match process.io {
            ProcessIo::Pipes { stdin, stdout, stderr } => (
                Box::new(pipe::Sender::from_owned_fd(stdin)?),
                Box::new(pipe::Receiver::from_owned_fd(stdout)?),
                Box::new(pipe::Receiver::from_owned_fd(stderr)?),
            ),
            ProcessIo::Terminal(master) => {
                let terminal = Terminal::new(master)?;
                control.terminal = Some(terminal.clone());
                (Box::new(terminal.clone()), Box::new(terminal), Box::new(tokio::io::empty()))
            }
        };
        let outputs = [(kind::OUTPUT, output), (kind::ERRORS, errors)];
        Ok(Self { input, outputs, exit, control })
    }
}

impl Control {
    /// The terminal, if there is one, has another size.
    pub(super) fn resize(&self, rows: u16, columns: u16) {
        if let Some(Terminal(terminal)) = &self.terminal {
            let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
            // One that is gone has no size.
            let _ = tcsetwinsize(terminal.get_ref(), size);
        }
    }

    /// One that has ended hears nothing.
    pub(super) fn signal(&self, number: u8) {
        let _ = self.process.signal(number);
    }

    pub(super) fn is_terminal(&self) -> bool {
        self.terminal.is_some()
    }

    pub(super) fn ended(&self) -> watch::Receiver<bool> {
        self.ended.clone()
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        if *self.ended.borrow() {
            return;
        }
        self.signal(SIGHUP);
        let (process, mut ended) = (Arc::clone(&self.process), self.ended.clone());
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            if timeout(HANG_UP_TIME, ended.wait_for(|ended| *ended)).await.is_err() {
                let _ = process.signal(SIGKILL);
            }
        });
    }
}

/// Reads a stream of a program to its end, or until it is cut, and a little longer than the program
/// itself.
pub(super) async fn pump<F: Future<Output = io::Result<()>>>(
    mut source: Source,
    mut ended: watch::Receiver<bool>,
    mut cut: Option<Cut>,
    mut give: impl FnMut(Vec<u8>) -> F,
) {
    let mut buffer = vec![0; FRAME_MAX_BYTES];
    loop {
        let has_ended = *ended.borrow();
        let read = tokio::select! {
            read = source.read(&mut buffer) => read,
            _ = ended.changed(), if !has_ended => continue,
            () = sleep(SILENCE), if has_ended => return,
            () = cut_now(&mut cut) => return,
        };
        match read {
            Ok(count @ 1..) if give(buffer[..count].to_vec()).await.is_ok() => {}
            _ => return,
        }
    }
}

async fn cut_now(cut: &mut Option<Cut>) {
    match cut {
        Some(cut) => cut.wait().await,
        None => std::future::pending().await,
    }
}

/// Lets the other end of a session have the program.
pub(super) async fn serve(
    running: Running,
    stream: impl AsyncRead + AsyncWrite + Send + 'static,
    cut: Cut,
) {
    let Running { input, outputs, exit, control } = running;
    let (mut from, to) = split(stream);
    let to = Arc::new(Mutex::new(to));
    let give = |kind| {
        let to = Arc::clone(&to);
        move |bytes: Vec<u8>| {
            let to = Arc::clone(&to);
            async move { to.lock().await.write_all(&frame(kind, &bytes)).await }
        }
    };
    let [(out, output), (err, errors)] = outputs;
    let is_terminal = control.is_terminal();
    let work = async {
        let ((), ()) = tokio::join!(
            pump(output, control.ended(), Some(cut.clone()), give(out)),
            pump(errors, control.ended(), Some(cut.clone()), give(err)),
        );
        let mut cut = cut.clone();
        let last = tokio::select! {
            biased;
            () = cut.wait() => failed(&Cut::failure()),
            code = exit => frame(kind::EXIT, &code.unwrap_or(UNKNOWN).to_be_bytes()),
        };
        // Whoever is gone needs no code.
        let _ = to.lock().await.write_all(&last).await;
    };
    // What is queued is bounded by what may be sent ahead.
    let (queue, queued) = mpsc::unbounded_channel();
    let ahead = Ahead::default();
    tokio::select! {
        () = work => {}
        // Whoever asked for it is gone, or breaks the rules.
        () = heed(&mut from, &control, &ahead, queue) => return,
        () = feed(input, queued, &ahead, is_terminal, give(kind::TAKEN)) => {}
    }
    // One that still runs is hung up on.
    drop(control);
    finish(from, to).await;
}

/// Ends what goes out, and takes what still comes in.
pub(super) async fn finish<S: AsyncRead + AsyncWrite>(
    mut from: tokio::io::ReadHalf<S>,
    to: Arc<Mutex<tokio::io::WriteHalf<S>>>,
) {
    let _ = to.lock().await.shutdown().await;
    let _ = tokio::io::copy(&mut from, &mut tokio::io::sink()).await;
}

/// Obeys the frames of the other end, until it ends.
async fn heed(
    from: &mut (impl AsyncRead + Unpin),
    control: &Control,
    ahead: &Ahead,
    queue: mpsc::UnboundedSender<Vec<u8>>,
) {
    let mut data = Vec::new();
    loop {
        let Ok(kind) = read_frame(from, &mut data).await else { return };
        match (kind, data.as_slice()) {
            (kind::INPUT, bytes) => {
                if !ahead.add(bytes.len()) || queue.send(bytes.to_vec()).is_err() {
                    return;
                }
            }
            (kind::SIZE, &[a, b, c, d]) => {
                control.resize(u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
            }
            (kind::SIGNAL, &[number]) => control.signal(number),
            _ => return,
        }
    }
}

/// Input that was received and has not been taken, bytes and frames.
#[derive(Debug, Default)]
struct Ahead(PlainMutex<(usize, usize)>);

impl Ahead {
    /// Empty frames count too: what a stranger can queue is bounded.
    const FRAMES: usize = AHEAD_BYTES / 16;

    fn add(&self, bytes: usize) -> bool {
        let mut ahead = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *ahead = (ahead.0 + bytes, ahead.1 + 1);
        ahead.0 <= AHEAD_BYTES && ahead.1 <= Self::FRAMES
    }

    fn remove(&self, bytes: usize) {
        let mut ahead = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *ahead = (ahead.0.saturating_sub(bytes), ahead.1.saturating_sub(1));
    }
}

/// Gives the program its input, and says how much it took. Ends never: without its input a
/// program goes on.
async fn feed<F: Future<Output = io::Result<()>>>(
    input: Sink,
    mut queue: mpsc::UnboundedReceiver<Vec<u8>>,
    ahead: &Ahead,
    is_terminal: bool,
    mut say: impl FnMut(Vec<u8>) -> F,
) {
    let mut input = Some(input);
    while let Some(bytes) = queue.recv().await {
        if let Some(sink) = &mut input {
            let written = match (bytes.is_empty(), is_terminal) {
                (true, true) => sink.write_all(END_OF_INPUT).await,
                _ => sink.write_all(&bytes).await,
            };
            if written.is_err() || (bytes.is_empty() && !is_terminal) {
                // Dropped, so that the program sees the end. What else comes is thrown away.
                input = None;
            }
        }
        ahead.remove(bytes.len());
        let count = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        if count > 0 && say(count.to_be_bytes().to_vec()).await.is_err() {
            break;
        }
    }
    std::future::pending().await
}

/// The master side of a terminal.
#[derive(Clone)]
struct Terminal(Arc<AsyncFd<OwnedFd>>);

impl Terminal {
    fn new(master: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&master, true)?;
        #[expect(deprecated, reason = "what makes it unsafe is a descriptor that others close")]
        let master = AsyncFd::new(master)?;
        Ok(Self(Arc::new(master)))
    }
}

impl AsyncRead for Terminal {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.0.poll_read_ready(cx))?;
            let room = buf.initialize_unfilled();
            match ready.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), &mut *room)?)) {
                Ok(Ok(count)) => {
                    buf.advance(count);
                    return Poll::Ready(Ok(()));
                }
                // As Linux says that nobody has the other side open.
                Ok(Err(error)) if error.raw_os_error() == Some(libc::EIO) => {
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_) => {}
            }
        }
    }
}

impl AsyncWrite for Terminal {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.0.poll_write_ready(cx))?;
            if let Ok(written) = ready.try_io(|fd| Ok(rustix::io::write(fd.get_ref(), bytes)?)) {
                return Poll::Ready(written);
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
