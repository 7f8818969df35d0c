use serde::{Deserialize, Serialize};

use capex_core::lease::access::{Access, Terminal};

/// Body of `POST /api/v1/leases/{id}/streams`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenStream {
    pub open: StreamFor,
    /// What its holder gave, as `capex lease grant` prints it; null for an own lease.
    #[serde(default)]
    pub grant: Option<String>,
}

/// What a stream into a lease is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum StreamFor {
    /// A program beside the workload. Both ways go frames: a kind, a length of four bytes
    /// (big-endian), and so many bytes.
    Exec {
        command: Vec<String>,
        /// Variables beside those of the workload, each a name and a value.
        #[serde(default)]
        env: Vec<(String, String)>,
        /// Absolute; null for that of the workload.
        #[serde(default)]
        workdir: Option<String>,
        /// Rows and columns, if it gets a terminal.
        #[serde(default)]
        terminal: Option<(u16, u16)>,
    },
    /// A TCP connection to a port of the workload's network.
    Forward { port: u16 },
    /// The ssh protocol.
    Ssh,
    /// A file of the lease, or a directory as an archive; in frames as for `exec`.
    Get {
        path: String,
        #[serde(default)]
        tree: bool,
    },
    /// The same the other way.
    Put {
        path: String,
        /// As in chmod; not for an archive, which has its own.
        #[serde(default = "put_mode")]
        mode: u32,
        #[serde(default)]
        tree: bool,
    },
    /// What the workload writes, in frames as for `exec`: from now on, or all of it.
    Attach {
        #[serde(default)]
        from_start: bool,
    },
    /// What processor and memory do in the lease, measured beside the workload for two seconds; in
    /// frames as for `exec`: 16 bytes of output.
    Bench,
}

fn put_mode() -> u32 {
    0o644
}

impl From<StreamFor> for Access {
    fn from(open: StreamFor) -> Self {
        match open {
            StreamFor::Exec { command, env, workdir, terminal } => {
                let terminal = terminal.map(|(rows, columns)| Terminal { rows, columns });
                Self::Exec { command, env, workdir, terminal }
            }
            StreamFor::Forward { port } => Self::Dial { port },
            StreamFor::Ssh => Self::Ssh,
            StreamFor::Get { path, tree } => Self::Get { path, is_tree: tree },
            StreamFor::Put { path, mode, tree } => Self::Put { path, mode, is_tree: tree },
            StreamFor::Attach { from_start } => Self::Attach { from_start },
            StreamFor::Bench => Self::Bench,
        }
    }
}

/// Body of `POST /api/v1/leases/{id}/grants`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrantAccess {
    /// Key that is let in.
    pub to: String,
    /// `exec`, `forward`, `ssh`, `put`, `get`, `attach`.
    pub verbs: Vec<String>,
    /// For so long, s, and no longer than the window.
    pub for_s: u64,
}

/// What lets another key into a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessGrant {
    /// One line of text, for the other to keep.
    pub grant: String,
    /// When it expires, unix ms.
    pub expires_at: u64,
}
