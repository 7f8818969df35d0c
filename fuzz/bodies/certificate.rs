//! Certificates: as a file, as bytes, and with every part signed anew, so that mutated
//! fields reach the rules behind the signatures.

use capex_core::certificate::objects::{Activation, Checkpoint, Gift, Issue, Merge, Split};
use capex_core::certificate::{Base, Certificate, Hop, file, verify};
use capex_core::params::Params;
use capex_core::settlement::objects::{LockGrant, Terms};
use capex_core::wire::{Envelope, Object, decode_record, encode, sign};

use super::world::{self, key};

pub fn run(bytes: &[u8]) {
    let params = world::params();
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(certificate) = file::parse(text, &params)
    {
        let again = file::parse(&file::write(&certificate, &params), &params);
        assert_eq!(again.as_ref(), Ok(&certificate));
        let _ = verify(&certificate, &params);
    }
    if let Ok(certificate) = decode_record::<Certificate>(bytes) {
        assert_eq!(encode(&certificate), bytes);
        let _ = verify(&certificate, &params);
        let _ = verify(&signed_anew(certificate, &params), &params);
    }
}

fn signed_anew(mut certificate: Certificate, params: &Params) -> Certificate {
    for base in &mut certificate.bases {
        match base {
            Base::Issue(issue) => anew::<Issue>(issue, params),
            Base::Checkpoint { checkpoint, activation } => {
                anew::<Activation>(activation, params);
                anew::<Checkpoint>(checkpoint, params);
            }
        }
    }
    for hop in &mut certificate.hops {
        match hop {
            Hop::Sale { terms, lock, activation, .. } => {
                anew::<Terms>(terms, params);
                anew::<LockGrant>(lock, params);
                anew::<Activation>(activation, params);
            }
            Hop::Gift { gift, activation } => {
                anew::<Gift>(gift, params);
                anew::<Activation>(activation, params);
            }
            Hop::Split { split, activations } => {
                anew::<Split>(split, params);
                activations.iter_mut().for_each(|bytes| anew::<Activation>(bytes, params));
            }
            Hop::Merge { merge, activation } => {
                anew::<Merge>(merge, params);
                anew::<Activation>(activation, params);
            }
        }
    }
    certificate
}

/// Signs with the key that the envelope names, where its secret is known.
fn anew<T: Object>(envelope: &mut Envelope, params: &Params) {
    let signer = (1..=3).map(key).find(|key| key.verifying_key().to_bytes() == envelope.key);
    if let (Some(signer), Ok(value)) = (signer, envelope.peek::<T>()) {
        *envelope = sign(value, params.magic, &signer).envelope().clone();
    }
}
