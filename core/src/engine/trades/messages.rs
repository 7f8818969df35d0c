//! What trades say to other nodes, and what they tell people.

use serde::{Deserialize, Serialize};

use crate::certificate::Certificate;
use crate::ids::{TermsHash, TradeId};
use crate::settlement::buyer::Part;
use crate::settlement::exit::HandedKey;
use crate::settlement::objects::{TermsRequest, Transfer};
use crate::wire::Envelope;

/// What the parties of a trade ask each other. B, S and P as in [`crate::settlement`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TradeRequest {
    /// B→S. Answer: `Terms`.
    Terms(TermsRequest),
    /// B→P: terms with the Accept of every funder. Answer: `LockGrant`.
    Accept {
        terms: Envelope,
        /// Signed Accepts, one per funder, in their order.
        accepts: Vec<Envelope>,
    },
    /// B→P and S: the raw signed funding. Answer: `FundAck`.
    Fund {
        /// All terms that it pays for, ascending.
        terms: Vec<TermsHash>,
        /// Consensus-encoded transaction.
        tx: Vec<u8>,
    },
    /// B→P: the sale is complete. Answer: `Activation` or `NotYet`.
    Transfer(Transfer),
    /// B→P and S: signed TermsCancel. Answer: `Cancelled`.
    Cancel(Envelope),
    /// S→B: signed Quittance. Answer: `Key` or `NotYet`.
    Quittance(Envelope),
    /// S→P: does the lock for these terms keep the certificate for their payment? Answer: `Kept`
    /// or `NotYet`.
    IsKept(TermsHash),
    /// Of several who pay by one transaction, each to the first: what it puts in, and once it has
    /// seen what all do, its signatures. Answer: `Parts`, or `NotYet`.
    Part { terms: TermsHash, part: Part },
    /// The first to each other: what all put in, in the order of the terms, with the signatures
    /// that it knows; nothing while somebody is missing. Answer: `Part`, or `NotYet`.
    Parts { terms: TermsHash, parts: Vec<Part> },
    /// As `Terms`, of a certificate that who pays may recall.
    RecallableTerms(TermsRequest),
}

/// What they answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TradeReply {
    /// Signed Terms, and what they sell.
    Terms {
        /// The certificate up to this sale: its Issue alone, where the provider sells.
        title: Box<Certificate>,
        terms: Envelope,
    },
    LockGrant(Envelope),
    /// The funding is known to the provider, who broadcasts it too.
    FundAck {
        /// Of the request: it is for all of them.
        terms: Vec<TermsHash>,
        /// Of the transaction received.
        txid: [u8; 32],
    },
    /// Signed Activation: the certificate moved.
    Activation(Envelope),
    /// The facts are not deep enough yet: ask again on the next tip.
    NotYet,
    /// The lock is free, or was never granted.
    Cancelled,
    /// The secret of the contract's funder, who holds the certificate.
    Key(HandedKey),
    /// The lock stands, and only a refund or a conflict in the chain can end it.
    Kept,
    /// What one funder puts in.
    Part(Part),
    /// What all put in.
    Parts(Vec<Part>),
}

/// What a buyer or a seller waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TradePurpose {
    Terms(TradeId),
    /// The LockGrant.
    Accept(TradeId),
    /// The FundAck.
    Fund(TradeId),
    /// The Activation of a sale.
    Transfer(TradeId),
    /// Nothing: it told the provider that it gave up.
    Cancel(TradeId),
    /// The buyer's key.
    Quittance(TradeId),
    /// Whether the lock stands.
    IsKept(TradeId),
    /// What others put into one transaction with this node.
    Together(TradeId),
}

/// A trade moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TradeNews {
    pub trade: TradeId,
    /// New state or final reason code.
    pub state: String,
}
