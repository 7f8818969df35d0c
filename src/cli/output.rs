//! What a command shows: one JSON value, or text in which nothing remote is obeyed.

use std::fmt::Display;
use std::io::{BufRead, Write};
use std::path::Path;

use serde::Serialize;

use super::failure::{Exit, Failure};
use super::sanitise;
use crate::api::types::Side;
use capex_core::reason;

/// Where a command reads and writes.
pub struct Io<'a> {
    /// Results.
    pub out: &'a mut dyn Write,
    /// Errors, previews and questions.
    pub err: &'a mut dyn Write,
    /// Answers to questions.
    pub input: &'a mut dyn BufRead,
    /// Whether somebody can answer.
    pub can_ask: bool,
    /// Whether results go to a terminal.
    pub out_is_terminal: bool,
}

impl Io<'_> {
    /// Exactly one JSON value on standard output.
    ///
    /// # Errors
    /// Standard output.
    pub fn json<T: Serialize>(&mut self, value: &T) -> Result<(), Failure> {
        let text = to_json(value)?;
        Ok(writeln!(self.out, "{text}")?)
    }

    /// One JSON value as one line of several.
    ///
    /// # Errors
    /// Standard output.
    pub fn json_line<T: Serialize>(&mut self, value: &T) -> Result<(), Failure> {
        let text = serde_json::to_string(value)
            .map_err(|error| Failure::new(reason!("cli.json"), error.to_string()))?;
        Ok(writeln!(self.out, "{}", sanitise::json(&text))?)
    }

    /// Text on standard output.
    ///
    /// # Errors
    /// Standard output.
    pub fn page(&mut self, page: &Page) -> Result<(), Failure> {
        Ok(self.out.write_all(page.text.as_bytes())?)
    }

    /// Asks on standard error; `yes` answers beforehand. Never waits for nobody.
    ///
    /// # Errors
    /// Refused, or nobody can answer: exit 2.
    pub fn confirm(&mut self, preview: &Page, question: &str, yes: bool) -> Result<(), Failure> {
        if yes {
            return Ok(());
        }
        self.err.write_all(preview.text.as_bytes())?;
        if !self.can_ask {
            let message = "this moves money and nobody can be asked";
            return Err(Failure::new(reason!("cli.no_terminal"), message)
                .with_hint("pass --yes, or --dry-run to see the preview alone"));
        }
        write!(self.err, "{question} [y/N] ")?;
        self.err.flush()?;
        let mut answer = String::new();
        self.input.read_line(&mut answer)?;
        match answer.trim() {
            "y" | "Y" | "yes" => Ok(()),
            _ => Err(Failure::new(reason!("cli.declined"), "nothing was done")),
        }
    }

    /// Shows a failure and gives its exit code. A broken pipe is silent.
    pub fn fail(&mut self, failure: &Failure, json: bool) -> u8 {
        if failure.exit != Exit::Ok {
            // Standard error may be closed: then the exit code has to do.
            let _ = self.write_failure(failure, json);
        }
        failure.exit as u8
    }

    fn write_failure(&mut self, failure: &Failure, json: bool) -> Result<(), Failure> {
        if json {
            let text = to_json(&failure.body())?;
            return Ok(writeln!(self.err, "{text}")?);
        }
        let (code, message) =
            (sanitise::line(&failure.code), sanitise::paragraph(&failure.message));
        writeln!(self.err, "error[{code}]: {message}")?;
        if let Some(hint) = &failure.hint {
            writeln!(self.err, "  hint: {}", sanitise::line(hint))?;
        }
        Ok(())
    }
}

fn to_json<T: Serialize>(value: &T) -> Result<String, Failure> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Failure::new(reason!("cli.json"), error.to_string()))?;
    Ok(sanitise::json(&text))
}

/// Text for people. Everything put on it is escaped.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    text: String,
    /// Global flags that a next command needs as well.
    flags: String,
}

/// Width of the names of [`Page::field`].
const FIELD_WIDTH: usize = 14;

impl Page {
    /// A page for whoever gave these global flags, as they stand behind a command.
    #[must_use]
    pub fn with_flags(flags: String) -> Self {
        Self { flags, ..Self::default() }
    }

    /// What to do next: a command without its `capex`.
    pub fn next(&mut self, command: impl Display) -> &mut Self {
        let line = format!("Next: capex {command}{}", self.flags);
        self.line(line)
    }

    /// A line.
    pub fn line(&mut self, text: impl Display) -> &mut Self {
        self.text += &sanitise::line(&text.to_string());
        self.text.push('\n');
        self
    }

    /// A name and a value.
    pub fn field(&mut self, name: &str, value: impl Display) -> &mut Self {
        self.line(format_args!("{name:<FIELD_WIDTH$} {value}"))
    }

    /// A name and a value, if there is one.
    pub fn maybe(&mut self, name: &str, value: Option<impl Display>) -> &mut Self {
        match value {
            Some(value) => self.field(name, value),
            None => self,
        }
    }

    /// Rows under their headings; `empty` instead if there are none.
    pub fn table<const N: usize>(
        &mut self,
        headings: [&str; N],
        rows: impl IntoIterator<Item = [String; N]>,
        empty: &str,
    ) -> &mut Self {
        let escape = |row: [String; N]| row.map(|cell| sanitise::line(&cell));
        let rows: Vec<[String; N]> = rows.into_iter().map(escape).collect();
        if rows.is_empty() {
            return self.line(empty);
        }
        let mut widths = headings.map(|heading| heading.chars().count());
        for row in &rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        self.row(&headings, &widths);
        for row in &rows {
            self.row(row, &widths);
        }
        self
    }

    fn row<T: AsRef<str>>(&mut self, cells: &[T], widths: &[usize]) {
        let mut text = String::new();
        for (cell, width) in cells.iter().zip(widths) {
            text += &format!("{:<width$}  ", cell.as_ref());
        }
        self.text += text.trim_end();
        self.text.push('\n');
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// Digits of an id in tables: unique in practice, and accepted by every command.
const SHORT_ID: usize = 12;

/// The beginning of an id.
#[must_use]
pub fn short(id: &str) -> String {
    id.chars().take(SHORT_ID).collect()
}

/// An amount with its unit, as in `12,345 sat`.
#[must_use]
pub fn sat(amount: u64) -> String {
    let digits = amount.to_string();
    let mut text = String::with_capacity(digits.len() + 8);
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text + " sat"
}

/// A window of slots.
#[must_use]
pub fn slots([start, end]: [u32; 2]) -> String {
    format!("[{start}, {end})")
}

/// A path as it is typed into a shell: a command that is shown with it is the command that is meant.
#[must_use]
pub fn typed(path: &Path) -> String {
    let text = path.to_string_lossy();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,:@%=".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.into_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// A side in one word.
#[must_use]
pub fn side(side: Side) -> &'static str {
    match side {
        Side::Buy => "buy",
        Side::Sell => "sell",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_have_units_and_groups() {
        let table =
            [(0, "0 sat"), (999, "999 sat"), (1000, "1,000 sat"), (1234567, "1,234,567 sat")];
        for (amount, text) in table {
            assert_eq!(sat(amount), text);
        }
    }

    #[test]
    fn a_path_is_typed_as_one_word() {
        let table = [
            ("/tmp/a-1_b.c", "/tmp/a-1_b.c"),
            ("/tmp/my market", "'/tmp/my market'"),
            ("/tmp/it's; rm", r"'/tmp/it'\''s; rm'"),
            ("~", "'~'"),
            ("", "''"),
        ];
        for (path, text) in table {
            assert_eq!(typed(Path::new(path)), text);
        }
    }

    #[test]
    fn tables_align_and_escape() {
        let mut page = Page::default();
        let rows = [["a\x1b".to_owned(), "1".to_owned()], ["bb".to_owned(), "22".to_owned()]];
        page.table(["name", "n"], rows, "none");
        assert_eq!(page.as_str(), "name     n\na\\u{1b}  1\nbb       22\n");
        let mut page = Page::default();
        page.table(["name"], [], "no orders");
        assert_eq!(page.as_str(), "no orders\n");
    }
}
