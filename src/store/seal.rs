//! Bytes under a password, for files that leave this machine or lie on a shared one.
//!
//! ```text
//! "capex-seal" ‖ version u8 ‖ memory KiB u32 ‖ passes u32 ‖ lanes u32 ‖ salt [16] ‖ nonce [24] ‖ box
//! ```
//!
//! argon2id makes a key of password and salt, XChaCha20-Poly1305 closes the bytes with it; the
//! header and the purpose are authenticated too, so a box opens only as what it was closed for.

use std::path::Path;

use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use zeroize::Zeroizing;

use super::secret::{SecretError, read_private};

const MAGIC: &[u8] = b"capex-seal\x01";
const SALT_BYTES: usize = 16;
const NONCE_BYTES: usize = 24;
const HEADER_BYTES: usize = MAGIC.len() + 12 + SALT_BYTES + NONCE_BYTES;
/// Longest password file, bytes.
const PASSWORD_MAX_BYTES: u64 = 1024;

/// What a guess of the password costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cost {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

/// 64 MiB and a good half second: a guess costs an attacker as much.
const COST: Cost = Cost { memory_kib: 64 << 10, passes: 3, lanes: 1 };
/// Most that a file may ask of the reader: 1 GiB, for half a minute.
const COST_MAX: Cost = Cost { memory_kib: 1 << 20, passes: 16, lanes: 4 };

/// Why bytes cannot be closed or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Not such bytes, or of a form or cost that this release does not take.
    #[error("this is not sealed in a form that this release reads")]
    Form,
    /// Another password, another purpose, or changed bytes.
    #[error("the password is wrong, or the sealed bytes were changed")]
    Password,
    /// The system has no memory or no randomness.
    #[error("the system lacks the memory or the randomness to seal with a password")]
    System,
}

/// A password; wiped from memory when it is dropped.
pub struct Password(Zeroizing<Vec<u8>>);

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password")
    }
}

impl Password {
    /// Reads a file of mode 0600: its text without the line end.
    ///
    /// # Errors
    /// Others may read it, it is empty or longer than 1,024 bytes, or it cannot be read.
    pub fn read(path: &Path) -> Result<Self, SecretError> {
        let mut bytes = read_private(path, PASSWORD_MAX_BYTES)?;
        while bytes.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
            bytes.pop();
        }
        if bytes.is_empty() {
            Err(SecretError::NoPassword(path.to_owned()))
        } else {
            Ok(Self(bytes))
        }
    }

    /// A password in memory.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(Zeroizing::new(text.as_bytes().to_vec()))
    }
}

/// Closes any number of files under one password, whose key is derived once.
pub struct Sealer {
    cipher: XChaCha20Poly1305,
    salt: [u8; SALT_BYTES],
}

impl Sealer {
    /// With a salt of its own.
    ///
    /// # Errors
    /// [`SealError::System`].
    pub fn new(password: &Password) -> Result<Self, SealError> {
        let mut salt = [0; SALT_BYTES];
        getrandom::fill(&mut salt).map_err(|_| SealError::System)?;
        Ok(Self { cipher: cipher(password, COST, &salt)?, salt })
    }

    /// Closes bytes for a purpose. Nonces are random and 24 bytes long, so that no number of
    /// files makes one come twice.
    ///
    /// # Errors
    /// [`SealError::System`].
    pub fn seal(&self, purpose: &str, plain: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce).map_err(|_| SealError::System)?;
        let mut sealed = MAGIC.to_vec();
        for number in [COST.memory_kib, COST.passes, COST.lanes] {
            sealed.extend_from_slice(&number.to_be_bytes());
        }
        sealed.extend_from_slice(&self.salt);
        sealed.extend_from_slice(&nonce);
        let aad = [&sealed, purpose.as_bytes()].concat();
        let payload = Payload { msg: plain, aad: &aad };
        let boxed = self.cipher.encrypt(XNonce::from_slice(&nonce), payload);
        sealed.extend(boxed.map_err(|_| SealError::System)?);
        Ok(sealed)
    }
}

/// Opens what [`Sealer::seal`] closed for the same purpose.
///
/// # Errors
/// All of [`SealError`].
pub fn unseal(
    password: &Password,
    purpose: &str,
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, SealError> {
    let (header, boxed) = sealed.split_at_checked(HEADER_BYTES).ok_or(SealError::Form)?;
    let rest = header.strip_prefix(MAGIC).ok_or(SealError::Form)?;
    let (numbers, rest) = rest.split_at_checked(12).ok_or(SealError::Form)?;
    let (salt, nonce) = rest.split_at_checked(SALT_BYTES).ok_or(SealError::Form)?;
    let mut numbers = numbers.chunks_exact(4).map(be_u32);
    let mut next = || numbers.next().flatten().ok_or(SealError::Form);
    let cost = Cost { memory_kib: next()?, passes: next()?, lanes: next()? };
    let is_too_dear = cost.memory_kib > COST_MAX.memory_kib
        || cost.passes > COST_MAX.passes
        || cost.lanes > COST_MAX.lanes;
    if is_too_dear {
        return Err(SealError::Form);
    }
    let aad = [header, purpose.as_bytes()].concat();
    let payload = Payload { msg: boxed, aad: &aad };
    let plain = cipher(password, cost, salt)?.decrypt(XNonce::from_slice(nonce), payload);
    plain.map(Zeroizing::new).map_err(|_| SealError::Password)
}

fn cipher(password: &Password, cost: Cost, salt: &[u8]) -> Result<XChaCha20Poly1305, SealError> {
    let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(32));
    let params = params.map_err(|_| SealError::Form)?;
    let mut key = Zeroizing::new([0; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(&password.0, salt, key.as_mut())
        .map_err(|_| SealError::System)?;
    XChaCha20Poly1305::new_from_slice(key.as_ref()).map_err(|_| SealError::System)
}

fn be_u32(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seal(password: &Password, purpose: &str, plain: &[u8]) -> Result<Vec<u8>, SealError> {
        Sealer::new(password)?.seal(purpose, plain)
    }

    #[test]
    fn what_is_sealed_opens_with_its_password_for_its_purpose_alone() {
        let (right, wrong) = (Password::new("correct horse"), Password::new("correct horsf"));
        let sealed = seal(&right, "a test", b"plain").unwrap();
        assert_eq!(unseal(&right, "a test", &sealed).unwrap().as_slice(), b"plain");
        assert_eq!(unseal(&wrong, "a test", &sealed), Err(SealError::Password));
        assert_eq!(unseal(&right, "another", &sealed), Err(SealError::Password));
        assert_ne!(seal(&right, "a test", b"plain").unwrap(), sealed, "salt and nonce are fresh");
        // Version, memory, passes, lanes, salt, nonce, box: each byte counts.
        let table = [
            (10, SealError::Form),
            (11, SealError::Form),
            (13, SealError::Password),
            (18, SealError::Form),
            (22, SealError::Form),
            (HEADER_BYTES - 1, SealError::Password),
            (HEADER_BYTES - NONCE_BYTES - 1, SealError::Password),
            (sealed.len() - 1, SealError::Password),
        ];
        for (at, expected) in table {
            let mut changed = sealed.clone();
            changed[at] ^= 0x10;
            assert_eq!(unseal(&right, "a test", &changed), Err(expected), "byte {at}");
        }
        for length in [0, MAGIC.len(), HEADER_BYTES - 1] {
            assert_eq!(unseal(&right, "a test", &sealed[..length]), Err(SealError::Form));
        }
        assert_eq!(unseal(&right, "a test", &sealed[..HEADER_BYTES]), Err(SealError::Password));
    }
}
