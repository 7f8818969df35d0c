//! Two commands in one moment, and a holder that signs two things at once: the provider's first
//! signature decides, and nothing else moves.

use capex::sim::World;
use capex_core::certificate::carve;
use capex_core::certificate::objects::{Gift, Merge, Parent, Split};
use capex_core::engine::holdings::HoldingsCommand;
use capex_core::engine::leases::LeaseCommand;
use capex_core::engine::messages::{SettleReply, SettleRequest};
use capex_core::engine::register::RegisterRequest;
use capex_core::engine::{Command, Protocol};
use capex_core::ids::{CertId, Digest};
use capex_core::lease::objects::{LeaseReply, LeaseRequest, Redeem, Workload};
use capex_core::lease::workload::digest;
use capex_core::wire::{VERSION, decode_record, encode};

use super::recuts::{Cut, ERRAND_MS, FRIEND, HOLDER, PROVIDER, assert_kept, usable};

const SEED: u64 = 64;

/// What is done with the first half of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Give,
    Split,
    Merge,
    Redeem,
}

const ACTS: [Act; 4] = [Act::Give, Act::Split, Act::Merge, Act::Redeem];

fn workload() -> Workload {
    Workload::wasm(Digest([7; 32]), 100)
}

/// A part that can be split again, and another that fits to it.
fn halves(world: &World) -> (CertId, Vec<CertId>) {
    let certs = usable(world, HOLDER);
    let holdings = world.engine(HOLDER).unwrap().holdings();
    let slots = |cert: &CertId| holdings.held(cert).unwrap().window.len();
    (*certs.iter().max_by_key(|cert| slots(cert)).unwrap(), certs.clone())
}

impl Act {
    fn command(self, world: &World) -> Command {
        let (cert, certs) = halves(world);
        match self {
            Self::Give => HoldingsCommand::Gift { cert, to: world.nodes[FRIEND].key }.into(),
            Self::Split => {
                let whole = world.engine(HOLDER).unwrap().holdings().held(&cert).unwrap().area();
                let parts = carve(&whole, Some(1), None).unwrap();
                HoldingsCommand::Split { cert, parts, give: None }.into()
            }
            Self::Merge => HoldingsCommand::Merge { certs }.into(),
            Self::Redeem => LeaseCommand::Redeem { cert, workload: Box::new(workload()) }.into(),
        }
    }

    /// What a node that keeps to no rule signs and sends. Its code if it is refused.
    fn by_hand(
        self,
        world: &mut World,
        heads: &[Parent],
        challenge32: [u8; 32],
    ) -> Result<(), String> {
        let ([head, ..], nonce16) = (heads, [self as u8; 16]) else { panic!() };
        let Parent { cert_id, seq, prev_hash } = *head;
        let me = world.nodes[HOLDER].key;
        let v = VERSION;
        let request = match self {
            Self::Give => {
                let to = world.nodes[FRIEND].key;
                let gift = Gift { v, cert_id, seq, prev_hash, to, nonce16 };
                RegisterRequest::Gift(world.sign_as(HOLDER, gift))
            }
            Self::Split => {
                let register = world.engine(PROVIDER).unwrap().register();
                let whole = register.issued(&cert_id).unwrap().area();
                let parts = carve(&whole, Some(1), None).unwrap();
                let split = Split { v, cert_id, seq, prev_hash, parts, nonce16 };
                RegisterRequest::Split(world.sign_as(HOLDER, split))
            }
            Self::Merge => {
                let mut parts = heads.to_vec();
                parts.sort_unstable();
                RegisterRequest::Merge(world.sign_as(HOLDER, Merge { v, parts, nonce16 }))
            }
            Self::Redeem => {
                let workload_digest = digest(&workload());
                let not_after_s = world.now_ms / 1000 + 30;
                let redeem = Redeem {
                    v,
                    cert_id,
                    seq,
                    holder: me,
                    workload_digest,
                    challenge32,
                    not_after_s,
                };
                let redeem = world.sign_as(HOLDER, redeem);
                let request = LeaseRequest::Redeem { redeem, workload: workload() };
                let bytes = encode(&request);
                let reply = world.ask_from(me, PROVIDER, Protocol::Lease, &bytes).unwrap();
                return match decode_record(&reply).unwrap() {
                    LeaseReply::Refused { code } => Err(code),
                    _ => Ok(()),
                };
            }
        };
        let bytes = encode(&SettleRequest::from(request));
        let reply = world.ask_from(me, PROVIDER, Protocol::Settle, &bytes).unwrap();
        match decode_record(&reply).unwrap() {
            SettleReply::Refused { code } => Err(code),
            _ => Ok(()),
        }
    }
}

/// Two commands at one node in one moment: at least one is done, and what both name is consumed
/// once.
#[test]
fn by_a_node_that_keeps_the_rules() {
    for first in ACTS {
        for second in ACTS {
            let mut world = Cut::Merge.begin(SEED);
            let commands = [first, second].map(|act| act.command(&world));
            let ids = commands.map(|command| world.command(HOLDER, command));
            world.run_for(ERRAND_MS);
            let done = ids.map(|id| world.answer(HOLDER, id).is_some_and(Result::is_ok));
            let label = format!("{first:?}, then {second:?}: {done:?}");
            // Repeating a command repeats what was signed.
            let once = if first == second { done[0] || done[1] } else { done[0] != done[1] };
            assert!(once, "{label}");
            assert_kept(&mut world, &label);
        }
    }
}

/// One that signs both and sends them one after the other, as often as it likes.
#[test]
fn by_one_that_signs_everything() {
    for first in ACTS {
        for second in ACTS.into_iter().filter(|second| *second != first) {
            let mut world = Cut::Merge.begin(SEED);
            let (cert, certs) = halves(&world);
            let holdings = world.engine(HOLDER).unwrap().holdings();
            let mut heads: Vec<Parent> =
                certs.iter().map(|cert| holdings.held(cert).unwrap()).map(head).collect();
            heads.sort_by_key(|head| head.cert_id != cert);
            // Before anything is consumed.
            let me = world.nodes[HOLDER].key;
            let asked = encode(&LeaseRequest::Challenge(cert));
            let reply = world.ask_from(me, PROVIDER, Protocol::Lease, &asked).unwrap();
            let LeaseReply::Challenge(challenge32) = decode_record(&reply).unwrap() else {
                panic!()
            };
            let label = format!("{first:?}, then {second:?}");
            assert_eq!(first.by_hand(&mut world, &heads, challenge32), Ok(()), "{label}");
            let refused = second.by_hand(&mut world, &heads, challenge32).unwrap_err();
            assert!(is_expected(second, &refused), "{label}: {refused}");
            let again = second.by_hand(&mut world, &heads, challenge32).unwrap_err();
            assert!(is_expected(second, &again), "{label}: {again}");
            // Its own node hears of it when it asks the provider, as it does at a start.
            world.restart(HOLDER, 100);
            world.run_for(ERRAND_MS);
            let faults = world.faults();
            assert!(faults.is_empty(), "{label}: {faults:?}");
        }
    }
}

fn head(facts: &capex_core::certificate::VerifiedCertificate) -> Parent {
    Parent { cert_id: facts.cert_id, seq: facts.seq, prev_hash: facts.last_hash }
}

fn is_expected(act: Act, code: &str) -> bool {
    match act {
        Act::Give => matches!(code, "gift.consumed" | "gift.stale_seq" | "gift.not_holder"),
        Act::Split => matches!(code, "split.consumed" | "split.stale_seq" | "split.not_holder"),
        Act::Merge => matches!(code, "merge.consumed" | "merge.stale_seq" | "merge.not_holder"),
        Act::Redeem => matches!(code, "redeem.consumed" | "redeem.stale_seq" | "redeem.not_holder"),
    }
}
