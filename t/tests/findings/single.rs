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
    let busy = Upstream::tcp(script::status(503));
    for (addr, codes) in [
        (dead.addr(), &["nothing_listening", "single_server"][..]),
        (closing.addr(), &["single_server"]),
        // Its own error: another one can be less busy.
        (busy.addr(), &["single_server"]),
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
    let large = Upstream::tcp(script::big_header(9043));
    let invalid = Upstream::tcp(script::raw("HTTP/1.1 200 OK\r\n\0: 1\r\n\r\n"));
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
        // Others of its kind would have failed alike.
        (
            group(&format!("server {};", large.addr()), "proxy_buffer_size 4k;"),
            "header_too_big",
            502,
        ),
        (group(&format!("server {};", invalid.addr()), ""), "invalid_header", 502),
    ] {
        let nginx = Nginx::start(conf);
        assert_eq!(nginx.get("/").status, status, "{cause}");
        diag::seen(&nginx, 0).expect(cause, &json!({})).is_silent("single_server");
        diag::finish(&nginx);
    }
}
