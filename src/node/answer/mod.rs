//! Answers API calls. Queries read the engine in the loop; nothing here changes it but
//! through a command.

mod certificates;
mod epochs;
mod leases;
mod orders;
mod peers;
mod pools;
mod previews;
mod redemptions;
mod status;
mod studies;
mod trades;
mod wallet;

use std::sync::Arc;

use tokio::sync::oneshot;

pub(super) use redemptions::{Redemption, Redemptions};

use super::{Node, history};
use crate::api::{Answer, ApiError, BackupRecords, Call, Query, Request, ShellCommand};
use crate::clock::now_ms;
use capex_core::engine::{Command, Done};
use capex_core::reason;

/// An answer that takes a look into the store.
type Read = Box<dyn FnOnce() -> Result<Answer, ApiError> + Send>;

impl Node {
    pub(super) fn on_api(&mut self, request: Request) {
        let Request { call, answer } = request;
        match call {
            Call::Query(Query::Logs { lease, stream, from }) => {
                Self::answer_file(self.lease_log(&lease, stream, from), answer);
            }
            Call::Query(Query::Result { lease, name, from }) => {
                Self::answer_file(self.lease_result(&lease, &name, from), answer);
            }
            Call::Query(Query::BackupRecords) => Self::answer_read(self.backup_records(), answer),
            Call::Query(Query::WalletHistory) => Self::answer_read(self.wallet_history(), answer),
            Call::Query(Query::Trades(page)) => Self::answer_read(self.trades(page), answer),
            Call::Query(Query::Trade(prefix)) => Self::answer_read(self.trade(prefix), answer),
            Call::Query(Query::TradeProof(prefix)) => {
                Self::answer_read(self.trade_proof(prefix), answer);
            }
            Call::Query(Query::Epochs(page)) => {
                let store = Arc::clone(&self.outside.store);
                let read = move || history::epochs(&store, page).map(Answer::from);
                Self::answer_read(Box::new(read), answer);
            }
            Call::Query(query) => {
                if let Some(study) = self.study(&query) {
                    self.studies.start(study, answer);
                    return;
                }
                let result = self.query(query);
                // The client may have given up.
                let _ = answer.send(result);
            }
            Call::Command(command) => self.answer_command(command, answer),
            Call::Shell(command) => self.answer_shell(command, answer),
        }
    }

    /// Reads the store beside the loop.
    fn answer_read(read: Read, answer: oneshot::Sender<Result<Answer, ApiError>>) {
        // The client may have given up.
        tokio::task::spawn_blocking(move || answer.send(read()));
    }

    /// The records that a backup keeps, read beside the loop.
    fn backup_records(&self) -> Read {
        let store = Arc::clone(&self.outside.store);
        Box::new(move || {
            let text = crate::backup::records(&store)
                .map_err(|error| ApiError::coded(error.code(), error.to_string()))?;
            // Lines of JSON are text.
            Ok(BackupRecords(String::from_utf8_lossy(&text).into_owned()).into())
        })
    }

    fn query(&self, query: Query) -> Result<Answer, ApiError> {
        Ok(match query {
            Query::Status => self.status().into(),
            Query::Orders(page) => self.orders(page).into(),
            Query::Preview(spec) => self.preview(&spec).into(),
            Query::Order(prefix) => self.order(&prefix)?.into(),
            Query::Book(class) => self.book(&class)?.into(),
            Query::Depth(class) => self.depth(class.as_deref())?.into(),
            Query::Explain { .. }
            | Query::Quote(_)
            | Query::EpochCheck(_)
            | Query::EpochExport(_)
            | Query::EpochSigned(_)
            | Query::BackupRecords
            | Query::WalletHistory
            | Query::Logs { .. }
            | Query::Result { .. }
            | Query::Trades(_)
            | Query::Trade(_)
            | Query::TradeProof(_)
            | Query::Epochs(_) => {
                return Err(ApiError::internal("studies and files are read beside the loop"));
            }
            Query::StuckTrades => self.stuck_trades().into(),
            Query::Certificates(page) => self.certificates(page).into(),
            Query::Certificate(prefix) => self.certificate(&prefix)?.into(),
            Query::CertificateFile(prefix) => self.certificate_file(&prefix)?.into(),
            Query::Pools => self.pools().into(),
            Query::Pool(prefix) => self.pool(&prefix)?.into(),
            Query::Leases(page) => self.leases(page).into(),
            Query::Lease(prefix) => self.lease(&prefix)?.into(),
            Query::Balance => self.balance().into(),
            Query::Descriptors => self.descriptors().into(),
            Query::Coins => self.coins().into(),
            Query::Psbts => self.psbts().into(),
            Query::PeerReceipts(prefix) => self.peer_receipts(&prefix)?.into(),
            Query::Peer(prefix) => self.peer(&prefix)?.into(),
            Query::Peers => self.peers().into(),
            Query::Epoch(epoch) => self.epoch(epoch)?.into(),
        })
    }

    fn answer_command(
        &mut self,
        command: Command,
        answer: oneshot::Sender<Result<Answer, ApiError>>,
    ) {
        let (done, waiting) = oneshot::channel();
        self.command(command, Some(done));
        self.served.spawn(async move {
            let result = match waiting.await {
                Ok(Ok(done)) => Ok(done.into()),
                Ok(Err(refusal)) => Err(refusal.into()),
                Err(_) => Err(ApiError::new(reason!("api.stopping"), "the node is stopping")),
            };
            let _ = answer.send(result);
        });
    }

    fn answer_shell(
        &mut self,
        command: ShellCommand,
        answer: oneshot::Sender<Result<Answer, ApiError>>,
    ) {
        match command {
            ShellCommand::AddPeer(address) => {
                self.outside.tell_network(capex_network::Command::Dial(address));
                let _ = answer.send(Ok(Done::Ok.into()));
            }
            ShellCommand::WalletAddress => {
                let _ = answer.send(self.address().map(Into::into));
            }
            ShellCommand::WalletSend(body) => {
                let _ = answer.send(self.send_coins(&body).map(Into::into));
            }
            ShellCommand::WalletBump(body) => {
                let _ = answer.send(self.bump_payment(&body).map(Into::into));
            }
            ShellCommand::ExportPsbt(prefix) => {
                let _ = answer.send(self.export_psbt(&prefix).map(Into::into));
            }
            ShellCommand::TakePsbt(bytes) => {
                let _ = answer.send(self.take_psbt(&bytes).map(Into::into));
            }
            ShellCommand::DropPsbt(prefix) => {
                let _ = answer.send(self.drop_psbt(&prefix).map(Into::into));
            }
            ShellCommand::WalletRescan(body) => {
                let _ = answer.send(self.rescan_wallet(body).map(Into::into));
            }
            ShellCommand::WalletFund { amount_sat } => self.fund_from_faucet(amount_sat, answer),
            ShellCommand::OpenStream { wanted, local } => self.open_stream(*wanted, local, answer),
            ShellCommand::Redeem(call) => self.answer_redeem(*call, answer),
            ShellCommand::Shutdown => {
                let _ = answer.send(Ok(Done::Ok.into()));
                self.stop = true;
            }
        }
    }

    fn class_name(&self, class: u16) -> String {
        super::offload::class_name(self.engine().params(), class)
    }

    fn feature_names(&self, bits: u64) -> Vec<String> {
        super::offload::feature_names(self.engine().params(), bits)
    }

    fn now_slot(&self) -> u32 {
        self.engine().params().slot_at(now_ms())
    }
}
