//! Every state that a certificate can come to which its holder cuts while it is sold, given or
//! redeemed: register and holdings under breadth-first search.
//!
//! The bounds are small, and within them nothing is left to chance. A message that was sent
//! arrives at any later time, any number of times, or never. Each step of a party begins with
//! what is on its disk, as after a crash, and ends with what it wrote. In every state what the
//! provider ever signed convicts it of nothing and names one current certificate for each
//! unit-slot, and its register has each once; from every state all agree when everything that is
//! sent arrives.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod certificate_fixture;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use capex_core::certificate::equivocation::Statement;
use capex_core::certificate::objects::{Area, Issue, StatementKind};
use capex_core::certificate::{Claim, carve, verify};
use capex_core::engine::certificates::CertificateView;
use capex_core::engine::holdings::{HoldingsCommand, HoldingsPurpose};
use capex_core::engine::io::{Effect, Protocol, Topic};
use capex_core::engine::messages::SettleRequest;
use capex_core::engine::register::RegisterRequest;
use capex_core::ids::{CertId, Digest, Key, LeaseId};
use capex_core::lease::objects::Redeem;
use capex_core::settlement::objects::{Accept, Terms};
use capex_core::wire::{self, Envelope, Verified};
use certificate_fixture::party::*;
use certificate_fixture::*;

const PROVIDER: u8 = 1;
const ALICE: u8 = 2;
const BOB: u8 = 3;
const ALL: [u8; 3] = [PROVIDER, ALICE, BOB];
/// More messages than the longest way to an end needs.
const SETTLING: usize = 40;

type Disk = BTreeMap<(u8, Vec<u8>), Vec<u8>>;

/// Something that one party is told to do, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Command {
    /// Alice cuts the certificate in two.
    Split,
    /// The same, and one part is Bob's.
    GivePart,
    Give,
    /// Alice joins what she has.
    Merge,
    /// Bob cuts the first that he has.
    SplitAgain,
    /// The provider locks the certificate for its sale to Bob.
    Lock,
    Release,
    /// The sale is paid.
    Activate,
    /// The provider takes a redemption of the certificate that Alice signed.
    Redeem,
}

/// A request of `settle/1`, or the answer to one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Message {
    from: u8,
    to: u8,
    request: Vec<u8>,
    answer: Option<Vec<u8>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Do(Command),
    /// A party sends what it has to send.
    Wake(u8),
    Arrive(u8),
}

/// Numbers of what is on the disks, and sets of what was sent, signed and done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct State {
    disks: [u16; 3],
    sent: u128,
    said: u64,
    done: u16,
}

/// What a step made of one party.
#[derive(Debug, Clone, Copy)]
struct Moved {
    disk: u16,
    sent: u128,
    said: u64,
}

struct Model {
    cert: CertId,
    whole: Area,
    terms: Verified<Terms>,
    accept: Verified<Accept>,
    disks: Vec<Disk>,
    numbers: BTreeMap<Disk, u16>,
    messages: Vec<Message>,
    said: Vec<Statement>,
    moves: BTreeMap<(u8, u16, Step), Moved>,
    sound: BTreeSet<(u16, u64)>,
    settled: BTreeSet<([u16; 3], u16)>,
}

fn place(party: u8) -> usize {
    usize::from(party - 1)
}

impl Model {
    /// Alice has bought four units in four slots.
    fn new() -> (Self, State) {
        let mut net = Net::new(&ALL);
        let cert = net.sell(0, &units(0, 4), ALICE);
        let certificate = net.party(ALICE).books.certificate(&cert).unwrap().clone();
        let facts = verify(&certificate, &devnet()).unwrap();
        let issue: Verified<Issue> = certificate.issue().unwrap().verify(devnet().magic).unwrap();
        let terms = terms(&issue, facts.seq, facts.last_hash, public(ALICE), public(BOB));
        let terms = by(ALICE, terms, &devnet());
        let accept = accept(BOB, &terms, &devnet());
        let mut model = Self {
            cert,
            whole: facts.area(),
            terms,
            accept,
            disks: Vec::new(),
            numbers: BTreeMap::new(),
            messages: Vec::new(),
            said: Vec::new(),
            moves: BTreeMap::new(),
            sound: BTreeSet::new(),
            settled: BTreeSet::new(),
        };
        let disks = ALL.map(|party| model.number(net.party(party).disk.clone()));
        let first = certificate.last_activation().unwrap();
        let said = model.say(StatementKind::Activation, first);
        (model, State { disks, sent: 0, said, done: 0 })
    }

    fn number(&mut self, disk: Disk) -> u16 {
        let next = u16::try_from(self.disks.len()).unwrap();
        *self.numbers.entry(disk).or_insert_with_key(|disk| {
            self.disks.push(disk.clone());
            next
        })
    }

    fn say(&mut self, kind: StatementKind, bytes: &Envelope) -> u64 {
        let statement = Statement::verify(kind, bytes, devnet().magic).unwrap();
        let known = self.said.iter().position(|one| one.envelope() == statement.envelope());
        let at = known.unwrap_or_else(|| {
            self.said.push(statement);
            self.said.len() - 1
        });
        1 << at
    }

    fn send(&mut self, message: Message) -> u128 {
        let known = self.messages.iter().position(|one| *one == message);
        let at = known.unwrap_or_else(|| {
            self.messages.push(message);
            self.messages.len() - 1
        });
        assert!(at < 128, "more messages than a state can name");
        1 << at
    }

    /// A new life of a party on what is on its disk; the others are out of reach.
    fn life(&self, party: u8, disk: u16) -> Net {
        let mut net = Net::new(&[party]);
        net.party(party).disk = self.disks[usize::from(disk)].clone();
        net.restart(party);
        net
    }

    /// What a party wrote, sent and signed since its life began.
    fn end(&mut self, party: u8, mut net: Net, mut moved: Moved) -> Moved {
        for effect in net.party(party).take_effects() {
            moved = self.heard(party, &effect, moved);
        }
        Moved { disk: self.number(net.party(party).disk.clone()), ..moved }
    }

    fn heard(&mut self, party: u8, effect: &Effect, mut moved: Moved) -> Moved {
        match effect {
            Effect::Send { key, protocol: Protocol::Settle, bytes, .. } => {
                if let Some(to) = ALL.into_iter().find(|to| public(*to) == *key) {
                    let request = bytes.clone();
                    moved.sent |= self.send(Message { from: party, to, request, answer: None });
                }
            }
            Effect::Publish { topic: Topic::Locks, bytes } => {
                let bytes: Envelope = wire::decode_exact(bytes).unwrap();
                let kinds = [
                    StatementKind::Activation,
                    StatementKind::LockGrant,
                    StatementKind::RedeemGrant,
                ];
                let is = |kind: &StatementKind| Statement::verify(*kind, &bytes, devnet().magic);
                let kind = kinds.into_iter().find(|kind| is(kind).is_ok()).unwrap();
                moved.said |= self.say(kind, &bytes);
            }
            _ => {}
        }
        moved
    }

    /// What a step makes of the party that takes it; `None` if it does nothing.
    fn moved(&mut self, party: u8, disk: u16, step: Step) -> Option<Moved> {
        if let Some(known) = self.moves.get(&(party, disk, step)) {
            return Some(*known);
        }
        let mut net = self.life(party, disk);
        let mut moved = Moved { disk, sent: 0, said: 0 };
        match step {
            Step::Wake(_) => net.party(party).with(|ctx, books, _| {
                books.register.on_tick(ctx);
                books.holdings.on_tick(ctx);
            }),
            Step::Do(command) => moved.said |= self.command(&mut net, command),
            Step::Arrive(number) => {
                let message = self.messages[usize::from(number)].clone();
                moved.sent |= self.arrive(&mut net, message);
            }
        }
        let moved = self.end(party, net, moved);
        self.moves.insert((party, disk, step), moved);
        Some(moved)
    }

    fn command(&mut self, net: &mut Net, command: Command) -> u64 {
        let (cert, whole) = (self.cert, self.whole.clone());
        let parts = || carve(&whole, Some(2), None).unwrap();
        let order = match command {
            Command::Split => HoldingsCommand::Split { cert, parts: parts(), give: None },
            Command::GivePart => {
                HoldingsCommand::Split { cert, parts: parts(), give: Some((0, public(BOB))) }
            }
            Command::Give => HoldingsCommand::Gift { cert, to: public(BOB) },
            Command::Merge => HoldingsCommand::Merge { certs: usable(net, ALICE) },
            Command::SplitAgain => {
                let Some(cert) = usable(net, BOB).first().copied() else { return 0 };
                let area = net.party(BOB).books.holdings.held(&cert).unwrap().area();
                let parts = carve(&area, Some(1), None).unwrap();
                HoldingsCommand::Split { cert, parts, give: None }
            }
            Command::Lock | Command::Release | Command::Activate | Command::Redeem => {
                return self.provide(net, command);
            }
        };
        let party = if command == Command::SplitAgain { BOB } else { ALICE };
        net.party(party).command(1, order, false);
        0
    }

    fn provide(&mut self, net: &mut Net, command: Command) -> u64 {
        let (terms, accepts) = (self.terms.clone(), [self.accept.clone()]);
        let cert = self.cert;
        let signed = net.party(PROVIDER).with(|ctx, books, _| match command {
            Command::Lock => {
                let locked = books.register.lock(ctx, &terms, &accepts);
                locked.ok().map(|lock| (StatementKind::LockGrant, lock.envelope().clone()))
            }
            Command::Release => {
                books.register.release(ctx, terms_hash(&terms), evidence(1));
                None
            }
            Command::Activate => {
                let sold = books.register.activate_sale(ctx, &terms, &transfer(&terms));
                sold.ok().map(|bytes| (StatementKind::Activation, bytes))
            }
            _ => {
                let redeem = Redeem {
                    v: 1,
                    cert_id: cert,
                    seq: 1,
                    holder: public(ALICE),
                    workload_digest: Digest([7; 32]),
                    challenge32: [8; 32],
                    not_after_s: 0,
                };
                books.register.check_redeem(ctx, &redeem).ok()?;
                let grant = books.register.consume_redeem(ctx, cert, LeaseId([9; 32])).unwrap();
                Some((StatementKind::RedeemGrant, grant))
            }
        });
        signed.map_or(0, |(kind, bytes)| self.say(kind, &bytes))
    }

    /// A request is answered; an answer is heard by who still asks for the same.
    fn arrive(&mut self, net: &mut Net, message: Message) -> u128 {
        let Message { from, to, request, answer } = message;
        let Some(answer) = answer else {
            let answer = net.ask(public(to), public(from), Protocol::Settle, &request);
            return self.send(Message { from, to, request, answer: Some(answer) });
        };
        if let SettleRequest::Register(RegisterRequest::Get(cert)) =
            wire::decode_record(&request).unwrap()
        {
            // It asked when it heard what it holds, and has not died since.
            let (reply, fetch) = (wire::decode_record(&answer), HoldingsPurpose::Fetch(cert, None));
            net.party(from).with(|ctx, books, _| {
                let Books { holdings, witness, .. } = books;
                holdings.on_reply(ctx, witness, &|_| true, public(to), fetch, Ok(reply.unwrap()));
            });
            return 0;
        }
        net.party(from).with(|ctx, books, _| {
            books.register.on_tick(ctx);
            books.holdings.on_tick(ctx);
        });
        let effects = net.party(from).take_effects();
        let mut moved = Moved { disk: 0, sent: 0, said: 0 };
        for effect in &effects {
            moved = self.heard(from, effect, moved);
            if let Effect::Send { id, key, protocol: Protocol::Settle, bytes } = effect
                && (*key, bytes) == (public(to), &request)
            {
                net.answer(from, *id, Protocol::Settle, Ok(answer.clone()));
            }
        }
        moved.sent
    }

    fn actor(&self, step: Step) -> u8 {
        match step {
            Step::Do(Command::SplitAgain) => BOB,
            Step::Do(Command::Lock | Command::Release | Command::Activate | Command::Redeem) => {
                PROVIDER
            }
            Step::Do(_) => ALICE,
            Step::Wake(party) => party,
            Step::Arrive(number) => {
                let message = &self.messages[usize::from(number)];
                if message.answer.is_some() { message.from } else { message.to }
            }
        }
    }

    fn after(&mut self, state: &State, step: Step) -> Option<State> {
        let party = self.actor(step);
        let disk = state.disks[place(party)];
        let moved = self.moved(party, disk, step)?;
        let mut after = *state;
        after.disks[place(party)] = moved.disk;
        after.sent |= moved.sent;
        after.said |= moved.said;
        if let Step::Do(command) = step {
            after.done |= 1 << command as u16;
        }
        Some(after)
    }

    /// Which rule a state breaks.
    fn broken(&mut self, state: &State) -> Option<String> {
        let provider = state.disks[place(PROVIDER)];
        if !self.sound.insert((provider, state.said)) {
            return None;
        }
        let said: Vec<&Statement> = (0..self.said.len())
            .filter(|at| state.said >> at & 1 == 1)
            .map(|at| &self.said[at])
            .collect();
        for (at, one) in said.iter().enumerate() {
            if said.iter().skip(at + 1).any(|other| one.contradicts(other)) {
                return Some("the provider convicts itself".to_owned());
            }
        }
        let gone: BTreeSet<(CertId, u32)> = said
            .iter()
            .filter(|one| !matches!(one, Statement::Lock(_)))
            .flat_map(|one| one.consumes())
            .map(|consumed| (consumed.cert_id, consumed.seq))
            .collect();
        let current: Vec<Area> = said
            .iter()
            .filter_map(|one| match one {
                Statement::Activation(one) if !gone.contains(&(one.cert_id, one.seq)) => {
                    Some(Area { units: one.units.clone(), window: one.window })
                }
                _ => None,
            })
            .collect();
        let overlaps =
            |(at, one): (usize, &Area)| current.iter().skip(at + 1).any(|two| one.overlaps(two));
        if current.iter().enumerate().any(overlaps) {
            return Some("two are current".to_owned());
        }
        let mut net = self.life(PROVIDER, provider);
        (!self.is_conserved(&mut net)).then(|| "unit-slots are lost".to_owned())
    }

    fn is_conserved(&self, net: &mut Net) -> bool {
        let slot = devnet().slot_at(START_MS);
        let register = &net.party(PROVIDER).books.register;
        let usable: Vec<Area> = register
            .views(slot)
            .filter(|view| matches!(view.state, "active" | "redeemed"))
            .map(|view| view.facts.area())
            .collect();
        let sum: u64 = usable.iter().map(Area::unit_slots).sum();
        let free = register.ledger.free_units(1, self.whole.window);
        let ids = register.views(slot).filter(|view| matches!(view.state, "active" | "redeemed"));
        let claimed = ids
            .flat_map(|view| {
                register.ledger.areas(Claim::Certificate(view.facts.cert_id)).collect::<Vec<_>>()
            })
            .count();
        sum == self.whole.unit_slots() && claimed == usable.len() && free == 64 - 4
    }

    /// Lets everything arrive. Nobody waits then, and each holds what the register says.
    fn disagrees(&mut self, state: &State) -> Option<String> {
        let mut state = *state;
        for _ in 0..SETTLING {
            let before = state;
            for party in ALL {
                state = self.after(&state, Step::Wake(party))?;
            }
            for number in 0..u8::try_from(self.messages.len()).unwrap() {
                if state.sent >> number & 1 == 1 {
                    state = self.after(&state, Step::Arrive(number))?;
                }
            }
            if state == before {
                break;
            }
        }
        if !self.settled.insert((state.disks, state.done)) {
            return None;
        }
        let mut issued = self.usable(PROVIDER, state.disks[place(PROVIDER)])?;
        let mut held = Vec::new();
        for party in [ALICE, BOB] {
            match self.usable(party, state.disks[place(party)]) {
                Some(found) => held.extend(found),
                None => return Some(format!("{party} waits for ever")),
            }
        }
        // Its seller hears of a sale as a trader, of whom there is none here.
        let was_sold = state.done >> Command::Activate as u16 & 1 == 1;
        held.retain(|one| issued.contains(one) || !was_sold || one.1 != self.cert);
        issued.sort_unstable();
        held.sort_unstable();
        (issued != held).then(|| format!("issued {issued:?}, held {held:?}"))
    }

    /// Certificates that can be used, as a party has them; `None` if it waits for its provider.
    fn usable(&self, party: u8, disk: u16) -> Option<Vec<(Key, CertId, [u8; 32])>> {
        let slot = devnet().slot_at(START_MS);
        let mut net = self.life(party, disk);
        let views = net.party(party).books.views(public(party), slot);
        if views.iter().any(|view| view.gift_pending.is_some() || view.recut_pending.is_some()) {
            return None;
        }
        // Who holds it hears of a redemption as a tenant.
        let is_usable = |view: &CertificateView| matches!(view.state, "active" | "redeemed");
        let facts = views.into_iter().filter(is_usable).map(|view| view.facts);
        Some(facts.map(|one| (one.holder, one.cert_id, one.last_hash)).collect())
    }
}

fn usable(net: &mut Net, party: u8) -> Vec<CertId> {
    let slot = devnet().slot_at(START_MS);
    let views = net.party(party).books.holdings.views(public(party), slot);
    views.filter(|view| view.state == "active").map(|view| view.facts.cert_id).collect()
}

/// Searches every order in which these commands can come, each at most once.
#[allow(clippy::print_stdout, reason = "says how many states there are")]
fn search(name: &str, commands: &[Command]) -> usize {
    let begun = Instant::now();
    let (mut model, first) = Model::new();
    let mut states = vec![first];
    let mut from: Vec<(usize, Option<Step>)> = vec![(0, None)];
    let mut numbers = BTreeMap::from([(first, 0)]);
    let mut next = 0;
    while let Some(state) = states.get(next).copied() {
        let way = |from: &[(usize, Option<Step>)], mut at: usize| {
            let mut way = Vec::new();
            while let (before, Some(step)) = from[at] {
                way.push(format!("{step:?}"));
                at = before;
            }
            way.reverse();
            way.join("\n")
        };
        if let Some(rule) = model.broken(&state) {
            panic!("{name}: {rule}:\n{}", way(&from, next));
        }
        let open = commands.iter().filter(|command| state.done >> **command as u16 & 1 == 0);
        let mut steps: Vec<Step> = open.map(|command| Step::Do(*command)).collect();
        steps.extend(ALL.map(Step::Wake));
        let sent = (0..model.messages.len()).filter(|number| state.sent >> number & 1 == 1);
        steps.extend(sent.map(|number| Step::Arrive(u8::try_from(number).unwrap())));
        for step in steps {
            let Some(after) = model.after(&state, step) else { continue };
            numbers.entry(after).or_insert_with(|| {
                states.push(after);
                from.push((next, Some(step)));
                states.len() - 1
            });
        }
        next += 1;
    }
    let (count, moves, time) = (states.len(), model.moves.len(), begun.elapsed());
    println!("{name}: {count} states, {moves} moves of parties, {time:.1?}");
    for (at, state) in states.iter().enumerate() {
        if let Some(rule) = model.disagrees(state) {
            panic!("{name}: state {at} {state:?}: {rule}");
        }
    }
    count
}

const SALE: [Command; 3] = [Command::Lock, Command::Release, Command::Activate];

#[test]
fn a_split_races_a_sale() {
    let commands = [&[Command::Split], SALE.as_slice()].concat();
    assert!(search("a split and a sale", &commands) > 1_000);
}

#[test]
fn a_split_races_a_redemption() {
    assert!(search("a split and a redemption", &[Command::Split, Command::Redeem]) > 100);
}

#[test]
fn a_split_races_a_gift() {
    assert!(search("a split and a gift", &[Command::Split, Command::Give]) > 100);
}

#[test]
fn parts_are_given_joined_and_redeemed() {
    let commands = [Command::GivePart, Command::Redeem];
    assert!(search("a gift of a part", &commands) > 100);
    let commands = [Command::Split, Command::Merge];
    assert!(search("a split and a merge", &commands) > 100);
}

#[test]
fn a_gift_of_a_part_races_a_sale() {
    let commands = [&[Command::GivePart], SALE.as_slice()].concat();
    assert!(search("a gift of a part and a sale", &commands) > 10_000);
}

#[test]
fn a_part_that_was_given_is_cut_while_the_whole_is_redeemed() {
    let commands = [Command::GivePart, Command::SplitAgain, Command::Redeem];
    assert!(search("a gift of a part, which is cut", &commands) > 10_000);
}
