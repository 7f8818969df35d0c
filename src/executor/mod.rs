//! How a lease runs on the provider's host.
//!
//! ```text
//! node → Manager ──spawns──▶ capex shim <lease-dir> ──runs──▶ the component (WASI 0.2)
//!           ▲                     │ state.json, usage.json, stdout, stderr, work/
//!           └────── polls ────────┘
//! ```
//!
//! One child process per lease enforces the delivery window, the memory and the disk
//! quota by itself, so that a lease neither dies with the daemon nor outlives its end.
//! Everything that the two processes say to each other is a file of the lease directory:
//! a restarted daemon adopts what it finds there.

mod blobs;
mod error;
mod event;
mod guest;
mod hex_text;
mod inspect;
pub mod inventory;
mod layout;
mod logs;
mod manager;
mod meter;
mod probe;
mod process;
mod quota;
mod retention;
pub mod samples;
pub mod shim;
mod spec;
mod state;
mod supervise;
mod wasm;
mod watch;

pub use blobs::PutProgress;
pub use error::ExecutorError;
pub use event::LeaseEvent;
pub use inspect::{Needs, Unfit, inspect};
pub use logs::LogChunk;
pub use manager::{EVENT_QUEUE, Manager};
pub use probe::{Proved, self_test};
pub use retention::FreedProof;
pub use spec::{
    Allowance, Input, LeaseSpec, MAX_GRACE_MS, MAX_MEMORY_BYTES, MAX_OUTPUT_BYTES, MAX_STRINGS,
    MAX_STRINGS_BYTES, MAX_WINDOW_MS, MAX_WORK_BYTES, MIN_MEMORY_BYTES, SpecError,
};
pub use state::{Ended, Outcome, State, Usage};
