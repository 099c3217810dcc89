//! TLS to several upstreams, and TLS that works. The causes of the phase "tls" are rows of
//! `faults`.

use serde_json::json;
use t::diag;
use t::script;
use t::tls::{Ca, Identity, Server, TLS13};
use t::{Conf, Nginx, Upstream};

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

/// Directives that make the proxy verify certificates.
fn verify(ca: &Ca) -> String {
    format!("proxy_ssl_verify on; proxy_ssl_trusted_certificate {};", ca.path().display())
}

/// Directives that make the proxy show this certificate.
fn show(identity: &Identity) -> String {
    let path = identity.path().display();
    format!("proxy_ssl_certificate {path}; proxy_ssl_certificate_key {path};")
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

/// Guards against a trace of what is no failure; and shows that the servers of the table of
/// faults fail by what is wrong with them, and not because nothing works.
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
        let nginx = Nginx::start(proxy(&format!("server {};", up.addr())).http(http));
        for path in ["/1", "/2"] {
            assert_eq!(nginx.get(path).text(), "good");
        }
        nginx.wait_lines("access.log", 2);
        assert_eq!((nginx.lines("diag.json").len(), up.connections()), (0, 1));
        diag::finish(&nginx);
    }
}
