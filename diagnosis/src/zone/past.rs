//! What a failed attempt tells of its peer, and what is known of a peer from before.

use super::{Closes, Outage, Spared};
use crate::cause::{Cause, Phase};
use crate::record::Attempt;
use crate::seconds::Seconds;

/// What is noted of a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Noted {
    /// Why it failed.
    pub cause: Cause,
    /// When: milliseconds of nginx's clock.
    pub at: u64,
    /// That the upstream closed the connection, and how old that or the request was.
    pub close: Option<Close>,
}

impl Noted {
    /// What is to be noted of an attempt. `None` if it did not fail.
    pub fn of(attempt: &Attempt, now: u64) -> Option<Noted> {
        let at = attempt.failed_at.unwrap_or(now);
        Some(Noted { cause: attempt.cause?, at, close: Close::of(attempt) })
    }
}

/// A connection that the upstream closed before the response, and the age that tells of a
/// timeout. Milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// A reused one, when it was to be used again: how long nothing had come on it.
    Idle(u64),
    /// One that the upstream had a request on: for how long.
    Waiting(u64),
}

/// A close by a keep-alive timeout crosses the request on its way: it is seen within a round trip,
/// and what nginx may take to look at the connection, milliseconds.
const LOOK: u64 = 20;

/// What is more than this after the request was sent is told as something else than a race, a
/// crash for one. Between the two it can have been either: it is no evidence of a keep-alive
/// timeout, and not shown as the opposite. Milliseconds.
const RACE: u64 = 200;

impl Close {
    /// What the times say of a failed attempt.
    pub fn of(attempt: &Attempt) -> Option<Close> {
        let sent = since_sent(attempt)?;
        match attempt.cause? {
            Cause::KeepaliveRace => {
                let trip = attempt.tcp.as_ref().map_or(0, |tcp| tcp.rtt.millis());
                if sent > LOOK.saturating_add(trip.saturating_mul(3)) {
                    return Some(Close::Waiting(sent));
                }
                idle(attempt).map(Close::Idle)
            }
            Cause::ClosedBeforeResponse | Cause::ClosedInHeader => Some(Close::Waiting(sent)),
            Cause::ConnectionReset if attempt.phase == Some(Phase::Header) => {
                Some(Close::Waiting(sent))
            }
            _ => None,
        }
    }
}

/// How old a reused connection was when the request was sent on it: how long ago the last
/// response had ended. Milliseconds.
pub(crate) fn idle(attempt: &Attempt) -> Option<u64> {
    let tcp = attempt.tcp.as_ref()?;
    // TLS and HTTP/2 have something to say before they close: that is not the last response.
    if attempt.framed {
        return None;
    }
    tcp.idle?.millis().checked_sub(tcp.since_sent?.millis())
}

/// How long ago the request was sent: the kernel tells that, or nginx's own clock. Milliseconds.
pub(crate) fn since_sent(attempt: &Attempt) -> Option<u64> {
    let kernel = attempt.tcp.as_ref().and_then(|tcp| tcp.since_sent);
    kernel.or(attempt.waited).map(Seconds::millis)
}

/// For how long the upstream had had the request when it closed a reused connection, if that was
/// too long for a race. Milliseconds.
pub(crate) fn worked_on(attempt: &Attempt) -> Option<u64> {
    since_sent(attempt).filter(|sent| *sent > RACE)
}

/// How long a peer has to be known before it can be said that it never accepted a connection,
/// milliseconds.
pub(crate) const STALE: u64 = 10_000;

/// What a failure says of whether the peer accepts connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// The host answered, and nobody listens.
    Refused,
    /// No answer, or one from the network.
    NotReached,
    /// A connection was made.
    Reached,
    /// Nothing: it failed on this side, or it is not known where.
    Unknown,
}

/// What each cause says, in the order of [`Cause::ALL`].
pub(super) const REACHES: [Reach; Cause::ALL.len()] = {
    let mut reaches = [Reach::Unknown; _];
    let (mut causes, mut places) = (Cause::ALL, reaches.as_mut_slice());
    while let ([cause, others @ ..], [place, rest @ ..]) = (causes, places) {
        *place = reach(*cause);
        (causes, places) = (others, rest);
    }
    reaches
};

/// What a cause says of whether the peer accepts connections.
pub(crate) const fn reach(cause: Cause) -> Reach {
    match cause {
        Cause::ConnectionRefused | Cause::SocketNotFound => Reach::Refused,
        Cause::ConnectionTimedOut | Cause::Unreachable => Reach::NotReached,
        Cause::UpstreamResponse | Cause::ListenQueueFull => Reach::Reached,
        _ => match cause.row().phase {
            Some(Phase::Tls | Phase::Send | Phase::Header | Phase::Body) => Reach::Reached,
            Some(Phase::Resolve | Phase::Select | Phase::Connect) | None => Reach::Unknown,
        },
    }
}

/// What is known of a peer from before. Times are milliseconds ago, or how many it took.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Past {
    /// For how long the peer has been known: it was configured then, or first used.
    pub known_for: u64,
    /// Good attempts.
    pub ok: u64,
    /// When the last of them ended.
    pub last_ok: Option<u64>,
    /// Failed ones since that.
    pub failures: u64,
    /// When the first of those failed.
    pub failing_for: Option<u64>,
    /// Of a peer that has not answered in all the time that takes to call it stale: attempts whose
    /// connections could not be made, for a reason on the peer's side.
    pub not_reached: u64,
    /// And failed ones with a connection.
    pub reached: u64,
    /// The outage that goes on.
    pub outage: Option<Outage>,
    /// The latest that are over, the oldest first.
    pub outages: Vec<Outage>,
    /// How long reused connections had been idle that were closed ([`Close::Idle`]).
    pub idle: Closes,
    /// Of the latest of these, those before which an older connection had been used again with
    /// success: no timeout closed them.
    pub outlived: u64,
    /// How long requests had been with the upstream when it closed ([`Close::Waiting`]).
    pub waiting: Closes,
    /// Of these, which lived on when others were closed.
    pub spared: Spared,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Tcp;

    fn attempt(cause: Cause, idle: u64, since_sent: u64) -> Attempt {
        Attempt {
            cause: Some(cause),
            phase: Some(Phase::Header),
            tcp: Some(Tcp {
                state: "CLOSE_WAIT",
                rtt: Seconds::Micros(2_000),
                retransmits: 0,
                idle: Some(Seconds::Millis(idle)),
                since_sent: Some(Seconds::Millis(since_sent)),
            }),
            ..Attempt::default()
        }
    }

    #[test]
    fn ages_of_closes() {
        let race = |idle, sent| Close::of(&attempt(Cause::KeepaliveRace, idle, sent));
        assert_eq!(race(5_004, 4), Some(Close::Idle(5_000)));
        // Three round trips longer than nginx takes to look; not one more.
        assert_eq!(race(5_026, 26), Some(Close::Idle(5_000)));
        assert_eq!(race(5_027, 27), Some(Close::Waiting(27)));
        assert_eq!(race(5_201, 201), Some(Close::Waiting(201)));
        // Something came after the request was sent: that is no response, and no idle age.
        assert_eq!(race(3, 4), None);
        let fresh = |cause, sent| Close::of(&attempt(cause, 9, sent));
        assert_eq!(fresh(Cause::ClosedBeforeResponse, 2_000), Some(Close::Waiting(2_000)));
        assert_eq!(fresh(Cause::ClosedInHeader, 0), Some(Close::Waiting(0)));
        assert_eq!(fresh(Cause::ConnectionReset, 30_000), Some(Close::Waiting(30_000)));
        assert_eq!(fresh(Cause::ResponseTimedOut, 60_000), None);
        assert_eq!(fresh(Cause::ResponseTruncated, 2_000), None);
    }

    /// Guards against the alert that ends a TLS connection, or the frame that ends one of HTTP/2,
    /// being taken for the last response.
    #[test]
    fn last_words_are_no_response() {
        let framed = Attempt { framed: true, ..attempt(Cause::KeepaliveRace, 2, 1) };
        assert_eq!(Close::of(&framed), None);
        let waiting = Attempt { framed: true, ..attempt(Cause::ClosedBeforeResponse, 2, 2_000) };
        assert_eq!(Close::of(&waiting), Some(Close::Waiting(2_000)));
    }

    #[test]
    fn without_the_kernel_nothing_is_known() {
        let unix = Attempt { tcp: None, ..attempt(Cause::KeepaliveRace, 1, 1) };
        assert_eq!(Close::of(&unix), None);
        // Of a unix socket nginx's clock tells, but not how long it had been idle.
        let waited = |cause, ms| {
            let waited = Some(Seconds::Millis(ms));
            Close::of(&Attempt { tcp: None, waited, ..attempt(cause, 1, 1) })
        };
        assert_eq!(waited(Cause::ConnectionReset, 2_003), Some(Close::Waiting(2_003)));
        assert_eq!(waited(Cause::KeepaliveRace, 2_003), Some(Close::Waiting(2_003)));
        assert_eq!(waited(Cause::KeepaliveRace, 3), None);
        let good = Attempt { cause: None, ..attempt(Cause::KeepaliveRace, 1, 1) };
        assert_eq!((Close::of(&good), Noted::of(&good, 7)), (None, None));
        let noted = Noted::of(&attempt(Cause::ConnectionRefused, 0, 0), 7);
        assert_eq!(noted, Some(Noted { cause: Cause::ConnectionRefused, at: 7, close: None }));
    }

    /// Guards against a failure on this side being held against the peer.
    #[test]
    fn what_causes_say_of_the_peer() {
        let all = |wanted| Cause::ALL.iter().copied().filter(move |cause| reach(*cause) == wanted);
        let unknown: Vec<&str> = all(Reach::Unknown).map(Cause::slug).collect();
        assert_eq!(
            unknown,
            [
                "dns_no_resolver",
                "dns_not_found",
                "dns_timed_out",
                "dns_failure",
                "no_live_upstreams",
                "max_conns_reached",
                "invalid_upstream_url",
                "permission_denied",
                "local_ports_exhausted",
                "local_fds_exhausted",
                "worker_connections_exhausted",
                "bind_failed",
                "cached_error",
                "local_return",
                "internal_error",
                "unknown",
            ]
        );
        assert_eq!((all(Reach::Refused).count(), all(Reach::NotReached).count()), (2, 2));
    }
}
