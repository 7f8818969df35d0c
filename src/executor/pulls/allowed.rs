//! From where this host fetches images, and to which addresses it goes on the way.

use std::net::{IpAddr, Ipv6Addr};

use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::http::uri::Scheme;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

use super::error::PullError;
use crate::executor::egress;
use capex_core::ids::Digest;
use capex_core::lease::pull::ImageRef;

/// By this name everybody knows it, and by the other one it answers.
const DOCKER_HUB: (&str, &str) = ("docker.io", "registry-1.docker.io");

/// The registries that an operator has named; none by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Registries(Vec<Registry>);

/// A registry that an operator has named: its host, and whether it is spoken to in the clear.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Registry {
    host: String,
    is_plain: bool,
}

impl Registries {
    /// Reads one as `docker.io`, `registry.example:5000`, or `http://10.0.0.2:5000` for one in the
    /// operator's own network, and adds it.
    ///
    /// # Errors
    /// It is neither, in words.
    pub fn add(&mut self, text: &str) -> Result<(), String> {
        let (host, is_plain) = match text.split_once("://") {
            None => (text, false),
            Some(("https", host)) => (host, false),
            Some(("http", host)) => (host, true),
            Some(_) => ("", false),
        };
        let named = ImageRef { name: format!("{host}/a"), digest: Digest([0; 32]) };
        if named.parts().is_none_or(|(registry, _)| registry != host) {
            let forms = "docker.io, registry.example:5000 or http://10.0.0.2:5000";
            return Err(format!("`{text}` is not a registry: write it as {forms}"));
        }
        self.0.push(Registry { host: host.to_owned(), is_plain });
        Ok(())
    }

    /// As they are named in the configuration.
    pub fn names(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|registry| match registry.is_plain {
            true => format!("http://{}", registry.host),
            false => registry.host.clone(),
        })
    }

    /// Where a registry answers, as the beginning of a URL; `None` if no operator has named it.
    #[must_use]
    pub fn find(&self, host: &str) -> Option<String> {
        let registry = self.0.iter().find(|registry| registry.host == host)?;
        let scheme = if registry.is_plain { "http" } else { "https" };
        Some(format!("{scheme}://{}", registry.answers_at()))
    }

    /// Checks where a registry leads to. In the clear this host speaks to none but those that its
    /// operator has named so.
    pub(super) fn check(&self, uri: &Uri) -> Result<(), PullError> {
        let refused = || PullError::Address(uri.to_string());
        let authority = uri.authority().map(|authority| authority.as_str());
        let authority = authority.filter(|text| !text.contains('@')).ok_or_else(refused)?;
        let is_secure = uri.scheme() == Some(&Scheme::HTTPS);
        let is_plain = uri.scheme() == Some(&Scheme::HTTP);
        let is_named = self.0.iter().any(|one| one.is_plain && one.host == authority);
        if is_secure || (is_plain && is_named) { Ok(()) } else { Err(refused()) }
    }

    /// Whether an operator has named the host of a URL, as it is spoken to.
    fn names_host(&self, uri: &Uri) -> bool {
        let Some(authority) = uri.authority() else { return false };
        let is_plain = uri.scheme() == Some(&Scheme::HTTP);
        let is_it =
            |one: &Registry| one.is_plain == is_plain && one.answers_at() == authority.as_str();
        self.0.iter().any(is_it)
    }
}

impl Registry {
    fn answers_at(&self) -> &str {
        if self.host == DOCKER_HUB.0 { DOCKER_HUB.1 } else { &self.host }
    }
}

/// Looks up names, and finds no address of this host's own networks unless its operator has named
/// the host. Connections are made to what it has found and to nothing else, so that a name that
/// answers differently the second time gains nothing.
#[derive(Debug)]
pub(super) struct Outward {
    pub(super) registries: Registries,
}

/// Nothing that a name stands for may be reached.
#[derive(Debug, thiserror::Error)]
#[error("{0} is no public address")]
pub(super) struct NotPublic(String);

impl Resolver for Outward {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let all = DefaultResolver::default().resolve(uri, config, timeout)?;
        if self.registries.names_host(uri) {
            return Ok(all);
        }
        let mut public = self.empty();
        for address in all.iter().filter(|address| is_public(address.ip())) {
            public.push(*address);
        }
        if public.is_empty() {
            return Err(Error::Other(Box::new(NotPublic(uri.to_string()))));
        }
        Ok(public)
    }
}

/// Whether an address is one of the world, and of nobody's own network.
///
/// Source: the IANA registries of special-purpose addresses. Of IPv6 what is given to networks,
/// without what stands for an IPv4 address or is set apart.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !egress::is_refused(address),
        IpAddr::V6(address) => is_global(address),
    }
}

fn is_global(address: Ipv6Addr) -> bool {
    let [first, second, ..] = address.segments();
    let is_given = first & 0xe000 == 0x2000;
    let is_protocol = first == 0x2001 && second < 0x0200;
    let is_example = (first == 0x2001 && second == 0x0db8) || (first == 0x3fff && second < 0x1000);
    let is_6to4 = first == 0x2002;
    is_given && !is_protocol && !is_example && !is_6to4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_own_networks_are_not_public() {
        let table = [
            ("1.1.1.1", true),
            ("127.0.0.1", false),
            ("10.1.2.3", false),
            ("169.254.169.254", false),
            ("192.168.1.1", false),
            ("0.0.0.0", false),
            ("2606:4700::1111", true),
            ("2001:4860:4860::8888", true),
            ("::1", false),
            ("::", false),
            ("::ffff:127.0.0.1", false),
            ("::ffff:1.1.1.1", false),
            ("64:ff9b::7f00:1", false),
            ("fe80::1", false),
            ("fd00::1", false),
            ("ff02::1", false),
            ("2001::1", false),
            ("2001:1ff::1", false),
            ("2001:200::1", true),
            ("2001:db8::1", false),
            ("2002:7f00:1::1", false),
            ("2003::1", true),
            ("3fff:fff::1", false),
            ("3fff:1000::1", true),
            ("4000::1", false),
        ];
        for (address, public) in table {
            assert_eq!(is_public(address.parse().unwrap()), public, "{address}");
        }
    }

    #[test]
    fn registries_are_named_by_host_and_are_spoken_to_in_the_clear_only_if_named_so() {
        let mut registries = Registries::default();
        for text in ["docker.io", "https://registry.example:5000", "http://10.0.0.2:5000"] {
            registries.add(text).unwrap();
        }
        for text in ["", "docker", "ftp://docker.io", "docker.io/library", "http://", "a b.c"] {
            assert!(registries.add(text).is_err(), "{text}");
        }
        let names: Vec<String> = registries.names().collect();
        assert_eq!(names, ["docker.io", "registry.example:5000", "http://10.0.0.2:5000"]);
        let table = [
            ("docker.io", Some("https://registry-1.docker.io")),
            ("registry.example:5000", Some("https://registry.example:5000")),
            ("10.0.0.2:5000", Some("http://10.0.0.2:5000")),
            ("registry.example", None),
            ("quay.io", None),
        ];
        for (host, base) in table {
            assert_eq!(registries.find(host).as_deref(), base, "{host}");
        }
        let table = [
            ("https://anywhere.example/x", true, false),
            ("https://registry-1.docker.io/v2/", true, true),
            ("https://registry.example:5000/v2/", true, true),
            ("http://10.0.0.2:5000/v2/", true, true),
            ("https://10.0.0.2:5000/v2/", true, false),
            ("http://10.0.0.2:5001/v2/", false, false),
            ("http://registry.example:5000/v2/", false, false),
            ("http://anywhere.example/x", false, false),
            ("https://user@anywhere.example/x", false, false),
            ("ftp://anywhere.example/x", false, false),
            ("/x", false, false),
        ];
        for (uri, may_be_led_to, is_named) in table {
            let uri: Uri = uri.parse().unwrap();
            assert_eq!(registries.check(&uri).is_ok(), may_be_led_to, "{uri}");
            assert_eq!(registries.names_host(&uri), is_named, "{uri}");
        }
    }
}
