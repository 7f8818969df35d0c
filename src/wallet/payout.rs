//! Fresh addresses of a descriptor outside the wallet, for what sales earn.
//!
//! An index is journaled before its address is handed out, and leaves the journal when it was
//! used, so that no address is ever paid for two sales: what an earlier life handed out and nobody
//! promised is handed out again, which keeps the gap below the number at hand.

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::ScriptBuf;

use super::Wallet;
use super::error::WalletError;
use super::persist;
use super::watched::PayoutDescriptor;

/// How far the addresses of one descriptor are handed out.
#[derive(Debug, Clone, Default)]
pub(super) struct Payouts {
    /// The first that was never handed out.
    pub(super) next: u32,
    /// Handed out, and not used as far as is known.
    pub(super) offered: BTreeSet<u32>,
}

/// Of every descriptor that was ever configured, by name.
pub(super) type AllPayouts = BTreeMap<[u8; 8], Payouts>;

impl Wallet {
    /// `count` more scripts for sales, stored in one step. `at_hand` are those that were handed out
    /// and can still be used, `promised` those that open sales will be paid to.
    ///
    /// # Errors
    /// [`WalletError::Store`]: an address that is not stored is not handed out.
    pub fn payout_scripts(
        &mut self,
        payout: &PayoutDescriptor,
        count: usize,
        at_hand: &BTreeSet<ScriptBuf>,
        promised: &BTreeSet<ScriptBuf>,
    ) -> Result<Vec<ScriptBuf>, WalletError> {
        let name = payout.name();
        let mut known = self.payouts.get(&name).cloned().unwrap_or_default();
        let (mut records, mut scripts, mut again) = (Vec::new(), Vec::new(), Vec::new());
        for index in known.offered.clone() {
            let Some(script) = payout.script(index) else { continue };
            if at_hand.contains(&script) {
                continue;
            }
            if self.handed_out.contains(&script) || promised.contains(&script) {
                known.offered.remove(&index);
                records.push(persist::use_payout(name, index));
            } else {
                again.push(script);
            }
        }
        scripts.extend(again.into_iter().take(count));
        while scripts.len() < count {
            let Some(script) = payout.script(known.next) else { break };
            known.offered.insert(known.next);
            records.push(persist::offer_payout(name, known.next));
            known.next += 1;
            scripts.push(script);
        }
        records.push(persist::next_payout(name, known.next));
        self.commit(records)?;
        self.payouts.insert(name, known);
        self.handed_out.extend(scripts.iter().cloned());
        Ok(scripts)
    }
}
