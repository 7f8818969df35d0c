//! A devchain and the file it is rebuilt from.

use std::fs::File;
use std::io;
use std::path::Path;

use bitcoin::{Block, BlockHash, Script};
use thiserror::Error;

use super::{ServeError, at};
use crate::chain::devchain::chain::{Devchain, PREMINED_BLOCKS};
use crate::chain::devchain::journal::{Journal, Record};
use crate::chain::devchain::reject::Reject;

/// Every change that the rules allow is written in its order, before anybody is told of it.
#[derive(Debug)]
pub(super) struct Ledger {
    chain: Devchain,
    journal: Journal,
    /// Held locked as long as the server runs.
    _lock: File,
}

/// Why the chain did not change.
#[derive(Debug, Error)]
pub(super) enum LedgerError {
    /// The chain's rules.
    #[error(transparent)]
    Reject(#[from] Reject),
    /// The disk.
    #[error("cannot write the chain: {0}")]
    Io(#[from] io::Error),
}

impl Ledger {
    /// Reloads the chain in `dir`, or begins one that ends at `now_s`.
    pub(super) fn open(dir: &Path, now_s: u32) -> Result<Self, ServeError> {
        std::fs::create_dir_all(dir).map_err(at(dir))?;
        let lock_path = dir.join("lock");
        let lock = File::create(&lock_path).map_err(at(&lock_path))?;
        if lock.try_lock().is_err() {
            return Err(ServeError::InUse(dir.to_owned()));
        }
        let path = dir.join("blocks.dat");
        let mut chain = Devchain::genesis();
        let journal =
            Journal::open(&path, |record| replay(&mut chain, record)).map_err(at(&path))?;
        let mut ledger = Self { chain, journal, _lock: lock };
        if ledger.chain.height() == 0 {
            ledger.premine(now_s).map_err(at(&path))?;
        }
        Ok(ledger)
    }

    fn premine(&mut self, now_s: u32) -> io::Result<()> {
        let chain = Devchain::new(now_s);
        let blocks: Vec<Record> = (1..=PREMINED_BLOCKS)
            .filter_map(|height| chain.hash_at(height))
            .filter_map(|hash| chain.block(&hash))
            .map(|block| Record::Block((**block).clone()))
            .collect();
        self.journal.append(&blocks)?;
        self.chain = chain;
        Ok(())
    }

    pub(super) fn chain(&self) -> &Devchain {
        &self.chain
    }

    /// The mempool is not in the file: a change of it needs no writing.
    pub(super) fn chain_mut(&mut self) -> &mut Devchain {
        &mut self.chain
    }

    pub(super) fn mine(&mut self, payee: &Script, now_s: u32) -> Result<BlockHash, LedgerError> {
        let block = self.chain.template(payee, now_s);
        self.submit_block(block, now_s)
    }

    pub(super) fn submit_block(
        &mut self,
        block: Block,
        now_s: u32,
    ) -> Result<BlockHash, LedgerError> {
        let hash = self.chain.submit_block(block.clone(), now_s)?;
        self.journal.append(&[Record::Block(block)])?;
        Ok(hash)
    }

    pub(super) fn invalidate_block(&mut self, hash: BlockHash) -> Result<(), LedgerError> {
        self.chain.invalidate_block(&hash)?;
        Ok(self.journal.append(&[Record::Invalidate(hash)])?)
    }

    pub(super) fn reconsider_block(&mut self, hash: BlockHash) -> Result<(), LedgerError> {
        self.chain.reconsider_block(&hash)?;
        Ok(self.journal.append(&[Record::Reconsider(hash)])?)
    }
}

/// Only what was accepted is in the file. The clock judged it then.
fn replay(chain: &mut Devchain, record: Record) {
    let _ = match record {
        Record::Block(block) => chain.submit_block(block, u32::MAX).map(|_| ()),
        Record::Invalidate(hash) => chain.invalidate_block(&hash),
        Record::Reconsider(hash) => chain.reconsider_block(&hash),
    };
}
