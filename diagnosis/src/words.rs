//! Plain English: the sentence that says what happened, and the one that says what to do.

use nix::errno::Errno;

use crate::cause::{Cause, Phase};
use crate::outcome::Outcome;
use crate::protocol::Mismatch;
use crate::record::{Attempt, Header};
use crate::seconds::Seconds;
use crate::tls;

/// One sentence with the numbers in it.
pub fn summary(
    cause: Cause,
    failed: &Attempt,
    upstream: Option<&str>,
    module: Option<&str>,
    outcome: Outcome,
) -> String {
    let peer = failed.peer.as_deref().or(upstream).unwrap_or("the upstream");
    let plain = || for_module(cause.row().meaning, module).replace("{peer}", peer);
    let elapsed = failed.elapsed;
    let mut sentence = match cause {
        Cause::HeaderTooBig => header_too_big(peer, failed.header.as_ref()).unwrap_or_else(plain),
        Cause::KeepaliveRace => keepalive_race(peer, failed),
        Cause::ConnectionTimedOut => match failed.connect_time {
            Some(time) => format!("{peer} did not answer the connection attempt within {time} s"),
            None => plain(),
        },
        Cause::ResponseTimedOut => match elapsed {
            Some(time) => {
                format!("{peer} accepted the request and sent no response header within {time} s")
            }
            None => plain(),
        },
        Cause::ClosedInHeader => match &failed.header {
            Some(header) => format!(
                "{peer} closed the connection after {} bytes of the response header",
                header.size
            ),
            None => plain(),
        },
        Cause::TlsAlertReceived => match failed.tls.as_ref().and_then(|tls| tls.alert) {
            Some(alert) => {
                let name = tls::alert_name(alert).map(|name| format!("{name} "));
                let name = name.unwrap_or_default();
                format!("{peer} ended the TLS handshake with the alert {name}({alert})")
            }
            None => plain(),
        },
        Cause::TlsCertificateError => match failed.tls.as_ref().and_then(|tls| tls.verify.as_ref())
        {
            Some(reason) => format!("{}: {reason}", plain()),
            None => plain(),
        },
        Cause::ProtocolMismatch => match failed.mismatch {
            Some(Mismatch { found, expected }) => {
                format!("{peer} speaks {}, not {expected}", found.name)
            }
            None => format!(
                "{peer} answered the TLS handshake with what is no TLS: it speaks another protocol"
            ),
        },
        Cause::UpstreamResponse => match failed.status {
            Some(status) => format!("{peer} answered {status} itself"),
            None => plain(),
        },
        Cause::CachedError => match failed.status {
            Some(status) => {
                format!("the {status} is that of an earlier request: nginx's cache kept it")
            }
            None => plain(),
        },
        Cause::LocalReturn => match failed.status {
            Some(status) => format!(
                "the {status} was made by nginx's configuration or another module, not by a failing upstream"
            ),
            None => plain(),
        },
        Cause::DnsNoResolver | Cause::DnsNotFound | Cause::DnsTimedOut | Cause::DnsFailure => {
            match upstream {
                Some(name) => format!("{name} could not be resolved: {}", plain()),
                None => plain(),
            }
        }
        Cause::NoLiveUpstreams | Cause::MaxConnsReached => match upstream {
            Some(group) => format!("upstream \"{group}\": {}", plain()),
            None => plain(),
        },
        Cause::Unknown => match &failed.message {
            Some(message) => format!("{}: {message}", plain()),
            None => plain(),
        },
        _ => plain(),
    };
    // A timeout says so in words: its errno is nginx's own (`NGX_ETIMEDOUT`).
    if let Some(name) = &failed.errname
        && failed.errno != Some(Errno::ETIMEDOUT as i32)
    {
        sentence.push_str(&format!(" ({name})"));
    }
    sentence.push('.');
    if outcome == Outcome::Masked {
        sentence.push_str(" The client was served all the same.");
    }
    // The sentence may go into a response header, and names in it may come from variables.
    capitalised(sentence.replace(char::is_control, "?"))
}

/// What to do first.
pub fn advice(cause: Cause, failed: &Attempt, module: Option<&str>) -> String {
    match (cause, &failed.header, failed.mismatch) {
        (Cause::HeaderTooBig, Some(header), _) => buffer_advice(header),
        (Cause::KeepaliveRace, ..) if worked_on(failed).is_some() => {
            Cause::ClosedBeforeResponse.row().advice.to_owned()
        }
        (Cause::ConnectionRefused, ..) if is_unix(failed) => {
            "The socket file is there and nobody listens: start the upstream (ss -lx shows who does)."
                .to_owned()
        }
        // Names the directive to change to, not that of the module in use.
        (Cause::ProtocolMismatch, _, Some(mismatch)) => mismatch.advice().to_owned(),
        _ => {
            let alert = failed.tls.as_ref().and_then(|tls| tls.alert);
            let no_tls = cause == Cause::ProtocolMismatch && failed.phase == Some(Phase::Tls);
            let particular =
                alert.and_then(tls::alert_advice).or(no_tls.then_some(tls::NO_TLS_ADVICE));
            for_module(particular.unwrap_or(cause.row().advice), module)
        }
    }
}

/// The tables name the directives of the proxy module; those of the others are called alike.
fn for_module(text: &str, module: Option<&str>) -> String {
    match module {
        Some(name @ ("fastcgi" | "uwsgi" | "scgi" | "grpc" | "memcached")) => {
            text.replace("proxy_", &format!("{name}_"))
        }
        _ => text.to_owned(),
    }
}

fn header_too_big(peer: &str, header: Option<&Header>) -> Option<String> {
    let Header { size, exact, limit, directive, .. } = header?;
    let bound = if *exact { "" } else { "at least " };
    let buffer = directive.as_deref().unwrap_or("nginx's buffer");
    Some(format!("{peer} sent a response header of {bound}{size} bytes; {buffer} is {limit}"))
}

fn is_unix(failed: &Attempt) -> bool {
    failed.peer.as_deref().is_some_and(|peer| peer.starts_with("unix:"))
}

/// A close by the upstream's keep-alive timeout crosses the request on its way: it is seen within
/// a round trip. One that comes later than this after the request was sent is something else, a
/// crash for one.
const RACE: u64 = 200;

/// How long the upstream had the request before it closed, if that was too long for a race.
fn worked_on(failed: &Attempt) -> Option<u64> {
    match failed.tcp.as_ref()?.since_sent? {
        Seconds::Millis(ms) if ms > RACE => Some(ms),
        _ => None,
    }
}

fn keepalive_race(peer: &str, failed: &Attempt) -> String {
    let did = if failed.errno.is_some() { "reset" } else { "closed" };
    if let Some(ms) = worked_on(failed) {
        let time = rounded(Seconds::Millis(ms));
        return format!(
            "{peer} {did} a reused connection {time} s after the request was sent, before sending a byte"
        );
    }
    // The age at the time of the request: what came after that is not idleness.
    let idle = failed.tcp.as_ref().and_then(|tcp| match (tcp.idle?, tcp.since_sent?) {
        (Seconds::Millis(idle), Seconds::Millis(sent)) => {
            Some(Seconds::Millis(idle.saturating_sub(sent)))
        }
        _ => None,
    });
    match idle {
        Some(idle) => format!(
            "{peer} {did} a reused connection {} s after its last response, before sending a byte",
            rounded(idle)
        ),
        None => format!("{peer} {did} a reused connection before sending a byte of the response"),
    }
}

/// An age is read by people: hundredths of a second are enough.
fn rounded(time: Seconds) -> String {
    match time {
        Seconds::Millis(ms) => {
            let hundredths = ms.saturating_add(5) / 10;
            format!("{}.{:02}", hundredths / 100, hundredths % 100)
        }
        other => other.to_string(),
    }
}

/// Page size that nginx's buffer directives default to, and the step values are given in.
const STEP: u64 = 4_096;

/// With the defaults (`proxy_buffers 8 4k`), `proxy_busy_buffers_size` is twice the larger of the
/// two sizes and must stay below all buffers less one (28k): `ngx_http_proxy_merge_loc_conf`.
const LARGEST_WITH_DEFAULT_BUFFERS: u64 = 12_288;

/// The protocol modules that have such buffers; grpc and memcached have only the one for the header.
const WITH_BUFFERS: [&str; 4] = ["proxy", "fastcgi", "uwsgi", "scgi"];

fn buffer_advice(header: &Header) -> String {
    let directive = header.directive.as_deref().unwrap_or("proxy_buffer_size");
    // One byte more than the header: nginx takes a header that fills the buffer to the byte for
    // the end of the response.
    let wanted = header.size.saturating_add(header.reserved).max(header.limit).saturating_add(1);
    let value = wanted.div_ceil(STEP).saturating_mul(STEP);
    let kilobytes = value / 1_024;
    let mut advice = if header.exact {
        format!("Set {directive} {kilobytes}k; ")
    } else {
        format!("Set {directive} to at least {kilobytes}k: the header's end was not seen; ")
    };
    let module = directive.strip_suffix("_buffer_size").unwrap_or_default();
    if value > LARGEST_WITH_DEFAULT_BUFFERS && WITH_BUFFERS.contains(&module) {
        advice.push_str(&format!("with it {module}_buffers 8 {kilobytes}k; "));
    }
    advice
        .push_str("or make the upstream send less, large Set-Cookie headers are the usual reason.");
    advice
}

/// Capitalises a sentence that begins with a word of ours; a peer's name and "nginx" stay.
fn capitalised(mut sentence: String) -> String {
    let ours = ["the ", "no ", "upstream "].iter().any(|word| sentence.starts_with(word));
    if let Some(first) = sentence.get_mut(..1)
        && ours
    {
        first.make_ascii_uppercase();
    }
    sentence
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Tcp;

    fn attempt() -> Attempt {
        Attempt { peer: Some("10.0.3.7:8080".into()), ..Attempt::default() }
    }

    fn said(cause: Cause, failed: &Attempt) -> String {
        summary(cause, failed, Some("app"), None, Outcome::Failed)
    }

    #[test]
    fn sentences() {
        let refused =
            Attempt { errno: Some(111), errname: Some("ECONNREFUSED".into()), ..attempt() };
        assert_eq!(
            said(Cause::ConnectionRefused, &refused),
            "10.0.3.7:8080 refused the connection (ECONNREFUSED)."
        );
        assert_eq!(
            summary(Cause::ConnectionRefused, &refused, None, None, Outcome::Masked),
            "10.0.3.7:8080 refused the connection (ECONNREFUSED). The client was served all the same."
        );
        let tcp = Tcp {
            state: "CLOSE_WAIT",
            rtt: Seconds::Micros(39),
            retransmits: 0,
            idle: Some(Seconds::Millis(5_003)),
            since_sent: Some(Seconds::Millis(1)),
        };
        let crash = Tcp { since_sent: Some(Seconds::Millis(1_502)), ..tcp.clone() };
        let crash = Attempt { tcp: Some(crash), ..attempt() };
        assert_eq!(
            said(Cause::KeepaliveRace, &crash),
            "10.0.3.7:8080 closed a reused connection 1.50 s after the request was sent, before sending a byte."
        );
        assert!(super::advice(Cause::KeepaliveRace, &crash, None).starts_with("Look for a crash"));
        assert_eq!(
            said(Cause::KeepaliveRace, &Attempt { tcp: Some(tcp), ..attempt() }),
            "10.0.3.7:8080 closed a reused connection 5.00 s after its last response, before sending a byte."
        );
        let slow = Attempt {
            elapsed: Some(Seconds::Millis(60_001)),
            errno: Some(110),
            errname: Some("ETIMEDOUT".into()),
            ..attempt()
        };
        assert_eq!(
            said(Cause::ResponseTimedOut, &slow),
            "10.0.3.7:8080 accepted the request and sent no response header within 60.001 s."
        );
        assert_eq!(
            said(Cause::NoLiveUpstreams, &Attempt { peer: Some("app".into()), ..attempt() }),
            "Upstream \"app\": nginx had no server of the group left to try: each is down, was taken out after failures or had been tried."
        );
        assert_eq!(
            summary(Cause::DnsNotFound, &Attempt::default(), Some("a.test"), None, Outcome::Failed),
            "a.test could not be resolved: the resolver says that the upstream's name does not exist (NXDOMAIN)."
        );
        let hostile = Attempt { peer: Some("unix:/a\r\nX: y".into()), ..Attempt::default() };
        assert!(said(Cause::SocketNotFound, &hostile).starts_with("unix:/a??X: y does not exist"));
        let strange = Attempt { message: Some("something new".into()), ..attempt() };
        assert_eq!(
            said(Cause::Unknown, &strange),
            "The request to 10.0.3.7:8080 failed, and the error nginx logged is not one this module knows: something new."
        );
    }

    #[test]
    fn directives_are_those_of_the_module() {
        let advice = |module| super::advice(Cause::ResponseTimedOut, &attempt(), Some(module));
        assert!(advice("proxy").contains("raise proxy_read_timeout"));
        assert!(advice("fastcgi").contains("raise fastcgi_read_timeout"));
        assert!(advice("something").contains("raise proxy_read_timeout"));
    }

    #[test]
    fn buffer_sizes_to_set() {
        let header = |size, exact, limit| Attempt {
            header: Some(Header {
                size,
                exact,
                limit,
                reserved: 0,
                directive: Some("proxy_buffer_size".into()),
            }),
            ..attempt()
        };
        assert_eq!(
            said(Cause::HeaderTooBig, &header(9_043, true, 4_096)),
            "10.0.3.7:8080 sent a response header of 9043 bytes; proxy_buffer_size is 4096."
        );
        let advice = |attempt| super::advice(Cause::HeaderTooBig, &attempt, None);
        assert!(advice(header(9_043, true, 4_096)).starts_with("Set proxy_buffer_size 12k; or"));
        assert!(advice(header(8_192, true, 4_096)).starts_with("Set proxy_buffer_size 12k; or"));
        assert!(
            advice(header(12_300, true, 4_096))
                .starts_with("Set proxy_buffer_size 16k; with it proxy_buffers 8 16k; or")
        );
        let mut cached = header(3_900, true, 4_096);
        if let Some(header) = cached.header.as_mut() {
            header.reserved = 352;
        }
        assert!(advice(cached).starts_with("Set proxy_buffer_size 8k; or"));
        assert!(
            advice(header(4_096, false, 4_096))
                .starts_with("Set proxy_buffer_size to at least 8k: the header's end was not seen")
        );
    }
}
