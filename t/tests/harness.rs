//! The scripted upstreams and the DNS server do what they say: a plain nginx
//! in front of them reports the failure they are made for.

use std::time::Duration;

use t::client::Addr;
use t::dns::{NXDOMAIN, REFUSED, SERVFAIL};
use t::script::{self, End};
use t::{Answer, Client, Conf, Dns, Gate, Nginx, Step, Upstream};

const SOON: Duration = Duration::from_secs(5);

/// A proxy in front of one upstream.
fn proxy(addr: &str) -> Conf {
    Conf::new("location / { proxy_pass http://u; }")
        .http(format!("upstream u {{ server {addr}; keepalive 4; }}"))
        .http("proxy_http_version 1.1; proxy_set_header Connection '';")
        .http("proxy_buffer_size 1k; proxy_connect_timeout 300ms; proxy_read_timeout 300ms;")
        .without_module()
}

/// Asserts the status and the error that nginx logs for one request.
fn expect(addr: &str, status: u16, error: &str) {
    let nginx = Nginx::start(proxy(addr));
    assert_eq!(nginx.get("/").status, status, "{error}");
    nginx.wait_for_log(error, SOON);
    nginx.stop();
}

/// Guards against an `ok` that closes after each response.
#[test]
fn ok_keeps_the_connection() {
    let up = Upstream::tcp(script::ok("hello"));
    let nginx = Nginx::start(proxy(&up.addr()));
    let mut client = nginx.connect();
    for _ in 0..3 {
        assert_eq!(client.get("/").text(), "hello");
    }
    assert_eq!((up.connections(), up.requests().len()), (1, 3));
    assert!(up.requests()[0].starts_with(b"GET / HTTP/1.1\r\n"));
}

/// Guards against a request body being taken for the next request.
#[test]
fn request_bodies_belong_to_their_request() {
    let up = Upstream::tcp(script::ok(""));
    let mut client = Client::connect(&Addr::Tcp(up.port())).unwrap();
    let sized = b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n\r\n\r\n!".as_slice();
    let chunked = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n";
    let empty = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    for request in [sized, chunked, empty] {
        assert_eq!(client.request(request).status, 200);
    }
    assert_eq!(up.requests(), [sized, chunked, empty]);
}

/// Guards against a header that is one byte longer or shorter than asked for.
#[test]
fn big_header_is_exact() {
    let fits = Upstream::tcp(script::big_header(1024));
    expect(&fits.addr(), 200, "");
    let over = Upstream::tcp(script::big_header(1025));
    expect(&over.addr(), 502, "upstream sent too big header while reading");
}

/// Guards against a port that does not refuse, or cannot be taken into use.
#[test]
fn refused_port_refuses_until_somebody_listens() {
    let port = t::refused_port();
    let nginx = Nginx::start(proxy(&format!("{} max_fails=0", port.addr())));
    assert_eq!(nginx.get("/").status, 502);
    nginx.wait_for_log("connect() failed (111: Connection refused)", SOON);
    let up = Upstream::tcp_at(&port, script::ok("up"));
    assert_eq!(nginx.get("/").text(), "up");
    drop(up);
    // The cached connection was closed; nginx may see that first or fail on it.
    assert_eq!(nginx.get("/").status, 502);
}

/// Guards against a closed listener that still accepts, or ends connections.
#[test]
fn closed_listener_refuses_and_keeps_connections() {
    let mut up = Upstream::tcp(script::ok("here"));
    let mut client = Client::connect(&Addr::Tcp(up.port())).unwrap();
    assert_eq!(client.get("/").text(), "here");
    up.close_listener();
    let refused = Client::connect(&Addr::Tcp(up.port())).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    assert_eq!(client.get("/").text(), "here");
}

/// Guards against a unix socket without listener that is something else.
#[test]
fn dead_unix_refuses() {
    let dir = t::temp_dir();
    let addr = t::dead_unix(&dir.path().join("dead.sock"));
    expect(&addr, 502, "failed (111: Connection refused) while connecting to upstream");
}

/// Guards against a reset that arrives as FIN.
#[test]
fn reset_is_a_reset() {
    const ERROR: &str = "recv() failed (104: Connection reset by peer) while reading response";
    let up = Upstream::tcp(script::reset_at_once());
    expect(&up.addr(), 502, ERROR);
    let dir = t::temp_dir();
    let up = Upstream::unix(dir.path().join("up.sock"), script::reset_at_once());
    expect(&up.addr(), 502, ERROR);
    let up = Upstream::tcp(script::reset_on_accept());
    expect(&up.addr(), 502, "(104: Connection reset by peer) while");
    let up = Upstream::tcp(script::partial_body(100, "part", End::Rst));
    expect(&up.addr(), 200, "(104: Connection reset by peer) while reading upstream");
}

/// Guards against FIN that turns into RST because something was not read.
#[test]
fn close_is_fin() {
    const ERROR: &str = "upstream prematurely closed connection while reading response header";
    let up = Upstream::tcp(script::close_at_once());
    expect(&up.addr(), 502, ERROR);
    let up = Upstream::tcp6(script::partial_header_then_close());
    expect(&up.addr(), 502, ERROR);
    let up = Upstream::tcp(script::partial_body(100, "part", End::Fin));
    expect(&up.addr(), 200, "upstream prematurely closed connection while reading upstream");
}

/// Guards against a queue that is not full, so that connecting succeeds.
#[test]
fn full_backlog_hangs_or_gives_eagain() {
    let full = t::full_backlog_tcp();
    expect(full.addr(), 504, "upstream timed out (110: Connection timed out) while connecting");
    let dir = t::temp_dir();
    let full = t::full_backlog_unix(&dir.path().join("full.sock"));
    expect(full.addr(), 502, "failed (11: Resource temporarily unavailable) while connecting");
}

/// Guards against `silent` closing the connection by itself.
#[test]
fn silent_times_out() {
    let up = Upstream::tcp(script::silent());
    let error = "upstream timed out (110: Connection timed out) while reading response header";
    expect(&up.addr(), 504, error);
    assert_eq!(up.requests().len(), 1);
    // nginx gave up, so the script has seen the end.
    up.wait_all_closed();
}

/// Guards against a kept connection that ends before it is used again.
#[test]
fn keepalive_ends_on_the_next_request() {
    for (end, error) in [
        (End::Fin, "upstream prematurely closed connection while reading response header"),
        (End::Rst, "(104: Connection reset by peer) while reading response header"),
    ] {
        let up = Upstream::tcp(script::keepalive_then_close_on_next(end));
        let nginx = Nginx::start(proxy(&up.addr()));
        assert_eq!((nginx.get("/1").status, up.connections()), (200, 1));
        // The second try of this request has a connection of its own.
        assert_eq!((nginx.get("/2").status, up.connections()), (200, 2));
        nginx.wait_for_log(error, SOON);
        nginx.stop();
    }
}

/// Guards against lists of steps running on the wrong connection, or a gate
/// that opens by itself.
#[test]
fn steps_gates_and_slow_writing() {
    let gate = Gate::new();
    let slow = Step::WriteSlowly(script::response("slow"), 7, Duration::from_millis(1));
    let up = Upstream::tcp(script::steps(vec![
        vec![Step::ReadRequest, Step::Wait(gate.clone()), Step::Write(script::response("first"))],
        vec![Step::ReadRequest, slow],
    ]));
    let addr = Addr::Tcp(up.port());
    let mut first = Client::connect(&addr).unwrap();
    first.send(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    up.wait_requests(1);
    for _ in 0..2 {
        assert_eq!(Client::connect(&addr).unwrap().get("/").text(), "slow");
    }
    first.set_timeout(Duration::from_millis(50));
    assert_eq!(first.read_response(false).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    gate.open();
    first.set_timeout(SOON);
    assert_eq!(first.read_response(false).unwrap().text(), "first");
}

/// Guards against threads that outlive their upstream (this test would hang)
/// whatever they are waiting for.
#[test]
fn dropping_wakes_every_script() {
    let up = Upstream::tcp(|index, conn| match index {
        0 => conn.hold(),
        1 => conn.pause(Duration::from_secs(600)),
        2 => conn.wait_peer_close(),
        3 => drop(conn.wait_readable()),
        4 => drop(conn.write_slowly("slow", 1, Duration::from_secs(600))),
        _ => while conn.write([b'x'; 65536]) {},
    });
    let clients: Vec<_> = (0..6).map(|_| Client::connect(&Addr::Tcp(up.port())).unwrap()).collect();
    up.wait_connections(clients.len());
    drop(up);
    for mut client in clients {
        assert!(client.wait_closed());
    }
}

/// Guards against a failed assertion in a script that nobody hears of.
#[test]
fn panic_in_a_script_reaches_the_test() {
    let up = Upstream::tcp(|_, _| panic!("in the script"));
    let mut client = Client::connect(&Addr::Tcp(up.port())).unwrap();
    assert!(client.wait_closed());
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(up))).unwrap_err();
    assert_eq!(panic.downcast_ref(), Some(&"in the script"));
}

/// Guards against broken responses that the client takes for something else.
#[test]
fn client_reports_what_arrived() {
    for (sent, status, body, truncated) in [
        ("", 0, "", true),
        ("garbage\r\n\r\nmore", 9, "garbage\r\n\r\nmore", false),
        ("HTTP/1.1 200 OK\r\nContent-Le", 200, "HTTP/1.1 200 OK\r\nContent-Le", true),
        ("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab", 200, "ab", true),
        ("HTTP/1.1 200 OK\r\n\r\nto the end", 200, "to the end", false),
        ("HTTP/1.1 100 C\r\n\r\nHTTP/1.1 204 N\r\n\r\n", 204, "", false),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x\r\nab\r\n0\r\n\r\n",
            200,
            "ab",
            false,
        ),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n", 200, "ab", true),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nab", 200, "ab", true),
    ] {
        let up = Upstream::tcp(script::raw(sent));
        let response = Client::connect(&Addr::Tcp(up.port())).unwrap().get("/");
        let got = (response.status, response.text(), response.truncated);
        assert_eq!(got, (status, body.to_owned(), truncated), "{sent:?}");
    }
    let up = Upstream::tcp(script::ok("body"));
    let mut client = Client::connect(&Addr::Tcp(up.port())).unwrap();
    let head = client.request(b"HEAD / HTTP/1.1\r\n\r\n");
    assert_eq!((head.header("content-LENGTH"), head.text()), (Some("4"), String::new()));
}

/// Guards against DNS replies that nginx understands as something else.
#[test]
fn dns_answers_as_scripted() {
    let dns = Dns::start([
        ("a.example", Answer::localhost()),
        ("nx.example", NXDOMAIN),
        ("fail.example", SERVFAIL),
        ("refused.example", REFUSED),
        ("silent.example", Answer::Silent),
        ("empty.example", Answer::Empty),
    ]);
    let up = Upstream::tcp(script::ok("resolved"));
    let server = format!(
        "resolver {}; resolver_timeout 500ms;
         location / {{ proxy_pass http://$http_x_name:{}; }}",
        dns.addr(),
        up.port()
    );
    let nginx = Nginx::start(Conf::new(server).without_module());
    let ask = |name: &str| nginx.get_with("/", &format!("X-Name: {name}\r\n"));
    assert_eq!(ask("a.example").text(), "resolved");
    for (name, why) in [
        ("nx.example", "(3: Host not found)"),
        ("other.example", "(3: Host not found)"),
        ("empty.example", "(3: Host not found)"),
        ("fail.example", "(2: Server failure)"),
        ("refused.example", "(5: Operation refused)"),
        ("silent.example", "(110: Operation timed out)"),
    ] {
        assert_eq!(ask(name).status, 502, "{name}");
        nginx.wait_for_log(&format!("{name} could not be resolved {why}"), SOON);
    }
    assert!(dns.queries().contains(&("nx.example".to_owned(), 1)));
    dns.set("nx.example", Answer::localhost());
    assert_eq!(ask("nx.example").text(), "resolved");
}
