//! Ids by a unique prefix of at least eight digits.

use super::error::{ApiError, Noun};
use capex_core::reason;

/// Shortest prefix of an id: long enough that a typing error finds nothing.
pub const PREFIX_MIN_DIGITS: usize = 8;
/// Digits of a whole id.
const ID_DIGITS: usize = 64;

/// Eight to 64 lower-case hex digits.
///
/// Comparable with ids by [`Prefix::matches`] and [`Prefix::find`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix(String);

impl Prefix {
    /// Checks the form.
    ///
    /// # Errors
    /// `id.syntax` with status 400.
    pub fn parse(text: &str) -> Result<Self, ApiError> {
        let hex = text.bytes().all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c));
        if hex && (PREFIX_MIN_DIGITS..=ID_DIGITS).contains(&text.len()) {
            return Ok(Self(text.to_owned()));
        }
        Err(ApiError::new(reason!("id.syntax"), "expected 8 to 64 lower-case hex digits"))
    }

    /// The digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether an id begins with these digits.
    #[must_use]
    pub fn matches(&self, id: &[u8; 32]) -> bool {
        let digit = |at: usize| (id[at / 2] >> (4 * (1 - at % 2))) & 15;
        let same =
            |(at, text): (usize, u8)| char::from(text).to_digit(16) == Some(digit(at).into());
        self.0.bytes().enumerate().all(same)
    }

    /// The lowest id that begins with these digits.
    #[must_use]
    pub fn lowest(&self) -> [u8; 32] {
        let mut id = [0; 32];
        for (at, text) in self.0.bytes().enumerate() {
            let digit = char::from(text).to_digit(16).map_or(0, |digit| digit as u8);
            id[at / 2] |= digit << (4 * (1 - at % 2));
        }
        id
    }

    /// The one item whose id begins with these digits; `noun` names its kind in errors.
    ///
    /// # Errors
    /// `<noun>.not_found` or `<noun>.ambiguous`.
    pub fn find<T>(
        &self,
        noun: Noun,
        items: impl IntoIterator<Item = T>,
        id: impl Fn(&T) -> [u8; 32],
    ) -> Result<T, ApiError> {
        self.find_by(noun, items, |item| self.matches(&id(item)))
    }

    /// The one item that these digits mean, where it may have several ids.
    ///
    /// # Errors
    /// As [`Prefix::find`].
    pub fn find_by<T>(
        &self,
        noun: Noun,
        items: impl IntoIterator<Item = T>,
        is_meant: impl Fn(&T) -> bool,
    ) -> Result<T, ApiError> {
        let mut found = items.into_iter().filter(is_meant);
        let first = found.next().ok_or_else(|| ApiError::not_found(noun, &self.0))?;
        match found.next() {
            None => Ok(first),
            Some(_) => Err(ApiError::ambiguous(noun, &self.0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use capex_core::ids::to_hex;

    #[test]
    fn prefixes_are_eight_to_sixty_four_digits() {
        for good in ["00000000", "deadbeef01", &"a".repeat(64)] {
            assert!(Prefix::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "0000000", "DEADBEEF", "../../etc", &"a".repeat(65)] {
            assert_eq!(Prefix::parse(bad).unwrap_err().code, "id.syntax", "{bad}");
        }
    }

    #[test]
    fn the_lowest_id_of_a_prefix_begins_with_it() {
        for text in ["00000000", "deadbeef0", "ffffffff12"] {
            let prefix = Prefix::parse(text).unwrap();
            let lowest = prefix.lowest();
            assert_eq!(to_hex(&lowest), format!("{text:0<64}"));
            assert!(prefix.matches(&lowest), "{text}");
        }
    }

    #[test]
    fn a_prefix_finds_one_item_or_says_why_not() {
        let mut a = [0xaa; 32];
        let b = [0xaa; 32];
        a[31] = 0;
        let find = |text: &str| {
            let prefix = Prefix::parse(text).unwrap();
            prefix.find(Noun::Order, [a, b], |id| *id).map_err(|error| error.code)
        };
        assert_eq!(find("aaaaaaaa"), Err("order.ambiguous".to_owned()));
        assert_eq!(find("bbbbbbbb"), Err("order.not_found".to_owned()));
        assert_eq!(find(&to_hex(&a)), Ok(a));
    }

    #[test]
    fn an_item_with_two_ids_is_found_by_either_and_counts_once() {
        let items = [[[0xaa; 32], [0xab; 32]], [[0xbb; 32], [0xaa; 32]]];
        let find = |text: &str| {
            let prefix = Prefix::parse(text).unwrap();
            let is_meant = |ids: &[[u8; 32]; 2]| ids.iter().any(|id| prefix.matches(id));
            prefix.find_by(Noun::Order, items, is_meant).map_err(|error| error.code)
        };
        assert_eq!(find("abababab"), Ok(items[0]));
        assert_eq!(find("bbbbbbbb"), Ok(items[1]));
        assert_eq!(find("aaaaaaaa"), Err("order.ambiguous".to_owned()), "the id of two");
    }
}
