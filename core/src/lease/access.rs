//! Streams into a running lease: a program beside the workload, a port, a shell, files.
//!
//! Whoever opens a stream sends a [`Hello`] and gets an [`Answer`]; from then on the bytes are
//! those of the session between the two ends, which outlives the stream: another stream with the
//! same session goes on where the last one broke.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::code;
use crate::ids::{Key, LeaseId};
use crate::limits::{ACCESS_LIFE_MAX_S, ACCESS_STRINGS_MAX_BYTES, WORKLOAD_STRINGS_MAX};
use crate::wire::{Envelope, Object};

/// What a key may do in a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum AccessVerb {
    /// Run programs.
    Exec,
    /// Connect to the ports that the workload names.
    Forward,
    /// A shell, programs, files and ports, over ssh.
    Ssh,
    Put,
    Get,
    /// Read what the workload writes.
    Attach,
}

impl AccessVerb {
    /// In ascending order.
    pub const ALL: [Self; 6] =
        [Self::Exec, Self::Forward, Self::Ssh, Self::Put, Self::Get, Self::Attach];

    /// Name, as people and the API see it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Exec => "exec",
            Self::Forward => "forward",
            Self::Ssh => "ssh",
            Self::Put => "put",
            Self::Get => "get",
            Self::Attach => "attach",
        }
    }
}

/// Size of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terminal {
    pub rows: u16,
    pub columns: u16,
}

/// What a stream is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Access {
    /// A program beside the workload.
    Exec {
        /// The program and its arguments.
        command: Vec<String>,
        /// Variables beside those of the workload.
        env: Vec<(String, String)>,
        /// Absolute; `None` for that of the workload.
        workdir: Option<String>,
        /// Of what size, if it gets a terminal.
        terminal: Option<Terminal>,
    },
    /// A TCP connection to a port of the workload's network.
    Dial {
        port: u16,
    },
    Ssh,
    /// A file of the lease, whole; a directory with all below it as an archive, if `is_tree`.
    Get {
        path: String,
        is_tree: bool,
    },
    /// The same the other way; `mode` of a single file as in chmod.
    Put {
        path: String,
        mode: u32,
        is_tree: bool,
    },
    /// What the workload writes: from now on, or all of it.
    Attach {
        from_start: bool,
    },
    /// What processor and memory do in the lease, measured beside the workload.
    Bench,
}

impl Access {
    /// What a key needs for it.
    #[must_use]
    pub fn verb(&self) -> AccessVerb {
        match self {
            Self::Exec { .. } => AccessVerb::Exec,
            Self::Dial { .. } => AccessVerb::Forward,
            Self::Ssh => AccessVerb::Ssh,
            Self::Get { .. } => AccessVerb::Get,
            Self::Put { .. } => AccessVerb::Put,
            Self::Attach { .. } => AccessVerb::Attach,
            Self::Bench => AccessVerb::Exec,
        }
    }

    /// Whether it keeps all bounds.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        match self {
            Self::Exec { command, env, workdir, .. } => {
                let names = env.iter().all(|(name, _)| !name.is_empty() && !name.contains('='));
                let values = env.iter().flat_map(|(name, value)| [name, value]);
                let path = workdir.iter().all(|path| path.starts_with('/'));
                !command.is_empty()
                    && command.len() <= WORKLOAD_STRINGS_MAX
                    && env.len() <= WORKLOAD_STRINGS_MAX
                    && are_strings(command.iter().chain(values).chain(workdir))
                    && names
                    && path
            }
            Self::Dial { port } => *port != 0,
            Self::Get { path, .. } => is_path(path),
            Self::Put { path, mode, .. } => is_path(path) && *mode <= 0o777,
            Self::Ssh | Self::Attach { .. } | Self::Bench => true,
        }
    }
}

fn are_strings<'a>(strings: impl Iterator<Item = &'a String>) -> bool {
    let mut bytes = 0usize;
    for string in strings {
        bytes = bytes.saturating_add(string.len());
        if string.contains('\0') {
            return false;
        }
    }
    bytes <= ACCESS_STRINGS_MAX_BYTES
}

fn is_path(path: &str) -> bool {
    !path.is_empty() && path.len() <= ACCESS_STRINGS_MAX_BYTES && !path.contains('\0')
}

/// Opens one stream. Signed by the holder, or by who has its [`Grant`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessCall {
    pub v: u8,
    pub lease: LeaseId,
    /// The node that opens the stream: a copy is worth nothing to others.
    pub peer: Key,
    /// Names the session; drawn at random by who begins it.
    pub session16: [u8; 16],
    /// Bytes of the session that have arrived at its beginner.
    pub received: u64,
    pub what: Access,
    /// Not valid after this time, unix s.
    pub not_after_s: u64,
}

impl Object for AccessCall {
    const NAME: &'static str = "access-call";
    const VERSIONS: RangeInclusive<u8> = 1..=1;
}

/// Lets another key into a lease. Signed by its holder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    pub v: u8,
    pub lease: LeaseId,
    /// Where the lease runs: whoever has the grant needs nothing else to find it.
    pub provider: Key,
    pub to: Key,
    /// Strictly ascending.
    pub verbs: Vec<AccessVerb>,
    /// Not valid after this time, unix s.
    pub not_after_s: u64,
}

impl Object for Grant {
    const NAME: &'static str = "access-grant";
    const VERSIONS: RangeInclusive<u8> = 1..=1;
}

/// First words on a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    pub call: Envelope,
    /// For a key that is not the holder's.
    pub grant: Option<Envelope>,
}

/// What a provider's node says to them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    Open {
        /// Bytes of the session that have arrived at the lease.
        received: u64,
    },
    Refused {
        /// Reason code, at most 64 bytes.
        code: String,
    },
}

/// What the process of a lease is told of a stream that its provider's node has let in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admission {
    pub call: AccessCall,
    /// What is under way ends after this time, unix s; `None` for the holder, who may stay as long
    /// as the lease.
    pub until_s: Option<u64>,
}

/// What is known of a lease whose stream somebody wants.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    pub lease: LeaseId,
    pub holder: Key,
    /// Ports that the workload names.
    pub ports: &'a [u16],
    /// The peer at the other end of the stream.
    pub peer: Key,
    /// Unix s.
    pub now_s: u64,
    pub magic: crate::wire::Magic,
}

impl Asked<'_> {
    /// Whether a stream may be opened, and what for.
    ///
    /// # Errors
    /// `lease.bad_signature`, `access.other_lease`, `access.other_peer`, `lease.call_expired`,
    /// `lease.call_too_long`, `access.bad_request`; for a key that is not the holder's
    /// `lease.not_holder`, `access.bad_grant`, `access.grant_expired` or `access.not_granted`, in
    /// this order.
    pub fn check(&self, hello: &Hello) -> Result<Admission, &'static str> {
        let call = hello.call.verify::<AccessCall>(self.magic);
        let call = call.map_err(|_| code!("lease.bad_signature"))?;
        if call.lease != self.lease {
            return Err(code!("access.other_lease"));
        }
        if call.peer != self.peer {
            return Err(code!("access.other_peer"));
        }
        if call.not_after_s < self.now_s {
            return Err(code!("lease.call_expired"));
        }
        if call.not_after_s > self.now_s.saturating_add(ACCESS_LIFE_MAX_S) {
            return Err(code!("lease.call_too_long"));
        }
        if !call.what.is_valid() {
            return Err(code!("access.bad_request"));
        }
        let key = Key(hello.call.key);
        let until_s = if key == self.holder {
            None
        } else {
            Some(self.check_grant(hello.grant.as_ref(), key, &call.what)?)
        };
        Ok(Admission { call: call.into_value(), until_s })
    }

    /// Until when the grant is good, unix s.
    fn check_grant(
        &self,
        grant: Option<&Envelope>,
        key: Key,
        what: &Access,
    ) -> Result<u64, &'static str> {
        let grant = grant.ok_or(code!("lease.not_holder"))?;
        let signer = Key(grant.key);
        let grant = grant.verify::<Grant>(self.magic).map_err(|_| code!("access.bad_grant"))?;
        let is_ascending = grant.verbs.is_sorted_by(|a, b| a < b);
        let is_meant = (signer, grant.lease, grant.to) == (self.holder, self.lease, key);
        if !is_meant || !is_ascending {
            return Err(code!("access.bad_grant"));
        }
        if grant.not_after_s < self.now_s {
            return Err(code!("access.grant_expired"));
        }
        let is_listed = match what {
            // Whoever may run programs reaches every port; whoever may not, those of the workload.
            Access::Dial { port } => self.ports.contains(port),
            Access::Exec { .. }
            | Access::Ssh
            | Access::Get { .. }
            | Access::Put { .. }
            | Access::Attach { .. }
            | Access::Bench => true,
        };
        let is_granted = grant.verbs.contains(&what.verb()) && is_listed;
        if is_granted { Ok(grant.not_after_s) } else { Err(code!("access.not_granted")) }
    }
}
