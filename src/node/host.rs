//! What this machine has for sale, by its configuration and its self-test.

use std::path::Path;

use super::NodeError;
use super::config::Config;
use crate::executor::inventory::{self, Demand, HostCapacity};
use crate::executor::{HostProof, offered, probe_egress};
use capex_core::engine::leases::Offer;
use capex_core::engine::register::Room;

impl Config {
    /// What has to be proved of this host before it sells: nothing in a demonstration, where one
    /// machine plays a whole market.
    #[must_use]
    pub fn host_proof(&self) -> HostProof {
        match self.accept_untested || self.params.loopback {
            true => HostProof::waived(),
            false => HostProof::of(&self.datadir),
        }
    }

    /// What this machine does for leases: what it can, what was proved, what its operator lets it.
    pub(super) fn lease_offer(&self) -> Offer {
        let egress = match self.no_egress() {
            None => true,
            Some(why) => {
                tracing::info!(why, "this host lets no lease open connections to the outside");
                false
            }
        };
        let scores = HostProof::of(&self.datadir).scores();
        Offer { runtimes: offered().into_iter().collect(), egress, scores }
    }

    /// Why leases get no way out; `None` if they do.
    #[must_use]
    pub fn no_egress(&self) -> Option<String> {
        if self.egress.is_none() {
            return Some("[egress] allow = true is not in the configuration".to_owned());
        }
        let proof = self.host_proof();
        let untested = || "not tested: capex host test".to_owned();
        probe_egress().err().or_else(|| (!proof.has_egress()).then(untested))
    }

    /// What all classes share of this machine; `None` where the configuration numbers their units.
    #[must_use]
    pub fn shared_room(&self) -> Option<Room> {
        let disk_free_bytes = inventory::free_disk_bytes(&self.datadir).unwrap_or(0);
        self.capacity.is_empty().then(|| inventory::read(Path::new("/")).room(disk_free_bytes))
    }

    /// What of the numbered units a host does not have, in words. On a network of one machine
    /// processors and memory may be shared by many nodes; no machine is shared by GPUs that it does
    /// not have.
    ///
    /// # Errors
    /// [`NodeError::Capacity`], unless the configuration allows it.
    pub(super) fn overcommitted(&self, host: HostCapacity) -> Result<Option<String>, NodeError> {
        let demand = Demand::of(&self.capacity, &self.params);
        let Some(words) = demand.beyond(host) else { return Ok(None) };
        let is_demonstration = self.params.loopback && demand.gpus == 0;
        match self.allow_overcommit || is_demonstration {
            true => {
                tracing::warn!(code = "capacity.exceeds_host", "{words}");
                Ok(Some(words))
            }
            false => Err(NodeError::Capacity(words)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::config::Overrides;

    #[test]
    fn a_node_sells_what_its_machine_has() {
        let host = HostCapacity {
            cpu_milli: 2_000,
            memory_bytes: 4 << 30,
            cpu_is_limited: false,
            memory_is_limited: false,
        };
        let table = [
            ("signet", "cpu.standard=2", false, true),
            ("signet", "cpu.standard=200", false, false),
            ("signet", "cpu.standard=200", true, true),
            ("devnet", "cpu.standard=200", false, true),
            ("devnet", "gpu.h100=1", false, false),
            ("devnet", "gpu.h100=1", true, true),
        ];
        for (network, capacity, allow_overcommit, starts) in table {
            let dir = tempfile::tempdir().unwrap();
            let flags = Overrides {
                network: Some(network.to_owned()),
                datadir: Some(dir.path().to_owned()),
                allow_overcommit,
                ..Overrides::default()
            };
            let env = |name: &str| (name == "CAPEX_CAPACITY").then(|| capacity.to_owned());
            let config = Config::load(&flags, &env).unwrap();
            let checked = config.overcommitted(host);
            assert_eq!(checked.is_ok(), starts, "{network} {capacity} {allow_overcommit}");
        }
    }
}
