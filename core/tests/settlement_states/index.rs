//! Hashing for a search of millions of small states, most of whose time it would be otherwise.

use std::hash::{BuildHasherDefault, Hasher};

/// The number of no state.
const EMPTY: u32 = u32::MAX;

/// Mixes whole words (the finalizer of SplitMix64).
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Mixer(u64);

pub(crate) type Mixing = BuildHasherDefault<Mixer>;

impl Hasher for Mixer {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, word: u64) {
        let mut z = (self.0.rotate_left(5) ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        self.0 = z ^ (z >> 31);
    }
}

/// Numbers of states that are kept elsewhere, found by their hash: half of a map's memory.
pub(crate) struct Index {
    slots: Vec<u32>,
    used: usize,
}

impl Index {
    pub(crate) fn new() -> Self {
        Self { slots: vec![EMPTY; 1 << 10], used: 0 }
    }

    /// The number of a state with this hash for which `is` holds; else `next` is noted.
    pub(crate) fn number(
        &mut self,
        hash: u64,
        next: u32,
        is: impl Fn(u32) -> bool,
        hash_of: impl Fn(u32) -> u64,
    ) -> u32 {
        if self.used * 2 >= self.slots.len() {
            self.grow(hash_of);
        }
        let slot = self.slot(hash, is);
        if self.slots[slot] == EMPTY {
            self.slots[slot] = next;
            self.used += 1;
        }
        self.slots[slot]
    }

    fn slot(&self, hash: u64, is: impl Fn(u32) -> bool) -> usize {
        let last = self.slots.len() - 1;
        let mut slot = usize::try_from(hash & last as u64).unwrap();
        while self.slots[slot] != EMPTY && !is(self.slots[slot]) {
            slot = (slot + 1) & last;
        }
        slot
    }

    fn grow(&mut self, hash_of: impl Fn(u32) -> u64) {
        let slots = vec![EMPTY; self.slots.len() * 2];
        let former = std::mem::replace(&mut self.slots, slots);
        for number in former.into_iter().filter(|number| *number != EMPTY) {
            let slot = self.slot(hash_of(number), |_| false);
            self.slots[slot] = number;
        }
    }
}
