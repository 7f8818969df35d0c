use bitcoin::key::{Keypair, TapTweak};
use bitcoin::secp256k1::{All, SecretKey};

use super::*;
use crate::ids::TermsHash;
use crate::settlement::Rail;
use crate::settlement::sample;

const RATE: u64 = 2_000;

fn pair(secp: &Secp256k1<All>, n: u8) -> Keypair {
    Keypair::from_secret_key(secp, &SecretKey::from_slice(&[n; 32]).unwrap())
}

/// Output key of a coin of key `n`.
fn output_key(secp: &Secp256k1<All>, n: u8) -> [u8; 32] {
    let key = pair(secp, n).tap_tweak(secp, None).to_keypair();
    key.x_only_public_key().0.serialize()
}

fn coin(secp: &Secp256k1<All>, n: u8, value_sat: u64) -> Coin {
    Coin { txid: [n; 32], vout: u32::from(n), value_sat, key: output_key(secp, n) }
}

fn change(value_sat: u64) -> Option<Change> {
    Some(Change { spk: [vec![0x51, 0x20], vec![7; 32]].concat(), value_sat })
}

/// The sample terms of two, of 600,000 and 400,000 sat, and what both put in.
fn two(secp: &Secp256k1<All>) -> (Vec<Contract>, Vec<Contribution>) {
    let terms = sample::two_funders(800);
    let rail = Rail::of(secp, &terms, TermsHash([7; 32])).unwrap();
    let first = Contribution {
        coins: vec![coin(secp, 1, 500_000), coin(secp, 2, 200_000)],
        change: change(99_000),
    };
    let second = Contribution { coins: vec![coin(secp, 3, 401_000)], change: None };
    (rail.contracts().to_vec(), vec![first, second])
}

/// Signs as a wallet does.
fn sign(secp: &Secp256k1<All>, joint: &Joint, vin: usize, n: u8) -> Signature {
    let key = pair(secp, n).tap_tweak(secp, None).to_keypair();
    let signature = secp.sign_schnorr_no_aux_rand(&joint.message(vin).unwrap(), &key).serialize();
    let (halves, _) = signature.as_chunks::<32>();
    <Signature>::try_from(halves).unwrap()
}

#[test]
fn a_contribution_pays_its_contract_its_change_and_its_size() {
    let secp = Secp256k1::new();
    let one = |value_sat, change| Contribution { coins: vec![coin(&secp, 1, value_sat)], change };
    // 231 + 172 + 21 of 4: 106 vB; with a change of 34 bytes 172 more: 149 vB.
    assert_eq!((one(0, None).vsize(), one(0, change(330)).vsize()), (106, 149));
    let many = |n: u8| Contribution {
        coins: (1..=n).map(|n| coin(&secp, n, 20_000)).collect(),
        change: None,
    };
    let table: [(Contribution, Result<(), &str>); 15] = [
        (one(10_212, None), Ok(())),
        (one(10_211, None), Err("joint.too_little")),
        (one(10_628, change(330)), Ok(())),
        (one(10_627, change(330)), Err("joint.too_little")),
        (one(9_999, None), Err("joint.too_little")),
        (one(u64::MAX, change(u64::MAX)), Err("joint.too_little")),
        (one(20_000, change(329)), Err("joint.malformed")),
        (one(20_000, Some(Change { spk: Vec::new(), value_sat: 330 })), Err("joint.malformed")),
        // What no node relays: an output of data, one to a key hash of old, a later version.
        (one(20_000, Some(Change { spk: vec![0x6a; 34], value_sat: 330 })), Err("joint.malformed")),
        (
            one(20_000, Some(Change { spk: vec![0x76, 0xa9, 0x14], value_sat: 330 })),
            Err("joint.malformed"),
        ),
        (
            one(
                20_000,
                Some(Change { spk: [vec![0x52, 0x20], vec![7; 32]].concat(), value_sat: 330 }),
            ),
            Err("joint.malformed"),
        ),
        (many(0), Err("joint.malformed")),
        (many(8), Ok(())),
        (many(9), Err("joint.malformed")),
        (
            Contribution { coins: vec![coin(&secp, 1, 9_000); 2], change: None },
            Err("joint.coin_twice"),
        ),
    ];
    for (contribution, expected) in table {
        let checked = contribution.check(10_000, RATE).map_err(JointError::code);
        assert_eq!(checked, expected, "{contribution:?}");
    }
    let mut no_point = one(20_000, None);
    no_point.coins[0].key = [0xff; 32];
    assert_eq!(no_point.check(10_000, RATE), Err(JointError::Malformed));
}

/// What all see is the same for all, and pays each contract and each change in full.
#[test]
fn the_whole_has_a_place_for_everybody() {
    let secp = Secp256k1::new();
    let (contracts, all) = two(&secp);
    let joint = Joint::new(&contracts, &all, RATE).unwrap();
    let paid: Vec<u64> = joint.tx().output.iter().map(|out| out.value.to_sat()).collect();
    assert_eq!(paid, [600_000, 400_000, 99_000]);
    let spent: Vec<OutPoint> = joint.tx().input.iter().map(|input| input.previous_output).collect();
    let coins = all.iter().flat_map(|one| &one.coins).map(Coin::outpoint);
    assert_eq!(spent, coins.collect::<Vec<_>>());
    for (all, error) in [
        (vec![all[0].clone()], JointError::Missing),
        (vec![all[0].clone(), all[0].clone()], JointError::CoinTwice),
        (vec![all[1].clone(), all[0].clone()], JointError::TooLittle),
    ] {
        assert_eq!(Joint::new(&contracts, &all, RATE), Err(error));
    }
}

/// Each signature holds for all outputs and its own coin, whatever the others put in.
#[test]
fn a_signature_holds_for_all_outputs_alone() {
    let secp = Secp256k1::new();
    let (contracts, all) = two(&secp);
    let joint = Joint::new(&contracts, &all, RATE).unwrap();
    let first = [sign(&secp, &joint, 0, 1), sign(&secp, &joint, 1, 2)];
    let second = [sign(&secp, &joint, 2, 3)];
    assert_eq!(joint.check_signatures(&secp, 0, &first), Ok(()));
    assert_eq!(joint.check_signatures(&secp, 1, &second), Ok(()));
    let table: [(usize, &[Signature], JointError); 6] = [
        (0, &first[..1], JointError::Missing),
        (1, &first, JointError::Missing),
        (2, &second, JointError::Missing),
        (1, &first[..1], JointError::Signature),
        (0, &[first[1], first[0]], JointError::Signature),
        (1, &[[[0xff; 32]; 2]], JointError::Signature),
    ];
    for (funder, signatures, error) in table {
        assert_eq!(joint.check_signatures(&secp, funder, signatures), Err(error), "{funder}");
    }
    let whole = joint.whole(&[&first, &second]).unwrap();
    assert_eq!(whole.compute_txid(), joint.tx().compute_txid());
    assert_eq!(joint.signatures(0, &whole).unwrap(), first);
    assert_eq!(joint.signatures(1, &whole).unwrap(), second);
    assert_eq!(joint.whole(&[&first]), Err(JointError::Missing));
    // Another puts in another coin of as much: what was signed holds all the same.
    let mut other = all.clone();
    other[1].coins = vec![coin(&secp, 4, 401_000)];
    let replaced = Joint::new(&contracts, &other, RATE).unwrap();
    assert_eq!(replaced.check_signatures(&secp, 0, &first), Ok(()));
    // Another takes a sat more back: it does not.
    let mut greedy = all.clone();
    greedy[0].change = change(99_001);
    let greedy = Joint::new(&contracts, &greedy, RATE).unwrap();
    assert_eq!(greedy.check_signatures(&secp, 1, &second), Err(JointError::Signature));
    // A coin of which less was declared than it holds.
    let mut lie = all;
    lie[1].coins[0].value_sat -= 1;
    let lie = Joint::new(&contracts, &lie, RATE).unwrap();
    assert_eq!(lie.check_signatures(&secp, 1, &second), Err(JointError::Signature));
}

/// A signature for the whole as it stands would not hold once somebody adds an input: it is not
/// what the others wait for.
#[test]
fn another_kind_of_signature_is_not_taken_from_the_wallet() {
    let secp = Secp256k1::new();
    let (contracts, all) = two(&secp);
    let joint = Joint::new(&contracts, &all, RATE).unwrap();
    let second = [sign(&secp, &joint, 2, 3)];
    let mut tx = joint.tx().clone();
    let signature = Schnorr::from_slice(second[0].as_flattened()).unwrap();
    for (sighash_type, taken) in
        [(SIGHASH, true), (TapSighashType::All, false), (TapSighashType::Default, false)]
    {
        let signature = taproot::Signature { signature, sighash_type };
        tx.input[2].witness = Witness::p2tr_key_spend(&signature);
        assert_eq!(joint.signatures(1, &tx).is_some(), taken, "{sighash_type:?}");
    }
    tx.input[2].witness = Witness::new();
    assert_eq!(joint.signatures(1, &tx), None);
}
