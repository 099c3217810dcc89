//! Nothing is said of requests that nothing is wrong with.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::Value;
use t::{Gate, Step, Upstream, script};

use crate::world::{PER_ATTEMPT, world_with};

/// Guards against records of requests that nothing is wrong with.
#[test]
fn successes_leave_no_trace() {
    let gate = Gate::new();
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n\r\n".to_vec();
    let endless = Upstream::tcp(script::steps(vec![vec![
        Step::ReadRequest,
        Step::Write(head),
        Step::Write(vec![b'x'; 500_000]),
        Step::Wait(gate.clone()),
        Step::Write(vec![b'x'; 8_000_000]),
    ]]));
    let statuses =
        [201, 204, 301, 304, 400, 404, 500].map(|s| (s, Upstream::tcp(script::status(s))));
    let silent = Upstream::tcp(script::silent());
    let mut server = String::from(
        "location /good { proxy_pass http://@good; }
         location /kept { proxy_pass http://kept; proxy_http_version 1.1;
                          proxy_set_header Connection ''; }
         location /page.html { root @www; if_modified_since before; }
         location /none { root @www; }
         location /return { return 200 text; }
         location /unavailable { return 503; }
         location /denied { deny all; }",
    );
    for (status, up) in statuses
        .iter()
        .map(|(s, up)| (s.to_string(), up.addr()))
        .chain([("endless".to_owned(), endless.addr()), ("silent".to_owned(), silent.addr())])
    {
        server.push_str(&format!("location /{status} {{ proxy_pass http://{up}; }}\n"));
    }
    let mut world = world_with(&server, |conf| {
        let good = conf.servers[0].split("http://").nth(1).and_then(|t| t.split(';').next());
        let kept = format!("upstream kept {{ server {}; keepalive 4; }}", good.unwrap_or_default());
        conf.http(kept)
    });
    let request = |line: &str, more: &str| {
        format!("{line} HTTP/1.1\r\nHost: x\r\n{more}Connection: close\r\n\r\n").into_bytes()
    };
    let mut requests: Vec<_> = [
        ("GET /good", 200, ""),
        ("HEAD /good", 200, ""),
        ("POST /good", 200, "Content-Length: 0\r\n"),
        ("GET /kept", 200, ""),
        ("GET /kept", 200, ""),
        ("GET /page.html", 200, ""),
        ("HEAD /page.html", 200, ""),
        ("GET /page.html", 304, "If-Modified-Since: Fri, 01 Jan 2100 00:00:00 GMT\r\n"),
        ("GET /page.html", 206, "Range: bytes=1-2\r\n"),
        ("GET /none", 404, ""),
        ("GET /return", 200, ""),
        // No upstream had any part in it.
        ("GET /unavailable", 503, ""),
        ("GET /denied", 403, ""),
    ]
    .map(|(line, status, more)| (request(line, more), status))
    .into();
    requests.extend(statuses.iter().map(|(s, _)| (request(&format!("GET /{s}"), ""), *s)));
    for (request, status) in requests {
        let shown = String::from_utf8_lossy(&request).into_owned();
        let response = world.nginx.request(&request);
        assert_eq!(response.status, status, "{shown}");
        assert!(matches!(response.header("X-Cause"), Some("[]")), "{shown}");
        check_empty(&world.line(), &status.to_string());
    }
    // The client leaves before the response, and in the middle of it.
    let mut client = world.nginx.connect();
    client.send(&request("GET /silent", "")).expect("sent");
    silent.wait_requests(1);
    client.reset().expect("reset");
    check_empty(&world.line(), "499");
    let mut client = TcpStream::connect(("127.0.0.1", world.nginx.port())).expect("connected");
    client.write_all(&request("GET /endless", "")).expect("sent");
    client.read_exact(&mut [0; 12]).expect("the status line");
    // Closes with RST, as most of the response is unread.
    drop(client);
    gate.open();
    check_empty(&world.line(), "200");
    world.failed(0);
}

fn check_empty(line: &Value, status: &str) {
    assert_eq!(line["status"], status, "{line}");
    for name in PER_ATTEMPT.into_iter().chain(["cause", "outcome", "json"]) {
        assert_eq!(line[name], "", "{name}: {line}");
    }
}
