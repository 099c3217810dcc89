//! Nothing is said of requests that nothing is wrong with.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::Value;
use t::{Answer, Dns, Gate, Nginx, Step, Upstream, diag, script};

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

/// An upstream that answers each path with what is said here, and keeps the connection where that
/// allows it.
fn answering() -> Upstream {
    Upstream::tcp(|_, conn| {
        while let Some(request) = conn.read_request() {
            let text = String::from_utf8_lossy(&request).into_owned();
            let path = text.split(' ').nth(1).unwrap_or_default();
            let ok = "HTTP/1.1 200 OK\r\n";
            let modified = "Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\nETag: \"e\"\r\n";
            let answer = match path.split(['?', '.']).next().unwrap_or_default() {
                "/empty" => format!("{ok}Content-Length: 0\r\n\r\n"),
                "/chunked" => {
                    format!(
                        "{ok}Transfer-Encoding: chunked\r\n\r\n4\r\ngood\r\n0\r\nX-End: 1\r\n\r\n"
                    )
                }
                "/modified" => format!("{ok}{modified}Content-Length: 4\r\n\r\ngood"),
                "/large" => format!("{ok}Content-Length: 300000\r\n\r\n{}", "x".repeat(300_000)),
                "/none" => "HTTP/1.1 204 No Content\r\n\r\n".to_owned(),
                "/head" => format!("{ok}Content-Length: 1000\r\n\r\n"),
                "/away" => {
                    "HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n".to_owned()
                }
                "/handed" => format!("{ok}X-Accel-Redirect: /target\r\nContent-Length: 0\r\n\r\n"),
                "/denied" => "HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n".to_owned(),
                "/unknown" => "HTTP/1.1 401 Who\r\nContent-Length: 0\r\n\r\n".to_owned(),
                "/odd" => "HTTP/1.1 599 Odd\r\nContent-Length: 0\r\n\r\n".to_owned(),
                // The end of the connection is that of the body.
                "/until" => {
                    conn.write(format!("{ok}\r\ngood"));
                    return;
                }
                _ => format!("{ok}Content-Length: 4\r\n\r\ngood"),
            };
            conn.write(answer);
        }
    })
}

/// Guards against the ways in which a good response can end, be changed or be put together being
/// taken for failures.
#[test]
fn other_successes_leave_no_trace() {
    let up = answering();
    let dns = Dns::start([("up.example", Answer::localhost())]);
    let conf = diag::conf(format!(
        "resolver {dns} ipv6=off; proxy_http_version 1.1; proxy_set_header Connection '';
         location / {{ proxy_pass http://kept; }}
         location /old {{ proxy_http_version 1.0; proxy_pass http://{up}/until; }}
         location /unbuffered {{ proxy_buffering off; proxy_pass http://kept/chunked; }}
         location /packed {{ gzip on; gzip_min_length 1; gzip_types *; gzip_proxied any;
                             proxy_pass http://kept/large; }}
         location /filed {{ proxy_buffers 2 4k; proxy_busy_buffers_size 4k;
                            proxy_pass http://kept/large; }}
         location /ranged {{ proxy_force_ranges on; proxy_pass http://kept/modified; }}
         location /named {{ set $name up.example; proxy_pass http://$name:{port}/x; }}
         location /cached {{ proxy_cache c; proxy_cache_valid 200 404 500 1m; proxy_pass http://kept/x; }}
         location /unchanged {{ proxy_cache c; proxy_cache_valid 1m; proxy_pass http://kept/modified; }}
         location /missing {{ error_page 404 = @good; root {{prefix}}/tmp; }}
         location @good {{ proxy_pass http://kept; }}
         location = /target {{ internal; proxy_pass http://kept/x; }}
         location /rewritten {{ rewrite ^ /empty last; }}
         location /mirrored {{ mirror /copy; proxy_pass http://kept; }}
         location = /copy {{ internal; proxy_pass http://kept/none; }}
         location /allowed {{ auth_request /yes; proxy_pass http://kept; }}
         location /forbidden {{ auth_request /no; proxy_pass http://kept; }}
         location /unauthorized {{ auth_request /who; proxy_pass http://kept; }}
         location = /yes {{ internal; proxy_pass http://kept/none; }}
         location = /no {{ internal; proxy_pass http://kept/denied; }}
         location = /who {{ internal; proxy_pass http://kept/unknown; }}
         location /limited {{ limit_req zone=rate; limit_req_status 429; proxy_pass http://kept; }}
         location /page.html {{ ssi on; root {{prefix}}/tmp; }}
         location /after {{ post_action /copy; proxy_pass http://kept; }}",
        dns = dns.addr(),
        up = up.addr(),
        port = up.port(),
    ))
    .http("proxy_cache_path {prefix}/cache keys_zone=c:1m;")
    .http("limit_req_zone $server_port zone=rate:1m rate=1r/m;")
    .http(format!("upstream kept {{ server {}; keepalive 4; }}", up.addr()));
    let nginx = Nginx::start(conf);
    let page = "<!--#include virtual=\"/empty\" --><!--#include virtual=\"/chunked\" -->";
    std::fs::write(nginx.path("tmp/page.html"), page).expect("page.html");
    let body = "Content-Length: 4\r\n\r\nbody";
    let requests = [
        ("GET /empty", "", 200),
        ("GET /chunked", "", 200),
        ("GET /until", "", 200),
        ("GET /old", "", 200),
        ("GET /unbuffered", "", 200),
        ("GET /packed", "Accept-Encoding: gzip\r\n", 200),
        ("GET /filed", "", 200),
        ("GET /none", "", 204),
        ("GET /away", "", 302),
        ("HEAD /head", "", 200),
        ("GET /unchanged", "If-None-Match: \"e\"\r\n", 304),
        ("GET /ranged", "Range: bytes=1-2\r\n", 206),
        ("GET /ranged", "Range: bytes=9-\r\n", 416),
        ("GET /odd", "", 599),
        ("GET /named", "", 200),
        ("GET /cached", "", 200),
        ("GET /cached", "", 200),
        ("GET /missing", "", 200),
        ("GET /handed", "", 200),
        ("GET /rewritten", "", 200),
        ("GET /mirrored", "", 200),
        ("GET /allowed", "", 200),
        ("GET /forbidden", "", 403),
        ("GET /unauthorized", "", 401),
        ("GET /limited", "", 200),
        ("GET /limited", "", 429),
        ("GET /page.html", "", 200),
        ("POST /x", body, 200),
        ("POST /x", "Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n", 200),
        ("PUT /x", "Expect: 100-continue\r\nContent-Length: 4\r\n\r\nbody", 200),
        ("OPTIONS /x", "", 200),
        ("GET /after", "", 200),
    ];
    for (line, more, status) in requests {
        let end = if more.contains("\r\n\r\n") { "" } else { "\r\n" };
        let text = format!("{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{more}{end}");
        let response = nginx.request(text.as_bytes());
        assert_eq!((response.status, response.truncated), (status, false), "{text}");
        assert_eq!(response.header("X-Cause"), None, "{text}");
    }
    for line in nginx.wait_json_lines("access.log", requests.len()) {
        diag::assert_empty(&line);
    }
    assert_eq!(nginx.lines("diag.json"), [""; 0]);
    diag::finish(&nginx);
}
