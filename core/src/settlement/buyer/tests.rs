//! What a buyer does next, state by state and deadline by deadline.

use super::super::sample;
use super::*;

/// t0 of the sample terms; F − g = 830, F = 836, T_R = 950 above it.
const T0: u32 = 800;
const UNTIL_MS: TimeMs = 60_000;

fn signed() -> Signed {
    let agreement = sample::agreement(sample::terms(T0));
    Signed { agreement, accepts: Vec::new(), own: vec![0], release_at_ms: UNTIL_MS }
}

fn lock() -> Lock {
    Lock { signed: sample::envelope(), attempt: 0 }
}

fn payment(heights: [Option<u32>; 4]) -> Box<Payment> {
    let facts = Facts::new(vec![sample::contract_facts(heights)]);
    let funding = FundingId([9; 32]);
    Box::new(Payment { signed: signed(), lock: lock(), funding, fee_sat: 154, facts })
}

fn paying(heights: [Option<u32>; 4], phase: Phase) -> State {
    State::Paying { payment: payment(heights), phase }
}

fn own() -> OwnTx {
    OwnTx { tx: sample::tx(), fee_sat: 138 }
}

fn refunding() -> Phase {
    Phase::Refunding { refunds: BTreeMap::from([(0, own())]) }
}

fn cancelling() -> Phase {
    Phase::Cancelling { cancel: Some(own()) }
}

fn buyer(state: State) -> Buyer {
    Buyer {
        trade: TradeId([10; 32]),
        row: sample::row(),
        seller: Key([1; 32]),
        registrar: Key([1; 32]),
        to: Key([2; 32]),
        title: None,
        features: 0,
        fee_cap_sat: 1_000,
        max_loss_sat: 10_000,
        fee_reserve_sat: 154,
        key_index: 1,
        opened_ms: 0,
        state,
    }
}

fn settled(state: State, tip: u32) -> &'static str {
    let params = sample::params("mainnet");
    let mut buyer = buyer(state);
    buyer.settle(sample::now(&params, 0, tip));
    let name = buyer.state.name();
    assert!(!buyer.settle(sample::now(&params, 0, tip)), "{name}: settling twice moves");
    name
}

#[test]
fn the_chain_decides_the_state() {
    const NO: Option<u32> = None;
    const WAITS: Option<u32> = Some(0);
    // fund, claim, refund, conflict, tip, exit begun, state
    let table = [
        ([WAITS, NO, NO, NO], 801, 'n', "fund_sent"),
        ([Some(801), NO, NO, NO], 801, 'n', "fund_confirmed"),
        ([Some(801), WAITS, NO, NO], 808, 'n', "preimage_known"),
        ([Some(801), Some(809), NO, NO], 809, 'n', "preimage_known"),
        // A claim in a block that has left the chain again.
        ([Some(801), Some(809), NO, NO], 808, 'n', "preimage_known"),
        ([Some(801), NO, WAITS, NO], 950, 'r', "refunding"),
        ([Some(801), WAITS, WAITS, NO], 950, 'r', "refunding"),
        ([Some(801), Some(951), WAITS, NO], 951, 'r', "preimage_known"),
        ([Some(801), NO, Some(951), NO], 955, 'r', "refunding"),
        ([Some(801), NO, Some(951), NO], 956, 'r', "refunded"),
        ([WAITS, NO, NO, WAITS], 831, 'c', "cancelling"),
        ([WAITS, NO, NO, Some(832)], 836, 'c', "cancelling"),
        ([WAITS, NO, NO, Some(832)], 837, 'c', "cancelled"),
        // The funding won the race against its replacement.
        ([Some(832), NO, NO, WAITS], 833, 'c', "fund_confirmed"),
    ];
    for (heights, tip, exit, expected) in table {
        let phase = match exit {
            'r' => refunding(),
            'c' => cancelling(),
            _ => Phase::Confirmed,
        };
        let got = settled(paying(heights, phase), tip);
        assert_eq!(got, expected, "{heights:?} at {tip}");
    }
}

#[test]
fn two_contracts_of_one_buyer() {
    const NO: Option<u32> = None;
    let funded = [Some(801), NO, NO, NO];
    let refunded = [Some(801), NO, Some(951), NO];
    // Contracts, tip, exit begun, own contracts, state
    let table = [
        ([funded, funded], 801, 'n', vec![0, 1], "fund_confirmed"),
        ([funded, [Some(0), NO, NO, NO]], 801, 'n', vec![0, 1], "fund_sent"),
        // The other funder is late, but this node's money is out.
        ([funded, [NO; 4]], 801, 'n', vec![0], "fund_confirmed"),
        ([refunded, funded], 960, 'r', vec![0, 1], "refunding"),
        ([refunded, funded], 960, 'r', vec![0], "refunded"),
        ([refunded, refunded], 955, 'r', vec![0, 1], "refunding"),
        ([refunded, refunded], 956, 'r', vec![0, 1], "refunded"),
        // Who takes a part of the price has sold.
        ([refunded, [Some(801), Some(952), NO, NO]], 956, 'r', vec![0, 1], "preimage_known"),
        ([funded, [Some(801), Some(0), NO, NO]], 810, 'n', vec![0], "preimage_known"),
    ];
    for (contracts, tip, exit, own, expected) in table {
        let phase = if exit == 'r' { refunding() } else { Phase::Sent };
        let mut payment = payment([NO; 4]);
        payment.facts = Facts::new(contracts.map(sample::contract_facts).to_vec());
        payment.signed.agreement = sample::agreement(sample::two_funders(T0));
        payment.signed.own = own;
        let got = settled(State::Paying { payment, phase }, tip);
        assert_eq!(got, expected, "{contracts:?} at {tip}");
    }
}

#[test]
fn what_is_due() {
    let draft = || State::Draft { request: None, until_ms: UNTIL_MS };
    let locked = || State::Locked { signed: signed(), lock: lock(), quiet_until_ms: 30_000 };
    let built = |fund| paying([fund, None, None, None], Phase::Built);
    let lapsed = || paying([Some(0), None, None, None], Phase::Lapsed);
    let sent = || paying([Some(0), None, None, None], Phase::Sent);
    let confirmed = || paying([Some(801), None, None, None], Phase::Confirmed);
    // The window of the sample terms ends at 500,004 h.
    let ends = 500_004 * 3_600_000;
    let revealed = |claim| paying([Some(801), claim, None, None], Phase::PreimageKnown);
    let cancelling = |cancel| paying([Some(0); 4], Phase::Cancelling { cancel });
    // state, now, tip, step
    let table = [
        (draft(), 59_999, 800, Step::AskTerms),
        (draft(), 60_000, 800, Step::Abort("terms.late")),
        (State::TermsSigned(signed()), 59_999, 800, Step::AskLock),
        (State::TermsSigned(signed()), 60_000, 800, Step::Abort("lock.late")),
        (locked(), 29_999, 800, Step::Wait),
        (locked(), 30_000, 800, Step::AskWallet),
        (locked(), 60_000, 800, Step::Abort("fund.late")),
        (built(Some(0)), 59_999, 800, Step::SendFund),
        (built(Some(0)), 60_000, 800, Step::Lapse),
        (lapsed(), 90_000, 829, Step::Wait),
        (lapsed(), 90_000, 830, Step::AskCancel),
        (built(Some(0)), 59_999, 830, Step::AskCancel),
        (sent(), 90_000, 829, Step::BroadcastFund),
        (sent(), 90_000, 830, Step::AskCancel),
        (cancelling(None), 90_000, 830, Step::AskCancel),
        (cancelling(Some(own())), 90_000, 830, Step::BroadcastCancel),
        (confirmed(), 90_000, 949, Step::Wait),
        (confirmed(), 90_000, 950, Step::Refund),
        (revealed(Some(0)), 90_000, 949, Step::Wait),
        (revealed(Some(0)), 90_000, 950, Step::Refund),
        (revealed(Some(809)), 90_000, 950, Step::AskActivation),
        (revealed(Some(809)), ends - 1, 950, Step::AskActivation),
        (revealed(Some(809)), ends, 813, Step::AskActivation),
        (revealed(Some(809)), ends, 814, Step::Default),
    ];
    let params = sample::params("mainnet");
    for (state, now_ms, tip, expected) in table {
        let buyer = buyer(state);
        let got = buyer.due(sample::now(&params, now_ms, tip), true);
        assert_eq!(got, expected, "{} at {now_ms} ms, {tip}", buyer.state.name());
    }
}

/// The wallet is asked once and may answer late, dearly or wrongly.
#[test]
fn a_funding_is_taken_only_if_it_pays_in_time_within_the_cap() {
    let secp = bitcoin::secp256k1::Secp256k1::new();
    let buyer = buyer(State::Draft { request: None, until_ms: 0 });
    let signed = signed();
    let rail = Rail::of(&secp, signed.agreement.terms(), signed.agreement.hash()).unwrap();
    let spk = rail.contracts()[0].spk.clone();
    let paying = |value_sat: u64| {
        let mut tx = sample::tx().tx().clone();
        let (value, script_pubkey) = (bitcoin::Amount::from_sat(value_sat), spk.clone());
        tx.output.push(bitcoin::TxOut { value, script_pubkey });
        KnownTx::new(tx)
    };
    // The window of the sample terms starts at 500,000 h; T_R + 1 is 951.
    let near = 500_000 * 3_600_000 - 151 * 600_000;
    // value, fee, now, tip, code
    let table = [
        (1_000_000, 1_000, 59_999, 800, None),
        (1_000_001, 1_000, 59_999, 829, None),
        (999_999, 1_000, 59_999, 800, Some("fund.pays_not_the_contract")),
        (1_000_000, 1_001, 59_999, 800, Some("fund.fee_above_cap")),
        (1_000_000, 1_000, 60_000, 800, Some("fund.late")),
        (1_000_000, 1_000, 59_999, 830, Some("terms.tips_differ")),
        (1_000_000, 1_000, 59_999, 797, Some("terms.tips_differ")),
    ];
    let params = sample::params("mainnet");
    for (value_sat, fee_sat, now_ms, tip, code) in table {
        let now = sample::now(&params, now_ms, tip);
        let got = buyer.funding(now, &signed, &rail, &paying(value_sat), fee_sat);
        assert_eq!(got.err(), code, "{value_sat} sat for {fee_sat} at {now_ms} ms, {tip}");
    }
    let late = Signed { release_at_ms: u64::MAX, ..signed.clone() };
    let nobody = Signed { own: Vec::new(), ..signed };
    let tx = paying(1_000_000);
    let funded = |signed: &Signed, now_ms| {
        buyer.funding(sample::now(&params, now_ms, 800), signed, &rail, &tx, 154).err()
    };
    assert_eq!(funded(&late, near), None);
    assert_eq!(funded(&late, near + 1), Some("terms.window_too_near"));
    assert_eq!(funded(&nobody, 0), Some("fund.pays_not_the_contract"));
}

#[test]
fn a_funding_that_lapsed_ends_with_whoever_takes_its_coins() {
    let lapsed = |seen: bool, conflict| {
        let mut payment = payment([Some(0), None, None, conflict]);
        if !seen {
            payment.facts = sample::unseen_with(conflict);
        }
        State::Paying { payment, phase: Phase::Lapsed }
    };
    let table = [
        (lapsed(false, None), 801, "fund_lapsed"),
        (lapsed(false, Some(0)), 801, "fund_lapsed"),
        (lapsed(false, Some(801)), 805, "fund_lapsed"),
        (lapsed(false, Some(801)), 806, "cancelled"),
        // The registrar sends it after all.
        (lapsed(true, None), 801, "fund_sent"),
        (lapsed(true, Some(801)), 806, "cancelled"),
    ];
    for (state, tip, expected) in table {
        assert_eq!(settled(state, tip), expected, "at {tip}");
    }
}

#[test]
fn while_a_rescan_runs_nothing_is_concluded_from_absence() {
    let params = sample::params("mainnet");
    let sent = buyer(paying([Some(0), None, None, None], Phase::Sent));
    assert_eq!(sent.due(sample::now(&params, 0, 835), false), Step::BroadcastFund);
    let confirmed = buyer(paying([Some(801), None, None, None], Phase::Confirmed));
    assert_eq!(confirmed.due(sample::now(&params, 0, 960), false), Step::Wait);
}

#[test]
fn who_holds_the_activation_never_refunds() {
    let payment = payment([Some(801), Some(0), None, None]);
    let transfer = payment.transfer().unwrap();
    let phase = Phase::Active { transfer, activation: sample::envelope() };
    let mut active = buyer(State::Paying { payment, phase });
    let params = sample::params("mainnet");
    let now = sample::now(&params, 0, 2_000);
    assert!(!active.settle(now));
    assert_eq!(active.due(now, true), Step::Wait);
}

#[test]
fn coins_are_committed_until_the_wallet_locks_them() {
    let draft = buyer(State::Draft { request: None, until_ms: 0 });
    assert_eq!(draft.committed_sat(), 1_000_154);
    let sent = buyer(paying([Some(0), None, None, None], Phase::Sent));
    assert_eq!(sent.committed_sat(), 0);
}
