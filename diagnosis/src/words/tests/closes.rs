//! What is said of connections that the upstream closed or reset.

use super::*;

#[test]
fn closes_and_resets() {
    let idle = case(Cause::KeepaliveRace, with_tcp(5_003, 1)).summary();
    assert_eq!(
        idle,
        "10.0.3.7:8080 closed a reused connection 5.00 s after its last response, before sending a byte."
    );
    // Guards against an idle timeout being looked for that nobody has set.
    let advice = |idle| case(Cause::KeepaliveRace, with_tcp(idle, 1)).advice();
    assert!(advice(91).starts_with("This soon it is hardly an idle timeout"), "{}", advice(91));
    assert!(advice(5_003).starts_with("Set keepalive_timeout"), "{}", advice(5_003));
    let reset = Attempt { tcp: with_tcp(5_003, 1).tcp, ..with_errno(104) };
    assert_eq!(
        case(Cause::KeepaliveRace, reset).summary(),
        "10.0.3.7:8080 reset a reused connection 5.00 s after its last response, before sending a byte (ECONNRESET)."
    );
    let crash = case(Cause::KeepaliveRace, with_tcp(6_500, 1_502));
    assert_eq!(
        crash.summary(),
        "10.0.3.7:8080 closed a reused connection 1.50 s after the request was sent, before sending a byte."
    );
    let killed = "Look for a crash, a worker that was killed (out of memory: dmesg or journalctl -k; SIGKILL by its supervisor; a segfault) or a timeout of its own in the upstream's log at that moment.";
    assert_eq!(crash.advice(), killed);
    let unread = Attempt { tcp: with_tcp(6_500, 502).tcp, ..with_errno(104) };
    let unread = case(Cause::KeepaliveRace, unread);
    assert_eq!(
        unread.summary(),
        "10.0.3.7:8080 reset a reused connection 0.50 s after the request was sent, before sending a byte (ECONNRESET)."
    );
    assert_eq!(
        unread.advice(),
        "The upstream had not read the request: it was too busy until its keep-alive timeout closed the connection (set keepalive_timeout in the upstream block below that), or it was stopped."
    );
    // Over TLS, and where the kernel heard something after the request, the age is not known.
    let unknown = "10.0.3.7:8080 closed a reused connection before sending a byte of the response.";
    let framed = Attempt { framed: true, ..with_tcp(12, 1) };
    assert_eq!(case(Cause::KeepaliveRace, framed).summary(), unknown);
    assert_eq!(case(Cause::KeepaliveRace, with_tcp(0, 1)).summary(), unknown);
    assert_eq!(
        case(Cause::ClosedBeforeResponse, with_tcp(9, 2_000)).summary(),
        "10.0.3.7:8080 closed the connection without sending a byte, 2.00 s after the request was sent."
    );
    assert_eq!(
        case(Cause::ClosedBeforeResponse, attempt()).summary(),
        "10.0.3.7:8080 closed the connection without sending a byte."
    );
    assert_eq!(case(Cause::ClosedBeforeResponse, with_tcp(9, 2_000)).advice(), killed);
    let header =
        Some(Header { size: 17, exact: false, limit: 4_096, reserved: 0, directive: None });
    assert_eq!(
        case(Cause::ClosedInHeader, Attempt { header, ..with_tcp(9, 3_000) }).summary(),
        "10.0.3.7:8080 closed the connection after 17 bytes of the response header, 3.00 s after the request was sent."
    );
    let cut = Attempt { bytes_received: Some(4_711), ..with_errno(104) };
    assert_eq!(
        case(Cause::ResponseTruncated, cut).summary(),
        "10.0.3.7:8080 closed the connection before the body was complete, after 4711 bytes of the response (ECONNRESET)."
    );
}

fn known(ok: u64) -> Option<Tally> {
    Some(Tally { ok, failed: 1, last_ok: None, consecutive_failures: 1 })
}

/// Guards against a port being suspected to want TLS that has it, has answered without, or is none;
/// and against that being left out where it is the usual reason.
#[test]
fn a_port_that_wants_tls() {
    for (cause, phase) in [
        (Cause::ClosedBeforeResponse, Phase::Header),
        (Cause::ConnectionReset, Phase::Header),
        (Cause::ConnectionReset, Phase::Send),
    ] {
        let first = || Attempt {
            phase: Some(phase),
            bytes_received: Some(0),
            history: known(0),
            ..with_tcp(9, 1)
        };
        let said = |module, failed| Case { module, ..case(cause, failed) }.advice();
        for (module, ends) in [
            ("proxy", "; if the port is for TLS, use https:// in proxy_pass."),
            ("grpc", "; if the port is for TLS, use grpcs:// in grpc_pass."),
            ("uwsgi", "; if the port is for TLS, use suwsgi:// in uwsgi_pass."),
        ] {
            let said = said(module, first());
            assert!(said.ends_with(ends) && said.len() <= LONGEST, "{said}");
        }
        let over_tls = Attempt { server_name: Some(false), ..first() };
        let answered = Attempt { history: known(1), ..first() };
        let unix = Attempt { peer: Some("unix:/run/a.sock".into()), ..first() };
        let unknown = Attempt { history: None, ..first() };
        for said in [
            said("proxy", over_tls),
            said("proxy", answered),
            said("proxy", unix),
            said("fastcgi", first()),
        ] {
            assert!(!said.contains("TLS"), "{said}");
        }
        assert!(!said("proxy", unknown).contains("if the port is"));
        // What was worked on was understood.
        let late = Attempt { tcp: with_tcp(9, 2_000).tcp, ..first() };
        assert!(phase == Phase::Send || !said("proxy", late).contains("TLS"));
        // So was what was answered in part.
        let begun = Attempt { bytes_received: Some(9), ..first() };
        assert!(cause != Cause::ConnectionReset || !said("proxy", begun).contains("TLS"));
    }
}

/// Guards against a killed worker being told as a reset, without saying that it had been at work;
/// and against a device between nginx and a unix socket.
#[test]
fn resets_in_the_middle_of_a_request() {
    let reset = |attempt| {
        let errno = with_errno(104).errno;
        Attempt { errno, bytes_received: Some(0), ..attempt }
    };
    let unix = |waited| Attempt {
        peer: Some("unix:/run/php.sock".into()),
        waited: Some(Seconds::Millis(waited)),
        ..reset(attempt())
    };
    let php = Case { module: "fastcgi", ..case(Cause::ConnectionReset, unix(3_412)) };
    assert_eq!(
        php.said(),
        (
            "unix:/run/php.sock reset the connection 3.41 s after the request was sent, before sending a byte (ECONNRESET).".into(),
            "Look for a crash, a worker that was killed (out of memory: dmesg or journalctl -k; SIGKILL by its supervisor; a segfault) or a timeout of its own in the upstream's log at that moment.".into()
        )
    );
    assert!(!case(Cause::ConnectionReset, unix(0)).advice().contains("between"));
    let tcp = case(Cause::ConnectionReset, reset(with_tcp(9, 3_412)));
    assert_eq!(
        tcp.said(),
        (
            "10.0.3.7:8080 reset the connection 3.41 s after the request was sent, before sending a byte (ECONNRESET).".into(),
            "Look for a crash or a worker that was killed (out of memory: dmesg, journalctl -k; by its supervisor; a segfault) in the upstream's log at that moment, or a device between that resets.".into()
        )
    );
    assert_eq!(
        case(Cause::ConnectionReset, reset(with_tcp(9, 2))).advice(),
        "Look for a crash or a killed worker in the upstream's log, or for a device between that resets connections."
    );
    // How long it had the request is not known.
    assert_eq!(
        case(Cause::ConnectionReset, reset(attempt())).summary(),
        "10.0.3.7:8080 reset the connection before sending a byte (ECONNRESET)."
    );
    let sending =
        Attempt { phase: Some(Phase::Send), bytes_sent: Some(81_920), ..reset(attempt()) };
    assert_eq!(
        case(Cause::ConnectionReset, sending).summary(),
        "10.0.3.7:8080 reset the connection when 81920 bytes of the request had been sent (ECONNRESET)."
    );
    let sending = Attempt { phase: Some(Phase::Send), ..reset(with_tcp(9, 2)) };
    let said = case(Cause::ConnectionReset, sending).advice();
    assert!(said.contains("refuses a large body"), "{said}");
    // PHP leaves a part of every request unread: a reset of a reused connection is no sign of that.
    let kept = Case { module: "fastcgi", ..case(Cause::KeepaliveRace, unix(3_412)) };
    assert!(kept.advice().starts_with("Look for a crash, a worker that was killed"));
}
