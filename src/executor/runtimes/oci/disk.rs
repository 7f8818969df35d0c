//! The disk of one lease: a file system in a file, so that its size is a limit that the kernel
//! holds, and nothing of it is left once its file is gone.
//!
//! ```text
//! <lease>/oci/disk.img ── loop ──▶ /mnt/disk/image   what was unpacked, never written to
//!                                           /upper   what the workload wrote
//!                                           /inner   for the overlay itself
//!                 overlay of both ▶ /mnt/root
//! ```
//!
//! It is mounted in the mount namespace of the lease process alone: when that and the container
//! are gone, in whatever way, the kernel undoes the mounts and the loop device. That is why a
//! directory of the system can be covered: the ids of a container may not even look into that of
//! the lease, which is closed to all but the superuser.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount,
};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use super::programs;

/// Smallest disk that holds a file system: ext4 needs some MiB for itself.
const MIN_BYTES: u64 = 8 << 20;
/// Bytes of a disk for each file that it can hold, as ext4 has it by default.
const FILE_BYTES: u64 = 16 << 10;

/// Programs that are needed, and the package that has them on Debian.
const PROGRAMS: [(&str, &str); 2] = [("mkfs.ext4", "e2fsprogs"), ("mount", "mount")];

/// Directories that every system has and a lease process does not need.
const COVERED: [&str; 3] = ["/mnt", "/media", "/srv"];

/// Where the parts of a disk are.
#[derive(Debug, Clone)]
pub(super) struct Disk {
    home: PathBuf,
    bytes: u64,
}

/// Whether this machine can make one; else what is missing.
pub(super) fn probe() -> Result<(), String> {
    if let Some(what) = programs::missing(&PROGRAMS) {
        return Err(what);
    }
    if !Path::new("/dev/loop-control").exists() {
        return Err("there are no loop devices: /dev/loop-control is missing".to_owned());
    }
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    match ["ext4", "overlay"].iter().find(|name| !known.contains(**name)) {
        None => Ok(()),
        Some(name) => Err(format!("the kernel has no file system {name}")),
    }
}

/// Gives this thread, and those that it starts from now on, mounts of their own: what is mounted
/// from here on is seen by nobody else, and goes with the last of them.
pub(super) fn own_mounts(home: &Path) -> io::Result<()> {
    #[expect(deprecated, reason = "what makes it unsafe is the table of files, which stays")]
    rustix::thread::unshare(UnshareFlags::NEWNS)?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    Ok(mount("tmpfs", covered(home), "tmpfs", flags, c"mode=755,size=4m")?)
}

/// The mounts that this thread has, to be had by others as well.
pub(super) fn mounts() -> io::Result<File> {
    File::open("/proc/thread-self/ns/mnt")
}

/// Does something on a thread that has these mounts.
pub(super) fn with_mounts<T: Send>(
    mounts: &File,
    work: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    std::thread::scope(|scope| {
        let inside = scope.spawn(move || {
            // The working directory belongs to the mounts, and is shared until now.
            #[expect(
                deprecated,
                reason = "what makes it unsafe is the table of files, which stays"
            )]
            rustix::thread::unshare(UnshareFlags::FS)?;
            move_into_link_name_space(mounts.as_fd(), Some(LinkNameSpaceType::Mount))?;
            work()
        });
        inside.join().unwrap_or_else(|_| Err(io::Error::other("a thread panicked")))
    })
}

/// The directory that is covered: not one that the lease itself lies in.
fn covered(home: &Path) -> &'static Path {
    let all = COVERED.iter().map(Path::new);
    let mut fit = all.filter(|path| path.is_dir() && !home.starts_with(path));
    fit.next().unwrap_or_else(|| Path::new(COVERED[0]))
}

impl Disk {
    /// The disk of a lease, in a directory of its own.
    pub(super) fn new(home: PathBuf, bytes: u64) -> Self {
        Self { home, bytes: bytes.max(MIN_BYTES) }
    }

    /// Root of what the container sees.
    pub(super) fn root(&self) -> PathBuf {
        covered(&self.home).join("root")
    }

    /// What tells the container what to be: in memory.
    pub(super) fn bundle(&self) -> PathBuf {
        covered(&self.home).join("bundle")
    }

    /// Where the image is unpacked.
    pub(super) fn image(&self) -> PathBuf {
        self.mounted().join("image")
    }

    /// How many files it has room for.
    pub(super) fn files(&self) -> u64 {
        self.bytes / FILE_BYTES
    }

    fn file(&self) -> PathBuf {
        self.home.join("disk.img")
    }

    fn mounted(&self) -> PathBuf {
        covered(&self.home).join("disk")
    }

    /// Makes the file system and mounts it.
    pub(super) fn make(&self) -> io::Result<()> {
        for dir in [self.mounted(), self.root()] {
            fs::create_dir_all(dir)?;
        }
        let file = File::create(self.file())?;
        file.set_len(self.bytes)?;
        drop(file);
        // Nothing is written but what describes it; the rest is done when it is needed.
        let lazily = "lazy_itable_init=1,lazy_journal_init=1,nodiscard";
        let bytes_per_file = FILE_BYTES.to_string();
        let file = self.file().display().to_string();
        let options = ["-q", "-F", "-m0", "-i", &bytes_per_file, "-E", lazily, &file];
        programs::run("mkfs.ext4", &options, "")?;
        self.mount()?;
        for name in ["upper", "inner"] {
            fs::create_dir(self.mounted().join(name))?;
        }
        Ok(())
    }

    fn mount(&self) -> io::Result<()> {
        let options = "loop,discard,nosuid,nodev,noatime";
        let places = [self.file(), self.mounted()].map(|path| path.display().to_string());
        let words = ["-t", "ext4", "-o", options, &places[0], &places[1]];
        programs::run("mount", &words, "").map(drop)
    }

    /// Mounts the file system that an earlier process made, as it left it.
    pub(super) fn take_up(&self) -> io::Result<()> {
        for dir in [self.mounted(), self.root()] {
            fs::create_dir_all(dir)?;
        }
        self.mount()
    }

    /// Makes what was written so far outlast a loss of power.
    pub(super) fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(File::open(self.mounted())?)?)
    }

    /// Lays what the workload writes over what was unpacked. `first_id` owns the root, as it does
    /// in the image.
    pub(super) fn overlay(&self, first_id: u32) -> io::Result<()> {
        let dir = |name: &str| self.mounted().join(name).display().to_string();
        std::os::unix::fs::chown(dir("upper"), Some(first_id), Some(first_id))?;
        let mode = fs::metadata(self.image())?.permissions();
        fs::set_permissions(dir("upper"), mode)?;
        let options =
            format!("lowerdir={},upperdir={},workdir={}", dir("image"), dir("upper"), dir("inner"));
        let options = std::ffi::CString::new(options)?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        mount("overlay", self.root(), "overlay", flags, options.as_c_str())?;
        Ok(())
    }

    /// Bytes in use.
    pub(super) fn used_bytes(&self) -> Option<u64> {
        let stat = rustix::fs::statvfs(self.mounted()).ok()?;
        Some(stat.f_blocks.saturating_sub(stat.f_bfree).saturating_mul(stat.f_frsize))
    }

    /// The device that holds it, as control groups name it.
    pub(super) fn device(&self) -> io::Result<String> {
        let device = rustix::fs::stat(self.mounted())?.st_dev;
        Ok(format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device)))
    }

    /// Undoes the mounts, as far as they are there.
    pub(super) fn unmount(&self) {
        for path in [self.root(), self.mounted()] {
            // One that is not mounted is what is wanted; what is still open goes with its user.
            let _ = unmount(path, UnmountFlags::DETACH);
        }
    }

    /// Loop devices that still hold the file.
    pub(super) fn left(&self) -> Vec<String> {
        let file = self.file().display().to_string();
        let devices = fs::read_dir("/sys/block").into_iter().flatten().flatten();
        let holds = |path: &PathBuf| {
            let backing = fs::read_to_string(path.join("loop/backing_file")).unwrap_or_default();
            backing.trim_end().trim_end_matches(" (deleted)") == file
        };
        let held = devices.map(|entry| entry.path()).filter(holds);
        held.map(|path| format!("{} holds {file}", path.display())).collect()
    }
}
