//! What this machine has for sale, by its configuration and its self-test.

use std::path::Path;
use std::time::Duration;

use super::NodeError;
use super::config::Config;
use crate::api::ApiHandle;
use crate::executor::inventory::{self, Demand, HostCapacity};
use crate::executor::{HostProof, Written, offered, probe_egress};
use capex_core::engine::Command;
use capex_core::engine::leases::{LeaseCommand, Offer};
use capex_core::engine::register::{RegisterCommand, Room};

/// How soon a self-test is heeded that was made while the node runs.
const LOOK: Duration = Duration::from_secs(1);

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

    /// Which self-test the node goes by.
    pub(super) fn tested(&self) -> Option<Written> {
        HostProof::of(&self.datadir).written()
    }

    /// What the engine is told of this host.
    pub(super) fn host_commands(&self) -> [Command; 2] {
        let unproved = self.host_proof().unproved(&self.params);
        let offer = LeaseCommand::Offer(self.lease_offer());
        [offer.into(), RegisterCommand::Withhold(unproved).into()]
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

/// Tells the node again what this host offers whenever its self-test was made anew, until the node
/// stops. `known` is the test by which it was told before.
pub(super) async fn heed_self_tests(config: Config, node: ApiHandle, mut known: Option<Written>) {
    loop {
        tokio::time::sleep(LOOK).await;
        let written = config.tested();
        if written == known {
            continue;
        }
        let here = config.clone();
        // A probe starts programs.
        let Ok(told) = tokio::task::spawn_blocking(move || here.host_commands()).await else {
            continue;
        };
        tracing::info!("this host was tested anew");
        let mut is_told = true;
        for command in told {
            // A node that is busy is told at the next look.
            is_told &= node.command(command).await.is_ok();
        }
        if is_told {
            known = written;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use capex_core::engine::io::Done;
    use capex_core::lease::score::Score;
    use capex_core::params::Isolation;
    use tokio::time::timeout;

    use super::*;
    use crate::api::Call;
    use crate::executor::Proved;
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

    #[tokio::test]
    async fn a_self_test_is_heeded_by_a_node_that_runs() {
        let dir = tempfile::tempdir().unwrap();
        let flags = Overrides {
            network: Some("signet".to_owned()),
            datadir: Some(dir.path().to_owned()),
            ..Overrides::default()
        };
        let config = Config::load(&flags, &|_: &str| None).unwrap();
        let (node, mut requests) = ApiHandle::channel();
        let known = config.tested();
        let heeding = tokio::spawn(heed_self_tests(config.clone(), node, known));
        let mut told = async || {
            let (mut scores, mut withheld) = (None, None);
            while scores.is_none() || withheld.is_none() {
                let request = timeout(Duration::from_secs(60), requests.recv()).await;
                let request = request.unwrap().unwrap();
                match request.call {
                    Call::Command(Command::Lease(LeaseCommand::Offer(offer))) => {
                        scores = Some(offer.scores.keys().copied().collect::<Vec<_>>());
                    }
                    Call::Command(Command::Register(RegisterCommand::Withhold(classes))) => {
                        withheld = Some(classes);
                    }
                    other => panic!("{other:?}"),
                }
                let _ = request.answer.send(Ok(Done::Ok.into()));
            }
            (scores.unwrap(), withheld.unwrap())
        };
        let classes = |isolation| -> BTreeSet<u16> {
            let all = config.params.classes.iter().map(|class| &class.floors);
            all.filter(|class| class.isolation == isolation).map(|class| class.id).collect()
        };
        let (components, boxes) = (classes(Isolation::Wasm), classes(Isolation::Container));
        let proof = HostProof::of(dir.path());
        let proved = Proved {
            backend: "wasm",
            isolation: "wasm",
            memory_peak_bytes: 1,
            deadline_overrun_ms: 0,
            score: Score { processor: 692, memory: 15_300 },
            containers: None,
            no_containers: None,
        };
        proof.keep(&proved).unwrap();
        assert_eq!(told().await, (vec![Isolation::Wasm], boxes.clone()));
        proof.forget().unwrap();
        assert_eq!(told().await, (vec![], components.union(&boxes).copied().collect()));
        heeding.abort();
    }
}
