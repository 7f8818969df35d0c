//! Sorting by integers, digit by digit: of many items a few passes in place of comparisons.

/// Bits of a digit: its counters fit into the innermost cache.
const DIGIT_BITS: u32 = 11;
const DIGITS: usize = 1 << DIGIT_BITS;
/// With fewer items the counters cost more than comparisons.
const FEW: usize = 512;

/// Sorts by a key; what has equal keys stays as it is. At most 2^32 items.
pub(super) fn sort_by_key<T: Copy>(items: &mut Vec<T>, key: impl Fn(&T) -> u64) {
    if items.len() < FEW {
        return items.sort_by_key(key);
    }
    let either = |(all, any): (u64, u64), key: u64| (all & key, any | key);
    let (all, any) = items.iter().map(&key).fold((u64::MAX, 0), either);
    // Bits in which all keys agree need no pass.
    let differing = all ^ any;
    let mut shift = differing.trailing_zeros();
    let mut sorted = items.clone();
    while shift < u64::BITS && differing >> shift != 0 {
        let digit = |item: &T| (key(item) >> shift) as usize % DIGITS;
        let mut next = [0_u32; DIGITS];
        items.iter().for_each(|item| next[digit(item)] += 1);
        let mut before = 0;
        for next in &mut next {
            before += std::mem::replace(next, before);
        }
        for item in items.iter() {
            let next = &mut next[digit(item)];
            sorted[*next as usize] = *item;
            *next += 1;
        }
        std::mem::swap(items, &mut sorted);
        shift += DIGIT_BITS;
        let rest = differing.checked_shr(shift).unwrap_or(0);
        shift = shift.saturating_add(rest.trailing_zeros() % u64::BITS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_sorts_as_comparisons_do_and_keeps_equals_in_order() {
        let masks = [0, 1, u64::MAX, 0xff << 56, 1 << 63 | 1, 0x3_ffff << 20, 0x7ff << 11];
        for mask in masks {
            for count in [0, 1, FEW - 1, FEW, 3_000] {
                let mut state = 7_u64;
                let mut draw = || {
                    state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                    state ^ state >> 29
                };
                let items: Vec<(u64, usize)> =
                    (0..count).map(|at| (draw() & mask | !mask & 0x1234, at)).collect();
                let (mut found, mut expected) = (items.clone(), items);
                sort_by_key(&mut found, |item| item.0);
                expected.sort_by_key(|item| item.0);
                assert_eq!(found, expected, "{count} keys of {mask:x}");
            }
        }
    }
}
