//! Random histories against a model: no coin in two live transactions.

use crate::bench::*;

#[derive(Debug, Clone)]
enum Step {
    Fund(u8, u64),
    Cancel(u8, u64),
    Release(u8),
    Broadcast(u8),
    Mine,
    Reorganise,
    Reopen,
}

fn any_step() -> impl Strategy<Value = Step> {
    let terms = || 1u8..6;
    prop_oneof![
        4 => (terms(), 1_000u64..60_000).prop_map(|(t, sat)| Step::Fund(t, sat)),
        1 => (terms(), 1_000u64..9_000).prop_map(|(t, rate)| Step::Cancel(t, rate)),
        1 => terms().prop_map(Step::Release),
        3 => terms().prop_map(Step::Broadcast),
        1 => Just(Step::Mine),
        1 => Just(Step::Reorganise),
        1 => Just(Step::Reopen),
    ]
}

/// What the wallet's user knows: what it was handed out, and what it gave back.
#[derive(Default)]
struct Model {
    live: BTreeMap<u8, Transaction>,
    broadcast: Vec<Transaction>,
    known: BTreeMap<OutPoint, TxOut>,
    made: BTreeMap<Txid, Transaction>,
}

impl Model {
    fn learn(&mut self, tx: &Transaction) {
        let txid = tx.compute_txid();
        self.made.insert(txid, tx.clone());
        for (vout, output) in tx.output.iter().enumerate() {
            self.known.insert(OutPoint::new(txid, vout as u32), output.clone());
        }
    }

    fn hand_out(&mut self, chain: &Chain, terms: u8, tx: Transaction) {
        let prevouts: Vec<_> = inputs(&tx).iter().map(|o| self.known[o].clone()).collect();
        verify(&tx, &prevouts).unwrap();
        self.learn(&tx);
        self.live.insert(terms, tx);
        let can_come = self.live.values().filter(|tx| !self.is_dead(chain, tx));
        let spent: Vec<_> = can_come.flat_map(inputs).collect();
        let distinct: BTreeSet<_> = spent.iter().collect();
        assert_eq!(spent.len(), distinct.len(), "a coin is spent by two live transactions");
    }

    /// Whether a coin of a transaction went to another one, or will never be.
    fn is_dead(&self, chain: &Chain, tx: &Transaction) -> bool {
        let mined: Vec<_> = chain.blocks.iter().flat_map(|b| b.txdata.clone()).collect();
        if mined.contains(tx) {
            return false;
        }
        let is_spent = |coin: &OutPoint| mined.iter().any(|tx| inputs(tx).contains(coin));
        let made_by = |coin: &OutPoint| self.made.get(&coin.txid);
        inputs(tx).iter().any(|coin| {
            is_spent(coin) || made_by(coin).is_some_and(|parent| self.is_dead(chain, parent))
        })
    }

    /// The broadcast transactions that the chain can take, later ones first in a conflict.
    fn minable(&self, chain: &Chain) -> Vec<Transaction> {
        let mined: Vec<_> = chain.blocks.iter().flat_map(|b| b.txdata.clone()).collect();
        let mut spent: BTreeSet<_> = mined.iter().flat_map(inputs).collect();
        let mut there: BTreeSet<_> = mined.iter().map(Transaction::compute_txid).collect();
        let mut chosen: Vec<Transaction> = Vec::new();
        for tx in &self.broadcast {
            let rivals = |t: &&Transaction| inputs(t).iter().any(|coin| inputs(tx).contains(coin));
            let replaced = self.broadcast.iter().rev().find(rivals) != Some(tx);
            let fits = inputs(tx).iter().all(|o| there.contains(&o.txid) && !spent.contains(o));
            if fits && !replaced {
                spent.extend(inputs(tx));
                there.insert(tx.compute_txid());
                chosen.push(tx.clone());
            }
        }
        chosen
    }
}

fn play(bench: Bench, model: &mut Model, step: Step) -> Bench {
    let mut bench = bench;
    match step {
        Step::Fund(terms, sat) => {
            if let Ok(funded) = bench.fund(terms, sat) {
                assert_eq!(bench.fund(terms, sat).unwrap(), funded);
                model.hand_out(&bench.chain, terms, funded.tx);
            }
        }
        Step::Cancel(terms, rate) => {
            if let Ok(cancel) = bench.cancel(terms, rate) {
                let coins = inputs(&model.live[&terms]);
                assert!(inputs(&cancel.tx).iter().any(|coin| coins.contains(coin)));
                model.hand_out(&bench.chain, terms, cancel.tx);
            }
        }
        Step::Release(terms) => {
            // As the engine does: a transaction that was broadcast is not given up.
            let is_out = model.live.get(&terms).is_some_and(|tx| model.broadcast.contains(tx));
            if !is_out && bench.wallet.release([terms; 32]).is_ok() {
                model.live.remove(&terms);
            }
        }
        Step::Broadcast(terms) => {
            if let Some(tx) = model.live.get(&terms).filter(|tx| !model.broadcast.contains(tx)) {
                bench.wallet.mark_broadcast(tx, 1_700_000_000).unwrap();
                model.broadcast.push(tx.clone());
            }
        }
        Step::Mine => {
            let txs = model.minable(&bench.chain);
            bench.mine(txs);
        }
        Step::Reorganise if bench.chain.height() > 1 => {
            let disconnected = bench.chain.fork(1);
            let txs = model.minable(&bench.chain);
            let update = ChainUpdate { disconnected, ..bench.chain.mine(txs) };
            bench.apply(&update);
        }
        Step::Reorganise => {}
        Step::Reopen => bench = bench.reopen(),
    }
    bench
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn whatever_happens_no_coin_is_in_two_live_transactions(
        steps in prop::collection::vec(any_step(), 1..40),
    ) {
        let mut bench = Bench::with_coins(&[40_000, 50_000, 60_000, 70_000]);
        let mut model = Model::default();
        bench.chain.blocks[1].txdata.iter().for_each(|tx| model.learn(tx));
        for step in steps {
            bench = play(bench, &mut model, step);
            let b = bench.wallet.balance();
            prop_assert!(b.spendable_sat + b.locked_sat <= b.confirmed_sat + b.pending_sat);
        }
        let balance = bench.wallet.balance();
        let bench = bench.reopen();
        prop_assert_eq!(bench.wallet.balance(), balance);
    }
}
