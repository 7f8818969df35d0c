//! Every reason code of the program, once: what it means, what to do, how the API and a
//! command end with it, and who is at fault.
//!
//! A code is `family.reason`. It is stable: scripts, logs and other nodes rely on it, while
//! sentences and hints may be reworded. [`reason!`](crate::reason) looks a code up while
//! compiling, so a code that is not in the table does not compile:
//!
//! ```
//! use capex_core::reason;
//! use capex_core::reasons::{Blame, Exit, Reason};
//!
//! const REASON: Reason = reason!("order.quantity");
//! assert_eq!(REASON.code(), "order.quantity");
//! assert_eq!((REASON.status(), REASON.exit()), (400, Exit::Usage));
//! assert_eq!(REASON.blame(), Blame::Peer);
//! ```
//!
//! ```compile_fail
//! const REASON: capex_core::reasons::Reason = capex_core::reason!("order.quantitiy");
//! ```
//!
//! A code that comes from a peer is that peer's word: it is never looked up here to decide
//! anything, because the table of another version may say something else.

mod certificate;
mod delivery;
mod host;
mod market;
mod matching;
mod settlement;
mod surface;

use std::fmt;
use std::hash::{Hash, Hasher};

/// A reason of the table.
#[derive(Clone, Copy)]
pub struct Reason(&'static Row);

/// How an answer ends, for the API and for a command. Both follow from this one choice, so
/// that they cannot contradict each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nothing failed: a state, a warning, or an end that was meant.
    Note,
    /// The request itself is wrong and stays so: usage, configuration, the rules of content.
    Usage,
    Unauthorised,
    /// The call comes from a place that may not call.
    Forbidden,
    NotFound,
    /// The route has another method.
    WrongMethod,
    /// The rules or the state of things forbid it now.
    Rejected,
    Unpayable,
    TooLarge,
    /// Not now: starting, stopping, busy, or something outside is away.
    Unavailable,
    TimedOut,
    Interrupted,
    /// A fault of this program or its machine.
    Failed,
}

/// How a command ends: the exit code of its process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    Ok = 0,
    Failed = 1,
    /// Usage, configuration, or a refused prompt.
    Usage = 2,
    /// Daemon unreachable or warming up.
    Unreachable = 3,
    NotAuthorised = 4,
    NotFound = 5,
    /// Rejected by rules or funds.
    Rejected = 6,
    /// `--wait` timed out.
    TimedOut = 7,
    Interrupted = 130,
}

/// Who is at fault when a reason arises from what a peer sent or owed. Verdicts on gossip
/// follow from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// Time, races, states that differ by right.
    Nobody,
    /// This node, its machine or its operator.
    Local,
    /// The peer: its bytes alone prove it, or it let a promise lapse.
    Peer,
}

/// One row of the table.
struct Row {
    code: &'static str,
    kind: Kind,
    blame: Blame,
    sentence: &'static str,
    /// Empty where the sentence says all.
    hint: &'static str,
}

/// The reasons with one name before the dot.
pub struct Family {
    /// What stands before the dot.
    pub name: &'static str,
    pub who: &'static str,
    rows: &'static [Row],
}

/// Rows of a family: `code: kind, blame, sentence[, hint];`.
macro_rules! family {
    ($name:literal, $who:literal;
     $($code:literal: $kind:ident, $blame:ident, $sentence:literal $(, $hint:literal)?;)*) => {
        $crate::reasons::Family {
            name: $name,
            who: $who,
            rows: &[$($crate::reasons::Row {
                code: $code,
                kind: $crate::reasons::Kind::$kind,
                blame: $crate::reasons::Blame::$blame,
                sentence: $sentence,
                hint: concat!($($hint)?),
            },)*],
        }
    };
}
use family;

/// All families, by the rooms of the program.
const ROOMS: [&[Family]; 7] = [
    market::FAMILIES,
    matching::FAMILIES,
    settlement::FAMILIES,
    certificate::FAMILIES,
    delivery::FAMILIES,
    host::FAMILIES,
    surface::FAMILIES,
];

/// The reason with a code, looked up while compiling.
#[macro_export]
macro_rules! reason {
    ($code:literal) => {{
        const REASON: $crate::reasons::Reason = match $crate::reasons::Reason::find($code) {
            Some(reason) => reason,
            None => panic!(concat!("no reason code ", $code, " in core/src/reasons")),
        };
        REASON
    }};
}

/// The code of a reason, where an error is no more than that: it is looked up while compiling.
#[macro_export]
macro_rules! code {
    ($code:literal) => {
        $crate::reason!($code).code()
    };
}

const fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && begins(a, b)
}

const fn begins(text: &[u8], start: &[u8]) -> bool {
    if text.len() < start.len() {
        return false;
    }
    let mut at = 0;
    while at < start.len() {
        if text[at] != start[at] {
            return false;
        }
        at += 1;
    }
    true
}

impl Reason {
    /// The reason with this code, if the table has it. For codes of this program only, such
    /// as those in its own records.
    #[must_use]
    pub const fn find(code: &str) -> Option<Self> {
        let code = code.as_bytes();
        let mut room = 0;
        while room < ROOMS.len() {
            let mut family = 0;
            while family < ROOMS[room].len() {
                let Family { name, rows, .. } = &ROOMS[room][family];
                let mut row = if begins(code, name.as_bytes()) { 0 } else { rows.len() };
                while row < rows.len() {
                    if same(code, rows[row].code.as_bytes()) {
                        return Some(Self(&rows[row]));
                    }
                    row += 1;
                }
                family += 1;
            }
            room += 1;
        }
        None
    }

    /// The stable code.
    #[must_use]
    pub const fn code(self) -> &'static str {
        self.0.code
    }

    /// How an answer ends with it.
    #[must_use]
    pub const fn kind(self) -> Kind {
        self.0.kind
    }

    /// Who is at fault.
    #[must_use]
    pub const fn blame(self) -> Blame {
        self.0.blame
    }

    /// One line for people: what happened.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        self.0.sentence
    }

    /// What to do next, where the sentence does not say it.
    #[must_use]
    pub const fn hint(self) -> Option<&'static str> {
        if self.0.hint.is_empty() { None } else { Some(self.0.hint) }
    }

    /// HTTP status of an API answer.
    #[must_use]
    pub const fn status(self) -> u16 {
        self.0.kind.status()
    }

    /// How a command ends.
    #[must_use]
    pub const fn exit(self) -> Exit {
        self.0.kind.exit()
    }
}

impl Kind {
    /// HTTP status of an API answer.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::Note => 200,
            Self::Usage => 400,
            Self::Unauthorised => 401,
            Self::Unpayable => 402,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::WrongMethod => 405,
            Self::Rejected => 409,
            Self::TooLarge => 413,
            Self::Failed | Self::Interrupted => 500,
            Self::Unavailable => 503,
            Self::TimedOut => 504,
        }
    }

    /// How a command ends.
    #[must_use]
    pub const fn exit(self) -> Exit {
        match self {
            Self::Interrupted => Exit::Interrupted,
            Self::Note
            | Self::Usage
            | Self::Unauthorised
            | Self::Forbidden
            | Self::NotFound
            | Self::WrongMethod
            | Self::Rejected
            | Self::Unpayable
            | Self::TooLarge
            | Self::Unavailable
            | Self::TimedOut
            | Self::Failed => Exit::of_status(self.status()),
        }
    }
}

impl Exit {
    /// How a command ends that was answered with this HTTP status, whatever the code: the
    /// daemon may be of another version.
    #[must_use]
    pub const fn of_status(status: u16) -> Self {
        match status {
            200..=299 => Self::Ok,
            400 => Self::Usage,
            401 | 403 => Self::NotAuthorised,
            402 | 409 | 413 => Self::Rejected,
            404 => Self::NotFound,
            503 => Self::Unreachable,
            504 => Self::TimedOut,
            _ => Self::Failed,
        }
    }
}

impl Family {
    /// Its reasons, by code.
    pub fn reasons(&self) -> impl Iterator<Item = Reason> + use<> {
        self.rows.iter().map(Reason)
    }
}

/// Every family, by room.
pub fn families() -> impl Iterator<Item = &'static Family> {
    ROOMS.iter().flat_map(|room| room.iter())
}

/// Every reason.
pub fn all() -> impl Iterator<Item = Reason> {
    families().flat_map(Family::reasons)
}

impl PartialEq for Reason {
    fn eq(&self, other: &Self) -> bool {
        self.code() == other.code()
    }
}

impl Eq for Reason {}

impl Hash for Reason {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.code().hash(state);
    }
}

impl PartialEq<str> for Reason {
    fn eq(&self, other: &str) -> bool {
        self.code() == other
    }
}

impl PartialEq<&str> for Reason {
    fn eq(&self, other: &&str) -> bool {
        self.code() == *other
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl fmt::Debug for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl From<Reason> for String {
    fn from(reason: Reason) -> Self {
        reason.code().to_owned()
    }
}
