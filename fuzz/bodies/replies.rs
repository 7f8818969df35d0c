//! Replies to requests of this node: garbage is blamed on its sender and changes nothing.
//! The first byte picks the request.

use capex_core::engine::holdings::HoldingsCommand;
use capex_core::engine::leases::LeaseCommand;
use capex_core::engine::messages::SettleReply;
use capex_core::engine::sync::SyncReply;
use capex_core::engine::{Effect, Engine, Input, Topic};
use capex_core::ids::Digest;
use capex_core::lease::objects::{LeaseReply, Workload};
use capex_core::wire::{decode_record, encode};

use super::world::{self, NOW_MS, STRANGER, certificate_id, digest, effects, public};

pub fn run(bytes: &[u8]) {
    let Some((pick, bytes)) = bytes.split_first() else { return };
    let mut engine = world::engine();
    let reads = match pick % 3 {
        0 => decode_record::<SyncReply>(bytes).is_ok(),
        1 => decode_record::<LeaseReply>(bytes).is_ok(),
        _ => decode_record::<SettleReply>(bytes).is_ok(),
    };
    let id = ask(&mut engine, pick % 3);
    let before = digest(&engine);
    let result = Ok(bytes.to_vec());
    engine.handle(NOW_MS + 1, Input::Response { id, result });
    let effects = effects(&mut engine);
    if !reads {
        let blamed = effects.iter().any(|effect| matches!(effect, Effect::Penalise { .. }));
        assert!(blamed && effects.iter().all(world::is_harmless), "{effects:?}");
        assert_eq!(digest(&engine), before);
    }
}

fn ask(engine: &mut Engine, what: u8) -> u64 {
    let input = match what {
        0 => Input::Gossip {
            peer: public(STRANGER),
            topic: Topic::Roots,
            bytes: encode(world::root(STRANGER).envelope()),
            ticket: 1,
        },
        1 => {
            let workload = Workload::wasm(Digest([1; 32]), 10);
            let workload = Box::new(workload);
            let command = LeaseCommand::Redeem { cert: certificate_id(), workload }.into();
            Input::Command { id: 1, command }
        }
        _ => {
            let gift = HoldingsCommand::Gift { cert: certificate_id(), to: public(STRANGER) };
            let command = gift.into();
            Input::Command { id: 1, command }
        }
    };
    engine.handle(NOW_MS, input);
    let sent = effects(engine).into_iter().find_map(|effect| match effect {
        Effect::Send { id, .. } => Some(id),
        _ => None,
    });
    sent.expect("the node asks")
}
