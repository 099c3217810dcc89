//! A ring of records in shared memory.
//!
//! Each record stands behind its length in a ring of bytes, so no size has to be guessed. The
//! ring is written and read under a lock of the caller's, and changed in an order that leaves it
//! whole if the process is killed at any point: first the oldest records are given up, then the
//! bytes written, then the end moved.

use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of a record's length.
const LENGTH: usize = size_of::<u32>();

/// Where the ring's records are. Zeros are an empty ring.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Ring {
    /// Where the oldest record begins and where the next will, counted from the ring's first
    /// use: positions only grow, and their remainder by the ring's size is the place.
    oldest: AtomicU64,
    next: AtomicU64,
}

impl Ring {
    /// Puts a record into the ring, over the oldest ones. False if it is larger than the ring.
    pub fn push(&self, ring: &mut [u8], record: &[u8]) -> bool {
        let (Ok(length), capacity) = (u32::try_from(record.len()), ring.len() as u64) else {
            return false;
        };
        let need = u64::from(length).saturating_add(LENGTH as u64);
        if need > capacity {
            return false;
        }
        let next = self.next.load(Ordering::Relaxed);
        let mut oldest = self.oldest.load(Ordering::Relaxed);
        if next.saturating_sub(oldest) > capacity {
            oldest = next;
        }
        while next.saturating_sub(oldest).saturating_add(need) > capacity {
            let Some(size) = size_at(ring, oldest, next) else {
                // Never seen; if it were, a ring begun anew is better than one misread for ever.
                oldest = next;
                break;
            };
            oldest = oldest.saturating_add(size);
        }
        self.oldest.store(oldest, Ordering::Release);
        write_length(ring, next, length.to_ne_bytes());
        write(ring, next.saturating_add(LENGTH as u64), record);
        self.next.store(next.saturating_add(need), Ordering::Release);
        true
    }

    /// Copies the part in use, oldest byte first, to be taken apart by [`records`] outside the
    /// lock. Nothing is allocated if `copy` has room for the whole ring.
    pub fn copy(&self, ring: &[u8], copy: &mut Vec<u8>) {
        let oldest = self.oldest.load(Ordering::Acquire);
        let used = self.next.load(Ordering::Acquire).saturating_sub(oldest);
        let used = usize::try_from(used).unwrap_or(0).min(ring.len());
        let (place, first) = place(ring.len(), oldest, used);
        copy.extend_from_slice(ring.get(place..place.saturating_add(first)).unwrap_or_default());
        copy.extend_from_slice(ring.get(..used.saturating_sub(first)).unwrap_or_default());
    }
}

/// Takes a copy of the ring apart: the records, newest first.
pub fn records(copy: &[u8]) -> Vec<&[u8]> {
    let mut records = Vec::new();
    let mut rest = copy;
    while let Some((length, behind)) = rest.split_first_chunk::<LENGTH>() {
        let length = u32::from_ne_bytes(*length) as usize;
        let Some((record, behind)) = behind.split_at_checked(length) else { break };
        records.push(record);
        rest = behind;
    }
    records.reverse();
    records
}

fn size_at(ring: &[u8], at: u64, end: u64) -> Option<u64> {
    let length = read_length(ring, at);
    let size = u64::from(u32::from_ne_bytes(length)).saturating_add(LENGTH as u64);
    // Both bounds: positions that are nonsense must end in None, not in a long walk.
    (size <= ring.len() as u64 && at.saturating_add(size) <= end).then_some(size)
}

/// The place of a position, and how many of `len` bytes lie there before the ring's end; the
/// others lie at its start.
fn place(capacity: usize, at: u64, len: usize) -> (usize, usize) {
    let place = at.checked_rem(capacity as u64).and_then(|place| usize::try_from(place).ok());
    let place = place.unwrap_or(0);
    (place, len.min(capacity.saturating_sub(place)))
}

/// Most lengths are not cut by the ring's end.
fn write_length(ring: &mut [u8], at: u64, length: [u8; LENGTH]) {
    let (place, _) = place(ring.len(), at, LENGTH);
    match ring.get_mut(place..).and_then(|rest| rest.first_chunk_mut()) {
        Some(whole) => *whole = length,
        None => write(ring, at, &length),
    }
}

fn read_length(ring: &[u8], at: u64) -> [u8; LENGTH] {
    let (place, _) = place(ring.len(), at, LENGTH);
    let whole = ring.get(place..).and_then(|rest| rest.first_chunk());
    whole.copied().unwrap_or_else(|| {
        let mut length = [0; LENGTH];
        read(ring, at, &mut length);
        length
    })
}

fn write(ring: &mut [u8], at: u64, bytes: &[u8]) {
    let (place, first) = place(ring.len(), at, bytes.len());
    let (head, tail) = bytes.split_at(first);
    if let Some(target) = ring.get_mut(place..place.saturating_add(head.len())) {
        target.copy_from_slice(head);
    }
    if let Some(target) = ring.get_mut(..tail.len()).filter(|target| !target.is_empty()) {
        target.copy_from_slice(tail);
    }
}

fn read(ring: &[u8], at: u64, bytes: &mut [u8]) {
    let (place, first) = place(ring.len(), at, bytes.len());
    let (head, tail) = bytes.split_at_mut(first);
    if let Some(source) = ring.get(place..place.saturating_add(head.len())) {
        head.copy_from_slice(source);
    }
    if let Some(source) = ring.get(..tail.len()) {
        tail.copy_from_slice(source);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(ring: &Ring, bytes: &[u8]) -> Vec<String> {
        let mut copy = Vec::new();
        ring.copy(bytes, &mut copy);
        let text = |record: &&[u8]| String::from_utf8_lossy(record).into_owned();
        records(&copy).iter().map(text).collect()
    }

    #[test]
    fn the_newest_records_are_kept_whole_at_every_offset() {
        let (ring, mut bytes) = (Ring::default(), vec![0xAA; 101]);
        let mut kept = std::collections::VecDeque::new();
        for n in 0..1_000_usize {
            let record = format!("{n}{}", "x".repeat(n * 7 % 40));
            assert!(ring.push(&mut bytes, record.as_bytes()));
            kept.push_front(record);
            while kept.iter().map(|r| r.len() + LENGTH).sum::<usize>() > bytes.len() {
                kept.pop_back();
            }
            assert_eq!(read_all(&ring, &bytes), Vec::from(kept.clone()));
        }
    }

    #[test]
    fn what_does_not_fit_changes_nothing() {
        let (ring, mut bytes) = (Ring::default(), vec![0; 20]);
        assert!(ring.push(&mut bytes, b"kept"));
        assert!(!ring.push(&mut bytes, &[b'x'; 17]));
        assert_eq!(read_all(&ring, &bytes), ["kept"]);
        assert!(ring.push(&mut bytes, &[b'x'; 16]));
        assert_eq!(read_all(&ring, &bytes), ["x".repeat(16)]);
        assert!(!Ring::default().push(&mut [], b""));
    }

    /// A process killed between giving up the oldest and moving the end leaves fewer records,
    /// not broken ones.
    #[test]
    fn a_writer_killed_half_way_leaves_a_whole_ring() {
        let (ring, mut bytes) = (Ring::default(), vec![0; 64]);
        for n in 0..10 {
            ring.push(&mut bytes, format!("record {n}").as_bytes());
        }
        let end = ring.next.load(Ordering::Relaxed);
        ring.push(&mut bytes, b"interrupted");
        ring.next.store(end, Ordering::Relaxed);
        let left = read_all(&ring, &bytes);
        assert!(!left.is_empty() && left.iter().all(|record| record.starts_with("record ")));
        ring.push(&mut bytes, b"next");
        assert_eq!(read_all(&ring, &bytes)[0], "next");
    }

    /// Memory that holds nonsense ends in fewer records, never in a loop or a panic.
    #[test]
    fn nonsense_is_survived() {
        for (filler, next) in [(0xFF, u64::MAX), (0, u64::MAX), (0xFF, 0), (0, 1 << 40)] {
            let ring = Ring { oldest: 3.into(), next: next.into() };
            let mut bytes = vec![filler; 32];
            let _ = read_all(&ring, &bytes);
            ring.push(&mut bytes, b"x");
            let _ = read_all(&ring, &bytes);
        }
    }
}
