//! A devchain with money in hand.

use bitcoin::hashes::Hash;
use bitcoin::key::{Keypair, TapTweak};
use bitcoin::secp256k1::{Message, Secp256k1, SecretKey};
use bitcoin::sighash::{Prevouts, SighashCache, TapSighashType};
use bitcoin::taproot::Signature;
use bitcoin::{
    Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness, absolute, transaction,
};
use capex::chain::devchain::{Devchain, Reject, faucet_keypair, faucet_script};

/// The clock of every test, unix seconds.
pub(crate) const NOW_S: u32 = 1_800_000_000;

/// An output and what it holds.
#[derive(Debug, Clone)]
pub(crate) struct Owned {
    pub(crate) outpoint: OutPoint,
    pub(crate) output: TxOut,
}

pub(crate) struct Kit {
    pub(crate) chain: Devchain,
    pub(crate) now_s: u32,
    next_coinbase: u32,
}

impl Kit {
    pub(crate) fn new() -> Self {
        Self { chain: Devchain::new(NOW_S), now_s: NOW_S, next_coinbase: 1 }
    }

    pub(crate) fn mine(&mut self, blocks: u32) {
        for _ in 0..blocks {
            self.now_s += 1;
            self.chain.mine(&faucet_script(), self.now_s).expect("an honest block");
        }
    }

    pub(crate) fn mine_to_height(&mut self, height: u32) {
        self.mine(height - self.chain.height());
    }

    /// The faucet's coinbase output at a height.
    pub(crate) fn coinbase(&self, height: u32) -> Owned {
        let hash = self.chain.hash_at(height).expect("a block");
        let tx = &self.chain.block(&hash).expect("a block").txdata[0];
        owned(tx, 0)
    }

    /// A mature coinbase not handed out before.
    pub(crate) fn next_coinbase(&mut self) -> Owned {
        self.next_coinbase += 1;
        self.coinbase(self.next_coinbase - 1)
    }

    /// Pays `value_sat` to `script` and mines it.
    pub(crate) fn funded(&mut self, script: &ScriptBuf, value_sat: u64) -> Owned {
        let coin = self.next_coinbase();
        let change_sat = coin.output.value.to_sat() - value_sat - 1_000;
        let tx = pay(&[coin], &[(script.clone(), value_sat), (faucet_script(), change_sat)]);
        self.send(&tx).expect("an honest payment");
        self.mine(1);
        owned(&tx, 0)
    }

    pub(crate) fn send(&mut self, tx: &Transaction) -> Result<(), Reject> {
        self.chain.submit_tx(tx.clone()).map(|_| ())
    }

    /// The reason for which a transaction is refused, twice the same: when tested and when
    /// sent.
    pub(crate) fn refusal(&mut self, tx: &Transaction) -> &'static str {
        let tested = self.chain.test_tx(tx).expect_err("a refusal").reason();
        let sent = self.chain.submit_tx(tx.clone()).expect_err("a refusal").reason();
        assert_eq!(tested, sent);
        sent
    }
}

pub(crate) fn owned(tx: &Transaction, vout: u32) -> Owned {
    Owned {
        outpoint: OutPoint { txid: tx.compute_txid(), vout },
        output: tx.output[vout as usize].clone(),
    }
}

pub(crate) fn key(label: u8) -> Keypair {
    let secret = SecretKey::from_slice(&[label; 32]).expect("a scalar");
    Keypair::from_secret_key(&Secp256k1::new(), &secret)
}

/// An unsigned transaction, replaceable.
pub(crate) fn unsigned(coins: &[Owned], outputs: &[(ScriptBuf, u64)]) -> Transaction {
    Transaction {
        version: transaction::Version::TWO,
        lock_time: absolute::LockTime::ZERO,
        input: coins
            .iter()
            .map(|coin| TxIn {
                previous_output: coin.outpoint,
                script_sig: ScriptBuf::new(),
                sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
                witness: Witness::new(),
            })
            .collect(),
        output: outputs
            .iter()
            .map(|(script, sat)| TxOut {
                value: Amount::from_sat(*sat),
                script_pubkey: script.clone(),
            })
            .collect(),
    }
}

/// Signs every input with the faucet's key.
pub(crate) fn sign(tx: &mut Transaction, coins: &[Owned]) {
    let secp = Secp256k1::new();
    let signer = faucet_keypair().tap_tweak(&secp, None).to_keypair();
    let prevouts: Vec<TxOut> = coins.iter().map(|coin| coin.output.clone()).collect();
    for index in 0..tx.input.len() {
        let sighash = SighashCache::new(&*tx)
            .taproot_key_spend_signature_hash(
                index,
                &Prevouts::All(&prevouts),
                TapSighashType::Default,
            )
            .expect("all prevouts given");
        let message = Message::from_digest(sighash.to_byte_array());
        let signature = Signature {
            signature: secp.sign_schnorr_no_aux_rand(&message, &signer),
            sighash_type: TapSighashType::Default,
        };
        tx.input[index].witness = Witness::p2tr_key_spend(&signature);
    }
}

/// A signed payment from faucet coins.
pub(crate) fn pay(coins: &[Owned], outputs: &[(ScriptBuf, u64)]) -> Transaction {
    let mut tx = unsigned(coins, outputs);
    sign(&mut tx, coins);
    tx
}

/// A signed transaction that spends one coin to one faucet output and pays `fee_sat`.
pub(crate) fn sweep(coin: &Owned, fee_sat: u64) -> Transaction {
    let left_sat = coin.output.value.to_sat() - fee_sat;
    pay(std::slice::from_ref(coin), &[(faucet_script(), left_sat)])
}
