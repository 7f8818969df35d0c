//! `--limit` and `--before` of every list.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::failure::Failure;
use super::{Context, output};
use crate::api::{PAGE_DEFAULT, PAGE_MAX, Place};

/// Which part of a list.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Page {
    /// Most lines, 1 to 1000
    #[arg(long, value_name = "N", default_value_t = PAGE_DEFAULT as u64,
          value_parser = clap::value_parser!(u64).range(1..=PAGE_MAX as u64))]
    pub limit: u64,
    /// Go on from this place of an earlier list, which that list names at its end
    #[arg(long, value_name = "PLACE")]
    pub before: Option<Place>,
}

impl Page {
    /// As parameters of a request.
    #[must_use]
    pub fn query(&self) -> String {
        let before = self.before.map(|place| format!("&before={place}")).unwrap_or_default();
        format!("limit={}{before}", self.limit)
    }
}

/// Shows one part of the list at `path` and, at its end, how `command` goes on.
///
/// # Errors
/// What the daemon refused.
pub(super) fn show_list<T: DeserializeOwned + Serialize>(
    context: &mut Context<'_>,
    path: &str,
    command: &str,
    page: &Page,
    rows: impl FnOnce(&[T], &mut output::Page),
) -> Result<(), Failure> {
    let (items, before): (Vec<T>, _) = context.client()?.list(path, page)?;
    context.show(&items, |items, shown| {
        rows(items, shown);
        if let Some(before) = before {
            shown.line(format_args!("more: capex {command} --before {before}"));
        }
    })
}
