//! Key aggregation of BIP-327 and the plain tweak that puts the terms into an address.
//!
//! The key path is spent by who has been handed the other's single-use key and adds the two, so
//! no nonces and no signing rounds exist.

use bitcoin::secp256k1::{
    Keypair, Parity, PublicKey, Scalar, Secp256k1, SecretKey, Signing, Verification,
};

use crate::wire::sha256;

/// Why keys do not aggregate. Honest inputs meet these with probability 2^-128.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyAggError {
    /// No key at all.
    #[error("no key to aggregate")]
    Empty,
    /// A coefficient or tweak is not below the group order, or is zero.
    #[error("scalar is not in the range of the group")]
    Scalar,
    /// The result is the point at infinity.
    #[error("keys cancel out")]
    Infinity,
}

impl KeyAggError {
    /// Stable reason code.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Empty => "keyagg.empty",
            Self::Scalar => "keyagg.scalar",
            Self::Infinity => "keyagg.infinity",
        }
    }
}

/// SHA-256 tagged as in BIP-340.
fn tagged(tag: &str, parts: &[&[u8]]) -> [u8; 32] {
    let tag = sha256(&[tag.as_bytes()]);
    let mut all: Vec<&[u8]> = vec![&tag, &tag];
    all.extend_from_slice(parts);
    sha256(&all)
}

/// `KeyAgg` of BIP-327: keys in the order given, duplicates allowed.
///
/// A coefficient at or above the group order is refused rather than reduced: nobody can
/// find one, and refusing needs no big-number arithmetic.
///
/// # Errors
/// [`KeyAggError`].
pub fn aggregate<C: Verification>(
    secp: &Secp256k1<C>,
    keys: &[PublicKey],
) -> Result<PublicKey, KeyAggError> {
    let times = |(key, factor): (&PublicKey, Scalar)| key.mul_tweak(secp, &factor);
    let terms = keys.iter().zip(coefficients(keys)?).map(times).collect::<Result<Vec<_>, _>>();
    let terms = terms.map_err(|_| KeyAggError::Scalar)?;
    let terms: Vec<&PublicKey> = terms.iter().collect();
    PublicKey::combine_keys(&terms).map_err(|_| KeyAggError::Infinity)
}

/// What each key is multiplied with.
fn coefficients(keys: &[PublicKey]) -> Result<Vec<Scalar>, KeyAggError> {
    let first = keys.first().ok_or(KeyAggError::Empty)?;
    let second = keys.iter().find(|key| *key != first);
    let bytes: Vec<[u8; 33]> = keys.iter().map(PublicKey::serialize).collect();
    let parts: Vec<&[u8]> = bytes.iter().map(<[u8; 33]>::as_slice).collect();
    let list = tagged("KeyAgg list", &parts);
    let coefficient = |(key, encoded): (&PublicKey, &[u8; 33])| {
        // The first key that differs from the first has coefficient 1.
        if Some(key) == second {
            return Ok(Scalar::ONE);
        }
        let hash = tagged("KeyAgg coefficient", &[&list, encoded]);
        Scalar::from_be_bytes(hash).map_err(|_| KeyAggError::Scalar)
    };
    keys.iter().zip(&bytes).map(coefficient).collect()
}

/// The secret of [`aggregate`] over the keys with an even y, plus a tweak: the x of its public
/// key is that of [`tweak_plain`] after it.
///
/// # Errors
/// [`KeyAggError`].
pub fn aggregate_secret<C: Signing>(
    secp: &Secp256k1<C>,
    keys: &[Keypair],
    tweak: [u8; 32],
) -> Result<SecretKey, KeyAggError> {
    let even: Vec<SecretKey> = keys.iter().map(even_secret).collect();
    let public: Vec<PublicKey> = even.iter().map(|key| key.public_key(secp)).collect();
    let mut sum = Scalar::from_be_bytes(tweak).map_err(|_| KeyAggError::Scalar)?;
    let mut last = None;
    for (key, factor) in even.into_iter().zip(coefficients(&public)?) {
        let term = key.mul_tweak(&factor).map_err(|_| KeyAggError::Scalar)?;
        let total = term.add_tweak(&sum).map_err(|_| KeyAggError::Infinity)?;
        sum = Scalar::from(total);
        last = Some(total);
    }
    last.ok_or(KeyAggError::Empty)
}

/// The secret whose public key has the same x and an even y.
fn even_secret(key: &Keypair) -> SecretKey {
    match key.x_only_public_key().1 {
        Parity::Even => key.secret_key(),
        Parity::Odd => key.secret_key().negate(),
    }
}

/// Plain tweak: `key + int(tweak)·G`.
///
/// # Errors
/// [`KeyAggError::Scalar`] if the tweak is not below the group order,
/// [`KeyAggError::Infinity`] if the sum vanishes.
pub fn tweak_plain<C: Verification>(
    secp: &Secp256k1<C>,
    key: &PublicKey,
    tweak: [u8; 32],
) -> Result<PublicKey, KeyAggError> {
    let tweak = Scalar::from_be_bytes(tweak).map_err(|_| KeyAggError::Scalar)?;
    key.add_exp_tweak(secp, &tweak).map_err(|_| KeyAggError::Infinity)
}

#[cfg(test)]
mod tests {
    use bitcoin::secp256k1::Secp256k1;

    use super::*;
    use crate::ids::{from_hex, to_hex};

    fn run(secp: &Secp256k1<bitcoin::secp256k1::All>, keys: &str, tweak: &str) -> Option<String> {
        let key = |hex: &str| PublicKey::from_slice(&from_hex(&hex.to_lowercase())?).ok();
        let keys: Vec<PublicKey> = keys.split_whitespace().map(key).collect::<Option<_>>()?;
        let mut sum = aggregate(secp, &keys).ok()?;
        if tweak != "-" {
            let tweak = from_hex(&tweak.to_lowercase())?.try_into().ok()?;
            sum = tweak_plain(secp, &sum, tweak).ok()?;
        }
        Some(to_hex(&sum.x_only_public_key().0.serialize()))
    }

    #[test]
    fn the_secrets_add_up_to_what_the_keys_do() {
        let secp = Secp256k1::new();
        let pair = |seed: u8| {
            Keypair::from_secret_key(&secp, &SecretKey::from_slice(&[seed; 32]).unwrap())
        };
        let even = |key: &Keypair| {
            PublicKey::from_x_only_public_key(key.x_only_public_key().0, Parity::Even)
        };
        let mut odd = 0;
        for seed in 1..60 {
            let keys = [pair(seed), pair(100 + seed)];
            let tweak = [seed; 32];
            let sum = aggregate(&secp, &keys.each_ref().map(even)).unwrap();
            let sum = tweak_plain(&secp, &sum, tweak).unwrap();
            let secret = aggregate_secret(&secp, &keys, tweak).unwrap();
            assert_eq!(secret.x_only_public_key(&secp).0, sum.x_only_public_key().0, "{seed}");
            odd += keys.iter().filter(|key| key.x_only_public_key().1 == Parity::Odd).count();
        }
        assert!((20..100).contains(&odd), "keys of both kinds: {odd}");
        let refused = |keys: &[Keypair], tweak| aggregate_secret(&secp, keys, tweak).unwrap_err();
        assert_eq!(refused(&[], [1; 32]), KeyAggError::Empty);
        assert_eq!(refused(&[pair(1), pair(2)], [0xff; 32]), KeyAggError::Scalar);
    }

    #[test]
    fn vectors_of_bip327() {
        let secp = Secp256k1::new();
        let text = include_str!("../../../../../tests/vectors/bip327_key_agg.txt");
        let mut cases = 0;
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let parts: Vec<&str> = line.split('|').map(str::trim).collect();
            let expected = (parts[2] != "error").then(|| parts[2].to_lowercase());
            assert_eq!(run(&secp, parts[0], parts[1]), expected, "{line}");
            cases += 1;
        }
        assert_eq!(cases, 9);
    }
}
