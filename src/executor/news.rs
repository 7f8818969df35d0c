//! How the daemon hears of its lease processes: the kernel says that one of their files was replaced, and
//! that one of them has ended.

use std::collections::HashMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::layout::LeaseDir;

/// Read at once of what the kernel says: some hundred events. It keeps 16,384 of them, which then become
/// one that says that some are lost.
const EVENTS_BYTES: usize = 8 << 10;

/// Something that can be waited for.
#[expect(deprecated, reason = "what makes it unsafe is a descriptor that others close")]
fn readable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(fd, Interest::READABLE)
}

/// What happens to the files of all leases.
#[derive(Debug, Default)]
pub(super) struct News {
    /// Made with the first lease.
    ears: Mutex<Option<Ears>>,
    leases: Mutex<HashMap<i32, Arc<Notify>>>,
}

#[derive(Debug)]
struct Ears {
    inotify: Arc<AsyncFd<OwnedFd>>,
    task: AbortHandle,
}

impl Drop for Ears {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl News {
    /// Tells `moved` from now on when a file of the lease is replaced. Whoever finds no work in that need
    /// not look by the clock.
    ///
    /// # Errors
    /// The kernel has no watch left.
    pub(super) fn listen(self: &Arc<Self>, dir: &LeaseDir, moved: &Arc<Notify>) -> io::Result<()> {
        let inotify = self.inotify()?;
        let flags = WatchFlags::MOVED_TO | WatchFlags::ONLYDIR;
        // Held while the watch is made, so that nothing is heard of a lease that is not known.
        let mut leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        let watch = inotify::add_watch(inotify.get_ref(), dir.path(), flags)?;
        leases.insert(watch, Arc::clone(moved));
        Ok(())
    }

    fn inotify(self: &Arc<Self>) -> io::Result<Arc<AsyncFd<OwnedFd>>> {
        let mut ears = self.ears.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ears) = &*ears {
            return Ok(Arc::clone(&ears.inotify));
        }
        let made = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let inotify = Arc::new(readable(made)?);
        let hearing = hear(Arc::downgrade(self), Arc::clone(&inotify));
        let task = tokio::spawn(hearing).abort_handle();
        *ears = Some(Ears { inotify: Arc::clone(&inotify), task });
        Ok(inotify)
    }

    fn tell(&self, watch: i32, flags: ReadFlags) {
        let mut leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
            leases.values().for_each(|moved| moved.notify_one());
        }
        // A directory that was removed is watched no more.
        let moved = match flags.contains(ReadFlags::IGNORED) {
            true => leases.remove(&watch),
            false => leases.get(&watch).cloned(),
        };
        if let Some(moved) = moved {
            moved.notify_one();
        }
    }
}

async fn hear(news: Weak<News>, inotify: Arc<AsyncFd<OwnedFd>>) {
    let mut buffer = vec![MaybeUninit::uninit(); EVENTS_BYTES];
    loop {
        let Ok(mut ready) = inotify.readable().await else { return };
        let Some(news) = news.upgrade() else { return };
        let mut events = inotify::Reader::new(inotify.get_ref(), &mut buffer);
        loop {
            match events.next() {
                Ok(event) => news.tell(event.wd(), event.events()),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break ready.clear_ready(),
                Err(error) => {
                    tracing::error!(%error, "leases are looked at seldom: nothing is heard of them");
                    return;
                }
            }
        }
    }
}

/// The end of a process, which may be no child of this one.
#[derive(Debug)]
pub(super) struct Exit(AsyncFd<OwnedFd>);

impl Exit {
    /// `None` where the kernel cannot say so.
    pub(super) fn of(process: OwnedFd) -> Option<Self> {
        readable(process).ok().map(Self)
    }

    pub(super) async fn wait(&self) {
        // An error is looked into, as an end is.
        let _ = self.0.readable().await;
    }
}
