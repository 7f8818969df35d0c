//! `capex match`: matches books given as JSON, offline.
//!
//! The form is the one in which `capex epoch export` writes an epoch, so anybody can
//! recompute it. Reading is strict: a field that is unknown, missing or of another type
//! refuses the book, never the command; the other books of an array are still matched.

mod form;
mod plot;

use std::fs::File;
use std::io::{self, Read, Write};

use serde::ser::{SerializeMap, SerializeStruct};
use serde::{Serialize, Serializer};
use serde_json::{Value, json};
use thiserror::Error;

use super::sanitise;
use crate::api::ErrorBody;
use capex_core::matching::{self, Algorithm, Instance, Outcome};
use capex_core::reason;
use capex_core::reasons::{Exit, Reason};

pub use crate::api::types::book_json as to_json;
pub use plot::Plot;

/// Longest input read: about a million orders, far above any book a network can hold.
const MAX_INPUT_BYTES: u64 = 512 << 20;
/// Most books in an array: a refusal takes far more memory than the two bytes that can cause it.
const MAX_BOOKS: usize = 65_536;

/// Why the command as a whole failed.
#[derive(Debug, Error)]
enum Failure {
    #[error("{input}: {error}")]
    Read { input: String, error: io::Error },
    #[error("{input}: longer than {MAX_INPUT_BYTES} bytes")]
    TooLong { input: String },
    #[error("{input}: {error}")] // The JSON error names line and column.
    Malformed { input: String, error: serde_json::Error },
    #[error("{found} books, allowed are {MAX_BOOKS}")]
    TooManyBooks { found: usize },
    #[error("output: {0}")]
    Write(io::Error),
    #[error("a picture shows one book, not an array of them")]
    PlotArray,
    #[error(transparent)]
    Plot(#[from] plot::PlotError),
    #[error("{path}: {error}")]
    PlotWrite { path: String, error: io::Error },
}

impl Failure {
    fn reason(&self) -> Reason {
        match self {
            // A reader that has seen enough is no failure.
            Self::Write(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                reason!("cli.broken_pipe")
            }
            Self::Read { .. } => reason!("match.unreadable"),
            Self::TooLong { .. } => reason!("match.input_too_long"),
            Self::Malformed { .. } => reason!("match.malformed_json"),
            Self::TooManyBooks { .. } => reason!("match.too_many_books"),
            Self::Write(_) => reason!("match.unwritable"),
            Self::PlotArray => reason!("match.plot_array"),
            Self::Plot(error) => error.reason(),
            Self::PlotWrite { .. } => reason!("match.plot_unwritable"),
        }
    }

    /// One line in the form of every other command: text or, with `json`, the API's body.
    fn line(&self, json: bool) -> String {
        let (reason, message) = (self.reason(), self.to_string());
        if json {
            let (code, hint) = (reason.code().to_owned(), reason.hint().map(str::to_owned));
            let body = ErrorBody::new(code, message, hint);
            return sanitise::json(&json!(body).to_string());
        }
        let hint = reason.hint().map(|hint| format!("\n  hint: {hint}")).unwrap_or_default();
        format!("error[{reason}]: {}{hint}", sanitise::line(&message))
    }
}

/// Matches the book, or the array of books, in the file `input` (`-` for standard input),
/// by the rules of `algorithm`, else by those that the book names, else by version 1.
///
/// Writes exactly one JSON value to `out`: the result, or an array of results in the order
/// of the books, with `{"error":{"code","message"}}` in the place of a refused book. A
/// failure of the command itself leaves `out` empty and goes to `err`, as text or, with
/// `json`, as the error object of the API.
///
/// Returns the exit code: 0 if all books were matched or the reader closed the pipe, 6 if one
/// was refused or the input is not JSON, 2 if the input cannot be read or the output not
/// written.
pub fn run(
    input: &str,
    algorithm: Option<Algorithm>,
    json: bool,
    stdin: &mut dyn Read,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    run_and_plot(input, algorithm, None, json, stdin, out, err)
}

/// As [`run`], and draws a picture of the book.
///
/// A refused book leaves no picture; an array of books is refused, as is one in which there
/// is nothing to draw, with exit code 6. A picture that cannot be written is exit code 2.
pub fn run_and_plot(
    input: &str,
    algorithm: Option<Algorithm>,
    plot: Option<&Plot>,
    json: bool,
    stdin: &mut dyn Read,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    match read(input, stdin).and_then(|value| match_all(&value, algorithm, plot, out)) {
        Ok(exit_code) => exit_code,
        Err(failure) => {
            let exit = failure.reason().exit();
            if exit != Exit::Ok {
                // Nowhere is left to report that even this could not be written.
                let _ = writeln!(err, "{}", failure.line(json));
            }
            exit as u8
        }
    }
}

fn read(input: &str, stdin: &mut dyn Read) -> Result<Value, Failure> {
    let unreadable = |error| Failure::Read { input: input.to_owned(), error };
    let source: Box<dyn Read + '_> = match input {
        "-" => Box::new(stdin),
        path => Box::new(File::open(path).map_err(unreadable)?),
    };
    let mut bytes = Vec::new();
    source.take(MAX_INPUT_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_INPUT_BYTES {
        return Err(Failure::TooLong { input: input.to_owned() });
    }
    serde_json::from_slice(&bytes)
        .map_err(|error| Failure::Malformed { input: input.to_owned(), error })
}

fn match_all(
    value: &Value,
    algorithm: Option<Algorithm>,
    plot: Option<&Plot>,
    out: &mut dyn Write,
) -> Result<u8, Failure> {
    let (text, refused) = match value {
        Value::Array(_) if plot.is_some() => return Err(Failure::PlotArray),
        Value::Array(books) if books.len() > MAX_BOOKS => {
            return Err(Failure::TooManyBooks { found: books.len() });
        }
        Value::Array(books) => {
            let answers: Vec<Answer> =
                books.iter().map(|book| answer(solve(book, algorithm))).collect();
            let refused = answers.iter().any(|answer| matches!(answer, Answer::Refused(_)));
            (serde_json::to_string(&answers), refused)
        }
        book => {
            let solved = solve(book, algorithm);
            if let (Some(plot), Ok((instance, outcome))) = (plot, &solved) {
                draw(instance, outcome, plot)?;
            }
            let answer = answer(solved);
            (serde_json::to_string(&answer), matches!(answer, Answer::Refused(_)))
        }
    };
    let text = text.map_err(|error| Failure::Write(error.into()))?;
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(Failure::Write)?;
    Ok(if refused { Exit::Rejected as u8 } else { Exit::Ok as u8 })
}

/// Writes the picture before the result is printed: who reads the result may open it.
fn draw(instance: &Instance, outcome: &Outcome, plot: &Plot) -> Result<(), Failure> {
    let picture = plot::svg(instance, outcome, plot)?;
    std::fs::write(&plot.path, picture)
        .map_err(|error| Failure::PlotWrite { path: plot.path.display().to_string(), error })
}

fn solve(book: &Value, algorithm: Option<Algorithm>) -> Result<(Instance, Outcome), form::Refusal> {
    let (instance, named) = form::book(book)?;
    let outcome = matching::solve(&instance, algorithm.or(named).unwrap_or(Algorithm::One))?;
    Ok((instance, outcome))
}

fn answer(solved: Result<(Instance, Outcome), form::Refusal>) -> Answer {
    match solved {
        Ok((_, outcome)) => Answer::Matched(outcome),
        Err(refusal) => Answer::Refused(error_value(refusal.code(), &refusal.to_string())),
    }
}

fn error_value(code: &str, message: &str) -> Value {
    json!({"error": {"code": code, "message": message}})
}

/// What is printed for one book. Written field by field, not as a [`Value`], because the
/// welfare may exceed what a [`Value`] holds, and to keep slots in numeric order.
enum Answer {
    Matched(Outcome),
    Refused(Value),
}

impl Serialize for Answer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let outcome = match self {
            Self::Matched(outcome) => outcome,
            Self::Refused(error) => return error.serialize(serializer),
        };
        let trades: Vec<TradeJson<'_>> = outcome.trades.iter().map(TradeJson).collect();
        let mut result = serializer.serialize_struct("Outcome", 3)?;
        result.serialize_field("welfare_msat", &outcome.welfare_msat)?;
        result.serialize_field("prices", &PricesJson(outcome))?;
        result.serialize_field("trades", &trades)?;
        result.end()
    }
}

struct PricesJson<'a>(&'a Outcome);

impl Serialize for PricesJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.prices.len()))?;
        for ((class, slot), price_msat) in &self.0.prices {
            map.serialize_entry(&format!("{class}/{slot}"), price_msat)?;
        }
        map.end()
    }
}

struct TradeJson<'a>(&'a matching::Trade);

impl Serialize for TradeJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut trade = serializer.serialize_struct("Trade", 8)?;
        trade.serialize_field("class", &self.0.class)?;
        trade.serialize_field("start", &self.0.start)?;
        trade.serialize_field("hours", &self.0.hours)?;
        trade.serialize_field("buy", &self.0.buy)?;
        trade.serialize_field("sell", &self.0.sell)?;
        trade.serialize_field("qty", &self.0.qty)?;
        trade.serialize_field("msat", &self.0.msat)?;
        trade.serialize_field("sat", &self.0.sat)?;
        trade.end()
    }
}
