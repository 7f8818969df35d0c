//! The file from which a devchain server rebuilds its chain after a restart.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;

use bitcoin::consensus::encode::{deserialize, serialize};
use bitcoin::hashes::Hash;
use bitcoin::{Block, BlockHash};

/// Largest record: a block of full weight is at most 4 MB.
const MAX_RECORD_BYTES: u32 = 4_100_000;

/// Bytes before each payload: kind, length, checksum.
const HEADER_BYTES: usize = 9;

/// One change of the chain, in the order in which they happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Record {
    Block(Block),
    /// `invalidateblock`.
    Invalidate(BlockHash),
    /// `reconsiderblock`.
    Reconsider(BlockHash),
}

/// An append-only file of [`Record`]s, each `kind u8 ‖ length u32 ‖ crc32c u32 ‖ payload`,
/// little-endian. It survives the end of the process; it is not synced for power loss,
/// because nothing on a devchain is worth the wait.
#[derive(Debug)]
pub(super) struct Journal {
    file: File,
}

impl Journal {
    /// Opens or creates the file and hands every whole record to `each`. A torn or damaged
    /// end is cut off.
    ///
    /// # Errors
    /// Of the file system.
    pub(super) fn open(path: &Path, mut each: impl FnMut(Record)) -> io::Result<Self> {
        let file =
            OpenOptions::new().read(true).append(true).create(true).truncate(false).open(path)?;
        let mut reader = BufReader::new(&file);
        let mut good_bytes = 0u64;
        while let Some((record, bytes)) = read_record(&mut reader)? {
            good_bytes += bytes;
            each(record);
        }
        drop(reader);
        file.set_len(good_bytes)?;
        let mut file = file;
        file.seek(SeekFrom::End(0))?;
        Ok(Self { file })
    }

    /// Appends records in one write.
    ///
    /// # Errors
    /// Of the file system.
    pub(super) fn append(&mut self, records: &[Record]) -> io::Result<()> {
        let mut bytes = Vec::new();
        for record in records {
            let (kind, payload) = match record {
                Record::Block(block) => (b'b', serialize(block)),
                Record::Invalidate(hash) => (b'i', hash.to_byte_array().to_vec()),
                Record::Reconsider(hash) => (b'r', hash.to_byte_array().to_vec()),
            };
            bytes.push(kind);
            bytes.extend((payload.len() as u32).to_le_bytes());
            bytes.extend(checksum(kind, &payload).to_le_bytes());
            bytes.extend(payload);
        }
        self.file.write_all(&bytes)
    }
}

fn checksum(kind: u8, payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&[kind]), payload)
}

/// The next record and its length in the file; `None` at the end or at the first damage.
fn read_record(reader: &mut impl Read) -> io::Result<Option<(Record, u64)>> {
    let mut header = [0u8; HEADER_BYTES];
    if !fill(reader, &mut header)? {
        return Ok(None);
    }
    let [kind, l0, l1, l2, l3, c0, c1, c2, c3] = header;
    let length = u32::from_le_bytes([l0, l1, l2, l3]);
    if length > MAX_RECORD_BYTES {
        return Ok(None);
    }
    let mut payload = vec![0u8; length as usize];
    if !fill(reader, &mut payload)? {
        return Ok(None);
    }
    if checksum(kind, &payload) != u32::from_le_bytes([c0, c1, c2, c3]) {
        return Ok(None);
    }
    let record = match kind {
        b'b' => deserialize(&payload).ok().map(Record::Block),
        b'i' => BlockHash::from_slice(&payload).ok().map(Record::Invalidate),
        b'r' => BlockHash::from_slice(&payload).ok().map(Record::Reconsider),
        _ => None,
    };
    Ok(record.map(|record| (record, HEADER_BYTES as u64 + u64::from(length))))
}

/// Whether `buffer` could be filled before the file ended.
fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match reader.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_end_is_cut_off_and_what_was_whole_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("blocks.dat");
        let records = [
            Record::Block(bitcoin::constants::genesis_block(bitcoin::Network::Regtest)),
            Record::Invalidate(BlockHash::all_zeros()),
        ];
        Journal::open(&path, |_| ()).unwrap().append(&records).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for keep in 0..=whole.len() {
            std::fs::write(&path, &whole[..keep]).unwrap();
            let mut read = Vec::new();
            let mut journal = Journal::open(&path, |record| read.push(record)).unwrap();
            let expected = match keep {
                k if k == whole.len() => 2,
                k if k >= whole.len() - 41 => 1,
                _ => 0,
            };
            assert_eq!(read, records[..expected], "{keep} bytes");
            journal.append(&[Record::Reconsider(BlockHash::all_zeros())]).unwrap();
            let mut read = 0;
            Journal::open(&path, |_| read += 1).unwrap();
            assert_eq!(read, expected + 1);
        }
    }
}
