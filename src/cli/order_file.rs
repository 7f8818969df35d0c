//! Files of flags, of an order or a workload: TOML whose keys are the names of the flags.
//!
//! Each value goes through the parser of its flag, so a file means what the flags mean. A
//! mistake is one line with its code, file and line; nothing is placed then.

use std::collections::BTreeMap;
use std::path::Path;

use clap::{Arg, ArgAction, FromArgMatches};
use toml::{Spanned, Value};

use super::failure::Failure;
use super::{first_line, read_text};
use crate::node::config::file::{self, line_of};

/// An order or a workload is a few lines.
const FILE_MAX_BYTES: u64 = 64 << 10;

/// Reads a file as the flags `F`.
///
/// # Errors
/// `order_file.syntax`, `order_file.unknown_key` or `order_file.bad_value`, exit 2.
pub fn read<F: clap::Args + FromArgMatches>(path: &Path) -> Result<F, Failure> {
    let text = read_text(path, FILE_MAX_BYTES)?;
    parse(&text).map_err(|Mistake { code, line, what }| {
        Failure::coded(code, format!("{}:{line}: {what}", path.display()))
    })
}

/// A mistake in an order file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Stable dotted code.
    pub code: &'static str,
    /// Line, from 1.
    pub line: usize,
    /// What is wrong, in one line.
    pub what: String,
}

/// Reads a text as the flags `F`.
///
/// # Errors
/// The first mistake.
pub fn parse<F: clap::Args + FromArgMatches>(text: &str) -> Result<F, Mistake> {
    let command = F::augment_args(clap::Command::new("order")).no_binary_name(true);
    let entries: BTreeMap<String, Spanned<Value>> = file::parse(text).map_err(|mistake| {
        Mistake { code: "order_file.syntax", line: mistake.line, what: mistake.what }
    })?;
    let (mut args, mut behind) = (Vec::new(), Vec::new());
    let mut last_line = 1;
    for (key, value) in in_file_order(entries) {
        let line = line_of(text, &value.span());
        let refuse = |code, what| Mistake { code, line, what };
        let arg = flag(&command, &key)
            .ok_or_else(|| refuse("order_file.unknown_key", unknown(&command, &key)))?;
        let these = as_args(arg, &key, value.get_ref())
            .map_err(|what| refuse("order_file.bad_value", format!("{key}: {what}")))?;
        // Alone first, so that a bad value is blamed on its own line.
        command
            .clone()
            .try_get_matches_from(&these)
            .map_err(|error| refuse("order_file.bad_value", first_line(&error)))?;
        if arg.is_last_set() {
            behind.extend(these)
        } else {
            args.extend(these)
        }
        last_line = line;
    }
    args.extend(behind);
    let together = command.try_get_matches_from(args).and_then(|all| F::from_arg_matches(&all));
    together.map_err(|error| Mistake {
        code: "order_file.bad_value",
        line: last_line,
        what: first_line(&error),
    })
}

fn in_file_order(entries: BTreeMap<String, Spanned<Value>>) -> Vec<(String, Spanned<Value>)> {
    let mut entries: Vec<_> = entries.into_iter().collect();
    entries.sort_by_key(|(_, value)| value.span().start);
    entries
}

fn flag<'a>(command: &'a clap::Command, key: &str) -> Option<&'a Arg> {
    command.get_arguments().find(|arg| name(arg) == Some(key))
}

/// The key of a flag, and of what stands behind `--`.
fn name(arg: &Arg) -> Option<&str> {
    let behind = arg.is_last_set().then(|| arg.get_id().as_str());
    arg.get_long().or(behind)
}

fn unknown(command: &clap::Command, key: &str) -> String {
    let known: Vec<&str> = command.get_arguments().filter_map(name).collect();
    format!("unknown key `{}`, expected one of {}", key.escape_default(), known.join(", "))
}

fn as_args(arg: &Arg, key: &str, value: &Value) -> Result<Vec<String>, String> {
    match (arg.get_action(), value) {
        (ArgAction::Append, Value::Array(items)) if arg.is_last_set() => {
            let items = items.iter().map(scalar);
            std::iter::once(Ok("--".to_owned())).chain(items).collect()
        }
        (ArgAction::SetTrue, Value::Boolean(true)) => Ok(vec![format!("--{key}")]),
        (ArgAction::SetTrue, Value::Boolean(false)) => Ok(Vec::new()),
        (ArgAction::SetTrue, _) => Err("expected true or false".to_owned()),
        (ArgAction::Append, Value::Array(items)) => {
            items.iter().map(|item| Ok(format!("--{key}={}", scalar(item)?))).collect()
        }
        (_, value) => Ok(vec![format!("--{key}={}", scalar(value)?)]),
    }
}

fn scalar(value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Integer(number) => Ok(number.to_string()),
        Value::Datetime(time) => Ok(time.to_string()),
        other => Err(format!("expected text or a whole number, not {}", other.type_str())),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{buy, sell};
    use super::*;

    #[test]
    fn a_file_means_what_the_flags_mean() {
        let flags: buy::Bid = parse(
            "class = \"cpu.standard\"\nqty = 2\nmax-price = \"20sat\"\nslots = 2\ngang = true\n\
             tif = \"gtt:+1h\"\nfor = \"8s\"\nallow = [\n  \"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\",\n]\n",
        )
        .unwrap();
        assert_eq!((flags.common.qty, flags.slots, flags.gang), (Some(2), Some(2), true));
        assert_eq!(flags.max_price.unwrap().msat(), 20_000);
        assert_eq!(flags.common.allow.len(), 1);
    }

    #[test]
    fn mistakes_have_a_code_and_a_line() {
        let table = [
            (
                "class = \"a\"\nprise = \"1sat\"\n",
                "order_file.unknown_key",
                2,
                "unknown key `prise`",
            ),
            ("class = \"a\"\n\nprice = \"20\"\n", "order_file.bad_value", 3, "with a unit"),
            ("qty = 0\n", "order_file.bad_value", 1, "0 is not in 1..=10000"),
            ("qty = 1.5\n", "order_file.bad_value", 1, "not float"),
            ("qty = [1, 2]\n", "order_file.bad_value", 1, "not array"),
            ("for = \"8\"\n", "order_file.bad_value", 1, "length of time"),
            ("tif = \"gtx\"\n", "order_file.bad_value", 1, "expected gtc"),
            ("allow = [\"zz\"]\n", "order_file.bad_value", 1, "64 lower-case hex"),
            ("file = \"other.toml\"\n", "order_file.unknown_key", 1, "unknown key `file`"),
            ("json = true\n", "order_file.unknown_key", 1, "unknown key `json`"),
            ("qty = 1\nqty = 2\n", "order_file.syntax", 2, ""),
            ("qty = \n", "order_file.syntax", 1, ""),
            (
                "from = \"now\"\nwindow = \"1..2\"\n",
                "order_file.bad_value",
                2,
                "cannot be used with",
            ),
        ];
        for (text, code, line, what) in table {
            let mistake = parse::<sell::Ask>(text).unwrap_err();
            assert_eq!((mistake.code, mistake.line), (code, line), "{text:?}: {}", mistake.what);
            assert!(mistake.what.contains(what), "{text:?}: {}", mistake.what);
            assert!(!mistake.what.contains('\n'), "{}", mistake.what);
        }
    }
}
