//! What a buyer does next, state by state and deadline by deadline.

use super::super::sample;
use super::*;

/// t0 of the sample terms; F − g = 830, F = 836, T_R = 950 above it.
const T0: u32 = 800;
const UNTIL_MS: TimeMs = 60_000;

fn signed() -> Signed {
    let agreement = sample::agreement(sample::terms(T0));
    let accepts = vec![sample::envelope()];
    Signed { agreement, accepts, own: vec![0], release_at_ms: UNTIL_MS }
}

fn lock() -> Lock {
    Lock { signed: sample::envelope(), attempt: 0 }
}

fn payment(heights: [Option<u32>; 4]) -> Box<Payment> {
    let facts = Facts::new(vec![sample::contract_facts(heights)]);
    let plan = sample::plan(UNTIL_MS);
    Box::new(Payment { signed: signed(), lock: lock(), plan, fee_sat: 154, quitted: None, facts })
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

fn abandoned() -> Phase {
    Phase::Abandoned { code: "wallet.unsigned".to_owned() }
}

fn settled(state: State, tip: u32) -> &'static str {
    let params = sample::params("mainnet");
    let mut buyer = sample::buyer(state);
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
    // Somebody who pays with it has not signed.
    let alone = || State::TermsSigned(Signed { accepts: Vec::new(), ..signed() });
    let locked = || State::Locked { signed: signed(), lock: lock(), quiet_until_ms: 30_000 };
    let built = |fund| paying([fund, None, None, None], Phase::Built);
    let lapsed = || paying([Some(0), None, None, None], Phase::Lapsed);
    let exported = || paying([Some(0), None, None, None], Phase::Exported);
    let abandoned = || paying([Some(0), None, None, None], abandoned());
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
        (alone(), 59_999, 800, Step::AskLock),
        (alone(), 60_000, 800, Step::Abort("pool.not_agreed")),
        (locked(), 29_999, 800, Step::Wait),
        (locked(), 30_000, 800, Step::AskWallet),
        (locked(), 60_000, 800, Step::Abort("fund.late")),
        (exported(), 59_999, 800, Step::AskWallet),
        (exported(), 60_000, 800, Step::Abandon("wallet.unsigned")),
        (abandoned(), 90_000, 800, Step::Wait),
        // Nobody signs twice for what nobody signed once.
        (abandoned(), 90_000, 830, Step::Wait),
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
        let buyer = sample::buyer(state);
        let got = buyer.due(sample::now(&params, now_ms, tip), true);
        assert_eq!(got, expected, "{} at {now_ms} ms, {tip}", buyer.state.name());
    }
    // What was paid for is not given up by a clock that is ahead of the chain.
    let now = Now { median_time_past_s: 0, ..sample::now(&params, ends, 814) };
    assert_eq!(sample::buyer(revealed(Some(809))).due(now, true), Step::AskActivation);
}

/// The wallet is asked once and may answer late, dearly or wrongly.
#[test]
fn a_funding_is_taken_only_if_it_pays_in_time_within_the_cap() {
    let secp = bitcoin::secp256k1::Secp256k1::new();
    let buyer = sample::buyer(State::Draft { request: None, until_ms: 0 });
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
        let got = buyer.funding(
            now,
            (&signed, &sample::plan(UNTIL_MS)),
            &rail,
            &paying(value_sat),
            fee_sat,
        );
        assert_eq!(got.err(), code, "{value_sat} sat for {fee_sat} at {now_ms} ms, {tip}");
    }
    let late = Signed { release_at_ms: u64::MAX, ..signed.clone() };
    let nobody = Signed { own: Vec::new(), ..signed };
    let tx = paying(1_000_000);
    let funded = |signed: &Signed, now_ms| {
        let plan = sample::plan(UNTIL_MS);
        buyer.funding(sample::now(&params, now_ms, 800), (signed, &plan), &rail, &tx, 154).err()
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

/// Whoever signed it may send it, asked or not.
#[test]
fn what_was_handed_out_is_whatever_the_chain_says() {
    type Row = ([Option<u32>; 4], bool, u32, &'static str);
    const NO: Option<u32> = None;
    let table: [Row; 7] = [
        ([NO; 4], false, 801, "stays"),
        ([NO, NO, NO, Some(0)], false, 801, "stays"),
        ([NO, NO, NO, Some(801)], false, 805, "stays"),
        ([NO, NO, NO, Some(801)], false, 806, "cancelled"),
        ([Some(0), NO, NO, NO], true, 801, "fund_sent"),
        ([Some(801), NO, NO, NO], true, 801, "fund_confirmed"),
        ([Some(801), Some(0), NO, NO], true, 808, "preimage_known"),
    ];
    for phase in [Phase::Exported, abandoned()] {
        for (heights, is_seen, tip, expected) in table {
            let mut payment = payment(heights);
            if !is_seen {
                payment.facts = sample::unseen_with(heights[3]);
            }
            let got = settled(State::Paying { payment, phase: phase.clone() }, tip);
            let expected = if expected == "stays" { phase.name() } else { expected };
            assert_eq!(got, expected, "{} {heights:?} at {tip}", phase.name());
        }
    }
}

#[test]
fn while_a_rescan_runs_nothing_is_concluded_from_absence() {
    let params = sample::params("mainnet");
    let sent = sample::buyer(paying([Some(0), None, None, None], Phase::Sent));
    assert_eq!(sent.due(sample::now(&params, 0, 835), false), Step::BroadcastFund);
    let confirmed = sample::buyer(paying([Some(801), None, None, None], Phase::Confirmed));
    assert_eq!(confirmed.due(sample::now(&params, 0, 960), false), Step::Wait);
}

#[test]
fn who_holds_the_activation_never_refunds() {
    let payment = payment([Some(801), Some(0), None, None]);
    let transfer = payment.transfer().unwrap();
    let phase = Phase::Active { transfer, activation: sample::envelope(), hands_over: false };
    let mut active = sample::buyer(State::Paying { payment, phase });
    let params = sample::params("mainnet");
    let now = sample::now(&params, 0, 2_000);
    assert!(!active.settle(now));
    assert_eq!(active.due(now, true), Step::Wait);
}

#[test]
fn coins_are_committed_until_the_wallet_locks_them() {
    let draft = sample::buyer(State::Draft { request: None, until_ms: 0 });
    assert_eq!(draft.committed_sat(), 1_000_154);
    let sent = sample::buyer(paying([Some(0), None, None, None], Phase::Sent));
    assert_eq!(sent.committed_sat(), 0);
}

mod exit {
    use ed25519_dalek::SigningKey;

    use super::*;
    use crate::params::Params;
    use crate::settlement::objects::Quittance;
    use crate::settlement::seller::Refused;
    use crate::wire::{sha256, sign};

    const X: [u8; 32] = [3; 32];
    /// R of the sample terms.
    const LAST_REVEAL: u32 = 914;
    const FUNDED: [Option<u32>; 4] = [Some(801), None, None, None];
    /// When the delivery of the sample terms is over, unix ms.
    const ENDS_MS: TimeMs = 500_004 * 3_600_000;

    fn seller() -> SigningKey {
        SigningKey::from_bytes(&[1; 32])
    }

    fn key() -> Key {
        Key(seller().verifying_key().to_bytes())
    }

    fn buyer_in(heights: [Option<u32>; 4], phase: Phase) -> Buyer {
        let mut payment = payment(heights);
        let mut terms = sample::terms(T0);
        (terms.from, terms.payment_hash) = (key(), sha256(&[&X]));
        payment.signed.agreement = sample::agreement(terms);
        let mut buyer = sample::buyer(State::Paying { payment, phase });
        (buyer.seller, buyer.registrar) = (key(), key());
        buyer
    }

    fn quittance(params: &Params) -> Envelope {
        let quittance = Quittance { v: 1, terms_hash: TermsHash([7; 32]), x: X };
        sign(quittance, params.magic, &seller()).envelope().clone()
    }

    fn quit(buyer: &mut Buyer, tip: u32) -> Result<Exit, Refused> {
        quit_within(60_000, buyer, tip)
    }

    fn quit_within(quit_ms: u64, buyer: &mut Buyer, tip: u32) -> Result<Exit, Refused> {
        let mut params = sample::params("mainnet");
        params.settle.quit_ms = quit_ms;
        buyer.quit(sample::now(&params, 0, tip), key(), &quittance(&params))
    }

    fn due(buyer: &Buyer, now_ms: TimeMs, tip: u32) -> Step {
        let params = sample::params("mainnet");
        buyer.due(sample::now(&params, now_ms, tip), true)
    }

    fn settle(buyer: &mut Buyer, tip: u32) -> &'static str {
        let params = sample::params("mainnet");
        buyer.settle(sample::now(&params, 0, tip));
        buyer.state.name()
    }

    fn transfer() -> Transfer {
        let quitted = Quitted { x: X, signature: [[1; 32]; 2], is_refused: false };
        quitted.transfer(TermsHash([7; 32]))
    }

    fn active(hands_over: bool) -> Phase {
        Phase::Active { transfer: transfer(), activation: sample::envelope(), hands_over }
    }

    #[test]
    fn a_quittance_gets_an_answer_in_every_phase() {
        let not_yet = Ok(Exit::NotYet);
        let late = Err("quittance.too_late");
        let table = [
            (Phase::Built, not_yet),
            (Phase::Lapsed, not_yet),
            (Phase::Sent, not_yet),
            (Phase::Confirmed, Ok(Exit::News)),
            (Phase::PreimageKnown, late),
            (active(true), Ok(Exit::HandOver)),
            (active(false), late),
            (cancelling(), not_yet),
            (Phase::Cancelled, late),
            (refunding(), late),
            (Phase::Refunded, late),
            (Phase::Defaulted { transfer: None }, late),
        ];
        for (phase, expected) in table {
            let mut buyer = buyer_in(FUNDED, phase);
            let name = buyer.state.name();
            let before = buyer.clone();
            assert_eq!(quit(&mut buyer, LAST_REVEAL), expected, "{name}");
            let is_news = expected == Ok(Exit::News);
            assert_eq!(buyer != before, is_news, "{name}");
        }
        let mut draft = sample::buyer(State::Draft { request: None, until_ms: UNTIL_MS });
        draft.seller = key();
        assert_eq!(quit(&mut draft, 810), late);
        let mut confirmed = buyer_in(FUNDED, Phase::Confirmed);
        assert_eq!(quit(&mut confirmed, LAST_REVEAL + 1), late);
        assert_eq!(quit(&mut confirmed, LAST_REVEAL), Ok(Exit::News));
        assert_eq!(confirmed.state.name(), "preimage_known");
        assert_eq!(quit(&mut confirmed, LAST_REVEAL), not_yet, "once");
    }

    #[test]
    fn a_quittance_is_taken_where_the_network_has_it_and_of_the_provider_alone() {
        let mut buyer = buyer_in(FUNDED, Phase::Confirmed);
        let before = buyer.clone();
        assert_eq!(quit_within(0, &mut buyer, 810), Err("quittance.too_late"));
        assert!(buyer == before);
        buyer.registrar = Key([9; 32]);
        let before = buyer.clone();
        assert_eq!(quit_within(1, &mut buyer, 810), Err("quittance.resale"));
        assert!(buyer == before);
        buyer.registrar = key();
        assert_eq!(quit_within(1, &mut buyer, 810), Ok(Exit::News));
    }

    #[test]
    fn only_who_pays_alone_takes_a_quittance() {
        for own in [vec![], vec![0, 1]] {
            let mut buyer = buyer_in(FUNDED, Phase::Confirmed);
            if let State::Paying { payment, .. } = &mut buyer.state {
                payment.signed.own = own;
            }
            assert_eq!(quit(&mut buyer, 810), Err("quittance.does_not_fit"));
        }
        let mut buyer = buyer_in(FUNDED, Phase::Confirmed);
        if let State::Paying { payment, .. } = &mut buyer.state {
            payment.signed.agreement.signed.terms.funders = sample::two_funders(T0).funders;
        }
        assert_eq!(quit(&mut buyer, 810), Err("quittance.does_not_fit"));
    }

    #[test]
    fn the_provider_is_asked_until_the_refund_is_due_and_no_longer() {
        let mut buyer = buyer_in(FUNDED, Phase::Confirmed);
        quit(&mut buyer, 810).unwrap();
        for tip in [810, 949] {
            assert_eq!(settle(&mut buyer, tip), "preimage_known");
            assert_eq!(due(&buyer, 0, tip), Step::AskActivation);
        }
        let mut silent = buyer.clone();
        assert_eq!(settle(&mut silent, 950), "fund_confirmed");
        assert_eq!(due(&silent, 0, 950), Step::Refund);
        let params = sample::params("mainnet");
        assert_eq!(silent.due(sample::now(&params, 0, 950), false), Step::Wait, "not sure yet");
        assert_eq!(quit(&mut silent, 950), Err("quittance.too_late"));
        // A reorganisation brings the time back, and a claim in a block the question.
        assert_eq!(settle(&mut silent, 949), "preimage_known");
        if let State::Paying { payment, .. } = &mut silent.state {
            let claimed = [Some(801), Some(950), None, None];
            payment.facts = Facts::new(vec![sample::contract_facts(claimed)]);
        }
        assert_eq!(settle(&mut silent, 950), "preimage_known");
        assert_eq!(due(&silent, 0, 950), Step::AskActivation);
        let shown = buyer.state.payment().unwrap().transfer().unwrap();
        assert_eq!((shown.x, shown.spend_txid), (X, [0; 32]));
        // The funding has lost its block: a payment to self would take the price back.
        if let State::Paying { payment, .. } = &mut buyer.state {
            payment.facts = Facts::new(vec![sample::contract_facts([Some(0), None, None, None])]);
        }
        assert_eq!(settle(&mut buyer, 835), "preimage_known");
        assert_eq!(due(&buyer, 0, 835), Step::AskActivation);
        assert_eq!(settle(&mut buyer.clone(), 950), "fund_sent");

        for code in ["chain.down", "quittance.does_not_fit", "trade.no_agreement"] {
            assert!(!buyer.quittance_refused(code), "{code} is no answer");
        }
        assert!(buyer.quittance_refused("quittance.too_late"));
        assert!(!buyer.quittance_refused("quittance.too_late"), "once");
        assert_eq!(settle(&mut buyer, 835), "fund_sent");
        assert_eq!(due(&buyer, 0, 835), Step::AskCancel);
        let mut refused = buyer_in(FUNDED, Phase::Confirmed);
        quit(&mut refused, 810).unwrap();
        assert!(refused.quittance_refused("transfer.not_paid"));
        assert_eq!(settle(&mut refused, 950), "fund_confirmed");
        assert_eq!(due(&refused, 0, 949), Step::Wait);
        assert_eq!(due(&refused, 0, 950), Step::Refund);
        assert_eq!(quit(&mut refused, 810), Err("quittance.too_late"), "it would be refused again");
        assert_eq!(refused.state.payment().unwrap().transfer(), None);
    }

    #[test]
    fn a_claim_in_a_block_comes_before_the_word_of_the_seller() {
        let shown = |claim| {
            let mut buyer = buyer_in(FUNDED, Phase::Confirmed);
            quit(&mut buyer, 810).unwrap();
            let State::Paying { payment, .. } = &mut buyer.state else { panic!() };
            let heights = [Some(801), claim, None, None];
            payment.facts = Facts::new(vec![sample::contract_facts(heights)]);
            buyer.state.payment().unwrap().transfer().unwrap().quittance.is_some()
        };
        assert_eq!([None, Some(0), Some(812)].map(shown), [true, true, false]);
    }

    #[test]
    fn with_its_activation_a_buyer_waits_for_nothing_but_the_spend() {
        let taken = |tip, now_ms| {
            let params = sample::params("mainnet");
            let mut buyer = buyer_in(FUNDED, active(true));
            assert_eq!(due(&buyer, now_ms, 960), Step::Wait, "never a refund");
            assert!(!buyer.state.is_done());
            if let State::Paying { payment, .. } = &mut buyer.state {
                payment.facts = sample::taken(801, 812);
            }
            buyer.settle(sample::now(&params, now_ms, tip));
            buyer.state.is_done()
        };
        assert!(!taken(816, 0));
        assert!(taken(817, 0));
        assert!(!taken(800, ENDS_MS - 1));
        assert!(taken(800, ENDS_MS), "the seller has had its time");
    }

    #[test]
    fn a_contract_spent_with_the_own_key_is_refunded_by_no_later_life() {
        let taken = |phase, height: Option<u32>| {
            let mut buyer = buyer_in(FUNDED, phase);
            if let State::Paying { payment, .. } = &mut buyer.state {
                payment.facts = sample::taken(801, height.unwrap_or(0));
            }
            settle(&mut buyer, 960);
            buyer
        };
        for height in [None, Some(812)] {
            for phase in [Phase::Confirmed, refunding()] {
                let buyer = taken(phase, height);
                assert_eq!(buyer.state.name(), "fund_confirmed");
                assert_eq!(due(&buyer, 0, 960), Step::AskCertificate);
            }
        }
        let over = |height, tip| due(&taken(Phase::Confirmed, height), ENDS_MS, tip);
        assert_eq!(over(Some(812), 817), Step::Default);
        assert_eq!(over(Some(812), 816), Step::Wait);
        // It never came into a block.
        assert_eq!(over(None, 950), Step::Refund);
        assert_eq!(over(None, 949), Step::Wait);
    }
}

/// The sample's consents last until a minute, and F − g is 830; a quarter of the time to fund is 30 s
/// on mainnet, and g is 6.
#[test]
fn only_trades_of_the_same_parties_that_fall_due_together_share_a_funding() {
    type Change = fn(&mut Buyer, &mut Signed);
    let params = sample::params("mainnet");
    let of = |change: fn(&mut Buyer, &mut Signed)| {
        let mut signed = signed();
        let mut buyer = sample::buyer(State::Draft { request: None, until_ms: 0 });
        change(&mut buyer, &mut signed);
        buyer.state = State::Locked { signed, lock: lock(), quiet_until_ms: 0 };
        let secp = Secp256k1::new();
        let rail = Rail::of(&secp, &sample::terms(T0), TermsHash([7; 32])).unwrap();
        buyer.stake(sample::now(&params, 0, T0), &rail).unwrap()
    };
    let first = of(|_, _| ());
    let table: [(&str, Change, bool); 8] = [
        ("the same", |_, _| (), true),
        ("another seller", |buyer, _| buyer.seller = Key([8; 32]), false),
        ("another registrar", |buyer, _| buyer.registrar = Key([8; 32]), false),
        (
            "a pool",
            |buyer, signed| buyer.partners = signed.agreement.terms().funders.clone(),
            false,
        ),
        ("30 s later", |_, signed| signed.release_at_ms += 30_000, true),
        ("more", |_, signed| signed.release_at_ms += 30_001, false),
        ("6 blocks later", |_, signed| signed.agreement.signed.terms.t0 += 6, true),
        ("7 blocks later", |_, signed| signed.agreement.signed.terms.t0 += 7, false),
    ];
    for (what, change, fits) in table {
        let other = of(change);
        assert_eq!(first.fits(&other, &params), fits, "{what}");
        assert_eq!(other.fits(&first, &params), fits, "{what}, the other way");
    }
    let second = of(|buyer, signed| {
        buyer.fee_cap_sat = 300;
        signed.release_at_ms += 1;
        signed.agreement.signed.terms.t0 -= 2;
        signed.agreement.signed.hash = TermsHash([6; 32]);
    });
    let plan = FundPlan::of(vec![first, second]);
    assert_eq!(plan.terms, [TermsHash([6; 32]), TermsHash([7; 32])]);
    assert_eq!((plan.ack_by_ms, plan.cancel_at, plan.fee_cap_sat), (UNTIL_MS, 828, 600));
    assert!(plan.is_shared() && plan.outputs.len() == 2);
    let shares = plan.terms.iter().map(|terms| plan.share_sat(197, *terms)).collect::<Vec<_>>();
    assert_eq!(shares, [99, 98]);
}
