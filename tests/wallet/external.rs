//! Coins whose keys are elsewhere: what waits for a signature, and what comes back.

use std::str::FromStr;

use bitcoin::bip32::{DerivationPath, Xpriv, Xpub};
use bitcoin::psbt::{Psbt, PsbtSighashType};
use bitcoin::{EcdsaSighashType, TapSighashType};
use capex::wallet::{Form, Payment, Taken, Watched};

use crate::bench::*;

/// A wallet elsewhere: rust-bitcoin's own signer.
struct Signer {
    master: Xpriv,
    form: &'static str,
}

const FORMS: [&str; 2] = ["tr", "wpkh"];

impl Signer {
    fn new(form: &'static str, seed: u8) -> Self {
        Self { master: Xpriv::new_master(NETWORK, &[seed; 32]).unwrap(), form }
    }

    fn descriptor(&self, branch: &str) -> String {
        let secp = Secp256k1::new();
        let purpose = if self.form == "tr" { 86 } else { 84 };
        let path = DerivationPath::from_str(&format!("{purpose}h/1h/0h")).unwrap();
        let account = Xpub::from_priv(&secp, &self.master.derive_priv(&secp, &path).unwrap());
        let fingerprint = self.master.fingerprint(&secp);
        format!("{}([{fingerprint}/{path}]{account}/{branch}/*)", self.form)
    }

    fn sign(&self, bytes: &[u8]) -> Psbt {
        self.sign_as(bytes, None)
    }

    fn sign_as(&self, bytes: &[u8], sighash: Option<PsbtSighashType>) -> Psbt {
        let mut psbt = Psbt::deserialize(bytes).unwrap();
        psbt.inputs.iter_mut().for_each(|input| input.sighash_type = sighash);
        psbt.sign(&self.master, &Secp256k1::new()).unwrap();
        psbt
    }
}

/// A transaction with the witnesses that a signer made.
fn finished(psbt: &Psbt) -> Transaction {
    let mut tx = psbt.unsigned_tx.clone();
    for (input, signed) in tx.input.iter_mut().zip(&psbt.inputs) {
        input.witness = match signed.tap_key_sig {
            Some(signature) => Witness::p2tr_key_spend(&signature),
            None => {
                let (key, signature) = signed.partial_sigs.first_key_value().unwrap();
                Witness::p2wpkh(signature, &key.inner)
            }
        };
    }
    tx
}

fn reopened(bench: Bench, signer: &Signer) -> Bench {
    let Bench { dir, chain, wallet } = bench;
    drop(wallet);
    Bench { wallet: open(dir.path(), signer), dir, chain }
}

fn watching(signer: &Signer) -> Keys {
    let watched = Watched::parse(&signer.descriptor("<0;1>"), None, NETWORK).unwrap();
    keys().watching(Some(watched))
}

fn open(dir: &Path, signer: &Signer) -> Wallet {
    Wallet::open(&watching(signer), NETWORK, open_store(dir), None).unwrap()
}

fn bench(signer: &Signer, coins_sat: &[u64]) -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let wallet = open(dir.path(), signer);
    let mut bench = Bench { dir, chain: Chain::new(), wallet };
    let scripts = bench.wallet.fresh_scripts(coins_sat.len() as u16).unwrap();
    let payments = scripts.into_iter().zip(coins_sat).enumerate();
    let txs = payments.map(|(n, (script, sat))| payment(n as u8 + 1, script, *sat)).collect();
    bench.mine(txs);
    bench
}

/// Takes back a transaction of a trade.
fn back(bench: &mut Bench, bytes: &[u8]) -> ([u8; 32], Funded) {
    match bench.wallet.take_psbt(bytes).unwrap() {
        Taken::Funding { terms_hash, funded } => (terms_hash, funded),
        Taken::Payment(payment) => panic!("{payment:?}"),
    }
}

/// Takes back a payment.
fn payment_back(bench: &mut Bench, bytes: &[u8]) -> Payment {
    match bench.wallet.take_psbt(bytes).unwrap() {
        Taken::Payment(payment) => payment,
        Taken::Funding { .. } => panic!("no payment"),
    }
}

/// Asks for a funding, which waits; what a signer gets to see of it.
fn export(bench: &mut Bench, terms: u8, sat: u64) -> Vec<u8> {
    assert_eq!(bench.fund(terms, sat).unwrap_err().code(), "wallet.unsigned");
    let waiting = bench.wallet.waiting();
    let found = waiting.iter().find(|waiting| waiting.terms_hash == [terms; 32]).unwrap();
    bench.wallet.export(found.txid).unwrap().0
}

#[test]
fn a_fund_that_was_signed_elsewhere_is_like_any_other() {
    for form in FORMS {
        let signer = Signer::new(form, 9);
        let mut bench = bench(&signer, &[50_000, 60_000]);
        let psbt = export(&mut bench, 1, 80_000);
        assert_eq!(export(&mut bench, 1, 80_000), psbt, "{form}: it waits once");
        assert_eq!(bench.fund(1, 70_000).unwrap_err().code(), "wallet.other_outputs");
        let [waiting] = &bench.wallet.waiting()[..] else { panic!("{form}") };
        assert_eq!((waiting.amount_sat, waiting.form), (80_000, Form::Fund));
        assert_eq!(bench.wallet.balance().locked_sat, 110_000);
        assert_eq!(bench.fund(2, 10_000).unwrap_err().code(), "wallet.insufficient_funds");
        assert!(bench.wallet.unsettled().is_empty(), "nothing to broadcast");
        // Nothing is lost over a restart.
        let mut bench = reopened(bench, &signer);
        assert_eq!(export(&mut bench, 1, 80_000), psbt);
        let signed = signer.sign(&psbt).serialize();
        let (terms, funded) = back(&mut bench, &signed);
        assert_eq!(terms, [1; 32]);
        verify(&funded.tx, &bench.prevouts(&funded.tx)).unwrap();
        assert_eq!(bench.fund(1, 80_000).unwrap(), funded, "{form}: the wallet has it now");
        assert_eq!(back(&mut bench, &signed), (terms, funded.clone()), "again");
        assert!(bench.wallet.waiting().is_empty());
        bench.wallet.mark_broadcast(&funded.tx, 1_700_000_001).unwrap();
        assert_eq!(bench.wallet.unsettled().len(), 1);
        let mut bench = reopened(bench, &signer);
        assert_eq!(bench.fund(1, 80_000).unwrap(), funded);
        bench.mine(vec![funded.tx]);
        for _ in 0..6 {
            bench.mine(vec![]);
        }
        assert_eq!(bench.wallet.balance().locked_sat, 0);
    }
}

#[test]
fn a_finalised_witness_is_as_good_as_a_signature() {
    for form in FORMS {
        let signer = Signer::new(form, 9);
        let mut bench = bench(&signer, &[50_000]);
        let psbt = export(&mut bench, 1, 20_000);
        let mut signed = signer.sign(&psbt);
        let witness = finished(&signed).input[0].witness.clone();
        let input = &mut signed.inputs[0];
        (input.tap_key_sig, input.final_script_witness) = (None, Some(witness.clone()));
        input.partial_sigs.clear();
        // What signers add is left unread.
        input.witness_utxo = None;
        let (_, funded) = back(&mut bench, &signed.serialize());
        assert_eq!(funded.tx.input[0].witness, witness);
        verify(&funded.tx, &bench.prevouts(&funded.tx)).unwrap();
    }
}

#[test]
fn anything_but_the_transaction_that_was_asked_for_is_refused() {
    type Change = fn(&mut Psbt);
    let changes: [(&str, Change); 9] = [
        ("wallet.psbt_outputs", |psbt| {
            psbt.unsigned_tx.output[0].script_pubkey = foreign_script(66);
        }),
        ("wallet.psbt_outputs", |psbt| {
            psbt.unsigned_tx.output[0].value -= Amount::from_sat(1);
        }),
        ("wallet.psbt_inputs", |psbt| {
            let other = OutPoint::new(Txid::from_byte_array([7; 32]), 0);
            let mut input = psbt.unsigned_tx.input[0].clone();
            input.previous_output = other;
            psbt.unsigned_tx.input.push(input);
            psbt.inputs.push(psbt.inputs[0].clone());
        }),
        ("wallet.psbt_inputs", |psbt| {
            psbt.inputs[0].witness_utxo.as_mut().unwrap().value += Amount::from_sat(1);
        }),
        ("wallet.psbt_form", |psbt| psbt.unsigned_tx.lock_time = LockTime::ZERO),
        ("wallet.psbt_form", |psbt| psbt.unsigned_tx.input[0].sequence = Sequence::MAX),
        ("wallet.psbt_unknown", |psbt| {
            for (n, input) in psbt.unsigned_tx.input.iter_mut().enumerate() {
                input.previous_output.txid = Txid::from_byte_array([n as u8; 32]);
            }
        }),
        ("wallet.psbt_unsigned", |psbt| {
            psbt.inputs[1].tap_key_sig = None;
            psbt.inputs[1].partial_sigs.clear();
        }),
        ("wallet.psbt_signature", |psbt| {
            let first = psbt.inputs[0].clone();
            psbt.inputs[0].tap_key_sig = psbt.inputs[1].tap_key_sig;
            psbt.inputs[1].tap_key_sig = first.tap_key_sig;
            for input in &mut psbt.inputs {
                for signature in input.partial_sigs.values_mut() {
                    let mut bytes = signature.signature.serialize_compact();
                    bytes[40] ^= 1;
                    signature.signature =
                        bitcoin::secp256k1::ecdsa::Signature::from_compact(&bytes).unwrap();
                }
            }
        }),
    ];
    for form in FORMS {
        let signer = Signer::new(form, 9);
        let mut bench = bench(&signer, &[50_000, 60_000]);
        let psbt = export(&mut bench, 1, 80_000);
        let (before, waiting) = (bench.wallet.balance(), bench.wallet.waiting());
        let refused = |bench: &mut Bench, bytes: &[u8], code: &str, row: usize| {
            let error = bench.wallet.take_psbt(bytes).unwrap_err();
            assert_eq!(error.code(), code, "{form} row {row}");
            assert_eq!(bench.wallet.waiting(), waiting, "{form} row {row}");
            assert_eq!(bench.wallet.balance(), before);
            assert_eq!(bench.fund(1, 80_000).unwrap_err().code(), "wallet.unsigned");
        };
        for (row, (code, change)) in changes.iter().enumerate() {
            let mut changed = signer.sign(&psbt);
            change(&mut changed);
            refused(&mut bench, &changed.serialize(), code, row);
        }
        let some: PsbtSighashType = if form == "tr" {
            TapSighashType::NonePlusAnyoneCanPay.into()
        } else {
            EcdsaSighashType::SinglePlusAnyoneCanPay.into()
        };
        let partial = signer.sign_as(&psbt, Some(some)).serialize();
        refused(&mut bench, &partial, "wallet.psbt_sighash", 90);
        let stranger = Signer::new(form, 8);
        let foreign = stranger.sign_if_it_can(&psbt).serialize();
        refused(&mut bench, &foreign, "wallet.psbt_unsigned", 91);
        refused(&mut bench, b"psbt\xff", "wallet.psbt_malformed", 92);
        let all: PsbtSighashType =
            if form == "tr" { TapSighashType::All.into() } else { EcdsaSighashType::All.into() };
        let (_, funded) = back(&mut bench, &signer.sign_as(&psbt, Some(all)).serialize());
        verify(&funded.tx, &bench.prevouts(&funded.tx)).unwrap();
    }
}

impl Signer {
    fn sign_if_it_can(&self, bytes: &[u8]) -> Psbt {
        let mut psbt = Psbt::deserialize(bytes).unwrap();
        // It has none of the keys.
        let _ = psbt.sign(&self.master, &Secp256k1::new());
        psbt
    }
}

#[test]
fn coins_of_a_fund_that_nobody_signed_are_free_again() {
    let signer = Signer::new("tr", 9);
    let mut bench = bench(&signer, &[50_000]);
    let psbt = export(&mut bench, 1, 20_000);
    bench.wallet.release([1; 32]).unwrap();
    assert_eq!(bench.wallet.balance().locked_sat, 0);
    assert!(bench.wallet.waiting().is_empty());
    let late = bench.wallet.take_psbt(&signer.sign(&psbt).serialize()).unwrap_err();
    assert_eq!(late.code(), "wallet.psbt_unknown");
    assert_eq!(bench.fund(1, 20_000).unwrap_err().code(), "wallet.released");
    let other = export(&mut bench, 2, 30_000);
    back(&mut bench, &signer.sign(&other).serialize());
}

#[test]
fn what_replaces_a_fund_waits_for_its_signature_too() {
    let signer = Signer::new("tr", 9);
    let mut bench = bench(&signer, &[50_000]);
    let psbt = export(&mut bench, 1, 20_000);
    let (_, funded) = back(&mut bench, &signer.sign(&psbt).serialize());
    bench.wallet.mark_broadcast(&funded.tx, 1_700_000_001).unwrap();
    assert_eq!(bench.cancel(1, 20_000).unwrap_err().code(), "wallet.unsigned");
    let unsettled: Vec<_> = bench.wallet.unsettled().into_iter().map(|(_, tx)| tx).collect();
    assert_eq!(
        unsettled,
        std::slice::from_ref(&funded.tx),
        "until it is signed, the funding counts"
    );
    let [waiting] = &bench.wallet.waiting()[..] else { panic!() };
    assert_eq!(waiting.form, Form::Cancel);
    let psbt = bench.wallet.export(waiting.txid).unwrap().0;
    let (terms, cancelled) = back(&mut bench, &signer.sign(&psbt).serialize());
    assert_eq!((terms, cancelled.outpoints.len()), ([1; 32], 0));
    verify(&cancelled.tx, &bench.prevouts(&cancelled.tx)).unwrap();
    assert!(cancelled.fee_sat > funded.fee_sat);
    bench.wallet.mark_broadcast(&cancelled.tx, 1_700_000_002).unwrap();
    // The same for a higher fee, while what is signed stands.
    assert_eq!(bench.cancel(1, 20_000).unwrap(), cancelled);
    assert!(bench.wallet.waiting().is_empty());
    assert_eq!(bench.cancel(1, 90_000).unwrap(), cancelled, "until it is signed");
    let [waiting] = &bench.wallet.waiting()[..] else { panic!() };
    let waiting = waiting.clone();
    assert_eq!((waiting.form, waiting.amount_sat), (Form::Cancel, 0));
    assert_eq!(bench.cancel(1, 200_000).unwrap(), cancelled);
    assert_eq!(bench.wallet.waiting(), std::slice::from_ref(&waiting), "one at a time");
    let mut bench = reopened(bench, &signer);
    assert_eq!(bench.wallet.unsettled()[0].1, cancelled.tx);
    let better = bench.wallet.export(waiting.txid).unwrap().0;
    let late = back(&mut bench, &signer.sign(&psbt).serialize());
    assert_eq!(late, ([1; 32], cancelled.clone()), "the first once more changes nothing");
    assert_eq!(bench.wallet.waiting().len(), 1);
    let (_, better) = back(&mut bench, &signer.sign(&better).serialize());
    verify(&better.tx, &bench.prevouts(&better.tx)).unwrap();
    assert!((89_000..92_000).contains(&rate_sat_kvb(&better)), "{}", rate_sat_kvb(&better));
    assert_eq!(inputs(&better.tx), inputs(&cancelled.tx));
    assert!(bench.wallet.waiting().is_empty());
    assert_eq!(bench.wallet.unsettled()[0].1, better.tx);
    assert_eq!(bench.cancel(1, 90_000).unwrap(), better, "it is signed once");
}

#[test]
fn a_payment_waits_for_its_signature_and_so_does_its_higher_fee() {
    let to = Address::from_script(&foreign_script(5), NETWORK).unwrap();
    for (form, amount) in [("tr", Amounts::Exactly(20_000)), ("wpkh", Amounts::All)] {
        let signer = Signer::new(form, 9);
        let mut bench = bench(&signer, &[50_000]);
        let asked = bench.wallet.send(&to, amount, FEERATE, &[]).unwrap();
        assert!(asked.awaits && bench.wallet.open_payments().is_empty());
        assert_eq!(bench.wallet.balance().locked_sat, 50_000);
        let [waiting] = &bench.wallet.waiting()[..] else { panic!("{form}") };
        let (txid, sat) = (asked.tx.compute_txid(), waiting.amount_sat);
        assert_eq!((waiting.form, waiting.txid, sat), (Form::Payment, txid, asked.amount_sat));
        let unsigned = bench.wallet.bump_payment(txid, 9_000).unwrap_err();
        assert_eq!(unsigned.code(), "wallet.unsigned");
        let mut bench = reopened(bench, &signer);
        let (psbt, of_trade) = bench.wallet.export(txid).unwrap();
        assert_eq!((of_trade, bench.wallet.exported().len()), (None, 0), "no trade waits for it");
        let signed = signer.sign(&psbt).serialize();
        let sent = payment_back(&mut bench, &signed);
        verify(&sent.tx, &bench.prevouts(&sent.tx)).unwrap();
        assert_eq!((sent.awaits, sent.tx.compute_txid()), (false, txid));
        assert_eq!(bench.wallet.open_payments(), std::slice::from_ref(&sent.tx));
        assert_eq!(payment_back(&mut bench, &signed), sent, "again");
        bench.wallet.mark_broadcast(&sent.tx, 1_700_000_001).unwrap();

        let asked = bench.wallet.bump_payment(txid, 9_000).unwrap();
        assert!(asked.awaits && asked.fee_sat > sent.fee_sat);
        assert_eq!(bench.wallet.open_payments(), std::slice::from_ref(&sent.tx), "until then");
        let again = bench.wallet.bump_payment(txid, 90_000).unwrap_err();
        assert_eq!(again.code(), "wallet.unsigned", "one at a time");
        let [waiting] = &bench.wallet.waiting()[..] else { panic!("{form}") };
        assert_eq!((waiting.form, waiting.fee_sat), (Form::Bump, asked.fee_sat));
        let (psbt, _) = bench.wallet.export(waiting.txid).unwrap();
        // A higher fee is dropped alone: what was sent stays, and another may be asked for.
        let wished = waiting.txid;
        bench.wallet.drop_psbt(wished).unwrap();
        assert!(bench.wallet.waiting().is_empty());
        assert_eq!(bench.wallet.open_payments(), std::slice::from_ref(&sent.tx));
        assert_eq!(bench.wallet.bump_payment(txid, 9_000).unwrap().tx.compute_txid(), wished);
        let bumped = payment_back(&mut bench, &signer.sign(&psbt).serialize());
        verify(&bumped.tx, &bench.prevouts(&bumped.tx)).unwrap();
        assert_eq!((bumped.fee_sat, bumped.amount_sat), (asked.fee_sat, asked.amount_sat));
        assert_eq!(bench.wallet.open_payments(), std::slice::from_ref(&bumped.tx));
        bench.mine(vec![bumped.tx]);
        for _ in 0..6 {
            bench.mine(vec![]);
        }
        assert_eq!((bench.wallet.balance().locked_sat, bench.wallet.open_payments().len()), (0, 0));
    }
}

#[test]
fn a_payment_that_nobody_signs_is_dropped_and_its_coins_are_free() {
    let to = Address::from_script(&foreign_script(5), NETWORK).unwrap();
    for is_exported in [false, true] {
        let signer = Signer::new("tr", 9);
        let mut bench = bench(&signer, &[50_000, 60_000]);
        let coin = bench.wallet.coin_list()[0].outpoint;
        let asked = bench.wallet.send(&to, Amounts::All, FEERATE, &[coin]).unwrap();
        let txid = asked.tx.compute_txid();
        let psbt = is_exported.then(|| bench.wallet.export(txid).unwrap().0);
        bench.wallet.drop_psbt(txid).unwrap();
        assert!(bench.wallet.waiting().is_empty());
        assert_eq!(bench.wallet.balance().locked_sat, 0);
        assert_eq!(bench.wallet.drop_psbt(txid).unwrap_err().code(), "wallet.psbt_unknown");
        let mut bench = reopened(bench, &signer);
        assert!(bench.wallet.waiting().is_empty());
        let Some(psbt) = psbt else { continue };
        let late = bench.wallet.take_psbt(&signer.sign(&psbt).serialize()).unwrap_err();
        assert_eq!(late.code(), "wallet.psbt_unknown");
        // Whoever signs it can send it, so what is paid next makes it void.
        let next = bench.wallet.send(&to, Amounts::Exactly(5_000), FEERATE, &[]).unwrap();
        assert_eq!(inputs(&next.tx), inputs(&asked.tx));
        // It is sent all the same.
        let tx = finished(&signer.sign(&psbt));
        bench.mine(vec![tx]);
        for _ in 0..6 {
            bench.mine(vec![]);
        }
        assert!(bench.wallet.waiting().is_empty());
        assert_eq!(bench.wallet.balance().locked_sat, 0);
    }
}

#[test]
fn what_a_trade_asked_for_is_not_dropped_by_hand() {
    let signer = Signer::new("tr", 9);
    let mut bench = bench(&signer, &[50_000]);
    export(&mut bench, 1, 20_000);
    let waiting = bench.wallet.waiting();
    let refused = bench.wallet.drop_psbt(waiting[0].txid).unwrap_err();
    assert_eq!(refused.code(), "wallet.psbt_of_trade");
    assert_eq!(bench.wallet.waiting(), waiting);
}

#[test]
fn a_wallet_without_keys_is_nobody_elses() {
    let signer = Signer::new("tr", 9);
    let bench = bench(&signer, &[50_000]);
    assert!(bench.wallet.descriptors()[0].starts_with(&signer.descriptor("0")));
    let Bench { dir, wallet, .. } = bench;
    drop(wallet);
    let store = open_store(dir.path());
    let own = Wallet::open(&keys(), NETWORK, store.clone(), None).unwrap_err();
    assert_eq!(own.code(), "wallet.other_seed");
    let other = watching(&Signer::new("tr", 8));
    let other = Wallet::open(&other, NETWORK, store, None).unwrap_err();
    assert_eq!(other.code(), "wallet.other_seed");
}

#[test]
fn only_simple_ranged_public_descriptors_of_the_network_are_watched() {
    let signer = Signer::new("wpkh", 9);
    let parse = |text: &str, change: Option<&str>| Watched::parse(text, change, NETWORK);
    let (receive, change) = (signer.descriptor("0"), signer.descriptor("1"));
    assert_eq!(
        parse(&signer.descriptor("<0;1>"), None).unwrap(),
        parse(&receive, Some(&change)).unwrap()
    );
    let xpub = receive.split(']').nth(1).unwrap().split('/').next().unwrap().to_owned();
    let master = signer.master.to_string();
    let bad: Vec<(String, Option<&str>)> = vec![
        (receive.clone(), None),
        (receive.clone(), Some(&receive)),
        (signer.descriptor("<0;1>"), Some(&change)),
        (signer.descriptor("<0;1;2>"), None),
        (receive.replace("/*", ""), Some(&change)),
        (receive.replace("/*", "/*h"), Some(&change)),
        (format!("wpkh({master}/0/*)"), Some(&change)),
        (format!("pkh({xpub}/0/*)"), Some(&change)),
        (format!("sh(wpkh({xpub}/0/*))"), Some(&change)),
        (format!("tr({xpub}/0/*,pk({xpub}/1/*))"), Some(&change)),
        (format!("wsh(pk({xpub}/0/*))"), Some(&change)),
        ("bcrt1q".to_owned(), Some(&change)),
    ];
    for (text, change) in bad {
        assert!(parse(&text, change).is_err(), "{text} {change:?}");
    }
    let other = Watched::parse(&signer.descriptor("<0;1>"), None, Network::Bitcoin);
    assert!(other.unwrap_err().contains("bitcoin"));
}

/// Others can send it, so nobody forgets it: its coins are lent, and the next funding takes them.
#[test]
fn what_was_handed_out_and_did_not_come_back_is_known_until_its_coins_are_gone() {
    let signer = Signer::new("wpkh", 9);
    let mut bench = bench(&signer, &[50_000]);
    assert_eq!(bench.fund(1, 20_000).unwrap_err().code(), "wallet.unsigned");
    assert_eq!(bench.wallet.exported(), [], "nobody has it");
    let psbt = export(&mut bench, 1, 20_000);
    let [(terms, built)] = &bench.wallet.exported()[..] else { panic!() };
    assert_eq!((*terms, built.outpoints.len()), ([1; 32], 1));
    let mut bench = reopened(bench, &signer);
    assert_eq!(bench.wallet.exported().len(), 1, "journaled before it was handed out");
    bench.wallet.lend([1; 32]).unwrap();
    assert_eq!((bench.wallet.exported().len(), bench.wallet.waiting().len()), (0, 0));
    assert_eq!(bench.wallet.balance().locked_sat, 0);
    let txid = signer.sign(&psbt).unsigned_tx.compute_txid();
    assert_eq!(bench.wallet.export(txid).unwrap_err().code(), "wallet.psbt_unknown");
    let late = bench.wallet.take_psbt(&signer.sign(&psbt).serialize()).unwrap_err();
    assert_eq!(late.code(), "wallet.psbt_unknown");
    let other = export(&mut bench, 2, 30_000);
    let (_, taken) = back(&mut bench, &signer.sign(&other).serialize());
    bench.mine(vec![taken.tx]);
    for _ in 0..5 {
        assert_eq!(bench.fund(1, 20_000).unwrap_err().code(), "wallet.unsigned");
        bench.mine(vec![]);
    }
    assert_eq!(bench.fund(1, 20_000).unwrap_err().code(), "wallet.fund_dead");
}

#[test]
fn what_its_signer_sent_is_taken_over_from_the_chain() {
    for (is_lent, is_mined) in [(false, false), (false, true), (true, false), (true, true)] {
        let signer = Signer::new("tr", 9);
        let mut bench = bench(&signer, &[50_000]);
        let psbt = export(&mut bench, 1, 20_000);
        if is_lent {
            bench.wallet.lend([1; 32]).unwrap();
        }
        let tx = finished(&signer.sign(&psbt));
        if is_mined {
            bench.mine(vec![tx.clone()]);
        } else {
            let mempool = vec![tx.clone()];
            bench.apply(&ChainUpdate { mempool, ..bench.chain.update(vec![]) });
        }
        assert_eq!(bench.fund(1, 20_000).unwrap().tx, tx, "{is_lent} {is_mined}");
        assert_eq!((bench.wallet.waiting().len(), bench.wallet.exported().len()), (0, 0));
        assert_eq!(bench.wallet.unsettled().len(), usize::from(!is_mined), "sent again");
        let mut bench = reopened(bench, &signer);
        assert_eq!(bench.fund(1, 20_000).unwrap().tx, tx);
        bench.wallet.lend([1; 32]).unwrap();
        assert_eq!(bench.fund(2, 40_000).unwrap_err().code(), "wallet.insufficient_funds");
    }
}

fn rate_sat_kvb(funded: &Funded) -> u64 {
    funded.fee_sat * 1_000 / funded.tx.vsize() as u64
}

/// The node asks for it by itself when fees rise; the signer signs again.
#[test]
fn a_better_fee_waits_for_its_signature_and_the_funding_counts_until_then() {
    for form in FORMS {
        let signer = Signer::new(form, 9);
        let mut bench = bench(&signer, &[50_000, 60_000]);
        let psbt = export(&mut bench, 1, 80_000);
        let (_, funded) = back(&mut bench, &signer.sign(&psbt).serialize());
        let outputs = [(foreign_script(1), 80_000)];
        let ask = |bench: &mut Bench, rate| {
            bench.wallet.fund([1; 32], &outputs, rate, bench.chain.height()).unwrap()
        };
        assert_eq!(ask(&mut bench, 9_000), funded, "nobody has it yet");
        bench.wallet.mark_broadcast(&funded.tx, 1_700_000_001).unwrap();
        assert_eq!(ask(&mut bench, FEERATE), funded);
        assert!(bench.wallet.waiting().is_empty());
        assert_eq!(ask(&mut bench, 9_000), funded, "until it is signed");
        let [waiting] = &bench.wallet.waiting()[..] else { panic!("{form}") };
        let waiting = waiting.clone();
        assert_eq!((waiting.form, waiting.amount_sat), (Form::Bump, 80_000));
        assert_eq!(ask(&mut bench, 90_000), funded);
        assert_eq!(bench.wallet.waiting(), std::slice::from_ref(&waiting), "one at a time");
        let mut bench = reopened(bench, &signer);
        let (psbt, exported) = bench.wallet.export(waiting.txid).unwrap();
        assert_eq!(exported, None, "its coins are watched already");
        assert_eq!(bench.wallet.unsettled()[0].1, funded.tx);
        let unsigned = bench.wallet.take_psbt(&psbt).unwrap_err();
        assert_eq!(unsigned.code(), "wallet.psbt_unsigned");
        let signed = signer.sign(&psbt).serialize();
        let (terms, bumped) = back(&mut bench, &signed);
        verify(&bumped.tx, &bench.prevouts(&bumped.tx)).unwrap();
        assert_eq!((terms, bumped.outpoints.len()), ([1; 32], 1));
        assert_eq!(inputs(&bumped.tx), inputs(&funded.tx));
        let paid = |funded: &Funded| funded.tx.output[funded.outpoints[0].vout as usize].clone();
        assert_eq!(
            (paid(&bumped), bumped.outpoints[0].vout),
            (paid(&funded), funded.outpoints[0].vout)
        );
        assert!((8_900..9_200).contains(&rate_sat_kvb(&bumped)), "{}", rate_sat_kvb(&bumped));
        assert!(bench.wallet.waiting().is_empty());
        bench.wallet.mark_broadcast(&bumped.tx, 1_700_000_002).unwrap();
        assert_eq!(bench.wallet.unsettled()[0].1, bumped.tx);
        assert_eq!(ask(&mut bench, 9_000), bumped);
    }
}

#[test]
fn a_better_fee_is_nobodys_wish_once_a_block_or_a_cancel_decides() {
    for end in ["mined", "bump mined", "cancel"] {
        let signer = Signer::new("wpkh", 9);
        let mut bench = bench(&signer, &[50_000]);
        let psbt = export(&mut bench, 1, 20_000);
        let (_, funded) = back(&mut bench, &signer.sign(&psbt).serialize());
        bench.wallet.mark_broadcast(&funded.tx, 1_700_000_001).unwrap();
        let outputs = [(foreign_script(1), 20_000)];
        let height = bench.chain.height();
        assert_eq!(bench.wallet.fund([1; 32], &outputs, 9_000, height).unwrap(), funded);
        let (psbt, _) = bench.wallet.export(bench.wallet.waiting()[0].txid).unwrap();
        let bump = finished(&signer.sign(&psbt));
        match end {
            "mined" => bench.mine(vec![funded.tx.clone()]),
            "bump mined" => bench.mine(vec![bump.clone()]),
            _ => assert_eq!(bench.cancel(1, 20_000).unwrap_err().code(), "wallet.unsigned"),
        }
        let waiting: Vec<Form> = bench.wallet.waiting().iter().map(|w| w.form).collect();
        let expected = if end == "cancel" { vec![Form::Cancel] } else { vec![] };
        assert_eq!(waiting, expected, "{end}");
        match end {
            "mined" => assert_eq!(bench.fund(1, 20_000).unwrap(), funded),
            "bump mined" => assert_eq!(bench.fund(1, 20_000).unwrap().tx, bump, "taken over"),
            _ => {
                let late = bench.wallet.take_psbt(&signer.sign(&psbt).serialize()).unwrap_err();
                assert_eq!(late.code(), "wallet.psbt_outputs", "another form waits");
            }
        }
    }
}

#[test]
fn what_waits_has_the_names_that_people_read() {
    let names = [Form::Fund, Form::Payment, Form::Bump, Form::Cancel].map(Form::name);
    assert_eq!(names, ["fund", "payment", "bump", "cancel"]);
}
