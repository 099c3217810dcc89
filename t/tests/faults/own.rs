//! Errors that no upstream made now: nginx's cache kept them, or the configuration or another
//! module makes them.

use serde_json::json;
use t::Conn;
use t::script;

use crate::peer::{Peer, tcp};
use crate::row::{Ask, Before, Row, own, row};

/// A cache of the row's own.
const CACHE: &str = "proxy_cache_path {prefix}/tmp/cache{n} keys_zone=c{n}:1m;";

pub(crate) fn rows() -> Vec<Row> {
    let cached = |what, peer, status: u16| {
        let row = row(what, "proxy", peer).before(Before::Answer(status));
        let valid = format!("proxy_cache c{{n}}; proxy_cache_valid {status} 1m;");
        Row { http: CACHE, ..row }.with(valid).made("cached_error", "cache", status)
    };
    let unavailable = || tcp(script::status(503));
    let local = |what, location, status| own(what, location).made("local_return", "config", status);
    let missing = tcp(|_, conn: &mut Conn| {
        conn.read_request();
        conn.write("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    });
    vec![
        // Guards against an error being lost of which nginx says nothing, as no upstream is asked.
        cached("the upstream's own 502, cached", tcp(script::status(502)), 502),
        cached("the upstream's own 503, cached", unavailable(), 503),
        cached("the upstream's own 504, cached", tcp(script::status(504)), 504),
        cached("the upstream's own 503, cached, HTTP/2 client", unavailable(), 503).ask(Ask::H2),
        // nginx keeps its own errors, too: as nothing but a status.
        cached("nginx's own 502, cached", Peer::Refused, 502),
        // Guards against the error of a location that asks no upstream being put down to one.
        local("return 502", "return 502;", 502),
        local("return 503 with a text", "return 503 busy;", 503),
        local("return 504", "return 504;", 504),
        local("return 503, HTTP/2 client", "return 503;", 503).ask(Ask::H2),
        local("a file that is missing", "root {prefix}/none; try_files $uri =503;", 503),
        Row {
            http: "limit_req_zone $uri zone=r{n}:1m rate=1r/m;",
            ..local("too many requests", "limit_req zone=r{n}; proxy_pass http://{good};", 503)
        }
        .before(Before::Answer(200)),
        // Guards against an upstream's good answer being blamed, in place of which there is an
        // error.
        Row { module: None, ..row("an error page with 503", "proxy", missing) }
            .with("proxy_intercept_errors on; error_page 404 =503 /page;")
            .made("local_return", "config", 503)
            .record(json!({"attempts": [{"cause": null, "status": 404}], "upstream": null,
                           "location": null})),
    ]
}
