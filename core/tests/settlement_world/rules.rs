//! The rules of money, one by one: a good message of a running world with one thing changed
//! gets its exact refusal, and leaves every record as it was.

use bitcoin::hashes::Hash;
use bitcoin::{Amount, ScriptBuf, Transaction};
use capex_core::certificate::objects::{Activation, Issue, Payment};
use capex_core::engine::kernel::Keys;
use capex_core::engine::messages::{SettleReply, SettleRequest};
use capex_core::engine::trades::{TradeEvent, TradeReply, TradeRequest};
use capex_core::ids::{CertId, Key, TermsHash, TradeId};
use capex_core::settlement::objects::{Accept, LockGrant, Terms, TermsCancel, Transfer};
use capex_core::units::Units;
use capex_core::wire::{Envelope, Object, decode_record, encode};

use crate::party::{Message, Party, Setup};
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
        let mut world = of(Faults::default());
        world.setup.features = 1;
        world.catch = Some(is);
        let mut world = world.open();
        world.until("caught", |world| !world.caught.is_empty());
        world.catch = None;
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
            let TradeRequest::Fund { terms_hash, .. } = &mut shot.request else { panic!() };
            *terms_hash = TermsHash([9; 32]);
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
        let TradeRequest::Fund { terms_hash, .. } = shot.request else { panic!() };
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

/// An answer on its way to the buyer.
struct Answer {
    world: World,
    from: usize,
    id: u64,
    reply: TradeReply,
}

type Change = (&'static str, &'static str, fn(&mut Answer));

impl Answer {
    fn of(of: Of, is: fn(&Message) -> bool) -> Self {
        let mut world = of(Faults::default());
        world.setup.features = 1;
        world.catch = Some(is);
        let mut world = world.open();
        world.until("caught", |world| !world.caught.is_empty());
        world.catch = None;
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
        let TradeReply::Terms { issue: Some(issue), terms } = &mut self.reply else {
            panic!("no issue")
        };
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
        ("metered", "terms.wrong_issue", |a| a.issue(|i| i.pay = Payment::Metered, |_| ())),
        ("another class", "terms.wrong_issue", |a| a.issue(|issue| issue.class = 2, |_| ())),
        ("another provider", "terms.wrong_issue", |a| {
            let setup = &a.world.setup;
            let TradeReply::Terms { issue: Some(issue), .. } = &mut a.reply else { panic!() };
            let provider = stranger().key();
            resign(stranger().keys(), setup, issue, |issue: &mut Issue| issue.provider = provider);
        }),
        ("another hand", "wire.wrong_signer", |a| {
            let setup = &a.world.setup;
            let TradeReply::Terms { issue: Some(issue), .. } = &mut a.reply else { panic!() };
            resign(stranger().keys(), setup, issue, |_: &mut Issue| ());
        }),
        ("none at all", "terms.wrong_issue", |a| {
            let TradeReply::Terms { issue, .. } = &mut a.reply else { panic!() };
            *issue = None;
        }),
    ];
    each_ends_the_trade(World::new, is_terms, rows);
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
    let rows: [Wrong; 3] = [
        ("another transaction", |a| {
            let TradeReply::FundAck { txid, .. } = &mut a.reply else { panic!() };
            *txid = [9; 32];
        }),
        ("other terms", |a| {
            let TradeReply::FundAck { terms_hash, .. } = &mut a.reply else { panic!() };
            *terms_hash = TermsHash([9; 32]);
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
            a.activation(|x| x.holder = Key([9; 32]))
        }),
        ("another attempt", "activation.does_not_fit", |a| a.activation(|x| x.attempt += 1)),
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
        ("another past", "activation.does_not_fit", |a| a.activation(|x| x.prev_hash = [9; 32])),
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
        let told = world.parties[BUYER].try_buy(&world.setup, world.now_ms, seller, None);
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
