//! The variables.

use diagnosis::attempts::join;
use diagnosis::{Arena, Attempt, Phase};

use super::{Diagnosed, failed_subrequest};
use crate::ffi::hooks;
use crate::ffi::request::Request;
use crate::observe;
use crate::record::Diagnosis;

/// A variable: its name without the dollar sign, and how its value is made.
pub(crate) struct Variable {
    /// The name.
    pub(crate) name: &'static str,
    value: Value,
}

enum Value {
    /// One value, of the verdict.
    Verdict(fn(&Diagnosed<'_, '_>) -> &'static str),
    /// One value, of the whole record.
    Record(fn(&diagnosis::Record<'_, '_>) -> Option<String>),
    /// One value for each attempt.
    Attempts(fn(&Attempt) -> Option<String>),
}

use Value::{Attempts, Record, Verdict};

/// Every variable of the module.
pub(crate) const VARIABLES: &[Variable] = &[
    verdict("upstream_diag_cause", |diagnosed| diagnosed.cause.slug()),
    verdict("upstream_diag_phase", |diagnosed| diagnosed.phase().map_or("", Phase::slug)),
    verdict("upstream_diag_outcome", |diagnosed| diagnosed.outcome.slug()),
    verdict("upstream_diag_origin", |diagnosed| diagnosis::origin(diagnosed.cause).slug()),
    record("upstream_diag_summary", |record| Some(record.summary.to_string())),
    record("upstream_diag_advice", |record| Some(record.advice.to_string())),
    record("upstream_diag_json", |record| Some(record.to_json())),
    record("upstream_diag_proxy_status", |record| Some(diagnosis::proxy_status(record))),
    attempts("upstream_diag_causes", |attempt| attempt.cause.map(|cause| cause.slug().to_owned())),
    attempts("upstream_diag_errno", |attempt| attempt.errno.map(|errno| errno.to_string())),
    attempts("upstream_diag_errname", |attempt| attempt.errname().map(str::to_owned)),
    attempts("upstream_diag_connect_time", |attempt| {
        attempt.connect_time.map(|time| time.to_string())
    }),
    attempts("upstream_diag_header_size", |attempt| {
        attempt.header.as_ref().map(|header| header.size.to_string())
    }),
    attempts("upstream_diag_reused", |attempt| {
        attempt.reused.map(|reused| u8::from(reused).to_string())
    }),
    attempts("upstream_diag_peer_state", |attempt| {
        attempt.peer_state.as_ref().map(|peer| peer.state.slug().to_owned())
    }),
];

const fn verdict(name: &'static str, value: fn(&Diagnosed<'_, '_>) -> &'static str) -> Variable {
    Variable { name, value: Verdict(value) }
}

const fn record(
    name: &'static str,
    value: fn(&diagnosis::Record<'_, '_>) -> Option<String>,
) -> Variable {
    Variable { name, value: Record(value) }
}

const fn attempts(name: &'static str, value: fn(&Attempt) -> Option<String>) -> Variable {
    Variable { name, value: Attempts(value) }
}

/// The value of the variable at a place in [`VARIABLES`]; `None` for a request whose upstream did
/// not fail.
pub(crate) fn variable(request: Request<'_>, at: usize) -> Option<String> {
    let value = &VARIABLES.get(at)?.value;
    let noted = hooks::with(request, |diagnosis| {
        evaluate(request, Some(&mut *diagnosis), value).or_else(|| {
            let failed = failed_subrequest(request, diagnosis)?;
            evaluate(failed, Some(diagnosis), value)
        })
    });
    match noted.ok()? {
        Some(value) => value,
        // Nothing was noted: the error may be the upstream's own, or nobody's.
        None => evaluate(request, None, value),
    }
}

fn evaluate(
    request: Request<'_>,
    mut diagnosis: Option<&mut Diagnosis>,
    value: &Value,
) -> Option<String> {
    if let (Some(diagnosis), Record(_)) = (&mut diagnosis, value) {
        observe::add_histories(request, diagnosis);
    }
    let diagnosed = Diagnosed::new(request, diagnosis.as_deref())?;
    match value {
        Verdict(value) => Some(value(&diagnosed).to_owned()),
        Record(value) => {
            let place = diagnosed.place();
            let (parts, arena) = (diagnosed.parts(place), Arena::new());
            value(&diagnosis::Record::new(&parts, &arena)?)
        }
        Attempts(value) => Some(join(&diagnosed.assembled.slots(), value)),
    }
}
