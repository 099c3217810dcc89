//! `single_server`.

use serde_json::json;
use t::script::{self, End};
use t::{Nginx, Upstream, diag};

use crate::{fails, group};

const TEXT: &str = "Upstream \"u\" has one server: there is no other to try, and max_fails does not take the only one out.";

/// Guards against an operator who waits for `max_fails` to help, or for another try.
#[test]
fn the_only_one() {
    let dead = t::refused_port();
    let closing = Upstream::tcp(script::close_at_once());
    for (addr, codes) in [
        (dead.addr(), &["nothing_listening", "single_server"][..]),
        (closing.addr(), &["single_server"]),
    ] {
        let nginx = Nginx::start(group(&format!("server {addr} max_fails=1;"), ""));
        // The second time as the first: it is never out.
        for n in 0..2 {
            let seen = fails(&nginx, n);
            seen.finds("single_server", "certain", TEXT, &json!({"servers": 1}));
            assert_eq!(seen.codes(), codes);
        }
        diag::finish(&nginx);
    }
}

/// Guards against the finding where another server is there, where there is no group to add one to,
/// where it would have made no difference, and where the client noticed nothing.
#[test]
fn not_the_only_one() {
    let dead = t::refused_port();
    let busy = Upstream::tcp(script::status(503));
    let cut = Upstream::tcp(script::partial_body(9, "good", End::Fin));
    let dead_addr = dead.addr();
    let one = format!("server {dead_addr};");
    for (conf, cause, status) in [
        (group(&format!("{one} server {dead_addr} backup;"), ""), "connection_refused", 502),
        (group(&format!("{one} {one}"), ""), "connection_refused", 502),
        (group(&format!("{one} server 127.0.0.1:1 down;"), ""), "connection_refused", 502),
        (
            diag::conf(format!("location / {{ proxy_pass http://{dead_addr}; }}")),
            "connection_refused",
            502,
        ),
        (group(&format!("server {dead_addr} down;"), ""), "no_live_upstreams", 502),
        (group(&one, "proxy_bind 192.0.2.1;"), "bind_failed", 500),
        (
            group(&one, "error_page 502 =200 /page; location /page { return 200; }"),
            "connection_refused",
            200,
        ),
        (group(&format!("server {};", cut.addr()), ""), "response_truncated", 200),
        // It works, and has its reasons.
        (group(&format!("server {};", busy.addr()), ""), "upstream_response", 503),
    ] {
        let nginx = Nginx::start(conf);
        assert_eq!(nginx.get("/").status, status, "{cause}");
        diag::seen(&nginx, 0).expect(cause, &json!({})).is_silent("single_server");
        diag::finish(&nginx);
    }
}
