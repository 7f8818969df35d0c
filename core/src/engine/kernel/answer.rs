//! What came of a request to a peer.

/// The answer of a peer, to the component that asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer<T> {
    Said(T),
    /// No, with the peer's reason code: its word, not to be trusted.
    Refused(String),
    /// None came, or one to another question: the request may be repeated.
    None,
}
