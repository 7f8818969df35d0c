//! What runs in a lease, as flags or in a file of them: for a redemption, for what takes its place,
//! and for a purchase.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::failure::Failure;
use super::order_flags::first;
use super::{order_file, read_file, wait_ms};
use crate::api::types::{EnvBody, FileBody, RedeemBody, Restart};
use capex_core::lease::pull::ImageRef;
use capex_core::limits::{SIGNAL_MAX, WORKLOAD_MAX_BYTES, WORKLOAD_STRINGS_MAX_BYTES};
use capex_core::reason;

/// A workload by flags, by a file, or both: flags win.
#[derive(Debug, clap::Args)]
pub struct Given {
    #[command(flatten)]
    pub work: Work,
    /// Read it from a TOML file whose keys are the names of these flags, and `command`
    #[arg(long, value_name = "FILE")]
    pub workload: Option<PathBuf>,
}

/// Flags of a workload.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Work {
    /// WASI 0.2 command component
    #[arg(long, value_name = "FILE")]
    pub wasm: Option<PathBuf>,
    /// Image: a directory with an OCI layout, a file of `docker save` or `podman save`, an archive
    /// of a root file system, or one in a registry that the provider fetches, as
    /// docker.io/library/alpine@sha256:DIGEST
    #[arg(long, value_name = "DIR|FILE|REF@sha256:DIGEST", conflicts_with = "wasm", value_parser = image)]
    pub image: Option<Image>,
    /// File for the workload's directory
    #[arg(long, value_name = "NAME=PATH", value_parser = named_path)]
    pub input: Vec<(String, PathBuf)>,
    /// Name of a file to keep as a result
    #[arg(long, value_name = "NAME")]
    pub result: Vec<String>,
    /// Variable of its environment; repeat for more
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    pub env: Vec<EnvBody>,
    /// Variable whose value only the provider can read, from a file, or by its name from the
    /// environment of this command; repeat for more
    #[arg(long, value_name = "NAME=@FILE|NAME", value_parser = secret)]
    pub env_sealed: Vec<Secret>,
    /// Directory in which it begins, as an absolute path
    #[arg(long, value_name = "PATH")]
    pub workdir: Option<String>,
    /// Port on which it listens; repeat for more
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Vec<u16>,
    /// Let it open connections to the outside
    #[arg(long)]
    pub egress: bool,
    /// Time between stop signal and kill, at the end of the window and at a stop
    #[arg(long, value_name = "TIME", value_parser = wait_ms)]
    pub grace: Option<u64>,
    /// Stop signal, by name or number
    #[arg(long, value_name = "SIGNAL", value_parser = signal)]
    pub stop_signal: Option<u8>,
    /// Whether it is run again when it ends by itself
    #[arg(long, value_name = "no|on-failure|always", value_parser = restart)]
    pub restart: Option<Restart>,
    /// Program and arguments in an image, arguments of a component
    #[arg(last = true, value_name = "ARG")]
    pub command: Vec<String>,
}

/// Where an image is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Image {
    Here(PathBuf),
    InRegistry(ImageRef),
}

fn image(text: &str) -> Result<Image, String> {
    if !ImageRef::is_meant(text) {
        return Ok(Image::Here(text.into()));
    }
    let expected = "expected the whole name, as docker.io/library/alpine@sha256:DIGEST";
    ImageRef::parse(text).map(Image::InRegistry).ok_or_else(|| expected.to_owned())
}

impl Image {
    fn seen_from(self, dir: &Path) -> Self {
        match self {
            Self::Here(path) => Self::Here(dir.join(path)),
            Self::InRegistry(image) => Self::InRegistry(image),
        }
    }
}

fn variable(text: &str) -> Result<EnvBody, String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => {
            Ok(EnvBody { name: name.to_owned(), value: value.to_owned() })
        }
        _ => Err("expected name=value".to_owned()),
    }
}

/// Where a value is that is to be sealed: never in an argument, which every process can read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    name: String,
    /// Else in the environment.
    file: Option<PathBuf>,
}

fn secret(text: &str) -> Result<Secret, String> {
    let (name, file) = match text.split_once('=') {
        None => (text, None),
        Some((name, place)) => match place.strip_prefix('@') {
            Some(path) if !path.is_empty() => (name, Some(PathBuf::from(path))),
            _ => return Err("expected NAME=@FILE, or NAME alone".to_owned()),
        },
    };
    if name.is_empty() {
        return Err("expected NAME=@FILE, or NAME alone".to_owned());
    }
    Ok(Secret { name: name.to_owned(), file })
}

impl Secret {
    fn seen_from(self, dir: &Path) -> Self {
        Self { file: self.file.map(|path| dir.join(path)), ..self }
    }

    /// Its value; of a file without the end of its last line.
    fn read(&self) -> Result<EnvBody, Failure> {
        let refused = |message: String| Failure::new(reason!("cli.usage"), message);
        let value = match &self.file {
            Some(path) => {
                let bytes = read_file(path, WORKLOAD_STRINGS_MAX_BYTES as u64)?;
                let text = String::from_utf8(bytes)
                    .map_err(|_| refused(format!("{} is not text", path.display())))?;
                text.strip_suffix('\n').unwrap_or(&text).to_owned()
            }
            None => std::env::var(&self.name).map_err(|_| {
                refused(format!("the environment has no variable {}", self.name))
                    .with_hint("name a file: --env-sealed NAME=@FILE")
            })?,
        };
        Ok(EnvBody { name: self.name.clone(), value })
    }
}

fn restart(text: &str) -> Result<Restart, String> {
    match text {
        "no" => Ok(Restart::No),
        "on-failure" => Ok(Restart::OnFailure),
        "always" => Ok(Restart::Always),
        _ => Err("expected no, on-failure or always".to_owned()),
    }
}

/// Names as `kill -l` prints them, with their numbers on Linux.
const SIGNALS: [(&str, u8); 7] =
    [("HUP", 1), ("INT", 2), ("QUIT", 3), ("USR1", 10), ("USR2", 12), ("TERM", 15), ("WINCH", 28)];

fn signal(text: &str) -> Result<u8, String> {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let named = SIGNALS.iter().find(|(known, _)| *known == name).map(|(_, number)| *number);
    let number = || name.parse().ok().filter(|number| (1..=SIGNAL_MAX).contains(number));
    named.or_else(number).ok_or_else(|| "expected a signal, as TERM or 15".to_owned())
}

fn named_path(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, path)) if !name.is_empty() && !path.is_empty() => {
            Ok((name.to_owned(), PathBuf::from(path)))
        }
        _ => Err("expected name=path".to_owned()),
    }
}

fn component(path: &Path) -> Result<Vec<u8>, Failure> {
    let component = read_file(path, WORKLOAD_MAX_BYTES)?;
    if component.starts_with(b"\0asm") {
        return Ok(component);
    }
    let message = format!("{} is not a WebAssembly file", path.display());
    Err(Failure::new(reason!("workload.invalid"), message))
}

/// The workload that a file describes. Paths in it are seen from its directory.
///
/// # Errors
/// `order_file.*`, exit 2.
pub(super) fn read(path: &Path) -> Result<Work, Failure> {
    let work: Work = order_file::read(path)?;
    Ok(work.seen_from(path.parent().unwrap_or(Path::new(""))))
}

impl Given {
    /// Reads what is to run.
    ///
    /// # Errors
    /// What a file refused.
    pub fn body(&self) -> Result<RedeemBody, Failure> {
        let flags = self.work.clone();
        let work = match self.workload.as_deref().map(read).transpose()? {
            Some(file) => flags.or(file),
            None => flags,
        };
        work.body()
    }
}

impl Work {
    /// These flags, with those of a file where they say nothing.
    fn or(self, file: Self) -> Self {
        // A payload named here replaces the file's, of whatever kind that is.
        let is_named = self.wasm.is_some() || self.image.is_some();
        let (wasm, image) = if is_named { (None, None) } else { (file.wasm, file.image) };
        Self {
            wasm: self.wasm.or(wasm),
            image: self.image.or(image),
            input: first(self.input, file.input),
            result: first(self.result, file.result),
            env: first(self.env, file.env),
            env_sealed: first(self.env_sealed, file.env_sealed),
            workdir: self.workdir.or(file.workdir),
            port: first(self.port, file.port),
            egress: self.egress || file.egress,
            grace: self.grace.or(file.grace),
            stop_signal: self.stop_signal.or(file.stop_signal),
            restart: self.restart.or(file.restart),
            command: first(self.command, file.command),
        }
    }

    fn seen_from(self, dir: &Path) -> Self {
        let input = self.input.into_iter().map(|(name, path)| (name, dir.join(path)));
        Self {
            wasm: self.wasm.map(|path| dir.join(path)),
            image: self.image.map(|image| image.seen_from(dir)),
            input: input.collect(),
            env_sealed: self.env_sealed.into_iter().map(|one| one.seen_from(dir)).collect(),
            ..self
        }
    }

    /// Reads what is to run.
    ///
    /// # Errors
    /// What a file refused.
    pub fn body(&self) -> Result<RedeemBody, Failure> {
        if self.wasm.is_none() && self.image.is_none() {
            return Err(Failure::new(reason!("cli.usage"), "nothing says what shall run")
                .with_hint("name a component with --wasm FILE, or an image with --image FILE"));
        }
        let component_base64 = match &self.wasm {
            Some(path) => BASE64.encode(component(path)?),
            None => String::new(),
        };
        let (image, pull) = match &self.image {
            // The node may have another working directory.
            Some(Image::Here(path)) => (Some(std::path::absolute(path)), None),
            Some(Image::InRegistry(image)) => (None, Some(image.to_string())),
            None => (None, None),
        };
        let image = image.transpose();
        let image = image.map_err(|error| Failure::new(reason!("image.io"), error.to_string()))?;
        let mut inputs = Vec::with_capacity(self.input.len());
        for (name, path) in &self.input {
            let base64 = BASE64.encode(read_file(path, WORKLOAD_MAX_BYTES)?);
            inputs.push(FileBody { name: name.clone(), base64 });
        }
        Ok(RedeemBody {
            component_base64,
            image: image.map(|path| path.display().to_string()),
            pull,
            command: self.command.clone(),
            env: self.env.clone(),
            env_sealed: self.env_sealed.iter().map(Secret::read).collect::<Result<_, _>>()?,
            workdir: self.workdir.clone(),
            inputs,
            results: self.result.clone(),
            ports: self.port.clone(),
            egress: self.egress,
            grace_ms: self.grace.map_or(0, |ms| u32::try_from(ms).unwrap_or(u32::MAX)),
            stop_signal: self.stop_signal.unwrap_or(0),
            restart: self.restart.unwrap_or_default(),
        })
    }
}
