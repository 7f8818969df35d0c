//! Performs effects, in the order in which the engine gave them.

use capex_network::{Command as NetCommand, PeerKey, Ticket, Verdict as NetVerdict};

use super::chain_task::ChainCommand;
use super::{Node, bridge};
use crate::wallet::WalletError;
use capex_core::engine::kernel::RecordTooLarge;
use capex_core::engine::{Effect, Event, Input, Verdict};
use capex_core::ids::TermsHash;

impl Node {
    pub(super) fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Halt { fault } => self.fault = Some(fault.into()),
            Effect::Persist { seq, records } => self.persist(seq, &records),
            Effect::Verdict { ticket, verdict, .. } => {
                let verdict = match verdict {
                    Verdict::Accept => NetVerdict::Accept,
                    Verdict::Ignore => NetVerdict::Ignore,
                    Verdict::Reject => NetVerdict::Reject,
                };
                self.send_network(NetCommand::Verdict { ticket: Ticket(ticket), verdict });
            }
            Effect::Publish { topic, bytes } => {
                let topic = topic.name().to_owned();
                self.send_network(NetCommand::Publish { topic, bytes });
            }
            Effect::Send { id, key, protocol, bytes } => {
                let protocol = protocol.name().to_owned();
                let peer = PeerKey(key.0);
                self.send_network(NetCommand::Request { id, peer, protocol, bytes });
            }
            Effect::Reply { id, bytes } => self.send_network(NetCommand::Reply { id, bytes }),
            Effect::Penalise { key } => {
                self.send_network(NetCommand::Penalise { peer: PeerKey(key.0) });
            }
            Effect::Addrs { key, addrs } => {
                let is_connected = self.engine.peers().contains(&key);
                self.peers.hear(key, addrs.clone(), is_connected);
                self.send_network(NetCommand::AddAddresses { peer: PeerKey(key.0), addrs });
            }
            Effect::Watch { spks, outpoints, from_height } => {
                self.watch(spks, outpoints, from_height);
            }
            Effect::Fund { terms_hash, outputs, feerate_sat_kvb } => {
                self.fund(terms_hash, &outputs, feerate_sat_kvb);
            }
            Effect::Broadcast { tx } => self.send_chain(ChainCommand::Broadcast(Box::new(tx))),
            Effect::ReleaseCoins { terms_hash } => {
                match self.wallet.release(terms_hash.0) {
                    // None were taken: the engine does not always know.
                    Ok(()) | Err(WalletError::NoFund) => {}
                    Err(error) => {
                        self.fault = Some(error.into());
                        return;
                    }
                }
                self.queue_wallet();
            }
            Effect::Mine { job, prefix, bits } => self.mine(job, prefix, bits),
            Effect::Start { .. } | Effect::Stop { .. } | Effect::Release { .. } => {
                self.perform_lease(effect);
            }
            Effect::Notify(event) => log(&event),
            Effect::CommandDone { id, result } => {
                if let Some(waiting) = self.commands.remove(&id) {
                    // Whoever asked may have hung up.
                    let _ = waiting.send(result);
                }
            }
        }
    }

    fn persist(&mut self, seq: u64, records: &[capex_core::engine::Record]) {
        let written = self.lock_store().persist(records);
        match written {
            Ok(_) => self.inputs.push_back(Input::Persisted { seq }),
            Err(error) => self.fault = Some(error.into()),
        }
    }

    fn watch(
        &mut self,
        spks: Vec<bitcoin::ScriptBuf>,
        outpoints: Vec<bitcoin::OutPoint>,
        from_height: u32,
    ) {
        if let Err(error) = bridge::watch(&mut self.watcher, spks, outpoints) {
            tracing::error!(%error, "too much is watched");
        }
        let lowest = self.rescan_from.map_or(from_height, |height| height.min(from_height));
        self.rescan_from = Some(lowest);
    }

    fn fund(
        &mut self,
        terms_hash: TermsHash,
        outputs: &[(bitcoin::ScriptBuf, u64)],
        feerate_sat_kvb: u64,
    ) {
        let height = self.engine.chain().height;
        let funded = bridge::fund(&mut self.wallet, terms_hash, outputs, feerate_sat_kvb, height);
        let result = match funded {
            Err(error @ WalletError::Store(_)) => {
                self.fault = Some(error.into());
                return;
            }
            other => other.map_err(|error| {
                tracing::warn!(%error, "funding refused");
                error.code().to_owned()
            }),
        };
        self.inputs.push_back(Input::Funded { terms_hash, result });
        self.queue_wallet();
    }

    /// Queues what the wallet can do now, with as many fresh scripts as the engine lacks.
    pub(super) fn queue_wallet(&mut self) {
        let queued = self.inputs.iter().map(|input| match input {
            Input::Wallet(facts) => u16::try_from(facts.fresh_spks.len()).unwrap_or(u16::MAX),
            _ => 0,
        });
        let at_hand = queued.fold(self.engine.fresh_scripts(), u16::saturating_add);
        match bridge::wallet_facts(&mut self.wallet, at_hand) {
            Ok(facts) => self.inputs.push_back(Input::Wallet(facts)),
            Err(error) => self.fault = Some(error.into()),
        }
    }

    fn mine(&self, job: u64, prefix: Vec<u8>, bits: u8) {
        let mined = self.mined.clone();
        tokio::task::spawn_blocking(move || {
            if let Some(nonce) = bridge::search_nonce(&prefix, bits) {
                // The loop may be gone.
                let _ = mined.blocking_send((job, nonce));
            }
        });
    }
}

fn log(event: &Event) {
    match event {
        Event::EpochComputed { epoch, rows } => tracing::info!(epoch, rows, "epoch computed"),
        Event::RecordRefused { table, bytes } => {
            tracing::error!(code = RecordTooLarge::CODE, ?table, bytes, "record not written");
        }
        Event::Trade { trade, state } => tracing::info!(%trade, %state, "trade"),
        Event::Certificate { cert, what } => tracing::info!(%cert, what, "certificate"),
        Event::Lease { lease, phase } => tracing::info!(%lease, %phase, "lease"),
        // Strangers must not be able to fill a log: `refused` in the metrics counts them.
        Event::Refused { peer, code } => tracing::debug!(%peer, %code, "message refused"),
    }
}
