//! The own clock against those of peers, through the engine alone.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use capex_core::engine::kernel::ClockState;
use capex_core::engine::sync::{SyncReply, SyncRequest};
use capex_core::engine::{Effect, Engine, Input, Keys, Protocol};
use capex_core::ids::Key;
use capex_core::test_support::devnet;
use capex_core::wire::encode;

const NOW_MS: u64 = 1_800_000_000_000;

fn started() -> Engine {
    let mut engine = Engine::new(devnet(), Keys::new([1; 32], [2; 32]));
    engine.handle(NOW_MS, Input::Started { records: Vec::new(), salt: [3; 32] });
    engine
}

/// Requests for the time since the last look: (request, peer).
fn asked(engine: &mut Engine) -> Vec<(u64, Key)> {
    let clock = encode(&SyncRequest::Clock);
    std::iter::from_fn(|| engine.poll_effect())
        .filter_map(|effect| match effect {
            Effect::Send { id, key, protocol: Protocol::Sync, bytes } if bytes == clock => {
                Some((id, key))
            }
            _ => None,
        })
        .collect()
}

fn clock(unix_ms: u64) -> SyncReply {
    SyncReply::Clock { unix_ms, contacts: Vec::new() }
}

fn comes(engine: &mut Engine, peer: u8) -> u64 {
    engine.handle(NOW_MS, Input::Peer { key: Key([peer; 32]), up: true });
    let asked = asked(engine);
    assert_eq!(asked.len(), 1, "asked when it comes");
    assert_eq!(asked[0].1, Key([peer; 32]));
    asked[0].0
}

fn says(engine: &mut Engine, id: u64, took_ms: u64, reply: &SyncReply) {
    let result = Ok(encode(reply));
    engine.handle(NOW_MS + took_ms, Input::Response { id, result });
}

#[test]
fn five_peers_judge_and_liars_and_slow_answers_do_not() {
    let mut engine = started();
    // The own clock is 300 ms ahead, seen half a round trip ago; the tolerance is 150.
    let right = |took_ms: u64| clock(NOW_MS + took_ms / 2 - 300);
    for peer in 0..3 {
        let id = comes(&mut engine, peer + 10);
        says(&mut engine, id, 100, &right(100));
    }
    let id = comes(&mut engine, 20);
    says(&mut engine, id, 0, &clock(0));
    let slow = comes(&mut engine, 21);
    says(&mut engine, slow, 151, &right(151));
    let other = comes(&mut engine, 22);
    says(&mut engine, other, 0, &SyncReply::Ids(Vec::new()));
    let state = |engine: &Engine| engine.market().clock().state;
    assert_eq!(state(&engine), ClockState::Doubtful, "four samples are too few");
    let id = comes(&mut engine, 23);
    says(&mut engine, id, 0, &clock(u64::MAX));
    assert_eq!(state(&engine), ClockState::Off, "the median of five is 300 ms");
    // A sample goes with its peer.
    engine.handle(NOW_MS, Input::Peer { key: Key([10; 32]), up: false });
    assert_eq!(state(&engine), ClockState::Doubtful);
}

#[test]
fn peers_are_asked_again_once_a_minute() {
    let mut engine = started();
    engine.handle(NOW_MS, Input::Tick);
    for peer in 1..=3 {
        comes(&mut engine, peer);
    }
    engine.handle(NOW_MS + 59_999, Input::Tick);
    assert!(asked(&mut engine).is_empty());
    let (due_ms, _) = engine.poll_timeout(NOW_MS + 59_999);
    assert!(due_ms <= NOW_MS + 60_000);
    engine.handle(NOW_MS + 60_000, Input::Tick);
    assert_eq!(asked(&mut engine).len(), 3);
    engine.handle(NOW_MS + 60_001, Input::Tick);
    assert!(asked(&mut engine).is_empty());
    // A clock that is set back by a day asks all the same.
    let earlier_ms = NOW_MS - 86_400_000;
    engine.handle(earlier_ms, Input::Tick);
    assert_eq!(asked(&mut engine).len(), 3);
    assert!(engine.poll_timeout(earlier_ms).0 <= earlier_ms + 60_000);
}
