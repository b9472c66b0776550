//! A look at the database's write-ahead log before the database opens it.
//!
//! SQLite ends its reading of that file at the first frame that is not whole, and says nothing. For a record that was
//! being written when the power went that is right; for damage in the middle it would silently forget what follows.
//! The file's layout is that of "The WAL File Format" in SQLite's documentation.

use std::{io, path::Path};

const HEADER_BYTES: usize = 32;
const FRAME_HEADER_BYTES: usize = 24;
/// The magic number but for its last bit, which says that checksums read the file's words as big-endian.
const MAGIC: u32 = 0x377f_0682;

/// What is wrong with a write-ahead log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The last transaction was not written to its end; it never happened.
    Torn {
        /// Where it begins, bytes.
        offset: usize,
        /// How much of it there is.
        bytes: usize,
    },
    /// Something in the middle is not as it was written.
    Damaged {
        /// Where, bytes.
        offset: usize,
    },
}

/// Reads a write-ahead log, if there is one.
pub(super) fn inspect(file: &Path) -> io::Result<Option<Trouble>> {
    match fs_err::read(file) {
        Ok(log) => Ok(trouble(&log)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn trouble(log: &[u8]) -> Option<Trouble> {
    if log.is_empty() {
        return None;
    }
    let Some(header) = Header::read(log) else {
        // A header is shorter than a sector: it is written whole or not at all, and frames come after it.
        let frames = log.len() > HEADER_BYTES;
        return Some(if frames {
            Trouble::Damaged { offset: 0 }
        } else {
            Trouble::Torn { offset: 0, bytes: log.len() }
        });
    };
    let mut sum = header.sum;
    let mut committed = HEADER_BYTES;
    let mut offset = HEADER_BYTES;
    while let Some(frame) = header.frame(log, offset) {
        let Some(next) = frame.follows(header.big_endian, sum) else { break };
        (sum, offset) = (next, offset + header.frame_bytes());
        if frame.is_commit() {
            committed = offset;
        }
    }
    header.judge_rest(log, offset, committed)
}

struct Header {
    big_endian: bool,
    page_bytes: usize,
    salts: [u8; 8],
    sum: (u32, u32),
}

impl Header {
    fn read(log: &[u8]) -> Option<Self> {
        let header = log.get(..HEADER_BYTES)?;
        let magic = word(header, 0);
        let big_endian = magic & 1 == 1;
        let page_bytes = word(header, 8) as usize;
        let sum = checksum(big_endian, (0, 0), &header[..24]);
        let is_whole = magic & !1 == MAGIC && page_bytes > 0 && sum == (word(header, 24), word(header, 28));
        let salts = header[16..24].try_into().ok()?;
        is_whole.then_some(Self { big_endian, page_bytes, salts, sum })
    }

    fn frame_bytes(&self) -> usize {
        FRAME_HEADER_BYTES + self.page_bytes
    }

    /// The frame at an offset, if it is of this log and not of one that was in the file before, and not cut off.
    fn frame<'a>(&self, log: &'a [u8], offset: usize) -> Option<Frame<'a>> {
        let frame = Frame(log.get(offset..offset + self.frame_bytes())?);
        (frame.0[8..16] == self.salts).then_some(frame)
    }

    /// What it means that reading ended at `offset`, where the last whole transaction ended at `committed`. Only the
    /// last transaction can be torn: every earlier one was on disk before the next was begun.
    fn judge_rest(&self, log: &[u8], offset: usize, committed: usize) -> Option<Trouble> {
        let (mut commits, mut end) = (0, offset);
        for start in (offset..log.len()).step_by(self.frame_bytes()) {
            if let Some(frame) = self.frame(log, start) {
                if commits > 0 {
                    return Some(Trouble::Damaged { offset });
                }
                commits += usize::from(frame.is_commit());
                end = start + self.frame_bytes();
            } else if start + self.frame_bytes() > log.len() {
                end = log.len();
            }
        }
        (end > committed).then(|| Trouble::Torn { offset: committed, bytes: end - committed })
    }
}

struct Frame<'a>(&'a [u8]);

impl Frame<'_> {
    /// The checksum after this frame, if it is the one that the frame says.
    fn follows(&self, big_endian: bool, before: (u32, u32)) -> Option<(u32, u32)> {
        let sum = checksum(big_endian, before, &self.0[..8]);
        let sum = checksum(big_endian, sum, &self.0[FRAME_HEADER_BYTES..]);
        (sum == (word(self.0, 16), word(self.0, 20))).then_some(sum)
    }

    fn is_commit(&self) -> bool {
        word(self.0, 4) != 0
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|word| word.try_into().ok()).map_or(0, u32::from_be_bytes)
}

fn checksum(big_endian: bool, before: (u32, u32), bytes: &[u8]) -> (u32, u32) {
    let read = |at| if big_endian { word(bytes, at) } else { word(bytes, at).swap_bytes() };
    (0..bytes.len()).step_by(8).fold(before, |(first, second), at| {
        let first = first.wrapping_add(read(at)).wrapping_add(second);
        (first, second.wrapping_add(read(at + 4)).wrapping_add(first))
    })
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;

    /// The log of a database with so many transactions, of one or two pages each.
    fn log_of(transactions: usize) -> Vec<u8> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("database");
        let database = Connection::open(&file).unwrap();
        database.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (text TEXT);").unwrap();
        for number in 0..transactions {
            database.execute("INSERT INTO t VALUES (?1)", ["x".repeat(900 + number)]).unwrap();
        }
        fs_err::read(directory.path().join("database-wal")).unwrap()
    }

    fn frame_ends(log: &[u8]) -> Vec<usize> {
        let frame_bytes = Header::read(log).unwrap().frame_bytes();
        (HEADER_BYTES..=log.len()).step_by(frame_bytes).collect()
    }

    #[test]
    fn a_whole_log_has_no_trouble() {
        assert_eq!(trouble(&log_of(20)), None);
        assert_eq!(trouble(&[]), None);
    }

    #[test]
    fn wherever_it_is_cut_only_the_last_transaction_is_torn() {
        let log = log_of(6);
        let commits: Vec<usize> =
            frame_ends(&log).windows(2).filter(|frame| word(&log, frame[0] + 4) != 0).map(|frame| frame[1]).collect();
        for end in (1..log.len()).step_by(13).chain(frame_ends(&log)) {
            let committed = commits.iter().copied().filter(|commit| *commit <= end).max();
            let expected = match committed.unwrap_or(if end < HEADER_BYTES { 0 } else { HEADER_BYTES }) {
                whole if whole == end => None,
                offset => Some(Trouble::Torn { offset, bytes: end - offset }),
            };
            assert_eq!(trouble(&log[..end]), expected, "cut at {end}");
        }
    }

    #[test]
    fn a_changed_byte_is_found() {
        let log = log_of(6);
        let last = frame_ends(&log)[frame_ends(&log).len() - 2];
        for at in (0..log.len()).step_by(61) {
            let mut changed = log.clone();
            changed[at] ^= 0x10;
            match trouble(&changed) {
                Some(Trouble::Damaged { offset }) => assert!(offset <= at, "changed at {at}"),
                // What was written last may not have been written whole.
                Some(Trouble::Torn { .. }) | None => assert!(at >= last || (8..16).contains(&at), "changed at {at}"),
            }
        }
    }

    #[test]
    fn frames_of_an_earlier_log_in_the_same_file_are_no_trouble() {
        let mut log = log_of(6);
        let second = log_of(2);
        log[..second.len()].copy_from_slice(&second);
        assert_eq!(trouble(&log), None);
    }
}
