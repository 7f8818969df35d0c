//! `capex wallet words|encrypt|decrypt|restore`: the files of keys, whether a daemon runs or not.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use zeroize::Zeroizing;

use super::Context;
use super::failure::Failure;
use super::output::Page;
use super::time::{Moment, utc};
use crate::clock::now_ms;
use crate::store::{
    IDENTITY_FILE, Password, SEED_FILE, Sealer, SecretError, is_open_secret, load_secret,
    replace_secret,
};
use crate::wallet::Seed;
use capex_core::reason;

/// Words on one line, as people copy them.
const WORDS_PER_LINE: usize = 4;

/// Where a seed comes from that is restored.
#[derive(Debug, Clone, clap::Args)]
pub struct Restored {
    /// File with the 12 to 24 words, readable by its owner alone
    #[arg(value_name = "WORDS_FILE")]
    pub words: PathBuf,
    /// When the words were made, so that no older chain block is read
    #[arg(long, value_name = "TIME")]
    pub birthday: Option<Moment>,
}

#[derive(Serialize)]
struct Words<'a> {
    words: Vec<&'a str>,
    birthday_at: Option<u64>,
}

#[derive(Serialize)]
struct Kept {
    seed: PathBuf,
    /// Absent before the first start, which makes it.
    identity: Option<PathBuf>,
    encrypted: bool,
}

/// Both files of keys, of which the identity is made by the first start.
struct Files {
    seed: PathBuf,
    identity: PathBuf,
}

impl Files {
    fn of(context: &Context<'_>) -> Result<Self, Failure> {
        let dir = context.config()?.datadir;
        Ok(Self { seed: dir.join(SEED_FILE), identity: dir.join(IDENTITY_FILE) })
    }

    fn has_identity(&self) -> Result<bool, Failure> {
        self.identity.try_exists().map_err(|error| Failure::file(&self.identity, &error))
    }

    /// Seals both files, or opens both. Each is whole at any moment, and a start reads one of
    /// either kind with the password: what a crash leaves half done is done by the next time.
    fn rewrite(&self, password: &Password, seal: bool) -> Result<Option<PathBuf>, Failure> {
        // Before anything is written: a wrong password leaves both as they are.
        let seed = Seed::load(&self.seed, Some(password))?;
        let identity = self.has_identity()?;
        let identity = identity.then(|| load_secret(&self.identity, Some(password)));
        let identity = identity.transpose()?.map(Zeroizing::new);
        let sealer = seal.then(|| Sealer::new(password)).transpose();
        let sealer =
            sealer.map_err(|error| Failure::file(&self.seed, &std::io::Error::other(error)))?;
        if Seed::is_open(&self.seed)? == seal {
            seed.replace(&self.seed, sealer.as_ref())?;
        }
        let Some(identity) = identity else { return Ok(None) };
        if is_open_secret(&self.identity)? == seal {
            replace_secret(&self.identity, &identity, sealer.as_ref())?;
        }
        Ok(Some(self.identity.clone()))
    }

    /// Whether seed and identity both lie open (or sealed).
    fn are_all(&self, open: bool) -> Result<bool, Failure> {
        let identity = !self.has_identity()? || is_open_secret(&self.identity)? == open;
        Ok(identity && Seed::is_open(&self.seed)? == open)
    }
}

/// The seed file of the data directory that flags and configuration name.
fn place(context: &Context<'_>) -> Result<PathBuf, Failure> {
    Ok(context.config()?.datadir.join(SEED_FILE))
}

/// The password of a flag, else of the configuration.
fn password(flag: Option<&Path>, context: &Context<'_>) -> Result<Option<Password>, Failure> {
    let file = match flag {
        Some(path) => Some(path.to_owned()),
        None => context.config()?.wallet.password_file,
    };
    Ok(file.map(|path| Password::read(&path)).transpose()?)
}

fn needed(password: Option<Password>) -> Result<Password, Failure> {
    let message = "name the file of the password";
    password.ok_or_else(|| Failure::new(reason!("secret.no_password"), message))
}

/// Shows the words.
///
/// # Errors
/// The seed file cannot be read or opened.
pub fn words(flag: Option<&Path>, context: &mut Context<'_>) -> Result<(), Failure> {
    let seed = Seed::load(&place(context)?, password(flag, context)?.as_ref())?;
    let words = seed.words();
    let words = Words {
        words: words.split(' ').collect(),
        birthday_at: seed.birthday_s().map(|at_s| at_s.saturating_mul(1000)),
    };
    context.show(&words, |shown, page| {
        for (line, words) in shown.words.chunks(WORDS_PER_LINE).enumerate() {
            let numbered = words.iter().enumerate().map(|(column, word)| {
                format!("{:>2} {word:<10}", line * WORDS_PER_LINE + column + 1)
            });
            page.line(numbered.collect::<Vec<_>>().join(" ").trim_end());
        }
        page.maybe("made", shown.birthday_at.map(utc))
            .line(
                "Whoever reads these words can spend the coins. Keep them on paper, with the date.",
            )
            .line(
                "They restore coins, not open trades and not the identity: keep identity.key too.",
            );
    })
}

/// Seals seed and identity with a password.
///
/// # Errors
/// They are sealed already, or a file cannot be read or written.
pub fn encrypt(flag: Option<&Path>, context: &mut Context<'_>) -> Result<(), Failure> {
    let (files, password) = (Files::of(context)?, needed(password(flag, context)?)?);
    if files.are_all(false)? {
        return Err(SecretError::Sealed(files.seed).into());
    }
    let identity = files.rewrite(&password, true)?;
    kept(Kept { seed: files.seed, identity, encrypted: true }, context)
}

/// Takes the password away from seed and identity.
///
/// # Errors
/// The password is wrong, or a file cannot be read or written.
pub fn decrypt(flag: Option<&Path>, context: &mut Context<'_>) -> Result<(), Failure> {
    let (files, password) = (Files::of(context)?, needed(password(flag, context)?)?);
    if files.are_all(true)? {
        return Err(SecretError::NotSealed(files.seed).into());
    }
    let identity = files.rewrite(&password, false)?;
    kept(Kept { seed: files.seed, identity, encrypted: false }, context)
}

/// Makes the seed file from words.
///
/// # Errors
/// There is one, or the words are wrong.
pub fn restore(
    from: &Restored,
    flag: Option<&Path>,
    context: &mut Context<'_>,
) -> Result<(), Failure> {
    let (path, password) = (place(context)?, password(flag, context)?);
    if let Some(seed) = made(&path, Some(from))? {
        put(&seed, &path, password.as_ref())?;
    }
    kept(Kept { seed: path, identity: None, encrypted: password.is_some() }, context)
}

/// A seed for a file: of words, or fresh; none where an old one stays instead of a fresh one.
///
/// # Errors
/// There is one already, or the words are wrong.
pub fn made(path: &Path, from: Option<&Restored>) -> Result<Option<Seed>, Failure> {
    let is_there = path.try_exists().map_err(|error| Failure::file(path, &error))?;
    match from {
        Some(_) if is_there => {
            let message = format!("{} holds a seed already", path.display());
            Err(Failure::new(reason!("secret.exists"), message))
        }
        Some(from) => {
            let birthday_s = from.birthday.map(|at| at.at_ms(now_ms()) / 1000);
            Ok(Some(Seed::read_words(&from.words, birthday_s)?))
        }
        None if is_there => Ok(None),
        None => {
            let seed = Seed::generate(now_ms() / 1000);
            seed.map(Some).map_err(|error| Failure::file(path, &error))
        }
    }
}

/// Writes a seed into its file, sealed if there is a password.
///
/// # Errors
/// The system refuses.
pub fn put(seed: &Seed, path: &Path, password: Option<&Password>) -> Result<(), Failure> {
    if let Some(dir) = path.parent() {
        make_private_dir(dir)?;
    }
    let sealer = password.map(Sealer::new).transpose();
    let sealer = sealer.map_err(|error| Failure::file(path, &std::io::Error::other(error)))?;
    Ok(seed.create(path, sealer.as_ref())?)
}

/// Makes a directory that only its owner may enter.
pub(super) fn make_private_dir(dir: &Path) -> Result<(), Failure> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(dir).map_err(|error| Failure::file(dir, &error))
}

fn kept(kept: Kept, context: &mut Context<'_>) -> Result<(), Failure> {
    context.show(&kept, |kept, page: &mut Page| {
        page.field("seed", kept.seed.display())
            .maybe("identity", kept.identity.as_ref().map(|path| path.display()))
            .field("encrypted", if kept.encrypted { "yes" } else { "no" });
        if kept.encrypted {
            page.line("A start needs the password: capex up --password-file FILE");
        }
    })
}
