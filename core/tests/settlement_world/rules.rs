//! The rules of money, one by one: a good message of a running world with one thing changed
//! gets its exact refusal, and leaves every record as it was.

#[path = "answers.rs"]
mod answers;

use bitcoin::hashes::Hash;
use bitcoin::{Amount, ScriptBuf, Transaction};
use capex_core::certificate::objects::{Activation, Binding, Issue, Payment};
use capex_core::engine::kernel::Keys;
use capex_core::engine::messages::{SettleReply, SettleRequest};
use capex_core::engine::trades::{TradeEvent, TradeReply, TradeRequest};
use capex_core::ids::{CertId, Key, TermsHash, TradeId};
use capex_core::limits::FUND_TERMS_MAX;
use capex_core::settlement::objects::{
    Accept, LockGrant, Terms, TermsCancel, TermsRequest, Transfer,
};
use capex_core::units::Units;
use capex_core::wire::{Envelope, Object, decode_record, encode};

use crate::party::{Message, Party};
use crate::setup::Setup;
use crate::{BUYER, Faults, SELLER, World};

type Of = fn(Faults) -> World;
const BOTH: [Of; 2] = [World::new, World::of_three];

fn request_of(message: &Message) -> Option<TradeRequest> {
    match message {
        Message::Request { bytes, .. } => {
            decode_record::<SettleRequest>(bytes).ok()?.try_into().ok()
        }
        Message::Reply { .. } | Message::Lock(_) => None,
    }
}

fn reply_of(message: &Message) -> Option<TradeReply> {
    match message {
        Message::Reply { bytes, .. } => decode_record::<SettleReply>(bytes).ok()?.try_into().ok(),
        Message::Request { .. } | Message::Lock(_) => None,
    }
}

/// A keypair of nobody in the world.
fn stranger() -> Party {
    Party::new(9)
}

fn resign<T: Object + Clone>(
    signer: &Keys,
    setup: &Setup,
    signed: &mut Envelope,
    change: impl FnOnce(&mut T),
) {
    let mut value: T = signed.peek().unwrap();
    change(&mut value);
    *signed = signer.sign(value, &setup.params).envelope().clone();
}

/// A world that has come to a message of a kind, and holds it back.
fn caught(of: Of, is: fn(&Message) -> bool) -> World {
    let mut world = of(Faults::default());
    world.setup.features = 1;
    world.catch = Some(is);
    let mut world = world.open();
    world.until("caught", |world| !world.caught.is_empty());
    world.catch = None;
    world
}

/// A request on its way, and what may be changed of it.
struct Shot {
    world: World,
    /// Who receives it.
    to: usize,
    peer: Key,
    now_ms: u64,
    request: TradeRequest,
}

type Row = (&'static str, &'static str, fn(&mut Shot));

impl Shot {
    /// The first request of a kind in a world.
    fn of(of: Of, is: fn(&Message) -> bool) -> Self {
        let mut world = caught(of, is);
        // A funding goes to the seller too.
        let provider = world.provider();
        let first = world.caught.iter().position(|(_, to, _)| *to == provider);
        let (from, to, message) = world.caught.remove(first.unwrap_or(0));
        let peer = world.parties[from].key();
        let request = request_of(&message).unwrap();
        let now_ms = world.now_ms;
        Self { world, to, peer, now_ms, request }
    }

    fn answer(&mut self) -> Result<TradeReply, &'static str> {
        let (setup, request) = (&self.world.setup, self.request.clone());
        let reply = self.world.parties[self.to].answer(setup, self.now_ms, self.peer, request);
        self.world.settle(self.to);
        reply
    }

    /// The code it gets, and that it changes nothing.
    fn refusal(&mut self) -> String {
        let before = self.world.parties[self.to].records();
        let offered = self.world.chain.offered.len();
        let code = match self.answer() {
            Err(code) => code.to_owned(),
            Ok(other) => format!("{other:?}"),
        };
        assert!(before == self.world.parties[self.to].records(), "{code}: a record changed");
        assert_eq!(offered, self.world.chain.offered.len(), "{code}: something was broadcast");
        code
    }

    /// Terms signed anew by their seller, and every consent to them.
    fn terms(&mut self, change: fn(&mut Terms)) {
        let (setup, parties) = (&self.world.setup, &self.world.parties);
        let TradeRequest::Accept { terms, .. } = &mut self.request else { panic!("no terms") };
        resign(parties[SELLER].keys(), setup, terms, change);
        self.consent(|_| ());
    }

    fn consent(&mut self, change: fn(&mut Accept)) {
        let (setup, buyer) = (&self.world.setup, self.world.parties[BUYER].keys());
        let TradeRequest::Accept { terms, accepts } = &mut self.request else { panic!("no terms") };
        let terms_hash = TermsHash(terms.id::<Terms>(setup.params.magic));
        for signed in accepts {
            resign(buyer, setup, signed, |accept: &mut Accept| {
                accept.terms_hash = terms_hash;
                change(accept);
            });
        }
    }

    fn funding(&mut self, change: fn(&mut Transaction)) {
        let TradeRequest::Fund { tx: bytes, .. } = &mut self.request else { panic!("no funding") };
        let mut tx = bitcoin::consensus::deserialize(bytes).unwrap();
        change(&mut tx);
        *bytes = bitcoin::consensus::serialize(&tx);
    }

    /// The refund can no longer come before delivery.
    fn too_near(&mut self) {
        self.world.setup.params.chain.block_ms *= 10;
    }

    fn down(&mut self) {
        let who = self.to;
        self.world.parties[who].chain_up = false;
        self.world.parties[who].tick(&self.world.setup, self.now_ms);
    }
}

/// Every row is refused by its code; the good message after it still leads to the sale.
fn each_is_refused(of: Of, is: fn(&Message) -> bool, rows: &[Row]) {
    for (what, code, change) in rows {
        let mut shot = Shot::of(of, is);
        change(&mut shot);
        assert_eq!(shot.refusal(), *code, "{what}");
    }
    let mut good = Shot::of(of, is);
    assert!(good.answer().is_ok(), "the good one is refused");
    good.world.run("active", "settled");
}

fn is_terms_request(message: &Message) -> bool {
    matches!(request_of(message), Some(TradeRequest::Terms(_)))
}

fn is_accept(message: &Message) -> bool {
    matches!(request_of(message), Some(TradeRequest::Accept { .. }))
}

fn is_fund(message: &Message) -> bool {
    matches!(request_of(message), Some(TradeRequest::Fund { .. }))
}

#[test]
fn a_seller_signs_terms_only_for_what_was_matched() {
    fn asked(shot: &mut Shot) -> &mut capex_core::settlement::objects::TermsRequest {
        let TradeRequest::Terms(request) = &mut shot.request else { panic!("no request") };
        request
    }
    let rows: &[Row] = &[
        ("another peer", "trade.not_the_buyer", |shot| shot.peer = stranger().key()),
        ("another trade", "trade.no_agreement", |shot| asked(shot).trade_id = TradeId([9; 32])),
        ("a tip far ahead", "terms.tips_differ", |shot| asked(shot).tip_height += 9),
        ("a tip far behind", "terms.tips_differ", |shot| asked(shot).tip_height -= 9),
        ("nobody pays", "terms.wrong_amount", |shot| asked(shot).funders.clear()),
        ("a sat less", "terms.wrong_amount", |shot| asked(shot).funders[0].amount_sat -= 1),
        ("a sat more", "terms.wrong_amount", |shot| asked(shot).funders[0].amount_sat += 1),
        ("an amount split too small", "terms.wrong_amount", |shot| {
            let mut small = asked(shot).funders[0].clone();
            small.amount_sat = shot.world.setup.params.min_trade_sat - 1;
            asked(shot).funders[0].amount_sat -= small.amount_sat;
            asked(shot).funders.push(small);
        }),
        ("nine funders", "terms.wrong_amount", |shot| {
            let mut share = asked(shot).funders[0].clone();
            share.amount_sat /= 9;
            let mut funders = vec![share; 9];
            funders[0].amount_sat += 50_000 % 9;
            asked(shot).funders = funders;
        }),
        ("to be used by its first slot", "terms.use_by", |shot| {
            asked(shot).use_by = Some(shot.world.setup.row.start);
        }),
        ("a window too near", "terms.window_too_near", Shot::too_near),
        ("no chain", "chain.down", Shot::down),
    ];
    for of in BOTH {
        each_is_refused(of, is_terms_request, rows);
        // Agreed once, the same request gets the same terms, and another none.
        let mut shot = Shot::of(of, is_terms_request);
        let first = shot.answer();
        assert_eq!(first, shot.answer());
        asked(&mut shot).to = stranger().key();
        assert_eq!(shot.refusal(), "trade.already_agreed");
    }
}

/// Who pays alone for another may recall what a provider issues; nothing else can be.
#[test]
fn a_seller_makes_nothing_recallable_but_what_it_issues_to_a_sponsor() {
    type Ask = fn(&mut TermsRequest, &Setup);
    let of_two: Of = World::new;
    let table: &[(&str, Of, Option<&str>, Ask)] = &[
        ("for another", of_two, None, |ask, _| ask.to = stranger().key()),
        ("for oneself", of_two, Some("terms.recall"), |_, _| ()),
        ("a resale", World::of_three, Some("terms.recall"), |ask, _| ask.to = stranger().key()),
        ("paid by two", of_two, Some("terms.recall"), |ask, setup| {
            ask.to = stranger().key();
            let mut small = ask.funders[0].clone();
            small.amount_sat = setup.params.min_trade_sat;
            ask.funders[0].amount_sat -= small.amount_sat;
            ask.funders.push(small);
        }),
    ];
    for (what, of, code, change) in table {
        let mut shot = Shot::of(*of, is_terms_request);
        let TradeRequest::Terms(request) = &mut shot.request else { panic!("no request") };
        change(request, &shot.world.setup);
        shot.request = TradeRequest::RecallableTerms(request.clone());
        assert_eq!(shot.answer().err(), *code, "{what}");
        if code.is_none() {
            let TradeReply::Terms { title, .. } = shot.answer().unwrap() else { panic!() };
            assert_eq!(title.recall(), Some(shot.peer), "{what}");
        } else {
            assert_eq!(shot.world.state(SELLER), "offered", "{what}");
        }
    }
}

#[test]
fn a_key_without_an_address_gets_no_terms() {
    let mut shot = Shot::of(World::new, is_terms_request);
    let TradeRequest::Terms(request) = &mut shot.request else { panic!("no request") };
    request.funders[0].refund_xonly = [0xff; 32];
    assert_eq!(shot.answer(), Err("terms.key"));
    assert_eq!(shot.world.state(SELLER), "offered");
}

#[test]
fn a_registrar_locks_only_for_terms_that_hold_and_everybody_consents_to() {
    let rows: &[Row] = &[
        ("another peer", "trade.not_the_buyer", |shot| shot.peer = stranger().key()),
        ("another certificate", "trade.no_agreement", |s| s.terms(|t| t.cert_id = CertId([9; 32]))),
        ("a seller who is no holder", "lock.not_holder", |shot| {
            shot.terms(|terms| terms.from = Party::new(9).key());
        }),
        ("another hand", "wire.wrong_signer", |shot| {
            let setup = &shot.world.setup;
            let TradeRequest::Accept { terms, .. } = &mut shot.request else { panic!() };
            resign(stranger().keys(), setup, terms, |_: &mut Terms| ());
        }),
        ("a changed byte", "wire.bad_signature", |shot| {
            let TradeRequest::Accept { terms, .. } = &mut shot.request else { panic!() };
            terms.signature[0][0] ^= 1;
        }),
        ("another template", "terms.wrong_timelock", |shot| shot.terms(|t| t.template = 2)),
        ("F a block later", "terms.wrong_timelock", |shot| shot.terms(|t| t.fund_by += 1)),
        ("T_R a block later", "terms.wrong_timelock", |shot| shot.terms(|t| t.refund_at += 1)),
        ("T_R a block earlier", "terms.wrong_timelock", |shot| shot.terms(|t| t.refund_at -= 1)),
        ("another k_f", "terms.wrong_timelock", |s| s.terms(|t| t.funding_confirmations += 1)),
        ("t0 ahead", "terms.tips_differ", |shot| shot.terms(|terms| later(terms, 9))),
        ("t0 long ago", "terms.tips_differ", |shot| {
            shot.terms(|terms| {
                for height in [&mut terms.t0, &mut terms.fund_by, &mut terms.refund_at] {
                    *height -= 20;
                }
            });
        }),
        ("a price a sat higher", "terms.wrong_amount", |s| s.terms(|t| t.price_sat += 1)),
        ("a share a sat smaller", "terms.wrong_amount", |s| {
            s.terms(|t| t.funders[0].amount_sat -= 1);
        }),
        ("no payout", "terms.payout", |shot| shot.terms(|terms| terms.payout_spk.clear())),
        ("a long payout", "terms.payout", |s| s.terms(|t| t.payout_spk = vec![0x51; 43])),
        ("a key off the curve", "terms.key", |s| s.terms(|t| t.s_xonly = [0xff; 32])),
        ("no consent", "accept.does_not_fit", |shot| {
            let TradeRequest::Accept { accepts, .. } = &mut shot.request else { panic!() };
            accepts.clear();
        }),
        ("a stranger's consent", "accept.does_not_fit", |shot| {
            let setup = &shot.world.setup;
            let TradeRequest::Accept { accepts, .. } = &mut shot.request else { panic!() };
            resign(stranger().keys(), setup, &mut accepts[0], |_: &mut Accept| ());
        }),
        ("a consent to other terms", "accept.does_not_fit", |shot| {
            shot.consent(|accept| accept.terms_hash = TermsHash([9; 32]));
        }),
        ("released a block earlier", "accept.does_not_fit", |shot| {
            shot.consent(|accept| accept.release_at_height -= 1);
        }),
        ("released a block later", "accept.does_not_fit", |shot| {
            shot.consent(|accept| accept.release_at_height += 1);
        }),
        // 5 s: the time for the funding and the time for terms.
        ("a consent that lasts too long", "accept.does_not_fit", |shot| {
            shot.consent(|accept| accept.release_at_ms += 2_001);
        }),
        ("a consent that has elapsed", "accept.elapsed", |shot| shot.now_ms += 3_000),
        ("a window too near", "terms.window_too_near", Shot::too_near),
        ("no chain", "chain.down", Shot::down),
    ];
    for of in BOTH {
        each_is_refused(of, is_accept, rows);
        let shot = Shot::of(of, is_accept);
        assert_eq!(shot.world.parties[shot.to].registrar.locks, 0);
    }
}

/// Whom others name as the holder signs nothing: it gets no lock, and loses none of its own.
#[test]
fn a_lock_is_for_those_who_pay() {
    let mut shot = Shot::of(World::of_three, is_accept);
    shot.terms(|terms| terms.to = Party::new(9).key());
    shot.peer = stranger().key();
    assert_eq!(shot.refusal(), "trade.not_the_buyer");
    shot.peer = shot.world.parties[BUYER].key();
    assert!(matches!(shot.answer(), Ok(TradeReply::LockGrant(_))));
}

/// A key costs nothing, so one that has not shown that it funds gets one free option.
#[test]
fn a_key_that_funds_nothing_gets_one_lock() {
    fn again(shot: &mut Shot) {
        shot.terms(|terms| terms.nonce16 = [9; 16]);
    }
    let mut shot = Shot::of(World::of_three, is_accept);
    let first = shot.request.clone();
    assert!(shot.answer().is_ok());
    again(&mut shot);
    assert_eq!(shot.refusal(), "lock.too_many");
    // The same terms get the same lock.
    shot.request = first;
    assert!(shot.answer().is_ok());
    // Once it has funded, the register alone decides: this certificate has its lock.
    shot.world.until("funded", |world| world.state(BUYER) == "fund_confirmed");
    again(&mut shot);
    assert_eq!(shot.answer(), Err("lock.taken"));
}

/// The seller is told what the registrar is, and answers like it.
#[test]
fn a_reseller_is_released_by_its_buyer_alone_and_before_a_funding_is_seen() {
    fn cancel(world: &World, by: &Keys) -> TradeRequest {
        let terms_hash = world.view(SELLER).unwrap().terms_hash.unwrap();
        let cancel = by.sign(TermsCancel { v: 1, terms_hash }, &world.setup.params);
        TradeRequest::Cancel(cancel.envelope().clone())
    }
    fn tell(world: &mut World, request: TradeRequest) -> Result<TradeReply, &'static str> {
        let peer = world.parties[BUYER].key();
        let answer = world.parties[SELLER].answer(&world.setup, world.now_ms, peer, request);
        world.settle(SELLER);
        answer
    }
    for state in ["terms_signed", "lock_granted"] {
        let mut world = World::of_three(Faults::default()).open();
        world.until(state, |world| world.state(SELLER) == state);
        let foreign = cancel(&world, stranger().keys());
        assert_eq!(tell(&mut world, foreign), Err("trade.not_the_buyer"), "{state}");
        assert_eq!(world.state(SELLER), state);
        let own = cancel(&world, world.parties[BUYER].keys());
        assert_eq!(tell(&mut world, own), Ok(TradeReply::Cancelled), "{state}");
        assert_eq!(world.state(SELLER), "released");
        assert_eq!(world.codes()[SELLER].as_deref(), Some("trade.cancelled_by_buyer"));
    }
    let mut world = World::of_three(Faults::default()).open();
    world.chain.hold_contracts = true;
    world.until("seen", |world| world.state(SELLER) == "fund_seen");
    let own = cancel(&world, world.parties[BUYER].keys());
    let before = world.parties[SELLER].records();
    assert_eq!(tell(&mut world, own), Err("fund.already_acknowledged"));
    assert!(before == world.parties[SELLER].records());
}

#[test]
fn a_row_is_sold_once_however_often_it_is_matched() {
    let mut world = World::new(Faults::default());
    world.open_sell();
    let before = world.parties[SELLER].records();
    world.now_ms += 100;
    world.open_sell();
    assert!(before == world.parties[SELLER].records(), "while it is open");
    let mut world = World::new(Faults::default()).open();
    world.run("active", "settled");
    let before = world.parties[SELLER].records();
    world.open_sell();
    assert!(before == world.parties[SELLER].records(), "after its end");
}

/// The courier brings it where the answer to the buyer was lost.
#[test]
fn a_certificate_that_comes_another_way_ends_the_sale() {
    let is_activation =
        |message: &Message| matches!(reply_of(message), Some(TradeReply::Activation(_)));
    let mut world = caught(World::of_three, is_activation);
    let (_, to, message) = world.caught.remove(0);
    assert_eq!((to, world.state(BUYER)), (BUYER, "preimage_known"));
    let Some(TradeReply::Activation(activation)) = reply_of(&message) else { panic!() };
    let claim = world.view(BUYER).unwrap();
    let transfer = Transfer {
        v: 1,
        terms_hash: claim.terms_hash.unwrap(),
        x: claim.preimage.unwrap(),
        spend_txid: claim.claim.unwrap().txid.to_byte_array(),
        vin: 0,
        quittance: None,
    };
    let (setup, now_ms) = (&world.setup, world.now_ms);
    let mut other = activation.clone();
    resign(world.parties[1].keys(), setup, &mut other, |_: &mut Activation| ());
    world.parties[BUYER].hear_certificate(&world.setup, now_ms, &transfer, &other);
    world.settle(BUYER);
    assert_eq!(world.state(BUYER), "preimage_known", "signed by another than the provider");
    world.parties[BUYER].hear_certificate(&world.setup, now_ms, &transfer, &activation);
    world.settle(BUYER);
    assert_eq!(world.state(BUYER), "active");
    world.run("active", "settled");
}

/// Terms as if signed so many blocks later.
fn later(terms: &mut Terms, blocks: u32) {
    for height in [&mut terms.t0, &mut terms.fund_by, &mut terms.refund_at] {
        *height += blocks;
    }
}

#[test]
fn a_registrar_takes_only_a_funding_that_pays_in_full_and_in_time() {
    let rows: &[Row] = &[
        ("another peer", "trade.not_the_buyer", |shot| shot.peer = stranger().key()),
        ("other terms", "trade.no_agreement", |shot| {
            let TradeRequest::Fund { terms, .. } = &mut shot.request else { panic!() };
            *terms = vec![TermsHash([9; 32])];
        }),
        // Who sends it pays every contract: one that has no lock here has to be paid by another.
        ("also for other terms", "trade.no_agreement", |shot| {
            let TradeRequest::Fund { terms, .. } = &mut shot.request else { panic!() };
            terms.push(TermsHash([0xff; 32]));
        }),
        ("the same terms twice", "fund.malformed", |shot| {
            let TradeRequest::Fund { terms, .. } = &mut shot.request else { panic!() };
            terms.push(terms[0]);
        }),
        ("no terms", "fund.malformed", |shot| {
            let TradeRequest::Fund { terms, .. } = &mut shot.request else { panic!() };
            terms.clear();
        }),
        ("more terms than locks", "fund.malformed", |shot| {
            let TradeRequest::Fund { terms, .. } = &mut shot.request else { panic!() };
            *terms = (0..=FUND_TERMS_MAX).map(|n| TermsHash([n as u8; 32])).collect();
        }),
        ("no transaction", "fund.malformed", |shot| {
            let TradeRequest::Fund { tx, .. } = &mut shot.request else { panic!() };
            tx.pop();
        }),
        ("a sat less", "fund.pays_not_the_contract", |shot| {
            shot.funding(|tx| tx.output[0].value -= Amount::ONE_SAT);
        }),
        ("another script", "fund.pays_not_the_contract", |shot| {
            shot.funding(|tx| tx.output[0].script_pubkey = ScriptBuf::from_bytes(vec![0x51; 34]));
        }),
        ("a window too near", "terms.window_too_near", Shot::too_near),
        ("no chain", "chain.down", Shot::down),
    ];
    for of in BOTH {
        each_is_refused(of, is_fund, rows);
    }
}

/// Too late ends the trade by itself, so a record changes; the message does not.
#[test]
fn what_comes_after_its_deadline_is_refused() {
    for of in BOTH {
        let mut shot = Shot::of(of, is_terms_request);
        shot.now_ms += 4_000;
        assert_eq!(shot.answer(), Err("trade.void"));
        assert_eq!(shot.world.state(SELLER), "released");
        assert_eq!(shot.world.codes()[SELLER].as_deref(), Some("trade.buyer_silent"));

        let mut shot = Shot::of(of, is_fund);
        shot.now_ms += 3_000;
        assert_eq!(shot.answer(), Err("lock.released"));
        assert_eq!(shot.world.parties[shot.to].registrar.released.len(), 1);
        assert_eq!(shot.world.chain.offered, []);
    }
}

#[test]
fn a_second_funding_of_the_same_terms_is_refused() {
    for of in BOTH {
        let mut shot = Shot::of(of, is_fund);
        shot.answer().unwrap();
        let first = shot.request.clone();
        shot.world.step();
        assert!(matches!(shot.answer(), Ok(TradeReply::FundAck { .. })));
        shot.funding(|tx| tx.output[1].value -= Amount::from_sat(500));
        assert_eq!(shot.refusal(), "fund.already_acknowledged");
        shot.request = first;
        assert!(matches!(shot.answer(), Ok(TradeReply::FundAck { .. })));
        shot.world.run("active", "settled");
    }
}

/// Coins that do not exist cost nothing to promise: nothing is acknowledged, and the lock goes
/// with the consent.
#[test]
fn a_funding_that_the_own_node_does_not_take_is_not_acknowledged() {
    for of in BOTH {
        let mut shot = Shot::of(of, is_fund);
        shot.world.parties[BUYER].online = false;
        let good = shot.request.clone();
        shot.funding(|tx| tx.input[0].previous_output.vout = 7);
        assert_eq!(shot.answer(), Ok(TradeReply::NotYet));
        assert_eq!(shot.world.chain.rejected, ["missing-or-spent"]);
        assert_eq!(shot.answer(), Err("fund.not_accepted"));
        // Another one is tried, but not at any rate.
        let fake = std::mem::replace(&mut shot.request, good);
        assert_eq!(shot.refusal(), "fund.not_accepted");
        shot.request = fake;
        assert_ne!(shot.world.state(SELLER), "fund_seen");
        let provider = shot.world.provider();
        shot.world.until("free", |world| world.parties[provider].registrar.released.len() == 1);
        shot.world.until("released", |world| world.state(SELLER) == "released");
        // A reseller was not shown it.
        assert_eq!(shot.world.codes()[SELLER].as_deref(), Some("fund.not_sent"));
    }
}

/// What the chain source may have passed on can confirm although nobody hears of it: the seller
/// would be paid, and the certificate free.
#[test]
fn a_lock_outlasts_a_broadcast_that_is_not_answered() {
    for of in BOTH {
        let mut shot = Shot::of(of, is_fund);
        shot.world.parties[shot.to].is_silent = true;
        assert_eq!(shot.answer(), Ok(TradeReply::NotYet));
        shot.world.parties[BUYER].online = false;
        let consent_ms = shot.world.setup.params.settle.fund_ms;
        let until_ms = shot.now_ms + consent_ms + 1_000;
        shot.world.until("past the consent", |world| world.now_ms > until_ms);
        assert!(shot.world.parties[shot.to].registrar.released.is_empty());
        // The word of one buyer that there is none frees nothing: another may have paid too.
        let TradeRequest::Fund { terms, .. } = &shot.request else { panic!() };
        let terms_hash = terms[0];
        let (buyer, params) = (Party::new(1), &shot.world.setup.params);
        let cancel = buyer.keys().sign(TermsCancel { v: 1, terms_hash }, params);
        shot.request = TradeRequest::Cancel(cancel.envelope().clone());
        shot.now_ms = shot.world.now_ms;
        assert_eq!(shot.answer(), Err("fund.undecided"));
        // A source loses no update: what it did not show comes when it answers again.
        shot.world.parties[shot.to].is_silent = false;
        shot.world.parties[shot.to].rescan = true;
        shot.world.settle(shot.to);
        shot.world.heal();
        shot.world.run("active", "settled");
    }
}

/// It is given up like one that is known: at `F + g`, and nobody is to blame.
#[test]
fn a_funding_without_an_answer_holds_the_lock_no_longer_than_one_that_waits() {
    for of in BOTH {
        let mut shot = Shot::of(of, is_fund);
        shot.world.parties[shot.to].is_silent = true;
        shot.world.chain.hold_contracts = true;
        assert_eq!(shot.answer(), Ok(TradeReply::NotYet));
        let fund_by = shot.world.view(SELLER).unwrap().fund_by.unwrap();
        for who in [BUYER, SELLER].into_iter().filter(|who| *who != shot.to) {
            shot.world.parties[who].online = false;
        }
        let to = shot.to;
        shot.funding(|tx| tx.output[1].value -= Amount::from_sat(500));
        assert_eq!(shot.refusal(), "fund.undecided");
        shot.world.until("free", |world| !world.parties[to].registrar.released.is_empty());
        assert_eq!(shot.world.chain.height(), fund_by + 4, "at F + g");
        let buyer = shot.world.parties[BUYER].key();
        assert_eq!(shot.world.parties[to].conduct.misses(&buyer), None);
    }
}

/// Whoever shows a payment of coins that are not its own does not get these denied.
#[test]
fn only_coins_of_a_funding_that_the_own_node_knows_are_blamed() {
    let coin_is_denied = |is_known: bool| {
        let mut shot = Shot::of(World::new, is_fund);
        shot.world.parties[BUYER].online = false;
        shot.world.chain.hold_contracts = true;
        let coin = shot.world.setup.coin()[0].0;
        if !is_known {
            shot.funding(|tx| tx.input[0].witness.clear());
        }
        shot.answer().unwrap();
        let released = |world: &World| world.parties[SELLER].registrar.released.len();
        shot.world.until("free", |world| released(world) == 1);
        let (buyer, provider) = (shot.world.parties[BUYER].key(), &shot.world.parties[SELLER]);
        assert!(provider.conduct.misses(&buyer).is_some(), "the key is blamed");
        provider.conduct.is_coin_denied(shot.world.now_ms, coin)
    };
    assert!(coin_is_denied(true));
    assert!(!coin_is_denied(false));
}

#[test]
fn a_good_funding_may_follow_one_that_was_not_taken() {
    for of in BOTH {
        let mut shot = Shot::of(of, is_fund);
        let good = shot.request.clone();
        shot.funding(|tx| tx.input[0].previous_output.vout = 7);
        shot.answer().unwrap();
        shot.request = good;
        shot.now_ms += 500;
        assert_eq!(shot.answer(), Ok(TradeReply::NotYet));
        assert!(matches!(shot.answer(), Ok(TradeReply::FundAck { .. })));
        shot.world.run("active", "settled");
    }
}

#[test]
fn only_the_buyer_gives_up_and_only_before_it_has_funded() {
    fn cancel(shot: &mut Shot, keys: &Keys, terms_hash: TermsHash) {
        let cancel = keys.sign(TermsCancel { v: 1, terms_hash }, &shot.world.setup.params);
        shot.request = TradeRequest::Cancel(cancel.envelope().clone());
    }
    // The keys of the world's parties.
    let (buyer, seller) = (Party::new(1), Party::new(2));
    let buyer = buyer.keys();
    for of in BOTH {
        let mut shot = Shot::of(of, is_fund);
        let TradeRequest::Fund { terms, .. } = &shot.request else { panic!() };
        let terms_hash = terms[0];
        let fund = shot.request.clone();
        for keys in [stranger().keys(), seller.keys()] {
            cancel(&mut shot, keys, terms_hash);
            assert_eq!(shot.refusal(), "trade.not_the_buyer");
        }
        cancel(&mut shot, buyer, TermsHash([9; 32]));
        assert_eq!(shot.refusal(), "trade.no_agreement");
        shot.request = fund;
        shot.answer().unwrap();
        shot.world.step();
        shot.answer().unwrap();
        cancel(&mut shot, buyer, terms_hash);
        assert_eq!(shot.refusal(), "fund.already_acknowledged");
        shot.world.run("active", "settled");

        let mut shot = Shot::of(of, is_fund);
        cancel(&mut shot, buyer, terms_hash);
        assert_eq!(shot.answer(), Ok(TradeReply::Cancelled));
        let provider = shot.world.provider();
        assert_eq!(shot.world.parties[provider].registrar.released, [terms_hash]);
    }
}

#[test]
fn a_claim_that_only_waits_moves_nothing() {
    for of in BOTH {
        let mut world = of(Faults::default()).open();
        world.chain.hold_claims = true;
        world.until("revealed", |world| world.state(BUYER) == "preimage_known");
        world.step();
        let view = world.view(BUYER).unwrap();
        let transfer = Transfer {
            v: 1,
            terms_hash: view.terms_hash.unwrap(),
            x: view.preimage.unwrap(),
            spend_txid: view.claim.unwrap().txid.to_byte_array(),
            vin: 0,
            quittance: None,
        };
        let (to, now_ms) = (world.provider(), world.now_ms);
        let mut shot = Shot {
            peer: world.parties[BUYER].key(),
            world,
            to,
            now_ms,
            request: TradeRequest::Transfer(transfer.clone()),
        };
        assert_eq!(shot.answer(), Ok(TradeReply::NotYet));
        shot.peer = stranger().key();
        assert_eq!(shot.refusal(), "trade.not_the_buyer");
        shot.peer = shot.world.parties[BUYER].key();
        let unknown = Transfer { terms_hash: TermsHash([9; 32]), ..transfer };
        shot.request = TradeRequest::Transfer(unknown);
        assert_eq!(shot.refusal(), "trade.no_agreement");
        assert_eq!(shot.world.parties[to].registrar.activations, 0);
        shot.world.chain.hold_claims = false;
        shot.world.run("active", "settled");
    }
}
