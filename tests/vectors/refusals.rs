//! For three objects, bytes for every reason to refuse them.

use capex_core::certificate::objects::Activation;
use capex_core::ids::Key;
use capex_core::limits::SIGNED_MAX_BYTES;
use capex_core::order::Order;
use capex_core::settlement::objects::Terms;
use capex_core::wire::{Envelope, Magic, Object, WireError, encode};
use ed25519_dalek::Signer;

use super::samples::{Seen, activation, bid, read, secret, terms};
use super::text::Vector;
use super::{MAGIC, OTHER_MAGIC};

/// The identity of the curve: a public key under which one signature fits any message.
const SMALL_ORDER_KEY: [u8; 32] = {
    let mut key = [0; 32];
    key[0] = 1;
    key
};

pub(super) struct Table {
    pub(super) name: &'static str,
    pub(super) vectors: Vec<Vector>,
    pub(super) read: fn(&Envelope) -> Result<Seen, WireError>,
}

pub(super) fn tables() -> [Table; 3] {
    let weak = Key(SMALL_ORDER_KEY);
    let order = Order { owner: weak, ..bid() };
    let sale = Terms { from: weak, ..terms() };
    let moved = Activation { provider: weak, ..activation() };
    // Where the first list of the object has its length: all before it is of fixed width.
    [
        Table {
            name: "refused-order",
            vectors: refusals("buyer", &bid(), &order, 1 + 8 + 4 + 32 + 8),
            read: read::<Order>,
        },
        Table {
            name: "refused-terms",
            vectors: refusals("provider", &terms(), &sale, 1 + 32 + 32 + 4 + 32 + 2),
            read: read::<Terms>,
        },
        Table {
            name: "refused-activation",
            vectors: refusals("provider", &activation(), &moved, 1 + 32 + 32 + 4),
            read: read::<Activation>,
        },
    ]
}

/// What a signature covers, written down a second time.
fn message(domain: &str, magic: Magic, payload: &[u8]) -> Vec<u8> {
    [domain.as_bytes(), &magic, payload].concat()
}

struct Forge<'a> {
    signer: &'a str,
    domain: String,
}

impl Forge<'_> {
    fn signed(&self, payload: Vec<u8>) -> Envelope {
        self.signed_as(&self.domain, MAGIC, self.signer, payload)
    }

    fn signed_as(&self, domain: &str, magic: Magic, signer: &str, payload: Vec<u8>) -> Envelope {
        let key = secret(signer);
        let signature = key.sign(&message(domain, magic, &payload)).to_bytes();
        let (first, second) = signature.split_at(32);
        Envelope {
            key: key.verifying_key().to_bytes(),
            payload,
            signature: [first.try_into().unwrap(), second.try_into().unwrap()],
        }
    }
}

fn refusals<T: Object>(signer: &str, good: &T, weak: &T, length_at: usize) -> Vec<Vector> {
    let forge = Forge { signer, domain: format!("capex/{}/v1\0", T::NAME) };
    let payload = encode(good);
    let mut cases = malformed(&forge, &payload, length_at);
    cases.extend(versions(&forge, &payload));
    let small = Envelope {
        key: SMALL_ORDER_KEY,
        payload: encode(weak),
        signature: [SMALL_ORDER_KEY, [0; 32]],
    };
    cases.push(("key of small order", small, WireError::WeakKey));
    cases.extend(signatures(&forge, &payload));
    let vectors = cases.into_iter().map(|(name, envelope, error)| Vector {
        name: name.to_owned(),
        signer: None,
        envelope,
        id: None,
        answer: Some(error.code().to_owned()),
    });
    vectors.collect()
}

type Case = (&'static str, Envelope, WireError);

/// All rightly signed: the form alone decides.
fn malformed(forge: &Forge<'_>, payload: &[u8], length_at: usize) -> Vec<Case> {
    let padded = |bytes: usize| {
        let mut long = payload.to_vec();
        long.resize(bytes, 0);
        forge.signed(long)
    };
    let short = forge.signed(payload[..payload.len() - 1].to_vec());
    let mut long_list = payload.to_vec();
    long_list[length_at..length_at + 8].fill(0xff);
    vec![
        ("one byte above the limit", padded(SIGNED_MAX_BYTES + 1), WireError::Oversize),
        ("filled up to the limit", padded(SIGNED_MAX_BYTES), WireError::NotCanonical),
        ("one trailing byte", padded(payload.len() + 1), WireError::NotCanonical),
        ("last byte missing", short, WireError::Malformed),
        ("nothing", forge.signed(Vec::new()), WireError::Malformed),
        ("version alone", forge.signed(vec![1]), WireError::Malformed),
        ("list of 2^64 - 1", forge.signed(long_list), WireError::Malformed),
    ]
}

fn versions(forge: &Forge<'_>, payload: &[u8]) -> Vec<Case> {
    let with = |version: u8| {
        let mut other = payload.to_vec();
        other[0] = version;
        forge.signed(other)
    };
    let new_form = forge.signed(vec![2, 0xde, 0xad]);
    vec![
        ("version 2", with(2), WireError::UnknownVersion),
        ("version 2 in a form of its own", new_form, WireError::UnknownVersion),
        ("version 0", with(0), WireError::UnknownVersion),
    ]
}

fn signatures(forge: &Forge<'_>, payload: &[u8]) -> Vec<Case> {
    let good = forge.signed(payload.to_vec());
    let mut first = good.clone();
    first.signature[0][0] ^= 1;
    let mut second = good.clone();
    second.signature[1][0] ^= 1;
    let mut content = good.clone();
    *content.payload.last_mut().unwrap() ^= 1;
    let magic = |magic| forge.signed_as(&forge.domain, magic, forge.signer, payload.to_vec());
    let object = forge.signed_as("capex/row/v1\0", MAGIC, forge.signer, payload.to_vec());
    let other = forge.signed_as(&forge.domain, MAGIC, "holder", payload.to_vec());
    let claimed = Envelope { key: good.key, ..other.clone() };
    vec![
        ("bit of R changed", first, WireError::BadSignature),
        ("bit of S changed", second, WireError::BadSignature),
        ("bit of the payload changed", content, WireError::BadSignature),
        ("signed for another network", magic(OTHER_MAGIC), WireError::BadSignature),
        ("signed as another object", object, WireError::BadSignature),
        ("signed by another key", other, WireError::WrongSigner),
        ("signed by another key, in the signer's name", claimed, WireError::BadSignature),
    ]
}
