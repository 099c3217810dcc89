//! Findings drawn from random histories, and compared with a truth that they are not told.
//!
//! A backend of a random kind is used by an nginx that counts and notes what it sees in the real
//! memory; at each failure, findings are drawn, as the module does for each record.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "test code: a broken assumption is a failed test and should stop it at once"
)]

#[path = "histories/backend.rs"]
mod backend;
#[path = "histories/judge.rs"]
mod judge;
#[path = "histories/nginx.rs"]
mod nginx;

use std::collections::{BTreeMap, BTreeSet};

use backend::{Backend, Kind};
use diagnosis::findings::{Code, Confidence, Host, Listener, Listening, Process, Sibling};
use diagnosis::peer::State;
use diagnosis::zone::{Close, Past};
use diagnosis::{
    Arena, Attempt, Cause, Context, Evidence, Findings, Outcome, PeerState, Seconds, findings,
};
use fastrand::Rng;
use nginx::{Nginx, Seen, Zone};

const HISTORIES: u64 = 10_000;

/// Of ages, a multiple of four times the ways in which they are random.
const HISTORIES_OF_AGES: usize = 1_800;

/// Right and wrong ones.
#[derive(Clone, Copy, Debug, Default)]
struct Score {
    right: u64,
    wrong: u64,
}

impl Score {
    fn add(&mut self, right: bool) {
        *if right { &mut self.right } else { &mut self.wrong } += 1;
    }

    fn percent(&self) -> f64 {
        100.0 * self.right as f64 / (self.right + self.wrong).max(1) as f64
    }
}

/// How good the findings of a code and a confidence were.
#[derive(Debug, Default)]
struct Scores {
    all: Score,
    /// Of each history the first one: an outage that goes on makes many.
    first: Score,
    kinds: BTreeMap<Kind, Score>,
}

/// What the module could find out beside the attempt, when it writes the record.
fn context(backend: &Backend, seen: &Seen, rng: &mut Rng) -> Context {
    let last_ok = Some(Seconds::Millis(rng.u64(..5_000)));
    let sibling = Sibling { ok: 9, last_ok, state: Some(State::Up) };
    let down = backend.is_down(seen.now);
    let host = if backend.unix {
        // Who listens can be asked while a connection stands.
        let started = backend.down.iter().map(|(_, to)| *to).rfind(|to| *to <= seen.now);
        let started = started.map_or(nginx::START + seen.now, |at| seen.now - at);
        let process = Process { pid: 4_711, started: Seconds::Millis(started) };
        let listener = if down { Listening::Nobody } else { Listening::Unknown };
        Host::Unix { listener, process: (!down).then_some(process) }
    } else {
        let peer = seen.attempt.peer.as_deref().unwrap();
        let address = std::net::Ipv4Addr::UNSPECIFIED.into();
        let listener =
            Listener { address, v6_only: None, one_interface: false, queue: 0, limit: 128 };
        let listeners = if down { Vec::new() } else { vec![listener] };
        Host::Tcp { address: peer.parse().unwrap(), own: true, listeners }
    };
    Context {
        is_block: true,
        servers: Some(2),
        siblings: vec![sibling],
        // A unix socket is one of this host; what is at a port in one of four cases.
        host: Some(host)
            .filter(|_| (backend.unix || rng.u8(..) < 64) && backend.kind != Kind::Stale),
        ..Context::default()
    }
}

/// nginx takes a peer out after one failure, by default.
fn taken_out(attempt: &mut Attempt) {
    attempt.peer_state = Some(PeerState {
        state: State::Unavailable,
        fails: 1,
        max_fails: 1,
        fail_timeout: Seconds::Whole(10),
        unavailable_for: Some(Seconds::Whole(10)),
        down: false,
        backup: false,
        weight: 1,
        conns: 0,
        max_conns: 0,
    });
}

/// No `certain` finding is wrong, and of the `likely` ones at most one in twenty is, of each code.
#[test]
fn findings_are_as_sure_as_they_say() {
    let mut scores: BTreeMap<(Code, Confidence), Scores> = BTreeMap::new();
    for seed in 0..HISTORIES {
        let rng = &mut Rng::with_seed(seed);
        let backend = Backend::new(Kind::ALL[seed as usize % Kind::ALL.len()], rng);
        let zone = Zone::new();
        let mut nginx = Nginx::new(&backend, &zone);
        let mut had = BTreeSet::new();
        let mut failures = 0;
        while let Some(mut seen) = nginx.next_failure(rng) {
            // Later on failures are much alike: one in six is looked at.
            failures += 1;
            if failures > 10 && failures % 6 != 0 {
                continue;
            }
            let past = nginx.past(seen.now);
            let context = ended(&backend, &mut seen, rng);
            for finding in concluded((&seen.attempt, &past), &context, &Arena::new()) {
                let right = judge::is_right(finding, &seen, &backend);
                let key = (finding.code, finding.confidence);
                assert!(
                    right || key.1 != Confidence::Certain,
                    "seed {seed}: {finding:?} of {:?}, failed at {}, noted at {}: {backend:?}",
                    seen.why,
                    seen.failed,
                    seen.now
                );
                let scores = scores.entry(key).or_default();
                scores.all.add(right);
                scores.kinds.entry(backend.kind).or_default().add(right);
                if had.insert(key) {
                    scores.first.add(right);
                }
            }
        }
    }
    check(&scores);
}

/// Ages without a timeout behind them, in milliseconds: from anything to nearly one.
fn random_age(way: usize, rng: &mut Rng) -> u64 {
    let exponential = -(1.0 - rng.f64()).ln();
    // The sum of twelve is as good as a normal distribution of width 1.
    let normal = (0..12).map(|_| rng.f64()).sum::<f64>() - 6.0;
    match way {
        0 => rng.u64(1_000..60_000),
        1 => (exponential * 5_000.0) as u64,
        2 => (1_000.0 * 100_f64.powf(rng.f64())) as u64,
        3 => (10_000.0 + 2_000.0 * normal) as u64,
        4 => (30_000.0 + 4_500.0 * normal) as u64,
        5 => 1_000 * rng.u64(1..20),
        // Where a second is much: in these a supervisor's closes are as near to each other.
        6 => (3_000.0 + 600.0 * normal) as u64,
        7 => (exponential * 1_500.0) as u64,
        _ => (3_000.0 * (0.5 * normal).exp()) as u64,
    }
}

/// Ages that are random give no finding, for how long they may be looked at: neither where each
/// close is alone, nor where processes end that have several requests, at any time.
#[test]
fn random_ages_are_no_timeout() {
    const WAYS: usize = 9;
    let mut rng = Rng::with_seed(1);
    let backend = loop {
        let backend = Backend::new(Kind::Crashes, &mut rng);
        if !backend.unix {
            break backend;
        }
    };
    let (mut likely, mut possible) = ([0; WAYS], [0; WAYS]);
    for history in 0..HISTORIES_OF_AGES {
        let zone = Zone::new();
        let mut nginx = Nginx::new(&backend, &zone);
        let (way, idle) = (history % WAYS, history % (2 * WAYS) < WAYS);
        let several = history % (4 * WAYS) < 2 * WAYS;
        let mut surest = Confidence::ALL.len();
        let mut now = 0;
        for _ in 0..60 {
            // As by a clock, or at any time, up to four at once.
            now += if several { rng.u64(200..5_000) } else { 1_000 };
            for _ in 0..if several { rng.u64(1..=4) } else { 1 } {
                let age = random_age(way, &mut rng);
                let close = if idle { Close::Idle(age) } else { Close::Waiting(age) };
                let (attempt, past) = nginx.closed(close, now, &mut rng);
                for finding in concluded((&attempt, &past), &Context::default(), &Arena::new()) {
                    surest = surest.min(finding.confidence as usize);
                }
            }
        }
        likely[way] += usize::from(surest <= Confidence::Likely as usize);
        possible[way] += usize::from(surest == Confidence::Possible as usize);
    }
    println!("of 200 histories each: likely {likely:?}, possible {possible:?}");
    assert!(likely.iter().sum::<usize>() <= 18 && possible.iter().sum::<usize>() <= 36);
}

/// Guards against a timeout of two seconds being missed where it is looked for once a second: the
/// ages are spread over half of it. Eight requests are sent within a second, as by impatient users,
/// and closed in two looks, whenever these are, or in one: of that nothing can be concluded.
#[test]
fn a_supervisor_is_found_by_eight_requests() {
    let mut rng = Rng::with_seed(2);
    let mut backend = Backend::new(Kind::Crashes, &mut rng);
    backend.unix = false;
    for every in [1_000, 667] {
        let mut sure = BTreeMap::new();
        for from in (0..every).step_by(20) {
            let zone = Zone::new();
            let mut nginx = Nginx::new(&backend, &zone);
            let sent = (0..8).map(|n| 10_000 + n * 120);
            let looks = |sent: u64| (sent + 2_000 - from).div_ceil(every) * every + from;
            let mut closed: Vec<(u64, u64)> =
                sent.map(|sent| (looks(sent) + rng.u64(0..40), sent)).collect();
            closed.sort_unstable();
            let mut last = None;
            for (at, sent) in closed {
                let (attempt, past) = nginx.closed(Close::Waiting(at - sent), at, &mut rng);
                let context = Context::default();
                let arena = Arena::new();
                let found = concluded((&attempt, &past), &context, &arena);
                let found = found.iter().find(|finding| finding.code == Code::RequestTimeout);
                last = found.map(|finding| finding.confidence);
            }
            *sure.entry(last.map(Confidence::slug)).or_insert(0) += 1;
        }
        println!("looking every {every} ms: {sure:?}");
        let silent = sure.get(&None).copied().unwrap_or(0) * 100 / sure.values().sum::<i32>();
        assert!(silent <= 40, "silent in {silent} %");
    }
}

/// What is known at the end of a failed attempt.
fn ended(backend: &Backend, seen: &mut Seen, rng: &mut Rng) -> Context {
    if seen.attempt.cause == Some(Cause::KeepaliveRace) {
        taken_out(&mut seen.attempt);
    }
    context(backend, seen, rng)
}

/// The findings of a failed attempt, which another one has masked.
fn concluded<'a>(
    (attempt, past): (&'a Attempt, &'a Past),
    context: &'a Context,
    arena: &'a Arena,
) -> Findings<'a> {
    findings(&Evidence {
        cause: attempt.cause.unwrap(),
        failed: attempt,
        past: Some(past),
        outcome: Outcome::Masked,
        upstream: Some("app".into()),
        module: Some("proxy"),
        method: b"GET",
        peers: &[],
        context,
        arena,
    })
}

fn check(scores: &BTreeMap<(Code, Confidence), Scores>) {
    for ((code, confidence), Scores { all, first, kinds }) in scores {
        println!(
            "{:18} {:9} {:5.1} % of {}, {:5.1} % of {} histories",
            code.slug(),
            confidence.slug(),
            all.percent(),
            all.right + all.wrong,
            first.percent(),
            first.right + first.wrong
        );
        for (kind, Score { right, wrong }) in kinds {
            println!("    {kind:?}: {right} right, {wrong} wrong");
        }
    }
    for ((code, confidence), Scores { all, first, .. }) in scores {
        let least = all.percent().min(first.percent());
        assert!(*confidence != Confidence::Likely || least >= 95.0, "{}: {least} %", code.slug());
    }
    // Silence is always right: what can be concluded has to be, and often.
    for (code, confidence, least) in [
        (Code::IdleTimeout, Confidence::Likely, 200),
        (Code::RequestTimeout, Confidence::Likely, 500),
        (Code::WentAway, Confidence::Certain, 1_000),
        (Code::WentAway, Confidence::Likely, 1_000),
        (Code::Restarted, Confidence::Certain, 30),
        (Code::Restarted, Confidence::Likely, 500),
        (Code::Flapping, Confidence::Likely, 100),
        (Code::NeverConnected, Confidence::Likely, 150),
        (Code::NothingListening, Confidence::Certain, 1_000),
        (Code::EjectedHealthy, Confidence::Likely, 200),
    ] {
        let right = scores.get(&(code, confidence)).map_or(0, |scores| scores.first.right);
        assert!(right >= least, "{} {}: in {right} only", confidence.slug(), code.slug());
    }
}
