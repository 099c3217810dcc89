//! An `rsyslogd` that takes what comes to a unix socket, and what it makes of the log's lines.

use std::fmt::Write as _;
use std::fs;
use std::net::UdpSocket;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use serde_json::Value;
use t::{Conf, Nginx, RefusedPort, Upstream, script};
use tempfile::TempDir;

use crate::process::{DEADLINE, Running};

/// What `rsyslogd` keeps of a message unless it is told otherwise (`maxMessageSize`), header
/// included.
const USUAL: usize = 8 << 10;

/// The most that a UDP datagram can hold over IPv4.
const DATAGRAM: usize = 65_507;

/// A running `rsyslogd`.
struct Rsyslog {
    running: Running,
    dir: TempDir,
}

impl Rsyslog {
    /// Starts it with more settings, and waits until it takes messages.
    fn start(settings: &str) -> Rsyslog {
        let dir = t::temp_dir();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let conf = format!(
            "{settings}\n\
             module(load=\"imuxsock\" sysSock.use=\"off\")\n\
             input(type=\"imuxsock\" socket=\"{}\" useSysTimeStamp=\"off\")\n\
             template(name=\"message\" type=\"string\" string=\"%programname% %msg%\\n\")\n\
             action(type=\"omfile\" file=\"{}\" template=\"message\")\n",
            path("log.sock"),
            path("messages"),
        );
        fs::write(dir.path().join("rsyslog.conf"), conf).expect("rsyslog.conf");
        let args = ["-n", "-f", &path("rsyslog.conf"), "-i", &path("pid")].map(str::to_owned);
        let running = Running::start("rsyslogd", "rsyslog", dir.path(), &args);
        let mut rsyslog = Rsyslog { running, dir };
        let socket = rsyslog.socket();
        let probe = UnixDatagram::unbound().expect("a socket");
        rsyslog.running.until("socket", || probe.send_to(b"<13>probe: ", &socket).ok());
        rsyslog
    }

    /// The directive that sends the log there. What comes from the host itself has no hostname in
    /// it, says rsyslog.
    fn log(&self) -> String {
        let socket = self.socket();
        format!("upstream_diag_log syslog:server=unix:{},tag=diag,nohostname;\n", socket.display())
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("log.sock")
    }

    /// Waits for `n` messages of this program, and returns them.
    fn messages(&mut self, program: &str, n: usize) -> Vec<String> {
        let (file, start) = (self.dir.path().join("messages"), format!("{program}  "));
        self.running.until("message", || {
            let text = String::from_utf8(fs::read(&file).unwrap_or_default()).expect("UTF-8");
            let whole = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
            let ours = whole.filter_map(|line| line.strip_prefix(&start)).map(str::to_owned);
            Some(ours.collect::<Vec<_>>()).filter(|messages| messages.len() >= n)
        })
    }
}

/// An nginx whose `/N/` tries N dead peers, for these N. Every request has a record.
fn nginx(dead: &[RefusedPort], numbers: &[usize], garbage: &Upstream, log: &str) -> Nginx {
    let mut groups = String::new();
    let mut locations = String::new();
    for n in numbers {
        let server = |dead: &RefusedPort| format!(" server {} max_fails=0;", dead.addr());
        let servers: String = dead[..*n].iter().map(server).collect();
        let _ = writeln!(groups, "upstream u{n} {{{servers} }}");
        let _ = writeln!(locations, "location /{n}/ {{ proxy_pass http://u{n}; }}");
    }
    // What is captured is decoded.
    let server = format!(
        "{locations} location ~ '(?s)^/name/(.*)$' {{ proxy_pass http://$1; }}
         location /garbage {{ proxy_pass http://{}; }}
         location = /status {{ upstream_diag_status json; }}",
        garbage.addr()
    );
    Nginx::start(Conf::new(server).http(format!(
        "{groups} large_client_header_buffers 4 32k; upstream_diag on; upstream_diag_query on;
         upstream_diag_zone 8m; upstream_diag_log {{prefix}}/diag.json; {log}"
    )))
}

/// Bytes of an upstream that speaks another protocol, or none.
const GARBAGE: &[u8] = b"\x16\x03\x01\0\"\\\x1b[31m\xff\xfe\n<13>a: b\r\n\x7f\xc2\x85 end";

/// Requests with bytes that end a line, a string or a character somewhere.
fn hostile() -> Vec<Vec<u8>> {
    let request = |path: &[u8], host: &[u8]| {
        [b"GET ", path, b" HTTP/1.1\r\nHost: ", host, b"\r\nConnection: close\r\n\r\n"].concat()
    };
    let bytes = (1..=255_u8).filter(|byte| !b"/:?".contains(byte));
    let all: String = bytes.map(|byte| format!("%{byte:02X}")).collect();
    vec![
        request(b"/1/\"\\\xc3\xa9\xff{}?a=\"\\\xc3\xa9\xff&b=%0A%00#c", b"h\"o{s}t\xc3\xa9\xff"),
        request(format!("/1/{all}?{all}").as_bytes(), b"x"),
        request(format!("/name/{all}").as_bytes(), b"x"),
        request(&[b"/1/", &*b"\"\\".repeat(4_000)].concat(), &b"\"".repeat(1_000)),
        request(&[b"/1/", &*b"\xff".repeat(4_000)].concat(), &b"\xff".repeat(1_000)),
        request(b"/garbage", b"x"),
    ]
}

/// The log's line of each request, in order.
fn lines(nginx: &Nginx, requests: &[Vec<u8>]) -> Vec<String> {
    for (n, request) in requests.iter().enumerate() {
        nginx.request(request);
        nginx.wait_lines("diag.json", n + 1);
    }
    let lines = nginx.lines("diag.json");
    assert_eq!(lines.len(), requests.len());
    for line in &lines {
        serde_json::from_str::<Value>(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    }
    lines
}

fn get(n: usize) -> Vec<u8> {
    format!("GET /{n}/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").into_bytes()
}

/// Guards against a line that rsyslog splits, cuts or rewrites: what it writes down is what the
/// file has, whatever clients and upstreams have put there.
#[test]
fn lines_arrive_whole() {
    let garbage = Upstream::tcp(script::raw(GARBAGE));
    let dead: Vec<_> = (0..16).map(|_| t::refused_port()).collect();
    let mut rsyslog = Rsyslog::start("");
    let nginx = nginx(&dead, &[1, 10, 16], &garbage, &rsyslog.log());
    let requests = [vec![get(1), get(10), get(16)], hostile()].concat();
    let lines = lines(&nginx, &requests);
    let messages = rsyslog.messages("diag", lines.len());
    for (message, line) in messages.iter().zip(&lines) {
        assert_eq!(message, line);
    }
    assert_eq!(messages.len(), lines.len());
    nginx.stop();
}

/// Shows what happens to a line that is longer than rsyslog takes, which operators have to know
/// of; and guards against one that is not whole where rsyslog has the room.
#[test]
fn long_lines_need_room() {
    let garbage = Upstream::tcp(script::raw(GARBAGE));
    let dead: Vec<_> = (0..150).map(|_| t::refused_port()).collect();
    let (mut usual, mut large) =
        (Rsyslog::start(""), Rsyslog::start("global(maxMessageSize=\"64k\")"));
    let log = [usual.log(), large.log()].concat();
    let nginx = nginx(&dead, &[1, 40, 100, 150], &garbage, &log);
    // The name of a host that a client may choose, in many places and of many bytes.
    let (path, host) = (b"%01".repeat(2_000), b"\"".repeat(1_000));
    let host = [b"GET /name/", &*path, b" HTTP/1.0\r\nHost: ", &*host, b"\r\n\r\n"].concat();
    let lines = lines(&nginx, &[get(1), get(40), get(100), get(150), host]);
    assert_eq!(large.messages("diag", lines.len()), lines);
    let cut = usual.messages("diag", lines.len());
    assert_eq!(cut[0], lines[0]);
    for (message, line) in cut.iter().zip(&lines).skip(1) {
        assert!(line.len() > USUAL && line.starts_with(message), "{} {message}", line.len());
        assert!((USUAL - 200..USUAL).contains(&message.len()), "{}", message.len());
    }
    nginx.stop();
}

/// Guards against a line that no datagram can hold being lost without a word, or the next ones
/// with it.
#[test]
fn a_line_beyond_a_datagram_is_counted() {
    let garbage = Upstream::tcp(script::raw(GARBAGE));
    let dead: Vec<_> = (0..180).map(|_| t::refused_port()).collect();
    let server = UdpSocket::bind("127.0.0.1:0").expect("a UDP port");
    server.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    let addr = server.local_addr().expect("its port");
    let nginx = nginx(
        &dead,
        &[1, 140, 180],
        &garbage,
        &format!("upstream_diag_log syslog:server={addr},tag=diag;"),
    );
    nginx.allow_log("a line of upstream_diag_log could not be written");
    // nginx's own word for it, which it says as often.
    nginx.allow_log("send() failed (90: Message too long)");
    let lines = lines(&nginx, &[get(1), get(140), get(180), get(1), get(180)]);
    let long = |line: &&String| line.len() > DATAGRAM;
    assert_eq!(lines.iter().filter(long).count(), 2);
    let mut datagram = vec![0; 1 << 16];
    for line in lines.iter().filter(|line| !long(line)) {
        let n = server.recv(&mut datagram).expect("a datagram");
        let text = String::from_utf8_lossy(&datagram[..n]);
        let (_, message) = text.split_once(" diag: ").expect("the tag");
        assert_eq!(message, line);
    }
    let status: Value = serde_json::from_str(&nginx.get("/status").text()).expect("JSON");
    assert_eq!(status["dropped"]["lines"], 2, "{:#}", status["dropped"]);
    assert_eq!(status["totals"]["failed"], lines.len());
    nginx.stop();
}
