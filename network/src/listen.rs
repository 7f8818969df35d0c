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
                reason: error.to_string(),
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
