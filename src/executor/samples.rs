//! The example workloads as components, and what they are expected to print.

/// Adds up the numbers of `input.txt`; see [`wordsum::expected`].
pub const WORDSUM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/wordsum.wasm"));
/// Never yields and never ends.
pub const BUSY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/busy.wasm"));
/// Grows until memory is refused, then traps.
pub const MEMORY_HOG: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/memory_hog.wasm"));
/// Traps at once.
pub const TRAP: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/trap.wasm"));
/// Ends with exit code 3.
pub const EXIT3: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/exit3.wasm"));
/// Prints a line each 10 ms, without end.
pub const CHATTY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/chatty.wasm"));
/// Fills its working directory with many files.
pub const FILLER: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/filler.wasm"));
/// Appends to one file without end.
pub const FLOOD: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/flood.wasm"));
/// Looks for anything it was not given.
pub const ESCAPE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/escape.wasm"));

/// Measures processor and memory; see `executor::score`.
pub const SCORE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/score.wasm"));
/// Ends with 0 if its environment is `TOKEN=correct-horse`, else with 1; prints nothing of it.
pub const TOKEN: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/token.wasm"));

/// What [`WORDSUM`] is expected to print and to leave in `result.txt`.
pub mod wordsum {
    /// `count=<n> sum=<s>\n` over the unsigned decimal integers of the input: maximal
    /// runs of the digits 0-9, every other byte separating. Arithmetic wraps at 2^64.
    #[must_use]
    pub fn expected(input: &[u8]) -> String {
        let numbers = input.split(|byte| !byte.is_ascii_digit()).filter(|run| !run.is_empty());
        let (count, sum) = numbers.fold((0u64, 0u64), |(count, sum), run| {
            (count.wrapping_add(1), sum.wrapping_add(value(run)))
        });
        format!("count={count} sum={sum}\n")
    }

    fn value(digits: &[u8]) -> u64 {
        digits
            .iter()
            .fold(0u64, |value, digit| value.wrapping_mul(10).wrapping_add(u64::from(digit - b'0')))
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn sums_are_as_computed_by_hand() {
            for (input, line) in [
                ("", "count=0 sum=0\n"),
                ("1 2 3", "count=3 sum=6\n"),
                ("\n10,20\t-5\n", "count=3 sum=35\n"),
                ("18446744073709551615 2", "count=2 sum=1\n"),
            ] {
                assert_eq!(expected(input.as_bytes()), line, "{input}");
            }
        }
    }
}
