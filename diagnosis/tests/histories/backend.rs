//! The hidden truth: what the backend does, and why.

use fastrand::Rng;

/// Milliseconds.
pub(crate) type Ms = u64;

/// What kind of backend it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Closes idle connections after a time; crashes now and then.
    Keepalive,
    /// As above, and the time is changed half-way.
    ChangedKeepalive,
    /// Its processes crash at any time in a request; others go on.
    Crashes,
    /// As above, and a client asks in regular intervals: connections have one age when they are
    /// used, and when a process crashes.
    PeriodicCrashes,
    /// Hangs now and then, and is killed after some time; requests come six at once.
    Hangs,
    /// Closes connections when a request has taken a certain time; crashes now and then.
    RequestTimeout,
    /// As above, closed by a supervisor that looks once in a while what has taken too long.
    Supervised,
    /// A keep-alive timeout, a request timeout, crashes, and outages.
    Mix,
    /// Nobody is at the address, or ever was.
    Stale,
    /// Begins to listen only some time after nginx knows it.
    SlowStart,
    /// One outage, ended by a restart.
    Outage,
    /// Down and up again and again.
    Flapping,
    /// Several processes behind one address, one of which is down: it takes turns.
    Turns,
    /// A network that loses connection attempts.
    Lossy,
}

impl Kind {
    pub(crate) const ALL: [Kind; 14] = [
        Kind::Keepalive,
        Kind::ChangedKeepalive,
        Kind::Crashes,
        Kind::PeriodicCrashes,
        Kind::Hangs,
        Kind::RequestTimeout,
        Kind::Supervised,
        Kind::Mix,
        Kind::Stale,
        Kind::SlowStart,
        Kind::Outage,
        Kind::Flapping,
        Kind::Turns,
        Kind::Lossy,
    ];
}

/// Why an attempt failed in truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// The keep-alive timeout.
    IdleTimeout,
    /// The timeout for requests.
    RequestTimeout,
    /// A crash, of a process or of the whole server.
    Crash,
    /// Nobody listens, or nobody answers.
    Down,
    /// The network lost it, or another process behind the address was meant.
    Network,
}

/// A backend, and how it is used.
#[derive(Clone, Debug)]
pub(crate) struct Backend {
    pub(crate) kind: Kind,
    pub(crate) unix: bool,
    /// Failed connections get no answer instead of a refusal.
    pub(crate) silent: bool,
    /// Keep-alive timeouts: from when on, how long, and how much longer at most.
    idle: Vec<(Ms, Ms, Ms)>,
    pub(crate) request_timeout: Option<(Ms, Ms)>,
    /// When a supervisor looks, if it is one that closes what is over that: every so often, from
    /// when on.
    looks: Option<(Ms, Ms)>,
    /// How often a request makes its process crash.
    crashes: f64,
    /// When it does not listen: from, to.
    pub(crate) down: Vec<(Ms, Ms)>,
    /// An outage does not end what is under way.
    pub(crate) graceful: bool,
    /// When it hangs, until it is killed.
    hangs: Vec<(Ms, Ms)>,
    /// How often a connection fails though somebody listens.
    lost: f64,
    /// How long an ordinary request takes.
    service: Ms,
    /// How often one takes long, and how long.
    slow: (f64, Ms),
    /// Mean time between requests.
    pub(crate) gap: Ms,
    /// How many come at once.
    pub(crate) at_once: usize,
    /// They come in regular intervals.
    pub(crate) periodic: bool,
    /// Half a round trip, in microseconds.
    pub(crate) latency: u64,
    /// How often a request comes just when an idle connection is being closed.
    pub(crate) races: f64,
    pub(crate) end: Ms,
}

/// A time with any order of magnitude in a range.
fn between(rng: &mut Rng, low: f64, high: f64) -> Ms {
    (low * (high / low).powf(rng.f64())).round() as Ms
}

impl Backend {
    pub(crate) fn new(kind: Kind, rng: &mut Rng) -> Backend {
        let gap = between(rng, 20.0, 20_000.0);
        let mut backend = Backend {
            kind,
            unix: rng.u8(..) < 40,
            silent: false,
            idle: Vec::new(),
            request_timeout: None,
            looks: None,
            crashes: 0.0,
            down: Vec::new(),
            graceful: rng.bool(),
            hangs: Vec::new(),
            lost: 0.0,
            service: between(rng, 2.0, 300.0),
            slow: (0.0, 0),
            gap,
            at_once: 1,
            periodic: rng.u8(..) < 40,
            latency: between(rng, 20.0, 20_000.0),
            races: 0.3,
            end: gap * 100,
        };
        backend.set_kind(rng);
        // A unix socket has one process, and answers at once.
        backend.unix &= !backend.silent && kind != Kind::Turns;
        backend
    }

    fn set_kind(&mut self, rng: &mut Rng) {
        let end = self.end;
        match self.kind {
            Kind::Keepalive => {
                self.add_idle(0, rng);
                self.crashes = 0.02 * rng.f64();
            }
            Kind::ChangedKeepalive => {
                self.add_idle(0, rng);
                self.add_idle(end / 2, rng);
            }
            Kind::Crashes => {
                self.crashes = 0.02 + 0.5 * rng.f64() * rng.f64();
                let share = if rng.bool() { 0.3 } else { rng.f64() };
                self.slow = (share, between(rng, 100.0, 60_000.0));
            }
            Kind::PeriodicCrashes => {
                self.periodic = true;
                self.crashes = 0.02 + 0.2 * rng.f64();
                self.service = between(rng, 20.0, 300.0);
            }
            Kind::Hangs => {
                self.at_once = 6;
                let mut at = rng.u64(..end / 4);
                while at < end {
                    let killed = at + between(rng, 2_000.0, 60_000.0);
                    self.hangs.push((at, killed));
                    at = killed + rng.u64(..end / 3);
                }
            }
            Kind::RequestTimeout => {
                self.add_request_timeout(rng);
                self.crashes = 0.01 * rng.f64();
            }
            Kind::Supervised => {
                self.add_request_timeout(rng);
                let most = if rng.bool() { 5 } else { 60 };
                let timeout = rng.u64(2..=most) * 1_000;
                // As gunicorn's and uWSGI's masters do, or as PHP-FPM's.
                let every = if rng.bool() { 1_000 } else { timeout / 3 };
                self.request_timeout = Some((timeout, every));
                self.looks = Some((every, rng.u64(..every)));
                self.slow = (0.02 + 0.5 * rng.f64() * rng.f64(), timeout * 3);
                self.crashes = 0.01 * rng.f64();
            }
            Kind::Mix => {
                self.add_idle(0, rng);
                self.add_request_timeout(rng);
                self.crashes = 0.02 * rng.f64();
                for _ in 0..rng.u8(1..3) {
                    self.add_outage(rng);
                }
            }
            Kind::Stale => {
                self.silent = rng.bool();
                self.down.push((0, Ms::MAX));
            }
            Kind::SlowStart => self.down.push((0, between(rng, 1_000.0, 350_000.0))),
            Kind::Outage => {
                self.silent = rng.u8(..) < 64;
                self.slow = (0.5 * rng.f64(), between(rng, 100.0, 60_000.0));
                self.add_outage(rng);
            }
            Kind::Flapping => {
                self.slow = (0.5 * rng.f64(), between(rng, 100.0, 60_000.0));
                let mut at = rng.u64(..end / 4);
                while at < end {
                    let up = at + between(rng, 200.0, 60_000.0);
                    self.down.push((at, up));
                    at = up + between(rng, 2_000.0, 200_000.0);
                }
            }
            Kind::Turns => self.lost = 0.2 + 0.4 * rng.f64(),
            Kind::Lossy => {
                self.silent = true;
                self.lost = 0.3 * rng.f64();
            }
        }
        self.down.sort_unstable();
    }

    fn add_idle(&mut self, from: Ms, rng: &mut Rng) {
        let timeout = between(rng, 1.0, 120.0) * 1_000;
        // As exact as timers are, or as seldom as some servers look.
        let late = if rng.bool() { 5 } else { timeout / 20 };
        self.idle.push((from, timeout, late));
    }

    fn add_request_timeout(&mut self, rng: &mut Rng) {
        let timeout = between(rng, 1.0, 60.0) * 1_000;
        let late = if rng.bool() { 5 } else { timeout / 20 };
        self.request_timeout = Some((timeout, late));
        self.slow = (0.15, timeout * 3);
    }

    fn add_outage(&mut self, rng: &mut Rng) {
        let from = self.end / 4 + rng.u64(..self.end / 2);
        self.down.push((from, from + between(rng, 300.0, 300_000.0)));
    }

    /// The keep-alive timeout at a time.
    pub(crate) fn idle_timeout(&self, now: Ms) -> Option<(Ms, Ms)> {
        let known = self.idle.iter().rev().find(|(from, ..)| *from <= now);
        known.map(|(_, timeout, late)| (*timeout, *late))
    }

    pub(crate) fn is_down(&self, now: Ms) -> bool {
        self.down.iter().any(|(from, to)| (*from..*to).contains(&now))
    }

    /// When it goes down next.
    pub(crate) fn next_down(&self, now: Ms) -> Option<Ms> {
        self.down.iter().map(|(from, _)| *from).find(|from| *from > now)
    }

    /// Whether a connection fails, and why.
    pub(crate) fn refuses(&self, now: Ms, rng: &mut Rng) -> Option<Why> {
        if self.is_down(now) {
            return Some(Why::Down);
        }
        (rng.f64() < self.lost).then_some(Why::Network)
    }

    /// How a request that is sent now ends: when, and if not well, why.
    pub(crate) fn serves(&self, now: Ms, rng: &mut Rng) -> (Ms, Option<Why>) {
        let slow = rng.f64() < self.slow.0;
        let mean = if slow { self.slow.1 } else { self.service } as f64;
        let mut took = (mean * -(1.0 - rng.f64()).ln()) as Ms;
        let mut why = None;
        if let Some((timeout, late)) = self.request_timeout
            && took >= timeout
        {
            took = match self.looks {
                // With what a process takes to end.
                Some((every, from)) => {
                    let over = (now + timeout).saturating_sub(from);
                    over.div_ceil(every) * every + from - now + rng.u64(..40)
                }
                None => timeout + rng.u64(..=late),
            };
            why = Some(Why::RequestTimeout);
        }
        if rng.f64() < self.crashes {
            took = rng.u64(..=took);
            why = Some(Why::Crash);
        }
        let hangs = self.hangs.iter().find(|(from, to)| *from < now + took && now < *to);
        if let Some((_, killed)) = hangs {
            (took, why) = (killed - now, Some(Why::Crash));
        }
        if let Some(down) = self.next_down(now).filter(|down| *down < now + took && !self.graceful)
        {
            (took, why) = (down - now, Some(Why::Crash));
        }
        (now + took, why)
    }
}
