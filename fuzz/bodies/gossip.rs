//! Gossip on every topic: one verdict for each message; what is not accepted changes nothing
//! but who was asked for orders. The first byte picks the topic.

use capex_core::engine::{Effect, Input, Topic, Verdict};

use super::world::{self, NOW_MS, STRANGER, digest, effects, public};

pub fn run(bytes: &[u8]) {
    let Some((pick, bytes)) = bytes.split_first() else { return };
    let topic = Topic::ALL[usize::from(*pick) % Topic::ALL.len()];
    let mut engine = world::engine();
    let before = digest(&engine);
    for ticket in 0..2 {
        let (peer, bytes) = (public(STRANGER), bytes.to_vec());
        engine.handle(NOW_MS + 1, Input::Gossip { peer, topic, bytes, ticket });
        let effects = effects(&mut engine);
        let verdicts: Vec<Verdict> = effects.iter().filter_map(verdict).collect();
        assert_eq!(verdicts.len(), 1, "{effects:?}");
        assert!(ticket == 0 || verdicts[0] != Verdict::Accept, "accepted twice");
        if verdicts[0] == Verdict::Reject {
            assert!(effects.iter().all(world::is_harmless), "{effects:?}");
            assert_eq!(digest(&engine), before);
        }
    }
}

fn verdict(effect: &Effect) -> Option<Verdict> {
    match effect {
        Effect::Verdict { verdict, .. } => Some(*verdict),
        _ => None,
    }
}
