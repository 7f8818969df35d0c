//! What a seller does next, phase by phase and deadline by deadline.

use super::super::sample;
use super::*;
use crate::params::{Params, SettleTimes};

/// t0 of the sample terms: F − g, F, F + g, R, T_R are 830, 836, 842, 914, 950.
const T0: u32 = 800;
const UNTIL_MS: TimeMs = 60_000;
/// When a lock that nobody funds is gone, unix ms.
const FREE_MS: TimeMs = 100_000;
const NO: Option<u32> = None;
const WAITS: Option<u32> = Some(0);

fn agreed(contracts: &[[Option<u32>; 4]], phase: Phase) -> State {
    let terms = if contracts.len() == 2 { sample::two_funders(T0) } else { sample::terms(T0) };
    let facts = Facts::new(contracts.iter().map(|c| sample::contract_facts(*c)).collect());
    let agreement = sample::agreement(terms);
    State::Agreed {
        signed: Box::new(Signed {
            agreement,
            key_index: 1,
            claimed_from: None,
            handed: None,
            facts,
        }),
        phase,
    }
}

fn granted() -> Phase {
    Phase::LockGranted { until_ms: FREE_MS }
}

fn claims() -> BTreeMap<u8, OwnTx> {
    BTreeMap::from([(0, OwnTx { tx: sample::tx(), fee_sat: 155 })])
}

fn claim_sent(heights: [Option<u32>; 4]) -> State {
    agreed(&[heights], Phase::ClaimSent { claims: claims() })
}

fn seller(state: State) -> Seller {
    let units = Units::range(0, 2).unwrap();
    Seller {
        trade: TradeId([10; 32]),
        row: sample::row(),
        buyer: Key([2; 32]),
        registrar: Key([1; 32]),
        goods: Goods::Capacity { units, features: 0 },
        opened_ms: 0,
        state,
        is_kept: false,
    }
}

fn settled(state: State, tip: u32) -> &'static str {
    let params = sample::params("mainnet");
    let mut seller = seller(state);
    seller.settle(sample::now(&params, 0, tip));
    let name = seller.state.name();
    assert!(!seller.settle(sample::now(&params, 0, tip)), "{name}: settling twice moves");
    name
}

#[test]
fn the_chain_decides_the_state() {
    let terms = || Phase::TermsSigned { until_ms: UNTIL_MS };
    let seen = |fund| agreed(&[[fund, NO, NO, NO]], Phase::FundSeen);
    let sent = |claim| claim_sent([Some(801), claim, NO, NO]);
    let table = [
        (agreed(&[[NO; 4]], terms()), 801, "terms_signed"),
        // The buyer's funding says that a lock was granted.
        (agreed(&[[WAITS, NO, NO, NO]], terms()), 801, "fund_seen"),
        (agreed(&[[NO; 4]], granted()), 801, "lock_granted"),
        (agreed(&[[WAITS, NO, NO, NO]], granted()), 801, "fund_seen"),
        (seen(Some(801)), 805, "fund_seen"),
        (seen(Some(801)), 806, "fund_final"),
        (seen(Some(836)), 841, "fund_final"),
        (seen(Some(837)), 837, "never_reveal"),
        // A reorganisation makes the tip shorter.
        (agreed(&[[Some(801), NO, NO, NO]], Phase::FundFinal), 805, "fund_seen"),
        (agreed(&[[WAITS, NO, NO, NO]], Phase::FundFinal), 806, "fund_seen"),
        (sent(WAITS), 810, "claim_sent"),
        (sent(Some(810)), 810, "claimed"),
        (sent(Some(810)), 814, "claimed"),
        (sent(Some(810)), 815, "settled"),
    ];
    for (state, tip, expected) in table {
        let before = state.name();
        assert_eq!(settled(state, tip), expected, "{before} at {tip}");
    }
}

#[test]
fn two_funders_must_both_be_there() {
    let funded = |height| [Some(height), NO, NO, NO];
    let claimed = |height| [Some(801), Some(height), NO, NO];
    let refunded = [Some(801), NO, Some(951), NO];
    let sent = || Phase::ClaimSent { claims: claims() };
    let table = [
        ([funded(801), funded(803)], Phase::FundSeen, 808, "fund_final"),
        ([funded(801), funded(803)], Phase::FundSeen, 807, "fund_seen"),
        ([funded(801), [NO; 4]], Phase::FundSeen, 830, "fund_seen"),
        ([funded(801), funded(837)], Phase::FundSeen, 837, "never_reveal"),
        ([claimed(810), funded(801)], sent(), 830, "claimed"),
        ([claimed(810), claimed(812)], sent(), 816, "claimed"),
        ([claimed(810), claimed(812)], sent(), 817, "settled"),
        // One claim lost its race: the rest is paid, and the certificate has moved.
        ([claimed(810), refunded], sent(), 955, "claimed"),
        ([claimed(810), refunded], sent(), 956, "settled"),
        ([refunded, refunded], sent(), 956, "claim_sent"),
    ];
    for (contracts, phase, tip, expected) in table {
        let got = settled(agreed(&contracts, phase), tip);
        assert_eq!(got, expected, "{contracts:?} at {tip}");
    }
    let params = sample::params("mainnet");
    let due = |contracts: [[Option<u32>; 4]; 2], phase, tip| {
        seller(agreed(&contracts, phase)).due(sample::now(&params, 0, tip), true)
    };
    let late = Step::NeverReveal("settle.too_late_to_reveal");
    // One confirmed, one missing: neither released by height nor claimed.
    assert_eq!(due([funded(801), [NO; 4]], Phase::FundSeen, 842), Step::Wait);
    assert_eq!(due([funded(801), [NO; 4]], Phase::FundSeen, 915), late);
    let half = || Phase::Claimed { claims: claims() };
    assert_eq!(due([claimed(810), funded(801)], half(), 812), Step::Claim);
    assert_eq!(due([claimed(810), claimed(811)], half(), 812), Step::Wait);
    let lost = Step::Release("settle.claim_lost");
    assert_eq!(due([refunded, refunded], sent(), 956), lost);
    assert_eq!(due([refunded, funded(801)], sent(), 956), Step::Claim);
}

#[test]
fn what_is_due() {
    let offered = || State::Offered { until_ms: UNTIL_MS };
    let terms = || agreed(&[[NO; 4]], Phase::TermsSigned { until_ms: UNTIL_MS });
    let locked = || agreed(&[[NO; 4]], granted());
    // The buyer says that it paid, and the own chain source does not know of it.
    let shown = || {
        let mut state = agreed(&[[WAITS, NO, NO, NO]], granted());
        if let State::Agreed { signed, .. } = &mut state {
            signed.facts = sample::unseen();
        }
        state
    };
    let seen = |fund| agreed(&[[fund, NO, NO, NO]], Phase::FundSeen);
    let ready = || agreed(&[[Some(801), NO, NO, NO]], Phase::FundFinal);
    let never = |refund| {
        let code = "settle.too_late_to_reveal".to_owned();
        agreed(&[[Some(801), NO, refund, NO]], Phase::NeverReveal { code })
    };
    let late = Step::NeverReveal("settle.too_late_to_reveal");
    let silent = Step::Release("trade.buyer_silent");
    let unconfirmed = Step::Release("fund.not_confirmed");
    // The window of the sample terms, hours: [500,000, 500,004).
    let starts = 500_000 * 3_600_000;
    let table = [
        (offered(), 59_999, 800, Step::Wait),
        (offered(), 60_000, 800, silent),
        (terms(), 59_999, 800, Step::Wait),
        (terms(), 60_000, 800, silent),
        (locked(), 90_000, 841, Step::Wait),
        (locked(), FREE_MS, 801, Step::Release("fund.not_sent")),
        (shown(), FREE_MS, 841, Step::Wait),
        (shown(), FREE_MS, 842, unconfirmed),
        (locked(), 90_000, 842, unconfirmed),
        (seen(WAITS), 90_000, 841, Step::Wait),
        (seen(WAITS), 90_000, 842, unconfirmed),
        // Confirmed, so never by height alone.
        (seen(Some(836)), 90_000, 842, Step::Wait),
        (seen(Some(836)), 90_000, 915, late),
        (ready(), 90_000, 914, Step::Claim),
        (ready(), 90_000, 915, late),
        (ready(), starts - 1, 806, Step::Quit),
        (ready(), starts, 806, late),
        // After the reveal there is no way back, whatever the height.
        (claim_sent([Some(801), WAITS, NO, NO]), starts, 960, Step::Claim),
        (claim_sent([Some(801), NO, Some(951), NO]), 90_000, 955, Step::Claim),
        (
            claim_sent([Some(801), NO, Some(951), NO]),
            90_000,
            956,
            Step::Release("settle.claim_lost"),
        ),
        // The buyer's replacement won a reorganisation: there is nothing left to claim.
        (claim_sent([WAITS, WAITS, NO, Some(835)]), 90_000, 839, Step::Claim),
        (claim_sent([WAITS, WAITS, NO, Some(835)]), 90_000, 840, Step::Release("fund.cancelled")),
        (never(NO), 90_000, 960, Step::Wait),
        (never(Some(951)), 90_000, 955, Step::Wait),
        (never(Some(951)), 90_000, 956, Step::Release("settle.refunded")),
        (never(NO), 500_004 * 3_600_000, 960, Step::Release("settle.window_over")),
    ];
    let params = sample::params("mainnet");
    for (state, now_ms, tip, expected) in table {
        let seller = seller(state);
        let got = seller.due(sample::now(&params, now_ms, tip), true);
        assert_eq!(got, expected, "{} at {now_ms} ms, {tip}", seller.state.name());
    }
}

#[test]
fn while_a_rescan_runs_nothing_is_revealed_or_released() {
    let params = sample::params("mainnet");
    let ready = seller(agreed(&[[Some(801), NO, NO, NO]], Phase::FundFinal));
    assert_eq!(ready.due(sample::now(&params, 0, 810), false), Step::Wait);
    let seen = seller(agreed(&[[WAITS, NO, NO, NO]], Phase::FundSeen));
    assert_eq!(seen.due(sample::now(&params, 0, 842), false), Step::Wait);
}

#[test]
fn a_lock_that_is_gone_ends_what_is_not_revealed() {
    let mut locked = seller(agreed(&[[NO; 4]], granted()));
    assert!(locked.lock_released("fund.not_sent"));
    assert_eq!(locked.state.name(), "released");
    let mut sent = seller(claim_sent([Some(801), WAITS, NO, NO]));
    assert!(!sent.lock_released("settle.refunded"));
    assert_eq!(sent.state.name(), "claim_sent");
}

#[test]
fn only_the_registrars_lock_for_these_terms_counts() {
    let terms = || seller(agreed(&[[NO; 4]], Phase::TermsSigned { until_ms: UNTIL_MS }));
    let params = sample::params("mainnet");
    let now = sample::now(&params, 0, 801);
    assert!(!terms().lock_granted(now, Key([2; 32]), TermsHash([7; 32])));
    assert!(!terms().lock_granted(now, Key([1; 32]), TermsHash([8; 32])));
    let mut locked = terms();
    assert!(locked.lock_granted(now, Key([1; 32]), TermsHash([7; 32])));
    assert!(!locked.lock_granted(now, Key([1; 32]), TermsHash([7; 32])), "once");
}

/// A million sat is claimed from on mainnet until R = 914; Q is 890.
#[test]
fn a_seller_waits_for_the_key_only_so_long_and_only_of_a_buyer_that_pays_alone() {
    let mut params = sample::params("mainnet");
    params.settle.quit_ms = 60_000;
    let ready = || seller(agreed(&[[Some(801), NO, NO, NO]], Phase::FundFinal));
    let due = |seller: &Seller, now_ms, tip| seller.due(sample::now(&params, now_ms, tip), true);
    assert_eq!(due(&ready(), 1_000, 889), Step::Quit);
    assert_eq!(due(&ready(), 1_000, 890), Step::Claim);
    let mut other = ready();
    other.buyer = Key([3; 32]);
    assert_eq!(due(&other, 1_000, 810), Step::Claim, "somebody else pays");
    let funded = [Some(801), NO, NO, NO];
    let two = seller(agreed(&[funded, funded], Phase::FundFinal));
    assert_eq!(due(&two, 1_000, 810), Step::Claim, "two pay");
    let mut resale = ready();
    resale.registrar = Key([4; 32]);
    assert_eq!(due(&resale, 1_000, 810), Step::AskKept, "another keeps the register");
    resale.is_kept = true;
    assert_eq!(due(&resale, 1_000, 810), Step::Claim);
    let never = sample::params("mainnet");
    let never = Params { settle: SettleTimes { quit_ms: 0, ..never.settle }, ..never };
    assert_eq!(ready().due(sample::now(&never, 1_000, 810), true), Step::Claim);

    let mut quitting = ready();
    assert!(quitting.quit(sample::now(&params, 1_000, 810)));
    assert!(!quitting.quit(sample::now(&params, 2_000, 810)), "once");
    assert_eq!(quitting.state.name(), "quitting");
    assert_eq!(quitting.deadlines(3600), [(61_000, Deadline::Key)]);
    assert_eq!(due(&quitting, 60_999, 889), Step::AskKey);
    assert_eq!(due(&quitting, 61_000, 810), Step::Claim);
    assert_eq!(due(&quitting, 1_000, 890), Step::Claim);
    // The own register will not move the certificate any more.
    assert!(quitting.clone().lock_released("settle.window_over"));
    // Whatever a rescan may find: it is out.
    assert_eq!(quitting.due(sample::now(&params, 61_000, 810), false), Step::Claim);
    // Nor does the start of delivery end it.
    let starts = 500_000 * 3_600_000;
    assert_eq!(due(&quitting, starts, 960), Step::Claim);
    assert!(quitting.keeps_key() && !quitting.keeps_key());
    assert_eq!(due(&quitting, 1_000, 810), Step::Claim);
}

#[test]
fn only_the_key_of_the_contract_is_taken() {
    let params = sample::params("mainnet");
    let secp = Secp256k1::new();
    let mut quitting =
        seller(agreed(&[[Some(801), NO, NO, NO]], Phase::Quitting { until_ms: UNTIL_MS }));
    for wrong in [[1; 32], [9; 32], [0; 32], [0xff; 32]] {
        assert!(!quitting.hand(&secp, HandedKey(wrong)), "{wrong:?}");
    }
    assert_eq!(quitting.due(sample::now(&params, 0, 810), true), Step::AskKey);
    assert!(quitting.hand(&secp, HandedKey([2; 32])));
    assert!(!quitting.hand(&secp, HandedKey([2; 32])), "once");
    assert_eq!(quitting.due(sample::now(&params, 0, 810), true), Step::Claim);
    let mut sent = seller(claim_sent([Some(801), WAITS, NO, NO]));
    assert!(!sent.hand(&secp, HandedKey([2; 32])), "the claim is out");
}

#[test]
fn a_contract_that_an_earlier_life_spent_is_paid() {
    let params = sample::params("mainnet");
    let phases = [Phase::FundSeen, Phase::FundFinal, Phase::Quitting { until_ms: UNTIL_MS }];
    for phase in phases {
        let mut taken = seller(agreed(&[[Some(801), NO, NO, NO]], phase));
        if let State::Agreed { signed, .. } = &mut taken.state {
            signed.facts = sample::taken(801, 810);
        }
        taken.settle(sample::now(&params, 0, 810));
        assert_eq!(taken.state.name(), "claimed");
        assert_eq!(taken.due(sample::now(&params, 0, 810), true), Step::Wait);
        // Thrown out of its block it is this node's to send again.
        taken.settle(sample::now(&params, 0, 809));
        assert_eq!(taken.state.name(), "claim_sent");
        assert_eq!(taken.due(sample::now(&params, 0, 809), true), Step::Claim);
        taken.settle(sample::now(&params, 0, 815));
        assert_eq!(taken.state.name(), "settled");
    }
}

#[test]
fn after_the_word_is_given_only_the_chain_ends_a_sale() {
    let params = sample::params("mainnet");
    let due = |heights: [Option<u32>; 4], tip| {
        let quitting = seller(agreed(&[heights], Phase::Quitting { until_ms: UNTIL_MS }));
        quitting.due(sample::now(&params, 0, tip), true)
    };
    assert_eq!(due([Some(801), NO, Some(951), NO], 956), Step::Release("settle.claim_lost"));
    assert_eq!(due([Some(801), NO, Some(951), NO], 955), Step::Claim);
    assert_eq!(due([WAITS, NO, NO, Some(835)], 840), Step::Release("fund.cancelled"));
    assert_eq!(due([WAITS, NO, NO, Some(835)], 839), Step::AskKey);
    assert_eq!(due([WAITS, NO, NO, NO], 842), Step::AskKey, "nor does the height of a release");
}

#[test]
fn a_sale_that_the_chain_has_undone_is_taken_back_from_the_own_register_alone() {
    let ended = |code: &str| {
        let agreement = Some(Box::new(sample::agreement(sample::terms(T0))));
        seller(State::Released { code: code.to_owned(), agreement })
    };
    for (code, expected) in [
        ("settle.claim_lost", true),
        ("fund.cancelled", true),
        ("settle.refunded", false),
        ("settle.window_over", false),
        ("lock.released", false),
    ] {
        assert_eq!(ended(code).takes_back().is_some(), expected, "{code}");
    }
    let mut resale = ended("settle.claim_lost");
    resale.registrar = Key([4; 32]);
    assert_eq!(resale.takes_back(), None);
    assert_eq!(seller(claim_sent([Some(801), WAITS, NO, NO])).takes_back(), None);
}
