//! Each cause from the line and the structures it comes from.

use super::*;

fn seen(message: &str) -> Observation<'_> {
    Observation {
        message: message.as_bytes(),
        progress: Progress { request_sent: true, request_body_sent: true, ..WAITING },
        ..Observation::default()
    }
}

const WAITING: Progress = Progress {
    tls_handshake: false,
    request_sent: false,
    request_body_sent: false,
    header_done: false,
};

fn verdict(seen: &Observation<'_>) -> (&'static str, &'static str) {
    let verdict = classify(seen).verdict.unwrap();
    (verdict.cause.slug(), verdict.phase.slug())
}

#[test]
fn errors_of_connect() {
    for (errno, unix, slug) in [
        (111, false, "connection_refused"),
        (110, false, "connection_timed_out"),
        (101, false, "unreachable"),
        (113, false, "unreachable"),
        (13, true, "permission_denied"),
        (1, false, "permission_denied"),
        (2, true, "socket_not_found"),
        (11, true, "listen_queue_full"),
        (11, false, "local_ports_exhausted"),
        (99, false, "local_ports_exhausted"),
        (104, false, "connection_reset"),
        (22, false, "unreachable"),
        (22, true, "unknown"),
        (91, true, "unknown"),
    ] {
        let message = format!("connect() failed ({errno}: x) while");
        let seen = Observation { unix, ..seen(&message) };
        assert_eq!(verdict(&seen), (slug, "connect"), "{errno}");
        assert_eq!(classify(&seen).errno, Some(errno));
    }
}

#[test]
fn a_lack_of_addresses_is_told_from_a_lack_of_ports() {
    let mut seen = seen("connect() failed (99: Cannot assign requested address) while");
    assert_eq!(verdict(&seen), ("local_ports_exhausted", "connect"));
    seen.no_source_address = true;
    assert_eq!(verdict(&seen), ("unreachable", "connect"));
}

/// The structures still hold what the attempt before left in them.
#[test]
fn a_failure_before_the_connection_ignores_the_attempt_before() {
    let mut seen = seen("no live upstreams while connecting to upstream");
    seen.reused = true;
    seen.received = 100;
    assert_eq!(verdict(&seen), ("no_live_upstreams", "select"));
    assert!(classify(&seen).before_connection);
    seen.capacity = Some(Capacity::Full);
    assert_eq!(verdict(&seen), ("max_conns_reached", "select"));
}

#[test]
fn closes_by_phase_and_connection() {
    let fin = seen("upstream prematurely closed connection while");
    let rst = seen("recv() failed (104: Connection reset by peer) while");
    let epipe = seen("writev() failed (32: Broken pipe) while");
    let with = |seen: &Observation<'static>, reused, received, progress| {
        verdict(&Observation { reused, received, progress, ..*seen })
    };
    let header = fin.progress;
    let send = Progress { request_body_sent: false, ..header };
    let body = Progress { header_done: true, ..header };
    let tls = Progress { tls_handshake: true, ..WAITING };
    assert_eq!(with(&fin, false, 0, header), ("closed_before_response", "header"));
    assert_eq!(with(&fin, false, 9, header), ("closed_in_header", "header"));
    assert_eq!(with(&fin, true, 9, header), ("closed_in_header", "header"));
    assert_eq!(with(&fin, true, 0, header), ("keepalive_race", "header"));
    assert_eq!(with(&rst, true, 0, header), ("keepalive_race", "header"));
    assert_eq!(with(&epipe, true, 0, send), ("keepalive_race", "send"));
    assert_eq!(with(&epipe, false, 0, send), ("connection_reset", "send"));
    assert_eq!(with(&rst, false, 9, header), ("connection_reset", "header"));
    assert_eq!(with(&rst, true, 9, header), ("connection_reset", "header"));
    let reset = Observation { reset: true, ..fin };
    assert_eq!(with(&reset, false, 0, header), ("connection_reset", "header"));
    assert_eq!(with(&reset, true, 0, header), ("keepalive_race", "header"));
    assert_eq!(with(&fin, true, 9, body), ("response_truncated", "body"));
    assert_eq!(with(&rst, false, 9, body), ("response_truncated", "body"));
    assert_eq!(with(&rst, false, 0, tls), ("tls_closed", "tls"));
}

#[test]
fn timeouts_by_phase() {
    let timeout = seen("upstream timed out (110: Connection timed out) while");
    let header = timeout.progress;
    for (progress, slug, phase) in [
        (WAITING, "connection_timed_out", "connect"),
        (Progress { tls_handshake: true, ..WAITING }, "tls_timed_out", "tls"),
        (Progress { request_body_sent: false, ..header }, "send_timed_out", "send"),
        (header, "response_timed_out", "header"),
        (Progress { header_done: true, ..header }, "body_timed_out", "body"),
    ] {
        assert_eq!(verdict(&Observation { progress, ..timeout }), (slug, phase));
    }
}

#[test]
fn resolver_failures_go_by_the_state_not_the_text() {
    for (state, slug) in [
        (1, "dns_failure"),
        (2, "dns_failure"),
        (3, "dns_not_found"),
        (5, "dns_failure"),
        (110, "dns_timed_out"),
    ] {
        let mut seen = seen("no live upstreams could not be resolved (3: Host not found)");
        seen.resolver_error = Some(state);
        assert_eq!(verdict(&seen), (slug, "resolve"));
    }
}

#[test]
fn tls_failures() {
    let mut seen = seen(
        "SSL_do_handshake() failed (SSL: error:0A00010B:SSL routines::wrong version number) while",
    );
    seen.progress = Progress { tls_handshake: true, ..WAITING };
    assert_eq!(classify(&seen).verdict, None, "the client's connection");
    let reset = Observation { message: b"SSL_read() failed (104: x)", ..seen };
    assert_eq!(classify(&reset).verdict, None, "the client's connection");
    seen.tls_failed = true;
    assert_eq!(verdict(&seen), ("protocol_mismatch", "tls"));
    let of = |message: &'static str| verdict(&Observation { message: message.as_bytes(), ..seen });
    assert_eq!(
        of("SSL_do_handshake() failed (SSL: error:0A000410:SSL routines::x:SSL alert number 40)").0,
        "tls_alert_received"
    );
    assert_eq!(
        of("SSL_do_handshake() failed (SSL: error:0A0000F4:SSL routines::unexpected message)").0,
        "tls_protocol_error"
    );
    assert_eq!(of("SSL_do_handshake() failed (104: Connection reset by peer)").0, "tls_closed");
    assert_eq!(of("peer closed connection in SSL handshake while").0, "tls_closed");
    assert_eq!(of("peer closed connection in SSL handshake (104: x)").0, "tls_closed");
    assert_eq!(of("upstream SSL certificate verify error: (10:x)").0, "tls_certificate_error");
    assert_eq!(of("upstream SSL certificate does not match \"a\"").0, "tls_name_mismatch");
    seen.progress = Progress { request_sent: true, request_body_sent: true, ..WAITING };
    let of = |message: &'static str| verdict(&Observation { message: message.as_bytes(), ..seen });
    assert_eq!(
        of("SSL_read() failed (SSL: error:0A00045C:SSL routines::x:SSL alert number 116)"),
        ("tls_alert_received", "tls")
    );
    assert_eq!(
        of("SSL_read() failed (104: Connection reset by peer)"),
        ("connection_reset", "header")
    );
}

#[test]
fn responses_that_are_none() {
    let mut seen = seen("upstream sent no valid HTTP/1.0 header while");
    seen.first_bytes = b"hello";
    assert_eq!(verdict(&seen), ("invalid_response", "header"));
    seen.first_bytes = b"SSH-2.0-OpenSSH_9.2p1";
    assert_eq!(verdict(&seen), ("protocol_mismatch", "header"));
    let message = b"upstream sent invalid header: \"a";
    let header = Observation { message, first_bytes: b"HTTP/1.1 200 OK", ..seen };
    assert_eq!(verdict(&header), ("invalid_header", "header"));
    let body = Observation { message: b"upstream sent invalid chunked response", ..seen };
    assert_eq!(verdict(&body), ("invalid_body", "body"));
}

#[test]
fn what_is_not_known_is_no_verdict() {
    assert_eq!(classify(&seen("something new went wrong")).verdict, None);
    assert_eq!(verdict(&seen("socket() failed (24: x)")).0, "local_fds_exhausted");
    assert_eq!(verdict(&seen("socket() failed (12: x)")).0, "internal_error");
    assert_eq!(verdict(&seen("socket() failed (97: x)")).0, "unreachable");
    assert_eq!(verdict(&seen("socket() failed (1: x)")).0, "unknown");
    assert_eq!(verdict(&seen("malloc(4096) failed (12: x)")).0, "internal_error");
    let strange = classify(&seen("recv() failed (5: x)"));
    assert_eq!((strange.verdict, strange.errno), (None, Some(5)));
}
