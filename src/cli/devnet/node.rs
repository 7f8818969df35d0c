//! A started node, spoken to through its HTTP API alone.

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Sold;
use super::broken::Broken;
use super::plan::Seat;
use crate::api::types::{Certificate, Lease, Status, Trade};
use crate::cli::client::Client;
use crate::cli::failure::Failure;

/// States of a trade from which no sale can come.
const DEAD: [&str; 7] =
    ["void", "aborted", "cancelled", "refunded", "released", "no_agreement", "never_reveal"];

/// One node of the market.
#[derive(Debug)]
pub(super) struct Node {
    /// Its name and part.
    pub(super) seat: Seat,
    /// Its identity key.
    pub(super) key: String,
    client: Client,
}

impl Node {
    /// The node that runs on a data directory.
    ///
    /// # Errors
    /// It cannot be asked yet.
    pub(super) fn open(seat: &Seat, datadir: &Path) -> Result<Self, Broken> {
        let client = Client::open(datadir)?;
        let key = client.status()?.key;
        Ok(Self { seat: seat.clone(), key, client })
    }

    /// Its name.
    pub(super) fn name(&self) -> &'static str {
        self.seat.name
    }

    fn blame<T>(&self, result: Result<T, Failure>) -> Result<T, Broken> {
        result.map_err(|failure| Broken::from(failure).at(self.name()))
    }

    /// `GET`.
    ///
    /// # Errors
    /// What the node refused.
    pub(super) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Broken> {
        self.blame(self.client.get(path))
    }

    /// `POST`.
    ///
    /// # Errors
    /// What the node refused.
    pub(super) fn post<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, Broken> {
        self.blame(self.client.post(path, body))
    }

    /// `GET` of a text.
    ///
    /// # Errors
    /// What the node refused.
    pub(super) fn text(&self, path: &str) -> Result<String, Broken> {
        self.blame(self.client.text(path))
    }

    /// Output of a workload so far.
    ///
    /// # Errors
    /// What the node refused.
    pub(super) fn logs(&self, lease: &str, stream: &str) -> Result<String, Broken> {
        let bytes = self.blame(self.client.logs(lease, stream))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// A result file.
    ///
    /// # Errors
    /// What the node refused.
    pub(super) fn result(&self, lease: &str, name: &str) -> Result<Vec<u8>, Broken> {
        self.blame(self.client.result(lease, name))
    }

    /// Its status.
    ///
    /// # Errors
    /// What the node refused.
    pub(super) fn status(&self) -> Result<Status, Broken> {
        self.get("/status")
    }

    /// A trade of a class that can still become a sale, newest first, but for those that are known.
    ///
    /// # Errors
    /// What the node refused.
    pub(super) fn live_trade(&self, class: &str, known: &[Sold]) -> Result<Option<Trade>, Broken> {
        let trades: Vec<Trade> = self.get("/trades")?;
        let is_known = |trade: &Trade| known.iter().any(|sold| sold.trade_id == trade.trade_id);
        let is_live = |trade: &Trade| trade.class == class && !DEAD.contains(&trade.state.as_str());
        Ok(trades.into_iter().find(|trade| is_live(trade) && !is_known(trade)))
    }

    /// One trade.
    ///
    /// # Errors
    /// What the node refused.
    pub(super) fn trade(&self, id: &str) -> Result<Trade, Broken> {
        self.get(&format!("/trades/{id}"))
    }

    /// One certificate.
    ///
    /// # Errors
    /// What the node refused.
    pub(super) fn certificate(&self, id: &str) -> Result<Certificate, Broken> {
        self.get(&format!("/certificates/{id}"))
    }

    /// One lease.
    ///
    /// # Errors
    /// What the node refused.
    pub(super) fn lease(&self, id: &str) -> Result<Lease, Broken> {
        self.get(&format!("/leases/{id}"))
    }
}
