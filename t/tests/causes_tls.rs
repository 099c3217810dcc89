//! Each cause of the phase "tls"; and, in `established`, causes that follow a handshake.
//!
//! Where no version is set, nginx 1.22 speaks TLS 1.2 to upstreams and 1.28 speaks TLS 1.3.

#[path = "causes_tls/established.rs"]
mod established;

use serde_json::{Value, json};
use t::diag::{self, Seen, assert_in};
use t::script;
use t::tls::{Ca, Identity, Server, TLS12, TLS13, cipher_suite};
use t::{Conf, Conn, Nginx, Upstream};

/// The name that the proxy expects in certificates.
const NAME: &str = "up.example";

const V12: &str = "proxy_ssl_protocols TLSv1.2;";
const V13: &str = "proxy_ssl_protocols TLSv1.3;";

/// A proxy that speaks TLS to these servers and keeps connections.
fn proxy(servers: &str) -> Conf {
    diag::conf("location / { proxy_pass https://u; }")
        .http(format!("upstream u {{ {servers} keepalive 4; }} proxy_ssl_name {NAME};"))
        .http("proxy_http_version 1.1; proxy_set_header Connection '';")
}

fn proxy_to(up: &Upstream) -> Conf {
    proxy(&format!("server {};", up.addr()))
}

/// Directives that make the proxy verify certificates.
fn verify(ca: &Ca) -> String {
    format!("proxy_ssl_verify on; proxy_ssl_trusted_certificate {};", ca.path().display())
}

/// Directives that make the proxy show this certificate.
fn show(identity: &Identity) -> String {
    let path = identity.path().display();
    format!("proxy_ssl_certificate {path}; proxy_ssl_certificate_key {path};")
}

/// One request, which fails with this in the record.
fn fails(up: &Upstream, http: &str, cause: &str, rest: &Value) -> Seen {
    let nginx = Nginx::start(proxy_to(up).http(http));
    let response = nginx.get("/");
    let seen = diag::seen(&nginx, 0);
    let attempt = json!({"peer": up.addr(), "cause": cause, "reused": false,
                         "peer_state": {"state": "up"}});
    seen.expect(cause, &json!({"origin": "nginx", "peers": null, "attempts": [attempt]}))
        .expect(cause, rest);
    // What fails in the body is not known yet when the client's header is made.
    if seen.variable("phase") != "body" {
        seen.in_header(&response);
    }
    assert_in(&seen.attempt(0)["connect_time"], 0.0..5.0);
    assert_eq!((seen.variable("addr"), up.connections()), (up.addr().as_str(), 1));
    diag::finish(&nginx);
    seen
}

/// The same, for the phase "tls": the request gets nowhere, and `attempt` is known of why.
fn no_tls(up: &Upstream, http: &str, cause: &str, error: &str, attempt: &Value) -> Seen {
    let status = if cause == "tls_timed_out" { 504 } else { 502 };
    let rest = json!({
        "phase": "tls", "outcome": "failed", "status": status, "proxy_error": error,
        "attempts": [{"phase": "tls", "status": status, "header": null, "bytes_received": 0}],
    });
    let seen = fails(up, http, cause, &rest);
    seen.expect(cause, &json!({"attempts": [attempt]}));
    seen
}

/// An upstream that answers the first bytes, a `ClientHello`, with these and does as `then` says.
fn answers(bytes: &'static [u8], then: fn(&mut Conn)) -> Upstream {
    Upstream::tcp(move |_, conn| {
        conn.read_some();
        conn.write(bytes);
        then(conn);
    })
}

/// Guards against a connection that ends in the handshake being taken for one that could not be
/// made, or for a response that was not sent; and against the errno of a reset being lost.
#[test]
fn tls_closed() {
    const CLOSED: &str = "peer closed connection in SSL handshake";
    const RESET: &str = "peer closed connection in SSL handshake (104: Connection reset by peer)";
    let half_a_record = b"\x16\x03\x03\x00\x7a\x02\x00";
    let close_notify = b"\x15\x03\x03\x00\x02\x01\x00";
    for (up, errno, errname, message) in [
        (answers(b"", Conn::close), Value::Null, Value::Null, CLOSED),
        (answers(b"", Conn::reset), 104.into(), "ECONNRESET".into(), RESET),
        (answers(half_a_record, Conn::close), Value::Null, Value::Null, CLOSED),
        (answers(half_a_record, Conn::reset), 104.into(), "ECONNRESET".into(), RESET),
        (answers(close_notify, Conn::close), Value::Null, Value::Null, CLOSED),
    ] {
        let known = json!({"errno": errno, "errname": errname, "message": message, "tls": null});
        no_tls(&up, "", "tls_closed", "connection_terminated", &known);
    }
}

/// Guards against a silent upstream being taken for one to which no connection can be made: it is
/// the same timer, `proxy_connect_timeout`.
#[test]
fn tls_timed_out() {
    let up = Upstream::tcp(|_, conn| conn.wait_peer_close());
    let seen = no_tls(
        &up,
        "proxy_connect_timeout 100ms;",
        "tls_timed_out",
        "connection_timeout",
        &json!({"errno": 110, "errname": "ETIMEDOUT", "tls": null,
                "message": "upstream timed out (110: Connection timed out)"}),
    );
    assert_in(&seen.attempt(0)["elapsed"], 0.1..5.0);
    assert!(seen.variable("summary").contains("proxy_connect_timeout"), "{seen:?}");
}

/// Guards against an alert being lost, of which the number says what to do. With TLS 1.3 one on
/// the client's certificate comes when nginx waits for the response's header: still phase "tls".
#[test]
fn tls_alert_received() {
    let (ca, other) = (Ca::new("known"), Ca::new("unknown"));
    let identity = ca.identity(&[NAME]);
    let server = || Server::new(&identity);
    let ok = |server: Server| Upstream::tcp(server.over(script::ok("never")));
    let aes256 = cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384;
    let aes128 = format!("{V12} proxy_ssl_ciphers ECDHE-ECDSA-AES128-GCM-SHA256;");
    let stranger = other.identity(&["client.example"]);
    let stranger = [V12, V13].map(|version| version.to_owned() + &show(&stranger));
    let unnamed = answers(b"\x15\x03\x03\x00\x02\x02\x70", Conn::close);
    const HANDSHAKE: &str = "SSL_do_handshake() failed (SSL: ";
    const READ: &str = "SSL_read() failed (SSL: ";
    for (up, http, alert, name, message, advice) in [
        (ok(server().version(&TLS13)), V12, 70, "protocol_version", HANDSHAKE, "ssl_protocols"),
        (ok(server().version(&TLS12)), V13, 70, "protocol_version", HANDSHAKE, "ssl_protocols"),
        (ok(server().cipher_suite(aes256)), &aes128, 40, "handshake_failure", HANDSHAKE, "ciphers"),
        (ok(server().require_client(&ca)), V12, 116, "certificate_required", HANDSHAKE, "client c"),
        (ok(server().require_client(&ca)), V13, 116, "certificate_required", READ, "client c"),
        (ok(server().require_client(&ca)), &stranger[0], 48, "unknown_ca", HANDSHAKE, "client c"),
        (ok(server().require_client(&ca)), &stranger[1], 48, "unknown_ca", READ, "client c"),
        (unnamed, "", 112, "unrecognized_name", HANDSHAKE, "proxy_ssl_server_name on"),
    ] {
        let known = json!({"tls": {"alert": alert, "verify": null}, "errno": null});
        let seen = no_tls(&up, http, "tls_alert_received", "tls_alert_received", &known);
        let said = seen.attempt(0)["message"].as_str().unwrap_or_default();
        let number = format!("SSL alert number {alert})");
        assert!(said.starts_with(message) && said.ends_with(&number), "{said}");
        let end = format!(" the alert {name} ({alert}).");
        assert!(seen.variable("summary").ends_with(&end), "{}", seen.variable("summary"));
        assert!(seen.variable("advice").contains(advice), "{}", seen.variable("advice"));
    }
}

/// Guards against a number that no RFC gives a name being lost, or named.
#[test]
fn an_alert_without_a_name() {
    let up = answers(b"\x15\x03\x03\x00\x02\x02\xc8", Conn::close);
    let known = json!({"tls": {"alert": 200}});
    let seen = no_tls(&up, "", "tls_alert_received", "tls_alert_received", &known);
    assert!(seen.variable("summary").contains("200"), "{}", seen.variable("summary"));
}

/// Guards against the reason being lost why a certificate does not verify.
#[test]
fn tls_certificate_error() {
    let (ca, other) = (Ca::new("known"), Ca::new("unknown"));
    let between = ca.intermediate("known, between");
    for (identity, reason) in [
        (ca.expired(&[NAME]), "certificate has expired"),
        // Whether the name is right does not matter then.
        (ca.expired(&["other.example"]), "certificate has expired"),
        (Identity::self_signed(&[NAME]), "self-signed certificate"),
        (other.identity(&[NAME]), "unable to verify the first certificate"),
        (between.identity(&[NAME]).alone(), "unable to verify the first certificate"),
        (
            other.intermediate("unknown, between").identity(&[NAME]),
            "unable to get local issuer certificate",
        ),
    ] {
        let up = Upstream::tcp(Server::new(&identity).over(script::ok("never")));
        let seen = no_tls(
            &up,
            &verify(&ca),
            "tls_certificate_error",
            "tls_certificate_error",
            &json!({"tls": {"verify": reason, "alert": null}, "errno": null}),
        );
        let message = seen.attempt(0)["message"].as_str().unwrap_or_default();
        let (start, end) = ("upstream SSL certificate verify error: (", format!(":{reason})"));
        assert!(message.starts_with(start) && message.ends_with(&end), "{message}");
        assert!(seen.variable("summary").contains(reason), "{}", seen.variable("summary"));
    }
}

/// Guards against a certificate for another name being taken for one that does not verify.
#[test]
fn tls_name_mismatch() {
    let ca = Ca::new("ca");
    let up = Upstream::tcp(Server::new(&ca.identity(&["other.example"])).over(script::ok("never")));
    no_tls(
        &up,
        &verify(&ca),
        "tls_name_mismatch",
        "tls_certificate_error",
        &json!({"tls": null, "errno": null,
                "message": format!("upstream SSL certificate does not match \"{NAME}\"")}),
    );
}

/// Guards against bytes that are no handshake being `unknown`, or another protocol by guess.
#[test]
fn tls_protocol_error() {
    let rows: [&[u8]; 2] = [
        // A record with a handshake message that does not exist.
        b"\x16\x03\x03\x00\x04\x63\x00\x00\x00",
        // One of a type that does not exist.
        b"\x63\x03\x03\x00\x04\x63\x00\x00\x00",
    ];
    for bytes in rows {
        let up = answers(bytes, Conn::wait_peer_close);
        let known = json!({"tls": null, "errno": null});
        let seen = no_tls(&up, "", "tls_protocol_error", "tls_protocol_error", &known);
        let message = seen.attempt(0)["message"].as_str().unwrap_or_default();
        assert!(message.starts_with("SSL_do_handshake() failed (SSL: "), "{message}");
    }
}

/// Guards against the commonest mistake, https:// to a plain port, being reported as a failure of
/// TLS. What speaks there cannot be named: OpenSSL has swallowed the bytes.
#[test]
fn protocol_mismatch() {
    const REFUSAL: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
    for up in [
        answers(REFUSAL, Conn::close),
        answers(REFUSAL, Conn::wait_peer_close),
        answers(b"HTTP/1.0 400 Bad Request\r\n\r\n<html></html>", Conn::close),
        answers(b"SSH-2.0-OpenSSH_9.2p1\r\n", Conn::wait_peer_close),
    ] {
        let known = json!({"tls": null, "errno": null});
        let seen = no_tls(&up, "", "protocol_mismatch", "http_protocol_error", &known);
        let summary = "answered the TLS handshake with what is no TLS: it speaks another protocol.";
        assert_eq!(seen.variable("summary"), format!("{} {summary}", up.addr()));
        assert!(seen.variable("advice").starts_with("Use http:// in proxy_pass"), "{seen:?}");
    }
}

/// Guards against what is known of one attempt being taken for another's, or for the request's.
#[test]
fn evidence_stays_with_its_attempt() {
    let ca = Ca::new("ca");
    let identity = ca.identity(&[NAME]);
    let expired = Upstream::tcp(Server::new(&ca.expired(&[NAME])).over(script::ok("never")));
    let asks = Server::new(&identity).require_client(&ca).version(&TLS13);
    let asks = Upstream::tcp(asks.over(script::ok("never")));
    let good = Upstream::tcp(Server::new(&identity).over(script::ok("good")));
    let servers = [&expired, &asks, &good].map(|up| format!("server {};", up.addr())).concat();
    let protocols = "proxy_ssl_protocols TLSv1.2 TLSv1.3;";
    let nginx = Nginx::start(proxy(&servers).http(protocols).http(verify(&ca)));
    let response = nginx.get("/");
    assert_eq!(response.text(), "good");
    let seen = diag::seen(&nginx, 0);
    let reason = "certificate has expired";
    seen.expect(
        "tls_alert_received",
        &json!({
            "phase": "tls", "outcome": "masked", "status": 200,
            "attempts": [
                {"peer": expired.addr(), "cause": "tls_certificate_error", "phase": "tls",
                 "status": 502, "tls": {"verify": reason, "alert": null}},
                {"peer": asks.addr(), "cause": "tls_alert_received", "phase": "tls",
                 "status": 502, "tls": {"verify": null, "alert": 116}},
                {"peer": good.addr(), "cause": null, "phase": null, "status": 200, "tls": null,
                 "message": null},
            ],
        }),
    )
    .in_header(&response);
    diag::finish(&nginx);
}

/// Guards against a trace of what is no failure; and shows that the servers of the other tests
/// fail by what is wrong with them, and not because nothing works.
#[test]
fn working_tls_leaves_no_trace() {
    let ca = Ca::new("ca");
    let good = ca.identity(&[NAME]);
    let between = ca.intermediate("between").identity(&[NAME]);
    let client = ca.identity(&["client.example"]);
    for (server, http) in [
        (Server::new(&good), verify(&ca)),
        (Server::new(&between), verify(&ca)),
        (Server::new(&good).require_client(&ca), format!("{V12}{}", show(&client))),
        (Server::new(&good).require_client(&ca), format!("{V13}{}", show(&client))),
        // Nobody looks at these certificates.
        (Server::new(&ca.expired(&[NAME])), String::new()),
        (Server::new(&Identity::self_signed(&["other.example"])), String::new()),
    ] {
        let up = Upstream::tcp(server.over(script::ok("good")));
        let nginx = Nginx::start(proxy_to(&up).http(http));
        for path in ["/1", "/2"] {
            assert_eq!(nginx.get(path).text(), "good");
        }
        nginx.wait_lines("access.log", 2);
        assert_eq!((nginx.lines("diag.json").len(), up.connections()), (0, 1));
        diag::finish(&nginx);
    }
}
