//! Nobody found to connect to: names, addresses made from variables, groups of servers.

use serde_json::{Value, json};
use t::script;

use crate::peer::{Peer, tcp};
use crate::row::{Before, ETIMEDOUT, Errno, Row, row};

/// A location that goes to a name of the client's choice.
fn named(what: &'static str, speaks: &'static str, header: &'static str) -> Row {
    let pass = match speaks {
        "proxy" => "proxy_pass http://$http_x_name:80;",
        "proxys" => "proxy_pass https://$http_x_name;",
        "grpc" => "grpc_pass grpc://$http_x_name:80;",
        "fastcgi" => "fastcgi_pass $http_x_name:80;",
        "uwsgi" => "uwsgi_pass $http_x_name:80;",
        _ => "scgi_pass $http_x_name:80;",
    };
    let row = row(what, speaks, Peer::Refused).pass(pass);
    let name = header.trim_start_matches("X-Name: ").trim_end();
    Row { header, ..row }.record(json!({"upstream": name}))
}

/// Guards against the answer of the DNS server being read from a line that starts with the name,
/// and against an attempt being lost for which nginx has no entry.
pub(crate) fn names() -> Vec<Row> {
    let resolved = |what, speaks, header, cause, errnos: &'static [Errno], why: &str| {
        let row = named(what, speaks, header).with("resolver {dns} ipv6=off;");
        let name = header.trim_start_matches("X-Name: ").trim_end();
        let row = match cause {
            // Only where no answer is to come in time.
            "dns_timed_out" => row.with("resolver_timeout 200ms;"),
            _ => row,
        };
        row.failed(cause, "resolve", errnos)
            .shows(json!({"message": format!("{name} could not be resolved ({why})")}))
    };
    const NONE: &str = "X-Name: none.example\r\n";
    const EMPTY: &str = "X-Name: empty.example\r\n";
    const FAIL: &str = "X-Name: fail.example\r\n";
    const REFUSED: &str = "X-Name: refused.example\r\n";
    const UNKNOWN: &str = "X-Name: unknown.example\r\n";
    const SILENT: &str = "X-Name: silent.example\r\n";
    const FORMAT: &str = "X-Name: format.example\r\n";
    const NOT_FOUND: &str = "3: Host not found";
    const LATE: &str = "110: Operation timed out";
    let none = |speaks| {
        resolved("a name that does not exist", speaks, NONE, "dns_not_found", &[], NOT_FOUND)
    };
    let late = |speaks| {
        resolved("a resolver that is silent", speaks, SILENT, "dns_timed_out", &[ETIMEDOUT], LATE)
    };
    let lost = |speaks| {
        named("a name and no resolver", speaks, NONE)
            .failed("dns_no_resolver", "resolve", &[])
            .shows(json!({"message": "no resolver defined to resolve none.example"}))
    };
    vec![
        none("proxy"),
        none("proxys"),
        none("fastcgi"),
        none("uwsgi"),
        none("scgi"),
        none("grpc"),
        resolved("no address", "proxy", EMPTY, "dns_not_found", &[], NOT_FOUND),
        resolved("SERVFAIL", "proxy", FAIL, "dns_failure", &[], "2: Server failure"),
        resolved("SERVFAIL", "grpc", FAIL, "dns_failure", &[], "2: Server failure"),
        resolved("REFUSED", "proxy", REFUSED, "dns_failure", &[], "5: Operation refused"),
        resolved("NOTIMP", "proxy", UNKNOWN, "dns_failure", &[], "4: Unimplemented"),
        late("proxy"),
        late("fastcgi"),
        // nginx drops such an answer and goes on waiting.
        resolved("FORMERR", "proxy", FORMAT, "dns_timed_out", &[ETIMEDOUT], LATE),
        lost("proxy"),
        lost("grpc"),
        lost("fastcgi"),
    ]
}

/// Guards against an address that nginx refuses being missed: that happens before there is an
/// upstream request.
pub(crate) fn addresses() -> Vec<Row> {
    let refused = |what: &'static str, pass: &str, header, message: &str| {
        let row = row(what, "proxy", Peer::Refused).pass(pass);
        Row { header, module: None, ..row }
            .failed("invalid_upstream_url", "select", &[])
            .status(500)
            .shows(json!({"peer": null, "message": message}))
            // Not known yet when nginx looks at the address.
            .record(json!({"upstream": null}))
    };
    // Of these the protocol is known, and with it what the directive takes.
    let no_port = |speaks, pass, header, takes| {
        row("no port", speaks, Peer::Refused)
            .pass(pass)
            .header(header)
            .failed("invalid_upstream_url", "select", &[])
            .status(500)
            .shows(json!({"peer": null, "message": "no port in upstream \"a.example\""}))
            .says("", takes)
    };
    let url = |what, header, message| refused(what, "proxy_pass $http_x_url;", header, message);
    let other = |what, pass, header, message| refused(what, pass, header, message);
    vec![
        url("no URL", "X-Url:\r\n", "invalid URL prefix in \"\""),
        url("a URL without a scheme", "X-Url: nonsense\r\n", "invalid URL prefix in \"nonsense\""),
        url(
            "a URL of another scheme",
            "X-Url: ftp://a.example/\r\n",
            "invalid URL prefix in \"ftp://a.example/\"",
        ),
        url("a scheme alone", "X-Url: http://\r\n", "invalid URL prefix in \"http://\""),
        url("a path alone", "X-Url: http:///uri\r\n", "no host in upstream \"/uri\""),
        url("a port alone", "X-Url: http://:80\r\n", "no host in upstream \":80\""),
        url(
            "a port that is too large",
            "X-Url: http://127.0.0.1:99999/\r\n",
            "invalid port in upstream \"127.0.0.1:99999/\"",
        ),
        url(
            "a port that is no number",
            "X-Url: http://127.0.0.1:x/\r\n",
            "invalid port in upstream \"127.0.0.1:x/\"",
        ),
        url(
            "half an IPv6 address",
            "X-Url: http://[::1/\r\n",
            "invalid host in upstream \"[::1/\"",
        ),
        url(
            "an IPv6 address that is none",
            "X-Url: http://[::z]/\r\n",
            "invalid IPv6 address in upstream \"[::z]/\"",
        ),
        url(
            "a unix socket without a path",
            "X-Url: http://unix:\r\n",
            "no path in the unix domain socket in upstream \"unix:\"",
        ),
        other(
            "FastCGI: a port that is too large",
            "fastcgi_pass $http_x_url;",
            "X-Url: 127.0.0.1:99999\r\n",
            "invalid port in upstream \"127.0.0.1:99999\"",
        ),
        other(
            "gRPC: no port",
            "grpc_pass $http_x_url;",
            "X-Url: grpc://[::1\r\n",
            "invalid host in upstream \"[::1\"",
        ),
        other(
            "uwsgi: nothing",
            "uwsgi_pass $http_x_url;",
            "X-Url: :\r\n",
            "invalid port in upstream \":\"",
        ),
        no_port(
            "fastcgi",
            "fastcgi_pass $http_x_url;",
            "X-Url: a.example\r\n",
            "in fastcgi_pass: it takes host:port, unix:path or",
        ),
        no_port(
            "grpc",
            "grpc_pass $http_x_url;",
            "X-Url: grpcs://a.example\r\n",
            "with grpc://, grpcs:// or neither before it.",
        ),
        no_port(
            "uwsgi",
            "uwsgi_pass $http_x_url;",
            "X-Url: a.example\r\n",
            "with uwsgi://, suwsgi:// or neither before it.",
        ),
    ]
}

/// Guards against a group that was switched off being taken for one that failed, and one that is
/// full for one that is dead.
pub(crate) fn groups() -> Vec<Row> {
    let none = |what, speaks, server: &'static str, group: &'static str, peers: Value| {
        let row = row(what, speaks, Peer::Refused).group(group);
        Row { server, ..row }
            .failed("no_live_upstreams", "select", &[])
            .shows(json!({"message": "no live upstreams", "status": 502}))
            .record(json!({"peers": peers}))
            .says("Upstream \"u", "")
    };
    let down =
        || json!([{"peer": "{addr}", "state": "down", "unavailable_for": null, "backup": null}]);
    let two = || {
        json!([{"peer": "{addr}", "state": "down", "backup": null},
               {"peer": "127.0.0.2:9", "state": "down", "backup": true}])
    };
    let out = |what, speaks| {
        // A group with one server is never out.
        let peers = json!([{"peer": "{addr}", "state": "unavailable"}, {"state": "down"}]);
        let row = none(what, speaks, "", "server 127.0.0.1:9 down;", peers);
        Row { before: Before::Answer(502), ..row }
            .says("", "One server was taken out by connection_refused. See")
    };
    let full = |what, speaks, group: &'static str| {
        let row = row(what, speaks, tcp(script::silent())).group(group);
        Row { before: Before::Held, server: "max_conns=1", ..row }
            .failed("max_conns_reached", "select", &[])
            .shows(json!({"message": "no live upstreams", "status": 502}))
            .record(
                json!({"peers": [{"peer": "{addr}", "state": "busy", "unavailable_for": null}]}),
            )
    };
    vec![
        none("down", "proxy", "down", "", down()),
        none("down", "fastcgi", "down", "", down()),
        none("down", "grpc", "down", "", down()),
        none("down", "memcached", "down", "", down()),
        none("down, in shared memory", "proxy", "down", "zone {u} 64k;", down()),
        none("down, with a backup", "proxy", "down", "server 127.0.0.2:9 down backup;", two()),
        none("down, least_conn", "proxy", "down", "least_conn;", down()),
        none("down, hash", "proxy", "down", "hash $uri;", down()),
        none("down, random", "proxy", "down", "random;", down()),
        none("down, ip_hash", "proxy", "down", "ip_hash;", down()),
        none("down, keepalive", "proxy", "down", "keepalive 4;", down()),
        out("out after a failure", "proxy"),
        out("out after a failure", "scgi"),
        full("full", "proxy", ""),
        full("full, in shared memory", "proxy", "zone {u} 64k;"),
        full("full, least_conn", "proxy", "least_conn;"),
    ]
}
