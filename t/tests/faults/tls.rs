//! TLS to upstreams: the handshake, the certificates, and what TLS hides from nginx behind them.
//!
//! Where no version is set, nginx 1.22 speaks TLS 1.2 to upstreams and 1.28 speaks TLS 1.3.

use std::sync::Arc;

use serde_json::json;
use t::script::{self, End};
use t::tls::{Ca, Identity, Server, TLS12, TLS13, cipher_suite};
use t::{Conn, protocol};

use crate::peer::{Peer, sends, tcp};
use crate::row::{ECONNRESET, ETIMEDOUT, LATER, Row, SOON, TIMED_OUT, row};

/// The name that nginx expects in certificates.
const NAME: &str = "up.example";

const V12: &str = "proxy_ssl_protocols TLSv1.2;";
const V13: &str = "proxy_ssl_protocols TLSv1.3;";

/// Answers the first bytes, a `ClientHello`, with these and does as `then` says.
fn answers(bytes: &'static [u8], then: fn(&mut Conn)) -> Peer {
    tcp(move |_, conn| {
        conn.read_some();
        conn.write(bytes);
        then(conn);
    })
}

/// Behind this handshake there is a server without faults.
fn fine(server: Server) -> Peer {
    tcp(server.over(script::ok("never")))
}

pub(crate) fn handshake() -> Vec<Row> {
    // Guards against a connection that ends in the handshake being taken for one that could not be
    // made, or for a response that was not sent; and against the errno of a reset being lost.
    let closed = |what, speaks, bytes| {
        row(what, speaks, answers(bytes, Conn::close))
            .failed("tls_closed", "tls", &[])
            .shows(json!({"message": "peer closed connection in SSL handshake", "tls": null,
                          "bytes_received": 0}))
    };
    let reset = |what, speaks, bytes| {
        row(what, speaks, answers(bytes, Conn::reset))
            .failed("tls_closed", "tls", &[ECONNRESET])
            .shows(json!({"message":
                "peer closed connection in SSL handshake (104: Connection reset by peer)"}))
    };
    const HALF: &[u8] = b"\x16\x03\x03\x00\x7a\x02\x00";
    // Guards against a silent upstream being taken for one to which no connection can be made: it
    // is the same timer.
    let silent = |speaks| {
        row("silent in the handshake", speaks, tcp(|_, conn: &mut Conn| conn.wait_peer_close()))
            .waits("connect", SOON)
            .failed("tls_timed_out", "tls", &[ETIMEDOUT])
            .shows(json!({"message": TIMED_OUT, "tls": null}))
            .says("_connect_timeout", "")
    };
    // Guards against bytes that are no handshake being `unknown`, or another protocol by guess.
    let broken = |what, bytes| {
        row(what, "proxys", answers(bytes, Conn::wait_peer_close))
            .failed("tls_protocol_error", "tls", &[])
            .shows(json!({"tls": null}))
    };
    // Guards against the commonest mistake, https:// to a plain port, being reported as a failure
    // of TLS. What speaks there cannot be named: OpenSSL has swallowed the bytes.
    let plain = |what, speaks, bytes, then| {
        let advice = match speaks {
            "grpcs" => "Use grpc:// in grpc_pass if the port speaks plain HTTP/2,",
            "uwsgis" => "Use uwsgi:// in uwsgi_pass if the port speaks plain uwsgi,",
            _ => "Use http:// in proxy_pass if the port speaks plain HTTP,",
        };
        row(what, speaks, answers(bytes, then))
            .failed("protocol_mismatch", "tls", &[])
            .shows(json!({"tls": null}))
            .says("{addr} answered the TLS handshake with something other than TLS", advice)
    };
    const REFUSAL: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
    const SSH: &[u8] = b"SSH-2.0-OpenSSH_9.2p1\r\n";
    vec![
        closed("closed in the handshake", "proxys", b""),
        closed("closed in the handshake", "grpcs", b""),
        closed("closed in the handshake", "uwsgis", b""),
        closed("closed in the handshake", "proxys", b"").by_h2(),
        closed("closed in a record of the handshake", "proxys", HALF),
        closed("a farewell for a handshake", "proxys", b"\x15\x03\x03\x00\x02\x01\x00"),
        reset("reset in the handshake", "proxys", b""),
        reset("reset in the handshake", "grpcs", b""),
        reset("reset in a record of the handshake", "proxys", HALF),
        silent("proxys"),
        silent("grpcs"),
        silent("uwsgis"),
        broken("a message that does not exist", b"\x16\x03\x03\x00\x04\x63\x00\x00\x00"),
        broken("a record that does not exist", b"\x63\x03\x03\x00\x04\x63\x00\x00\x00"),
        plain("plain HTTP", "proxys", REFUSAL, Conn::close),
        plain("plain HTTP, kept open", "proxys", REFUSAL, Conn::wait_peer_close),
        plain("plain HTTP", "grpcs", REFUSAL, Conn::close),
        plain("plain HTTP", "uwsgis", REFUSAL, Conn::close),
        plain("plain SSH", "proxys", SSH, Conn::wait_peer_close),
    ]
}

/// Guards against an alert being lost, of which the number says what to do. With TLS 1.3 one on
/// the client's certificate comes when nginx waits for the response's header: still phase "tls".
pub(crate) fn alerts() -> Vec<Row> {
    let (ca, other) = (Ca::new("known"), Ca::new("unknown"));
    let identity = ca.identity(&[NAME]);
    let stranger = Arc::new(other.identity(&["client.example"]));
    let server = || Server::new(&identity);
    let aes256 = cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384;
    let aes128 = format!("{V12} proxy_ssl_ciphers ECDHE-ECDSA-AES128-GCM-SHA256;");
    let path = stranger.path().display();
    let show = format!("proxy_ssl_certificate {path}; proxy_ssl_certificate_key {path};");
    let alert = |what, peer, number: u8, summary, advice| {
        row(what, "proxys", peer)
            .failed("tls_alert_received", "tls", &[])
            .shows(json!({"tls": {"alert": number, "verify": null}, "bytes_received": 0}))
            .says(summary, advice)
    };
    const VERSION: &str = " the alert protocol_version (70).";
    const REQUIRED: &str = " the alert certificate_required (116).";
    const PROTOCOL: &str = " the alert no_application_protocol (120).";
    const UNKNOWN: &str = " the alert unknown_ca (48).";
    let old = |what, server, directive| {
        alert(what, fine(server), 70, VERSION, "proxy_ssl_protocols").with(directive)
    };
    let nobody = |what, directive| {
        alert(
            what,
            fine(server().require_client(&ca)),
            116,
            REQUIRED,
            "wants a client certificate and got none",
        )
        .with(directive)
    };
    let strange = |what, directive| {
        let mut row =
            alert(what, fine(server().require_client(&ca)), 48, UNKNOWN, "who issued the client c");
        row.kept = Some(stranger.clone());
        row.with(directive).with(&show)
    };
    vec![
        old("a server of TLS 1.3 only", server().version(&TLS13), V12),
        old("a server of TLS 1.2 only", server().version(&TLS12), V13),
        alert(
            "no common cipher",
            fine(server().cipher_suite(aes256)),
            40,
            " the alert handshake_failure (40).",
            "proxy_ssl_ciphers",
        )
        .with(aes128),
        nobody("no client certificate, TLS 1.2", V12),
        nobody("no client certificate, TLS 1.3", V13),
        strange("a strange client certificate, TLS 1.2", V12),
        strange("a strange client certificate, TLS 1.3", V13),
        alert(
            "no server name",
            answers(b"\x15\x03\x03\x00\x02\x02\x70", Conn::close),
            112,
            " the alert unrecognized_name (112).",
            "proxy_ssl_server_name on",
        ),
        alert(
            "not this server name",
            answers(b"\x15\x03\x03\x00\x02\x02\x70", Conn::close),
            112,
            " the alert unrecognized_name (112).",
            "The upstream does not know the server name it was given",
        )
        .with(format!("proxy_ssl_server_name on; proxy_ssl_name {NAME};")),
        // A server without HTTP/2 ends the handshake like this: gRPC offers nothing else.
        row("no protocol in common", "grpcs", fine(server().protocol("http/1.1")))
            .failed("tls_alert_received", "tls", &[])
            .shows(json!({"tls": {"alert": 120}}))
            .says(PROTOCOL, "nginx offers h2 by ALPN and nothing else"),
        alert(
            "no protocol offered",
            answers(b"\x15\x03\x03\x00\x02\x02\x78", Conn::close),
            120,
            PROTOCOL,
            "proxy_pass offers none",
        ),
        // Guards against a number that no RFC gives a name being lost, or named.
        alert(
            "an alert without a name",
            answers(b"\x15\x03\x03\x00\x02\x02\xc8", Conn::close),
            200,
            "200",
            "",
        ),
    ]
}

/// Guards against the reason being lost why a certificate does not verify, and against one for
/// another name being taken for one that does not verify.
pub(crate) fn certificates() -> Vec<Row> {
    let (ca, other) = (Arc::new(Ca::new("known")), Ca::new("unknown"));
    let between = ca.intermediate("known, between");
    let row = |what, speaks, identity: &Identity| {
        let row = row(what, speaks, fine(Server::new(identity)));
        let (module, path) = (row.module.unwrap_or_default(), ca.path().display());
        let verify = format!(
            "{module}_ssl_verify on; {module}_ssl_name {NAME};
             {module}_ssl_trusted_certificate {path};"
        );
        Row { kept: Some(ca.clone()), ..row.with(verify) }
    };
    let invalid = |what, speaks, identity: &Identity, reason: &'static str| {
        row(what, speaks, identity)
            .failed("tls_certificate_error", "tls", &[])
            .shows(json!({"tls": {"verify": reason, "alert": null}, "bytes_received": 0}))
            .says(
                reason,
                match reason {
                    EXPIRED => "A certificate in the upstream's chain has expired",
                    FIRST => "The upstream sends no intermediate certificate",
                    "self-signed certificate" => "The certificate is self-signed",
                    _ => "add the root to proxy_ssl_trusted_certificate",
                },
            )
    };
    const EXPIRED: &str = "certificate has expired";
    const FIRST: &str = "unable to verify the first certificate";
    let expired = ca.expired(&[NAME]);
    vec![
        invalid("expired", "proxys", &expired, EXPIRED),
        invalid("expired", "grpcs", &expired, EXPIRED),
        invalid("expired", "uwsgis", &expired, EXPIRED),
        // Whether the name is right does not matter then.
        invalid("expired, of another name", "proxys", &ca.expired(&["other.example"]), EXPIRED),
        invalid(
            "self-signed",
            "proxys",
            &Identity::self_signed(&[NAME]),
            "self-signed certificate",
        ),
        invalid("of a strange authority", "proxys", &other.identity(&[NAME]), FIRST),
        invalid("without its chain", "proxys", &between.identity(&[NAME]).alone(), FIRST),
        invalid(
            "of a strange chain",
            "proxys",
            &other.intermediate("unknown, between").identity(&[NAME]),
            "unable to get local issuer certificate",
        ),
        row("of another name", "proxys", &ca.identity(&["other.example"]))
            .failed("tls_name_mismatch", "tls", &[])
            .shows(json!({"tls": null, "message":
                format!("upstream SSL certificate does not match \"{NAME}\"")}))
            .says("", "Set proxy_ssl_server_name on: nginx did not tell the name"),
        // Guards against a setting being proposed that is on.
        row("of another name, told", "grpcs", &ca.identity(&["other.example"]))
            .with("grpc_ssl_server_name on;")
            .failed("tls_name_mismatch", "tls", &[])
            .says("", "Set grpc_ssl_name to a name that the certificate has."),
    ]
}

/// Answers with these bytes, says that nothing follows and closes.
fn good_bye(bytes: &'static [u8]) -> impl Fn(usize, &mut Conn) {
    move |_, conn| {
        conn.read_request();
        conn.write(bytes);
        conn.close_notify();
    }
}

/// Guards against what fails behind a handshake being put down to it, announced or not; and
/// against evidence that there is not, as TLS hides what is in the kernel's buffer.
pub(crate) fn behind() -> Vec<Row> {
    [(&TLS12, V12, "TLS 1.2"), (&TLS13, V13, "TLS 1.3")]
        .into_iter()
        .flat_map(|(version, directive, name)| {
            let identity = Ca::new("ca").identity(&[NAME]);
            let server = || Server::new(&identity).version(version);
            let row =
                |what: &str, peer| row(format!("{what}, {name}"), "proxys", peer).with(directive);
            let http = protocol::http();
            let silent =
                |bytes: &[u8]| tcp(server().over(sends(&http, bytes, crate::peer::End::Wait)));
            let old = |_: usize, conn: &mut Conn| {
                if t::h2::read_only(conn) {
                    conn.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
                }
            };
            let cut = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart";
            let gone = |what, peer| {
                row(what, peer)
                    .failed("closed_before_response", "header", &[])
                    .shows(json!({"bytes_received": 0, "header": null, "tls": null}))
            };
            let truncated = |what, peer| {
                row(what, peer)
                    .truncated("response_truncated", "body", &[])
                    .shows(json!({"status": 200, "tls": null}))
            };
            let raced = |what, end| {
                row(what, tcp(server().over(script::keepalive_then_close_on_next(end))))
                    .masked("keepalive_race", "header", &[])
                    .reused()
                    .retried()
                    .shows(json!({"bytes_received": 0, "header": null, "tls": null}))
            };
            vec![
                // Guards against a port being suspected to want the TLS that it speaks.
                gone("closed at once", tcp(server().over(script::close_at_once()))).says(
                    "",
                    "Look for a crash, a worker that was killed or a timeout of its own in",
                ),
                gone("closed with a farewell", tcp(server().over(good_bye(b"")))),
                row(
                    "closed in the header",
                    tcp(server().over(script::partial_header_then_close())),
                )
                .failed("closed_in_header", "header", &[])
                .shows(json!({"bytes_received": 27, "header": {"size": 27}})),
                // nginx reports a reset in the words of a close and without an errno: only the
                // socket tells.
                row("reset", tcp(server().over(script::reset_at_once())))
                    .failed("connection_reset", "header", &[])
                    .shows(json!({"bytes_received": 0, "tls": null, "tcp": {"state": "CLOSE"}})),
                row("silent", silent(b"")).waits("read", SOON).failed(
                    "response_timed_out",
                    "header",
                    &[ETIMEDOUT],
                ),
                row("header too big", tcp(server().over(script::big_header(9043))))
                    .failed("header_too_big", "header", &[])
                    .shows(json!({"bytes_received": 4096,
                                  "header": {"exact": false, "limit": 4096}}))
                    .says("at least ", "at least "),
                truncated(
                    "body cut by FIN",
                    tcp(server().over(script::partial_body(100, "part", End::Fin))),
                ),
                truncated(
                    "body cut by RST",
                    tcp(server().over(script::partial_body(100, "part", End::Rst))),
                ),
                truncated("body cut by a farewell", tcp(server().over(good_bye(cut)))),
                row("silent in the body", silent(cut)).waits("read", LATER).truncated(
                    "body_timed_out",
                    "body",
                    &[ETIMEDOUT],
                ),
                // Guards against TLS being proposed where it is spoken already.
                crate::row::row(format!("HTTP/1, {name}"), "grpcs", tcp(server().over(old)))
                    .with(directive.replace("proxy_", "grpc_"))
                    .failed("protocol_mismatch", "header", &[])
                    .says("{addr} speaks HTTP/1, not HTTP/2.", "Turn HTTP/2 on for that port"),
                raced("closed on reuse", End::Fin),
                raced("reset on reuse", End::Rst),
            ]
        })
        .collect()
}
