//! Reading a journal: which state its files add up to. Changes nothing.

use std::fs;

use super::error::StoreError;
use super::index::Merged;
use super::layout::{Layout, Numbered};
use super::places::{Changes, Live, Place, Values};
use super::record::{decode_batch, full_key};
use super::schema::Meta;
use super::segment::{FRAME_HEAD_BYTES, Frame, FrameReader, Frames, Kind};

/// A last frame that an interrupted write left unfinished.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Torn {
    /// Bytes of the file that count; zero when even its header is unfinished.
    pub(super) keep_bytes: u64,
    pub(super) torn_bytes: u64,
}

/// The state that a journal adds up to, cut in two at a sequence number.
#[derive(Debug, Default)]
pub(super) struct Replay {
    /// The files, to read values from.
    pub(super) values: Values,
    /// State after the batch where the cut is.
    pub(super) base: Live,
    /// What later batches change.
    pub(super) pending: Changes,
    /// Number of the snapshot, zero without one.
    pub(super) snapshot_seq: u64,
    pub(super) last_seq: u64,
    /// Bytes of all files that count.
    pub(super) total_bytes: u64,
    /// Bytes of the last segment.
    pub(super) active_bytes: u64,
    /// The unfinished end of the last segment.
    pub(super) torn: Option<Torn>,
    /// Records of a batch whose last frame has not come yet.
    unfinished: Vec<(Vec<u8>, Option<Place>)>,
}

impl Replay {
    /// Reads every file of `layout`; batches after `cut_seq` go to [`Replay::pending`].
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] with file and offset when an acknowledged byte is damaged or a
    /// file is missing; wrong network and newer schema as [`Meta::admit`] says.
    pub(super) fn read(layout: &Layout, meta: &Meta, cut_seq: u64) -> Result<Self, StoreError> {
        let mut replay = Self::default();
        if let Some(snapshot) = &layout.snapshot {
            replay.read_snapshot(snapshot, meta)?;
        }
        for (i, segment) in layout.segments.iter().enumerate() {
            let is_last = i + 1 == layout.segments.len();
            replay.read_segment(segment, meta, is_last, cut_seq)?;
        }
        Ok(replay)
    }

    /// Moves what is pending into the base, which is then the state after the last batch.
    pub(super) fn settle(&mut self) {
        for (key, place) in std::mem::take(&mut self.pending) {
            match place {
                Some(place) => self.base.insert(key, place),
                None => self.base.remove(&key),
            };
        }
    }

    /// What is pending, with its values.
    pub(super) fn pending_values(&mut self) -> Result<Merged, StoreError> {
        let Self { pending, values, .. } = self;
        let mut read = |place: &Option<Place>| place.map(|place| values.read(&place)).transpose();
        pending.iter().map(|(key, place)| Ok((key.clone(), read(place)?))).collect()
    }

    /// Keys and values of the base, in key order.
    pub(super) fn entries(&mut self) -> impl Iterator<Item = Result<(&[u8], Vec<u8>), StoreError>> {
        let Self { base, values, .. } = self;
        base.iter().map(|(key, place)| Ok((key.as_slice(), values.read(place)?)))
    }

    fn read_snapshot(&mut self, file: &Numbered, meta: &Meta) -> Result<(), StoreError> {
        let number = self.values.add(file.path.clone());
        let mut frames = FrameReader::open(&file.path)?;
        let corrupt = |at, what| StoreError::corrupt(&file.path, at, what);
        let header = frames.next()?.filter(|f| f.kind == Kind::Header && f.seq == file.seq);
        meta.admit(&file.path, header.ok_or_else(|| corrupt(0, "a header"))?.payload)?;
        let mut end = None;
        while end.is_none() {
            let at = frames.offset();
            match frames.next()? {
                Some(Frame { kind: Kind::Part, payload, .. }) => {
                    let slices = decode_batch(payload).ok_or_else(|| corrupt(at, "records"))?;
                    for slice in slices {
                        let (offset, value) = slice.value.unwrap_or_default();
                        let offset = (at + FRAME_HEAD_BYTES + offset) as u64;
                        let place = Values::place(number, offset, value);
                        self.base.insert(full_key(slice.table, slice.key), place);
                    }
                }
                Some(Frame { kind: Kind::End, payload, .. }) => end = Some(payload.to_vec()),
                _ => return Err(corrupt(at, "a part of the snapshot")),
            }
        }
        let count = (self.base.len() as u64).to_be_bytes();
        if !frames.at_end() || end.as_deref() != Some(&count[..]) {
            return Err(corrupt(frames.offset(), "the end of the snapshot"));
        }
        self.snapshot_seq = file.seq;
        self.last_seq = file.seq;
        self.total_bytes += frames.offset() as u64;
        Ok(())
    }

    fn read_segment(
        &mut self,
        file: &Numbered,
        meta: &Meta,
        is_last: bool,
        cut_seq: u64,
    ) -> Result<(), StoreError> {
        if file.seq != self.last_seq + 1 {
            return Err(StoreError::corrupt(&file.path, 0, "the segment before it"));
        }
        let bytes = fs::read(&file.path).map_err(|e| StoreError::io("read", &file.path, e))?;
        let number = self.values.add(file.path.clone());
        let mut frames = Frames::new(&bytes);
        match frames.next() {
            Some(f) if f.kind == Kind::Header && f.seq == file.seq => {
                meta.admit(&file.path, f.payload)?;
            }
            Some(_) => return Err(StoreError::corrupt(&file.path, 0, "a header")),
            None => return self.stopped(file, &frames, &bytes, 0, is_last),
        }
        let (mut at, mut whole) = (frames.offset(), frames.offset());
        while let Some(frame) = frames.next() {
            self.take_frame(frame, number, at, cut_seq)
                .ok_or_else(|| StoreError::corrupt(&file.path, at, "the next batch"))?;
            at = frames.offset();
            if frame.kind == Kind::Batch {
                whole = at;
            }
        }
        self.unfinished.clear();
        self.stopped(file, &frames, &bytes, whole, is_last)
    }

    /// Judges the place where the walk through a segment stopped; what is `whole` before it
    /// counts.
    fn stopped(
        &mut self,
        file: &Numbered,
        frames: &Frames<'_>,
        bytes: &[u8],
        whole: usize,
        is_last: bool,
    ) -> Result<(), StoreError> {
        let keep_bytes = whole as u64;
        if whole < bytes.len() || keep_bytes == 0 {
            // Without a header the segment's first batch is not expected yet.
            let expected_seq = self.last_seq + u64::from(keep_bytes > 0);
            if !is_last || frames.later_frame_follows(expected_seq) {
                return Err(StoreError::corrupt(&file.path, frames.offset(), "a sound frame"));
            }
            let torn_bytes = bytes.len() as u64 - keep_bytes;
            self.torn = Some(Torn { keep_bytes, torn_bytes });
        }
        self.total_bytes += keep_bytes;
        self.active_bytes = keep_bytes;
        Ok(())
    }

    fn take_frame(&mut self, frame: Frame<'_>, file: u32, at: usize, cut_seq: u64) -> Option<()> {
        if !matches!(frame.kind, Kind::Batch | Kind::More) || frame.seq != self.last_seq + 1 {
            return None;
        }
        for slice in decode_batch(frame.payload)? {
            let place = slice.value.map(|(offset, value)| {
                Values::place(file, (at + FRAME_HEAD_BYTES + offset) as u64, value)
            });
            self.unfinished.push((full_key(slice.table, slice.key), place));
        }
        if frame.kind == Kind::Batch {
            self.last_seq = frame.seq;
            for (key, place) in std::mem::take(&mut self.unfinished) {
                self.take_change(key, place, frame.seq > cut_seq);
            }
        }
        Some(())
    }

    fn take_change(&mut self, key: Vec<u8>, place: Option<Place>, is_pending: bool) {
        match place {
            place if is_pending => {
                self.pending.insert(key, place);
            }
            Some(place) => {
                self.base.insert(key, place);
            }
            None => {
                self.base.remove(&key);
            }
        }
    }
}
