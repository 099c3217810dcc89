//! The same requests to an nginx with the module and to one without, and what both have logged.

use std::collections::BTreeMap;

use t::dns::{REFUSED, SERVFAIL};
use t::script::{self, End};
use t::{Answer, Conf, Dns, Nginx, RefusedPort, Upstream};

/// Everything the requests run into. Both nginxes use the same.
pub(crate) struct World {
    dead: [RefusedPort; 3],
    dns: Dns,
    closed: Upstream,
    reset: Upstream,
    big: Upstream,
    garbage: Upstream,
    cut: Upstream,
    silent: Upstream,
    good: Upstream,
}

/// What is asked for, in this order. `POST` where a method is told apart.
pub(crate) const REQUESTS: [&str; 21] = [
    "/good",
    "/dead",
    "/two",
    // Both peers are out by now: no live upstreams.
    "/two",
    // connect() to a unix socket that is missing is logged at crit.
    "/missing",
    "/closed",
    "/reset",
    "/big",
    "/garbage",
    "/cut",
    "/silent",
    "/dns?h=servfail.example",
    "/dns?h=refused.example",
    "/file",
    "/denied",
    "/auth",
    "/if",
    "/if?x=1",
    "/nested/inner/deep",
    "/limited",
    "POST /limited",
];

/// How many of them leave a record.
pub(crate) const FAILURES: usize = 16;

impl World {
    pub(crate) fn new() -> Self {
        let garbage = "HTTP/1.1 200 OK\r\nno colon here\x01\r\n\r\n";
        Self {
            dead: [t::refused_port(), t::refused_port(), t::refused_port()],
            dns: Dns::start([
                ("servfail.example", SERVFAIL),
                ("refused.example", REFUSED),
                ("good.example", Answer::localhost()),
            ]),
            closed: Upstream::tcp(script::close_at_once()),
            reset: Upstream::tcp(script::reset_at_once()),
            big: Upstream::tcp(script::big_header(3000)),
            garbage: Upstream::tcp(script::raw(garbage)),
            cut: Upstream::tcp(script::partial_body(100, "part", End::Fin)),
            silent: Upstream::tcp(script::silent()),
            good: Upstream::tcp(script::ok("good")),
        }
    }

    fn http(&self) -> String {
        let [_, two, three] = &self.dead;
        format!(
            "upstream two {{ server {}; server {}; }}
             proxy_read_timeout 200ms; proxy_connect_timeout 3s; proxy_buffer_size 1k;
             resolver {} ipv6=off; resolver_timeout 3s;",
            two.addr(),
            three.addr(),
            self.dns.addr(),
        )
    }

    /// The locations; `own` is put into each of three of them.
    fn locations(&self, own: [&str; 3]) -> String {
        let (dead, good) = (self.dead[0].addr(), self.good.addr());
        let [one, two, three] = own;
        let mut t = format!(
            "location /dead {{ {one} proxy_pass http://{dead}; }}
             location /two {{ {two} proxy_pass http://two; }}
             location /missing {{ proxy_pass http://unix:/missing/t.sock:/; }}
             location /dns {{ proxy_pass http://$arg_h:1; }}
             location /file {{ root /missing; }}
             location /denied {{ deny all; }}
             location /auth {{ auth_request /dead; proxy_pass http://{good}; }}
             location /if {{
                 if ($arg_x) {{ proxy_pass http://{dead}; }}
                 proxy_pass http://{good};
             }}
             location /nested {{
                 {three}
                 proxy_pass http://{good};
                 location /nested/inner {{
                     location /nested/inner/deep {{ {one} proxy_pass http://{dead}; }}
                 }}
             }}
             location /limited {{
                 limit_except GET {{ proxy_pass http://{dead}; }}
                 proxy_pass http://{good};
             }}"
        );
        for (name, up) in [
            ("good", &self.good),
            ("closed", &self.closed),
            ("reset", &self.reset),
            ("big", &self.big),
            ("garbage", &self.garbage),
            ("cut", &self.cut),
            ("silent", &self.silent),
        ] {
            t.push_str(&format!("location /{name} {{ proxy_pass http://{}; }}\n", up.addr()));
        }
        t
    }
}

/// Whose logs these are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum With {
    /// An nginx that does not load the module.
    Nothing,
    /// One that loads it and does not use it.
    Off,
    /// One with diagnosis, its log and its zone.
    On,
}

pub(crate) fn conf(world: &World, with: With, own: [&str; 3], server: &str) -> Conf {
    let conf = Conf::new(format!("{server}\n{}", world.locations(own))).http(world.http());
    match with {
        With::Nothing => conf.without_module(),
        With::Off => conf,
        With::On => conf.http(
            "upstream_diag on; upstream_diag_zone 256k; upstream_diag_log {prefix}/diag.json;
             add_header Proxy-Status $upstream_diag_proxy_status always;",
        ),
    }
}

/// Lines of each log, in order and without what differs from run to run.
pub(crate) type Logs = BTreeMap<String, Vec<String>>;

/// Starts this nginx, runs the requests, ends it and gives the lines of each of these files.
pub(crate) fn run(conf: Conf, requests: &[&str], files: &[&str]) -> (Logs, usize) {
    let nginx = Nginx::start(conf);
    for request in requests {
        let (method, path) = request.split_once(' ').unwrap_or(("GET", request));
        let text = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        nginx.request(text.as_bytes());
    }
    nginx.stop();
    let logs = files.iter().map(|file| ((*file).to_owned(), lines(&nginx, file))).collect();
    (logs, nginx.json_log("diag.json").len())
}

pub(crate) fn lines(nginx: &Nginx, file: &str) -> Vec<String> {
    let prefix = nginx.prefix().to_str().expect("plain names").to_owned();
    let mut lines: Vec<_> =
        nginx.lines(file).iter().filter_map(|l| normal(&l.replace(&prefix, "PREFIX"))).collect();
    // Master and workers write at the same time.
    lines.sort();
    lines
}

/// A line without time, processes, ports, sizes and addresses. None for those of the master and
/// of the start of workers, whose order and number are a matter of timing.
pub(crate) fn normal(line: &str) -> Option<String> {
    let (_, mut rest) = line.split_once('[')?;
    if rest.starts_with("notice]") {
        return None;
    }
    let mut normal = String::new();
    while let Some(c) = rest.chars().next() {
        let hex = rest.chars().take_while(char::is_ascii_hexdigit).count();
        let digits = rest.chars().take_while(char::is_ascii_digit).count();
        let taken = match (hex, digits) {
            (8.., 1..) => hex,
            (_, 0) => c.len_utf8(),
            (_, digits) => digits,
        };
        match digits {
            // An errno, behind its parenthesis, stays.
            1.. if !normal.ends_with('(') => normal.push('N'),
            _ => normal.push_str(&rest[..taken]),
        }
        rest = &rest[taken..];
    }
    Some(normal)
}

/// Compares with and without the module, and that the module was there to be compared.
pub(crate) fn same(setting: &str, files: &[&str], conf: impl Fn(With) -> Conf) -> Logs {
    let (plain, _) = run(conf(With::Nothing), &REQUESTS, files);
    let (off, none) = run(conf(With::Off), &REQUESTS, files);
    assert_eq!((difference(&plain, &off), none), (Vec::new(), 0), "{setting}: off");
    let (on, records) = run(conf(With::On), &REQUESTS, files);
    assert_eq!(difference(&plain, &on), [""; 0], "{setting}: on");
    assert_eq!(records, FAILURES, "{setting}: records");
    plain
}

/// Lines that one has and the other has not, or not as often.
pub(crate) fn difference(plain: &Logs, other: &Logs) -> Vec<String> {
    let mut count: BTreeMap<(&str, &str), i32> = BTreeMap::new();
    for (logs, one) in [(plain, -1), (other, 1)] {
        for (file, lines) in logs {
            for line in lines {
                *count.entry((file, line)).or_default() += one;
            }
        }
    }
    let differ = count.into_iter().filter(|(_, n)| *n != 0);
    differ.map(|((file, line), n)| format!("{file}: {n:+} {line}")).collect()
}

pub(crate) fn level_of<'a>(lines: &'a [String], level: &str) -> Vec<&'a str> {
    let start = format!("{level}]");
    lines.iter().map(String::as_str).filter(|l| l.starts_with(&start)).collect()
}

/// Leaves those debug lines out that the module has a right to cause (a phase handler more, its
/// variable), and those whose number depends on how many bytes an event brings.
pub(crate) fn comparable(mut logs: Logs) -> Logs {
    let kept = |line: &String| {
        let Some(line) = line.strip_prefix("debug] ") else { return true };
        let Some((_, message)) = line.split_once(" *N ") else { return line.contains("accept on") };
        let stable = message.starts_with("http ") || message.starts_with("accept:");
        let varies = ["script ", "upstream dummy ", "upstream process ", "upstream request: "];
        stable && !varies.iter().any(|v| message.starts_with(&format!("http {v}")))
    };
    logs.values_mut().for_each(|lines| lines.retain(kept));
    logs
}
