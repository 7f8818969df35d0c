//! How a lease runs on the provider's host.
//!
//! ```text
//!              spec.json, stop, maintenance.json; rings its bell
//!           ┌────────────────────┐▼
//! node → Manager ──launcher──▶ capex shim <lease-dir> ──runtime──▶ the workload
//!           ▲                     │ state.json, usage.json, stdout, stderr, work/
//!           └─ inotify, a pidfd ──┘
//! ```
//!
//! A launcher says where the process of a lease runs, a runtime in it what runs the workload.
//! One process per lease enforces the delivery window by itself, so that a lease neither dies
//! with the daemon nor outlives its end. Everything that the two processes say to each other is
//! a file of the lease directory: a restarted daemon adopts what it finds there. Neither looks at the
//! files by the clock: the daemon is woken by the kernel, the lease process by the daemon.

pub mod access;
mod bell;
mod blobs;
pub mod egress;
mod error;
mod event;
mod hex_text;
mod images;
pub mod inventory;
mod launchers;
mod layout;
mod logs;
mod manager;
mod news;
mod outcome;
mod probe;
pub mod pulls;
mod rests;
mod retention;
mod runtimes;
pub mod samples;
pub mod score;
pub mod shim;
mod spec;
mod state;
mod supervise;
mod watch;

pub use blobs::PutProgress;
pub use error::ExecutorError;
pub use event::LeaseEvent;
pub use images::{Blob, Given, ImageError, check_program, open as open_image};
pub use logs::LogChunk;
pub use manager::{EVENT_QUEUE, Manager};
pub(crate) use probe::trial;
pub use probe::write_program_image;
pub use probe::{HostProof, Proved, ProvedContainers, ProvedEgress, self_test};
pub use retention::FreedProof;
pub use runtimes::{Needs, Unfit, disk_limits, inspect, no_containers, offered, probe_egress};
pub use spec::{Allowance, LeaseSpec, SpecError};
pub use state::{Ended, Outcome, State, Usage, Written};
pub use supervise::Comebacks;
