//! Answers to a buyer with one field changed: the exact code, and what is left of the trade.

use super::*;
use capex_core::certificate::{Base, Certificate};

/// An answer on its way to the buyer.
struct Answer {
    world: World,
    from: usize,
    id: u64,
    reply: TradeReply,
}

type Change = (&'static str, &'static str, fn(&mut Answer));

/// The Issue that a title begins with.
fn issue_of(title: &mut Certificate) -> &mut Envelope {
    match title.bases.first_mut() {
        Some(Base::Issue(issue)) => issue,
        other => panic!("{other:?}"),
    }
}

impl Answer {
    fn of(of: Of, is: fn(&Message) -> bool) -> Self {
        let mut world = caught(of, is);
        let (from, to, message) = world.caught.remove(0);
        assert_eq!(to, BUYER);
        let Message::Reply { id, .. } = message else { panic!("no answer") };
        Self { world, from, id, reply: reply_of(&message).unwrap() }
    }

    fn arrive(&mut self) {
        let bytes = encode(&SettleReply::Trade(self.reply.clone()));
        let (world, from) = (&mut self.world, self.from);
        let (peer, message) = (world.parties[from].key(), Message::Reply { id: self.id, bytes });
        world.parties[BUYER].receive(&world.setup, world.now_ms, peer, message);
        world.settle(BUYER);
    }

    fn terms(&mut self, change: fn(&mut Terms)) {
        let (setup, seller) = (&self.world.setup, self.world.parties[SELLER].keys());
        let TradeReply::Terms { terms, .. } = &mut self.reply else { panic!("no terms") };
        resign(seller, setup, terms, change);
    }

    /// Another certificate, and the same terms for it.
    fn issue(&mut self, change: fn(&mut Issue), follow: fn(&mut Terms)) {
        let (setup, seller) = (&self.world.setup, self.world.parties[SELLER].keys());
        let TradeReply::Terms { title, terms } = &mut self.reply else { panic!("no terms") };
        let issue = issue_of(title);
        resign(seller, setup, issue, change);
        let id = issue.id::<Issue>(setup.params.magic);
        resign(seller, setup, terms, |terms: &mut Terms| {
            (terms.cert_id, terms.prev_hash) = (CertId(id), id);
            follow(terms);
        });
    }

    fn lock(&mut self, change: fn(&mut LockGrant)) {
        let world = &self.world;
        let (setup, provider) = (&world.setup, world.parties[world.provider()].keys());
        let TradeReply::LockGrant(lock) = &mut self.reply else { panic!("no lock") };
        resign(provider, setup, lock, change);
    }

    fn activation(&mut self, change: fn(&mut Activation)) {
        let world = &self.world;
        let (setup, provider) = (&world.setup, world.parties[world.provider()].keys());
        let TradeReply::Activation(signed) = &mut self.reply else { panic!("no activation") };
        resign(provider, setup, signed, change);
    }
}

/// Each row ends the trade by its code before the wallet is asked.
fn each_ends_the_trade(of: Of, is: fn(&Message) -> bool, rows: &[Change]) {
    for (what, code, change) in rows {
        let mut answer = Answer::of(of, is);
        change(&mut answer);
        answer.arrive();
        let world = &answer.world;
        assert_eq!(world.state(BUYER), "aborted", "{what}");
        assert_eq!(world.codes()[BUYER].as_deref(), Some(*code), "{what}");
        assert!(!world.parties[BUYER].has_funded(), "{what}");
        assert_eq!(world.parties[BUYER].committed_sat(), 0, "{what}");
    }
    let mut good = Answer::of(of, is);
    good.arrive();
    good.world.run("active", "settled");
}

fn is_terms(message: &Message) -> bool {
    matches!(reply_of(message), Some(TradeReply::Terms { .. }))
}

fn is_lock(message: &Message) -> bool {
    matches!(reply_of(message), Some(TradeReply::LockGrant(_)))
}

fn is_ack(message: &Message) -> bool {
    matches!(reply_of(message), Some(TradeReply::FundAck { .. }))
}

fn is_activation(message: &Message) -> bool {
    matches!(reply_of(message), Some(TradeReply::Activation(_)))
}

#[test]
fn a_buyer_consents_only_to_the_terms_it_agreed_to() {
    let rows: &[Change] = &[
        ("another trade", "terms.not_the_row", |a| a.terms(|t| t.trade_id = TradeId([9; 32]))),
        ("another class", "terms.not_the_row", |a| a.terms(|t| t.class = 2)),
        ("a slot more", "terms.not_the_row", |a| a.terms(|t| t.window.end += 1)),
        ("another price", "terms.not_the_row", |a| a.terms(|t| t.price_sat += 1)),
        ("a price and share of a sat more", "terms.not_the_row", |a| {
            a.terms(|terms| {
                terms.price_sat += 1;
                terms.funders[0].amount_sat += 1;
            });
        }),
        ("another holder", "terms.wrong_party", |a| a.terms(|t| t.to = Key([9; 32]))),
        ("another refund key", "terms.wrong_party", |a| {
            a.terms(|terms| terms.funders[0].refund_xonly = terms.s_xonly);
        }),
        ("another funder", "terms.wrong_party", |a| {
            a.terms(|terms| terms.funders[0].key = Key([9; 32]));
        }),
        ("one funder more", "terms.wrong_party", |a| {
            a.terms(|terms| terms.funders.push(terms.funders[0].clone()));
        }),
        ("another seller", "terms.wrong_party", |a| {
            let setup = &a.world.setup;
            let TradeReply::Terms { terms, .. } = &mut a.reply else { panic!() };
            let from = stranger().key();
            resign(stranger().keys(), setup, terms, |terms: &mut Terms| terms.from = from);
        }),
        ("another hand", "wire.wrong_signer", |a| {
            let setup = &a.world.setup;
            let TradeReply::Terms { terms, .. } = &mut a.reply else { panic!() };
            resign(stranger().keys(), setup, terms, |_: &mut Terms| ());
        }),
        ("another certificate", "terms.wrong_issue", |a| a.terms(|t| t.cert_id = CertId([9; 32]))),
        ("another seq", "terms.wrong_issue", |a| a.terms(|t| t.seq += 1)),
        ("another past", "terms.wrong_issue", |a| a.terms(|t| t.prev_hash = [9; 32])),
        ("other units", "terms.wrong_issue", |a| {
            a.terms(|terms| terms.units = Units::range(6, 8).unwrap());
        }),
        ("another template", "terms.wrong_timelock", |a| a.terms(|t| t.template = 2)),
        ("F a block later", "terms.wrong_timelock", |a| a.terms(|t| t.fund_by += 1)),
        ("T_R a block later", "terms.wrong_timelock", |a| a.terms(|t| t.refund_at += 1)),
        ("another k_f", "terms.wrong_timelock", |a| a.terms(|t| t.funding_confirmations = 0)),
        ("no payout", "terms.payout", |a| a.terms(|t| t.payout_spk.clear())),
        ("a long payout", "terms.payout", |a| a.terms(|t| t.payout_spk = vec![0x51; 43])),
        ("a key off the curve", "terms.key", |a| a.terms(|t| t.s_xonly = [0xff; 32])),
        ("t0 ahead", "terms.tips_differ", |a| a.terms(|terms| later(terms, 9))),
        ("a window too near", "terms.window_too_near", |a| {
            a.world.setup.params.chain.block_ms *= 10
        }),
    ];
    for of in BOTH {
        each_ends_the_trade(of, is_terms, rows);
    }
}

#[test]
fn a_buyer_takes_only_the_certificate_of_its_row() {
    let rows: &[Change] = &[
        ("a unit more", "terms.wrong_issue", |a| {
            a.issue(
                |issue| issue.units = Units::range(4, 7).unwrap(),
                |terms| terms.units = Units::range(4, 7).unwrap(),
            );
        }),
        ("a unit less", "terms.wrong_issue", |a| {
            a.issue(
                |issue| issue.units = Units::range(4, 5).unwrap(),
                |terms| terms.units = Units::range(4, 5).unwrap(),
            );
        }),
        ("fewer features", "terms.wrong_issue", |a| a.issue(|i| i.features = 0, |_| ())),
        ("a slot more", "terms.wrong_issue", |a| {
            a.issue(
                |issue| {
                    issue.window.end += 1;
                    issue.not_after_slot += 1;
                },
                |_| (),
            );
        }),
        ("lapses before its window ends", "terms.wrong_issue", |a| {
            a.issue(|issue| issue.not_after_slot -= 1, |_| ());
        }),
        ("to be recalled, though nobody asked", "terms.wrong_issue", |a| {
            a.issue(|i| i.binding = Binding::Recallable { by: i.provider }, |_| ());
        }),
        ("metered", "terms.wrong_issue", |a| a.issue(|i| i.pay = Payment::Metered, |_| ())),
        ("another class", "terms.wrong_issue", |a| a.issue(|issue| issue.class = 2, |_| ())),
        ("another provider", "terms.wrong_issue", |a| {
            let setup = &a.world.setup;
            let TradeReply::Terms { title, .. } = &mut a.reply else { panic!() };
            let issue = issue_of(title);
            let provider = stranger().key();
            resign(stranger().keys(), setup, issue, |issue: &mut Issue| issue.provider = provider);
        }),
        ("another provider, and terms that follow it", "terms.wrong_issue", |a| {
            let (setup, seller) = (&a.world.setup, a.world.parties[SELLER].keys());
            let TradeReply::Terms { title, terms } = &mut a.reply else { panic!() };
            let issue = issue_of(title);
            let provider = stranger().key();
            resign(stranger().keys(), setup, issue, |issue: &mut Issue| issue.provider = provider);
            let id = issue.id::<Issue>(setup.params.magic);
            resign(seller, setup, terms, |terms: &mut Terms| {
                (terms.cert_id, terms.prev_hash) = (CertId(id), id);
            });
        }),
        ("another hand", "wire.wrong_signer", |a| {
            let setup = &a.world.setup;
            let TradeReply::Terms { title, .. } = &mut a.reply else { panic!() };
            let issue = issue_of(title);
            resign(stranger().keys(), setup, issue, |_: &mut Issue| ());
        }),
        ("none at all", "terms.wrong_issue", |a| {
            let TradeReply::Terms { title, .. } = &mut a.reply else { panic!() };
            title.bases.clear();
        }),
    ];
    each_ends_the_trade(World::new, is_terms, rows);
}

/// What every unit of the class has is needed whether the bid says so or not.
#[test]
fn a_certificate_without_what_its_class_promises_is_refused() {
    for (floor, features, bought) in [(1, 1, true), (2, 3, true), (2, 1, false), (3, 2, false)] {
        let mut world = World::new(Faults::default());
        world.setup.features = 1;
        let class = world.setup.row.class;
        let named = world.setup.params.classes.iter_mut().find(|named| named.floors.id == class);
        named.unwrap().floors.features = floor;
        // Not what a seller would offer, so it is put into its answer.
        world.catch = Some(is_terms);
        let mut world = world.open();
        world.until("caught", |world| !world.caught.is_empty());
        world.catch = None;
        let (from, _, message) = world.caught.remove(0);
        let Message::Reply { id, .. } = message else { panic!("no answer") };
        let mut answer = Answer { world, from, id, reply: reply_of(&message).unwrap() };
        let (setup, seller) = (&answer.world.setup, answer.world.parties[SELLER].keys());
        let TradeReply::Terms { title, terms } = &mut answer.reply else { panic!() };
        let issue = issue_of(title);
        resign(seller, setup, issue, |issue: &mut Issue| issue.features = features);
        let issued = issue.id::<Issue>(setup.params.magic);
        resign(seller, setup, terms, |terms: &mut Terms| {
            (terms.cert_id, terms.prev_hash) = (CertId(issued), issued);
        });
        answer.arrive();
        let (state, code) = (answer.world.state(BUYER), answer.world.codes()[BUYER].clone());
        let expected = if bought {
            ("terms_signed", None)
        } else {
            ("aborted", Some("terms.wrong_issue".to_owned()))
        };
        assert_eq!((state, code), expected, "class {floor:b}, certificate {features:b}");
    }
}

#[test]
fn terms_that_come_late_or_while_the_chain_is_unknown_are_not_signed() {
    let mut late = Answer::of(World::new, is_terms);
    late.world.now_ms += late.world.setup.params.settle.terms_ms;
    late.arrive();
    assert_eq!(late.world.state(BUYER), "aborted");
    assert_eq!(late.world.codes()[BUYER].as_deref(), Some("terms.late"));

    let mut blind = Answer::of(World::new, is_terms);
    blind.world.parties[BUYER].chain_up = false;
    blind.world.step();
    blind.arrive();
    assert_eq!(blind.world.state(BUYER), "draft");
    blind.world.parties[BUYER].chain_up = true;
    blind.world.facts(&[]);
    blind.world.run("active", "settled");
}

#[test]
fn a_buyer_funds_only_under_the_lock_of_its_terms() {
    let rows: &[Change] = &[
        ("another certificate", "lock.does_not_fit", |a| a.lock(|l| l.cert_id = CertId([9; 32]))),
        ("another seq", "lock.does_not_fit", |a| a.lock(|lock| lock.seq += 1)),
        ("other terms", "lock.does_not_fit", |a| a.lock(|l| l.terms_hash = TermsHash([9; 32]))),
        ("another F", "lock.does_not_fit", |a| a.lock(|lock| lock.fund_by -= 1)),
        ("another T_R", "lock.does_not_fit", |a| a.lock(|lock| lock.refund_at -= 1)),
        ("an attempt without a release", "lock.does_not_fit", |a| a.lock(|lock| lock.attempt = 1)),
        ("a release without an attempt", "lock.does_not_fit", |a| {
            a.lock(|lock| lock.prev_release = [9; 32]);
        }),
        ("a height far ahead", "terms.tips_differ", |a| a.lock(|lock| lock.p_height += 9)),
        ("a height far behind", "terms.tips_differ", |a| a.lock(|lock| lock.p_height -= 9)),
        ("another provider", "lock.does_not_fit", |a| {
            let setup = &a.world.setup;
            let TradeReply::LockGrant(lock) = &mut a.reply else { panic!() };
            let provider = stranger().key();
            resign(stranger().keys(), setup, lock, |l: &mut LockGrant| l.provider = provider);
        }),
        ("another hand", "wire.wrong_signer", |a| {
            let setup = &a.world.setup;
            let TradeReply::LockGrant(lock) = &mut a.reply else { panic!() };
            resign(stranger().keys(), setup, lock, |_: &mut LockGrant| ());
        }),
    ];
    for of in BOTH {
        each_ends_the_trade(of, is_lock, rows);
    }
}

#[test]
fn a_buyer_checks_time_and_fees_again_before_its_wallet_signs() {
    type Late = (&'static str, fn(&mut World));
    let rows: [Late; 4] = [
        ("fund.uneconomical", |world| {
            // 154 vB at 25 sat/vB are not, but 447 vB are more than its owner would lose.
            world.chain.feerates = vec![(2, 25_000)];
            world.facts(&[]);
        }),
        ("fund.late", |world| {
            world.chain.feerates = Vec::new();
            world.facts(&[]);
        }),
        ("terms.window_too_near", |world| world.setup.params.chain.block_ms *= 10),
        ("fund.fee_above_cap", |world| {
            // 154 vB at 65 sat/vB are more than the 10,000 sat of this bid.
            world.chain.feerates = vec![(2, 65_000)];
            world.facts(&[]);
        }),
    ];
    for (code, change) in rows {
        let mut world = World::new(Faults::default()).open();
        world.until("locked", |world| world.state(BUYER) == "locked");
        change(&mut world);
        world.until("an end", |world| world.state(BUYER) == "aborted");
        assert_eq!(world.codes()[BUYER].as_deref(), Some(code));
        assert!(!world.parties[BUYER].has_funded(), "{code}");
    }
}

#[test]
fn a_part_that_is_not_worth_its_fees_is_not_asked_for() {
    let mut world = World::new(Faults::default());
    world.chain.feerates = vec![(2, 25_000)];
    world.facts(&[]);
    let mut world = world.open();
    world.until("the offer lapses", |world| world.state(SELLER) == "released");
    assert_eq!(world.state(BUYER), "none");
    let void = |event: &TradeEvent| matches!(event, TradeEvent::Void { code, .. } if code == "fund.uneconomical");
    assert!(world.events[BUYER].iter().any(void), "{:?}", world.events[BUYER]);
    assert!(!world.parties[BUYER].has_funded());
}

#[test]
fn only_the_registrars_word_for_this_funding_lets_it_out() {
    type Wrong = (&'static str, fn(&mut Answer));
    let rows: [Wrong; 4] = [
        ("another transaction", |a| {
            let TradeReply::FundAck { txid, .. } = &mut a.reply else { panic!() };
            *txid = [9; 32];
        }),
        ("other terms", |a| {
            let TradeReply::FundAck { terms, .. } = &mut a.reply else { panic!() };
            *terms = vec![TermsHash([9; 32])];
        }),
        ("more terms than it pays for", |a| {
            let TradeReply::FundAck { terms, .. } = &mut a.reply else { panic!() };
            terms.push(TermsHash([0xff; 32]));
        }),
        ("the seller's word", |a| a.from = SELLER),
    ];
    for (what, change) in rows {
        let mut answer = Answer::of(World::of_three, is_ack);
        // Its own node has not seen the funding in any mempool.
        answer.world.chain.forget_mempool();
        change(&mut answer);
        let before = answer.world.parties[BUYER].records();
        answer.arrive();
        assert_eq!(answer.world.state(BUYER), "fund_built", "{what}");
        assert!(before == answer.world.parties[BUYER].records(), "{what}");
        answer.world.run("active", "settled");
    }
}

#[test]
fn a_buyer_takes_only_the_activation_of_its_sale() {
    let rows: &[Change] = &[
        ("another holder", "activation.does_not_fit", |a| {
            a.activation(|x| x.holder_hash = [9; 32])
        }),
        ("another attempt", "activation.does_not_fit", |a| {
            a.activation(|x| x.consumes[0].attempt += 1)
        }),
        ("another seq", "activation.does_not_fit", |a| a.activation(|x| x.seq += 1)),
        ("another certificate", "activation.does_not_fit", |a| {
            a.activation(|activation| activation.cert_id = CertId([9; 32]));
        }),
        ("another class", "activation.does_not_fit", |a| a.activation(|x| x.class = 2)),
        ("other features", "activation.does_not_fit", |a| a.activation(|x| x.features ^= 2)),
        ("other units", "activation.does_not_fit", |a| {
            a.activation(|activation| activation.units = Units::range(4, 5).unwrap());
        }),
        ("another window", "activation.does_not_fit", |a| a.activation(|x| x.window.end -= 1)),
        ("another past", "activation.does_not_fit", |a| {
            a.activation(|x| x.consumes[0].prev_hash = [9; 32])
        }),
        ("another cause", "activation.does_not_fit", |a| a.activation(|x| x.cause_hash = [9; 32])),
        ("another provider", "activation.does_not_fit", |a| {
            let setup = &a.world.setup;
            let TradeReply::Activation(signed) = &mut a.reply else { panic!() };
            let provider = stranger().key();
            resign(stranger().keys(), setup, signed, |x: &mut Activation| x.provider = provider);
        }),
    ];
    for of in BOTH {
        for (what, code, change) in rows {
            let mut answer = Answer::of(of, is_activation);
            change(&mut answer);
            let before = answer.world.parties[BUYER].records();
            answer.arrive();
            assert_eq!(answer.world.state(BUYER), "preimage_known", "{what}");
            assert_eq!(answer.world.codes()[BUYER].as_deref(), Some(*code), "{what}");
            assert!(before == answer.world.parties[BUYER].records(), "{what}");
            answer.world.run("active", "settled");
        }
    }
}

/// The second trade would bring the sum owed in advance over the cap.
#[test]
fn a_buyer_owes_a_provider_no_more_in_advance_than_its_cap() {
    for (cap_sat, expected) in [(99_999, Some("trade.prepaid_cap")), (100_000, None), (0, None)] {
        let mut world = World::new(Faults::default());
        world.setup.params.prepaid_cap_sat = cap_sat;
        let mut world = world.open();
        world.until("locked", |world| world.state(BUYER) == "locked");
        let seller = world.parties[SELLER].key();
        world.setup.row.buy = [7; 32];
        let told = world.parties[BUYER].try_buy(&world.setup, world.now_ms, seller, seller);
        let codes: Vec<&str> = told
            .iter()
            .map(|event| match event {
                TradeEvent::Void { code, .. } => code.as_str(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(codes, expected.into_iter().collect::<Vec<_>>(), "cap {cap_sat}");
    }
}

/// A certificate that is not delivered yet is still owed.
#[test]
fn what_was_bought_counts_until_its_window_ends() {
    let mut world = World::new(Faults::default());
    world.setup.params.prepaid_cap_sat = 99_999;
    let mut world = world.open();
    world.run("active", "settled");
    let seller = world.parties[SELLER].key();
    world.setup.row.buy = [7; 32];
    let told = world.parties[BUYER].try_buy(&world.setup, world.now_ms, seller, seller);
    let capped = |event: &TradeEvent| matches!(event, TradeEvent::Void { code, .. } if code == "trade.prepaid_cap");
    assert!(told.iter().any(capped), "{told:?}");
    let ends_ms = world.setup.row.window().ends_at_ms(world.setup.params.slot_s);
    // Not by a clock alone that may be ahead.
    let told = world.parties[BUYER].try_buy(&world.setup, ends_ms, seller, seller);
    assert!(told.iter().any(capped), "{told:?}");
    world.chain.median_time_past_s = u32::try_from(ends_ms / 1000).unwrap();
    world.facts(&[]);
    let told = world.parties[BUYER].try_buy(&world.setup, ends_ms, seller, seller);
    assert_eq!(told, []);
}

/// After a restart the records may say what the chain no longer does.
#[test]
fn nothing_is_concluded_before_the_chain_was_read_again() {
    let mut world = World::new(Faults::default()).open();
    world.chain.hold_contracts = true;
    world.until("seen", |world| world.state(SELLER) == "fund_seen");
    let release_at = world.view(SELLER).unwrap().fund_by.unwrap() + 4;
    world.parties[SELLER].online = false;
    // The funding confirms while the seller is away, and its lock is long overdue.
    world.chain.hold_contracts = false;
    world.until("overdue", |world| world.chain.height() > release_at);
    let party = &mut world.parties[SELLER];
    party.restart(&world.setup, world.now_ms);
    let blind = party.blind_facts(&world.chain);
    party.on_chain(&world.setup, world.now_ms, &blind);
    party.rescan = false;
    assert_eq!(world.state(SELLER), "fund_seen", "released without having looked");
    assert_eq!(world.parties[SELLER].registrar.released, []);
}
