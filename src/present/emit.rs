//! At the end of a request: counts it, keeps its record and writes its line.

use super::Diagnosed;
use crate::directives::{LocConf, LogTarget, Sink};
use crate::ffi::hooks;
use crate::ffi::request::Request;
use crate::observe;
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
        let main = observe::unnoted_error(request).then(|| prepare(request, None)).flatten();
        main.map(|ready| (request, ready)).into_iter().collect()
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
    let conf = diagnosed.conf(diagnosis).filter(|conf| conf.enabled())?;
    Some(Ready { conf, record: diagnosed.record(diagnosis)? })
}

impl Ready {
    fn deliver(&self, request: Request<'_>) {
        let zone = request.main_conf().and_then(|conf| conf.zone);
        let shared = zone.and_then(|zone| zone.shared());
        if let Some(shared) = shared {
            shared.count(self.record.outcome, self.record.cause);
        }
        let kept = match self.record.to_json() {
            Ok(mut json) => {
                let kept = zone.is_none_or(|zone| {
                    zone.locked(|shared, ring| shared.ring.push(ring, json.as_bytes()))
                        .unwrap_or(false)
                });
                json.push('\n');
                self.conf.logs().iter().fold(kept, |ok, target| write(request, target, &json) && ok)
            }
            Err(_) => false,
        };
        if let Some(shared) = shared
            && !kept
        {
            shared.count_dropped();
        }
    }
}

/// Writes a line to one target. False if it was lost.
fn write(request: Request<'_>, target: &LogTarget, line: &str) -> bool {
    if target.condition.is_some_and(|condition| !condition.holds(request)) {
        return true;
    }
    match target.sink {
        Sink::File(file) => file.write(line.as_bytes()),
        // A datagram is a line already.
        Sink::Syslog(server) => server.send(line.trim_end().as_bytes()),
    }
}
