//! A wallet on a chain made by hand, and Bitcoin's own verifier beside it.

pub(crate) use std::collections::{BTreeMap, BTreeSet};
pub(crate) use std::path::Path;
pub(crate) use std::sync::{Arc, Mutex};

pub(crate) use bitcoin::absolute::LockTime;
pub(crate) use bitcoin::block::{Header, Version as BlockVersion};
pub(crate) use bitcoin::consensus::serialize;
pub(crate) use bitcoin::hashes::Hash;
pub(crate) use bitcoin::key::{Keypair, TapTweak};
pub(crate) use bitcoin::secp256k1::Secp256k1;
pub(crate) use bitcoin::transaction::Version;
pub(crate) use bitcoin::{
    Address, Amount, Block, BlockHash, CompactTarget, Network, OutPoint, ScriptBuf, Sequence,
    Transaction, TxIn, TxMerkleNode, TxOut, Txid, Witness, constants::genesis_block,
};
pub(crate) use capex::chain::ChainUpdate;
pub(crate) use capex::store::{Meta, Password, Record, Row, Sealer, Store, StoreError};
pub(crate) use capex::wallet::{
    Amounts, Balance, Funded, Keys, Persist, Seed, Wallet, WalletError, faucet_spend,
};
pub(crate) use proptest::prelude::*;

pub(crate) const NETWORK: Network = Network::Regtest;
pub(crate) const FEERATE: u64 = 2_000;

/// Chain blocks by hand: they link and carry transactions, which is all a wallet looks at.
#[derive(Clone)]
pub(crate) struct Chain {
    pub(crate) blocks: Vec<Arc<Block>>,
    pub(crate) salt: u32,
}

impl Chain {
    pub(crate) fn new() -> Self {
        Self { blocks: vec![Arc::new(genesis_block(NETWORK))], salt: 0 }
    }

    pub(crate) fn height(&self) -> u32 {
        self.blocks.len() as u32 - 1
    }

    pub(crate) fn tip(&self) -> BlockHash {
        self.blocks.last().unwrap().block_hash()
    }

    pub(crate) fn mine_to(&mut self, to: ScriptBuf, txs: Vec<Transaction>) -> ChainUpdate {
        let height = self.height() + 1;
        let script_sig = ScriptBuf::builder().push_int(height.into()).push_int(self.salt.into());
        let mut txdata = vec![tx(OutPoint::null(), script_sig.into_script(), to, 5_000_000_000)];
        txdata.extend(txs);
        let header = Header {
            version: BlockVersion::TWO,
            prev_blockhash: self.tip(),
            merkle_root: TxMerkleNode::all_zeros(),
            time: 1_700_000_000 + height,
            bits: CompactTarget::from_consensus(0x207f_ffff),
            nonce: self.salt,
        };
        let mut block = Block { header, txdata };
        block.header.merkle_root = block.compute_merkle_root().unwrap();
        let block = Arc::new(block);
        self.blocks.push(block.clone());
        self.update(vec![(height, block)])
    }

    pub(crate) fn mine(&mut self, txs: Vec<Transaction>) -> ChainUpdate {
        self.mine_to(ScriptBuf::new(), txs)
    }

    pub(crate) fn update(&self, connected: Vec<(u32, Arc<Block>)>) -> ChainUpdate {
        let (tip, height) = (Some(self.tip()), self.height());
        ChainUpdate { connected, tip, height, ..ChainUpdate::default() }
    }

    /// Drops the highest `count` blocks; what is mined next differs from them.
    pub(crate) fn fork(&mut self, count: usize) -> Vec<(u32, Arc<Block>)> {
        self.salt += 1;
        (0..count).map(|_| (self.height(), self.blocks.pop().unwrap())).collect()
    }
}

pub(crate) fn tx(from: OutPoint, script_sig: ScriptBuf, to: ScriptBuf, sat: u64) -> Transaction {
    let sequence = Sequence::ENABLE_RBF_NO_LOCKTIME;
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn { previous_output: from, script_sig, sequence, witness: Witness::new() }],
        output: vec![TxOut { value: Amount::from_sat(sat), script_pubkey: to }],
    }
}

/// Somebody else's payment to the wallet; `n` makes it unique.
pub(crate) fn payment(n: u8, to: ScriptBuf, sat: u64) -> Transaction {
    tx(OutPoint::new(Txid::from_byte_array([n; 32]), 0), ScriptBuf::new(), to, sat)
}

pub(crate) fn foreign_script(n: u8) -> ScriptBuf {
    let key = Keypair::from_seckey_slice(&Secp256k1::new(), &[n; 32]).unwrap();
    ScriptBuf::new_p2tr(&Secp256k1::new(), key.x_only_public_key().0, None)
}

/// A wallet, its chain and its directory.
pub(crate) struct Bench {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) chain: Chain,
    pub(crate) wallet: Wallet,
}

pub(crate) fn open_store(dir: &Path) -> Arc<Store> {
    let meta = Meta { network: "regtest".into(), magic: *b"capr" };
    Arc::new(Store::open(dir, &meta).unwrap().0)
}

pub(crate) fn keys() -> Keys {
    Keys::from_seed(&[7; 32], NETWORK).unwrap()
}

pub(crate) fn open_wallet(dir: &Path) -> Wallet {
    Wallet::open(&keys(), NETWORK, open_store(dir), None).unwrap()
}

impl Bench {
    /// A wallet with one confirmed coin for each of `coins_sat`.
    pub(crate) fn with_coins(coins_sat: &[u64]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let wallet = open_wallet(dir.path());
        let mut bench = Self { dir, chain: Chain::new(), wallet };
        let scripts = bench.wallet.fresh_scripts(coins_sat.len() as u16).unwrap();
        let payments = scripts.into_iter().zip(coins_sat).enumerate();
        let txs = payments.map(|(n, (script, sat))| payment(n as u8 + 1, script, *sat)).collect();
        bench.mine(txs);
        bench
    }

    pub(crate) fn mine(&mut self, txs: Vec<Transaction>) {
        let update = self.chain.mine(txs);
        self.apply(&update);
    }

    pub(crate) fn apply(&mut self, update: &ChainUpdate) {
        self.wallet.apply(update, 1_700_000_000).unwrap();
    }

    pub(crate) fn reopen(self) -> Self {
        let Self { dir, chain, wallet } = self;
        drop(wallet);
        let wallet = open_wallet(dir.path());
        Self { dir, chain, wallet }
    }

    pub(crate) fn fund(&mut self, terms: u8, sat: u64) -> Result<Funded, WalletError> {
        let outputs = [(foreign_script(terms), sat)];
        self.wallet.fund([terms; 32], &outputs, FEERATE, self.chain.height())
    }

    pub(crate) fn cancel(&mut self, terms: u8, rate: u64) -> Result<Funded, WalletError> {
        self.wallet.fund([terms; 32], &[], rate, self.chain.height())
    }

    pub(crate) fn prevouts(&self, tx: &Transaction) -> Vec<TxOut> {
        let known = self.chain.blocks.iter().flat_map(|b| b.txdata.iter());
        let by_id: BTreeMap<_, _> = known.map(|tx| (tx.compute_txid(), tx)).collect();
        let spent = tx.input.iter().map(|i| i.previous_output);
        spent.map(|o| by_id[&o.txid].output[o.vout as usize].clone()).collect()
    }
}

/// Bitcoin Core's verdict on every input.
pub(crate) fn verify(tx: &Transaction, prevouts: &[TxOut]) -> Result<(), bitcoinconsensus::Error> {
    let bytes = serialize(tx);
    let spent: Vec<_> = prevouts
        .iter()
        .map(|o| bitcoinconsensus::Utxo {
            script_pubkey: o.script_pubkey.as_bytes().as_ptr(),
            script_pubkey_len: o.script_pubkey.len() as u32,
            value: o.value.to_sat() as i64,
        })
        .collect();
    let flags = bitcoinconsensus::VERIFY_ALL_PRE_TAPROOT | bitcoinconsensus::VERIFY_TAPROOT;
    prevouts.iter().enumerate().try_for_each(|(i, o)| {
        let (script, sat) = (o.script_pubkey.as_bytes(), o.value.to_sat());
        bitcoinconsensus::verify_with_flags(script, sat, &bytes, Some(&spent), i, flags)
    })
}

pub(crate) fn inputs(tx: &Transaction) -> Vec<OutPoint> {
    tx.input.iter().map(|i| i.previous_output).collect()
}
