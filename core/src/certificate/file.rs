//! A certificate as text: one signed object per line, so that an error has a line.
//!
//! ```text
//! capex-certificate 1 <network>
//! issue <hex payload> <hex signature>        each base of the history: an issue, or
//! checkpoint <hex payload> <hex signature>   a checkpoint with the last activation before it
//! activation <hex payload> <hex signature>
//! terms <hex payload> <hex signature>        a sale: terms, lock, transfer, activation
//! lock <hex payload> <hex signature>
//! transfer <hex payload> -                   the chain is its witness
//! activation <hex payload> <hex signature>
//! gift <hex payload> <hex signature>         a gift: gift, activation
//! activation <hex payload> <hex signature>
//! split <hex payload> <hex signature>        a split: split, activations of its parts
//! activation <hex payload> <hex signature>
//! merge <hex payload> <hex signature>        a merge: merge, activation
//! activation <hex payload> <hex signature>
//! ```
//! The proof of a default begins with `capex-default 1 <network>`, holds the certificate up to a sale,
//! and ends with that sale's terms, lock and transfer: the Activation is what was not given.
//!
//! Signer keys do not stand in the file: each object names its signer, and a gift, a split or a
//! merge is signed by the holder before; the gift by which a certificate is recalled, by who the
//! Issue says may do so.

use crate::reason;
use crate::reasons::Reason;
use std::collections::BTreeMap;
use std::fmt::Write;

use super::objects::{
    Activation, Base, Certificate, Checkpoint, DefaultProof, Gift, Hop, Issue, Merge, Split,
};
use crate::ids::{CertId, from_hex, to_hex};
use crate::limits::{CERTIFICATE_HOPS_MAX, ROOTS_MAX, SIGNED_MAX_BYTES, SPLIT_PARTS_MAX};
use crate::params::Params;
use crate::settlement::objects::{LockGrant, Terms, Transfer};
use crate::wire::{self, Envelope, Magic, Object, WireError};

/// Longest text: 16 bases and 64 sales of four lines, each at most a signed object in hex. Splits
/// have more lines, but they are shorter.
pub const TEXT_MAX_BYTES: usize =
    (CERTIFICATE_HOPS_MAX * 4 + ROOTS_MAX + 1) * (SIGNED_MAX_BYTES * 2 + 160);

const HEADER: &str = "capex-certificate 1 ";
const DEFAULT_HEADER: &str = "capex-default 1 ";

/// What is wrong with a certificate file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileFault {
    /// The first line is not that of a certificate file, version 1.
    #[error("expected `{0}<network>`")]
    Header(&'static str),
    /// A certificate of another network.
    #[error("certificate is for network `{0}`")]
    Network(String),
    /// Longer than a certificate can be, or more than 64 hops.
    #[error("longer than a certificate can be")]
    TooLong,
    /// Not three fields.
    #[error("expected `<kind> <hex payload> <hex signature>`")]
    Syntax,
    /// Another kind of line than must come here.
    #[error("expected a line of kind {0}")]
    Kind(&'static str),
    /// Not lower-case hex, or a signature of another length than 64 bytes.
    #[error("expected lower-case hex, 64 bytes for a signature")]
    Hex,
    /// The payload is not such an object.
    #[error(transparent)]
    Payload(#[from] WireError),
    /// The file ends within a hop.
    #[error("the file ends where a line of kind {0} must come")]
    Truncated(&'static str),
}

/// An error with its line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {fault}")]
pub struct FileError {
    /// Line number from 1.
    pub line: usize,
    pub fault: FileFault,
}

impl FileError {
    /// Stable reason code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.reason().code()
    }

    /// Its row in the table of reasons.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self.fault {
            FileFault::Header(_) => reason!("certificate.file_header"),
            FileFault::Network(_) => reason!("certificate.other_network"),
            FileFault::TooLong => reason!("certificate.file_too_long"),
            FileFault::Syntax => reason!("certificate.file_syntax"),
            FileFault::Kind(_) => reason!("certificate.file_kind"),
            FileFault::Hex => reason!("certificate.file_hex"),
            FileFault::Payload(_) => reason!("certificate.file_payload"),
            FileFault::Truncated(_) => reason!("certificate.file_truncated"),
        }
    }
}

/// The text of a certificate.
#[must_use]
pub fn write(certificate: &Certificate, params: &Params) -> String {
    let mut text = format!("{HEADER}{}\n", params.name);
    write_parts(&mut text, certificate);
    text
}

/// The text of the proof that a provider was paid and gave nothing.
#[must_use]
pub fn write_default(proof: &DefaultProof, params: &Params) -> String {
    let mut text = format!("{DEFAULT_HEADER}{}\n", params.name);
    write_parts(&mut text, &proof.title);
    signed_line(&mut text, "terms", &proof.terms);
    signed_line(&mut text, "lock", &proof.lock);
    line(&mut text, "transfer", &wire::encode(&proof.transfer), "-");
    text
}

fn write_parts(text: &mut String, certificate: &Certificate) {
    for base in &certificate.bases {
        match base {
            Base::Issue(issue) => signed_line(text, "issue", issue),
            Base::Checkpoint { checkpoint, activation } => {
                signed_line(text, "checkpoint", checkpoint);
                signed_line(text, "activation", activation);
            }
        }
    }
    for hop in &certificate.hops {
        match hop {
            Hop::Sale { terms, lock, transfer, activation } => {
                signed_line(text, "terms", terms);
                signed_line(text, "lock", lock);
                line(text, "transfer", &wire::encode(transfer), "-");
                signed_line(text, "activation", activation);
            }
            Hop::Gift { gift, activation } => {
                signed_line(text, "gift", gift);
                signed_line(text, "activation", activation);
            }
            Hop::Split { split, activations } => {
                signed_line(text, "split", split);
                for activation in activations {
                    signed_line(text, "activation", activation);
                }
            }
            Hop::Merge { merge, activation } => {
                signed_line(text, "merge", merge);
                signed_line(text, "activation", activation);
            }
        }
    }
}

fn signed_line(text: &mut String, kind: &str, envelope: &Envelope) {
    line(text, kind, &envelope.payload, &to_hex(&envelope.signature.concat()));
}

fn line(text: &mut String, kind: &str, payload: &[u8], signature: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{kind} {} {signature}", to_hex(payload));
}

/// Reads a certificate file. Only its form is checked: see [`super::verify::verify`].
///
/// # Errors
/// The first line that is wrong, and why.
pub fn parse(text: &str, params: &Params) -> Result<Certificate, FileError> {
    let (mut reader, bases) = open(text, HEADER, params)?;
    let mut hops = Vec::new();
    while let Some(text) = reader.next() {
        if hops.len() >= CERTIFICATE_HOPS_MAX {
            return Err(reader.error(FileFault::TooLong));
        }
        hops.push(reader.hop(text)?);
    }
    Ok(Certificate { bases, hops })
}

/// Reads the proof of a default. Only its form is checked: see [`super::verify::verify_default`].
///
/// # Errors
/// The first line that is wrong, and why.
pub fn parse_default(text: &str, params: &Params) -> Result<DefaultProof, FileError> {
    let (mut reader, bases) = open(text, DEFAULT_HEADER, params)?;
    let mut hops = Vec::new();
    loop {
        let text = reader.expect(HOPS)?;
        if hops.len() >= CERTIFICATE_HOPS_MAX {
            return Err(reader.error(FileFault::TooLong));
        }
        if !text.starts_with("terms ") {
            hops.push(reader.hop(text)?);
            continue;
        }
        let (terms, lock, transfer, to) = reader.sale(text)?;
        if reader.peek().is_none() {
            let title = Certificate { bases, hops };
            return Ok(DefaultProof { title, terms, lock, transfer });
        }
        let activation = reader.activation(to)?;
        hops.push(Hop::Sale { terms, lock, transfer, activation });
    }
}

/// Kinds of line with which a hop begins.
const HOPS: &str = "terms, gift, split or merge";

/// Reads the first lines: the bases, and who holds what they begin.
fn open<'a>(
    text: &'a str,
    header: &'static str,
    params: &Params,
) -> Result<(Reader<'a>, Vec<Base>), FileError> {
    let (holders, recalls) = (BTreeMap::new(), BTreeMap::new());
    let lines = text.lines().peekable();
    let mut reader = Reader { lines, line: 0, holders, recalls, magic: params.magic };
    if text.len() > TEXT_MAX_BYTES {
        return Err(reader.error(FileFault::TooLong));
    }
    let first = reader.next().unwrap_or_default();
    let Some(network) = first.strip_prefix(header) else {
        return Err(reader.error(FileFault::Header(header)));
    };
    if network != params.name {
        return Err(reader.error(FileFault::Network(network.chars().take(32).collect())));
    }
    let mut bases = vec![reader.base()?];
    while reader
        .peek()
        .is_some_and(|line| ["issue ", "checkpoint "].iter().any(|kind| line.starts_with(kind)))
    {
        if bases.len() >= ROOTS_MAX {
            return Err(reader.error(FileFault::TooLong));
        }
        bases.push(reader.base()?);
    }
    Ok((reader, bases))
}

struct Reader<'a> {
    lines: std::iter::Peekable<std::str::Lines<'a>>,
    line: usize,
    /// Who holds each certificate, as the lines so far say.
    holders: BTreeMap<CertId, [u8; 32]>,
    /// Who may still recall it, where somebody may.
    recalls: BTreeMap<CertId, [u8; 32]>,
    magic: Magic,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Option<&'a str> {
        self.line += 1;
        self.lines.next()
    }

    fn peek(&mut self) -> Option<&'a str> {
        self.lines.peek().copied()
    }

    fn error(&self, fault: FileFault) -> FileError {
        FileError { line: self.line.max(1), fault }
    }

    fn base(&mut self) -> Result<Base, FileError> {
        let text = self.expect("issue or checkpoint")?;
        if text.starts_with("checkpoint ") {
            let by_provider = |checkpoint: &Checkpoint| checkpoint.provider.0;
            let (checkpoint, said) = self.envelope(text, "checkpoint", by_provider)?;
            let activation = self.activation(said.holder.0)?;
            return Ok(Base::Checkpoint { checkpoint, activation });
        }
        let (bytes, issue) = self.envelope::<Issue>(text, "issue", |issue| issue.provider.0)?;
        let id = CertId(bytes.id::<Issue>(self.magic));
        self.holders.insert(id, issue.provider.0);
        self.recalls.extend(issue.recall().map(|by| (id, by.0)));
        Ok(Base::Issue(bytes))
    }

    fn hop(&mut self, text: &str) -> Result<Hop, FileError> {
        if text.starts_with("gift ") {
            let by_giver = |gift: &Gift| {
                let recall = self.recalls.get(&gift.cert_id).copied();
                recall.unwrap_or_else(|| self.holder(Some(&gift.cert_id)))
            };
            let (gift, said) = self.envelope(text, "gift", by_giver)?;
            self.recalls.remove(&said.cert_id);
            return Ok(Hop::Gift { gift, activation: self.activation(said.to.0)? });
        }
        if text.starts_with("merge ") {
            let by_holder =
                |merge: &Merge| self.holder(merge.parts.first().map(|part| &part.cert_id));
            let (merge, _) = self.envelope(text, "merge", by_holder)?;
            let activation = self.activation(merge.key)?;
            return Ok(Hop::Merge { merge, activation });
        }
        if text.starts_with("split ") {
            let by_holder = |split: &Split| self.holder(Some(&split.cert_id));
            let (split, _) = self.envelope(text, "split", by_holder)?;
            let mut activations = vec![self.activation(split.key)?];
            while self.peek().is_some_and(|line| line.starts_with("activation "))
                && activations.len() < SPLIT_PARTS_MAX
            {
                activations.push(self.activation(split.key)?);
            }
            return Ok(Hop::Split { split, activations });
        }
        let (terms, lock, transfer, to) = self.sale(text)?;
        Ok(Hop::Sale { terms, lock, transfer, activation: self.activation(to)? })
    }

    /// Who holds a certificate; nobody's key, if no line so far has made it.
    fn holder(&self, cert: Option<&CertId>) -> [u8; 32] {
        cert.and_then(|cert| self.holders.get(cert)).copied().unwrap_or_default()
    }

    /// A sale without its Activation, and to whom it sells.
    fn sale(&mut self, text: &str) -> Result<(Envelope, Envelope, Transfer, [u8; 32]), FileError> {
        if !text.starts_with("terms ") {
            return Err(self.error(FileFault::Kind(HOPS)));
        }
        let (terms, said) = self.envelope::<Terms>(text, "terms", |terms| terms.from.0)?;
        let (lock, _) = self.signed::<LockGrant>("lock", |lock| lock.provider.0)?;
        Ok((terms, lock, self.transfer()?, said.to.0))
    }

    /// An Activation, after which this key holds what it names.
    fn activation(&mut self, holder: [u8; 32]) -> Result<Envelope, FileError> {
        let by_provider = |activation: &Activation| activation.provider.0;
        let (bytes, moved) = self.signed("activation", by_provider)?;
        self.holders.insert(moved.cert_id, holder);
        Ok(bytes)
    }

    fn transfer(&mut self) -> Result<Transfer, FileError> {
        let text = self.expect("transfer")?;
        let (payload, signature) = self.fields(text, "transfer")?;
        if signature != "-" {
            return Err(self.error(FileFault::Syntax));
        }
        wire::decode_exact(&payload).map_err(|fault| self.error(fault.into()))
    }

    fn expect(&mut self, kind: &'static str) -> Result<&'a str, FileError> {
        let found = self.next();
        found.ok_or_else(|| self.error(FileFault::Truncated(kind)))
    }

    fn signed<T: Object>(
        &mut self,
        kind: &'static str,
        signer: impl Fn(&T) -> [u8; 32],
    ) -> Result<(Envelope, T), FileError> {
        let text = self.expect(kind)?;
        self.envelope(text, kind, signer)
    }

    fn envelope<T: Object>(
        &self,
        text: &str,
        kind: &'static str,
        signer: impl Fn(&T) -> [u8; 32],
    ) -> Result<(Envelope, T), FileError> {
        let (payload, signature) = self.fields(text, kind)?;
        let signature = from_hex(signature).and_then(|bytes| {
            let (first, second) = bytes.split_at_checked(32)?;
            Some([first.try_into().ok()?, second.try_into().ok()?])
        });
        let signature = signature.ok_or_else(|| self.error(FileFault::Hex))?;
        let mut envelope = Envelope { key: [0; 32], payload, signature };
        let value: T = envelope.peek().map_err(|fault| self.error(fault.into()))?;
        envelope.key = signer(&value);
        Ok((envelope, value))
    }

    /// Payload and signature text of a line.
    fn fields<'t>(
        &self,
        text: &'t str,
        kind: &'static str,
    ) -> Result<(Vec<u8>, &'t str), FileError> {
        let mut fields = text.split(' ');
        let (found, payload, signature) = (fields.next(), fields.next(), fields.next());
        if found != Some(kind) {
            return Err(self.error(FileFault::Kind(kind)));
        }
        let (Some(payload), Some(signature), None) = (payload, signature, fields.next()) else {
            return Err(self.error(FileFault::Syntax));
        };
        let payload = from_hex(payload).ok_or_else(|| self.error(FileFault::Hex))?;
        Ok((payload, signature))
    }
}
