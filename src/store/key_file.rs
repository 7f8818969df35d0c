//! The file of one secret of 32 bytes: in hex, or sealed with a password.
//!
//! ```text
//! 9f86d081884c7d65…                          or    sealed 63617065782d…
//! ```

use std::io;
use std::path::Path;

use zeroize::Zeroizing;

use super::seal::{Password, SealError, Sealer, unseal};
use super::secret::{SecretError, create_private, read_private, replace_private};
use capex_core::ids::{from_hex, to_hex};

/// What a sealed secret is sealed for.
const PURPOSE: &str = "capex secret";
/// What stands before the sealed bytes.
const SEALED: &str = "sealed ";
/// Longest file, bytes: a sealed secret in hex takes half of it.
const FILE_MAX_BYTES: u64 = 512;

/// Reads the secret of a file, or makes it from the system's randomness, with mode 0600 and
/// sealed if there is a password.
///
/// # Errors
/// As [`load_secret`], or the system refuses.
pub fn load_or_create_secret(
    path: &Path,
    password: Option<&Password>,
) -> Result<[u8; 32], SecretError> {
    if !path.try_exists().map_err(|source| SecretError::io(path, source))? {
        let mut secret = Zeroizing::new([0u8; 32]);
        let drawn = getrandom::fill(secret.as_mut()).map_err(io::Error::other);
        drawn.map_err(|source| SecretError::io(path, source))?;
        let sealer = password.map(Sealer::new).transpose();
        let sealer = sealer.map_err(|error| SecretError::io(path, io::Error::other(error)))?;
        match create_secret(path, &secret, sealer.as_ref()) {
            // One that appeared meanwhile is the secret.
            Err(error) if error.is_already_there() => {}
            other => other?,
        }
    }
    load_secret(path, password)
}

/// Reads the secret of a file. One that lies open is read with a password too: a crash in
/// the middle of sealing leaves such a file.
///
/// # Errors
/// Others may read the file, it holds something else, or it is sealed and does not open.
pub fn load_secret(path: &Path, password: Option<&Password>) -> Result<[u8; 32], SecretError> {
    let bytes = read_private(path, FILE_MAX_BYTES)?;
    let invalid = || SecretError::Invalid(path.to_owned());
    let text = std::str::from_utf8(&bytes).map_err(|_| invalid())?;
    let text = text.strip_suffix('\n').unwrap_or(text);
    let secret = |bytes: &[u8]| bytes.try_into().map_err(|_| invalid());
    let Some(sealed) = text.strip_prefix(SEALED) else {
        return secret(&Zeroizing::new(from_hex(text).ok_or_else(invalid)?));
    };
    let sealed = from_hex(sealed).ok_or_else(invalid)?;
    let password = password.ok_or_else(|| SecretError::Sealed(path.to_owned()))?;
    match unseal(password, PURPOSE, &sealed) {
        Ok(plain) => secret(&plain),
        Err(SealError::Password) => Err(SecretError::WrongPassword(path.to_owned())),
        Err(SealError::Form | SealError::System) => Err(invalid()),
    }
}

/// Whether the secret of a file lies open.
///
/// # Errors
/// Others may read the file, or the system refuses.
pub fn is_open_secret(path: &Path) -> Result<bool, SecretError> {
    Ok(!read_private(path, FILE_MAX_BYTES)?.starts_with(SEALED.as_bytes()))
}

/// Writes the file of a secret, sealed or open.
///
/// # Errors
/// There is one already, which stays; or the system refuses.
pub fn create_secret(
    path: &Path,
    secret: &[u8; 32],
    sealer: Option<&Sealer>,
) -> Result<(), SecretError> {
    create_private(path, text(path, secret, sealer)?.as_bytes())
}

/// Puts a secret in the place of its file, sealed or open.
///
/// # Errors
/// The system refuses; the old file is whole then.
pub fn replace_secret(
    path: &Path,
    secret: &[u8; 32],
    sealer: Option<&Sealer>,
) -> Result<(), SecretError> {
    replace_private(path, text(path, secret, sealer)?.as_bytes())
}

fn text(
    path: &Path,
    secret: &[u8; 32],
    sealer: Option<&Sealer>,
) -> Result<Zeroizing<String>, SecretError> {
    let Some(sealer) = sealer else {
        return Ok(Zeroizing::new(format!("{}\n", to_hex(secret))));
    };
    let sealed = sealer.seal(PURPOSE, secret);
    let sealed = sealed.map_err(|error| SecretError::io(path, io::Error::other(error)))?;
    Ok(Zeroizing::new(format!("{SEALED}{}\n", to_hex(&sealed))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_secret_opens_with_its_password_and_an_open_one_with_any() {
        let dir = tempfile::tempdir().unwrap();
        let (path, open) = (dir.path().join("sealed"), dir.path().join("open"));
        let (right, wrong) = (Password::new("correct horse"), Password::new("battery"));
        let made = load_or_create_secret(&path, Some(&right)).unwrap();
        assert_eq!(load_or_create_secret(&path, Some(&right)).unwrap(), made);
        assert!(!is_open_secret(&path).unwrap());
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains(&to_hex(&made)) && text.len() <= FILE_MAX_BYTES as usize);
        assert_eq!(load_secret(&path, None).unwrap_err().code(), "secret.sealed");
        assert_eq!(load_secret(&path, Some(&wrong)).unwrap_err().code(), "secret.wrong_password");
        create_secret(&open, &made, None).unwrap();
        assert!(is_open_secret(&open).unwrap());
        assert_eq!(load_secret(&open, Some(&wrong)).unwrap(), made);
        // A sealed seed is no identity.
        let seed = Sealer::new(&right).unwrap().seal("capex wallet seed", &made).unwrap();
        for content in ["", "00", &format!("{SEALED}00\n"), &format!("{SEALED}\n")] {
            replace_private(&open, content).unwrap();
            assert_eq!(load_secret(&open, Some(&right)).unwrap_err().code(), "secret.invalid");
        }
        replace_private(&open, format!("{SEALED}{}\n", to_hex(&seed))).unwrap();
        let foreign = load_secret(&open, Some(&right)).unwrap_err();
        assert_eq!(foreign.code(), "secret.wrong_password");
    }
}
