//! Requests of a stranger: garbage is refused, blamed on its sender and changes nothing.
//! The first byte picks the protocol.

use capex_core::engine::messages::SettleRequest;
use capex_core::engine::sync::SyncRequest;
use capex_core::engine::{Effect, Input, Protocol};
use capex_core::lease::objects::LeaseRequest;
use capex_core::limits::{LEASE_MAX_BYTES, SETTLE_MAX_BYTES, SYNC_MAX_BYTES};
use capex_core::wire::decode_record;

use super::world::{self, NOW_MS, STRANGER, digest, effects, public};

pub fn run(bytes: &[u8]) {
    let Some((pick, bytes)) = bytes.split_first() else { return };
    let protocol = Protocol::ALL[usize::from(*pick) % Protocol::ALL.len()];
    let (reads, most) = match protocol {
        Protocol::Settle => (decode_record::<SettleRequest>(bytes).is_ok(), SETTLE_MAX_BYTES),
        Protocol::Sync => (decode_record::<SyncRequest>(bytes).is_ok(), SYNC_MAX_BYTES),
        Protocol::Lease => (decode_record::<LeaseRequest>(bytes).is_ok(), LEASE_MAX_BYTES),
    };
    let mut engine = world::engine();
    let before = digest(&engine);
    let (peer, bytes) = (public(STRANGER), bytes.to_vec());
    engine.handle(NOW_MS + 1, Input::Request { peer, id: 7, protocol, bytes });
    let effects = effects(&mut engine);
    for effect in &effects {
        if let Effect::Reply { bytes, .. } = effect {
            assert!(bytes.len() <= most, "a reply of {} bytes", bytes.len());
        }
    }
    let blamed = effects.iter().any(|effect| matches!(effect, Effect::Penalise { .. }));
    assert_eq!(blamed, !reads);
    if !reads {
        assert!(effects.iter().all(world::is_harmless), "{effects:?}");
        assert_eq!(digest(&engine), before);
    }
}
