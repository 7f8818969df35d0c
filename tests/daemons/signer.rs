//! A wallet elsewhere: it has the keys of the coins that a daemon watches, and looks for what waits.

use std::path::Path;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bitcoin::bip32::{DerivationPath, Xpriv, Xpub};
use bitcoin::psbt::Psbt;
use bitcoin::secp256k1::Secp256k1;
use bitcoin::{Network, Transaction, Witness};
use capex::api::types::{PsbtText, SignedPsbt, WaitingPsbt};

use crate::daemon::Daemon;

fn master() -> Xpriv {
    Xpriv::new_master(Network::Regtest, &[0x5e; 32]).unwrap()
}

/// What the daemon may know.
pub(crate) fn descriptor() -> String {
    let secp = Secp256k1::new();
    let path = DerivationPath::from_str("84h/1h/0h").unwrap();
    let account = Xpub::from_priv(&secp, &master().derive_priv(&secp, &path).unwrap());
    format!("wpkh([{}/{path}]{account}/<0;1>/*)", master().fingerprint(&secp))
}

/// The first of a kind that waits for its signature.
pub(crate) fn waiting(daemon: &Daemon, what: &str) -> Option<WaitingPsbt> {
    let waiting: Vec<WaitingPsbt> = daemon.try_get("/wallet/psbts").ok()?;
    waiting.into_iter().find(|waiting| waiting.what == what)
}

/// Takes what waits out of the daemon, and signs it.
pub(crate) fn signed(daemon: &Daemon, txid: &str) -> Psbt {
    let text: PsbtText = daemon.get(&format!("/wallet/psbts/{txid}"));
    sign(&BASE64.decode(&text.psbt).unwrap())
}

/// The same by the command line and a file, in which the signed one is left.
pub(crate) fn signed_in(file: &Path, daemon: &Daemon, txid: &str) -> Psbt {
    let args = ["wallet", "psbt", "export", &txid[..12], "--out", file.to_str().unwrap()];
    let (code, _, err) = daemon.cli(&args);
    assert_eq!(code, 0, "{err}");
    let psbt = sign(&std::fs::read(file).unwrap());
    std::fs::write(file, psbt.serialize()).unwrap();
    psbt
}

fn sign(bytes: &[u8]) -> Psbt {
    let mut psbt = Psbt::deserialize(bytes).unwrap();
    psbt.sign(&master(), &Secp256k1::new()).unwrap();
    psbt
}

pub(crate) fn body(psbt: &Psbt) -> PsbtText {
    PsbtText { psbt: BASE64.encode(psbt.serialize()) }
}

/// Brings back what was signed.
pub(crate) fn bring_back(daemon: &Daemon, psbt: &Psbt) -> SignedPsbt {
    daemon.client().unwrap().post("/wallet/psbts", &body(psbt)).unwrap()
}

/// As its signer would send it.
pub(crate) fn finished(psbt: &Psbt) -> Transaction {
    let mut tx = psbt.unsigned_tx.clone();
    for (input, signed) in tx.input.iter_mut().zip(&psbt.inputs) {
        let (key, signature) = signed.partial_sigs.first_key_value().unwrap();
        input.witness = Witness::p2wpkh(signature, &key.inner);
    }
    tx
}
