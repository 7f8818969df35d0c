//! Seeds, addresses and the faucet.

use crate::bench::*;

#[test]
fn the_stored_wallet_of_another_seed_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(open_wallet(dir.path()));
    let other = Keys::from_seed(&[8; 32], NETWORK).unwrap();
    let error = Wallet::open(&other, NETWORK, open_store(dir.path()), None).unwrap_err();
    assert_eq!(error.code(), "wallet.other_seed");
    let signet = Wallet::open(&keys(), Network::Signet, open_store(dir.path()), None);
    assert_eq!(signet.unwrap_err().code(), "wallet.other_seed");
}

const WORDS: &str = "abandon abandon abandon abandon abandon abandon abandon abandon abandon \
                     abandon abandon about";

#[test]
fn a_seed_file_is_created_private_and_read_again() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("seed");
    let load = |path: &Path| Keys::load_or_create(path, NETWORK, None, 1_800_000_000);
    let first = load(&path).unwrap();
    assert_eq!(first.birthday_s(), Some(1_800_000_000));
    let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file stays");
    let second = Keys::load_or_create(&path, NETWORK, None, 1_900_000_000).unwrap();
    assert_eq!(first.settlement_secret().unwrap(), second.settlement_secret().unwrap());
    assert_eq!(second.birthday_s(), first.birthday_s(), "it stays what it was");
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(Seed::load(&path, None).unwrap().words().split(' ').count(), 24);
    assert!(!format!("{first:?}").contains("1_800"));

    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
    assert_eq!(load(&path).unwrap_err().code(), "secret.permissions");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    let table = [
        (String::new(), "secret.invalid"),
        (text[1..].to_owned(), "secret.invalid"),
        (format!("{text}x"), "secret.invalid"),
        (text.replace("birthday 1", "birthday x"), "secret.invalid"),
        (text.replace("words ", "words zoo "), "secret.invalid"),
        (text.replace("words ", "sealed "), "secret.invalid"),
        ("7".repeat(2_000), "secret.invalid"),
        (format!("{}\n", "07".repeat(32)), "secret.old_form"),
    ];
    for (bad, code) in table {
        std::fs::write(&path, &bad).unwrap();
        assert_eq!(load(&path).unwrap_err().code(), code, "{bad:?}");
    }
}

#[test]
fn words_in_any_case_and_spacing_are_those_of_bip_39() {
    let seed = Seed::from_words(WORDS, None).unwrap();
    assert_eq!(*seed.words(), WORDS);
    let shouted = format!("  {}\n", WORDS.to_uppercase().replace(' ', "\n\t"));
    assert_eq!(*Seed::from_words(&shouted, None).unwrap().words(), WORDS);
    let keys = Keys::of(&seed, Network::Bitcoin).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut wallet = Wallet::open(&keys, Network::Bitcoin, open_store(dir.path()), None).unwrap();
    // The first address of BIP-86, whose vectors come from these words.
    let first = "bc1p5cyxnuxmeuwuvkwfem96lqzszd02n6xdcjrs20cac6yqjjwudpxqkedrcr";
    assert_eq!(wallet.next_address().unwrap().to_string(), first);
    let [receive, change] = wallet.descriptors();
    let account = "tr([73c5da0a/86'/0'/0']xpub6BgBgsespWvERF3LHQu6CnqdvfEvtMcQjYrcRzx53QJjS\
                   xarj2afYWcLteoGVky7D3UKDP9QyrLprQ3VCECoY49yfdDEHGCtMMj92pReUsQ";
    assert!(receive.starts_with(&format!("{account}/0/*)#")), "{receive}");
    assert!(change.starts_with(&format!("{account}/1/*)#")), "{change}");
    let wrong = [
        "",
        "abandon",
        &WORDS.replace("about", "abandon"),
        &WORDS.replace("about", "aboot"),
        &format!("{WORDS} about"),
    ];
    for words in wrong {
        assert!(Seed::from_words(words, None).is_err(), "{words}");
    }
}

#[test]
fn a_sealed_seed_opens_with_its_password_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("seed");
    let (right, wrong) = (Password::new("a b c"), Password::new("a b d"));
    let seed = Seed::from_words(WORDS, Some(7)).unwrap();
    seed.create(&path, Some(&Sealer::new(&right).unwrap())).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(!text.contains("abandon") && text.contains("birthday 7"), "{text}");
    assert_eq!(Seed::load(&path, None).unwrap_err().code(), "secret.sealed");
    assert_eq!(Seed::load(&path, Some(&wrong)).unwrap_err().code(), "secret.wrong_password");
    let opened = Seed::load(&path, Some(&right)).unwrap();
    assert_eq!((opened.words(), opened.birthday_s()), (seed.words(), Some(7)));
    // One that is there is never replaced by chance, but on purpose.
    let refused = Seed::generate(9).unwrap().create(&path, None).unwrap_err();
    assert!(refused.is_already_there(), "{refused}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    opened.replace(&path, None).unwrap();
    assert_eq!(Seed::load(&path, None).unwrap().words(), seed.words());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file stays");
}

#[test]
fn networks_have_keys_of_their_own() {
    let secret = |network| Keys::from_seed(&[7; 32], network).unwrap().settlement_secret().unwrap();
    assert_ne!(secret(Network::Bitcoin), secret(Network::Signet));
}

/// The first addresses of BIP-86's test vectors.
#[test]
fn the_first_addresses_are_those_of_bip_86() {
    let seed = "5eb00bbddcf069084889a8ab9155568165f5c453ccb85e70811aaed6f6da5fc1\
                9a5ac40b389cd370d086206dec8aa6c43daea6690f20ad3d8d48b2d2ce9e38e4";
    let seed = <Vec<u8> as bitcoin::hex::FromHex>::from_hex(seed).unwrap();
    let keys = Keys::from_seed(&seed, Network::Bitcoin).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut wallet = Wallet::open(&keys, Network::Bitcoin, open_store(dir.path()), None).unwrap();
    let first = "bc1p5cyxnuxmeuwuvkwfem96lqzszd02n6xdcjrs20cac6yqjjwudpxqkedrcr";
    let second = "bc1p4qhjn9zdvkux4e44uhx8tc55attvtyu358kutcqkudyccelu0was9fqzwh";
    assert_eq!(wallet.next_address().unwrap().to_string(), first);
    assert_eq!(wallet.next_address().unwrap().to_string(), second);
    let change = "bc1p3qkhfews2uk44qtvauqyr2ttdsw7svhkl9nkm9s9c3x4ax5h60wqwruhk7";
    let change: Address<_> = change.parse().unwrap();
    assert!(wallet.watched_scripts().contains(&change.assume_checked().script_pubkey()));
}

#[test]
fn unpaid_scripts_of_trades_are_handed_out_again() {
    let mut bench = Bench::with_coins(&[]);
    let taken = BTreeSet::new();
    let first = bench.wallet.trade_scripts(3, &taken).unwrap();
    for _ in 0..20 {
        bench = bench.reopen();
        assert_eq!(bench.wallet.trade_scripts(3, &taken).unwrap(), first, "after a restart");
    }
    // One is in open terms, one was paid to, and a person asked for an address.
    let taken = BTreeSet::from([first[0].clone()]);
    bench.mine(vec![payment(1, first[1].clone(), 50_000)]);
    let asked = bench.wallet.next_address().unwrap().script_pubkey();
    let second = bench.wallet.trade_scripts(3, &taken).unwrap();
    assert_eq!(second[0], first[2]);
    assert!(second[1..].iter().all(|script| !first.contains(script) && *script != asked));
    let mut bench = bench.reopen();
    assert_eq!(bench.wallet.trade_scripts(3, &taken).unwrap(), second);
    // The terms came to nothing.
    let third = bench.wallet.trade_scripts(3, &BTreeSet::new()).unwrap();
    assert_eq!(third[0], first[0]);
}

#[test]
fn a_wallet_from_its_seed_finds_what_a_wider_look_reaches() {
    let mut bench = Bench::with_coins(&[]);
    let scripts = bench.wallet.fresh_scripts(150).unwrap();
    bench.mine(vec![payment(1, scripts[149].clone(), 70_000)]);
    assert_eq!(bench.wallet.balance().confirmed_sat, 70_000);
    let dir = tempfile::tempdir().unwrap();
    let mut wallet = open_wallet(dir.path());
    let blocks = (1..).zip(bench.chain.blocks[1..].iter().cloned()).collect();
    let update = bench.chain.update(blocks);
    wallet.apply(&update, 1_700_000_000).unwrap();
    assert_eq!(wallet.balance().confirmed_sat, 0, "beyond the gap");
    for gap in [0, 100_001] {
        assert_eq!(wallet.widen(gap).unwrap_err().code(), "wallet.bad_gap");
    }
    wallet.widen(160).unwrap();
    drop(wallet);
    let mut wallet = open_wallet(dir.path());
    assert_eq!(wallet.first_height(), 1);
    wallet.apply(&update, 1_700_000_000).unwrap();
    assert_eq!(wallet.balance().confirmed_sat, 70_000, "kept, and the same blocks again");
}

#[test]
fn the_faucet_pays_in_four_parts() {
    let secp = Secp256k1::new();
    let faucet = Keypair::from_seckey_slice(&secp, &[3; 32]).unwrap();
    let output = faucet.tap_tweak(&secp, None).to_keypair().x_only_public_key().0;
    let own = ScriptBuf::new_p2tr_tweaked(
        bitcoin::key::TweakedPublicKey::dangerous_assume_tweaked(output),
    );
    let coin = |n: u8| (OutPoint::new(Txid::from_byte_array([n; 32]), 0), 5_000_000_000);
    let coins = [coin(1), coin(2), coin(3)];
    let to = [1, 2, 3, 4].map(foreign_script);
    let tx = faucet_spend(&coins, &faucet, to.clone(), 7_000_000_003, FEERATE).unwrap();
    assert_eq!(inputs(&tx), [coins[0].0, coins[1].0], "as many coins as needed, in order");
    let prevout = TxOut { value: Amount::from_sat(5_000_000_000), script_pubkey: own.clone() };
    verify(&tx, &vec![prevout; 2]).unwrap();
    let paid: Vec<_> = tx.output.iter().map(|o| o.value.to_sat()).collect();
    assert_eq!(paid[..4], [1_750_000_003, 1_750_000_000, 1_750_000_000, 1_750_000_000]);
    assert!(tx.output.iter().zip(&to).all(|(o, script)| o.script_pubkey == *script));
    assert_eq!(tx.output[4].script_pubkey, own);
    let fee = 10_000_000_000 - paid.iter().sum::<u64>();
    assert_eq!(fee, (FEERATE * tx.vsize() as u64).div_ceil(1_000));

    let short = faucet_spend(&coins, &faucet, to.clone(), 15_000_000_000, FEERATE).unwrap_err();
    assert_eq!(short.code(), "wallet.insufficient_funds");
    let dust = faucet_spend(&coins, &faucet, to.clone(), 1_000, FEERATE).unwrap_err();
    assert_eq!(dust.code(), "wallet.bad_amount");
    let rate = faucet_spend(&coins, &faucet, to.clone(), 10_000, u64::MAX).unwrap_err();
    assert_eq!(rate.code(), "wallet.bad_feerate");
    let none = faucet_spend(&[], &faucet, to, 10_000, FEERATE).unwrap_err();
    assert_eq!(none.code(), "wallet.insufficient_funds");
}
