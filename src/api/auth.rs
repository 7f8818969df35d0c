//! Who may call: whoever can read the cookie file, and no page of a browser.
//!
//! A web page can send requests to loopback, so a port is not a boundary: the cookie is
//! needed in a header that no foreign page can set, a Host outside the allow-list is a
//! DNS-rebinding attempt, and a foreign Origin is refused. There is no CORS.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::sync::Semaphore;

use super::error::ApiError;
use capex_core::ids::to_hex;
use capex_core::reason;

/// Name of the cookie file in the data directory.
pub const COOKIE_FILE: &str = "cookie";
/// Route that answers without a cookie, for supervisors.
pub const LIVEZ: &str = "/livez";
/// Requests in progress: a dashboard and a few scripts. More is a runaway loop.
pub const REQUESTS_MAX: usize = 64;

/// The secret of one daemon life, in its file. Removes that when dropped.
pub struct CookieFile {
    path: PathBuf,
    secret: String,
}

impl std::fmt::Debug for CookieFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CookieFile({})", self.path.display())
    }
}

impl CookieFile {
    /// Draws a new secret and writes it to `<datadir>/cookie`, mode 0600. The caller holds
    /// the lock of the data directory, so a file that is already there is a dead daemon's.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn create(datadir: &Path) -> io::Result<Self> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        let file = Self { path: datadir.join(COOKIE_FILE), secret: to_hex(&bytes) };
        file.write()?;
        Ok(file)
    }

    /// Writes the file again if it is gone or holds something else.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn restore(&self) -> io::Result<()> {
        match std::fs::read(&self.path) {
            Ok(found) if found == self.secret.as_bytes() => Ok(()),
            _ => self.write(),
        }
    }

    fn write(&self) -> io::Result<()> {
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        private_file(&self.path)?.write_all(self.secret.as_bytes())
    }
}

impl Drop for CookieFile {
    fn drop(&mut self) {
        // Stays behind only if the directory itself is gone or read-only.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Creates a file that only its owner can read; it must not exist.
fn private_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Checks every request before its body is read.
#[derive(Debug)]
pub struct Guard {
    cookie: Arc<CookieFile>,
    hosts: Vec<String>,
    slots: Semaphore,
}

impl Guard {
    /// For the bound address.
    #[must_use]
    pub fn new(cookie: Arc<CookieFile>, bound: SocketAddr) -> Self {
        let port = bound.port();
        let hosts = ["127.0.0.1", "localhost", "[::1]"].map(|host| format!("{host}:{port}"));
        Self { cookie, hosts: hosts.to_vec(), slots: Semaphore::new(REQUESTS_MAX) }
    }

    fn check(&self, path: &str, headers: &HeaderMap) -> Result<(), ApiError> {
        let allowed = |host: &str| self.hosts.iter().any(|known| known.eq_ignore_ascii_case(host));
        if !one(headers, header::HOST).is_some_and(allowed) {
            return Err(ApiError::new(reason!("api.host"), "this Host is not allowed")
                .with_hint(format!("use http://{}", self.hosts[0])));
        }
        if headers.contains_key(header::ORIGIN) {
            let origin = one(headers, header::ORIGIN).and_then(|text| text.strip_prefix("http://"));
            if !origin.is_some_and(allowed) {
                return Err(ApiError::new(
                    reason!("api.origin"),
                    "calls from other pages are refused",
                ));
            }
        }
        if path == LIVEZ || self.is_authorised(headers) {
            return Ok(());
        }
        Err(ApiError::new(
            reason!("api.unauthorised"),
            "the cookie is missing or not this daemon's",
        )
        .with_hint("send `Authorization: Bearer <content of DATADIR/cookie>`"))
    }

    fn is_authorised(&self, headers: &HeaderMap) -> bool {
        one(headers, header::AUTHORIZATION)
            .and_then(|text| text.strip_prefix("Bearer "))
            .is_some_and(|token| equal(token.as_bytes(), self.cookie.secret.as_bytes()))
    }
}

/// The value of a header that stands exactly once.
fn one(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

/// Compares without telling by its duration how many bytes are right. The length of the
/// secret is public.
fn equal(a: &[u8], b: &[u8]) -> bool {
    let differences = a.iter().zip(b).fold(0, |sum, (a, b)| sum | (a ^ b));
    a.len() == b.len() && std::hint::black_box(differences) == 0
}

/// The middleware in front of every route.
pub async fn guard(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if let Err(error) = guard.check(path, request.headers()) {
        return error.into_response();
    }
    // A node with too many requests is alive: a supervisor that was told otherwise would
    // restart it.
    let slot = if path == LIVEZ { Ok(None) } else { guard.slots.try_acquire().map(Some) };
    match slot {
        Ok(_slot) => next.run(request).await,
        Err(_) => ApiError::new(reason!("api.busy"), "too many requests at once").into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_cookie_is_private_new_each_time_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(COOKIE_FILE);
        std::fs::write(&path, "stale").unwrap();
        let first = CookieFile::create(dir.path()).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), first.secret);
        let secret = first.secret.clone();
        for spoil in
            [|path: &Path| std::fs::remove_file(path), |path: &Path| std::fs::write(path, "x")]
        {
            spoil(&path).unwrap();
            first.restore().unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), secret);
        }
        drop(first);
        assert!(!path.exists());
        assert_ne!(CookieFile::create(dir.path()).unwrap().secret, secret);
    }

    #[test]
    fn comparison_is_exact() {
        assert!(equal(b"abc", b"abc"));
        for other in [&b"abd"[..], b"ab", b"abcd", b""] {
            assert!(!equal(other, b"abc"));
        }
    }
}
