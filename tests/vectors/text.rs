//! The files: blocks of `word value` lines with an empty line between them.

use std::fmt::Write;

use capex_core::ids::{from_hex, to_hex};
use capex_core::wire::Envelope;

/// Payloads are broken into lines of this many digits.
const WIDTH: usize = 96;

/// One case of a file.
#[derive(Debug)]
pub(super) struct Vector {
    pub(super) name: String,
    pub(super) signer: Option<String>,
    pub(super) envelope: Envelope,
    pub(super) id: Option<[u8; 32]>,
    pub(super) answer: Option<String>,
}

/// The text of a file.
pub(super) fn render(header: &str, vectors: &[Vector]) -> String {
    let mut text = header.to_owned();
    for vector in vectors {
        write(&mut text, vector).unwrap();
    }
    text
}

fn write(text: &mut String, vector: &Vector) -> std::fmt::Result {
    let Vector { name, signer, envelope, id, answer } = vector;
    writeln!(text, "\ncase {name}")?;
    if let Some(signer) = signer {
        writeln!(text, "signer {signer}")?;
    }
    let payload = to_hex(&envelope.payload);
    if payload.is_empty() {
        writeln!(text, "payload")?;
    }
    for line in payload.as_bytes().chunks(WIDTH) {
        writeln!(text, "payload {}", String::from_utf8_lossy(line))?;
    }
    writeln!(text, "key {}", to_hex(&envelope.key))?;
    writeln!(text, "signature {}", to_hex(&envelope.signature.concat()))?;
    if let Some(id) = id {
        writeln!(text, "id {}", to_hex(id))?;
    }
    match answer {
        Some(answer) => writeln!(text, "answer {answer}"),
        None => Ok(()),
    }
}

/// The cases of a file.
pub(super) fn parse(text: &str) -> Vec<Vector> {
    text.split("\n\n").filter(|block| block.starts_with("case ")).map(block).collect()
}

fn block(text: &str) -> Vector {
    let values = |word: &str| -> Vec<&str> {
        let lines = text.lines().map(|line| line.split_once(' ').unwrap_or((line, "")));
        lines.filter(|(first, _)| *first == word).map(|(_, value)| value).collect()
    };
    let one = |word: &str| values(word).first().map(|value| (*value).to_owned());
    let bytes = |word: &str| from_hex(&values(word).concat()).unwrap_or_else(|| panic!("{text}"));
    let signature = bytes("signature");
    let (first, second) = signature.split_at(32);
    Vector {
        name: one("case").unwrap(),
        signer: one("signer"),
        envelope: Envelope {
            key: bytes("key").try_into().unwrap(),
            payload: bytes("payload"),
            signature: [first.try_into().unwrap(), second.try_into().unwrap()],
        },
        id: one("id").map(|_| bytes("id").try_into().unwrap()),
        answer: one("answer"),
    }
}
