//! What a seller does next, phase by phase and deadline by deadline.

use super::super::sample;
use super::*;

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
        signed: Box::new(Signed { agreement, key_index: 1, claimed_from: None, facts }),
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
        (ready(), starts - 1, 806, Step::Claim),
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
