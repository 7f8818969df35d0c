//! Why an engine ends.

use super::record::{RecordTooLarge, Unreadable};
use crate::reason;

/// Somebody else signs with this node's identity key now.
///
/// Neither of the two knows what the other sells, locks or has signed in an epoch, so each
/// would break the other's promises.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("another process signs with the identity key of this node: its addresses are {}", told(.addrs))]
pub struct IdentityInUse {
    /// Where the other listens, by its own signed word.
    pub addrs: Vec<String>,
}

fn told(addrs: &[String]) -> String {
    if addrs.is_empty() { "unknown".to_owned() } else { addrs.join(", ") }
}

/// Why an engine ends: going on could break a promise.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Halt {
    /// A record of an earlier life.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// A record that was about to be written.
    #[error(transparent)]
    TooLarge(#[from] RecordTooLarge),
    #[error(transparent)]
    InUse(#[from] IdentityInUse),
}

impl Halt {
    /// Stable reason code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unreadable(_) => Unreadable::CODE,
            Self::TooLarge(_) => RecordTooLarge::CODE,
            Self::InUse(_) => reason!("identity.in_use").code(),
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Unreadable(fault) => fault.hint(),
            Self::TooLarge(_) => {
                "nothing of that step was written or sent, so a restart is safe; report the \
                 table and the size, since what goes into it should have been bounded"
            }
            Self::InUse(_) => reason!("identity.in_use").hint().unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_process_is_named_by_where_it_listens() {
        let told = |addrs: &[&str]| {
            let addrs = addrs.iter().map(|addr| (*addr).to_owned()).collect();
            let text = IdentityInUse { addrs }.to_string();
            text.split_once("addresses are ").map(|(_, addrs)| addrs.to_owned())
        };
        assert_eq!(told(&[]).as_deref(), Some("unknown"));
        assert_eq!(
            told(&["/ip4/10.0.0.1/tcp/1", "/b"]).as_deref(),
            Some("/ip4/10.0.0.1/tcp/1, /b")
        );
    }
}
