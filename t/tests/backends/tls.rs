//! Servers with a certificate that has expired.

use serde_json::json;
use t::diag;
use t::ports::Reservation;
use t::tls::{Ca, Identity};
use t::{Backend, Nginx};

use crate::told;

/// A server, the version of TLS it is to speak, and how it is started.
type Start = fn(&str, &str) -> Backend;

fn s_server(addr: &str, file: &str, version: &str) -> Backend {
    let args = ["s_server", "-accept", addr, "-cert", file, "-key", file, version, "-www"];
    let server = Backend::start("openssl", &args, &[]);
    server.wait_for("ACCEPT", 1);
    server
}

fn gunicorn(addr: &str, file: &str) -> Backend {
    let args = ["--bind", addr, "--certfile", file, "--keyfile", file, "app:application"];
    let server = Backend::start("gunicorn", &args, &[("app.py", include_str!("app.py"))]);
    server.wait_for("Booting worker", 1);
    server
}

/// Guards against a certificate that has expired being one whose issuer is not known, or a server
/// that is down. The operator is to be told that it has expired, and to have it renewed.
#[test]
fn certificate_has_expired() {
    let ca = Ca::new("authority");
    let names = ["backend.example"];
    let servers: [Start; 3] = [
        |addr, file| s_server(addr, file, "-tls1_2"),
        |addr, file| s_server(addr, file, "-tls1_3"),
        gunicorn,
    ];
    for start in servers {
        let ports = [(); 2].map(|()| Reservation::v4().expect("a port"));
        let [expired, renewed] = ports.each_ref().map(|port| port.addr().to_string());
        let start = |addr: &str, identity: &Identity| {
            start(addr, identity.path().to_str().expect("a plain name"))
        };
        let identities = [ca.expired(&names), ca.identity(&names)];
        let _servers = [start(&expired, &identities[0]), start(&renewed, &identities[1])];
        let nginx = Nginx::start(diag::conf(format!(
            "proxy_ssl_trusted_certificate {}; proxy_ssl_name backend.example; proxy_ssl_verify on;
             proxy_ssl_protocols TLSv1.2 TLSv1.3;
             location /expired {{ proxy_pass https://{expired}/; }}
             location /trusted {{ proxy_pass https://{expired}/; proxy_ssl_verify off; }}
             location /renewed {{ proxy_pass https://{renewed}/; }}",
            ca.path().display()
        )));
        let response = nginx.get("/expired");
        assert_eq!(response.status, 502);
        let seen = diag::seen(&nginx, 0);
        let attempt = json!({
            "peer": expired, "cause": "tls_certificate_error", "status": 502, "reused": false,
            "errno": null, "tls": {"verify": "certificate has expired", "alert": null},
        });
        seen.expect(
            "tls_certificate_error",
            &json!({"outcome": "failed", "phase": "tls", "attempts": [attempt]}),
        )
        .in_header(&response);
        told(&seen, &["certificate has expired"], &["renew it"]);
        assert_eq!(seen.codes(), [""; 0]);
        // It is only that.
        for path in ["/trusted", "/renewed"] {
            assert_eq!(nginx.get(path).status, 200, "{path}");
        }
        diag::finish(&nginx);
    }
}
