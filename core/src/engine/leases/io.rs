//! What leases are told to do and tell, what they ask of providers and of the shell, and what
//! that answers.

use std::collections::{BTreeMap, BTreeSet};

use super::access::Wanted;
use super::attached::Asker;
use crate::ids::{CertId, Digest, Key, LeaseId, StandingId};
use crate::lease::Maintenance;
use crate::lease::access::AccessVerb;
use crate::lease::objects::{PayloadKind, Stream, Workload};
use crate::lease::pull::ImageRef;
use crate::lease::score::Score;
use crate::params::Isolation;
use crate::units::TimeMs;

/// What the holder has asked a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeasePurpose {
    /// A challenge, for who asked.
    Challenge(CertId, Asker),
    Redeem(LeaseId),
    /// To consume another certificate for a lease.
    Extend(LeaseId),
    /// To end a lease, for a command.
    Stop(LeaseId, u64),
    /// To run the workload of a lease again, for a command.
    Restart(LeaseId, u64),
    /// To run another workload, for a command.
    Replace(LeaseId, u64),
    /// To take the countersignature of a receipt, by number.
    Countersign(LeaseId, u32),
    /// The next part of what the lease gives or needs.
    Fetch(LeaseId),
    /// To fetch an image, for a command.
    Pull(u64),
}

/// What a host does for leases beside running components, which every host does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Offer {
    /// What it has runtimes for.
    pub runtimes: BTreeSet<PayloadKind>,
    /// Whether a workload may open connections to the outside.
    pub egress: bool,
    /// Bands in which it was measured, by what workloads run in.
    pub scores: BTreeMap<Isolation, Score>,
}

/// What an operator asks of leases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseCommand {
    /// Redeem a certificate with a workload.
    Redeem { cert: CertId, workload: Box<Workload> },
    /// End a lease early, on either side.
    Stop(LeaseId),
    /// Sign for a stream into a lease.
    Open(Box<Wanted>),
    /// Let another key into a lease of this node.
    Grant {
        lease: LeaseId,
        to: Key,
        verbs: Vec<AccessVerb>,
        /// For so long, s, and no longer than the window.
        life_s: u64,
    },
    /// Let the workload go that came with a certificate.
    Detach(CertId),
    /// The content of an order's workload is not on the own disk.
    Lost(StandingId),
    /// Extend a lease that is held by a certificate that adjoins.
    Extend { lease: LeaseId, cert: CertId },
    /// Run the workload of a lease that is held again.
    Restart(LeaseId),
    /// Run another workload in a lease that is held.
    Replace { lease: LeaseId, workload: Box<Workload> },
    /// What this host does for leases, as found at its start.
    Offer(Offer),
    /// Have the provider of a certificate fetch an image, and ask how far that is.
    Pull { cert: CertId, image: ImageRef },
    /// Announce that this host will not deliver for a while.
    Announce(Maintenance),
    /// Call a maintenance off, by number.
    CallOff(u32),
}

/// A lease moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseNews {
    pub lease: LeaseId,
    pub phase: String,
}

/// Why a lease is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    Holder,
    /// The provider's operator asked.
    Operator,
    WindowEnd,
}

/// A request of the holder of a lease on this host, to be served from its directory. The
/// engine has checked that it may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Serve {
    /// Keep a part of a component or input.
    Put {
        digest: Digest,
        offset: u64,
        bytes: Vec<u8>,
    },
    /// Read output; wait a little if there is none.
    Logs {
        stream: Stream,
        from: u64,
    },
    Get {
        name: String,
        from: u64,
    },
}

/// A file of a lease that this node holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeldFile {
    /// What came of an output stream.
    Output(Stream),
    /// The result file that is being fetched.
    Partial,
}

/// One thing for the shell to do for a lease on this host, answered by
/// [`crate::engine::Input::Executor`], or for one that this node holds elsewhere.
#[derive(Debug, Clone, PartialEq)]
pub enum LeaseEffect {
    /// Make room for a workload and take its content; `Complete` once all of it is here.
    Prepare {
        lease: LeaseId,
        /// That was redeemed for it: what was pulled for this one need not be sent.
        cert: CertId,
        workload: Box<Workload>,
        /// Rises each time that the holder asks for another run.
        order: u32,
        /// Unix ms.
        starts_at_ms: TimeMs,
        /// Unix ms.
        ends_at_ms: TimeMs,
        /// Processors of all its blocks, thousandths.
        cpu_max_milli: u64,
        /// Memory of all its blocks, bytes.
        memory_max_bytes: u64,
        /// Disk of all its blocks, bytes.
        disk_max_bytes: u64,
        /// Other leases of its holder here: content that they have need not be sent again. What
        /// strangers have is not told, and not shared.
        same_holder: Vec<LeaseId>,
    },
    /// Hand a prepared workload to its process, which waits for the window, and ends what it
    /// ran before. Does nothing if that has happened.
    Launch {
        lease: LeaseId,
    },
    /// Serve a request of the holder, and answer it as `Effect::Reply` would.
    Serve {
        id: u64,
        lease: LeaseId,
        what: Serve,
    },
    /// Fetch an image from its registry, if that has not begun, and answer how far it is, as
    /// `Effect::Reply` would.
    Pull {
        id: u64,
        /// For whose lease.
        cert: CertId,
        image: ImageRef,
        /// All of its content has no more.
        max_bytes: u64,
    },
    Stop {
        lease: LeaseId,
        why: StopReason,
    },
    /// Remove what is left of a lease; answered by `Released`.
    Release {
        lease: LeaseId,
    },
    /// Let leases rest at these times, and only at these.
    Maintain {
        all: Vec<Maintenance>,
    },
    Held(HeldJob),
}

/// One thing to do with the files of a lease that this node holds elsewhere, answered by
/// [`crate::engine::Input::Held`].
#[derive(Debug, Clone, PartialEq)]
pub enum HeldJob {
    /// Make room for what a held lease will send back; answered by `Opened`.
    Open { lease: LeaseId },
    /// Read a part of what will be uploaded; answered by `Read`.
    Read {
        lease: LeaseId,
        /// Digest of the workload, under which its content is kept.
        workload: Digest,
        content: Digest,
        offset: u64,
    },
    /// Write a part at an offset, behind which the file ends then; answered by `Written`.
    Write { lease: LeaseId, file: HeldFile, offset: u64, bytes: Vec<u8> },
    /// Move the file that was fetched to its name; answered by `Finished`.
    Finish { lease: LeaseId, name: String },
    /// Remove the content of a workload: nothing will be uploaded of it any more.
    Discard { workload: Digest },
}

/// What became of the files of a held lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeldEvent {
    /// There is room, and so much output is there from before.
    Opened {
        stdout: u64,
        stderr: u64,
    },
    /// The part that was asked for.
    Read {
        /// At most [`crate::limits::LEASE_CHUNK_BYTES`].
        bytes: Vec<u8>,
    },
    Written,
    /// The result is in its place.
    Finished {
        /// Its length, bytes.
        bytes: u64,
        /// SHA-256 of its content.
        sha256: Digest,
    },
    /// The disk refused, or the shell has too much to do.
    Failed,
}
