//! Who signs for a node whose keys are elsewhere.

use bitcoin::bip32::Xpriv;
use bitcoin::secp256k1::Secp256k1;
use bitcoin::{Network, Psbt, Txid};

use super::queue::NodeId;
use super::world::World;

impl World {
    /// Transactions of a node that wait for a signature made elsewhere.
    #[must_use]
    pub fn unsigned(&self, node: NodeId) -> Vec<Txid> {
        let life = self.nodes[node].life.as_ref();
        let waiting = life.map(|life| life.driver.wallet().waiting()).unwrap_or_default();
        waiting.into_iter().map(|one| one.txid).collect()
    }

    /// Signs all of them with the keys that the node does not have, and brings them back.
    pub fn sign_elsewhere(&mut self, node: NodeId) {
        let Ok(master) = Xpriv::new_master(Network::Regtest, &self.nodes[node].secret) else {
            return;
        };
        for txid in self.unsigned(node) {
            self.drive(node, |driver, here| {
                let exported = driver.export_psbt(here, txid).ok();
                let psbt = exported.and_then(|bytes| Psbt::deserialize(&bytes).ok());
                let Some(mut psbt) = psbt else { return };
                if psbt.sign(&master, &Secp256k1::new()).is_ok() {
                    // One that is refused waits on.
                    let _ = driver.take_psbt(here, &psbt.serialize());
                }
            });
        }
    }
}
