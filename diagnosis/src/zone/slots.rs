//! What is kept of a peer and of an upstream.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use super::histogram::{CONNECT, HEADER, Histogram};
use super::table::{Label, Slot};
use crate::cause::Cause;
use crate::outcome::Outcome;
use crate::seconds::Seconds;
use crate::status::{History, TakenOut};

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempted {
    /// With a response.
    Ok,
    /// With a failure.
    Failed(Cause),
    /// The client did not wait for it.
    Aborted,
}

/// A peer. Times are milliseconds of nginx's monotonic clock (`ngx_current_msec`), which all
/// processes of a host share; 0 is never.
#[derive(Debug)]
#[repr(C)]
pub struct PeerSlot {
    label: Label,
    ok: AtomicU64,
    failed: AtomicU64,
    aborted: AtomicU64,
    last_ok: AtomicU64,
    last_failed: AtomicU64,
    taken_out: AtomicU64,
    /// Wrapping, as 45 of them for each peer are most of its memory.
    causes: [AtomicU32; Cause::ALL.len()],
    last_cause: AtomicU32,
    consecutive: AtomicU32,
    taken_out_by: AtomicU32,
}

impl Default for PeerSlot {
    fn default() -> PeerSlot {
        PeerSlot {
            label: Label::default(),
            ok: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            aborted: AtomicU64::new(0),
            last_ok: AtomicU64::new(0),
            last_failed: AtomicU64::new(0),
            taken_out: AtomicU64::new(0),
            causes: [const { AtomicU32::new(0) }; _],
            last_cause: AtomicU32::new(0),
            consecutive: AtomicU32::new(0),
            taken_out_by: AtomicU32::new(0),
        }
    }
}

impl Slot for PeerSlot {
    fn label(&self) -> &Label {
        &self.label
    }

    fn clear(&self) {
        let long = [
            &self.ok,
            &self.failed,
            &self.aborted,
            &self.last_ok,
            &self.last_failed,
            &self.taken_out,
        ];
        long.iter().for_each(|value| value.store(0, Relaxed));
        let short = [&self.last_cause, &self.consecutive, &self.taken_out_by];
        self.causes.iter().chain(short).for_each(|value| value.store(0, Relaxed));
    }
}

impl PeerSlot {
    /// Counts an attempt.
    #[inline]
    pub fn count(&self, attempted: Attempted, now: u64) {
        match attempted {
            Attempted::Ok => {
                self.ok.fetch_add(1, Relaxed);
                self.last_ok.store(now.max(1), Relaxed);
                if self.consecutive.load(Relaxed) != 0 {
                    self.consecutive.store(0, Relaxed);
                }
            }
            Attempted::Aborted => {
                self.aborted.fetch_add(1, Relaxed);
            }
            Attempted::Failed(cause) => {
                self.failed.fetch_add(1, Relaxed);
                self.consecutive.fetch_add(1, Relaxed);
                self.last_failed.store(now.max(1), Relaxed);
                self.last_cause.store(number(cause), Relaxed);
                if let Some(count) = self.causes.get(cause.index()) {
                    count.fetch_add(1, Relaxed);
                }
            }
        }
    }

    /// Notes that after a failure nginx does not choose the peer any more, for `fail_timeout`
    /// seconds. While it is out already, requests that were under way only make that longer.
    pub fn took_out(&self, cause: Cause, fail_timeout: u64, now: u64) {
        let before = self.taken_out.load(Relaxed);
        let is_over = before.saturating_add(fail_timeout.saturating_mul(1_000)) < now;
        if before == 0 || is_over {
            self.taken_out_by.store(number(cause), Relaxed);
            self.taken_out.store(now.max(1), Relaxed);
        }
    }

    /// Everything that is known of it. What took it out counts only while it is out, which nginx
    /// knows.
    pub fn history(&self, now: u64) -> History {
        History {
            ok: self.ok.load(Relaxed),
            failed: self.failed.load(Relaxed),
            aborted: self.aborted.load(Relaxed),
            causes: self.causes.iter().map(|count| count.load(Relaxed).into()).collect(),
            last_ok: ago(&self.last_ok, now),
            last_failed: ago(&self.last_failed, now),
            last_cause: cause(&self.last_cause),
            consecutive_failures: self.consecutive.load(Relaxed).into(),
            taken_out: ago(&self.taken_out, now)
                .zip(cause(&self.taken_out_by))
                .map(|(ago, cause)| TakenOut { cause, ago }),
        }
    }

    /// When it was last used, or added.
    pub(super) fn last_used(&self) -> u64 {
        let times = [self.last_ok.load(Relaxed), self.last_failed.load(Relaxed)];
        times.into_iter().fold(self.label.since(), u64::max)
    }
}

/// Causes are kept as numbers from 1, so that zeros are none.
fn number(cause: Cause) -> u32 {
    u32::try_from(cause.index()).unwrap_or(0).saturating_add(1)
}

fn cause(number: &AtomicU32) -> Option<Cause> {
    let at = number.load(Relaxed).checked_sub(1)?;
    Cause::ALL.get(usize::try_from(at).ok()?).copied()
}

fn ago(time: &AtomicU64, now: u64) -> Option<Seconds> {
    let time = time.load(Relaxed);
    (time != 0).then(|| Seconds::Millis(now.saturating_sub(time)))
}

/// An upstream.
#[derive(Debug, Default)]
#[repr(C)]
pub struct UpstreamSlot {
    label: Label,
    outcomes: [AtomicU64; Outcome::ALL.len()],
    connect: Histogram,
    header: Histogram,
}

impl Slot for UpstreamSlot {
    fn label(&self) -> &Label {
        &self.label
    }

    fn clear(&self) {
        self.outcomes.iter().for_each(|count| count.store(0, Relaxed));
        self.connect.clear();
        self.header.clear();
    }
}

impl UpstreamSlot {
    /// Counts the time that it took to connect, milliseconds.
    #[inline]
    pub fn count_connect(&self, time: u64) {
        self.connect.count(CONNECT, time);
    }

    /// Counts the size of a response header, bytes.
    #[inline]
    pub fn count_header(&self, size: u64) {
        self.header.count(HEADER, size);
    }

    pub(super) fn count_outcome(&self, outcome: Outcome) {
        if let Some(count) = self.outcomes.get(outcome.index()) {
            count.fetch_add(1, Relaxed);
        }
    }

    pub(super) fn read(&self) -> crate::status::Upstream {
        crate::status::Upstream {
            name: self.label.name(),
            outcomes: self.outcomes.iter().map(|count| count.load(Relaxed)).collect(),
            connect: self.connect.read(CONNECT),
            header: self.header.read(HEADER),
            peers: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_are_counted() {
        let peer = PeerSlot::default();
        assert_eq!(
            peer.history(5),
            History { causes: vec![0; Cause::ALL.len()], ..History::default() }
        );
        peer.count(Attempted::Ok, 1_000);
        peer.count(Attempted::Failed(Cause::ConnectionRefused), 2_000);
        peer.count(Attempted::Failed(Cause::ResponseTimedOut), 3_000);
        peer.count(Attempted::Aborted, 3_500);
        let history = peer.history(4_000);
        assert_eq!((history.ok, history.failed, history.aborted), (1, 2, 1));
        assert_eq!(history.last_ok, Some(Seconds::Millis(3_000)));
        assert_eq!(history.last_failed, Some(Seconds::Millis(1_000)));
        assert_eq!(history.last_cause, Some(Cause::ResponseTimedOut));
        assert_eq!(history.consecutive_failures, 2);
        assert_eq!(history.causes[Cause::ConnectionRefused.index()], 1);
        peer.count(Attempted::Ok, 4_000);
        assert_eq!(peer.history(4_000).consecutive_failures, 0);
    }

    /// Guards against a later failure, of a request that was under way, being taken for what put
    /// the peer out.
    #[test]
    fn the_first_failure_took_it_out() {
        let peer = PeerSlot::default();
        peer.took_out(Cause::ConnectionRefused, 10, 1_000);
        peer.took_out(Cause::ResponseTimedOut, 10, 3_000);
        let out = |now| peer.history(now).taken_out.unwrap();
        assert_eq!(
            out(4_000),
            TakenOut { cause: Cause::ConnectionRefused, ago: Seconds::Millis(3_000) }
        );
        peer.took_out(Cause::ResponseTimedOut, 10, 12_000);
        assert_eq!(
            out(12_000),
            TakenOut { cause: Cause::ResponseTimedOut, ago: Seconds::Millis(0) }
        );
    }

    #[test]
    fn a_cleared_slot_is_like_a_new_one() {
        let peer = PeerSlot::default();
        peer.count(Attempted::Ok, 1);
        peer.count(Attempted::Failed(Cause::Unknown), 1);
        peer.took_out(Cause::Unknown, 1, 1);
        peer.count(Attempted::Aborted, 1);
        peer.clear();
        assert_eq!(peer.history(9), PeerSlot::default().history(9));
    }
}
