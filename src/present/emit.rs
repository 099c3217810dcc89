//! At the end of a request: counts it, keeps its record and writes its line.

use std::sync::atomic::{AtomicU64, Ordering};

use diagnosis::zone::{Allowed, Count};

use super::Diagnosed;
use crate::directives::{LocConf, LogTarget, MainConf, Sink};
use crate::ffi::request::Request;
use crate::ffi::{hooks, log, time};
use crate::record::Diagnosis;

/// Called in the log phase of a request in which an upstream may have failed.
pub(crate) fn emit(request: Request<'_>) {
    // Subrequests reach this phase only with log_subrequest on; their records are written with
    // the main request's, which comes last in any case.
    if !request.is_main() {
        return;
    }
    let noted = hooks::with(request, |diagnosis| {
        let main = prepare(request, Some(diagnosis)).map(|ready| (request, ready));
        let subrequests = diagnosis.subrequests(request.id()).into_iter().filter_map(|id| {
            let subrequest = id.subrequest(request)?;
            Some((subrequest, prepare(subrequest, Some(diagnosis))?))
        });
        subrequests.chain(main).collect::<Vec<_>>()
    });
    // Outside of with(): evaluating `if=` reads variables, which look at the record again.
    let Ok(noted) = noted else { return };
    let ready = noted.unwrap_or_else(|| {
        prepare(request, None).map(|ready| (request, ready)).into_iter().collect()
    });
    for (request, ready) in ready {
        ready.deliver(request);
    }
}

struct Ready {
    conf: &'static LocConf,
    record: diagnosis::Record,
}

fn prepare<'a>(request: Request<'a>, diagnosis: Option<&Diagnosis>) -> Option<Ready> {
    let diagnosed = Diagnosed::new(request, diagnosis)?;
    let conf = diagnosed.conf().filter(|conf| conf.enabled())?;
    Some(Ready { conf, record: diagnosed.record()? })
}

impl Ready {
    fn deliver(&self, request: Request<'_>) {
        let Some(main) = request.main_conf() else { return };
        let json = self.record.to_json().ok();
        let verdict = (self.record.outcome, self.record.cause);
        let upstream = self.record.upstream.as_deref();
        main.locked(|memory, ring| {
            let time = u64::try_from(time::now()).unwrap_or(0);
            memory.count_record(upstream, verdict, time::current_msec(), time);
            let kept =
                json.as_ref().is_some_and(|json| memory.head().ring.push(ring, json.as_bytes()));
            if !kept {
                memory.head().count(Count::LostRecord);
            }
        });
        if let Some(json) = json {
            self.conf.logs().iter().for_each(|target| write(request, main, target, &json));
        }
    }
}

/// Writes a line to one target.
fn write(request: Request<'_>, main: &MainConf, target: &LogTarget, json: &str) {
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
    let line = diagnosis::Record::line(json, suppressed);
    let written = match target.sink {
        Sink::File(file) => file.write(line.as_bytes()),
        // A datagram is a line already.
        Sink::Syslog(server) => server.send(line.trim_end().as_bytes()),
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
