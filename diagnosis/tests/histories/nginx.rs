//! An nginx in front of the backend: its kept connections, and what it counts and notes.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::AtomicU32;

use diagnosis::zone::{
    Attempted, Close, Head, Layout, Memory, Noted, Parts, Past, PeerSlot, Place, Step, UpstreamSlot,
};
use diagnosis::{Attempt, Cause, Phase, Seconds, Tcp};
use fastrand::Rng;

use crate::backend::{Backend, Ms, Why};

/// Memory of a zone, with the places of one peer.
pub(crate) struct Zone {
    head: Head,
    peers: Vec<PeerSlot>,
    upstreams: Vec<UpstreamSlot>,
    indexes: [Vec<AtomicU32>; 2],
    steps: Vec<Step>,
}

impl Zone {
    pub(crate) fn new() -> Zone {
        let index = || (0..4).map(|_| AtomicU32::new(0)).collect();
        let zone = Zone {
            head: Head::default(),
            peers: vec![PeerSlot::default()],
            upstreams: vec![UpstreamSlot::default()],
            indexes: [index(), index()],
            steps: Vec::new(),
        };
        zone.head.begin(&Layout { peers: 1, ring: 0 }, [1, 2]);
        zone
    }

    fn memory(&self) -> Memory<'_> {
        let parts = Parts {
            peers: &self.peers,
            upstreams: &self.upstreams,
            peer_index: &self.indexes[0],
            upstream_index: &self.indexes[1],
            steps: &self.steps,
        };
        Memory::new(&self.head, parts)
    }
}

/// A failed attempt as the module sees it when its request ends, with what it does not see.
pub(crate) struct Seen {
    pub(crate) attempt: Attempt,
    pub(crate) why: Why,
    /// When it failed, and when it was noted.
    pub(crate) failed: Ms,
    pub(crate) now: Ms,
}

/// An idle connection.
struct Kept {
    since: Ms,
    /// When the upstream closes it, if it is not used before.
    closes: Option<(Ms, Why)>,
}

enum Event {
    /// A request comes, and after it the next one.
    Request,
    /// One comes beside those.
    Another,
    /// A good attempt ends.
    Good { began: Ms, fresh: bool },
    /// A failed attempt is noted.
    Failed { attempt: Box<Attempt>, why: Why, at: Ms },
}

/// Times at which something happens; the number keeps the order of what was planned.
struct Queue {
    times: BinaryHeap<Reverse<(Ms, usize)>>,
    events: Vec<Option<Event>>,
}

impl Queue {
    fn push(&mut self, at: Ms, event: Event) {
        self.times.push(Reverse((at, self.events.len())));
        self.events.push(Some(event));
    }

    fn pop(&mut self) -> Option<(Ms, Event)> {
        let Reverse((at, number)) = self.times.pop()?;
        Some((at, self.events[number].take()?))
    }
}

/// nginx's clock when the history begins: a host that has been up for a day.
pub(crate) const START: Ms = 86_400_000;

pub(crate) struct Nginx<'a> {
    backend: &'a Backend,
    place: Place<'a>,
    head: &'a Head,
    kept: Vec<Kept>,
    queue: Queue,
}

impl<'a> Nginx<'a> {
    pub(crate) fn new(backend: &'a Backend, zone: &'a Zone) -> Nginx<'a> {
        let place = zone.memory().add(b"app", name(backend).as_bytes(), START).unwrap();
        let mut queue = Queue { times: BinaryHeap::new(), events: Vec::new() };
        queue.push(0, Event::Request);
        Nginx { backend, place, head: &zone.head, kept: Vec::new(), queue }
    }

    /// Goes on to the next failure.
    pub(crate) fn next_failure(&mut self, rng: &mut Rng) -> Option<Seen> {
        while let Some((now, event)) = self.queue.pop() {
            match event {
                Event::Request => {
                    (0..self.backend.at_once).for_each(|_| self.request(now, rng));
                    let mean = self.backend.gap as f64;
                    let gap =
                        if self.backend.periodic { mean } else { mean * -(1.0 - rng.f64()).ln() };
                    let next = now + gap as Ms;
                    if next < self.backend.end {
                        self.queue.push(next, Event::Request);
                    }
                }
                Event::Another => self.request(now, rng),
                Event::Good { began, fresh } => self.good(began, now, fresh, rng),
                Event::Failed { attempt, why, at } => {
                    let cause = attempt.cause.unwrap();
                    let clock = START + now;
                    self.place.count(self.head, Attempted::Failed(cause), clock);
                    self.place.peer.note_failure(&Noted::of(&attempt, clock).unwrap());
                    return Some(Seen { attempt: *attempt, why, failed: at, now });
                }
            }
        }
        None
    }

    /// What is known of the backend by now.
    pub(crate) fn past(&self, now: Ms) -> Past {
        self.place.peer.past(START + now)
    }

    /// A request comes: it takes the connection that was used last, or makes one.
    fn request(&mut self, now: Ms, rng: &mut Rng) {
        // What was closed a while ago nginx has seen.
        let way = self.backend.latency / 1_000 + 1;
        self.kept.retain(|kept| kept.closes.is_none_or(|(at, _)| at + way > now));
        match self.kept.pop() {
            Some(Kept { since, closes: Some((at, why)) }) if at <= now + way => {
                let sent = 2 * way + rng.u64(..3);
                let attempt =
                    self.failed(Cause::KeepaliveRace, Some((now - since + sent, sent)), rng);
                self.note(now + sent, attempt, why, rng);
                // nginx tries again, on a connection of its own.
                if rng.bool() {
                    self.fresh(now + sent, rng);
                }
            }
            Some(Kept { since, .. }) => self.served(now, Some(since), rng),
            None => self.fresh(now, rng),
        }
    }

    fn fresh(&mut self, now: Ms, rng: &mut Rng) {
        let Some(why) = self.backend.refuses(now, rng) else {
            self.served(now, None, rng);
            return;
        };
        let (cause, took) = if self.backend.silent {
            (Cause::ConnectionTimedOut, 5_000)
        } else if self.backend.unix && rng.bool() {
            (Cause::SocketNotFound, 0)
        } else {
            (Cause::ConnectionRefused, self.backend.latency / 500)
        };
        let attempt = self.failed(cause, None, rng);
        self.note(now + took, Attempt { phase: Some(Phase::Connect), ..attempt }, why, rng);
    }

    fn served(&mut self, now: Ms, since: Option<Ms>, rng: &mut Rng) {
        let (end, why) = self.backend.serves(now, rng);
        let Some(why) = why else {
            self.queue.push(end, Event::Good { began: now, fresh: since.is_none() });
            return;
        };
        let sent = end - now;
        let (cause, idle) = match since {
            Some(since) => (Cause::KeepaliveRace, end - since),
            None if rng.bool() => (Cause::ConnectionReset, sent),
            None => (Cause::ClosedBeforeResponse, sent),
        };
        let attempt = self.failed(cause, Some((idle, sent)), rng);
        self.note(end, attempt, why, rng);
    }

    fn good(&mut self, began: Ms, now: Ms, fresh: bool, rng: &mut Rng) {
        let took = now - began;
        let attempted =
            if fresh { Attempted::Accepted { took } } else { Attempted::Reused { took } };
        self.place.count(self.head, attempted, START + now);
        let timeout = self.backend.idle_timeout(now);
        let timeout = timeout.map(|(time, late)| (now + time + rng.u64(..=late), Why::IdleTimeout));
        let down = self.backend.next_down(now).map(|at| (at, Why::Crash));
        let closes = timeout.into_iter().chain(down).min_by_key(|(at, _)| *at);
        // One that was accepted before it went down: a process that stops closes what is idle.
        if !self.backend.is_down(now) && self.kept.len() < 8 {
            self.kept.push(Kept { since: now, closes });
            if let Some((at, Why::IdleTimeout)) = closes
                && at < self.backend.end
                && rng.f64() < self.backend.races
            {
                self.queue.push(at, Event::Another);
            }
        }
    }

    fn note(&mut self, at: Ms, attempt: Attempt, why: Why, rng: &mut Rng) {
        // The request may go on for long on another peer.
        let late = if rng.u8(..) < 40 { rng.u64(..20_000) } else { 0 };
        let attempt = Attempt { failed_at: Some(START + at), ..attempt };
        self.queue.push(at + late, Event::Failed { attempt: Box::new(attempt), why, at });
    }

    /// The upstream closes a connection at an age: idle, or since a request was sent on it.
    pub(crate) fn closed(&mut self, age: Close, now: Ms, rng: &mut Rng) -> (Attempt, Past) {
        let (cause, ages) = match age {
            Close::Idle(age) => (Cause::KeepaliveRace, (age, 0)),
            Close::Waiting(age) => (Cause::ClosedBeforeResponse, (age, age)),
        };
        let attempt = self.failed(cause, Some(ages), rng);
        self.place.count(self.head, Attempted::Failed(cause), START + now);
        self.place.peer.note_failure(&Noted::of(&attempt, START + now).unwrap());
        self.place.count(self.head, Attempted::Ok, START + now);
        (attempt, self.past(now))
    }

    fn failed(&self, cause: Cause, ages: Option<(Ms, Ms)>, rng: &mut Rng) -> Attempt {
        // The kernel counts in ticks.
        let mut tick = |ms: Ms| Some(Seconds::Millis(ms.saturating_sub(ms % rng.u64(1..=4))));
        let tcp = ages.filter(|_| !self.backend.unix).map(|(idle, sent)| Tcp {
            state: "CLOSE_WAIT",
            rtt: Seconds::Micros(2 * self.backend.latency),
            retransmits: 0,
            idle: tick(idle),
            since_sent: tick(sent),
        });
        let waited = ages.filter(|_| self.backend.unix).map(|(_, sent)| Seconds::Millis(sent));
        Attempt {
            waited,
            peer: Some(name(self.backend).into()),
            cause: Some(cause),
            phase: Some(Phase::Header),
            tcp,
            reused: Some(cause == Cause::KeepaliveRace),
            ..Attempt::default()
        }
    }
}

fn name(backend: &Backend) -> String {
    if backend.unix { "unix:/run/app.sock".into() } else { "10.0.3.7:8080".into() }
}
