//! `capex lease put|get`: files into a lease and out of it.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::TcpStream as StdStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::Context;
use super::failure::Failure;
use super::lease_access::{Way, lost};
use super::lease_exec::failed;
use crate::api::types::StreamFor;
use crate::executor::access::frames::{FRAME_MAX_BYTES, frame, kind};
use crate::executor::access::{pack, unpack};
use capex_core::reason;

/// Flags of `lease put`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  capex lease put 0123abcd train.py /home/
  capex lease put 0123abcd --recursive data /srv/data

Next: capex lease exec <id> -- ls -l /home")]
pub struct Put {
    #[command(flatten)]
    pub way: Way,
    /// File here, `-` for standard input; with --recursive a directory
    pub from: PathBuf,
    /// Path in the lease; a file keeps its name behind a slash
    pub to: String,
    /// A directory, with all below it
    #[arg(long, short = 'r')]
    pub recursive: bool,
}

/// Flags of `lease get`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  capex lease get 0123abcd /home/model.bin
  capex lease get 0123abcd --recursive /srv/data data

Next: capex lease show <id>")]
pub struct Get {
    #[command(flatten)]
    pub way: Way,
    /// Path in the lease
    pub from: String,
    /// File here, `-` for standard output; with --recursive a directory [default: the name, here]
    pub to: Option<PathBuf>,
    /// A directory, with all below it
    #[arg(long, short = 'r')]
    pub recursive: bool,
    /// Replace files that are there
    #[arg(long)]
    pub force: bool,
}

/// Puts a file or a directory into a lease.
///
/// # Errors
/// A file here, or what the lease refused.
pub fn put(flags: &Put, context: &mut Context<'_>) -> Result<(), Failure> {
    let client = context.client()?;
    let (from, is_input) = (flags.from.as_path(), flags.from == Path::new("-"));
    let refused = |error: io::Error| Failure::file(from, &error);
    let mut to = flags.to.clone();
    if to.ends_with('/') && !flags.recursive {
        let name = from.file_name().filter(|_| !is_input);
        let name =
            name.ok_or_else(|| Failure::new(reason!("cli.usage"), "the path names no file"))?;
        to.push_str(&name.to_string_lossy());
    }
    let mode = if is_input || flags.recursive {
        0o644
    } else {
        fs::metadata(from).map_err(refused)?.permissions().mode() & 0o777
    };
    // Nothing is opened there before it can be read here.
    let mut file: Box<dyn Read + '_> = match (flags.recursive, is_input) {
        (true, _) if !fs::metadata(from).map_err(refused)?.is_dir() => {
            return Err(refused(io::ErrorKind::NotADirectory.into()));
        }
        (true, _) => Box::new(io::empty()),
        (false, true) => Box::new(&mut *context.io.input),
        (false, false) => Box::new(File::open(from).map_err(refused)?),
    };
    let open = StreamFor::Put { path: to.clone(), mode, tree: flags.recursive };
    let stream = flags.way.stream(&client, open)?;
    let mut there = Upload { stream, bytes: 0 };
    let sent = if flags.recursive {
        pack(from, &mut there)
    } else {
        io::copy(&mut file, &mut there).map(drop)
    };
    drop(file);
    let bytes = there.bytes;
    // What the lease says of it explains more than a stream that broke.
    let answer = match sent.and_then(|()| there.end()) {
        Ok(()) => conclude(&mut there.stream),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => conclude(&mut there.stream),
        Err(error) => Err(refused(error)),
    };
    answer?;
    let value = serde_json::json!({ "path": to, "bytes": bytes });
    context.show(&value, |_, page| {
        page.line(format_args!("{bytes} bytes put to {to}"));
    })
}

/// Sends content, in frames.
struct Upload {
    stream: StdStream,
    bytes: u64,
}

impl Upload {
    fn end(&mut self) -> io::Result<()> {
        self.stream.write_all(&frame(kind::INPUT, &[]))
    }
}

impl Write for Upload {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let part = bytes.get(..FRAME_MAX_BYTES).unwrap_or(bytes);
        if part.is_empty() {
            return Ok(0);
        }
        // A stream that was closed there is a broken pipe, however the system says it.
        self.stream.write_all(&frame(kind::INPUT, part)).map_err(|error| match error.kind() {
            io::ErrorKind::ConnectionReset => io::ErrorKind::BrokenPipe.into(),
            _ => error,
        })?;
        self.bytes += part.len() as u64;
        Ok(part.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Waits for the word that all is done.
fn conclude(stream: &mut StdStream) -> Result<(), Failure> {
    let mut rest = Download::new(stream);
    let copied = io::copy(&mut rest, &mut io::sink());
    rest.failure(copied.err())
}

/// Receives content, in frames.
struct Download<'a> {
    stream: &'a mut StdStream,
    part: io::Cursor<Vec<u8>>,
    /// How it ended; none for a stream that broke.
    end: Option<Result<(), Failure>>,
}

impl<'a> Download<'a> {
    fn new(stream: &'a mut StdStream) -> Self {
        Self { stream, part: io::Cursor::default(), end: None }
    }

    /// What went wrong, there or here.
    fn failure(self, here: Option<io::Error>) -> Result<(), Failure> {
        match (self.end, here) {
            (Some(Err(failure)), _) => Err(failure),
            (Some(Ok(())), None) => Ok(()),
            (Some(Ok(())), Some(error)) => Err(Failure::from(error)),
            (None, _) => Err(lost()),
        }
    }

    fn next(&mut self) -> io::Result<()> {
        let mut head = [0; 5];
        self.stream.read_exact(&mut head)?;
        let [kind, length @ ..] = head;
        let length = u32::from_be_bytes(length) as usize;
        if length > FRAME_MAX_BYTES {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut bytes = vec![0; length];
        self.stream.read_exact(&mut bytes)?;
        match kind {
            kind::OUTPUT => self.part = io::Cursor::new(bytes),
            kind::EXIT => self.end = Some(Ok(())),
            kind::FAILED => self.end = Some(Err(failed(&bytes))),
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
        Ok(())
    }
}

impl Read for Download<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = self.part.read(buffer)?;
            match &self.end {
                _ if count > 0 => return Ok(count),
                None => self.next()?,
                Some(Ok(())) => return Ok(0),
                Some(Err(_)) => return Err(io::ErrorKind::Other.into()),
            }
        }
    }
}

/// Gets a file or a directory out of a lease.
///
/// # Errors
/// A file here, or what the lease refused.
pub fn get(flags: &Get, context: &mut Context<'_>) -> Result<(), Failure> {
    let name = flags.from.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let to = match &flags.to {
        Some(to) => to.clone(),
        None if matches!(name, "" | "." | "..") => {
            return Err(Failure::new(reason!("cli.usage"), "say where to write it"));
        }
        None => PathBuf::from(name),
    };
    let is_output = to == Path::new("-");
    let to = if to.is_dir() && !flags.recursive { to.join(name) } else { to };
    let is_there = !is_output && !flags.force && fs::symlink_metadata(&to).is_ok();
    if is_there {
        let message = format!("{} is there already", to.display());
        return Err(Failure::new(reason!("file.exists"), message));
    }
    let refused = |error: io::Error| Failure::file(&to, &error);
    let open = StreamFor::Get { path: flags.from.clone(), tree: flags.recursive };
    let mut stream = flags.way.stream(&context.client()?, open)?;
    let mut there = Download::new(&mut stream);
    if is_output {
        let copied = io::copy(&mut there, &mut context.io.out);
        return there.failure(copied.err());
    }
    let bytes = if flags.recursive {
        fs::create_dir_all(&to).map_err(refused)?;
        let done = unpack(&to, &mut there);
        let rest = io::copy(&mut there, &mut io::sink());
        match (there.failure(rest.err()), done) {
            (Err(failure), _) => return Err(failure),
            (Ok(()), Err(text)) => return Err(refused(io::Error::other(text))),
            (Ok(()), Ok(bytes)) => bytes,
        }
    } else {
        let part = PathBuf::from(format!("{}.capex-part", to.display()));
        let copied = File::create(&part).and_then(|mut file| io::copy(&mut there, &mut file));
        let (bytes, error) = match copied {
            Ok(bytes) => (bytes, None),
            Err(error) => (0, Some(error)),
        };
        let done = there.failure(error).and_then(|()| fs::rename(&part, &to).map_err(refused));
        if done.is_err() {
            // What cannot be removed has a name that says what it is.
            let _ = fs::remove_file(&part);
        }
        done?;
        bytes
    };
    let value = serde_json::json!({ "path": to, "bytes": bytes });
    context.show(&value, |_, page| {
        page.line(format_args!("{bytes} bytes written to {}", to.display()));
    })
}
