//! TLS
use serde_json::json;
use t::diag;
use t::ports::Reservation;
use t::tls::Ca;
use t::{Backend, Nginx, Signal};

use crate::{age, ask, records, told};

#[test]
fn expired() {
    let port = Reservation::v4().expect("a port");
    let addr = port.addr().to_string();
    let ca = Ca::new("ca");
    let identity = ca.expired(&["backend.example"]);
    let file = identity.path().to_str().unwrap();
    let args = ["s_server", "-accept", &addr, "-cert", file, "-key", file, "-www"];
    let server = Backend::start("openssl", &args, &[]);
    server.wait_for("ACCEPT", 1);
    let nginx = Nginx::start(diag::conf(format!(
        "
        proxy_ssl_trusted_certificate {}; proxy_ssl_name backend.example;
        location /verify {{ proxy_ssl_verify on; proxy_pass https://{addr}/; }}
        location /trusting {{ proxy_pass https://{addr}/; }}",
        ca.path().display()
    )));
    println!("{}", nginx.get("/verify").status);
    println!("{}", nginx.get("/trusting").status);
    println!("{:#}", diag::seen(&nginx, 0).record);
    println!("{}", server.output());
}
