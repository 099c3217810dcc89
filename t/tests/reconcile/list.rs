//! Every kind of request there is in the load.

use std::sync::Arc;

use t::script::{self, End};

use crate::kinds::{Client, Kind};
use crate::world::World;

/// What the client waits for before it leaves in the body.
pub(crate) const PART: &str = "a part of the body";

/// Locations that requests of some kinds are sent on to.
pub(crate) const OTHER_LOCATIONS: &str = "location = /page { internal; empty_gif; }";

/// 10,000 requests.
const ALL: usize = 10_000;

pub(crate) fn kinds(world: &mut World) -> Vec<Kind> {
    let mut kinds = [
        faults(world),
        groups(world),
        clients(world),
        subrequests(world),
        pages(world),
        without_upstream(world),
    ]
    .concat();
    let others: usize = kinds.iter().map(|kind| kind.share).sum();
    kinds.extend(good(world, ALL - others));
    kinds
}

/// Answers one request and closes. Without a length nginx waits for that: the one who closes first
/// has to keep its port for a minute, and of those that nginx gets for its end there are not too
/// many.
fn answers(status: u16) -> impl Fn(usize, &mut t::Conn) {
    script::raw(format!("HTTP/1.1 {status} Scripted\r\nConnection: close\r\n\r\nanswer"))
}

fn pass(to: &str) -> String {
    format!("proxy_pass http://{to};")
}

/// Nothing is wrong with these, with and without kept connections.
fn good(world: &mut World, share: usize) -> Vec<Kind> {
    let plain = world.server(None, answers(200));
    let kept = world.server(Some("kept"), script::ok("good"));
    world.group("kept", &format!("server {kept}; keepalive 8;"));
    let at_run_time = world.server(Some("127.0.0.1"), answers(200));
    let port = at_run_time.rsplit(':').next().unwrap_or_default();
    let half = share / 2;
    let var = share / 10;
    vec![
        Kind::new("plain", half, pass(&plain)).asks().good(&plain, &plain),
        Kind::new("kept", share - half - var, pass("kept")).asks().good("kept", &kept),
        Kind::new("var", var, format!("set $port {port}; proxy_pass http://127.0.0.1:$port;"))
            .asks()
            .good("127.0.0.1", &at_run_time),
    ]
}

/// One attempt, which fails.
fn faults(world: &mut World) -> Vec<Kind> {
    let dead = world.dead();
    let full = world.full();
    let closed = world.server(None, script::close_at_once());
    let reset = world.server(None, script::reset_at_once());
    let big = world.server(None, script::big_header(9_000));
    let silent = world.server(None, script::silent());
    let cut = world.server(None, script::partial_body(100, "cut", End::Fin));
    let [own502, own503] = [502, 503].map(|status| world.server(None, answers(status)));
    let gateway = |name, share, addr: &str, status, cause, more: &str| {
        Kind::new(name, share, format!("{} {more}", pass(addr)))
            .asks()
            .status(status)
            .failed(addr, addr, cause)
            .record(addr, "failed", cause)
    };
    let passed = |name, share, addr: &str, status| {
        Kind::new(name, share, pass(addr))
            .asks()
            .status(status)
            .failed(addr, addr, "upstream_response")
            .header(addr)
            .record(addr, "passed", "upstream_response")
    };
    vec![
        gateway("refused", 400, &dead, 502, "connection_refused", ""),
        gateway("hangs", 40, &full, 504, "connection_timed_out", "proxy_connect_timeout 50ms;"),
        gateway("closed", 300, &closed, 502, "closed_before_response", ""),
        gateway("reset", 300, &reset, 502, "connection_reset", ""),
        gateway("big", 300, &big, 502, "header_too_big", "proxy_buffer_size 4k;"),
        gateway("silent", 100, &silent, 504, "response_timed_out", "proxy_read_timeout 50ms;"),
        passed("own502", 300, &own502, 502),
        passed("own503", 200, &own503, 503),
        Kind::new("cut", 200, pass(&cut))
            .asks()
            .client(Client::IsCutOff)
            .failed(&cut, &cut, "response_truncated")
            .header(&cut)
            .record(&cut, "truncated", "response_truncated"),
    ]
}

/// Groups of servers: another attempt serves the client, or none can.
fn groups(world: &mut World) -> Vec<Kind> {
    let refused = "connection_refused";
    let pair = [world.dead(), world.server(Some("pair"), script::ok("good"))];
    world.group(
        "pair",
        &format!("server {} max_fails=0; server {} backup; keepalive 8;", pair[0], pair[1]),
    );
    let both = [world.dead(), world.dead()];
    world
        .group("both", &format!("server {} max_fails=0; server {} max_fails=0;", both[0], both[1]));
    let down = world.dead();
    world.group("down", &format!("server {down} down;"));
    let next = [world.server(Some("next"), answers(503)), world.server(Some("next"), answers(200))];
    world.group("next", &format!("server {} max_fails=0; server {} backup;", next[0], next[1]));
    let race = world.server(Some("race"), script::keepalive_then_close_on_next(End::Fin));
    world.group("race", &format!("server {race}; keepalive 2;"));
    vec![
        Kind::new("pair", 500, pass("pair"))
            .asks()
            .failed("pair", &pair[0], refused)
            .good("pair", &pair[1])
            .record("pair", "masked", refused),
        Kind::new("both", 200, pass("both"))
            .asks()
            .status(502)
            .failed("both", &both[0], refused)
            .failed("both", &both[1], refused)
            .record("both", "failed", refused),
        Kind::new("down", 300, pass("down"))
            .asks()
            .status(502)
            .failed("down", "", "no_live_upstreams")
            .record("down", "failed", "no_live_upstreams"),
        Kind::new("next", 150, format!("{} proxy_next_upstream http_503;", pass("next")))
            .asks()
            .failed("next", &next[0], "upstream_response")
            .good("next", &next[1])
            .record("next", "masked", "upstream_response"),
        // How many races it loses depends on the connections that are there: the client learns
        // that from the addresses.
        Kind::new("race", 300, pass("race")).asks().good("race", &race),
    ]
}

/// Clients that leave.
fn clients(world: &mut World) -> Vec<Kind> {
    let refused = "connection_refused";
    let never = |world: &World| {
        let arrivals = Arc::clone(&world.arrivals);
        move |_: usize, conn: &mut t::Conn| {
            if let Some(request) = conn.read_request() {
                arrivals.note(&request);
                conn.wait_peer_close();
            }
        }
    };
    let scripts = [(); 3].map(|()| never(world));
    let [one, two, three] = scripts;
    let silent = world.server(None, one);
    let after = [world.dead(), world.server(Some("after"), two)];
    let at_run_time = world.server(Some("127.0.0.1"), three);
    let port = at_run_time.rsplit(':').next().unwrap_or_default();
    world.group("after", &format!("server {} max_fails=0; server {} backup;", after[0], after[1]));
    let part = world.server(None, |_, conn| {
        if conn.read_request().is_some() {
            conn.write(format!("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{PART}"));
            conn.wait_peer_close();
        }
    });
    vec![
        Kind::new("leaves", 80, pass(&silent))
            .client(Client::Leaves)
            .asks()
            .status(499)
            .aborted(&silent, &silent),
        // Nothing tells of this one but its end.
        Kind::new(
            "leaves-var",
            80,
            format!("set $port {port}; proxy_pass http://127.0.0.1:$port;"),
        )
        .client(Client::Leaves)
        .asks()
        .status(499)
        .aborted("127.0.0.1", &at_run_time),
        Kind::new("leaves-after", 80, pass("after"))
            .client(Client::Leaves)
            .asks()
            .status(499)
            .failed("after", &after[0], refused)
            .aborted("after", &after[1])
            .record("after", "aborted", refused),
        Kind::new("leaves-in-body", 80, format!("{} proxy_buffering off;", pass(&part)))
            .client(Client::LeavesInBody)
            .asks()
            .good(&part, &part),
    ]
}

/// Requests that make others.
fn subrequests(world: &mut World) -> Vec<Kind> {
    let refused = "connection_refused";
    let [dead, main_dead, mirrored] = [(); 3].map(|()| world.dead());
    let [first, second] = [(); 2].map(|()| world.server(None, answers(200)));
    let asked = world.server(Some("asked"), script::ok(""));
    world.group("asked", &format!("server {asked}; keepalive 8;"));
    let also = |name: &str, to: &str| {
        format!("location = /sub-{name} {{ internal; proxy_pass http://{to}; }}")
    };
    let with = |name: &str, directive: &str, sub: &str, to: &str| {
        format!(
            "{directive} /sub-{name}; {} }} {}",
            pass(to),
            also(name, sub).trim_end_matches('}')
        )
    };
    vec![
        Kind::new("auth", 150, with("auth", "auth_request", "asked", &first))
            .asks()
            .asks()
            .good("asked", &asked)
            .good(&first, &first),
        Kind::new("auth-dead", 150, with("auth-dead", "auth_request", &dead, &first))
            .asks()
            .status(500)
            .failed(&dead, &dead, refused)
            .record(&dead, "failed", refused),
        Kind::new("auth-then", 100, with("auth-then", "auth_request", "asked", &main_dead))
            .asks()
            .asks()
            .status(502)
            .good("asked", &asked)
            .failed(&main_dead, &main_dead, refused)
            .record(&main_dead, "failed", refused),
        Kind::new("mirror", 100, with("mirror", "mirror", &mirrored, &second))
            .asks()
            .asks()
            .good(&second, &second)
            .failed(&mirrored, &mirrored, refused)
            .record_of_subrequest(&mirrored, "failed", refused),
    ]
}

/// Errors in whose place another page comes.
fn pages(world: &mut World) -> Vec<Kind> {
    let refused = "connection_refused";
    let [masked, failed, named] = [(); 3].map(|()| world.dead());
    let other = world.server(None, answers(200));
    let own = world.server(None, answers(502));
    vec![
        Kind::new("page", 150, format!("{} error_page 502 =200 /page;", pass(&masked)))
            .asks()
            .failed(&masked, &masked, refused)
            .record(&masked, "masked", refused),
        Kind::new("page-502", 100, format!("{} error_page 502 /page;", pass(&failed)))
            .asks()
            .status(502)
            .failed(&failed, &failed, refused)
            .record(&failed, "failed", refused),
        Kind::new(
            "named",
            150,
            format!(
                "{} error_page 502 = @other; }} location @other {{ {}",
                pass(&named),
                pass(&other)
            ),
        )
        .asks()
        .asks()
        .failed(&named, &named, refused)
        .good(&other, &other)
        .record(&named, "masked", refused),
        Kind::new(
            "intercepted",
            100,
            format!("{} proxy_intercept_errors on; error_page 502 /page;", pass(&own)),
        )
        .asks()
        .status(502)
        .failed(&own, &own, "upstream_response")
        .record(&own, "passed", "upstream_response"),
    ]
}

/// Errors and answers for which no upstream is asked.
fn without_upstream(world: &mut World) -> Vec<Kind> {
    let [own, good] = [502, 200].map(|status| world.server(None, answers(status)));
    let off = world.dead();
    let cached = |addr: &str, key: &str, status: u16| {
        format!(
            "{} proxy_cache c; proxy_cache_key {key}; proxy_cache_valid {status} 1h;",
            pass(addr)
        )
    };
    vec![
        Kind::new("return", 200, "return 502;".to_owned()).status(502).record(
            "",
            "failed",
            "local_return",
        ),
        Kind::new("cached", 200, cached(&own, "error", 502)).status(502).record(
            &own,
            "failed",
            "cached_error",
        ),
        Kind::new("hit", 200, cached(&good, "good", 200)),
        Kind::new("name", 100, "set $name no.such.host; proxy_pass http://$name;".to_owned())
            .asks()
            .status(502)
            .failed("no.such.host", "", "dns_no_resolver")
            .record("no.such.host", "failed", "dns_no_resolver"),
        Kind::new("url", 60, "set $url nonsense; proxy_pass $url;".to_owned())
            .status(500)
            .failed("", "", "invalid_upstream_url")
            .record("", "failed", "invalid_upstream_url"),
        Kind::new("off", 100, format!("{} upstream_diag off;", pass(&off))).status(502),
    ]
}
