//! What became of the client's request, and who made the error.

use crate::cause::Cause;
use crate::slugs::slugs;

/// What the client got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The gateway's error.
    Failed,
    /// A good answer all the same: from another attempt, a stale cache entry, an error page.
    Masked,
    /// A response that was not complete.
    Truncated,
    /// The upstream's own error.
    Passed,
    /// Nothing: the client left.
    Aborted,
}

slugs! {
    Outcome, "outcome":
    Failed = "failed",
    Masked = "masked",
    Truncated = "truncated",
    Passed = "passed",
    Aborted = "aborted",
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Outcome; 5] =
        [Outcome::Failed, Outcome::Masked, Outcome::Truncated, Outcome::Passed, Outcome::Aborted];

    /// The position in [`Outcome::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// Who made the error that the client would have got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// nginx, for want of an answer.
    Nginx,
    /// The upstream answered with it.
    Upstream,
    /// nginx's cache held it.
    Cache,
    /// nginx's configuration or another module.
    Config,
}

slugs! {
    Origin, "origin":
    Nginx = "nginx",
    Upstream = "upstream",
    Cache = "cache",
    Config = "config",
}

/// The origin that goes with a cause.
pub fn origin(cause: Cause) -> Origin {
    match cause {
        Cause::UpstreamResponse => Origin::Upstream,
        Cause::CachedError => Origin::Cache,
        Cause::LocalReturn => Origin::Config,
        _ => Origin::Nginx,
    }
}

/// What became of an error that an upstream answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The client got it.
    Passed,
    /// The client got an error page in its place (`ngx_http_upstream_intercept_errors`).
    Replaced,
    /// nginx tried another server (`ngx_http_upstream_test_next`).
    Retried,
    /// The cache had an old response (`proxy_cache_use_stale`).
    Stale,
    /// nginx followed the `X-Accel-Redirect` in it.
    Redirected,
    /// It was not the client who had asked.
    ToSubrequest,
}

impl Answer {
    /// Whether what the client got has nothing to do with it.
    fn is_dropped(self) -> bool {
        matches!(self, Answer::Retried | Answer::Stale | Answer::Redirected)
    }
}

/// How the client's request ended, or stands so far.
#[derive(Clone, Copy, Debug)]
pub struct Ending {
    /// The cause of the last failed attempt.
    pub cause: Cause,
    /// What became of the answer, where that is the cause and it is known.
    pub answer: Option<Answer>,
    /// The status the client got.
    pub status: u16,
    /// The failed attempt was the one that served the client, and its header had been sent.
    pub cut_short: bool,
    /// The client's connection is broken (`connection->error`).
    pub client_gone: bool,
}

/// `NGX_HTTP_CLIENT_CLOSED_REQUEST`.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// What became of a request in which an attempt failed.
pub fn outcome(ending: &Ending) -> Outcome {
    if ending.cut_short {
        Outcome::Truncated
    } else if ending.status == CLIENT_CLOSED_REQUEST {
        Outcome::Aborted
    } else if ending.status >= 500 {
        let dropped = || ending.answer.is_some_and(Answer::is_dropped);
        if ending.cause == Cause::UpstreamResponse && !dropped() {
            Outcome::Passed
        } else {
            Outcome::Failed
        }
    } else if ending.client_gone {
        Outcome::Aborted
    } else {
        Outcome::Masked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes() {
        let end = Ending {
            cause: Cause::ConnectionRefused,
            answer: None,
            status: 502,
            cut_short: false,
            client_gone: false,
        };
        assert_eq!(outcome(&end), Outcome::Failed);
        // The client may leave while the error page is being sent: it failed before that.
        assert_eq!(outcome(&Ending { client_gone: true, ..end }), Outcome::Failed);
        assert_eq!(outcome(&Ending { status: 200, ..end }), Outcome::Masked);
        assert_eq!(outcome(&Ending { status: 404, ..end }), Outcome::Masked);
        assert_eq!(outcome(&Ending { status: 499, ..end }), Outcome::Aborted);
        assert_eq!(outcome(&Ending { status: 200, client_gone: true, ..end }), Outcome::Aborted);
        assert_eq!(outcome(&Ending { status: 200, cut_short: true, ..end }), Outcome::Truncated);
        let passed = Ending { cause: Cause::UpstreamResponse, ..end };
        assert_eq!(outcome(&passed), Outcome::Passed);
        assert_eq!(outcome(&Ending { status: 200, ..passed }), Outcome::Masked);
        // What the client got is another server's answer.
        let retried = Ending { answer: Some(Answer::Retried), status: 500, ..passed };
        assert_eq!(outcome(&retried), Outcome::Failed);
        let replaced = Ending { answer: Some(Answer::Replaced), status: 500, ..passed };
        assert_eq!(outcome(&replaced), Outcome::Passed);
    }

    #[test]
    fn indexes_follow_the_list() {
        for (at, outcome) in Outcome::ALL.iter().enumerate() {
            assert_eq!(outcome.index(), at);
        }
    }
}
