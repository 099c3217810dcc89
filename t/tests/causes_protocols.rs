//! The protocols beside HTTP: responses that are no failure, and advice that is taken. What can
//! fail in them are rows of `faults`.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "test code: a broken assumption is a failed test and should stop it at once"
)]

use t::client::Response;
use t::diag;
use t::fastcgi::{end_request, response, stderr, stdout};
use t::h2::{END_STREAM, STREAM, goaway, headers, rst_stream};
use t::protocol::{self, Protocol};
use t::{Conf, Nginx, Upstream};

/// An upstream that sends these bytes, and closes unless nginx is to do that.
fn upstream(protocol: &Protocol, sends: &[u8], stays: bool) -> Upstream {
    let (read, sends) = (protocol.read, sends.to_vec());
    Upstream::tcp(move |_, conn| {
        if read(conn) && conn.write(&sends) && stays {
            conn.wait_peer_close();
        }
    })
}

fn conf(protocol: &Protocol, addr: &str) -> Conf {
    let Protocol { name, location, .. } = protocol;
    let scheme = if *name == "proxy" { "http://" } else { "" };
    diag::conf(format!(
        "location / {{ {location} {name}_pass {scheme}{addr}; }}
         location /own {{ return 200 page; }}"
    ))
}

/// A response that is none of the module's business.
fn no_trace(protocol: &Protocol, sends: &[u8], stays: bool, http: &str, status: u16) -> Response {
    let up = upstream(protocol, sends, stays);
    let nginx = Nginx::start(conf(protocol, &up.addr()).http(http));
    let mut client = nginx.connect();
    let response = client.get("/");
    assert_eq!((response.status, response.truncated), (status, false), "{response:?}");
    nginx.wait_lines("access.log", 1);
    assert_eq!(nginx.lines("diag.json"), [""; 0], "{}", protocol.name);
    diag::finish(&nginx);
    response
}

/// Guards against a healthy response of any protocol leaving a trace: framing behind it, trailers.
#[test]
fn a_good_response() {
    for protocol in protocol::all() {
        let body = no_trace(&protocol, &protocol.good, false, "", 200).text();
        assert_eq!(body, "good", "{}", protocol.name);
    }
    // HTTP is what these may answer with.
    for protocol in [protocol::uwsgi(), protocol::scgi()] {
        assert_eq!(no_trace(&protocol, &protocol::http().good, false, "", 200).text(), "good");
    }
}

/// Guards against what nginx logs as an error being taken for a failure: the application answered,
/// and its 500 is its own, whoever words it.
#[test]
fn stderr_of_fastcgi() {
    let fastcgi = protocol::fastcgi();
    let complaint = stderr("PHP Fatal error: Allowed memory size exhausted\n");
    let good = "Status: 200 OK\r\nContent-Length: 4\r\n\r\ngood";
    let early = [complaint.clone(), response(good)].concat();
    assert_eq!(no_trace(&fastcgi, &early, false, "", 200).text(), "good");
    let late = [stdout(good), complaint.clone(), stdout(""), end_request()].concat();
    assert_eq!(no_trace(&fastcgi, &late, false, "", 200).text(), "good");
    let own = response("Status: 500 Broken\r\nContent-Length: 4\r\n\r\noops");
    let own = [complaint, own].concat();
    assert_eq!(no_trace(&fastcgi, &own, false, "", 500).text(), "oops");
    // The page's status is the response's or that of the page.
    for (page, status) in [("500", 500), ("500 =200", 200)] {
        let page = format!("fastcgi_intercept_errors on; error_page {page} /own;");
        assert_eq!(no_trace(&fastcgi, &own, false, &page, status).text(), "page");
    }
}

/// Guards against what a server may do at the end of a good response being taken for a failure.
#[test]
fn ends_of_http2_streams() {
    let grpc = protocol::grpc();
    let then = |end: Vec<u8>| [grpc.good.clone(), end].concat();
    no_trace(&grpc, &then(rst_stream(0)), true, "", 200);
    no_trace(&grpc, &then(goaway(STREAM, 0)), true, "", 200);
    let first = [goaway(STREAM, 0), grpc.good.clone()].concat();
    no_trace(&grpc, &first, true, "", 200);
    // The status that counts for gRPC is none of HTTP's.
    let unavailable = [(":status", "200"), ("grpc-status", "14")];
    no_trace(&grpc, &headers(END_STREAM, &unavailable), true, "", 200);
}

/// Guards against a key that is not there being taken for a failure.
#[test]
fn no_value_in_memcached() {
    no_trace(&protocol::memcached(), b"END\r\n", true, "", 404);
}

/// Guards against advice on a header that is too big that does not help: it is taken, and must. A
/// size that is not known to be exact is a lower bound, and is told as one.
#[test]
fn the_advice_on_a_big_header_works() {
    for protocol in protocol::all() {
        let name = protocol.name;
        let (sends, whole) = (protocol.big_header)(13_000);
        let up = upstream(&protocol, &sends, false);
        let ask = |sizes: &str| {
            let nginx = Nginx::start(conf(&protocol, &up.addr()).http(sizes));
            let response = nginx.get("/");
            (nginx, response)
        };
        let (nginx, refused) = ask(&format!("{name}_buffer_size 4k;"));
        assert_eq!(refused.status, 502, "{name}");
        let seen = diag::seen(&nginx, 0);
        diag::finish(&nginx);
        let header = &seen.attempt(0)["header"];
        let advice = seen.variable("advice");
        let has_buffers = matches!(name, "proxy" | "fastcgi" | "uwsgi" | "scgi");
        assert_eq!(advice.contains("_buffers"), has_buffers, "{advice}");
        if header["exact"] == true {
            let set = advice.split("; ").filter_map(|part| {
                let part = part.trim_start_matches("Set ").trim_start_matches("with it ");
                part.starts_with(name).then(|| format!("{part};"))
            });
            let (nginx, response) = ask(&set.collect::<String>());
            assert!(response.text().ends_with("good"), "{advice}: {response:?}");
            diag::finish(&nginx);
        } else {
            assert_eq!(name, "grpc");
            let size = header["size"].as_u64().and_then(|n| usize::try_from(n).ok());
            assert!(size.is_some_and(|n| (4096..=whole).contains(&n)), "{header}, of {whole}");
            assert!(advice.contains("at least"), "{advice}");
        }
    }
}
