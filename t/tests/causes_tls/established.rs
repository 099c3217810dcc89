//! Causes that follow a handshake, where TLS hides from nginx (and from the module) what plain TCP
//! shows.

use serde_json::json;
use t::diag::{self, assert_in};
use t::script::{self, End};
use t::tls::{Ca, Server, TLS12, TLS13};
use t::{Conn, Nginx, Upstream};

use super::{NAME, V12, V13, fails, proxy_to};

/// Upstreams that run the script behind a handshake, one for each version of TLS.
fn behind_tls<S: Fn(usize, &mut Conn) + Send + Sync + 'static>(
    script: impl Fn() -> S,
) -> [(Upstream, &'static str); 2] {
    let identity = Ca::new("ca").identity(&[NAME]);
    [(&TLS12, V12), (&TLS13, V13)].map(|(version, directive)| {
        (Upstream::tcp(Server::new(&identity).version(version).over(script())), directive)
    })
}

/// Answers with these bytes, says that nothing follows and closes.
fn good_bye(bytes: &'static [u8]) -> impl Fn(usize, &mut Conn) {
    move |_, conn| {
        conn.read_request();
        conn.write(bytes);
        conn.close_notify();
    }
}

/// Guards against a close after the handshake being taken for one in it, announced or not.
#[test]
fn closed_before_response() {
    for (up, version) in
        behind_tls(script::close_at_once).into_iter().chain(behind_tls(|| good_bye(b"")))
    {
        let rest = json!({
            "phase": "header", "outcome": "failed", "status": 502,
            "proxy_error": "connection_terminated",
            "attempts": [{"phase": "header", "errno": null, "header": null, "tls": null,
                          "bytes_received": 0}],
        });
        let seen = fails(&up, version, "closed_before_response", &rest);
        assert_eq!(seen.attempt(0)["bytes_sent"], up.requests()[0].len());
    }
}

/// Guards against a reset being taken for a close: over TLS nginx reports both in the same words
/// and without an errno, and only the socket tells.
#[test]
fn connection_reset() {
    for (up, version) in behind_tls(script::reset_at_once) {
        let rest = json!({
            "phase": "header", "outcome": "failed", "status": 502,
            "proxy_error": "connection_terminated",
            "attempts": [{"phase": "header", "header": null, "tls": null, "bytes_received": 0,
                          "tcp": {"state": "CLOSE"}}],
        });
        fails(&up, version, "connection_reset", &rest);
    }
}

/// Guards against a race on a connection with TLS being blamed on TLS or on the upstream.
#[test]
fn keepalive_race() {
    for end in [End::Fin, End::Rst] {
        for (up, version) in behind_tls(move || script::keepalive_then_close_on_next(end)) {
            let nginx = Nginx::start(proxy_to(&up).http(version));
            assert_eq!(nginx.get("/1").text(), "first");
            let response = nginx.get("/2");
            assert_eq!(response.text(), "first");
            let seen = diag::seen(&nginx, 0);
            seen.expect(
                "keepalive_race",
                &json!({
                    "phase": "header", "outcome": "masked", "status": 200, "uri": "/2",
                    "attempts": [
                        {"cause": "keepalive_race", "phase": "header", "reused": true, "tls": null,
                         "status": 502, "header": null, "bytes_received": 0},
                        {"cause": null, "phase": null, "status": 200},
                    ],
                }),
            )
            .in_header(&response);
            assert_eq!(up.connections(), 2);
            diag::finish(&nginx);
        }
    }
}

/// Guards against a size that is called exact: the rest of the header is not in the kernel's
/// buffer where it could be counted, or is there encrypted.
#[test]
fn header_too_big() {
    for (up, version) in behind_tls(|| script::big_header(9043)) {
        let rest = json!({
            "phase": "header", "outcome": "failed", "status": 502,
            "attempts": [{"phase": "header", "bytes_received": 4096,
                          "header": {"exact": false, "limit": 4096}}],
        });
        let http = format!("{version} proxy_buffer_size 4k;");
        let seen = fails(&up, &http, "header_too_big", &rest);
        assert_in(&seen.attempt(0)["header"]["size"], 4096.0..9044.0);
        assert!(seen.variable("summary").contains("at least "), "{}", seen.variable("summary"));
    }
}

/// Guards against a body that was cut counting as whole: with TLS too, the client has a 200.
#[test]
fn response_truncated() {
    let cut = |end| behind_tls(move || script::partial_body(100, "part", end));
    let announced = behind_tls(|| good_bye(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart"));
    for (up, version) in [cut(End::Fin), cut(End::Rst), announced].into_iter().flatten() {
        let rest = json!({
            "phase": "body", "outcome": "truncated", "status": 200,
            "attempts": [{"phase": "body", "status": 200, "tls": null}],
        });
        fails(&up, version, "response_truncated", &rest);
    }
}
