//! What the parties of a world share: network, row, the buyer's one coin, and what a reseller holds.

use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash;
use bitcoin::key::TapTweak;
use bitcoin::secp256k1::{All, Keypair, Message as Digest, Secp256k1, SecretKey};
use bitcoin::sighash::{Prevouts, SighashCache};
use bitcoin::transaction::Version;
use bitcoin::{
    Amount, OutPoint, ScriptBuf, Sequence, TapSighashType, Transaction, TxIn, TxOut, Txid,
};
use capex_core::certificate::objects::{Activation, Binding, Consumed, Issue, Payment, blinded};
use capex_core::certificate::{Certificate, Hop};
use capex_core::engine::io::Funding;
use capex_core::engine::kernel::Keys;
use capex_core::ids::{CertId, Key, TermsHash, TradeId};
use capex_core::params::Params;
use capex_core::settlement::objects::{LockGrant, Row, Terms, Transfer};
use capex_core::settlement::script::TEMPLATE;
use capex_core::units::Units;
use capex_core::wire::{VERSION, object_id, sha256};

/// What both parties share.
pub(crate) struct Setup {
    pub(crate) params: Params,
    pub(crate) secp: Secp256k1<All>,
    pub(crate) start_ms: u64,
    pub(crate) row: Row,
    /// Feature bits that the bid requires and the ask offers.
    pub(crate) features: u64,
}

/// The buyer's wallet key.
const WALLET: u8 = 77;

impl Setup {
    pub(crate) fn new() -> Self {
        let text = include_str!("../../../network/definitions/devnet.toml");
        let mut params: Params = toml::from_str(text).unwrap();
        // Claims go by script, but where a test says otherwise.
        params.settle.quit_ms = 0;
        let start_ms = 1_000_000_000;
        let row = Row {
            v: VERSION,
            epoch: 500,
            buy: [1; 32],
            sell: [2; 32],
            class: 1,
            start: params.slot_at(start_ms) + 10,
            slots: 2,
            qty: 2,
            msat: 50_000_000,
        };
        Self { params, secp: Secp256k1::new(), start_ms, row, features: 0 }
    }

    pub(crate) fn trade(&self) -> TradeId {
        TradeId(object_id(&self.row, self.params.magic))
    }

    /// A certificate of a provider that another has bought before: what it resells.
    pub(crate) fn title(&self, provider: &Keys, holder: Key) -> Certificate {
        let params = &self.params;
        let window = self.row.window();
        let units = Units::range(4, 6).unwrap();
        let issue = provider.sign(
            Issue {
                v: VERSION,
                provider: provider.public(),
                class: self.row.class,
                class_hash: params.class_hash(self.row.class).unwrap(),
                features: self.features,
                units: units.clone(),
                window,
                pay: Payment::Prepaid,
                binding: Binding::Registrar,
                nonce32: [4; 32],
                not_after_slot: window.end - 1,
            },
            params,
        );
        let (cert_id, x) = (CertId(issue.id()), [6; 32]);
        let terms = provider.sign(
            Terms {
                v: VERSION,
                trade_id: TradeId([3; 32]),
                cert_id,
                seq: 0,
                prev_hash: issue.id(),
                class: self.row.class,
                units: units.clone(),
                window,
                from: provider.public(),
                to: holder,
                funders: Vec::new(),
                price_sat: 0,
                payment_hash: sha256(&[&x]),
                s_xonly: [0; 32],
                payout_spk: Vec::new(),
                t0: 0,
                fund_by: 0,
                refund_at: 0,
                funding_confirmations: 1,
                template: TEMPLATE,
                nonce16: [0; 16],
            },
            params,
        );
        let terms_hash = TermsHash(terms.id());
        let lock = provider.sign(
            LockGrant {
                v: VERSION,
                provider: provider.public(),
                cert_id,
                seq: 0,
                attempt: 0,
                prev_release: [0; 32],
                terms_hash,
                fund_by: 0,
                refund_at: 0,
                p_height: 0,
            },
            params,
        );
        let activation = provider.sign(
            Activation {
                v: VERSION,
                provider: provider.public(),
                cert_id,
                seq: 1,
                consumes: vec![Consumed { cert_id, seq: 0, attempt: 0, prev_hash: issue.id() }],
                roots: vec![cert_id],
                holder_hash: blinded(holder, [0; 16], params.magic),
                class: self.row.class,
                features: self.features,
                units,
                window,
                cause_hash: terms_hash.0,
                p_height: 0,
            },
            params,
        );
        let transfer =
            Transfer { v: VERSION, terms_hash, x, spend_txid: [0; 32], vin: 0, quittance: None };
        let hop = Hop::Sale {
            terms: terms.envelope().clone(),
            lock: lock.envelope().clone(),
            transfer,
            activation: activation.envelope().clone(),
        };
        Certificate { hops: vec![hop], ..Certificate::issued(issue.envelope().clone()) }
    }

    fn wallet_key(&self) -> Keypair {
        Keypair::from_secret_key(&self.secp, &SecretKey::from_slice(&[WALLET; 32]).unwrap())
    }

    pub(crate) fn spk(&self, seed: u8) -> ScriptBuf {
        let key =
            Keypair::from_secret_key(&self.secp, &SecretKey::from_slice(&[seed; 32]).unwrap());
        ScriptBuf::new_p2tr(&self.secp, key.x_only_public_key().0, None)
    }

    /// The one coin of the buyer's wallet.
    pub(crate) fn coin(&self) -> Vec<(OutPoint, TxOut)> {
        let outpoint = OutPoint { txid: Txid::from_byte_array([5; 32]), vout: 0 };
        vec![(
            outpoint,
            TxOut { value: Amount::from_sat(200_000), script_pubkey: self.spk(WALLET) },
        )]
    }

    /// Pays from that coin, signed by key path.
    pub(crate) fn pay(&self, outputs: &[(ScriptBuf, u64)], fee_sat: u64) -> Funding {
        let (outpoint, coin) = self.coin().remove(0);
        let paid: u64 = outputs.iter().map(|(_, sat)| sat).sum();
        let change = coin.value.to_sat() - paid - fee_sat;
        let out = |spk: ScriptBuf, sat| TxOut { value: Amount::from_sat(sat), script_pubkey: spk };
        let mut output: Vec<TxOut> =
            outputs.iter().map(|(spk, sat)| out(spk.clone(), *sat)).collect();
        output.push(out(self.spk(WALLET), change));
        let mut tx = Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input: vec![TxIn {
                previous_output: outpoint,
                sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
                ..TxIn::default()
            }],
            output,
        };
        let sighash = SighashCache::new(&tx)
            .taproot_key_spend_signature_hash(0, &Prevouts::All(&[coin]), TapSighashType::Default)
            .unwrap();
        let key = self.wallet_key().tap_tweak(&self.secp, None).to_keypair();
        let digest = Digest::from_digest(sighash.to_byte_array());
        tx.input[0].witness.push(self.secp.sign_schnorr_no_aux_rand(&digest, &key).serialize());
        let txid = tx.compute_txid();
        let outpoints = (0..outputs.len())
            .map(|vout| OutPoint { txid, vout: u32::try_from(vout).unwrap() })
            .collect();
        Funding { tx, outpoints, fee_sat }
    }
}
