//! What is said to a registry, and what is believed of its answers: nothing but a status and bytes.
//!
//! Source: OCI Distribution Specification 1.1, pull; for tokens the token authentication of Docker's
//! registry. Whoever asks has no name: what a registry gives only to those it knows is not given.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use ureq::http::header::{ACCEPT, AUTHORIZATION, LOCATION, WWW_AUTHENTICATE};
use ureq::http::{Response, Uri};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::unversioned::transport::DefaultConnector;
use ureq::{Agent, Body, Error};

use super::allowed::{NotPublic, Outward, Registries};
use super::error::PullError;

/// Hosts that one answer may lead through: a registry leads to its storage, and that perhaps to a
/// nearer one.
const REDIRECTS_MAX: usize = 5;
/// Bytes of what answers a request for a token, and of a token: public registries have 5 KiB.
const TOKEN_MAX_BYTES: u64 = 64 << 10;
/// Bytes of the head of an answer.
const HEAD_MAX_BYTES: usize = 32 << 10;

/// How long a registry may take.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// To be found and reached, and to begin an answer, each.
    pub answer: Duration,
    /// Between two parts of an answer.
    pub stall: Duration,
    /// For all of an answer, beside what its length takes at the lowest rate.
    pub rest: Duration,
    /// The lowest rate, bytes per second: a layer of a gigabyte has two hours. What is slower keeps
    /// one of few places.
    pub bytes_per_s: u64,
}

impl Default for Patience {
    fn default() -> Self {
        let (answer, stall) = (Duration::from_secs(20), Duration::from_secs(30));
        Self { answer, stall, rest: Duration::from_secs(60), bytes_per_s: 128 << 10 }
    }
}

impl Patience {
    fn for_bytes(&self, bytes: u64) -> Duration {
        self.rest + Duration::from_secs(bytes / self.bytes_per_s.max(1))
    }
}

/// One repository of a registry.
pub(super) struct Client<'a> {
    registries: &'a Registries,
    patience: Patience,
    agent: Agent,
    /// `https://registry/v2/repository`.
    base: String,
    repository: String,
    token: Option<String>,
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

impl<'a> Client<'a> {
    /// Nothing is said yet. `base` is how the URLs of the registry begin.
    pub(super) fn new(
        registries: &'a Registries,
        patience: Patience,
        (base, repository): (&str, &str),
    ) -> Self {
        let found = rustls_native_certs::load_native_certs();
        let roots = found.certs.iter().map(|root| Certificate::from_der(root).to_owned());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = TlsConfig::builder()
            .unversioned_rustls_crypto_provider(provider)
            .root_certs(RootCerts::Specific(Arc::new(roots.collect())))
            .build();
        let config = Agent::config_builder()
            .proxy(None)
            .max_redirects(0)
            .http_status_as_error(false)
            .max_response_header_size(HEAD_MAX_BYTES)
            .user_agent(concat!("capex/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(Some(patience.answer))
            .timeout_connect(Some(patience.answer))
            .timeout_recv_response(Some(patience.answer))
            .timeout_per_read(Some(patience.stall))
            .tls_config(tls)
            .build();
        let outward = Outward { registries: registries.clone() };
        Self {
            registries,
            patience,
            agent: Agent::with_parts(config, DefaultConnector::default(), outward),
            base: format!("{base}/v2/{repository}"),
            repository: repository.to_owned(),
            token: None,
        }
    }

    /// What lies at a path of the repository, of about so many bytes: the reader may have more, and
    /// may break.
    pub(super) fn get(
        &mut self,
        path: &str,
        accept: &str,
        bytes: u64,
    ) -> Result<impl Read + use<>, PullError> {
        let url = format!("{}/{path}", self.base);
        let mut response = self.follow(&url, accept, bytes)?;
        // A token may also have become too old on the way.
        if response.status().as_u16() == 401 {
            self.token = Some(self.ask_token(&response)?);
            response = self.follow(&url, accept, bytes)?;
        }
        match response.status().as_u16() {
            200 => Ok(response.into_body().into_reader()),
            status @ (401 | 403) => Err(PullError::Denied(status)),
            404 => Err(PullError::NotFound(path.to_owned())),
            status => Err(PullError::Unreachable(format!("the registry answers {status}"))),
        }
    }

    /// The answer at the end of all redirects. The token is for the registry alone.
    fn follow(&self, url: &str, accept: &str, bytes: u64) -> Result<Response<Body>, PullError> {
        let mut next = url.to_owned();
        for _ in 0..=REDIRECTS_MAX {
            let uri: Uri = next.parse().map_err(|_| PullError::Address(next.clone()))?;
            self.registries.check(&uri)?;
            let mut request = self.agent.get(&uri).header(ACCEPT, accept);
            if let Some(token) = self.token.as_ref().filter(|_| next.starts_with(&self.base)) {
                request = request.header(AUTHORIZATION, format!("Bearer {token}"));
            }
            let whole = Some(self.patience.for_bytes(bytes));
            let response = request.config().timeout_recv_body(whole).build().call();
            let response = response.map_err(failed)?;
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            let place = response.headers().get(LOCATION).and_then(|place| place.to_str().ok());
            next = seen_from(&uri, place.unwrap_or_default())?;
        }
        Err(PullError::Address("one host after another".to_owned()))
    }

    /// A token for whoever has no name, from where the registry says.
    fn ask_token(&self, refused: &Response<Body>) -> Result<String, PullError> {
        let challenge = refused.headers().get(WWW_AUTHENTICATE);
        let challenge = challenge.and_then(|text| text.to_str().ok()).unwrap_or_default();
        let Some(words) = words_of(challenge) else { return Err(PullError::Denied(401)) };
        let word = |name: &str| words.iter().find(|(known, _)| known == name).map(|(_, text)| text);
        let realm = word("realm").ok_or(PullError::Denied(401))?;
        let scope = format!("repository:{}:pull", self.repository);
        let sign = if realm.contains('?') { '&' } else { '?' };
        let mut url = format!("{realm}{sign}scope={}", encoded(&scope));
        if let Some(service) = word("service") {
            url = format!("{url}&service={}", encoded(service));
        }
        let response = self.follow(&url, "application/json", TOKEN_MAX_BYTES)?;
        if response.status().as_u16() != 200 {
            return Err(PullError::Denied(response.status().as_u16()));
        }
        let mut text = Vec::new();
        let mut body = response.into_body().into_reader().take(TOKEN_MAX_BYTES);
        body.read_to_end(&mut text).map_err(broken)?;
        let Token { token, access_token } =
            serde_json::from_slice(&text).map_err(|_| PullError::Denied(401))?;
        let token =
            token.or(access_token).filter(|token| token.chars().all(|c| c.is_ascii_graphic()));
        token.ok_or(PullError::Denied(401))
    }
}

/// Why there is no answer.
fn failed(error: Error) -> PullError {
    match error {
        Error::Timeout(_) => PullError::Timeout,
        Error::Io(error) => broken(error),
        Error::Other(inner) if inner.is::<NotPublic>() => PullError::Address(inner.to_string()),
        error => PullError::Unreachable(error.to_string()),
    }
}

/// Why an answer ends too early.
pub(super) fn broken(error: io::Error) -> PullError {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match (error.kind(), inner) {
        (io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock, _) | (_, Some(Error::Timeout(_))) => {
            PullError::Timeout
        }
        _ => PullError::Unreachable(error.to_string()),
    }
}

/// Where a redirect leads: to a whole URL, or to another path of the same host.
fn seen_from(from: &Uri, place: &str) -> Result<String, PullError> {
    if place.starts_with("https://") || place.starts_with("http://") {
        return Ok(place.to_owned());
    }
    match (from.scheme_str(), from.authority()) {
        (Some(scheme), Some(host)) if place.starts_with('/') && !place.starts_with("//") => {
            Ok(format!("{scheme}://{host}{place}"))
        }
        _ => Err(PullError::Address(place.to_owned())),
    }
}

/// The words of a challenge `Bearer name="text",name="text"`; `None` for another kind.
fn words_of(challenge: &str) -> Option<Vec<(String, String)>> {
    let (kind, mut rest) = challenge.split_once(' ')?;
    if !kind.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let mut words = Vec::new();
    while let Some((name, after)) = rest.split_once("=\"") {
        let (text, after) = after.split_once('"')?;
        let name = name.trim_matches([',', ' ']).to_ascii_lowercase();
        words.push((name, text.to_owned()));
        rest = after;
    }
    Some(words)
}

/// As a part of a query.
fn encoded(text: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~:/".contains(byte);
    let one = |byte: u8| match plain(&byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    text.bytes().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_is_read_and_what_it_says_is_no_more_than_a_text() {
        let challenge = r#"Bearer realm="https://auth.example/token",service="a b&c",scope="x,y""#;
        let words = words_of(challenge).unwrap();
        let expected =
            [("realm", "https://auth.example/token"), ("service", "a b&c"), ("scope", "x,y")];
        assert_eq!(words, expected.map(|(name, text)| (name.to_owned(), text.to_owned())));
        assert_eq!(encoded("a b&c=1"), "a%20b%26c%3D1");
        for other in ["", "Basic realm=\"a\"", "Bearer", "Bearer realm=\"a"] {
            assert!(words_of(other).is_none_or(|words| words.is_empty()), "{other}");
        }
    }

    #[test]
    fn a_redirect_leads_to_a_whole_url_or_to_a_path() {
        let from: Uri = "https://a.example:5/v2/x".parse().unwrap();
        let table = [
            ("https://b.example/y", Some("https://b.example/y")),
            ("/y?z", Some("https://a.example:5/y?z")),
            ("//b.example/y", None),
            ("y", None),
            ("file:///etc/passwd", None),
            ("", None),
        ];
        for (place, expected) in table {
            assert_eq!(seen_from(&from, place).ok().as_deref(), expected, "{place}");
        }
    }
}
