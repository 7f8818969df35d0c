//! A part of a transaction that others pay too: what the wallet names, signs, lends and takes back.

use capex_core::limits::JOINT_COINS_MAX;
use capex_core::settlement::joint::{Change, Contribution};

use crate::bench::*;

const SHARE_SAT: u64 = 30_000;
/// A key of somebody else's coin.
const OTHER: [u8; 32] = [33; 32];

fn named(bench: &mut Bench, sat: u64) -> Result<Contribution, WalletError> {
    bench.wallet.contribute([1; 32], &(foreign_script(1), sat), FEERATE, 1)
}

/// The whole, of the wallet's part and another's of 20,000 sat, whose coin is `other`.
fn whole_with(part: &Contribution, other: OutPoint) -> Transaction {
    let input = |previous_output| TxIn {
        previous_output,
        script_sig: ScriptBuf::new(),
        sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
        witness: Witness::new(),
    };
    let output = |script_pubkey, sat| TxOut { value: Amount::from_sat(sat), script_pubkey };
    let own = part.coins.iter().map(|coin| input(coin.outpoint()));
    let change = part
        .change
        .iter()
        .map(|Change { spk, value_sat }| output(ScriptBuf::from_bytes(spk.clone()), *value_sat));
    let contracts =
        [output(foreign_script(1), SHARE_SAT), output(foreign_script(2), 20_000)].into_iter();
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: own.chain([input(other)]).collect(),
        output: contracts.chain(change).collect(),
    }
}

fn others_coin(n: u8) -> OutPoint {
    OutPoint::new(Txid::from_byte_array([n; 32]), 7)
}

/// What all inputs of the whole spend, the other's last.
fn prevouts(part: &Contribution) -> Vec<TxOut> {
    let secp = Secp256k1::new();
    let own = part.coins.iter().map(|coin| {
        let key = bitcoin::XOnlyPublicKey::from_slice(&coin.key).unwrap();
        let key = bitcoin::key::TweakedPublicKey::dangerous_assume_tweaked(key);
        let script_pubkey = ScriptBuf::new_p2tr_tweaked(key);
        TxOut { value: Amount::from_sat(coin.value_sat), script_pubkey }
    });
    let key = Keypair::from_seckey_slice(&secp, &OTHER).unwrap().x_only_public_key().0;
    let script_pubkey = ScriptBuf::new_p2tr(&secp, key, None);
    own.chain([TxOut { value: Amount::from_sat(20_500), script_pubkey }]).collect()
}

/// The other signs its coin as everybody does.
fn signed_by_other(mut tx: Transaction, prevouts: &[TxOut]) -> Transaction {
    use bitcoin::sighash::{Prevouts, SighashCache, TapSighashType};
    let secp = Secp256k1::new();
    let (vin, sighash_type) = (tx.input.len() - 1, TapSighashType::AllPlusAnyoneCanPay);
    let one = Prevouts::One(vin, &prevouts[vin]);
    let hash = SighashCache::new(&tx).taproot_key_spend_signature_hash(vin, &one, sighash_type);
    let key = Keypair::from_seckey_slice(&secp, &OTHER).unwrap().tap_tweak(&secp, None);
    let message = bitcoin::secp256k1::Message::from(hash.unwrap());
    let signature = secp.sign_schnorr_no_aux_rand(&message, &key.to_keypair());
    let signature = bitcoin::taproot::Signature { signature, sighash_type };
    tx.input[vin].witness = Witness::p2tr_key_spend(&signature);
    tx
}

fn locked_sat(bench: &Bench) -> u64 {
    bench.wallet.balance().locked_sat
}

#[test]
fn a_part_is_named_once_and_locked_and_its_signatures_are_valid_whatever_coin_the_other_brings() {
    let mut bench = Bench::with_coins(&[50_000, 60_000]);
    let part = named(&mut bench, SHARE_SAT).unwrap();
    assert_eq!(part.check(SHARE_SAT, FEERATE), Ok(()));
    assert_eq!(locked_sat(&bench), part.coins[0].value_sat);
    assert_eq!(named(&mut bench, SHARE_SAT).unwrap(), part);
    assert_eq!(named(&mut bench, 31_000).unwrap_err().code(), "wallet.other_outputs");
    let mut bench = bench.reopen();
    assert_eq!(named(&mut bench, SHARE_SAT).unwrap(), part);
    let tx = whole_with(&part, others_coin(90));
    let signed = bench.wallet.sign_part([1; 32], &tx).unwrap();
    assert_eq!(signed.fee_sat, part.fee_sat(SHARE_SAT).unwrap());
    let prevouts = prevouts(&part);
    verify(&signed_by_other(signed.tx.clone(), &prevouts), &prevouts).unwrap();
    // The own signature holds with another coin, and not with another output.
    let mut replaced = signed.tx.clone();
    replaced.input[1].previous_output = others_coin(91);
    verify(&signed_by_other(replaced, &prevouts), &prevouts).unwrap();
    let mut greedy = signed.tx.clone();
    greedy.output[1].value += Amount::from_sat(1);
    assert!(verify(&signed_by_other(greedy, &prevouts), &prevouts).is_err());
    let mut bench = bench.reopen();
    assert_eq!(bench.wallet.sign_part([1; 32], &tx).unwrap(), signed);
}

#[test]
fn what_does_not_take_the_part_as_it_was_named_is_not_signed() {
    let mut bench = Bench::with_coins(&[50_000]);
    let part = named(&mut bench, SHARE_SAT).unwrap();
    let good = whole_with(&part, others_coin(90));
    let changed = |change: fn(&mut Transaction)| {
        let mut tx = good.clone();
        change(&mut tx);
        tx
    };
    let table = [
        ("without its coin", changed(|tx| drop(tx.input.remove(0)))),
        ("a sat less in the contract", changed(|tx| tx.output[0].value -= Amount::from_sat(1))),
        ("a sat less of change", changed(|tx| tx.output[2].value -= Amount::from_sat(1))),
        ("without its change", changed(|tx| drop(tx.output.pop()))),
    ];
    for (what, tx) in table {
        let refused = bench.wallet.sign_part([1; 32], &tx).unwrap_err();
        assert_eq!(refused.code(), "wallet.other_outputs", "{what}");
    }
    assert_eq!(bench.wallet.sign_part([2; 32], &good).unwrap_err().code(), "wallet.no_fund");
    bench.wallet.sign_part([1; 32], &good).unwrap();
    // One whole for one part.
    let other = whole_with(&part, others_coin(91));
    let refused = bench.wallet.sign_part([1; 32], &other).unwrap_err();
    assert_eq!(refused.code(), "wallet.other_outputs");
}

#[test]
fn a_part_of_too_many_coins_or_without_keys_is_not_named() {
    let mut bench = Bench::with_coins(&[3_600; 9]);
    let refused = named(&mut bench, SHARE_SAT).unwrap_err();
    assert_eq!((refused.code(), locked_sat(&bench)), ("wallet.too_many_coins", 0));
    assert_eq!(named(&mut bench, 99_000).unwrap_err().code(), "wallet.insufficient_funds");
    // As many as a part may have are not too many.
    let mut bench = Bench::with_coins(&[3_600; JOINT_COINS_MAX]);
    let part = named(&mut bench, 27_000).unwrap();
    assert_eq!((part.coins.len(), part.check(27_000, FEERATE)), (JOINT_COINS_MAX, Ok(())));
}

#[test]
fn a_part_that_was_not_signed_is_given_back_and_one_that_was_is_lent() {
    let mut bench = Bench::with_coins(&[50_000]);
    named(&mut bench, SHARE_SAT).unwrap();
    assert_eq!(bench.wallet.unsent(), vec![[1; 32]]);
    bench.wallet.release([1; 32]).unwrap();
    assert_eq!(locked_sat(&bench), 0);
    assert_eq!(named(&mut bench, SHARE_SAT).unwrap_err().code(), "wallet.released");

    let mut bench = Bench::with_coins(&[50_000]);
    let part = named(&mut bench, SHARE_SAT).unwrap();
    bench.wallet.sign_part([1; 32], &whole_with(&part, others_coin(90))).unwrap();
    // A life that knows nothing of it must not give it back.
    assert_eq!(bench.wallet.unsent(), Vec::<[u8; 32]>::new());
    assert_eq!(bench.wallet.exported().len(), 1);
    bench.wallet.lend([1; 32]).unwrap();
    assert_eq!(locked_sat(&bench), 0);
    let mut bench = bench.reopen();
    assert_eq!(locked_sat(&bench), 0);
    // The next payment takes its coin, which ends it.
    let next = bench.fund(2, 20_000).unwrap();
    assert_eq!(inputs(&next.tx), [part.coins[0].outpoint()]);
}

/// What the mempool of the own chain source holds, as an update of it says.
fn looked(bench: &mut Bench, fresh: &[&Transaction], waiting: &[&Transaction]) {
    let waiting = waiting.iter().map(|tx| tx.compute_txid()).collect();
    let mempool = fresh.iter().map(|tx| (*tx).clone()).collect();
    let waiting = Some(Arc::new(waiting));
    bench.apply(&ChainUpdate { mempool, waiting, ..bench.chain.update(vec![]) });
}

/// Given up, whoever sends it, it keeps its coins only while the mempool has it.
#[test]
fn a_whole_that_was_given_up_keeps_its_coins_while_it_waits_in_the_mempool() {
    for is_sent_here in [true, false] {
        let mut bench = Bench::with_coins(&[50_000]);
        let part = named(&mut bench, SHARE_SAT).unwrap();
        let signed = bench.wallet.sign_part([1; 32], &whole_with(&part, others_coin(90))).unwrap();
        let whole = signed_by_other(signed.tx, &prevouts(&part));
        if is_sent_here {
            bench.wallet.mark_broadcast(&whole, 1_700_000_001).unwrap();
        }
        bench.wallet.lend([1; 32]).unwrap();
        assert_eq!(locked_sat(&bench), if is_sent_here { 50_000 } else { 0 });
        looked(&mut bench, &[&whole], &[&whole]);
        let kept = Balance { confirmed_sat: 50_000, locked_sat: 50_000, ..Balance::default() };
        assert_eq!(bench.wallet.balance(), kept, "{is_sent_here}");
        assert_eq!(bench.fund(2, 20_000).unwrap_err().code(), "wallet.insufficient_funds");
        // Also in a next life, and until all that waits has been looked at.
        let mut bench = bench.reopen();
        bench.wallet.lend([1; 32]).unwrap();
        let none = ChainUpdate { waiting: None, ..bench.chain.update(vec![]) };
        bench.apply(&none);
        assert_eq!(bench.wallet.balance(), kept);
        assert_eq!(bench.wallet.unsettled(), Vec::new(), "nobody sends it again");
        looked(&mut bench, &[], &[]);
        let free = Balance { spendable_sat: 50_000, locked_sat: 0, ..kept };
        assert_eq!(bench.wallet.balance(), free);
        // Sent once more it keeps them once more.
        looked(&mut bench, &[&whole], &[&whole]);
        assert_eq!(bench.wallet.balance(), kept);
        looked(&mut bench, &[], &[]);
        let mut bench = bench.reopen();
        assert_eq!(bench.wallet.balance(), free);
        let next = bench.fund(2, 20_000).unwrap();
        assert_eq!(inputs(&next.tx), [part.coins[0].outpoint()]);
    }
}

/// A person who names them knows what it takes.
#[test]
fn coins_of_a_whole_that_waits_are_spent_by_who_names_them() {
    let mut bench = Bench::with_coins(&[50_000]);
    let part = named(&mut bench, SHARE_SAT).unwrap();
    let coin = part.coins[0].outpoint();
    let to = bench.wallet.next_address().unwrap();
    let pay = |bench: &mut Bench, coins: &[OutPoint]| {
        bench.wallet.send(&to, Amounts::All, 20_000, coins).map(|paid| inputs(&paid.tx))
    };
    // Not while the trade goes on.
    assert_eq!(pay(&mut bench, &[coin]).unwrap_err().code(), "wallet.coin_locked");
    let signed = bench.wallet.sign_part([1; 32], &whole_with(&part, others_coin(90))).unwrap();
    let whole = signed_by_other(signed.tx, &prevouts(&part));
    bench.wallet.mark_broadcast(&whole, 1_700_000_001).unwrap();
    bench.wallet.lend([1; 32]).unwrap();
    looked(&mut bench, &[], &[&whole]);
    assert_eq!(pay(&mut bench, &[]).unwrap_err().code(), "wallet.insufficient_funds");
    assert_eq!(pay(&mut bench, &[coin]).unwrap(), [coin]);
    let kept = bench.fund(2, 20_000).unwrap_err();
    assert_eq!(kept.code(), "wallet.insufficient_funds");
}

/// A reorganisation that takes it out of its block leaves it to the trade.
#[test]
fn a_whole_that_stood_in_a_block_and_left_it_keeps_its_coins_until_it_is_given_up_again() {
    let mut bench = Bench::with_coins(&[50_000]);
    let part = named(&mut bench, SHARE_SAT).unwrap();
    let signed = bench.wallet.sign_part([1; 32], &whole_with(&part, others_coin(90))).unwrap();
    let whole = signed_by_other(signed.tx, &prevouts(&part));
    bench.wallet.lend([1; 32]).unwrap();
    looked(&mut bench, &[&whole], &[&whole]);
    bench.mine(vec![whole.clone()]);
    let change_sat = part.change.as_ref().unwrap().value_sat;
    assert_eq!(bench.wallet.balance().confirmed_sat, change_sat);
    // It has left the mempool for a block, and is not free for that.
    looked(&mut bench, &[], &[]);
    assert_eq!(bench.wallet.unsettled(), Vec::new());
    let disconnected = bench.chain.fork(1);
    let update = bench.chain.mine(vec![]);
    bench.apply(&ChainUpdate { disconnected, ..update });
    assert_eq!(bench.wallet.unsettled(), vec![([1; 32], whole.clone())]);
    assert_eq!(bench.wallet.balance().spendable_sat, 0);
    bench.wallet.lend([1; 32]).unwrap();
    looked(&mut bench, &[], &[]);
    assert_eq!(bench.wallet.balance().spendable_sat, 50_000);
}

/// One that another has spent a coin of leaves the mempool without this wallet hearing of it.
#[test]
fn a_whole_that_was_sent_and_came_too_late_keeps_no_coin() {
    let mut bench = Bench::with_coins(&[50_000]);
    let part = named(&mut bench, SHARE_SAT).unwrap();
    let signed = bench.wallet.sign_part([1; 32], &whole_with(&part, others_coin(90))).unwrap();
    let whole = signed_by_other(signed.tx, &prevouts(&part));
    bench.wallet.mark_broadcast(&whole, 1_700_000_001).unwrap();
    assert_eq!(bench.wallet.unsettled(), vec![([1; 32], whole.clone())]);
    // Its change is not this wallet's alone to spend.
    assert_eq!(bench.wallet.balance().spendable_sat, 0);
    bench.wallet.lend([1; 32]).unwrap();
    looked(&mut bench, &[], &[]);
    let balance = bench.wallet.balance();
    let expected = Balance { confirmed_sat: 50_000, spendable_sat: 50_000, ..Balance::default() };
    assert_eq!(balance, expected);
    let mut bench = bench.reopen();
    assert_eq!(bench.wallet.balance(), expected);
    assert_eq!(bench.wallet.unsettled(), Vec::new());
    // It confirms all the same: whoever asks hears it, and nothing is paid twice.
    bench.mine(vec![whole]);
    let again = bench.wallet.fund([1; 32], &[(foreign_script(1), SHARE_SAT)], FEERATE, 1);
    assert_eq!(again.unwrap_err().code(), "wallet.confirmed");
    let change_sat = part.change.unwrap().value_sat;
    assert_eq!(bench.wallet.balance().confirmed_sat, change_sat);
}

/// Somebody adds an input to what all have signed, which gives it another id: it pays the same, and
/// is what is followed from then on.
#[test]
fn a_whole_that_was_sent_is_followed_to_one_with_a_further_input() {
    let mut bench = Bench::with_coins(&[50_000]);
    let part = named(&mut bench, SHARE_SAT).unwrap();
    let signed = bench.wallet.sign_part([1; 32], &whole_with(&part, others_coin(90))).unwrap();
    let whole = signed_by_other(signed.tx, &prevouts(&part));
    bench.wallet.mark_broadcast(&whole, 1_700_000_001).unwrap();
    let mut larger = whole.clone();
    let further = TxIn { previous_output: others_coin(91), ..larger.input[1].clone() };
    larger.input.push(further);
    let waiting = Some(Arc::new([larger.compute_txid()].into()));
    let seen = ChainUpdate { mempool: vec![larger.clone()], waiting, ..bench.chain.update(vec![]) };
    bench.wallet.apply(&seen, 1_700_000_002).unwrap();
    assert_eq!(bench.wallet.unsettled(), vec![([1; 32], larger.clone())]);
    // It is written: the next life sends the same again, and its block ends it.
    let mut bench = bench.reopen();
    assert_eq!(bench.wallet.unsettled(), vec![([1; 32], larger.clone())]);
    bench.mine(vec![larger]);
    assert_eq!(bench.wallet.unsettled(), Vec::new());
    let change_sat = part.change.unwrap().value_sat;
    assert_eq!(bench.wallet.balance().confirmed_sat, change_sat);
}
