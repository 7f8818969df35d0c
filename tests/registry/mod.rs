//! A registry of images on loopback, honest or not.
#![allow(dead_code, reason = "each test uses a part")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use capex_core::ids::Digest;
use sha2::{Digest as _, Sha256};

/// Where the image is.
pub(crate) const REPOSITORY: &str = "team/app";

/// Architecture of this machine, as images have it.
pub(crate) fn here() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

pub(crate) fn digest(bytes: &[u8]) -> Digest {
    Digest(Sha256::digest(bytes).into())
}

fn part(bytes: &[u8]) -> String {
    format!(r#"{{"digest":"sha256:{}","size":{}}}"#, digest(bytes), bytes.len())
}

/// An image with the index that names it.
#[derive(Clone)]
pub(crate) struct Image {
    pub(crate) index: Vec<u8>,
    pub(crate) manifest: Vec<u8>,
    pub(crate) config: Vec<u8>,
    pub(crate) layers: Vec<Vec<u8>>,
}

impl Image {
    /// For machines of this architecture.
    pub(crate) fn of(layers: &[&[u8]], architecture: &str) -> Self {
        let diff_ids = layers.iter().map(|layer| format!("\"sha256:{}\"", digest(layer)));
        let diff_ids = diff_ids.collect::<Vec<_>>().join(",");
        let config = format!(
            r#"{{"architecture":"{architecture}","os":"linux","config":{{"Cmd":["/bin/sh"]}},"rootfs":{{"diff_ids":[{diff_ids}]}}}}"#
        );
        let all: Vec<String> = layers.iter().map(|layer| part(layer)).collect();
        let manifest =
            format!(r#"{{"config":{},"layers":[{}]}}"#, part(config.as_bytes()), all.join(","));
        let entry = |part: &str, os: &str, architecture: &str| {
            let platform = format!(r#""platform":{{"os":"{os}","architecture":"{architecture}"}}"#);
            format!("{},{platform}}}", part.trim_end_matches('}'))
        };
        let entries = [
            entry(&part(b"another"), "linux", "sparc"),
            entry(&part(b"a signature"), "unknown", "unknown"),
            entry(&part(manifest.as_bytes()), "linux", architecture),
        ];
        Self {
            index: format!(r#"{{"manifests":[{}]}}"#, entries.join(",")).into_bytes(),
            manifest: manifest.into_bytes(),
            config: config.into_bytes(),
            layers: layers.iter().map(|layer| layer.to_vec()).collect(),
        }
    }

    /// What an honest registry answers.
    pub(crate) fn answer(&self, path: &str) -> Reply {
        let blobs = self.layers.iter().chain([&self.config]);
        let manifests = [&self.index, &self.manifest].into_iter();
        let base = format!("/v2/{REPOSITORY}");
        let at =
            |kind: &str, bytes: &[u8]| path == format!("{base}/{kind}/sha256:{}", digest(bytes));
        let found = blobs.clone().find(|bytes| at("blobs", bytes));
        let found = found.or_else(|| manifests.clone().find(|bytes| at("manifests", bytes)));
        found.map_or(Reply::status(404), |bytes| Reply::bytes(bytes))
    }
}

/// What is sent.
pub(crate) enum Body {
    Bytes(Vec<u8>),
    /// Zeros for as long as anybody reads.
    Endless,
    /// So much is announced, and comes a byte at a time.
    Dripping(usize),
    /// More is announced than comes.
    Cut(Vec<u8>),
}

pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: Vec<(&'static str, String)>,
    pub(crate) body: Body,
}

impl Reply {
    pub(crate) fn status(status: u16) -> Self {
        Self { status, head: Vec::new(), body: Body::Bytes(Vec::new()) }
    }

    pub(crate) fn bytes(bytes: &[u8]) -> Self {
        Self { body: Body::Bytes(bytes.to_vec()), ..Self::status(200) }
    }

    pub(crate) fn of(body: Body) -> Self {
        Self { body, ..Self::status(200) }
    }

    pub(crate) fn redirect(to: impl Into<String>) -> Self {
        Self { head: vec![("Location", to.into())], ..Self::status(307) }
    }

    pub(crate) fn challenge(realm: &str) -> Self {
        let words = format!(r#"Bearer realm="{realm}",service="a registry",scope="x""#);
        Self { head: vec![("WWW-Authenticate", words)], ..Self::status(401) }
    }
}

/// What was asked, and with which `Authorization`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) path: String,
    pub(crate) token: Option<String>,
}

/// A server; its threads end with the test.
pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    pub(crate) fn start(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (seen, answer) = (Arc::clone(&asked), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
                std::thread::spawn(move || {
                    // The other end may leave at any time.
                    let _ = serve(&stream, &seen, &*answer);
                });
            }
        });
        Self { addr, asked }
    }

    pub(crate) fn honest(image: &Image) -> Self {
        let image = image.clone();
        Self::start(move |asked| image.answer(&asked.path))
    }

    /// As an operator lists it.
    pub(crate) fn name(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// A digest in its repository, as a holder names it.
    pub(crate) fn image(&self, bytes: &[u8]) -> String {
        format!("{}/{REPOSITORY}@sha256:{}", self.addr, digest(bytes))
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

fn serve(
    stream: &TcpStream,
    seen: &Mutex<Vec<Asked>>,
    answer: &dyn Fn(&Asked) -> Reply,
) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    let line = lines.next().unwrap_or(Ok(String::new()))?;
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut token = None;
    for line in lines {
        let line = line?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(": ").unwrap_or_default();
        if name.eq_ignore_ascii_case("authorization") {
            token = Some(value.to_owned());
        }
    }
    let asked = Asked { path, token };
    seen.lock().unwrap().push(asked.clone());
    let Reply { status, head, body } = answer(&asked);
    let mut out = stream;
    let mut text = format!("HTTP/1.1 {status} x\r\nConnection: close\r\n");
    for (name, value) in head {
        text += &format!("{name}: {value}\r\n");
    }
    let length = match &body {
        Body::Bytes(bytes) => Some(bytes.len()),
        Body::Endless => None,
        Body::Dripping(bytes) => Some(*bytes),
        Body::Cut(bytes) => Some(bytes.len() + 1),
    };
    if let Some(length) = length {
        text += &format!("Content-Length: {length}\r\n");
    }
    out.write_all((text + "\r\n").as_bytes())?;
    match body {
        Body::Bytes(bytes) | Body::Cut(bytes) => out.write_all(&bytes)?,
        Body::Endless => loop {
            out.write_all(&[0; 4096])?;
        },
        Body::Dripping(bytes) => {
            for _ in 0..bytes {
                out.write_all(&[0])?;
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
    out.flush()?;
    out.shutdown(std::net::Shutdown::Write)?;
    std::io::copy(&mut out.take(1 << 16), &mut std::io::sink())?;
    Ok(())
}
