//! The seed file: words from which every key of the wallet follows, and when they were made.
//!
//! ```text
//! capex-seed 1
//! birthday 1800000000
//! words abandon ability able …          or    sealed 63617065782d…
//! ```
//!
//! The words are those of BIP-39 in English, without a passphrase, so that any wallet that
//! knows BIP-39 and BIP-86 finds the coins. The birthday is in unix seconds, or `-` where nobody
//! knows it. A sealed file holds the entropy of the words under a password.

use std::path::Path;

use bip39::{Language, Mnemonic};
use bitcoin::hashes::{Hash, HashEngine, Hmac, HmacEngine, sha256};
use zeroize::Zeroizing;

use crate::store::{
    Password, SealError, Sealer, SecretError, create_private, read_private, replace_private, unseal,
};
use capex_core::ids::{from_hex, to_hex};

/// First line of a seed file.
const HEAD: &str = "capex-seed 1";
/// What a sealed seed is sealed for.
const PURPOSE: &str = "capex wallet seed";
/// What the password of backups is derived for.
const BACKUP_LABEL: &[u8] = b"capex backup password";
/// Longest seed file, bytes: 24 words, or the sealed entropy in hex.
const FILE_MAX_BYTES: u64 = 1024;
/// Longest file of words, bytes.
const WORDS_MAX_BYTES: u64 = 4096;
/// Entropy of a new seed, bytes: 24 words.
const ENTROPY_BYTES: usize = 32;

/// A seed in memory; wiped when it is dropped.
pub struct Seed {
    entropy: Zeroizing<Vec<u8>>,
    birthday_s: Option<u64>,
}

impl std::fmt::Debug for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seed").field("birthday_s", &self.birthday_s).finish_non_exhaustive()
    }
}

impl Seed {
    /// A fresh one from the system's randomness, born at `now_s` (unix seconds).
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn generate(now_s: u64) -> std::io::Result<Self> {
        let mut entropy = Zeroizing::new(vec![0; ENTROPY_BYTES]);
        getrandom::fill(&mut entropy).map_err(std::io::Error::other)?;
        Ok(Self { entropy, birthday_s: Some(now_s) })
    }

    /// The seed whose words stand for these 16 to 32 bytes.
    ///
    /// # Errors
    /// A number of bytes that no words stand for.
    pub fn from_entropy(entropy: &[u8], birthday_s: Option<u64>) -> Result<Self, bip39::Error> {
        Mnemonic::from_entropy_in(Language::English, entropy)?;
        Ok(Self { entropy: Zeroizing::new(entropy.to_vec()), birthday_s })
    }

    /// The seed of 24 words that stand for a digest.
    #[must_use]
    pub fn from_digest(digest: [u8; 32], birthday_s: Option<u64>) -> Self {
        Self { entropy: Zeroizing::new(digest.to_vec()), birthday_s }
    }

    /// Reads 12 to 24 words, in any case and with any space between them.
    ///
    /// # Errors
    /// A word that is none, a wrong number of words, or a wrong checksum.
    pub fn from_words(text: &str, birthday_s: Option<u64>) -> Result<Self, bip39::Error> {
        let words = Zeroizing::new(text.to_lowercase());
        let words: Vec<&str> = words.split_whitespace().collect();
        let words = Zeroizing::new(words.join(" "));
        let mnemonic = Mnemonic::parse_in_normalized(Language::English, &words)?;
        let (entropy, length) = mnemonic.to_entropy_array();
        let entropy = Zeroizing::new(entropy);
        Self::from_entropy(entropy.get(..length).unwrap_or_default(), birthday_s)
    }

    /// Reads a file of words, of mode 0600.
    ///
    /// # Errors
    /// As [`Seed::from_words`], and where others may read the file or nobody can.
    pub fn read_words(path: &Path, birthday_s: Option<u64>) -> Result<Self, SecretError> {
        let bytes = read_private(path, WORDS_MAX_BYTES)?;
        let text = std::str::from_utf8(&bytes).unwrap_or_default();
        let wrong = |error: bip39::Error| SecretError::Words(path.to_owned(), error.to_string());
        Self::from_words(text, birthday_s).map_err(wrong)
    }

    /// Its words, one space apart.
    #[must_use]
    pub fn words(&self) -> Zeroizing<String> {
        let mnemonic = Mnemonic::from_entropy_in(Language::English, &self.entropy);
        // Every way to make a seed has checked its length.
        let words = mnemonic.iter().flat_map(Mnemonic::words);
        Zeroizing::new(words.collect::<Vec<_>>().join(" "))
    }

    /// When it was made, unix seconds, if that is known: it has no older coins.
    #[must_use]
    pub fn birthday_s(&self) -> Option<u64> {
        self.birthday_s
    }

    /// A password that whoever has the words can make again, for what is sealed under them.
    #[must_use]
    pub fn backup_password(&self) -> Password {
        let mut mac = HmacEngine::<sha256::Hash>::new(&self.entropy);
        mac.input(BACKUP_LABEL);
        Password::new(&to_hex(Hmac::from_engine(mac).as_byte_array()))
    }

    /// Whether the seed of a file lies open.
    ///
    /// # Errors
    /// As [`Seed::load`].
    pub fn is_open(path: &Path) -> Result<bool, SecretError> {
        match Self::load(path, None) {
            Ok(_) => Ok(true),
            Err(SecretError::Sealed(_)) => Ok(false),
            Err(other) => Err(other),
        }
    }

    /// The 64 bytes of BIP-39 from which BIP-32 keys follow.
    pub(super) fn bytes(&self) -> Zeroizing<[u8; 64]> {
        let mnemonic = Mnemonic::from_entropy_in(Language::English, &self.entropy);
        let bytes = mnemonic.map(|mnemonic| mnemonic.to_seed_normalized(""));
        Zeroizing::new(bytes.unwrap_or([0; 64]))
    }

    /// Reads a seed file; a sealed one needs its password.
    ///
    /// # Errors
    /// Others may read the file, it holds no seed, or it is sealed under another password.
    pub fn load(path: &Path, password: Option<&Password>) -> Result<Self, SecretError> {
        let bytes = read_private(path, FILE_MAX_BYTES)?;
        Self::parse(std::str::from_utf8(&bytes).unwrap_or_default(), path, password)
    }

    /// Reads the text of a seed file that lies, or shall lie, at `path`.
    ///
    /// # Errors
    /// As [`Seed::load`].
    pub fn parse(
        text: &str,
        path: &Path,
        password: Option<&Password>,
    ) -> Result<Self, SecretError> {
        let invalid = || SecretError::Invalid(path.to_owned());
        let mut lines = text.lines();
        if lines.next() != Some(HEAD) {
            let is_old = from_hex(text.trim_end()).is_some_and(|bytes| bytes.len() == 32);
            return Err(if is_old { SecretError::OldForm(path.to_owned()) } else { invalid() });
        }
        let mut value = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ');
        let birthday_s = match value("birthday").ok_or_else(invalid)? {
            "-" => None,
            text => Some(text.parse().map_err(|_| invalid())?),
        };
        let rest = lines.next().ok_or_else(invalid)?;
        if lines.next().is_some() {
            return Err(invalid());
        }
        if let Some(words) = rest.strip_prefix("words ") {
            return Self::from_words(words, birthday_s).map_err(|_| invalid());
        }
        let sealed = rest.strip_prefix("sealed ").and_then(from_hex).ok_or_else(invalid)?;
        let password = password.ok_or_else(|| SecretError::Sealed(path.to_owned()))?;
        let entropy = unseal(password, PURPOSE, &sealed).map_err(|error| match error {
            SealError::Password => SecretError::WrongPassword(path.to_owned()),
            SealError::Form | SealError::System => invalid(),
        })?;
        Self::from_entropy(&entropy, birthday_s).map_err(|_| invalid())
    }

    /// Reads a seed file, or makes it with a fresh seed.
    ///
    /// # Errors
    /// As [`Seed::load`], or the system refuses.
    pub fn load_or_create(
        path: &Path,
        password: Option<&Password>,
        now_s: u64,
    ) -> Result<Self, SecretError> {
        if !path.try_exists().map_err(|source| SecretError::io(path, source))? {
            let seed = Self::generate(now_s).map_err(|source| SecretError::io(path, source))?;
            let sealer = password.map(Sealer::new).transpose();
            let sealer =
                sealer.map_err(|error| SecretError::io(path, std::io::Error::other(error)))?;
            match seed.create(path, sealer.as_ref()) {
                // One that appeared meanwhile is the seed.
                Err(error) if error.is_already_there() => {}
                other => other?,
            }
        }
        Self::load(path, password)
    }

    /// Writes a new seed file, sealed or open.
    ///
    /// # Errors
    /// There is one already, which stays; or the system refuses.
    pub fn create(&self, path: &Path, sealer: Option<&Sealer>) -> Result<(), SecretError> {
        create_private(path, self.text(path, sealer)?.as_bytes())
    }

    /// Puts itself in the place of a seed file, sealed or open.
    ///
    /// # Errors
    /// The system refuses; the old file is whole then.
    pub fn replace(&self, path: &Path, sealer: Option<&Sealer>) -> Result<(), SecretError> {
        replace_private(path, self.text(path, sealer)?.as_bytes())
    }

    fn text(&self, path: &Path, sealer: Option<&Sealer>) -> Result<Zeroizing<String>, SecretError> {
        let Some(sealer) = sealer else { return Ok(self.plain_text()) };
        let sealed = sealer.seal(PURPOSE, &self.entropy);
        let sealed = sealed.map_err(|e| SecretError::io(path, std::io::Error::other(e)))?;
        Ok(self.file_text(&format!("sealed {}", to_hex(&sealed))))
    }

    /// Text of its file where that is not sealed.
    #[must_use]
    pub fn plain_text(&self) -> Zeroizing<String> {
        self.file_text(&Zeroizing::new(format!("words {}", *self.words())))
    }

    fn file_text(&self, secret: &str) -> Zeroizing<String> {
        let birthday = self.birthday_s.map_or_else(|| "-".to_owned(), |at_s| at_s.to_string());
        Zeroizing::new(format!("{HEAD}\nbirthday {birthday}\n{secret}\n"))
    }
}
