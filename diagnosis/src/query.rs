//! What a client asks of the status endpoint: in which format, and which of the latest records.
//!
//! All of it comes from outside. What is not understood is an error and not passed over: a filter
//! with a typo in it that gives every record looks like an answer.

mod accept;
mod select;

use std::borrow::Cow;

use thiserror::Error;

use crate::cause::Cause;
use crate::exposition;

/// Version of the JSON object that tells an error.
const VERSION: u8 = 1;

/// What the status endpoint can give: the values of `upstream_diag_status` and of `format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// The document.
    Json,
    /// The metrics.
    Prometheus,
}

impl View {
    /// Every view.
    pub const ALL: [View; 2] = [View::Json, View::Prometheus];

    /// The name used in the directive and in the query string.
    pub fn slug(self) -> &'static str {
        match self {
            View::Json => "json",
            View::Prometheus => "prometheus",
        }
    }

    /// The view of a name.
    pub fn named(name: &str) -> Option<View> {
        View::ALL.into_iter().find(|view| view.slug() == name)
    }
}

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The JSON document.
    Json,
    /// The metrics as text for Prometheus, version 0.0.4.
    Prometheus,
    /// The metrics as OpenMetrics, version 1.0.0.
    OpenMetrics,
}

impl Format {
    /// The value of `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Json => "application/json",
            Format::Prometheus => exposition::PROMETHEUS,
            Format::OpenMetrics => exposition::OPENMETRICS,
        }
    }

    fn media_type(self) -> (&'static str, &'static str) {
        match self {
            Format::Json => ("application", "json"),
            Format::Prometheus => ("text", "plain"),
            Format::OpenMetrics => ("application", "openmetrics-text"),
        }
    }
}

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// The format of the answer.
    pub format: Format,
    /// Only records of this upstream; the empty name is that of records that have none.
    pub upstream: Option<String>,
    /// Only records with an attempt on this peer; the empty name stands for attempts without one.
    pub peer: Option<String>,
    /// Only records with this verdict.
    pub cause: Option<Cause>,
    /// No more records than that.
    pub limit: Option<usize>,
}

/// Why a query is refused. The texts can be shown anywhere: see `quoted`.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum QueryError {
    /// There is no such parameter.
    #[error("unknown parameter '{0}': there are {names}", names = PARAMETERS.join(", "))]
    UnknownParameter(String),
    /// It stands there twice.
    #[error("parameter '{0}' is given twice")]
    Duplicate(&'static str),
    /// There is no such format.
    #[error("unknown format '{0}': there are {names}", names = View::ALL.map(View::slug).join(", "))]
    UnknownFormat(String),
    /// There is no such cause.
    #[error("unknown cause '{0}': the document lists all of them in totals.causes")]
    UnknownCause(String),
    /// It is no number.
    #[error("limit '{0}' is not a number of records")]
    BadLimit(String),
}

impl QueryError {
    /// The body of the response, with a line feed at its end.
    pub fn to_json(&self) -> Vec<u8> {
        format!("{}\n", serde_json::json!({ "v": VERSION, "error": self.to_string() })).into_bytes()
    }
}

const PARAMETERS: [&str; 5] = ["format", "upstream", "peer", "cause", "limit"];

/// What is asked for: by the argument of `upstream_diag_status`, the query string (without its
/// question mark) and the `Accept` header, in this order. Between the two formats of the metrics
/// the header decides even where one of the others asks for metrics.
///
/// # Errors
/// What the query string has that is not understood.
pub fn negotiate(
    directive: Option<View>,
    args: &[u8],
    accept: Option<&[u8]>,
) -> Result<Query, QueryError> {
    let [format, upstream, peer, cause, limit] = parameters(args)?;
    let asked = format.map(|name| view(&name)).transpose()?;
    let offers: &[Format] = match directive.or(asked) {
        Some(View::Json) => &[Format::Json],
        Some(View::Prometheus) => &[Format::Prometheus, Format::OpenMetrics],
        None => &[Format::Json, Format::Prometheus, Format::OpenMetrics],
    };
    Ok(Query {
        format: accept::choose(accept.unwrap_or_default(), offers).unwrap_or(Format::Json),
        upstream: upstream.map(Cow::into_owned),
        peer: peer.map(Cow::into_owned),
        cause: cause.map(|slug| named_cause(&slug)).transpose()?,
        limit: limit.map(|digits| number(&digits)).transpose()?,
    })
}

/// The values of [`PARAMETERS`].
fn parameters(args: &[u8]) -> Result<[Option<Cow<'_, str>>; 5], QueryError> {
    let mut values = [const { None }; 5];
    for (name, value) in form_urlencoded::parse(args) {
        let known = PARAMETERS.into_iter().zip(&mut values).find(|(known, _)| *known == name);
        let Some((known, place)) = known else {
            return Err(QueryError::UnknownParameter(quoted(&name)));
        };
        if place.replace(value).is_some() {
            return Err(QueryError::Duplicate(known));
        }
    }
    Ok(values)
}

fn view(name: &str) -> Result<View, QueryError> {
    View::named(name).ok_or_else(|| QueryError::UnknownFormat(quoted(name)))
}

fn named_cause(slug: &str) -> Result<Cause, QueryError> {
    let found = Cause::ALL.iter().find(|cause| cause.slug() == slug);
    found.copied().ok_or_else(|| QueryError::UnknownCause(quoted(slug)))
}

fn number(digits: &str) -> Result<usize, QueryError> {
    let bad = || QueryError::BadLimit(quoted(digits));
    // parse() takes a sign too.
    if digits.bytes().all(|byte| byte.is_ascii_digit()) {
        digits.parse().map_err(|_| bad())
    } else {
        Err(bad())
    }
}

/// What came from outside as it may be shown anywhere: short, and without a character that means
/// something to JSON, HTML, a terminal or a log.
fn quoted(text: &str) -> String {
    const LONGEST: usize = 40;
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:/ ".contains(c);
    let mut quoted: String =
        text.chars().take(LONGEST).map(|c| if plain(c) { c } else { '?' }).collect();
    if text.chars().nth(LONGEST).is_some() {
        quoted.push_str("...");
    }
    quoted
}

#[cfg(test)]
mod tests;
