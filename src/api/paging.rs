//! Lists in pages, the same way for every noun: newest first, `?before=PLACE&limit=N`.
//!
//! The place of an item is a number that orders it and its id, as `871234567-00ff…`; the id may
//! be left out. An answer that goes on names the place of its last item in the header
//! `capex-before`: the next page begins after it. Items that come or go meanwhile shift
//! nothing, since a place is not a count.

use std::cmp::Reverse;
use std::fmt;
use std::str::FromStr;

use axum::Json;
use axum::extract::FromRequestParts;
use axum::http::{HeaderName, request::Parts};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use super::error::ApiError;
use super::extract::Params;
use capex_core::ids::{from_hex, to_hex};
use capex_core::reason;

/// Header of an answer that goes on: the place before which the next page begins.
pub const BEFORE_HEADER: HeaderName = HeaderName::from_static("capex-before");
/// Items of a page that says nothing else: some screens.
pub const PAGE_DEFAULT: usize = 100;
/// Most items of a page: a megabyte of trades, and some milliseconds of the event loop for what
/// it has in memory.
pub const PAGE_MAX: usize = 1_000;

/// Where an item stands in its list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// What the list is ordered by: an epoch, a slot, or unix ms.
    pub number: u64,
    /// Id of the item; zero where the number names it.
    pub id: [u8; 32],
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.id {
            [0, ..] if self.id == [0; 32] => write!(f, "{}", self.number),
            id => write!(f, "{}-{}", self.number, to_hex(&id)),
        }
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "a place is NUMBER or NUMBER-ID, as an earlier page named it".to_owned();
        let (number, id) = text.split_once('-').unwrap_or((text, ""));
        let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        let number = number.parse().ok().filter(|_| is_number).ok_or_else(wrong)?;
        let id = match id {
            "" if !text.contains('-') => [0; 32],
            id => from_hex(id).and_then(|id| id.try_into().ok()).ok_or_else(wrong)?,
        };
        Ok(Self { number, id })
    }
}

/// What part of a list is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// Only items with lower places.
    pub before: Option<Place>,
    /// 1 to [`PAGE_MAX`].
    pub limit: usize,
}

impl Default for Page {
    fn default() -> Self {
        Self { before: None, limit: PAGE_DEFAULT }
    }
}

impl Page {
    /// Whether an item is before where the page begins.
    #[must_use]
    pub fn takes(&self, place: Place) -> bool {
        self.before.is_none_or(|before| place < before)
    }

    /// The page of a list that is at hand, in any order. Items of one place, which are two sides
    /// of one thing, are not torn apart.
    pub fn cut<T>(&self, items: impl IntoIterator<Item = (Place, T)>) -> Listed<T> {
        let taken = items.into_iter().filter(|(place, _)| self.takes(*place));
        let mut taken: Vec<(Place, T)> = taken.collect();
        taken.sort_by_key(|(place, _)| Reverse(*place));
        let places: Vec<Place> = taken.iter().map(|(place, _)| *place).collect();
        let mut end = places.len().min(self.limit);
        while end > 0 && places.get(end) == places.get(end - 1) {
            end += 1;
        }
        let before = places.get(end).and_then(|_| places.get(end - 1)).copied();
        Listed { items: taken.into_iter().take(end).map(|(_, item)| item).collect(), before }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    before: Option<String>,
    limit: Option<usize>,
}

impl<S: Send + Sync> FromRequestParts<S> for Page {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Params(Asked { before, limit }) = Params::from_request_parts(parts, state).await?;
        let refuse = |what: String| ApiError::new(reason!("api.query"), what);
        let before = before
            .map(|text| text.parse().map_err(|error| refuse(format!("`before`: {error}"))))
            .transpose()?;
        let limit = limit.unwrap_or(PAGE_DEFAULT);
        if !(1..=PAGE_MAX).contains(&limit) {
            return Err(refuse(format!("`limit` is 1 to {PAGE_MAX}")));
        }
        Ok(Self { before, limit })
    }
}

/// A page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed<T> {
    /// Newest first.
    pub items: Vec<T>,
    /// Where the next page begins; `None` at the end of the list.
    pub before: Option<Place>,
}

impl<T> Listed<T> {
    /// The same places with other items.
    pub fn map<U>(self, write: impl FnMut(T) -> U) -> Listed<U> {
        Listed { items: self.items.into_iter().map(write).collect(), before: self.before }
    }
}

impl<T: Serialize> IntoResponse for Listed<T> {
    fn into_response(self) -> Response {
        let before = self.before.map(|place| [(BEFORE_HEADER, place.to_string())]);
        (before, Json(self.items)).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(number: u64, id: u8) -> Place {
        Place { number, id: [id; 32] }
    }

    #[test]
    fn a_place_is_a_number_with_or_without_an_id() {
        for good in [place(0, 0), place(7, 0), place(u64::MAX, 0xff)] {
            assert_eq!(good.to_string().parse(), Ok(good));
        }
        let long = format!("7-{}", "0".repeat(65));
        for bad in ["", "-", "7-", "+7", " 7", "x", "7-ff", "18446744073709551616", long.as_str()] {
            assert!(bad.parse::<Place>().is_err(), "{bad}");
        }
    }

    #[test]
    fn pages_cover_a_list_once_whatever_their_length() {
        let all: Vec<Place> = (0..20).map(|n| place(n / 3, n as u8)).collect();
        for limit in 1..25 {
            let (mut page, mut seen) = (Page { before: None, limit }, Vec::new());
            loop {
                let found = page.cut(all.iter().map(|place| (*place, *place)));
                assert!(found.items.len() <= limit);
                seen.extend(found.items);
                page.before = found.before;
                if page.before.is_none() {
                    break;
                }
            }
            assert!(seen.iter().rev().eq(&all), "{limit}");
        }
        let nothing = Page::default().cut(Vec::<(Place, ())>::new());
        assert_eq!(nothing, Listed { items: Vec::new(), before: None });
    }

    #[test]
    fn two_sides_of_one_thing_are_on_one_page() {
        let both = [(place(1, 1), "buy"), (place(1, 1), "sell"), (place(0, 1), "other")];
        let found = Page { before: None, limit: 1 }.cut(both);
        assert_eq!((found.items, found.before), (vec!["buy", "sell"], Some(place(1, 1))));
    }
}
