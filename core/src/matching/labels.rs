//! Labels as numbers, so that everything after the border compares integers alone.

/// Labels replaced by ranks: the order of ranks is the order of the labels' bytes.
pub(super) struct Ranks<'a> {
    labels: Vec<&'a str>,
    /// Rank of each label, by position. Equal labels share a rank.
    rank_of: Vec<u32>,
    /// Position of the first label of each rank, and how the label begins.
    first_of: Vec<u32>,
    prefix_of: Vec<u64>,
}

impl<'a> Ranks<'a> {
    /// Ranks `labels`, at most 2^32 of them.
    pub(super) fn new(labels: Vec<&'a str>) -> Self {
        let mut keyed: Vec<(u64, u32)> =
            labels.iter().zip(0..).map(|(label, at)| (prefix(label), at)).collect();
        keyed.sort_unstable();
        let text = |at: u32| labels[at as usize];
        for alike in keyed.chunk_by_mut(|a, b| a.0 == b.0).filter(|alike| alike.len() > 1) {
            alike.sort_by(|a, b| text(a.1).cmp(text(b.1)));
        }
        let mut rank_of = vec![0; labels.len()];
        let mut first_of: Vec<u32> = Vec::with_capacity(labels.len());
        let mut prefix_of = Vec::with_capacity(labels.len());
        let mut last = None;
        for (prefix, at) in keyed {
            if last.is_none_or(|(p, first)| p != prefix || text(first) != text(at)) {
                first_of.push(at);
                prefix_of.push(prefix);
                last = Some((prefix, at));
            }
            rank_of[at as usize] = first_of.len() as u32 - 1;
        }
        Self { labels, rank_of, first_of, prefix_of }
    }

    /// The rank of the label at this position.
    pub(super) fn at(&self, position: usize) -> u32 {
        self.rank_of[position]
    }

    /// The positions of distinct labels, ascending by label; the first of equal ones.
    pub(super) fn ascending(&self) -> impl ExactSizeIterator<Item = usize> {
        self.first_of.iter().map(|&at| at as usize)
    }

    /// The label of this rank.
    pub(super) fn label(&self, rank: u32) -> &'a str {
        self.labels[self.first_of[rank as usize] as usize]
    }

    /// The position of a label, of the first among equal ones.
    pub(super) fn find(&self, label: &str) -> Option<usize> {
        let wanted = prefix(label);
        let start = self.prefix_of.partition_point(|&prefix| prefix < wanted);
        let alike = self.prefix_of[start..].partition_point(|&prefix| prefix == wanted);
        let alike = &self.first_of[start..start + alike];
        let found = alike.binary_search_by_key(&label, |&at| self.labels[at as usize]);
        found.ok().map(|at| alike[at] as usize)
    }

    /// The position of a label that stands at several, the lowest such label's.
    pub(super) fn repeated(&self) -> Option<usize> {
        if self.first_of.len() == self.labels.len() {
            return None;
        }
        let is_first = |at: usize| self.first_of[self.rank_of[at] as usize] as usize == at;
        (0..self.labels.len()).filter(|&at| !is_first(at)).min_by_key(|&at| self.rank_of[at])
    }
}

/// The first eight bytes: labels whose prefixes differ sort like these.
pub(super) fn prefix(label: &str) -> u64 {
    let mut bytes = [0; 8];
    let length = label.len().min(8);
    bytes[..length].copy_from_slice(&label.as_bytes()[..length]);
    u64::from_be_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_order_labels_by_their_bytes() {
        let labels = ["same-prefix-b", "é", "a", "same-prefix-a", "a\0", "a", ""];
        let ranks = Ranks::new(labels.to_vec());
        let found: Vec<u32> = (0..labels.len()).map(|at| ranks.at(at)).collect();
        assert_eq!(found, [4, 5, 1, 3, 2, 1, 0]);
        assert_eq!(ranks.ascending().collect::<Vec<_>>(), [6, 2, 4, 3, 0, 1]);
        assert_eq!(ranks.label(3), "same-prefix-a");
        assert_eq!((ranks.find("a\0"), ranks.find("b")), (Some(4), None));
        assert_eq!(ranks.repeated(), Some(5));
        assert_eq!(Ranks::new(vec!["b", "a"]).repeated(), None);
    }
}
