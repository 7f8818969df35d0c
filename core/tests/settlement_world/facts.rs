//! What a chain source shows of one contract, and what is made of it.

use bitcoin::{OutPoint, ScriptBuf, Transaction, Txid, Witness};
use capex_core::settlement::facts::{ChainFacts, ContractFacts, FundFact, Sighting};
use capex_core::settlement::facts::{Change, Facts, Standing};
use capex_core::settlement::script::Contract;
use capex_core::settlement::transaction::{KnownTx, spend_of};

use super::*;

struct Known {
    world: World,
    contract: Contract,
    x: [u8; 32],
    facts: Facts,
}

impl Known {
    fn new() -> Self {
        let mut world = World::new(Faults::default()).open();
        world.run("active", "settled");
        let (contract, _) = world.parties[BUYER].contract().unwrap();
        let x = world.view(SELLER).unwrap().preimage.unwrap();
        Self { world, contract, x, facts: Facts::none(1) }
    }

    /// A funding of the contract: one for each fee.
    fn fund(&self, fee_sat: u64) -> Transaction {
        let output = (self.contract.spk.clone(), self.contract.amount_sat);
        self.world.setup.pay(&[output], fee_sat).tx
    }

    /// A spend of an output by a witness.
    fn spend(&self, of: &Transaction, witness: &[&[u8]], sat: u64) -> Transaction {
        let mut tx = self.fund(1);
        tx.input[0].previous_output = OutPoint { txid: of.compute_txid(), vout: 0 };
        tx.input[0].witness = Witness::from_slice(witness);
        tx.output = vec![bitcoin::TxOut {
            value: bitcoin::Amount::from_sat(sat),
            script_pubkey: ScriptBuf::from_bytes(vec![0x51; 34]),
        }];
        tx
    }

    fn refund(&self, of: &Transaction, sat: u64) -> Transaction {
        let leaf = self.contract.refund.clone();
        self.spend(of, &[&[1; 64], leaf.as_bytes(), &[2; 33]], sat)
    }

    fn claim(&self, of: &Transaction, sat: u64) -> Transaction {
        let leaf = self.contract.claim.clone();
        self.spend(of, &[&self.x, &[1; 64], leaf.as_bytes(), &[2; 33]], sat)
    }

    fn see(&mut self, seen: &[(&Transaction, Option<u32>)]) -> Change {
        let seen = seen
            .iter()
            .map(|(tx, height)| Sighting { tx: KnownTx::new((*tx).clone()), height: *height })
            .collect();
        let facts = ChainFacts { height: 400, seen, ..ChainFacts::default() };
        self.facts.apply(std::slice::from_ref(&self.contract), &facts)
    }

    fn lose(&mut self, tx: &Transaction) {
        let disconnected = vec![tx.compute_txid()];
        let facts = ChainFacts { height: 400, disconnected, ..ChainFacts::default() };
        self.facts.apply(std::slice::from_ref(&self.contract), &facts);
    }

    fn one(&self) -> &ContractFacts {
        &self.facts.contracts()[0]
    }

    fn fund_txid(&self) -> Txid {
        self.one().fund.as_ref().unwrap().txid()
    }
}

#[test]
fn a_funding_that_stood_in_a_block_is_remembered_as_such() {
    let mut known = Known::new();
    let fund = known.fund(154);
    assert!(!known.see(&[(&fund, None)]).confirmed_fund);
    assert!(!known.facts.any_was_confirmed());
    assert!(known.see(&[(&fund, Some(301))]).confirmed_fund);
    known.lose(&fund);
    assert_eq!((known.one().fund_height(), known.facts.any_was_confirmed()), (None, true));

    // Seen in a block at once.
    let mut known = Known::new();
    assert!(known.see(&[(&fund, Some(301))]).confirmed_fund);
    assert!(known.facts.any_was_confirmed());
    let claim = known.claim(&fund, 40_000);
    assert!(!known.see(&[(&claim, None)]).confirmed_fund);
    assert_eq!(known.one().fund_height(), Some(301), "what is not shown again stays");
    let change = known.see(&[(&claim, None)]);
    assert_eq!((change.any, change.confirmed), (false, vec![]), "nothing new, and in no block");
    assert_eq!(known.see(&[(&claim, Some(303))]).confirmed, [claim.compute_txid()]);
}

#[test]
fn another_funding_counts_once_it_is_in_a_block() {
    let mut known = Known::new();
    let (first, second) = (known.fund(154), known.fund(300));
    known.see(&[(&first, None), (&second, None)]);
    assert_eq!(known.fund_txid(), first.compute_txid());
    let conflict = known.one().conflict.unwrap();
    assert_eq!((conflict.txid, conflict.fee_sat), (second.compute_txid(), 0));
    known.see(&[(&second, Some(302))]);
    assert_eq!((known.fund_txid(), known.one().conflict), (second.compute_txid(), None));

    // A third that spends the same coin stays a conflict.
    let mut known = Known::new();
    let third = known.world.setup.pay(&[], 190_000).tx;
    known.see(&[(&first, None), (&third, None)]);
    known.see(&[(&second, Some(302))]);
    assert_eq!(known.fund_txid(), second.compute_txid());
    let conflict = known.one().conflict.unwrap();
    // Nobody knows here what its inputs held.
    assert_eq!((conflict.txid, conflict.fee_sat), (third.compute_txid(), 0));
}

#[test]
fn a_spend_in_a_block_outlives_one_in_a_mempool() {
    let mut known = Known::new();
    let fund = known.fund(154);
    let (mined, waits) = (known.refund(&fund, 40_000), known.refund(&fund, 39_000));
    known.see(&[(&fund, Some(301)), (&mined, Some(302))]);
    known.see(&[(&waits, None)]);
    let refund = known.one().refund.unwrap();
    assert_eq!((refund.txid, refund.height), (mined.compute_txid(), Some(302)));
    assert_eq!(refund.fee_sat, 10_000);
    let (mined, waits) = (known.claim(&fund, 30_000), known.claim(&fund, 29_000));
    known.see(&[(&waits, None)]);
    known.see(&[(&mined, Some(303))]);
    known.see(&[(&waits, None)]);
    let (claim, x) = known.one().claim.unwrap();
    assert_eq!((claim.txid, x), (mined.compute_txid(), known.x));
    // In a mempool the latest counts.
    let mut known = Known::new();
    known.see(&[(&fund, Some(301)), (&mined, None)]);
    known.see(&[(&waits, None)]);
    assert_eq!(known.one().claim.unwrap().0.txid, waits.compute_txid());
}

#[test]
fn only_the_leaves_of_the_contract_claim_and_refund() {
    let known = Known::new();
    let fund = known.fund(154);
    let outpoint = OutPoint { txid: fund.compute_txid(), vout: 0 };
    let kind = |tx: &Transaction| spend_of(tx, outpoint, &known.contract).map(|(_, kind)| kind);
    assert_eq!(kind(&known.claim(&fund, 1)), Some(SpendKind::Claim(known.x)));
    assert_eq!(kind(&known.refund(&fund, 1)), Some(SpendKind::Refund));
    let (claim, refund) = (known.contract.claim.as_bytes(), known.contract.refund.as_bytes());
    assert_eq!(kind(&known.spend(&fund, &[&[1; 64]], 1)), Some(SpendKind::Taken));
    assert_eq!(kind(&known.spend(&fund, &[&[1; 64], &[0x50]], 1)), Some(SpendKind::Taken));
    let others: [(&str, &[&[u8]]); 7] = [
        ("the refund's leaf with a preimage", &[&known.x, &[1; 64], refund, &[2; 33]]),
        ("a leaf of neither, with a preimage", &[&known.x, &[1; 64], &[0x51], &[2; 33]]),
        ("the claim's leaf without one", &[&[1; 64], claim, &[2; 33]]),
        ("a leaf of neither", &[&[1; 64], &[0x51], &[2; 33]]),
        ("another preimage", &[&[9; 32], &[1; 64], claim, &[2; 33]]),
        ("a longer preimage", &[&[9; 33], &[1; 64], claim, &[2; 33]]),
        ("two parts of which none is an annex", &[&[1; 64], &[2; 33]]),
    ];
    for (what, witness) in others {
        assert_eq!(kind(&known.spend(&fund, witness, 1)), Some(SpendKind::Other), "{what}");
    }
    assert_eq!(kind(&fund), None, "spends something else");
}

#[test]
fn a_spend_by_key_pays_like_a_claim_and_reveals_nothing() {
    let mut known = Known::new();
    let fund = known.fund(154);
    let (first, second) =
        (known.spend(&fund, &[&[1; 64]], 49_000), known.spend(&fund, &[&[2; 65]], 48_000));
    known.see(&[(&fund, Some(301)), (&first, None)]);
    known.see(&[(&second, None)]);
    let taken = known.facts.taken().unwrap();
    assert_eq!((taken.txid, taken.fee_sat), (second.compute_txid(), 2_000), "the latest counts");
    assert_eq!((known.facts.paid(), known.facts.claim()), (Some(taken), None));
    assert_eq!(known.see(&[(&first, Some(302))]).confirmed, [first.compute_txid()]);
    let depths = |known: &Known| {
        let facts = &known.facts;
        [facts.taken_depth(303), facts.paid_depth(303), facts.claim_depth(303)]
    };
    assert_eq!(depths(&known), [2, 2, 0]);
    assert!(known.facts.is_spent(307, 6) && !known.facts.is_spent(306, 6));
    known.lose(&first);
    assert_eq!(depths(&known), [0, 0, 0]);
    // A claim in a block comes before a spend that waits.
    let claim = known.claim(&fund, 40_000);
    known.see(&[(&claim, Some(304))]);
    assert_eq!(known.facts.paid().unwrap().txid, claim.compute_txid());
}

#[test]
fn a_better_form_replaces_only_a_funding_that_waits_and_only_if_it_pays() {
    let mut known = Known::new();
    let (first, second) = (known.fund(154), known.fund(300));
    let contracts = [known.contract.clone()];
    let other = known.world.setup.pay(&[], 500).tx;
    known.see(&[(&first, None)]);
    known.facts.replace_fund(&contracts, &KnownTx::new(other));
    assert_eq!(known.fund_txid(), first.compute_txid(), "it pays something else");
    known.see(&[(&first, Some(301))]);
    known.facts.replace_fund(&contracts, &KnownTx::new(second.clone()));
    assert_eq!(known.fund_txid(), first.compute_txid(), "it is in a block");
    known.lose(&first);
    known.facts.replace_fund(&contracts, &KnownTx::new(second.clone()));
    assert_eq!(known.fund_txid(), second.compute_txid());
}

#[test]
fn fundings_that_wait_are_each_named_once() {
    let known = Known::new();
    let (first, second) = (known.fund(154), known.fund(300));
    let fact = |tx: &Transaction, height| ContractFacts {
        fund: Some(FundFact {
            tx: KnownTx::new(tx.clone()),
            vout: 0,
            standing: Standing::Seen,
            height,
            was_confirmed: false,
        }),
        ..ContractFacts::default()
    };
    let waiting = |facts: Vec<ContractFacts>| {
        let facts = Facts::new(facts);
        facts.waiting_fundings().iter().map(|tx| tx.txid()).collect::<Vec<_>>()
    };
    let (a, b) = (first.compute_txid(), second.compute_txid());
    assert_eq!(waiting(vec![fact(&first, None), fact(&second, None)]), [a, b]);
    assert_eq!(waiting(vec![fact(&first, None), fact(&first, None)]), [a]);
    assert_eq!(waiting(vec![fact(&first, Some(301)), fact(&second, None)]), [b]);
    assert_eq!(waiting(vec![ContractFacts::default()]), []);
}

#[test]
fn blocks_that_a_rescan_did_not_find_are_forgotten() {
    let mut known = Known::new();
    let fund = known.fund(154);
    let claim = known.claim(&fund, 40_000);
    known.see(&[(&fund, Some(301)), (&claim, Some(302))]);
    let both = [fund.compute_txid(), claim.compute_txid()];
    assert!(!known.facts.forget_heights_but(&both), "nothing is missing");
    assert!(known.facts.forget_heights_but(&both[..1]));
    let claim = known.one().claim.unwrap().0;
    assert_eq!((known.one().fund_height(), claim.height), (Some(301), None));
}
