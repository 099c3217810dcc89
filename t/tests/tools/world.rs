//! An nginx with failures of many kinds, and what its metrics have to say of them.

use t::{Conf, Nginx, RefusedPort, Upstream, script};

use crate::prometheus::{Labels, Vector};

/// Names that a client chooses, as bytes of the request, and the label they come to.
const HOSTILE: [(&[u8], &str); 5] = [
    (b"a\"b\\c{d=\"e\"},", "a\"b\\c{d=\"e\"},"),
    (b"\\n\\\\", "\\n\\\\"),
    ("\u{fc}n\u{ef}\u{2028}".as_bytes(), "\u{fc}n\u{ef}\u{2028}"),
    (b"in\xffvalid", "in\u{fffd}valid"),
    (b"c1\xc2\x85control", "c1\u{fffd}control"),
];

/// The two jobs of Prometheus, and the paths that they scrape on the second server.
pub(crate) const JOBS: [(&str, &str); 2] = [("openmetrics", "/scrape"), ("text", "/text")];

/// Prometheus says that it accepts OpenMetrics, and gets that at `/scrape`. At `/text` nginx asks
/// in its place, and accepts the older format only.
const SCRAPED: &str = "access_log {prefix}/scrapes.log scrapes;
     location = /scrape { upstream_diag_status; }
     location = /text {
         upstream_diag off; proxy_set_header Accept text/plain; proxy_pass http://127.0.0.1:{port2};
     }";

/// Servers good and bad, and the nginx in front of them.
pub(crate) struct World {
    pub(crate) nginx: Nginx,
    good: Upstream,
    own: Upstream,
    big: Upstream,
    dead: RefusedPort,
    pub(crate) wanted: Wanted,
}

/// What is to be counted, in either job.
#[derive(Default)]
pub(crate) struct Wanted {
    pub(crate) requests: Vector,
    pub(crate) failures: Vector,
    pub(crate) outcomes: Vector,
    /// Times that a connection was made, by upstream.
    pub(crate) connects: Vector,
    /// Response headers, by upstream.
    pub(crate) headers: Vector,
}

/// An attempt: the upstream, the peer, the cause, which is empty for a good one, and whether the
/// response header went on to the client.
type Attempt<'a> = (&'a str, &'a str, &'a str, bool);

/// The path and the status of a request, its attempts, and the upstream and the outcome of its
/// record.
type Kind<'a> = (&'a str, u16, &'a [Attempt<'a>], Option<(&'a str, &'a str)>);

impl World {
    pub(crate) fn start() -> World {
        let good = Upstream::tcp(script::ok("good"));
        let own = Upstream::tcp(script::status(503));
        let big = Upstream::tcp(script::big_header(9_000));
        let dead = t::refused_port();
        let server = format!(
            "location /good {{ proxy_pass http://good; }}
             location /pair {{ proxy_pass http://pair; }}
             location /none {{ proxy_pass http://none; }}
             location /dead {{ proxy_pass http://{}; }}
             location /own {{ proxy_pass http://{}; }}
             location /big {{ proxy_pass http://{}; proxy_buffer_size 4k; }}
             location /name {{ proxy_pass http://$arg_x; }}
             location /return {{ return 502; }}",
            dead.addr(),
            own.addr(),
            big.addr(),
        );
        let http = format!(
            "upstream good {{ server {good}; }}
             upstream pair {{ server {dead} max_fails=0; server {good} backup; }}
             upstream none {{ server {dead} down; }}
             log_format scrapes '$uri $status $sent_http_content_type';
             upstream_diag on; upstream_diag_zone 1m;",
            good = good.addr(),
            dead = dead.addr(),
        );
        let conf = Conf::new(server)
            .server(SCRAPED)
            .server("location / { upstream_diag_status prometheus; }")
            .http(http)
            .workers(2);
        let wanted = Wanted::default();
        World { nginx: Nginx::start(conf), good, own, big, dead, wanted }
    }

    /// Makes requests of every kind, `n` of each, and notes what is to be counted.
    pub(crate) fn ask(&mut self, n: usize) {
        let (good, dead) = (&*self.good.addr(), &*self.dead.addr());
        let (own, big) = (&*self.own.addr(), &*self.big.addr());
        let refused = "connection_refused";
        let kinds: [Kind<'_>; 7] = [
            ("/good", 200, &[("good", good, "", true)], None),
            (
                "/pair",
                200,
                &[("pair", dead, refused, false), ("pair", good, "", true)],
                Some(("pair", "masked")),
            ),
            ("/none", 502, &[("none", "", "no_live_upstreams", false)], Some(("none", "failed"))),
            ("/dead", 502, &[(dead, dead, refused, false)], Some((dead, "failed"))),
            ("/own", 503, &[(own, own, "upstream_response", true)], Some((own, "passed"))),
            ("/big", 502, &[(big, big, "header_too_big", false)], Some((big, "failed"))),
            ("/return", 502, &[], Some(("", "failed"))),
        ];
        for _ in 0..n {
            for (path, status, attempts, record) in kinds {
                assert_eq!(self.nginx.get(path).status, status, "{path}");
                self.wanted.add(attempts, record);
            }
            for (bytes, name) in HOSTILE {
                let request = [b"GET /name?x=", bytes, b" HTTP/1.0\r\n\r\n"].concat();
                assert_eq!(self.nginx.request(&request).status, 502, "{name}");
                self.wanted.add(&[(name, "", "dns_no_resolver", false)], Some((name, "failed")));
            }
        }
    }
}

impl Wanted {
    fn add(&mut self, attempts: &[Attempt<'_>], record: Option<(&str, &str)>) {
        let Wanted { requests, failures, outcomes, connects, headers } = self;
        for (job, _) in JOBS {
            for &(upstream, peer, cause, header) in attempts {
                let of = [("job", job), ("upstream", upstream)];
                let with = |more: &[(&str, &str)]| labels(&[&of, more].concat());
                if !cause.is_empty() {
                    count(failures, with(&[("peer", peer), ("cause", cause)]));
                }
                if !peer.is_empty() {
                    count(requests, with(&[("peer", peer)]));
                }
                if !peer.is_empty() && cause != "connection_refused" {
                    count(connects, with(&[]));
                }
                if header {
                    count(headers, with(&[]));
                }
            }
            if let Some((upstream, outcome)) = record {
                let labels = labels(&[("job", job), ("upstream", upstream), ("outcome", outcome)]);
                count(outcomes, labels);
            }
        }
    }
}

/// To Prometheus, a label without a value is none.
fn labels(labels: &[(&str, &str)]) -> Labels {
    let given = labels.iter().filter(|(_, value)| !value.is_empty());
    given.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn count(vector: &mut Vector, labels: Labels) {
    *vector.entry(labels).or_default() += 1.0;
}
