//! Names of orders and parties, and their ranks, so that passes compare integers alone.

use std::cmp::Ordering;
use std::fmt;
use std::sync::OnceLock;

use sha2::{Digest, Sha256};

use crate::ids::{hex_digits, write_hex};

/// Bytes of a label that its prefix holds.
const PREFIX_BYTES: usize = 8;

/// The name of an order or a party: 32 bytes of the wire, which stand for their text in
/// lower-case hex, or any text. Texts compare by their bytes; those of ids compare as the ids.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Label<'a> {
    Id([u8; 32]),
    Text(&'a str),
}

impl Label<'_> {
    /// The first eight bytes of the text: labels whose prefixes differ sort like these.
    pub(super) fn prefix(&self) -> u64 {
        let mut first = [0; PREFIX_BYTES];
        match self {
            Self::Id(id) => write_hex(id, &mut first),
            Self::Text(text) => {
                let length = text.len().min(PREFIX_BYTES);
                first[..length].copy_from_slice(&text.as_bytes()[..length]);
            }
        }
        u64::from_be_bytes(first)
    }

    /// SHA-256 of `parts` and the text.
    pub(super) fn hash_after(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update(part);
        }
        match self {
            Self::Id(id) => hash.update(hex_digits(id)),
            Self::Text(text) => hash.update(text),
        }
        hash.finalize().into()
    }
}

impl Ord for Label<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Id(a), Self::Id(b)) => a.cmp(b),
            (Self::Text(a), Self::Text(b)) => a.cmp(b),
            (Self::Id(a), Self::Text(b)) => hex_digits(a).as_slice().cmp(b.as_bytes()),
            (Self::Text(a), Self::Id(b)) => a.as_bytes().cmp(hex_digits(b).as_slice()),
        }
    }
}

impl PartialOrd for Label<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Label<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Label<'_> {}

impl fmt::Display for Label<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => {
                hex_digits(id).iter().try_for_each(|&digit| write!(f, "{}", char::from(digit)))
            }
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// Labels replaced by ranks: the order of ranks is the order of the labels' bytes.
pub(super) struct Ranks<'a> {
    labels: Vec<Label<'a>>,
    /// `None` if the labels came strictly ascending, so that the position is the rank.
    sorted: Option<Sorted>,
    /// By rank; made when the first label is looked up.
    prefixes: OnceLock<Vec<u64>>,
}

struct Sorted {
    /// Rank of each label, by position. Equal labels share a rank.
    rank_of: Vec<u32>,
    /// Position of the first label of each rank.
    first_of: Vec<u32>,
}

impl<'a> Ranks<'a> {
    /// Ranks `labels`, at most 2^32 of them.
    pub(super) fn new(labels: Vec<Label<'a>>) -> Self {
        let ascends = labels.windows(2).all(|pair| pair[0] < pair[1]);
        let sorted = (!ascends).then(|| Sorted::new(&labels));
        Self { labels, sorted, prefixes: OnceLock::new() }
    }

    /// The rank of the label at this position.
    pub(super) fn at(&self, position: usize) -> u32 {
        self.sorted.as_ref().map_or(position as u32, |sorted| sorted.rank_of[position])
    }

    /// How many distinct labels there are.
    pub(super) fn len(&self) -> usize {
        self.sorted.as_ref().map_or(self.labels.len(), |sorted| sorted.first_of.len())
    }

    /// The position of the label of this rank, of the first among equal ones.
    pub(super) fn position(&self, rank: u32) -> usize {
        let first_of = self.sorted.as_ref().map(|sorted| &sorted.first_of);
        first_of.map_or(rank, |first_of| first_of[rank as usize]) as usize
    }

    /// The label of this rank.
    pub(super) fn label(&self, rank: u32) -> Label<'a> {
        self.labels[self.position(rank)]
    }

    /// The position of a label, of the first among equal ones.
    pub(super) fn find(&self, label: Label<'_>) -> Option<usize> {
        let by_rank = || (0..self.len() as u32).map(|rank| self.label(rank).prefix()).collect();
        let prefixes: &Vec<u64> = self.prefixes.get_or_init(by_rank);
        let wanted = label.prefix();
        let first = prefixes.partition_point(|&prefix| prefix < wanted);
        let alike = prefixes[first..].partition_point(|&prefix| prefix == wanted);
        let (mut low, mut high) = (first as u32, (first + alike) as u32);
        while low < high {
            let middle = low.midpoint(high);
            match self.label(middle).cmp(&label) {
                Ordering::Less => low = middle + 1,
                Ordering::Equal => return Some(self.position(middle)),
                Ordering::Greater => high = middle,
            }
        }
        None
    }

    /// The position of a label that stands at several, the lowest such label's.
    pub(super) fn repeated(&self) -> Option<usize> {
        if self.len() == self.labels.len() {
            return None;
        }
        let is_first = |at: usize| self.position(self.at(at)) == at;
        (0..self.labels.len()).filter(|&at| !is_first(at)).min_by_key(|&at| self.at(at))
    }
}

impl Sorted {
    fn new(labels: &[Label<'_>]) -> Self {
        let mut keyed: Vec<(u64, u32)> =
            labels.iter().zip(0..).map(|(label, at)| (label.prefix(), at)).collect();
        keyed.sort_unstable();
        let label = |at: u32| &labels[at as usize];
        for alike in keyed.chunk_by_mut(|a, b| a.0 == b.0).filter(|alike| alike.len() > 1) {
            alike.sort_by(|a, b| label(a.1).cmp(label(b.1)));
        }
        let mut rank_of = vec![0; labels.len()];
        let mut first_of: Vec<u32> = Vec::with_capacity(labels.len());
        let mut last = None;
        for (prefix, at) in keyed {
            if last.is_none_or(|(p, first)| p != prefix || label(first) != label(at)) {
                first_of.push(at);
                last = Some((prefix, at));
            }
            rank_of[at as usize] = first_of.len() as u32 - 1;
        }
        Self { rank_of, first_of }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts<'a>(labels: &[&'a str]) -> Ranks<'a> {
        Ranks::new(labels.iter().map(|label| Label::Text(label)).collect())
    }

    #[test]
    fn ranks_order_labels_by_their_bytes() {
        let labels = ["same-prefix-b", "é", "a", "same-prefix-a", "a\0", "a", ""];
        let ranks = texts(&labels);
        let found: Vec<u32> = (0..labels.len()).map(|at| ranks.at(at)).collect();
        assert_eq!(found, [4, 5, 1, 3, 2, 1, 0]);
        assert_eq!(ranks.len(), 6);
        assert_eq!(ranks.label(3), Label::Text("same-prefix-a"));
        let find = |text| ranks.find(Label::Text(text));
        assert_eq!((find("a\0"), find("a"), find("b")), (Some(4), Some(2), None));
        assert_eq!(ranks.repeated(), Some(5));
        assert_eq!(texts(&["b", "a"]).repeated(), None);
    }

    #[test]
    fn labels_that_ascend_are_their_own_ranks() {
        let ranks = texts(&["", "a", "b"]);
        assert_eq!((ranks.at(2), ranks.len(), ranks.repeated()), (2, 3, None));
        assert_eq!((ranks.find(Label::Text("b")), ranks.find(Label::Text("c"))), (Some(2), None));
        assert_eq!(texts(&["a", "a"]).repeated(), Some(1));
    }

    #[test]
    fn an_id_stands_for_its_text() {
        let (low, high) = ([0x09; 32], [0x0a; 32]);
        let (low_text, high_text) = ("09".repeat(32), "0a".repeat(32));
        let (low_id, high_id) = (Label::Id(low), Label::Id(high));
        for (id, text) in [(low_id, &low_text), (high_id, &high_text)] {
            let label = Label::Text(text);
            assert_eq!(id, label);
            assert_eq!(id.to_string(), *text);
            assert_eq!(id.prefix(), label.prefix());
            assert_eq!(id.hash_after(&[b"draw"]), label.hash_after(&[b"draw"]));
        }
        let ascending = [low_id, Label::Text(&high_text)];
        assert!(ascending[0] < ascending[1] && Label::Text(&low_text) < high_id);
        assert!(high_id < Label::Text("quote") && Label::Text("0a") < high_id);
        assert!(low_id.prefix() < high_id.prefix());
    }
}
