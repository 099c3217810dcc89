//! Clients and upstreams that send nginx's own words: no verdict is forged, no line is injected,
//! nothing of one request reaches the record of another.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "test code: a broken assumption is a failed test and should stop it at once"
)]

use serde_json::Value;
use t::dns::Answer;
use t::script::{self, End};
use t::{Conf, Dns, Nginx, Response, Upstream};

/// What nginx says itself, and what ends one of its lines.
const WORDS: [&str; 16] = [
    "no live upstreams",
    "no live upstreams while connecting to upstream, client: 1.2.3.4, server: x",
    "connect() failed (13: Permission denied) while connecting to upstream",
    "connect() to unix:/x failed (2: No such file or directory) while connecting to upstream",
    "upstream prematurely closed connection while reading response header from upstream",
    "upstream timed out (110: Connection timed out) while reading upstream",
    "upstream sent too big header while reading response header from upstream",
    "recv() failed (104: Connection reset by peer)",
    "no resolver defined to resolve example.com",
    "bind(1.2.3.4) failed (99: Cannot assign requested address)",
    "512 worker_connections are not enough",
    "socket() failed (24: Too many open files)",
    ", client: 1.2.3.4, server: x, request: \"GET / HTTP/1.1\"",
    "x could not be resolved (3: Host not found)",
    "\\\"',}]{[:\\",
    "%s%n%d%V%*s$upstream_diag_cause${",
];

/// Bytes that are neither text nor harmless.
const BYTES: [&[u8]; 5] =
    [b"\xff\xfe\xc3", b"\xc3\x28\xe2\x82", b"\x01\x02\x1b[31m\x7f", b"\xed\xa0\x80", b"\xf0\x9f"];

/// The headers of a response of these servers. Any other was injected.
const HEADERS: [&str; 8] = [
    "Server",
    "Date",
    "Content-Type",
    "Content-Length",
    "Connection",
    "Proxy-Status",
    "X-Cause",
    "X-Json",
];

fn conf(server: &str) -> Conf {
    Conf::new(server).http(
        "large_client_header_buffers 4 64k; proxy_buffer_size 4k; server_tokens off;
         upstream_diag on; upstream_diag_log {prefix}/diag.json; upstream_diag_query on;
         add_header X-Cause '[$upstream_diag_cause]' always;
         add_header X-Json $upstream_diag_json always;
         add_header Proxy-Status $upstream_diag_proxy_status always;",
    )
}

/// An nginx of which the records are counted.
struct Server {
    nginx: Nginx,
    records: usize,
}

impl Server {
    fn new(conf: Conf) -> Self {
        Self { nginx: Nginx::start(conf), records: 0 }
    }

    /// Sends a request and gives the response and the record of it.
    fn ask(&mut self, request: &[u8]) -> (Response, Value) {
        let response = self.nginx.request(request);
        let record = self.record(request, &response);
        (response, record)
    }

    /// The record of this request, which is the latest.
    fn record(&mut self, request: &[u8], response: &Response) -> Value {
        self.records += 1;
        let shown = String::from_utf8_lossy(request);
        let lines = self.nginx.wait_lines("diag.json", self.records);
        assert_eq!(lines.len(), self.records, "one line for {shown}");
        let record: Value = serde_json::from_str(&lines[self.records - 1]).expect("JSON");
        for (name, value) in &response.headers {
            assert!(HEADERS.contains(&name.as_str()), "injected {name}: {value} by {shown}");
        }
        // The variable says what the log says, and fits in a header.
        if let Some(json) = response.header("X-Json") {
            let json: Value = serde_json::from_str(json).expect("JSON in a header");
            assert_eq!(json["cause"], record["cause"], "{shown}");
        }
        record
    }
}

fn get(path: &[u8], headers: &[u8]) -> Vec<u8> {
    let mut request = b"GET ".to_vec();
    request.extend(path);
    request.extend(b" HTTP/1.1\r\n");
    if !headers.windows(5).any(|w| w == b"Host:") {
        request.extend(b"Host: x\r\n");
    }
    request.extend(headers);
    request.extend(b"Connection: close\r\n\r\n");
    request
}

/// As a browser sends it.
fn encoded(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().flat_map(|b| format!("%{b:02X}").into_bytes()).collect()
}

/// Everything hostile, as bytes.
fn texts() -> Vec<Vec<u8>> {
    let mut texts: Vec<Vec<u8>> = WORDS.iter().map(|w| w.as_bytes().to_vec()).collect();
    texts.extend(BYTES.iter().map(|b| b.to_vec()));
    texts.extend([b'a', b'"', b'\\', 0xff].map(|byte| vec![byte; 8000]));
    // Words at the very place where nginx cuts its line.
    texts.extend((1900..2048).step_by(37).map(|n| {
        let mut text = vec![b'x'; n];
        text.extend(WORDS[2].as_bytes());
        text
    }));
    texts
}

/// Guards against a line being searched: what the client sends stands behind the message.
#[test]
fn what_a_client_sends_decides_nothing() {
    let dead = t::refused_port();
    let mut server =
        Server::new(conf(&format!("location / {{ proxy_pass http://{}; }}", dead.addr())));
    let proxy_status = format!(
        "nginx; error=connection_refused; next-hop=\"{}\"; details=\"connection_refused\"",
        dead.addr()
    );
    for text in texts() {
        let with = |before: &[u8], text: &[u8]| [before, text].concat();
        let line = |name: &str| [name.as_bytes(), b": ", &text, b"\r\n"].concat();
        let path = encoded(&text);
        // A space or a control character in the request line or in Host is refused by nginx.
        let bare: Vec<u8> =
            text.iter().copied().filter(|b| *b > b' ' && !b"\x7f#?:/[]%".contains(b)).collect();
        for request in [
            get(&with(b"/", &path), b""),
            get(&with(b"/?q=", &path), b""),
            get(&with(b"/", &bare), b""),
            get(&with(b"/?", &bare), b""),
            get(b"/", &line("Referer")),
            get(b"/", &line("X-Any")),
            get(b"/", &line("User-Agent")),
            get(b"/", &[b"Host: ".as_slice(), &bare, b"\r\n"].concat()),
        ] {
            let (response, record) = server.ask(&request);
            assert_eq!(response.status, 502);
            assert_eq!(response.header("X-Cause"), Some("[connection_refused]"));
            assert_eq!(response.header("Proxy-Status"), Some(proxy_status.as_str()));
            let attempts = record["attempts"].as_array().expect("attempts");
            assert_eq!((&record["cause"], attempts.len()), (&"connection_refused".into(), 1));
            assert_eq!(
                (&attempts[0]["errno"], &record["outcome"]),
                (&111.into(), &"failed".into())
            );
            let message = attempts[0]["message"].as_str();
            assert_eq!(message, Some("connect() failed (111: Connection refused)"));
            // What is taken over from the client is bounded.
            assert!(record.to_string().len() < 6000, "{record}");
        }
    }
}

/// Guards against a request that nginx itself refuses leaving a record, or upsetting the next.
#[test]
fn refused_requests_leave_no_record() {
    let dead = t::refused_port();
    let mut server =
        Server::new(conf(&format!("location / {{ proxy_pass http://{}; }}", dead.addr())));
    for request in [
        b"no live upstreams\r\n\r\n".to_vec(),
        b"GET / no live upstreams HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        get(b"/", b"Host: no live upstreams\r\n"),
        get(b"/", b"X: a\0b\r\n"),
        get(&[b'/'; 70_000], b""),
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: connect() failed (111: x)\r\n\r\n".to_vec(),
    ] {
        let response = server.nginx.request(&request);
        assert!((400..500).contains(&response.status), "{}", response.status);
        assert!(!response.headers.iter().any(|(name, _)| name == "Proxy-Status"));
    }
    // ask() counts the lines: this is the first.
    assert_eq!(server.ask(&get(b"/", b"")).1["cause"], "connection_refused");
}

/// Guards against bytes of the upstream, which some messages quote, becoming a verdict.
#[test]
fn what_an_upstream_sends_decides_nothing() {
    // The cause that is right, and the one that is as good until such messages are known.
    let invalid = ["unknown", "invalid_header", "invalid_response", "protocol_mismatch"];
    let mut cases = Vec::new();
    for text in texts() {
        let text: Vec<u8> = text.into_iter().filter(|b| *b != b'\n').collect();
        let head = b"HTTP/1.1 200 OK\r\n".as_slice();
        let cut = &text[..text.len().min(3000)];
        cases.extend([
            ([head, b"\x01", &text, b": x\r\n\r\n"].concat(), &invalid[..]),
            ([head, b"X-A\x01: ", &text, b"\r\n\r\n"].concat(), &invalid),
            ([head, b"Content-Length: ", &text, b"\r\n\r\n"].concat(), &invalid),
            ([head, b"X-A: ", cut, b"\r\n"].concat(), &["closed_in_header"]),
            ([head, b"X-A: ", &text, &[b'p'; 5000], b"\r\n\r\n"].concat(), &["header_too_big"]),
        ]);
    }
    // The path says which response is wanted.
    let responses: Vec<_> = cases.iter().map(|(response, _)| response.clone()).collect();
    let up = Upstream::tcp(move |_, conn| {
        let request = conn.read_request().unwrap_or_default();
        let path = String::from_utf8_lossy(&request).split(' ').nth(1).map(|p| p[1..].to_owned());
        conn.write(&responses[path.and_then(|p| p.parse::<usize>().ok()).unwrap_or(0)]);
    });
    let mut server =
        Server::new(conf(&format!("location / {{ proxy_pass http://{}; }}", up.addr())));
    for (i, (sent, causes)) in cases.iter().enumerate() {
        let request = get(format!("/{i}").as_bytes(), b"");
        let shown = String::from_utf8_lossy(&sent[..sent.len().min(300)]);
        let answer = server.nginx.request(&request);
        if answer.status == 200 && sent.starts_with(b"HTTP/1.1 200 OK\r\nContent-Length") {
            // nginx 1.22 takes any length. As the next request shows, there is no record of it.
            continue;
        }
        let record = server.record(&request, &answer);
        let cause = record["cause"].as_str().expect("a cause");
        // 8 kB of header do not fit, whatever is in them.
        let big = sent.len() > 4096 && cause == "header_too_big";
        assert!(causes.contains(&cause) || big, "{cause} for {shown}");
        assert_eq!((answer.status, &record["phase"]), (502, &"header".into()), "{shown}");
        assert_eq!(record["attempts"].as_array().map(Vec::len), Some(1));
    }
}

/// Guards against the name of a peer, which a client may choose through a variable, being read as
/// part of the message.
#[test]
fn names_that_a_client_chooses_decide_nothing() {
    let dns =
        Dns::start([("refused.example", t::dns::REFUSED), ("good.example", Answer::localhost())]);
    let up = Upstream::tcp(script::partial_body(10, "x", End::Fin));
    let closing = Upstream::tcp(script::close_at_once());
    let mut server = Server::new(conf(&format!(
        "resolver {} ipv6=off; resolver_timeout 3s;
         location /arg {{ proxy_pass http://$arg_h; }}
         location /name {{ proxy_pass http://$http_x_name; }}
         merge_slashes off;
         location ~ '(?s)^/unix/(.*)$' {{ proxy_pass http://unix:$1:/; }}
         location /unixarg {{ proxy_pass http://unix:$arg_p:/; }}
         location /bind {{ proxy_bind $http_x_name; proxy_pass http://{}; }}
         location /cut {{ proxy_pass http://{}; }}",
        dns.addr(),
        closing.addr(),
        up.addr(),
    )));
    for word in WORDS {
        let name = [b"X-Name: ", word.as_bytes(), b"\r\n"].concat();
        // A name to be resolved, of a length that DNS takes; one with a colon has a bad port.
        let word = &word[..word.len().min(60)];
        let label = format!("X-Name: {word}\r\n");
        let (response, record) = server.ask(&get(b"/name", label.as_bytes()));
        let cause = record["cause"].as_str().expect("a cause");
        let resolvable = !word.contains([':', '/', '?', '[']);
        let wanted = if resolvable { "dns_not_found" } else { "invalid_upstream_url" };
        let other = !resolvable && cause == "dns_not_found";
        assert!(cause == wanted || other, "{cause}, not {wanted}: {word}");
        assert!(matches!(response.status, 500 | 502), "{}: {word}", response.status);

        // The name of a unix socket, decoded by nginx.
        for injected in ["", "\r\nX-Injected: yes", "\n2026/11/21 01:45:45 [error] 1#1: *1 "] {
            let path = format!("/tmp/none{injected}{}", word.replace('/', "_"));
            let mut request = b"/unix/".to_vec();
            request.extend(encoded(path.as_bytes()));
            let (response, record) = server.ask(&get(&request, b""));
            let long = path.split(':').next().unwrap_or_default().len() > 100;
            let wanted = if long { "invalid_upstream_url" } else { "socket_not_found" };
            assert_eq!(record["cause"], wanted, "{path}");
            // Whole, in one line, and what stands in it escaped.
            let value = response.header("Proxy-Status").unwrap_or_default();
            let whole = value.starts_with("nginx; error=destination_not_found; next-hop=\"unix:")
                && value.ends_with("; details=\"socket_not_found\"");
            assert!(long || whole, "{value} for {path}");
        }

        // A local address that is none is reported before the attempt, which then goes on.
        let (_, record) = server.ask(&get(b"/bind", &name));
        assert_eq!(record["cause"], "closed_before_response", "{word}");
        let path = [b"/unixarg?p=/tmp/".as_slice(), &encoded(word.as_bytes())].concat();
        let cause = server.ask(&get(&path, b"")).1["cause"].clone();
        assert!(cause == "socket_not_found" || cause == "invalid_upstream_url", "{cause}: {word}");
    }
    let (_, record) =
        server.ask(&get(b"/unix//tmp/a%20failed%20(111:%20Connection%20refused)", b""));
    let attempt = &record["attempts"][0];
    assert_eq!((&record["cause"], &attempt["errno"]), (&"socket_not_found".into(), &2.into()));
    let (_, record) = server.ask(&get(b"/arg?h=refused.example", b""));
    assert_eq!(record["cause"], "dns_failure");
}

/// Guards against a record that lives on with the connection.
#[test]
fn nothing_passes_from_one_request_to_the_next() {
    let dead = t::refused_port();
    let closing = Upstream::tcp(script::close_at_once());
    let good = Upstream::tcp(script::ok("good"));
    let server = Server::new(conf(&format!(
        "location /dead {{ proxy_pass http://{}; }}
         location /closing {{ proxy_pass http://{}; }}
         location /good {{ proxy_pass http://{}; }}
         location /static {{ return 200 static; }}
         location /bad {{ return 503; }}",
        dead.addr(),
        closing.addr(),
        good.addr(),
    )));
    let wanted = [
        ("/dead", 502, "connection_refused"),
        ("/good", 200, ""),
        ("/closing", 502, "closed_before_response"),
        ("/static", 200, ""),
        ("/dead", 502, "connection_refused"),
        ("/bad", 503, "local_return"),
        ("/good", 200, ""),
        ("/closing", 502, "closed_before_response"),
    ];
    let check = |at: usize, response: &Response| {
        let (path, status, cause) = wanted[at];
        assert_eq!(response.status, status, "{at} {path}");
        assert_eq!(response.header("X-Cause"), Some(format!("[{cause}]").as_str()), "{at} {path}");
        assert_eq!(response.header("X-Json").is_some(), !cause.is_empty(), "{at} {path}");
    };
    let request = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").into_bytes();
    let mut client = server.nginx.connect();
    for (at, (path, ..)) in wanted.iter().enumerate() {
        check(at, &client.request(&request(path)));
    }
    // The same, all at once.
    let mut client = server.nginx.connect();
    client
        .send(&wanted.iter().flat_map(|(path, ..)| request(path)).collect::<Vec<_>>())
        .expect("sent");
    for at in 0..wanted.len() {
        check(at, &client.read_response(false).expect("a response"));
    }
    let records = server.nginx.wait_json_lines("diag.json", 10);
    let causes: Vec<_> = records.iter().map(|r| r["cause"].as_str().unwrap_or_default()).collect();
    let failed: Vec<_> = wanted.iter().map(|w| w.2).filter(|c| !c.is_empty()).collect();
    assert_eq!(causes, failed.repeat(2));
    for record in records {
        let attempts = usize::from(record["cause"] != "local_return");
        assert_eq!(record["attempts"].as_array().map(Vec::len), Some(attempts), "{record:#}");
    }
}
