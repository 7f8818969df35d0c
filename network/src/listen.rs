//! The own listeners, and the way back to the same ports after a restart.

use std::collections::HashMap;

use libp2p::core::transport::ListenerId;
use libp2p::{Multiaddr, Swarm};

use crate::NetworkError;
use crate::behaviour::Behaviour;
use crate::config::Plan;
use crate::limits::RELISTEN_ATTEMPTS;
use crate::state::with_port;

/// Which listener serves which configured address.
#[derive(Debug, Default)]
pub(crate) struct Listeners {
    open: HashMap<ListenerId, usize>,
    /// Addresses without a listener, and how often one was tried.
    missing: Vec<(usize, u32)>,
}

impl Listeners {
    /// Listens on every configured address, or fails on the first that does not work.
    pub(crate) fn open(swarm: &mut Swarm<Behaviour>, plan: &Plan) -> Result<Self, NetworkError> {
        let mut listeners = Self::default();
        for (index, addr) in plan.listen.iter().enumerate() {
            let id = swarm.listen_on(addr.clone()).map_err(|error| NetworkError::Listen {
                addr: addr.to_string(),
                reason: causes(&error),
            })?;
            listeners.open.insert(id, index);
        }
        Ok(listeners)
    }

    /// Listens again after a restart. The old socket may live for a moment, so
    /// [`Listeners::retry`] goes on with what does not work at once.
    pub(crate) fn reopen(swarm: &mut Swarm<Behaviour>, plan: &Plan, listen: &[Multiaddr]) -> Self {
        let missing = (0..listen.len()).map(|index| (index, 0)).collect();
        let mut listeners = Self { open: HashMap::new(), missing };
        listeners.retry(swarm, plan, listen);
        listeners
    }

    /// Tries the missing addresses: with the port they had, and in the end with the configured one.
    pub(crate) fn retry(
        &mut self,
        swarm: &mut Swarm<Behaviour>,
        plan: &Plan,
        listen: &[Multiaddr],
    ) {
        for (index, attempts) in std::mem::take(&mut self.missing) {
            let addrs = if attempts < RELISTEN_ATTEMPTS { listen } else { &plan.listen };
            let Some(addr) = addrs.get(index) else {
                continue;
            };
            match swarm.listen_on(addr.clone()) {
                Ok(id) => {
                    self.open.insert(id, index);
                }
                Err(error) => {
                    tracing::debug!(%addr, %error, "cannot listen yet");
                    self.missing.push((index, attempts.saturating_add(1)));
                }
            }
        }
    }

    /// Notes the port the system chose.
    pub(crate) fn opened(&self, id: ListenerId, actual: &Multiaddr, listen: &mut [Multiaddr]) {
        if let Some(addr) = self.open.get(&id).and_then(|index| listen.get_mut(*index)) {
            *addr = with_port(addr, actual);
        }
    }

    /// A listener failed: try it again.
    pub(crate) fn closed(&mut self, id: ListenerId) {
        if let Some(index) = self.open.remove(&id) {
            self.missing.push((index, 0));
        }
    }
}

/// An error with all its causes in one line. Some of the transports' say nothing themselves, so
/// that only the cause has words, and some repeat it.
fn causes(error: &dyn std::error::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        let text = text.trim().trim_end_matches(':').to_owned();
        let is_new = !text.is_empty() && !parts.iter().any(|part| part.contains(&text));
        if is_new {
            parts.push(text);
        }
        next = error.source();
    }
    if parts.is_empty() { format!("{error:?}") } else { parts.join(": ") }
}

#[cfg(test)]
mod tests {
    use std::fmt;
    use std::io;

    use super::*;

    /// Says something or nothing, for a reason.
    #[derive(Debug)]
    struct Outer(&'static str, Option<io::Error>);

    impl fmt::Display for Outer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl std::error::Error for Outer {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            self.1.as_ref().map(|error| error as _)
        }
    }

    #[test]
    fn an_error_keeps_its_cause() {
        let in_use = || Some(io::Error::other("address in use"));
        let table = [
            (Outer("", in_use()), "address in use"),
            (Outer("no: ", in_use()), "no: address in use"),
            (Outer("no: address in use", in_use()), "no: address in use"),
            (Outer("no", None), "no"),
            (Outer("", None), "Outer(\"\", None)"),
        ];
        for (error, text) in table {
            assert_eq!(causes(&error), text);
        }
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_named_with_what_the_system_says() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = format!("/ip4/127.0.0.1/tcp/{}", taken.local_addr().unwrap().port());
        let config = crate::Config {
            network: "devnet".to_owned(),
            secret: crate::Secret::new([1; 32]),
            listen: vec![addr],
            bootstrap: Vec::new(),
            loopback: true,
            topics: Vec::new(),
            protocols: Vec::new(),
            streams: None,
            epoch_ms: 2_000,
        };
        let error = crate::start(config).map(drop).unwrap_err().to_string();
        assert!(error.contains("in use"), "{error}");
    }
}
