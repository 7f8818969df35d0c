//! The bytes of a batch of records.

use capex_core::engine::Record;

/// Largest encoded record that [`Store::persist`](super::Store::persist) takes, with its frame,
/// in bytes: twice what the engine may put into one. A batch may have any number of records.
pub const MAX_FRAME_BYTES: usize = 8 << 20;

/// Key and value of one live record of a known table.
pub type Row = (Vec<u8>, Vec<u8>);

/// A record that sets `key` of `table` to `value`. The meaning of all three belongs to the owner
/// of the table; keys are compared as bytes, so integers in keys are big-endian.
pub fn upsert(table: u8, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Record {
    Record { table, key: key.into(), value: Some(value.into()) }
}

/// A record that deletes `key` of `table`.
pub fn erase(table: u8, key: impl Into<Vec<u8>>) -> Record {
    Record { table, key: key.into(), value: None }
}

/// What a batch takes beside its records, in bytes.
pub(super) const BATCH_HEAD_BYTES: usize = 4;

/// What a record takes in a batch, in bytes.
pub(super) fn encoded_len(record: &Record) -> usize {
    10 + record.key.len() + record.value.as_ref().map_or(0, Vec::len)
}

/// The table's byte, then the key: one ordered key space for all tables.
pub(super) fn full_key(table: u8, key: &[u8]) -> Vec<u8> {
    let mut full = Vec::with_capacity(1 + key.len());
    full.push(table);
    full.extend_from_slice(key);
    full
}

/// Cuts a batch into stretches for one frame each: of about `part_bytes`, with at least one
/// record. An empty batch has none.
pub(super) fn split(records: &[Record], part_bytes: usize) -> impl Iterator<Item = &[Record]> {
    let mut rest = records;
    std::iter::from_fn(move || {
        let mut bytes = 4;
        let fits = rest.iter().take_while(|record| {
            bytes += encoded_len(record);
            bytes <= part_bytes
        });
        let (part, later) = rest.split_at_checked(fits.count().max(1))?;
        rest = later;
        Some(part)
    })
}

/// `count u32`, then per record `table u8 | key_len u32 | key | tag u8 | value_len u32 | value`,
/// all big-endian. `None` when they are longer than [`MAX_FRAME_BYTES`].
pub(super) fn encode_batch(records: &[Record]) -> Option<Vec<u8>> {
    let len = records.iter().try_fold(4usize, |sum, r| sum.checked_add(encoded_len(r)))?;
    if len > MAX_FRAME_BYTES {
        return None;
    }
    let mut out = Vec::with_capacity(len);
    out.extend_from_slice(&u32::try_from(records.len()).ok()?.to_be_bytes());
    for record in records {
        out.push(record.table);
        put_bytes(&mut out, &record.key)?;
        out.push(u8::from(record.value.is_some()));
        put_bytes(&mut out, record.value.as_deref().unwrap_or_default())?;
    }
    Some(out)
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) -> Option<()> {
    out.extend_from_slice(&u32::try_from(bytes.len()).ok()?.to_be_bytes());
    out.extend_from_slice(bytes);
    Some(())
}

/// A record in the bytes of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slice<'a> {
    pub(super) table: u8,
    pub(super) key: &'a [u8],
    /// Value, and where in the batch it begins.
    pub(super) value: Option<(usize, &'a [u8])>,
}

/// Reverse of [`encode_batch`]; `None` unless the bytes are exactly one batch.
pub(super) fn decode_batch(bytes: &[u8]) -> Option<Vec<Slice<'_>>> {
    let mut rest = bytes;
    let count = take_u32(&mut rest)?;
    let mut slices = Vec::new();
    for _ in 0..count {
        let table = take(&mut rest, 1)?[0];
        let key_len = take_u32(&mut rest)?;
        let key = take(&mut rest, key_len)?;
        let tag = take(&mut rest, 1)?[0];
        let value_len = take_u32(&mut rest)?;
        let offset = bytes.len() - rest.len();
        let value = take(&mut rest, value_len)?;
        let value = match tag {
            0 if value.is_empty() => None,
            1 => Some((offset, value)),
            _ => return None,
        };
        slices.push(Slice { table, key, value });
    }
    rest.is_empty().then_some(slices)
}

fn take<'a>(bytes: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (head, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(head)
}

fn take_u32(bytes: &mut &[u8]) -> Option<usize> {
    let raw: [u8; 4] = take(bytes, 4)?.try_into().ok()?;
    usize::try_from(u32::from_be_bytes(raw)).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_record() -> impl Strategy<Value = Record> {
        let bytes = || prop::collection::vec(any::<u8>(), 0..40);
        (any::<u8>(), bytes(), prop::option::of(bytes())).prop_map(|(table, key, value)| Record {
            table,
            key,
            value,
        })
    }

    fn owned(slice: &Slice<'_>) -> Record {
        let value = slice.value.map(|(_, value)| value.to_vec());
        Record { table: slice.table, key: slice.key.to_vec(), value }
    }

    proptest! {
        #[test]
        fn a_batch_survives_the_round_trip(records in prop::collection::vec(any_record(), 0..20)) {
            let bytes = encode_batch(&records).unwrap();
            let decoded = decode_batch(&bytes).unwrap();
            for slice in &decoded {
                if let Some((offset, value)) = slice.value {
                    prop_assert_eq!(&bytes[offset..offset + value.len()], value);
                }
            }
            let decoded: Vec<Record> = decoded.iter().map(owned).collect();
            prop_assert_eq!(decoded, records);
        }

        #[test]
        fn any_bytes_decode_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode_batch(&bytes);
        }

        #[test]
        fn a_shortened_batch_is_refused(records in prop::collection::vec(any_record(), 1..5)) {
            let bytes = encode_batch(&records).unwrap();
            for len in 0..bytes.len() {
                prop_assert_eq!(decode_batch(&bytes[..len]), None);
            }
        }
    }

    #[test]
    fn a_record_over_the_bound_is_refused() {
        let overhead = 4 + 10 + 1;
        let largest = upsert(1, "k", vec![0; MAX_FRAME_BYTES - overhead]);
        assert_eq!(encode_batch(&[largest]).map(|bytes| bytes.len()), Some(MAX_FRAME_BYTES));
        let larger = upsert(1, "k", vec![0; MAX_FRAME_BYTES - overhead + 1]);
        assert_eq!(encode_batch(&[larger]), None);
    }

    #[test]
    fn a_batch_is_cut_where_a_frame_is_full() {
        // 15 bytes each, and 4 for all.
        let records: Vec<Record> = (0..5).map(|n| upsert(1, [n], [0; 4])).collect();
        let cut = |bytes| split(&records, bytes).map(<[Record]>::len).collect::<Vec<_>>();
        assert_eq!(cut(usize::MAX), [5]);
        assert_eq!(cut(4 + 5 * 15), [5]);
        assert_eq!(cut(4 + 5 * 15 - 1), [4, 1]);
        assert_eq!(cut(4 + 2 * 15), [2, 2, 1]);
        assert_eq!(cut(0), [1, 1, 1, 1, 1]);
        assert_eq!(split(&[], 100).count(), 0);
        assert_eq!(split(&records, 40).flatten().cloned().collect::<Vec<_>>(), records);
    }
}
