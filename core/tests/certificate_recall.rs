//! Certificates that who paid for them may recall: what moves them, and what does not.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod certificate_fixture;

use capex_core::certificate::file::{parse, write};
use capex_core::certificate::objects::{Area, Binding, Gift, Issue, Merge, Parent, Split};
use capex_core::certificate::{Certificate, Claim, Hop, verify};
use capex_core::engine::holdings::HoldingsCommand;
use capex_core::engine::io::Done;
use capex_core::engine::messages::SettleReply;
use capex_core::engine::register::{RegisterReply, RegisterRequest};
use capex_core::engine::trades::Fresh;
use capex_core::ids::{CertId, Key, TradeId};
use capex_core::settlement::objects::{LockGrant, Terms};
use capex_core::wire::{Envelope, Object, Verified};
use certificate_fixture::party::{Net, WINDOW, fresh};
use certificate_fixture::*;

const PROVIDER: u8 = 1;
const HOLDER: u8 = 2;
const SPONSOR: u8 = 3;
const CAROL: u8 = 4;
/// What the provider's register answers, if it has moved it.
const MOVED: &str = "moved";
const STARTS_MS: u64 = 1000 * 4000;

/// Sold to the holder, on an Issue that lets the sponsor recall it.
fn sponsored() -> Draft {
    let params = devnet();
    let mut draft = Draft::new(PROVIDER, units(2, 5), WINDOW, &params);
    let by_sponsor = Binding::Recallable { by: public(SPONSOR) };
    let issue = Issue { binding: by_sponsor, ..(*draft.issue).clone() };
    draft.issue = by(PROVIDER, issue, &params);
    draft.last = draft.issue.id();
    draft.sell(HOLDER)
}

/// The same, given by a key that need not hold it.
fn given(draft: Draft, from: u8, to: u8) -> Draft {
    Draft { holder: from, ..draft }.give(to)
}

fn code(certificate: &Certificate) -> &'static str {
    verify(certificate, &devnet()).unwrap_err().code()
}

#[test]
fn who_paid_takes_it_back_or_gives_it_to_another_and_then_it_is_as_any() {
    let params = devnet();
    let facts = verify(&sponsored().certificate(), &params).unwrap();
    assert_eq!((facts.holder, facts.recall), (public(HOLDER), Some(public(SPONSOR))));
    for to in [SPONSOR, CAROL] {
        let back = given(sponsored(), SPONSOR, to);
        let facts = verify(&back.certificate(), &params).unwrap();
        assert_eq!((facts.holder, facts.recall, facts.seq), (public(to), None, 2));
        let last = facts.transfers.last().unwrap();
        assert_eq!((last.kind.name(), last.from), ("recall", public(HOLDER)));
        let facts = verify(&back.give(HOLDER).sell(CAROL).certificate(), &params).unwrap();
        let kinds: Vec<&str> = facts.transfers.iter().map(|fact| fact.kind.name()).collect();
        assert_eq!(kinds, ["sale", "recall", "gift", "sale"]);
    }
}

#[test]
fn nothing_else_moves_it() {
    for (what, certificate, expected) in [
        ("given by its holder", sponsored().give(CAROL), "certificate.recallable"),
        ("given by a stranger", given(sponsored(), CAROL, CAROL), "certificate.not_holder"),
        ("sold by its holder", sponsored().sell(CAROL), "certificate.recallable"),
        (
            "recalled twice",
            given(given(sponsored(), SPONSOR, CAROL), SPONSOR, HOLDER),
            "certificate.not_holder",
        ),
    ] {
        assert_eq!(code(&certificate.certificate()), expected, "{what}");
    }
}

/// A file names no signers: of a recall it is who the Issue lets do so.
#[test]
fn its_file_says_who_recalled_it() {
    let params = devnet();
    for draft in [
        sponsored(),
        given(sponsored(), SPONSOR, SPONSOR),
        given(sponsored(), SPONSOR, CAROL).give(HOLDER),
    ] {
        let certificate = draft.certificate();
        let read = parse(&write(&certificate, &params), &params).unwrap();
        assert_eq!(read, certificate);
        assert_eq!(verify(&read, &params), verify(&certificate, &params));
        // What a node knows again after a restart, without a signature checked.
        assert_eq!(certificate.recall(), verify(&certificate, &params).unwrap().recall);
    }
    // By the holder it reads as a signature that is not the sponsor's.
    let forged = parse(&write(&sponsored().give(CAROL).certificate(), &params), &params).unwrap();
    assert_eq!(code(&forged), "certificate.bad_signature");
}

/// A provider, the holder of two certificates, and who paid for both and may recall them.
fn bought(net: &mut Net) -> [CertId; 2] {
    [(7, 0, 3), (8, 3, 6)].map(|(number, first, end)| {
        let (trade, units) = (TradeId([number; 32]), units(first, end));
        let terms = net.party(PROVIDER).with(|ctx, books, _| {
            books.register.set_capacity(ctx, &[(1, 64)]).unwrap();
            books.register.ledger.claim(Claim::Row(trade), 1, &units, WINDOW).unwrap();
            let fresh = Fresh { recall: Some(public(SPONSOR)), ..fresh(1, &units, WINDOW) };
            let issue = books.register.issue(ctx, trade, &fresh).unwrap();
            let mut terms = terms(&issue, 0, issue.id(), public(PROVIDER), public(HOLDER));
            (terms.trade_id, terms.funders[0].key) = (trade, public(SPONSOR));
            by(PROVIDER, terms, &devnet())
        });
        lock(net, &terms).unwrap();
        let certificate = net.activate(&terms);
        let acquired = net.party(SPONSOR).with(|ctx, books, _| books.acquire(ctx, certificate));
        net.pump();
        acquired.unwrap()
    })
}

fn lock(net: &mut Net, terms: &Verified<Terms>) -> Result<Verified<LockGrant>, &'static str> {
    let accepts = [accept(SPONSOR, terms, &devnet())];
    net.party(PROVIDER).with(|ctx, books, _| books.register.lock(ctx, terms, &accepts))
}

fn ask(net: &mut Net, request: RegisterRequest) -> String {
    match net.settle(PROVIDER, SPONSOR, request) {
        SettleReply::Refused { code } => code,
        SettleReply::Register(RegisterReply::Activation(_)) => MOVED.to_owned(),
        other => panic!("{other:?}"),
    }
}

fn head(net: &mut Net, cert: CertId) -> Parent {
    net.party(PROVIDER).books.register.issued(&cert).unwrap().head()
}

fn signed<T: Object>(party: u8, value: T) -> Envelope {
    let signed: Verified<T> = by(party, value, &devnet());
    signed.envelope().clone()
}

fn gift(net: &mut Net, cert_id: CertId, from: u8, to: Key) -> RegisterRequest {
    let Parent { seq, prev_hash, .. } = head(net, cert_id);
    RegisterRequest::Gift(signed(
        from,
        Gift { v: 1, cert_id, seq, prev_hash, to, nonce16: [5; 16] },
    ))
}

/// Whoever signs what, the provider moves it for who may recall it, and for nobody else.
#[test]
fn a_provider_moves_it_for_its_sponsor_alone() {
    let mut net = Net::new(&[PROVIDER, HOLDER, SPONSOR, CAROL]);
    let [cert, other] = bought(&mut net);
    let Parent { cert_id, seq, prev_hash } = head(&mut net, cert);
    let before = net.party(PROVIDER).records();
    let by_holder = gift(&mut net, cert, HOLDER, public(CAROL));
    assert_eq!(ask(&mut net, by_holder), "gift.recallable");
    let by_stranger = gift(&mut net, cert, CAROL, public(CAROL));
    assert_eq!(ask(&mut net, by_stranger), "gift.not_holder");
    let to_holder = gift(&mut net, cert, SPONSOR, public(HOLDER));
    assert_eq!(ask(&mut net, to_holder), "gift.to_self");
    let parts = [(0, 1), (1, 3)].map(|(a, b)| Area { units: units(a, b), window: WINDOW });
    let split = Split { v: 1, cert_id, seq, prev_hash, parts: parts.to_vec(), nonce16: [5; 16] };
    for (party, code) in [(HOLDER, "split.recallable"), (SPONSOR, "split.not_holder")] {
        let request = RegisterRequest::Split(signed(party, split.clone()));
        assert_eq!(ask(&mut net, request), code);
    }
    let mut parts = vec![head(&mut net, cert), head(&mut net, other)];
    parts.sort_unstable();
    let merge = Merge { v: 1, parts, nonce16: [5; 16] };
    for (party, code) in [(HOLDER, "merge.recallable"), (SPONSOR, "merge.not_holder")] {
        let request = RegisterRequest::Merge(signed(party, merge.clone()));
        assert_eq!(ask(&mut net, request), code);
    }
    let certificate = net.party(PROVIDER).books.certificate(&cert).unwrap().clone();
    let issue = certificate.issue().unwrap().verify(devnet().magic).unwrap();
    let mut resold = terms(&issue, seq, prev_hash, public(HOLDER), public(CAROL));
    resold.funders[0].key = public(SPONSOR);
    assert_eq!(lock(&mut net, &by(HOLDER, resold, &devnet())).unwrap_err(), "lock.recallable");
    assert_eq!(net.party(PROVIDER).records(), before, "nothing is consumed");

    let recall = gift(&mut net, cert, SPONSOR, public(SPONSOR));
    assert_eq!(ask(&mut net, recall.clone()), MOVED);
    assert_eq!(ask(&mut net, recall), MOVED, "again the same");
    net.pump();
    for party in [PROVIDER, HOLDER, SPONSOR] {
        assert_eq!(net.state(party, cert).1, 2, "{party}");
        assert_eq!(net.state(party, cert).2, public(SPONSOR), "{party}");
    }
    assert_eq!(net.state(HOLDER, cert).0, "recalled");
    let by_holder = gift(&mut net, cert, HOLDER, public(CAROL));
    assert_eq!(ask(&mut net, by_holder), "gift.not_holder");
}

/// What a node may do with it stands on its disk as well.
#[test]
fn a_restart_forgets_no_right_of_recall() {
    let mut net = Net::new(&[PROVIDER, HOLDER, SPONSOR]);
    let [cert, _] = bought(&mut net);
    for party in [PROVIDER, HOLDER, SPONSOR] {
        net.restart(party);
    }
    let by_holder = gift(&mut net, cert, HOLDER, public(CAROL));
    assert_eq!(ask(&mut net, by_holder), "gift.recallable");
    let to = public(CAROL);
    net.party(HOLDER).command(1, HoldingsCommand::Gift { cert, to }, true);
    let parts = [(0, 1), (1, 3)].map(|(a, b)| Area { units: units(a, b), window: WINDOW });
    let split = HoldingsCommand::Split { cert, parts: parts.to_vec(), give: None };
    net.party(HOLDER).command(2, split, true);
    net.party(SPONSOR).command(3, HoldingsCommand::Recall { cert }, true);
    net.pump();
    assert_eq!(
        net.party(HOLDER).done(),
        [(1, Err("gift.recallable".to_owned())), (2, Err("split.recallable".to_owned()))]
    );
    assert_eq!(net.party(SPONSOR).done(), [(3, Ok(Done::Gifted { cert, seq: 2 }))]);
    // It is the sponsor's as any other: it cannot be recalled again, and can be given.
    net.party(SPONSOR).command(4, HoldingsCommand::Recall { cert }, true);
    net.party(SPONSOR).command(5, HoldingsCommand::Gift { cert, to: public(HOLDER) }, true);
    net.pump();
    let done = net.party(SPONSOR).done();
    assert_eq!(
        done[1..],
        [(4, Err("gift.to_self".to_owned())), (5, Ok(Done::Gifted { cert, seq: 3 }))]
    );
    assert_eq!(net.state(HOLDER, cert), ("active", 3, public(HOLDER)));
}

#[test]
fn nothing_is_recalled_once_its_window_has_begun() {
    let mut net = Net::new(&[PROVIDER, HOLDER, SPONSOR]);
    let [cert, _] = bought(&mut net);
    for party in [PROVIDER, HOLDER, SPONSOR] {
        net.party(party).now_ms = STARTS_MS;
    }
    let recall = gift(&mut net, cert, SPONSOR, public(SPONSOR));
    assert_eq!(ask(&mut net, recall), "gift.window_started");
    net.party(SPONSOR).command(1, HoldingsCommand::Recall { cert }, true);
    assert_eq!(net.party(SPONSOR).done(), []);
    net.pump();
    assert_eq!(net.party(SPONSOR).done(), [(1, Err("gift.window_started".to_owned()))]);
    let hops = net.party(PROVIDER).books.certificate(&cert).unwrap().hops.clone();
    assert!(matches!(hops[..], [Hop::Sale { .. }]));
}
