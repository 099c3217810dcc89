//! What is said of each protocol module: its own directives, schemes and servers.

use super::*;
use crate::protocol::mismatch;
use crate::tls::Tls;

const MODULES: [&str; 7] = ["proxy", "proxy_v2", "fastcgi", "uwsgi", "scgi", "grpc", "memcached"];

/// Bytes that came where a module expected its own protocol.
fn got<'a>(bytes: &[u8], module: &'a str) -> Case<'a> {
    let mismatch = mismatch(bytes, Some(module));
    assert!(mismatch.is_some(), "{module}");
    Case { module, ..case(Cause::ProtocolMismatch, Attempt { mismatch, ..attempt() }) }
}

/// Guards against a scheme or a directive that the module in use does not take.
#[test]
fn tls_where_a_plain_port_was_expected() {
    for (module, advice) in [
        ("proxy", "Use https:// in proxy_pass, or the upstream's plain port."),
        ("proxy_v2", "Use https:// in proxy_pass, or the upstream's plain port."),
        ("uwsgi", "Use suwsgi:// in uwsgi_pass, or the upstream's plain port."),
        ("grpc", "Use grpcs:// in grpc_pass, or the upstream's plain port."),
        ("fastcgi", "Use the upstream's plain port: nginx speaks FastCGI without TLS only."),
        ("scgi", "Use the upstream's plain port: nginx speaks SCGI without TLS only."),
        ("memcached", "Use the upstream's plain port: nginx speaks memcached without TLS only."),
    ] {
        assert_eq!(got(b"\x15\x03\x01\0\x02\x02\x46", module).advice(), advice);
    }
}

/// As above, the other way round.
#[test]
fn a_plain_port_where_tls_was_expected() {
    for (module, advice) in [
        (
            "proxy",
            "Use http:// in proxy_pass if the port speaks plain HTTP, or give the upstream's TLS port.",
        ),
        (
            "uwsgi",
            "Use uwsgi:// in uwsgi_pass if the port speaks plain uwsgi, or give the upstream's TLS port.",
        ),
        (
            "grpc",
            "Use grpc:// in grpc_pass if the port speaks plain HTTP/2, or give the upstream's TLS port.",
        ),
    ] {
        let failed = Attempt { phase: Some(Phase::Tls), ..attempt() };
        let case = Case { module, ..case(Cause::ProtocolMismatch, failed) };
        assert_eq!(case.said(), (
            "10.0.3.7:8080 answered the TLS handshake with something other than TLS: it speaks another protocol.".into(),
            advice.into(),
        ));
    }
}

/// Guards against a web server being looked for where another kind of server should answer.
#[test]
fn a_port_of_something_else() {
    for (module, server) in [
        ("proxy", "web server"),
        ("proxy_v2", "web server"),
        ("fastcgi", "FastCGI server"),
        ("uwsgi", "uwsgi server"),
        ("scgi", "SCGI server"),
        ("grpc", "gRPC server"),
        ("memcached", "memcached"),
    ] {
        assert_eq!(
            got(b"SSH-2.0-OpenSSH_9.2p1\r\n", module).advice(),
            format!("Correct the address or port: no {server} answers there.")
        );
    }
}

/// Guards against another name being asked for where none was told, and against a setting being
/// proposed that is on.
#[test]
fn names_that_were_told_or_not() {
    let said = |cause, module, server_name, alert| {
        let tls = Some(Tls { alert, ..Tls::default() });
        Case { module, ..case(cause, Attempt { server_name, tls, ..attempt() }) }.advice()
    };
    let mismatch = |told| said(Cause::TlsNameMismatch, "grpc", told, None);
    assert_eq!(mismatch(Some(true)), "Set grpc_ssl_name to a name that the certificate has.");
    let set = "Set grpc_ssl_server_name on: nginx did not tell the name,";
    assert!(mismatch(Some(false)).starts_with(set));
    assert!(mismatch(None).starts_with("If grpc_ssl_server_name is off, turn it on first"));
    for (cause, alert) in [(Cause::TlsClosed, None), (Cause::TlsAlertReceived, Some(112))] {
        for (told, proposed) in [(Some(true), false), (Some(false), true)] {
            let said = said(cause, "proxy", told, alert);
            assert_eq!(said.contains("proxy_ssl_server_name on"), proposed, "{said}");
        }
    }
    let expired = Attempt {
        server_name: Some(true),
        ..with_message("upstream SSL certificate verify error: (10:certificate has expired)")
    };
    assert!(case(Cause::TlsCertificateError, expired).advice().contains("has expired"));
}

/// Guards against TLS being proposed where it is spoken already: then the port has no HTTP/2.
#[test]
fn http1_behind_a_handshake() {
    let mut grpcs = got(b"HTTP/1.1 400 Bad Request\r\n", "grpc");
    grpcs.failed.server_name = Some(true);
    assert_eq!(
        grpcs.advice(),
        "Turn HTTP/2 on for that port (h2 in ALPN), or use proxy_pass https://: the upstream answered in HTTP/1, over TLS."
    );
}

/// Guards against a directive to change to that is the one in use, or named as another module's.
#[test]
fn the_directive_to_change_to() {
    const OLD: &[u8] = b"HTTP/1.1 400 Bad Request\r\n";
    const NEW: &[u8] = b"\0\0\x12\x04\0\0\0\0\0\0\x03";
    const FASTCGI: &[u8] = b"\x01\x06\0\x01\0\x10\0\0Status";
    for (bytes, module, speaks, advice) in [
        (OLD, "fastcgi", "HTTP, not FastCGI", "Use proxy_pass: the upstream speaks HTTP."),
        (
            OLD,
            "grpc",
            "HTTP/1, not HTTP/2",
            "Use proxy_pass, or grpcs:// in grpc_pass if it is a port for TLS: the upstream answered in HTTP/1.",
        ),
        (
            OLD,
            "proxy_v2",
            "HTTP/1, not HTTP/2",
            "Set proxy_http_version 1.1: the upstream does not speak HTTP/2 on this port.",
        ),
        (
            NEW,
            "proxy",
            "HTTP/2, not HTTP/1",
            "Use grpc_pass for a gRPC service, or make the upstream speak HTTP/1.1 on this port.",
        ),
        (NEW, "uwsgi", "HTTP/2, not uwsgi", "Use grpc_pass: the upstream speaks HTTP/2."),
        (FASTCGI, "uwsgi", "FastCGI, not uwsgi", "Use fastcgi_pass: the upstream speaks FastCGI."),
    ] {
        let (summary, said) = got(bytes, module).said();
        assert_eq!((summary, said.as_str()), (format!("10.0.3.7:8080 speaks {speaks}."), advice));
    }
}

/// Guards against an address in a form that the directive does not take: one with a scheme for
/// FastCGI, one without for HTTP.
#[test]
fn addresses_in_variables() {
    for (module, takes) in [
        ("proxy", "proxy_pass: it takes http:// or https:// and host[:port], unix:"),
        ("fastcgi", "fastcgi_pass: it takes host:port, unix:"),
        ("scgi", "scgi_pass: it takes host:port, unix:"),
        ("uwsgi", "with uwsgi://, suwsgi:// or neither before it."),
        ("grpc", "with grpc://, grpcs:// or neither before it."),
    ] {
        let case = Case { module, ..case(Cause::InvalidUpstreamUrl, attempt()) };
        let said = case.advice();
        assert!(said.contains(takes), "{module}: {said}");
    }
}

/// Guards against a program for HTTP being named for what does not speak it.
#[test]
fn how_to_ask_the_upstream() {
    for cause in [Cause::InvalidHeader, Cause::InvalidBody, Cause::InvalidResponse] {
        for module in MODULES {
            let said = Case { module, ..case(cause, attempt()) }.advice();
            assert_eq!(said.contains("(curl -v"), module.starts_with("proxy"), "{module}: {said}");
            assert!(said.starts_with("Ask the upstream directly"), "{module}: {said}");
        }
    }
    let grpc = Case { module: "grpc", ..case(Cause::InvalidHeader, attempt()) };
    assert_eq!(
        grpc.advice(),
        "Ask the upstream directly (grpcurl -v) and mend the header it sends."
    );
}

/// Guards against the reason that a memcached gives standing in nginx's message only; and against
/// one that ends nginx's quotation, or is long.
#[test]
fn errors_of_memcached() {
    let answers = |line: &str| {
        let failed = with_message(&format!("memcached sent invalid response: \"{line}\""));
        Case { module: "memcached", ..case(Cause::InvalidResponse, failed) }.said()
    };
    let (summary, advice) = answers("SERVER_ERROR out of memory storing object");
    assert_eq!(
        summary,
        "10.0.3.7:8080 answered with an error: \"SERVER_ERROR out of memory storing object\"."
    );
    assert!(advice.starts_with("The server says why"), "{advice}");
    let (summary, advice) = answers("CLIENT_ERROR line too long");
    assert_eq!(summary, "10.0.3.7:8080 answered with an error: \"CLIENT_ERROR line too long\".");
    assert!(advice.contains("$memcached_key"), "{advice}");
    let (summary, advice) = answers("hello");
    assert_eq!(summary, "10.0.3.7:8080 sent what is no answer to a request: \"hello\".");
    assert_eq!(advice, "Ask the upstream directly (nc) and see what it sends.");
    let (summary, _) = answers("SERVER_ERROR a\u{7}\r\nX: y\" while all is well");
    assert_eq!(summary, "10.0.3.7:8080 answered with an error: \"SERVER_ERROR a???X: y\".");
    let (summary, _) = answers(&format!("SERVER_ERROR {}", "x".repeat(300)));
    assert_eq!(
        summary,
        format!("10.0.3.7:8080 answered with an error: \"SERVER_ERROR {}…\".", "x".repeat(51))
    );
    let key = with_message("memcached sent invalid key in response \"VALUE b 0 1\" for key \"a\"");
    let key = Case { module: "memcached", ..case(Cause::InvalidResponse, key) };
    assert_eq!(key.summary(), "10.0.3.7:8080 sent the value of another key: \"VALUE b 0 1\".");
    // Another module's upstream cannot have said so.
    let other = with_message("memcached sent invalid response: \"x\"");
    assert!(case(Cause::InvalidResponse, other).summary().ends_with("not a valid response."));
}

/// Guards against the alert that says what was not offered being told in general words, and what
/// to use instead being renamed.
#[test]
fn no_protocol_was_agreed_on() {
    let tls = crate::tls::Tls { alert: Some(120), ..crate::tls::Tls::default() };
    let alert = Attempt { phase: Some(Phase::Tls), tls: Some(tls), ..attempt() };
    for (module, says) in [
        ("grpc", "offers h2 by ALPN and nothing else"),
        ("grpc", "use proxy_pass https://"),
        ("proxy", "proxy_pass offers none"),
        ("uwsgi", "uwsgi_pass offers none"),
    ] {
        let (summary, advice) =
            Case { module, ..case(Cause::TlsAlertReceived, alert.clone()) }.said();
        assert_eq!(
            summary,
            "10.0.3.7:8080 ended the TLS handshake with the alert no_application_protocol (120)."
        );
        assert!(advice.contains(says), "{module}: {advice}");
    }
}
