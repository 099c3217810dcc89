//! `upstream_diag_log`.

use diagnosis::zone::RATES;

use super::{ConfError, number, set_once};
use crate::ffi::command::Directive;
use crate::ffi::conf::Conf;
use crate::ffi::output::{Condition, OpenFile, Syslog};

/// One `upstream_diag_log`.
#[derive(Clone)]
pub(crate) struct LogTarget {
    /// Where the lines go.
    pub(crate) sink: Sink,
    /// `if=`.
    pub(crate) condition: Option<Condition>,
    /// `rate=`.
    pub(crate) rate: Option<Rate>,
}

/// How many lines a log takes.
#[derive(Clone, Copy)]
pub(crate) struct Rate {
    /// Its account in the zone.
    pub(crate) number: usize,
    /// Lines a second, all workers together.
    pub(crate) lines: u32,
}

/// Where log lines go.
#[derive(Clone, Copy)]
pub(crate) enum Sink {
    /// A file.
    File(OpenFile),
    /// A syslog server.
    Syslog(Syslog),
}

/// `upstream_diag_log path|syslog:…|off [if=condition] [rate=Nr/s]`
pub(crate) struct UpstreamDiagLog;

impl Directive for UpstreamDiagLog {
    fn set(cf: &mut Conf<'_>) -> Result<(), ConfError> {
        let given = cf.words();
        let target = given.get(1).copied().unwrap_or_default();
        let parameters = given.get(2..).unwrap_or_default();
        let before = cf.loc_conf().and_then(|conf| conf.logs.as_ref().map(Vec::len));
        if target == b"off" {
            if before.is_some() {
                return Err(ConfError::LogOffAmongOthers);
            }
            if !parameters.is_empty() {
                return Err(ConfError::ParameterBehindOff);
            }
            cf.loc_conf().ok_or(ConfError::Reported)?.logs = Some(Vec::new());
            return Ok(());
        }
        if before == Some(0) {
            return Err(ConfError::LogOffAmongOthers);
        }
        let (mut condition, mut rate) = (None, None);
        for parameter in parameters {
            let taken = match parameter.strip_prefix(b"if=") {
                Some(value) if !value.is_empty() && condition.is_none() => {
                    condition = Some(cf.compile(value).ok_or(ConfError::Reported)?);
                    true
                }
                Some(_) => false,
                None => parameter
                    .strip_prefix(b"rate=")
                    .and_then(|value| value.strip_suffix(b"r/s"))
                    .is_some_and(|value| set_once(&mut rate, number(value).and_then(small))),
            };
            if !taken {
                return Err(ConfError::InvalidParameter {
                    directive: "upstream_diag_log",
                    value: diagnosis::text(parameter).into_owned(),
                });
            }
        }
        let rate = rate.map(|lines| count_rate(cf, lines)).transpose()?;
        let sink = if target.starts_with(b"syslog:") {
            Sink::Syslog(cf.open_syslog().ok_or(ConfError::Reported)?)
        } else if target.is_empty() || target.contains(&b'$') || target.starts_with(b"memory:") {
            return Err(ConfError::InvalidParameter {
                directive: "upstream_diag_log",
                value: diagnosis::text(target).into_owned(),
            });
        } else {
            Sink::File(cf.open_file(target).ok_or(ConfError::Reported)?)
        };
        let conf = cf.loc_conf().ok_or(ConfError::Reported)?;
        conf.logs.get_or_insert_default().push(LogTarget { sink, condition, rate });
        Ok(())
    }
}

fn small(number: usize) -> Option<u32> {
    u32::try_from(number).ok()
}

/// The account of a log with `rate=`: its place among those of the configuration. After a reload
/// that adds one before it, it goes on with the second of another.
fn count_rate(cf: &mut Conf<'_>, lines: u32) -> Result<Rate, ConfError> {
    let main = cf.main_conf().ok_or(ConfError::Reported)?;
    let number = main.rates;
    if number >= RATES {
        return Err(ConfError::TooManyRates(RATES));
    }
    main.rates = number.saturating_add(1);
    Ok(Rate { number, lines })
}
