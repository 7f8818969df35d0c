//! The command line's side of the API: finds the daemon by its data directory.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
use serde::Serialize;
use serde::de::DeserializeOwned;
use ureq::http::Response;
use ureq::{Agent, Body};

use super::failure::Failure;
use super::output::typed;
use super::paging::Page;
use crate::api::auth::COOKIE_FILE;
use crate::api::types::{Endpoints, OpenStream, Part, Status};
use crate::api::{
    ApiError, BEFORE_HEADER, CALL_TIMEOUT, END_HEADER, ErrorBody, Place, UPGRADE, endpoints,
};
use crate::store;
use capex_core::epoch::signed::TEXT_MAX_BYTES;
use capex_core::reason;

/// Connecting on loopback takes no time, or nobody listens.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// The largest answer: a full epoch with its signed orders.
const ANSWER_MAX_BYTES: u64 = TEXT_MAX_BYTES as u64;

/// Status of an answer that becomes a stream.
const SWITCHING: u16 = 101;
/// Longest head and longest error of such an answer.
const HEAD_MAX_BYTES: usize = 16 << 10;
const ERROR_MAX_BYTES: usize = 64 << 10;

/// A daemon that can be asked.
#[derive(Debug)]
pub struct Client {
    agent: Agent,
    base: String,
    bearer: String,
    datadir: PathBuf,
    pid: u32,
}

impl Client {
    /// The daemon that runs on a data directory.
    ///
    /// # Errors
    /// Exit 3 if none runs, exit 4 if its cookie cannot be read.
    pub fn open(datadir: &Path) -> Result<Self, Failure> {
        let found = endpoints::read(datadir).map_err(|_| absent(datadir))?;
        let cookie = std::fs::read_to_string(datadir.join(COOKIE_FILE)).map_err(|error| {
            if error.kind() == ErrorKind::NotFound {
                return absent(datadir);
            }
            let message = format!("the cookie of {}: {error}", datadir.display());
            Failure::new(reason!("cli.cookie"), message)
                .with_hint("run as the user who runs the daemon")
        })?;
        let bound = loopback(&found).ok_or_else(|| unreachable(datadir))?;
        let agent = Agent::config_builder()
            .proxy(None)
            .max_redirects(0)
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_global(Some(CALL_TIMEOUT + CONNECT_TIMEOUT))
            .build()
            .new_agent();
        let bearer = format!("Bearer {}", cookie.trim());
        Ok(Self {
            agent,
            base: format!("http://{bound}"),
            bearer,
            datadir: datadir.to_owned(),
            pid: found.pid,
        })
    }

    /// `GET`, answer as JSON.
    ///
    /// # Errors
    /// What the daemon refused, or exit 3.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.read(self.send_get(path)?)
    }

    /// `GET` of a page of a list, and the place where the list goes on.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn list<T: DeserializeOwned>(
        &self,
        path: &str,
        page: &Page,
    ) -> Result<(Vec<T>, Option<Place>), Failure> {
        let response = self.accepted(self.send_get(&format!("{path}?{}", page.query()))?)?;
        let before = response.headers().get(BEFORE_HEADER);
        let before = before.map(|place| {
            let place = place.to_str().ok().and_then(|text| text.parse().ok());
            place.ok_or_else(|| malformed("a place that is none"))
        });
        let before = before.transpose()?;
        Ok((self.read(response)?, before))
    }

    /// `POST` with a JSON body, answer as JSON.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn post<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, Failure> {
        let request = self.agent.post(self.url(path)).header("authorization", &self.bearer);
        self.read(request.send_json(body).map_err(|error| self.lost(&error))?)
    }

    /// `POST` without a body.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn post_empty<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        let request = self.agent.post(self.url(path)).header("authorization", &self.bearer);
        self.read(request.send_empty().map_err(|error| self.lost(&error))?)
    }

    /// `DELETE`.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        let request = self.agent.delete(self.url(path)).header("authorization", &self.bearer);
        self.read(request.call().map_err(|error| self.lost(&error))?)
    }

    /// `GET`, answer as text.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn text(&self, path: &str) -> Result<String, Failure> {
        let bytes = body(&mut self.accepted(self.send_get(path)?)?)?;
        String::from_utf8(bytes).map_err(|_| malformed("not UTF-8"))
    }

    /// `GET` of a part of an output or a result.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn part(&self, path: &str) -> Result<Part, Failure> {
        let mut response = self.accepted(self.send_get(path)?)?;
        let end = response.headers().get(END_HEADER).is_some_and(|value| value == "true");
        Ok(Part { bytes: body(&mut response)?, end })
    }

    /// A whole result file, as far as there is one.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn result(&self, lease: &str, name: &str) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        loop {
            let name = percent(name);
            let part =
                self.part(&format!("/leases/{lease}/results/{name}?from={}", bytes.len()))?;
            let stuck = part.bytes.is_empty();
            bytes.extend(part.bytes);
            if part.end || stuck {
                return Ok(bytes);
            }
        }
    }

    /// Everything that a workload printed so far; `stream` is `stdout` or `stderr`.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn logs(&self, lease: &str, stream: &str) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        loop {
            let from = bytes.len();
            let part = self.part(&format!("/leases/{lease}/logs?stream={stream}&from={from}"))?;
            let stuck = part.bytes.is_empty();
            bytes.extend(part.bytes);
            if part.end || stuck {
                return Ok(bytes);
            }
        }
    }

    /// `GET /status`.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn status(&self) -> Result<Status, Failure> {
        self.get("/status")
    }

    /// Opens a stream into a lease: what is read and written from then on is the lease's.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn stream(&self, lease: &str, open: &OpenStream) -> Result<TcpStream, Failure> {
        let body = serde_json::to_vec(open).map_err(|error| malformed(&error.to_string()))?;
        let lost = |error: std::io::Error| {
            if self.is_gone() {
                return unreachable(&self.datadir);
            }
            let message = format!("the daemon at {} does not answer: {error}", self.base);
            Failure::new(reason!("daemon.timeout"), message)
        };
        let host = self.base.trim_start_matches("http://");
        let address = host.parse().map_err(|_| unreachable(&self.datadir))?;
        let mut stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT).map_err(lost)?;
        stream.set_read_timeout(Some(CALL_TIMEOUT)).map_err(lost)?;
        let head = format!(
            "POST /api/v1/leases/{lease}/streams HTTP/1.1\r\nHost: {host}\r\n\
             Authorization: {}\r\nConnection: upgrade\r\nUpgrade: {UPGRADE}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            self.bearer,
            body.len(),
        );
        stream.write_all(&[head.as_bytes(), &body].concat()).map_err(lost)?;
        let head = read_head(&mut stream).map_err(lost)?;
        let status = head.split(' ').nth(1).and_then(|text| text.parse().ok()).unwrap_or(0);
        stream.set_read_timeout(None).map_err(lost)?;
        if status == SWITCHING {
            return Ok(stream);
        }
        if status == 401 && self.is_gone() {
            return Err(unreachable(&self.datadir));
        }
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
        });
        let mut bytes = vec![0; length.unwrap_or(0).min(ERROR_MAX_BYTES)];
        stream.read_exact(&mut bytes).map_err(lost)?;
        Err(refused(&bytes, status))
    }

    /// Data directory of the daemon.
    #[must_use]
    pub fn datadir(&self) -> &Path {
        &self.datadir
    }

    fn send_get(&self, path: &str) -> Result<Response<Body>, Failure> {
        let request = self.agent.get(self.url(path)).header("authorization", &self.bearer);
        request.call().map_err(|error| self.lost(&error))
    }

    fn url(&self, path: &str) -> String {
        format!("{}/api/v1{path}", self.base)
    }

    fn read<T: DeserializeOwned>(&self, response: Response<Body>) -> Result<T, Failure> {
        let bytes = body(&mut self.accepted(response)?)?;
        serde_json::from_slice(&bytes).map_err(|error| malformed(&error.to_string()))
    }

    fn accepted(&self, mut response: Response<Body>) -> Result<Response<Body>, Failure> {
        let status = response.status().as_u16();
        if (200..300).contains(&status) {
            return Ok(response);
        }
        if status == 401 && self.is_gone() {
            // A killed daemon left its files, and its port belongs to somebody else now.
            return Err(unreachable(&self.datadir));
        }
        Err(refused(&body(&mut response)?, status))
    }

    /// Whether the process that wrote the endpoints has ended. Asked only when the answer
    /// is not that daemon's: across a container's border its number means nothing here.
    fn is_gone(&self) -> bool {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        pid.is_none_or(|pid| test_kill_process(pid) == Err(Errno::SRCH))
    }

    fn lost(&self, error: &ureq::Error) -> Failure {
        if matches!(error, ureq::Error::Timeout(ureq::Timeout::Global)) {
            let message = format!("the daemon at {} did not answer in time", self.base);
            return Failure::new(reason!("daemon.timeout"), message);
        }
        if self.is_gone() {
            return unreachable(&self.datadir);
        }
        let message = format!("no daemon answers at {}: {error}", self.base);
        Failure::new(reason!("daemon.unreachable"), message).with_hint("start it with `capex up`")
    }
}

/// What an answer says that is no success.
fn refused(body: &[u8], status: u16) -> Failure {
    let Ok(ErrorBody { error }) = serde_json::from_slice(body) else {
        return malformed(&format!("status {status}"));
    };
    let (code, message, hint) = (error.code, error.message, error.hint);
    ApiError { code, message, hint, status }.into()
}

/// The head of an answer, byte by byte: what follows it is the stream's.
fn read_head(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.extend(byte);
        if head.len() > HEAD_MAX_BYTES {
            return Err(ErrorKind::InvalidData.into());
        }
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// A file by which a daemon is found is missing: it may run all the same.
fn absent(datadir: &Path) -> Failure {
    let Some(pid) = store::holder(&datadir.join(store::DIR)) else { return unreachable(datadir) };
    let dir = datadir.display();
    let message = format!(
        "process {pid} uses {dir}, but the files by which a daemon there is found are missing"
    );
    Failure::new(reason!("daemon.unlisted"), message)
}

fn unreachable(datadir: &Path) -> Failure {
    let dir = datadir.display();
    Failure::new(reason!("daemon.unreachable"), format!("no daemon runs on {dir}"))
        .with_hint(format!("start it with `capex up --datadir {}`", typed(datadir)))
}

/// The cookie is sent nowhere but to this machine.
fn loopback(found: &Endpoints) -> Option<SocketAddr> {
    let bound: SocketAddr = found.api.strip_prefix("http://")?.parse().ok()?;
    bound.ip().is_loopback().then_some(bound)
}

fn body(response: &mut Response<Body>) -> Result<Vec<u8>, Failure> {
    let reader = response.body_mut().with_config().limit(ANSWER_MAX_BYTES);
    reader.read_to_vec().map_err(|error| malformed(&error.to_string()))
}

fn malformed(what: &str) -> Failure {
    Failure::new(reason!("daemon.malformed"), format!("the daemon's answer: {what}"))
        .with_hint("are command and daemon of one version? see `capex status`")
}

/// Percent-encodes a segment of a path.
#[must_use]
pub fn percent(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            safe.push(char::from(byte));
        } else {
            safe += &format!("%{byte:02X}");
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cookie_goes_to_loopback_only() {
        let at = |api: &str| {
            loopback(&Endpoints {
                api: api.to_owned(),
                p2p: Vec::new(),
                pid: 1,
                network: String::new(),
                key: String::new(),
            })
        };
        assert!(at("http://127.0.0.1:80").is_some());
        assert!(at("http://[::1]:80").is_some());
        for bad in ["http://10.0.0.1:80", "https://127.0.0.1:80", "http://localhost:80", ""] {
            assert_eq!(at(bad), None, "{bad}");
        }
    }

    #[test]
    fn path_segments_are_encoded() {
        assert_eq!(percent("out file/é.csv"), "out%20file%2F%C3%A9.csv");
    }
}
