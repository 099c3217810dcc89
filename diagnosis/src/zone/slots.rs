//! What is kept of a peer and of an upstream.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use super::ages::{Ages, SHORTEST};
use super::histogram::{CONNECT, HEADER, Histogram};
use super::outages::Outages;
use super::past::{Close, Noted, Past, REACHES, Reach, STALE, reach};
use super::sweeps::Sweeps;
use super::table::{Label, Slot};
use crate::cause::Cause;
use crate::outcome::Outcome;
use crate::record::Tally;
use crate::seconds::Seconds;
use crate::status::{History, TakenOut};

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempted {
    /// With a response.
    Ok,
    /// With a response, on a connection that was made for it: the peer accepts connections.
    Accepted {
        /// From its start to now, milliseconds.
        took: u64,
    },
    /// With a response, on a connection that had been used before: the peer had kept it.
    Reused {
        /// From its start to now, milliseconds.
        took: u64,
    },
    /// With a failure.
    Failed(Cause),
    /// The client did not wait for it.
    Aborted,
}

/// Closes of idle connections at one time that are evidence: that a process ends just when several
/// requests come is less likely than that its keep-alive timeout does.
const RACES: u64 = 6;

/// Closes of requests at one time that are evidence: a process that ends, whyever, closes them all.
const CRASHES: u64 = 3;

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
    /// The first failure since the last good attempt.
    failing: AtomicU64,
    outages: Outages,
    /// For how long at least the connection had been idle, of those used again with success since
    /// one was closed.
    kept: AtomicU64,
    /// How long connections had been idle that were closed when they were to be used again.
    idle: Ages,
    /// Of the latest of these a bit for each, the newest the lowest: one had been used again when
    /// it was older than that.
    outlived: AtomicU64,
    /// How long requests had been waiting for an answer when their connections were closed.
    waiting: Ages,
    /// Whether it is the oldest of them that are closed.
    sweeps: Sweeps,
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
            failing: AtomicU64::new(0),
            outages: Outages::default(),
            kept: AtomicU64::new(0),
            idle: Ages::default(),
            outlived: AtomicU64::new(0),
            waiting: Ages::default(),
            sweeps: Sweeps::default(),
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
            &self.failing,
            &self.kept,
            &self.outlived,
        ];
        long.iter().for_each(|value| value.store(0, Relaxed));
        let short = [&self.last_cause, &self.consecutive, &self.taken_out_by];
        self.causes.iter().chain(short).for_each(|value| value.store(0, Relaxed));
        self.outages.clear();
        self.idle.clear();
        self.waiting.clear();
        self.sweeps.clear();
    }
}

impl PeerSlot {
    /// Counts an attempt.
    #[inline]
    pub fn count(&self, attempted: Attempted, now: u64) {
        match attempted {
            Attempted::Ok => self.count_ok(now),
            Attempted::Accepted { took } => {
                self.count_ok(now);
                if self.outages.is_open() {
                    self.outages.accepted(now.saturating_sub(took));
                }
            }
            Attempted::Reused { took } => {
                let (began, before) = (now.saturating_sub(took), self.last_ok.load(Relaxed));
                self.count_ok(now);
                if began.saturating_sub(before) >= SHORTEST {
                    self.note_kept(began, before);
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

    /// Counts an [`Attempted::Reused`] or an [`Attempted::Accepted`] like most, that ends nothing
    /// and tells nothing new. Otherwise it is false, and nothing is counted. It calls nothing.
    #[inline(always)]
    pub fn count_usual(&self, reused: bool, took: u64, now: u64) -> bool {
        let tells = match reused {
            true => {
                // It began that long after the last had ended.
                let after = self.last_ok.load(Relaxed).wrapping_add(SHORTEST);
                now >= after.wrapping_add(took)
            }
            false => self.outages.is_open(),
        };
        if tells || self.consecutive.load(Relaxed) != 0 {
            return false;
        }
        self.add_ok(now);
        true
    }

    #[inline(always)]
    fn add_ok(&self, now: u64) {
        self.ok.fetch_add(1, Relaxed);
        // One in the host's first millisecond is taken for none.
        self.last_ok.store(now, Relaxed);
    }

    fn count_ok(&self, now: u64) {
        self.add_ok(now);
        if self.consecutive.load(Relaxed) != 0 {
            self.consecutive.store(0, Relaxed);
            self.failing.store(0, Relaxed);
        }
    }

    /// Notes that a connection was used again: whichever it was, nothing had come on it since the
    /// last attempt on the peer, of any connection, had ended.
    #[cold]
    fn note_kept(&self, began: u64, last_ok: u64) {
        let before = last_ok.max(self.last_failed.load(Relaxed));
        if last_ok != 0 {
            self.kept.fetch_max(began.saturating_sub(before), Relaxed);
        }
    }

    /// Notes what was seen of a failed attempt, which is counted apart from that.
    pub fn note_failure(&self, noted: &Noted) {
        // What stands for others has no history of its own.
        if self.label.is_substitute() {
            return;
        }
        match noted.close {
            Some(Close::Idle(age)) => {
                let number = self.idle.count(age, noted.at, RACES);
                // A bit that another worker writes at the same time may be lost.
                let bits = self.outlived.load(Relaxed);
                let bit = match number {
                    1 => u64::from(self.kept.swap(0, Relaxed) >= age),
                    // Of an event all have the same.
                    _ => bits & 1,
                };
                if number > 0 {
                    self.outlived.store(bits << 1 | bit, Relaxed);
                }
            }
            Some(Close::Waiting(age)) => {
                self.waiting.count(age, noted.at, CRASHES);
                if age >= SHORTEST {
                    self.sweeps.count(age, noted.at);
                }
            }
            None => {}
        }
        // A failure may be noted late, when a request that went on to another peer ends. If this
        // one has answered in between, it is of no run of failures that goes on.
        if noted.at < self.last_ok.load(Relaxed) {
            return;
        }
        let _ = self.failing.compare_exchange(0, noted.at.max(1), Relaxed, Relaxed);
        match reach(noted.cause) {
            Reach::Refused => self.outages.failed(true, noted.at),
            Reach::NotReached => self.outages.failed(false, noted.at),
            Reach::Reached | Reach::Unknown => {}
        }
    }

    /// What happened to it, for conclusions.
    pub fn past(&self, now: u64) -> Past {
        let idle = self.idle.read();
        Past {
            outlived: idle.outlived(self.outlived.load(Relaxed)),
            idle,
            waiting: self.waiting.read(),
            spared: self.sweeps.read(),
            ..self.past_connects(now)
        }
    }

    /// As [`PeerSlot::past`], of a failure to connect: nothing is concluded from closes then.
    pub fn past_connects(&self, now: u64) -> Past {
        let ago = |time: &AtomicU64| {
            let time = time.load(Relaxed);
            (time != 0).then(|| now.saturating_sub(time))
        };
        let (mut reached, mut not_reached) = (0_u64, 0_u64);
        // Nobody asks of a peer that has answered.
        let causes = if self.may_be_stale(now) { &self.causes[..] } else { &[] };
        for (reach, count) in REACHES.iter().zip(causes) {
            let count = count.load(Relaxed).into();
            match reach {
                Reach::Reached => reached = reached.saturating_add(count),
                Reach::Refused | Reach::NotReached => {
                    not_reached = not_reached.saturating_add(count);
                }
                Reach::Unknown => {}
            }
        }
        Past {
            known_for: now.saturating_sub(self.label.since()),
            ok: self.ok.load(Relaxed),
            last_ok: ago(&self.last_ok),
            failures: self.consecutive.load(Relaxed).into(),
            failing_for: ago(&self.failing),
            not_reached,
            reached,
            outage: self.outages.current(now),
            outages: self.outages.over(now),
            ..Past::default()
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

    /// Whether it has not answered once in all the time that it takes to call an address stale.
    pub fn may_be_stale(&self, now: u64) -> bool {
        self.ok.load(Relaxed) == 0 && now.saturating_sub(self.label.since()) >= STALE
    }

    /// The attempts on it so far.
    pub fn tally(&self, now: u64) -> Tally {
        Tally {
            ok: self.ok.load(Relaxed),
            failed: self.failed.load(Relaxed),
            last_ok: ago(&self.last_ok, now),
            consecutive_failures: self.consecutive.load(Relaxed).into(),
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
mod tests;
