//! At the end of a request: counts it, keeps its record and writes its line.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use diagnosis::zone::{Allowed, Count, Place};
use diagnosis::{Arena, Cause, Outcome, Record};
use smallvec::SmallVec;

use super::Diagnosed;
use crate::directives::{LocConf, LogTarget, MainConf, Sink};
use crate::ffi::request::Request;
use crate::ffi::{hooks, log, time};
use crate::observe;
use crate::record::Diagnosis;

/// Called in the log phase of a request in which an upstream may have failed.
pub(crate) fn emit(request: Request<'_>) {
    // Subrequests reach this phase only with log_subrequest on; their records are written with
    // the main request's, which comes last in any case.
    if !request.is_main() {
        return;
    }
    let mut lines = Lines::take();
    let noted = hooks::with(request, |diagnosis| {
        for id in diagnosis.subrequests(request.id()) {
            if let Some(subrequest) = id.subrequest(request) {
                lines.add(subrequest, Some(diagnosis));
            }
        }
        lines.add(request, Some(diagnosis));
    });
    match noted {
        Ok(Some(())) => {}
        Ok(None) => lines.add(request, None),
        Err(_) => return,
    }
    // Outside of with(): evaluating `if=` reads variables, which look at the record again.
    lines.deliver();
}

/// The records of a request as lines of JSON.
struct Lines<'a> {
    ready: SmallVec<[Ready<'a>; 1]>,
    desk: Desk,
}

/// Where records are made.
#[derive(Default)]
struct Desk {
    json: Vec<u8>,
    /// Conclusions and texts.
    arena: Arena,
}

/// A record that is ready to go out.
struct Ready<'a> {
    request: Request<'a>,
    conf: &'static LocConf,
    verdict: (Outcome, Cause),
    /// Where it is counted.
    place: Option<Place<'static>>,
    /// The upstream's name, where that is not known.
    upstream: Option<String>,
    /// The end of its line.
    end: usize,
}

/// The desk, kept from one request to the next. This worker's one thread uses it; a panic, which
/// poisons it, costs no more than making another each time.
static DESK: Mutex<Option<Desk>> = Mutex::new(None);

/// What is larger than this is not kept, bytes: that of a request with hundreds of attempts.
const KEPT: usize = 64 * 1_024;

impl Desk {
    fn take() -> Desk {
        DESK.lock().ok().and_then(|mut kept| kept.take()).unwrap_or_default()
    }

    fn give_back(mut self) {
        if self.json.capacity() > KEPT || self.arena.allocated_bytes() > KEPT {
            return;
        }
        self.json.clear();
        self.arena.reset();
        if let Ok(mut kept) = DESK.lock() {
            *kept = Some(self);
        }
    }
}

impl<'a> Lines<'a> {
    fn take() -> Lines<'a> {
        Lines { ready: SmallVec::new(), desk: Desk::take() }
    }

    /// Adds the record of a request, if it has one.
    fn add(&mut self, request: Request<'a>, mut diagnosis: Option<&mut Diagnosis>) {
        if let Some(diagnosis) = &mut diagnosis {
            observe::add_histories(request, diagnosis);
        }
        let Some(diagnosed) = Diagnosed::new(request, diagnosis.as_deref()) else { return };
        let Some(conf) = diagnosed.conf().filter(|conf| conf.enabled()) else { return };
        let place = diagnosed.place();
        let parts = diagnosed.parts(place);
        // Large, as others here: looked at where it was made.
        let record = Record::new(&parts, &self.desk.arena);
        let Some(record) = &record else { return };
        let json = &mut self.desk.json;
        record.write_to(json);
        json.push(b'\n');
        self.ready.push(Ready {
            request,
            conf,
            verdict: (parts.outcome, record.cause),
            place,
            upstream: match place {
                Some(_) => None,
                None => parts.upstream.as_deref().map(str::to_owned),
            },
            end: json.len(),
        });
    }

    fn deliver(&mut self) {
        let mut start = 0;
        for ready in &self.ready {
            let line = self.desk.json.get(start..ready.end).unwrap_or_default();
            start = ready.end;
            ready.deliver(line);
        }
        std::mem::take(&mut self.desk).give_back();
    }
}

impl Ready<'_> {
    fn deliver(&self, line: &[u8]) {
        let Some(main) = self.request.main_conf() else { return };
        let json = line.trim_ascii_end();
        main.locked(|memory, ring| {
            let time = u64::try_from(time::now()).unwrap_or(0);
            let now = time::current_msec();
            match self.place {
                Some(place) => memory.count_record_at(place, self.verdict, time),
                None => memory.count_record(self.upstream.as_deref(), self.verdict, now, time),
            }
            if !memory.head().ring.push(ring, json) {
                memory.head().count(Count::LostRecord);
            }
        });
        self.conf.logs().iter().for_each(|target| write(self.request, main, target, line));
    }
}

/// Writes a line to one target.
fn write(request: Request<'_>, main: &MainConf, target: &LogTarget, line: &[u8]) {
    if target.condition.is_some_and(|condition| !condition.holds(request)) {
        return;
    }
    let head = main.memory.map(|memory| memory.head());
    let suppressed = match (target.rate, head) {
        (Some(rate), Some(head)) => {
            let second = u64::try_from(time::now()).unwrap_or(0);
            match head.allow(rate.number, rate.lines, second) {
                Allowed::Yes { suppressed } => suppressed,
                Allowed::No => return,
            }
        }
        _ => 0,
    };
    let with_number = (suppressed > 0).then(|| diagnosis::with_suppressed(line, suppressed));
    let line = with_number.as_deref().unwrap_or(line);
    let written = match target.sink {
        Sink::File(file) => file.write(line),
        // A datagram is a line already.
        Sink::Syslog(server) => server.send(line.trim_ascii_end()),
    };
    if !written {
        if let Some(head) = head {
            head.count(Count::LostLine);
        }
        complain();
    }
}

/// How often it is said that lines are lost, milliseconds: as often as `access_log` says so.
const SILENCE: u64 = 60_000;

/// Says in nginx's error log that lines are lost.
fn complain() {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let (now, last) = (time::current_msec().max(1), LAST.load(Ordering::Relaxed));
    if last == 0 || now.saturating_sub(last) >= SILENCE {
        LAST.store(now, Ordering::Relaxed);
        log::cycle_alert("upstream_diag: a line of upstream_diag_log could not be written");
    }
}
