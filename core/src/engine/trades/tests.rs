//! What strangers can fill of trades.

use std::collections::BTreeMap;

use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash;
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, Transaction, TxIn, TxOut};

use super::driver::Machine;
use super::registrar::State;
use super::*;
use crate::certificate::objects::Issue;
use crate::engine::kernel::{Kernel, Keys};
use crate::params::Params;
use crate::settlement::Rail;
use crate::settlement::buyer::{self, FundPlan, Lock, Payment, Signed};
use crate::settlement::check::SignedTerms;
use crate::settlement::facts::Facts;
use crate::settlement::objects::{Accept, LockGrant};
use crate::settlement::registrar::Consent;
use crate::settlement::sample;
use crate::settlement::transaction::{KnownTx, OwnTx};
use crate::test_support::devnet;
use crate::wire::Verified;

/// A register that is not asked.
struct Unasked;

impl Titles for Unasked {
    fn issue(
        &mut self,
        _: &mut Context<'_>,
        _: TradeId,
        _: &Fresh,
    ) -> Result<Verified<Issue>, &'static str> {
        Err("issue.not_claimed")
    }

    fn holder(&self, _: CertId) -> Option<Key> {
        None
    }

    fn lock(
        &mut self,
        _: &mut Context<'_>,
        _: &Verified<Terms>,
        _: &[Verified<Accept>],
    ) -> Result<Verified<LockGrant>, &'static str> {
        Err("lock.unknown_certificate")
    }

    fn release(&mut self, _: &mut Context<'_>, _: TermsHash, _: [u8; 32]) {}

    fn take_back(&mut self, _: &mut Context<'_>, _: TermsHash) {}

    fn activate(
        &mut self,
        _: &mut Context<'_>,
        _: &Verified<Terms>,
        _: &Transfer,
    ) -> Result<Envelope, &'static str> {
        Err("transfer.no_lock")
    }

    fn activation(&self, _: TermsHash, _: Key) -> Option<Envelope> {
        None
    }

    fn conflicting_lock(&self, _: Key, _: CertId, _: u32, _: u32, _: TermsHash) -> bool {
        false
    }
}

/// The trade of a number, for two hours from now on.
fn trade(number: usize) -> (Row, TradeId) {
    let mut trade = TradeId([0; 32]);
    trade.0[..8].copy_from_slice(&(number as u64).to_be_bytes());
    (Row { buy: trade.0, ..sample::row() }, trade)
}

fn void(number: usize) -> Vec<TradeEvent> {
    let code = "trade.too_many_open".to_owned();
    vec![TradeEvent::Void { trade: trade(number).1, code }]
}

const NOW_MS: TimeMs = 1_000_000_000;

#[test]
fn a_buyer_has_1024_trades_open_and_none_of_them_makes_place() {
    let mut kernel = Kernel::new(devnet(), Keys::new([1; 32], [2; 32]));
    let mut trades = Trades::default();
    let mut open = |trades: &mut Trades, number| {
        let (row, trade) = trade(number);
        let limits = BuyLimits {
            fee_cap_sat: 1_000,
            max_loss_sat: 10_000,
            features: 0,
            use_by: None,
            is_recallable: false,
        };
        let (seller, to) = (Key([3; 32]), kernel.context(0).me());
        let (partners, together) = (Vec::new(), None);
        let purchase = Purchase { seller, registrar: seller, to, limits, partners, together };
        trades.open_buy(&mut kernel.context(NOW_MS), &mut Unasked, &row, trade, purchase)
    };
    for number in 0..1024 {
        assert_eq!(open(&mut trades, number), [], "{number}");
    }
    assert_eq!(open(&mut trades, 1024), void(1024));
    assert_eq!(trades.buyers.len(), 1024);
    assert!(!trades.knows(&trade(1024).1));
    assert!((0..1024).all(|number| trades.buyers.get(&trade(number).1).is_some()));
}

#[test]
fn a_seller_has_1024_trades_open_and_still_answers_for_each_of_them() {
    let mut kernel = Kernel::new(devnet(), Keys::new([1; 32], [2; 32]));
    let mut trades = Trades::default();
    let mut open = |trades: &mut Trades, number| {
        let (row, trade) = trade(number);
        let goods = Goods::Capacity { units: Units::range(0, 2).unwrap(), features: 0 };
        let (ctx, buyer) = (&mut kernel.context(NOW_MS), Key([3; 32]));
        trades.open_sell(ctx, &mut Unasked, &row, trade, buyer, goods)
    };
    for number in 0..1024 {
        assert_eq!(open(&mut trades, number), [], "{number}");
    }
    assert_eq!(open(&mut trades, 1024), void(1024));
    assert_eq!(trades.sellers.len(), 1024);
    for (number, is_open) in [(0, true), (1023, true), (1024, false)] {
        let request = TermsRequest { trade_id: trade(number).1, ..request() };
        let request = TradeRequest::Terms(request);
        let mut ctx = kernel.context(NOW_MS);
        let (answer, _) = trades.on_request(&mut ctx, &mut Unasked, Key([9; 32]), request);
        assert_eq!(answer == Err(NO_AGREEMENT), !is_open, "{number}: {answer:?}");
    }
}

fn request() -> TermsRequest {
    let Terms { trade_id, to, funders, .. } = sample::terms(800);
    TermsRequest { trade_id, to, funders, tip_height: 800, use_by: None }
}

#[test]
fn a_provider_has_1024_locks_and_repeats_each_of_them() {
    let mut kernel = Kernel::new(devnet(), Keys::new([1; 32], [2; 32]));
    let mut trades = Trades::default();
    let (from, sample) = (kernel.context(0).me(), sample::terms(800));
    let buyer = sample.funders[0].key;
    let signed: Vec<Verified<Terms>> = (0..=OPEN_SETTLEMENTS_MAX)
        .map(|number| {
            let terms = Terms { trade_id: trade(number).1, from, ..sample.clone() };
            kernel.context(0).sign(terms)
        })
        .collect();
    let (new, locked) = signed.split_last().unwrap();
    let (ctx, titles) = (&mut kernel.context(NOW_MS), &mut Unasked);
    let ((), _) = turn!(trades, ctx, titles, |turn| {
        for terms in locked {
            let registrar = Registrar::locked(terms, sample::envelope(), &[]);
            let open = Open::load(turn, registrar);
            trades.registrars.restore(turn, open);
        }
    });
    let mut accept = |terms: &Verified<Terms>| {
        let terms = terms.envelope().clone();
        let request = TradeRequest::Accept { terms, accepts: Vec::new() };
        trades.on_request(ctx, titles, buyer, request).0
    };
    assert_eq!(accept(new), Err("trade.too_many_open"));
    for terms in [&locked[0], &locked[1023]] {
        assert_eq!(accept(terms), Ok(TradeReply::LockGrant(sample::envelope())));
    }
    assert_eq!(locked.len(), 1024);
}

#[test]
fn of_whatever_a_buyer_shows_64_inputs_are_watched() {
    for (contracts, expected) in [(1, 64 + 1), (8, 64 + 8)] {
        let mut kernel = Kernel::new(devnet(), Keys::new([1; 32], [2; 32]));
        let mut trades = Trades::default();
        let (ctx, titles) = (&mut kernel.context(NOW_MS), &mut Unasked);
        let shown = |contract: u32| {
            let mut facts = sample::contract_facts([Some(0), None, None, None]);
            let Some(fund) = &mut facts.fund else { panic!() };
            let input = |vout| TxIn {
                previous_output: OutPoint::new(Txid::all_zeros(), 1_000 * contract + vout),
                ..TxIn::default()
            };
            let mut tx = fund.tx.tx().clone();
            tx.input = (0..100).map(input).collect();
            (fund.tx, fund.vout) = (KnownTx::new(tx), contract);
            facts
        };
        let signed = sample::signed_terms(sample::terms(800));
        let consent = Consent { accept_id: [8; 32], release_at_ms: u64::MAX };
        let facts = Facts::new((0..contracts).map(shown).collect());
        let lock = sample::envelope();
        let (together, state) = (false, State::Locked);
        let registrar = Registrar { signed, lock, consent, together, facts, state };
        let ((), _) = turn!(trades, ctx, titles, |turn| {
            let open = Open::load(turn, registrar);
            trades.registrars.restore(turn, open);
        });
        kernel.out.flush();
        let effects = std::iter::from_fn(|| kernel.out.poll());
        let watched = effects.filter_map(|effect| match effect {
            Effect::Watch { outpoints, .. } => Some(outpoints.len()),
            _ => None,
        });
        assert_eq!(watched.collect::<Vec<_>>(), [expected], "{contracts}");
    }
}

/// What pays for the terms of a number.
fn plan(number: usize) -> FundPlan {
    FundPlan { terms: vec![TermsHash([number as u8; 32])], ..sample::plan(4_321) }
}

/// A buyer whose wallet is asked for the funding of that number.
fn funding(number: usize) -> Buyer {
    let (row, trade) = trade(number);
    let agreement = sample::agreement(sample::terms(800));
    let signed = Signed { agreement, accepts: Vec::new(), own: vec![0], release_at_ms: 4_321 };
    let lock = Lock { signed: sample::envelope(), attempt: 0 };
    let buyer = sample::buyer(buyer::State::Funding { signed, lock, plan: plan(number) });
    Buyer { trade, row, ..buyer }
}

#[test]
fn a_funding_names_its_purchase_and_until_when_it_can_be_sent() {
    let mut kernel = Kernel::new(devnet(), Keys::new([1; 32], [2; 32]));
    let mut trades = Trades::default();
    let (ctx, titles) = (&mut kernel.context(NOW_MS), &mut Unasked);
    let ((), _) = turn!(trades, ctx, titles, |turn| {
        for n in 1..=3 {
            let open = Open::load(turn, funding(n));
            trades.buyers.restore(turn, open);
        }
    });
    let found = trades.purchase_of(plan(2).id());
    assert_eq!(found, Some((trade(2).1, Some(4_321))));
    assert_eq!(trades.purchase_of(FundingId([9; 32])), None);
    assert!(trades.has_provider(&Key([1; 32])) && !trades.has_provider(&Key([2; 32])));
}

#[test]
fn a_failed_funding_that_nobody_waits_for_frees_no_coins() {
    let mut kernel = Kernel::new(devnet(), Keys::new([1; 32], [2; 32]));
    let mut trades = Trades::default();
    let late = FundingId([9; 32]);
    let failed = Err("wallet.refused".to_owned());
    let events = trades.on_funded(&mut kernel.context(NOW_MS), &mut Unasked, late, failed);
    assert_eq!(events, []);
    kernel.out.flush();
    assert_eq!(kernel.out.poll(), None);
}

#[test]
fn a_page_of_trades_begins_after_its_place() {
    let mut kernel = Kernel::new(devnet(), Keys::new([1; 32], [2; 32]));
    let mut trades = Trades::default();
    for number in 1..=5 {
        let (row, trade) = trade(number);
        let row = Row { epoch: number as u64 / 2, ..row };
        let goods = Goods::Capacity { units: Units::range(0, 2).unwrap(), features: 0 };
        let (ctx, buyer) = (&mut kernel.context(NOW_MS), Key([3; 32]));
        assert_eq!(trades.open_sell(ctx, &mut Unasked, &row, trade, buyer, goods), []);
        let row = Row { epoch: 10 + number as u64 / 2, ..row };
        let (ctx, to) = (&mut kernel.context(NOW_MS), Key([3; 32]));
        let limits = BuyLimits {
            fee_cap_sat: 1_000,
            max_loss_sat: 10_000,
            features: 0,
            use_by: None,
            is_recallable: false,
        };
        let (partners, together) = (Vec::new(), None);
        let purchase = Purchase { seller: to, registrar: to, to, limits, partners, together };
        let bought = TradeId([0x80 | number as u8; 32]);
        assert_eq!(trades.open_buy(ctx, &mut Unasked, &row, bought, purchase), []);
    }
    let numbers = |before| -> Vec<(u64, u8)> {
        let page = trades.newest(before, 10);
        let mut page: Vec<(u64, TradeId)> = page.map(|view| (view.row.epoch, view.trade)).collect();
        page.sort_unstable();
        page.into_iter().map(|(epoch, trade)| (epoch, trade.0[7])).collect()
    };
    let sells = [(0, 1), (1, 2), (1, 3), (2, 4), (2, 5)];
    let buys = [(10, 0x81), (11, 0x82), (11, 0x83), (12, 0x84), (12, 0x85)];
    assert_eq!(numbers(None), [&sells[..], &buys[..]].concat());
    assert_eq!(numbers(Some((1, trade(3).1))), sells[..2]);
    assert_eq!(numbers(Some((11, TradeId([0x83; 32])))), [&sells[..], &buys[..2]].concat());
}

#[test]
fn ended_sales_stay_in_memory_up_to_their_bound_the_newest_first() {
    let mut kernel = Kernel::new(devnet(), Keys::new([1; 32], [2; 32]));
    let mut past = Past::default();
    let mut keep = |past: &mut Past, number: usize| {
        let (row, trade) = trade(number);
        let row = Row { epoch: number as u64, ..row };
        let goods = Goods::Capacity { units: Units::range(0, 2).unwrap(), features: 0 };
        let (ctx, params) = (kernel.context(NOW_MS), devnet());
        let now = sample::now(&params, NOW_MS, 800);
        let seller = seller::offer(now, ctx.me(), &row, trade, Key([3; 32]), goods).unwrap();
        past.keep_seller(&Open::ended(ctx.secp, ctx.params, seller)).map(|gone| gone.trade)
    };
    for number in 0..1024 {
        assert_eq!(keep(&mut past, number), None, "{number}");
    }
    assert_eq!(keep(&mut past, 1024), Some(trade(0).1));
    assert_eq!(keep(&mut past, 1025), Some(trade(1).1));
    assert!(!past.has_sell(&trade(1).1) && past.has_sell(&trade(2).1));
    assert_eq!(past.views(Role::Seller).count(), 1024);
}

#[test]
fn a_funding_that_was_given_up_is_remembered_as_long_as_its_trade() {
    let kernel = &mut Kernel::new(devnet(), Keys::new([1; 32], [2; 32]));
    let ctx = kernel.context(NOW_MS);
    let mut past = Past::default();
    let hash = |number: usize| TermsHash(trade(number).1.0);
    for number in 0..=1024 {
        let mut agreement = sample::agreement(sample::terms(800));
        agreement.signed.hash = hash(number);
        let code = "fund.late".to_owned();
        let mut buyer = funding(number);
        buyer.row.epoch = number as u64;
        buyer.state = buyer::State::Aborted { code, agreement: Some(agreement) };
        past.keep_buyer(&Open::ended(ctx.secp, ctx.params, buyer));
    }
    let is_known = |number| past.is_unfunded(&FundingId::of(&[hash(number)]));
    assert!(!is_known(0) && (1..=1024).all(is_known));
}

#[test]
fn whoever_funded_its_last_lock_may_have_more_than_one() {
    let mut kernel = Kernel::new(devnet(), Keys::new([1; 32], [2; 32]));
    let ctx = &mut kernel.context(NOW_MS);
    let mut past = Past::default();
    let buyer = sample::terms(800).funders[0].key;
    let ended = |number: u8, height| {
        let signed = sample::signed_terms(sample::terms(800));
        let signed = SignedTerms { hash: TermsHash([number; 32]), ..signed };
        let facts = Facts::new(vec![sample::contract_facts([height, None, None, None])]);
        let consent = Consent { accept_id: [8; 32], release_at_ms: 0 };
        let state = State::Released { code: "fund.not_sent".to_owned() };
        let (lock, together) = (sample::envelope(), false);
        Registrar { signed, lock, consent, together, facts, state }
    };
    assert!(!past.has_funded(buyer));
    past.end_registrar(ctx, ended(1, Some(7)));
    assert!(past.has_funded(buyer) && !past.has_funded(Key([9; 32])));
    past.end_registrar(ctx, ended(2, None));
    assert!(!past.has_funded(buyer), "its last one counts");
    past.end_registrar(ctx, ended(3, Some(8)));
    assert!(past.has_funded(buyer));
}

#[test]
fn the_states_of_a_lock_have_names() {
    let (code, activation) = ("fund.not_sent".to_owned(), sample::envelope());
    let terms_hash = TermsHash([7; 32]);
    let transfer =
        Transfer { v: 1, terms_hash, x: [3; 32], spend_txid: [1; 32], vin: 0, quittance: None };
    let states = [
        State::Locked,
        State::Funded,
        State::Activated { transfer, activation },
        State::Released { code },
    ];
    assert_eq!(states.map(|state| state.name()), ["locked", "funded", "activated", "released"]);
}

/// A block was replaced, and another funding of the same terms stands in it.
#[test]
fn a_refund_spends_the_funding_that_stands_whatever_was_sent_before() {
    let mut kernel = Kernel::new(devnet(), Keys::new([1; 32], [2; 32]));
    (kernel.chain.up, kernel.chain.height) = (true, 960);
    let mut trades = Trades::default();
    let (ctx, titles) = (&mut kernel.context(NOW_MS), &mut Unasked);
    let agreement = sample::agreement(sample::terms(800));
    let rail = Rail::of(ctx.secp, agreement.terms(), agreement.hash()).unwrap();
    let spk = rail.spks().next().unwrap().clone();
    let pays = |n: u32, input: Vec<TxIn>| Transaction {
        version: Version::TWO,
        lock_time: LockTime::from_consensus(n),
        input,
        output: vec![TxOut { value: Amount::from_sat(1_000_000), script_pubkey: spk.clone() }],
    };
    let fund = |n| OutPoint { txid: pays(n, Vec::new()).compute_txid(), vout: 0 };
    let spends = |previous_output| vec![TxIn { previous_output, ..TxIn::default() }];
    let mut facts = sample::contract_facts([Some(810), None, None, None]);
    if let Some(fund) = &mut facts.fund {
        fund.tx = KnownTx::new(pays(2, Vec::new()));
    }
    let mut buyer = funding(1);
    let signed = Signed { agreement, accepts: Vec::new(), own: vec![0], release_at_ms: 0 };
    let lock = Lock { signed: sample::envelope(), attempt: 0 };
    let facts = Facts::new(vec![facts]);
    let payment = Payment { signed, lock, plan: plan(1), fee_sat: 100, quitted: None, facts };
    // It paid so much that no better one is due.
    let sent = OwnTx::new(pays(3, spends(fund(1))), 50_000);
    let phase = Phase::Refunding { refunds: BTreeMap::from([(0, sent)]) };
    buyer.state = buyer::State::Paying { payment: Box::new(payment), phase };
    let ((), _) = turn!(trades, ctx, titles, |turn| {
        let mut open = Open::load(turn, buyer);
        Machine::perform(&mut open, turn, buyer::Step::Refund);
    });
    kernel.out.flush();
    let effects = std::iter::from_fn(|| kernel.out.poll());
    let sent: Vec<OutPoint> = effects
        .filter_map(|effect| match effect {
            Effect::Broadcast { tx } => tx.input.first().map(|input| input.previous_output),
            _ => None,
        })
        .collect();
    assert_eq!(sent.last(), Some(&fund(2)), "{sent:?}");
}

#[test]
fn a_trade_that_was_given_up_counts_against_no_cap() {
    let params = Params { prepaid_cap_sat: sample::row().price_sat(), ..devnet() };
    let code = || "fund.late".to_owned();
    for (state, refused) in [
        (Some(Phase::Exported), true),
        (Some(Phase::Sent), true),
        // The provider may hold its bytes.
        (Some(Phase::Lapsed), true),
        (Some(Phase::Abandoned { code: code() }), false),
        (Some(Phase::Cancelled), false),
        (Some(Phase::Refunded), false),
        (None, false),
    ] {
        let mut kernel = Kernel::new(params.clone(), Keys::new([1; 32], [2; 32]));
        let mut trades = Trades::default();
        let mut buyer = funding(1);
        let agreement = sample::agreement(sample::terms(800));
        buyer.state = match state.clone() {
            Some(phase) => {
                let signed =
                    Signed { agreement, accepts: Vec::new(), own: vec![0], release_at_ms: 4_321 };
                let lock = Lock { signed: sample::envelope(), attempt: 0 };
                let (plan, facts) = (plan(1), Facts::none(1));
                let payment = Payment { signed, lock, plan, fee_sat: 1, quitted: None, facts };
                buyer::State::Paying { payment: Box::new(payment), phase }
            }
            None => buyer::State::Aborted { code: code(), agreement: Some(agreement) },
        };
        let (ctx, titles) = (&mut kernel.context(NOW_MS), &mut Unasked);
        let read = Read {
            buyers: vec![buyer.clone()],
            sellers: Vec::new(),
            registrars: Vec::new(),
            past: Vec::new(),
        };
        let ((), _) = turn!(trades, ctx, titles, |turn| trades.take_back(turn, read));
        let (row, trade) = trade(2);
        let limits = BuyLimits {
            fee_cap_sat: 1_000,
            max_loss_sat: 10_000,
            features: 0,
            use_by: None,
            is_recallable: false,
        };
        let (seller, registrar) = (buyer.registrar, buyer.registrar);
        let (to, partners) = (ctx.me(), Vec::new());
        let together = None;
        let purchase = Purchase { seller, registrar, to, limits, partners, together };
        let events = trades.open_buy(ctx, titles, &row, trade, purchase);
        let void = TradeEvent::Void { trade, code: "trade.prepaid_cap".to_owned() };
        assert_eq!(events.contains(&void), refused, "{state:?}");
    }
}
