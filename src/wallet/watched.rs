//! Public descriptors: of a wallet whose keys are elsewhere, and of the place that sales are
//! paid out to.

use std::str::FromStr;

use bdk_wallet::miniscript::descriptor::{Descriptor, DescriptorPublicKey, Wildcard};
use bdk_wallet::miniscript::{DefiniteDescriptorKey, ForEachKey};
use bitcoin::hashes::{Hash, sha256};
use bitcoin::{Network, NetworkKind, ScriptBuf};

/// Digits of a hash that name a descriptor among those that one node was ever configured with.
const NAME_BYTES: usize = 8;

/// The receiving and change addresses of a wallet whose keys are elsewhere. The node makes no
/// signature for its coins: what they pay waits to be signed (BIP-174).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watched {
    branches: [String; 2],
}

impl Watched {
    /// Reads one multipath descriptor (BIP-389, `<0;1>`), or one for receiving and one for change.
    ///
    /// # Errors
    /// A line for people: not a ranged `tr(KEY)` or `wpkh(KEY)` with a public key of the network,
    /// or no change addresses.
    pub fn parse(text: &str, change: Option<&str>, network: Network) -> Result<Self, String> {
        let both = match (read(text)?, change) {
            (both, None) if both.len() == 2 => both,
            (mut one, Some(change)) if one.len() == 1 => {
                one.extend(read(change)?);
                one
            }
            _ => Vec::new(),
        };
        let [receive, change] = both.as_slice() else {
            return Err("name receiving and change addresses: one descriptor with <0;1>, or a \
                        change_descriptor beside it"
                .to_owned());
        };
        if receive == change {
            return Err("change needs addresses of its own".to_owned());
        }
        check(receive, network)?;
        check(change, network)?;
        Ok(Self { branches: [receive.to_string(), change.to_string()] })
    }

    /// Descriptor of receiving (`0`) or change (`1`) addresses.
    pub(super) fn branch(&self, branch: u32) -> &str {
        let [receive, change] = &self.branches;
        if branch == 0 { receive } else { change }
    }
}

impl std::fmt::Display for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.branches[0], self.branches[1])
    }
}

/// A ranged descriptor of which each sale is paid out to a fresh address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PayoutDescriptor {
    descriptor: Box<Descriptor<DescriptorPublicKey>>,
    name: [u8; NAME_BYTES],
}

impl PayoutDescriptor {
    /// Reads it.
    ///
    /// # Errors
    /// A line for people: not a ranged `tr(KEY)` or `wpkh(KEY)` with a public key of the network.
    pub fn parse(text: &str, network: Network) -> Result<Self, String> {
        let mut found = read(text)?;
        let (Some(descriptor), true) = (found.pop(), found.is_empty()) else {
            return Err("sales are paid out to one branch of addresses, not to <0;1>".to_owned());
        };
        check(&descriptor, network)?;
        let hash = sha256::Hash::hash(descriptor.to_string().as_bytes());
        let mut name = [0; NAME_BYTES];
        name.copy_from_slice(&hash.as_byte_array()[..NAME_BYTES]);
        Ok(Self { descriptor: Box::new(descriptor), name })
    }

    /// What names it in the store.
    pub(super) fn name(&self) -> [u8; NAME_BYTES] {
        self.name
    }

    /// Script of an address; `None` beyond the last index that there is.
    pub(super) fn script(&self, index: u32) -> Option<ScriptBuf> {
        Some(at(&self.descriptor, index)?.script_pubkey())
    }
}

impl std::fmt::Display for PayoutDescriptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.descriptor)
    }
}

fn at(
    descriptor: &Descriptor<DescriptorPublicKey>,
    index: u32,
) -> Option<Descriptor<DefiniteDescriptorKey>> {
    descriptor.at_derivation_index(index).ok()
}

/// The descriptors that a text stands for: of a multipath one, each of its branches.
fn read(text: &str) -> Result<Vec<Descriptor<DescriptorPublicKey>>, String> {
    let found = Descriptor::<DescriptorPublicKey>::from_str(text.trim());
    let found = found.map_err(|error| format!("this is no public descriptor: {error}"))?;
    if !found.is_multipath() {
        return Ok(vec![found]);
    }
    found.into_single_descriptors().map_err(|error| error.to_string())
}

fn check(descriptor: &Descriptor<DescriptorPublicKey>, network: Network) -> Result<(), String> {
    let is_simple = match descriptor {
        Descriptor::Tr(tr) => tr.tap_tree().is_none(),
        Descriptor::Wpkh(_) => true,
        Descriptor::Bare(_) | Descriptor::Pkh(_) | Descriptor::Sh(_) | Descriptor::Wsh(_) => false,
    };
    if !is_simple {
        return Err("expected a descriptor of the form tr(KEY) or wpkh(KEY)".to_owned());
    }
    // Of a hardened range only the private key has the addresses.
    let is_ranged = descriptor.for_each_key(|key| match key {
        DescriptorPublicKey::XPub(key) => key.wildcard == Wildcard::Unhardened,
        DescriptorPublicKey::MultiXPub(_) | DescriptorPublicKey::Single(_) => false,
    });
    if !is_ranged || at(descriptor, 0).is_none() {
        return Err("expected an extended public key with a range: …/0/*".to_owned());
    }
    let kind = NetworkKind::from(network);
    let is_own = descriptor.for_each_key(|key| match key {
        DescriptorPublicKey::XPub(key) => key.xkey.network == kind,
        DescriptorPublicKey::MultiXPub(_) | DescriptorPublicKey::Single(_) => false,
    });
    if is_own { Ok(()) } else { Err(format!("the key is not one of {network}")) }
}
