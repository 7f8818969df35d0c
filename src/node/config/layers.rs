//! One setting, four places it may come from: flags > environment > file > defaults.

use std::fmt;
use std::path::PathBuf;

use toml::Spanned;

use super::ConfigError;
use super::dirs::Env;
use super::file::line_of;

/// Where the value of a setting came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    Flag(&'static str),
    Env(&'static str),
    /// A variable that sets nothing.
    Other(String),
    /// A line of the file, from 1.
    File(PathBuf, usize),
    /// Built in, or part of the network definition.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) | Self::Env(name) => f.write_str(name),
            Self::Other(name) => f.write_str(name),
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

impl Origin {
    /// The error that a bad value from here is.
    pub fn refuse(&self, what: impl Into<String>) -> ConfigError {
        ConfigError::Invalid { origin: self.clone(), what: what.into() }
    }
}

/// A text with its origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sourced<T> {
    pub value: T,
    pub origin: Origin,
}

impl<T> Sourced<T> {
    /// Turns the value into another, blaming the origin if that fails.
    pub fn parse<U>(
        self,
        read: impl FnOnce(T) -> Result<U, String>,
    ) -> Result<Sourced<U>, ConfigError> {
        let Self { value, origin } = self;
        match read(value) {
            Ok(value) => Ok(Sourced { value, origin }),
            Err(what) => Err(origin.refuse(what)),
        }
    }
}

impl Sourced<String> {
    /// The path that the text means.
    pub fn place(self, env: Env<'_>) -> Result<Sourced<PathBuf>, ConfigError> {
        let origin = self.origin.clone();
        self.parse(|text| super::place(&text, &origin, env))
    }
}

/// Names of one setting in the layers above the file.
#[derive(Debug, Clone, Copy)]
pub struct Names {
    pub flag: &'static str,
    pub env: &'static str,
}

/// The file as the layers see it.
#[derive(Debug, Clone, Default)]
pub struct FileText {
    pub path: PathBuf,
    /// Its text; empty if there is no file.
    pub text: String,
}

impl FileText {
    /// Origin of a spanned value.
    pub fn origin<T>(&self, value: &Spanned<T>) -> Origin {
        Origin::File(self.path.clone(), line_of(&self.text, &value.span()))
    }
}

/// The highest layer that names a single value.
pub fn pick(
    names: Names,
    flag: Option<&str>,
    env: Env<'_>,
    file: &FileText,
    in_file: Option<&Spanned<String>>,
) -> Option<Sourced<String>> {
    if let Some(value) = flag {
        return Some(Sourced { value: value.to_owned(), origin: Origin::Flag(names.flag) });
    }
    if let Some(value) = env(names.env).filter(|value| !value.is_empty()) {
        return Some(Sourced { value, origin: Origin::Env(names.env) });
    }
    in_file.map(|value| Sourced { value: value.get_ref().clone(), origin: file.origin(value) })
}

/// The highest layer that names a list; the environment separates items by commas. Each
/// item keeps its own origin, so that a bad one is blamed on its own line.
pub fn pick_list(
    names: Names,
    flag: &[String],
    env: Env<'_>,
    file: &FileText,
    in_file: Option<&Vec<Spanned<String>>>,
) -> Option<Vec<Sourced<String>>> {
    let all = |items: Vec<String>, origin: Origin| {
        items.into_iter().map(|value| Sourced { value, origin: origin.clone() }).collect()
    };
    if !flag.is_empty() {
        return Some(all(flag.to_vec(), Origin::Flag(names.flag)));
    }
    if let Some(text) = env(names.env).filter(|text| !text.is_empty()) {
        let items = text.split(',').map(|item| item.trim().to_owned()).collect();
        return Some(all(items, Origin::Env(names.env)));
    }
    let item = |value: &Spanned<String>| Sourced {
        value: value.get_ref().clone(),
        origin: file.origin(value),
    };
    in_file.map(|items| items.iter().map(item).collect())
}
