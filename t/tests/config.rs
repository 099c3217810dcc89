//! What `nginx -t` says about the directives: wrong ones are refused with the reason, the file and
//! the line, right ones are taken.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "test code: a broken assumption is a failed test and should stop it at once"
)]

use std::fs;
use std::process::{Command, Stdio};

use nginx_setup::Name;
use t::{Conf, Nginx};

#[path = "config/values.rs"]
mod values;
#[path = "config/zone.rs"]
mod zone;

/// Where a directive stands.
#[derive(Clone, Copy, Debug)]
enum Place {
    Main,
    Events,
    Http,
    Upstream,
    Server,
    ServerIf,
    Location,
    If,
    LimitExcept,
}

use Place::{Events, Http, If, LimitExcept, Location, Main, Server, ServerIf, Upstream};

const EVERY: [Place; 9] =
    [Main, Events, Http, Upstream, Server, ServerIf, Location, If, LimitExcept];

/// `nginx -t` with these directives in that place, in a file of their own, the first of them on
/// its third line. Gives whether it passed, what nginx said, and the name of that file.
fn check(place: Place, directives: &str) -> (bool, String, String) {
    let dir = t::temp_dir();
    let file = dir.path().join("part.conf");
    fs::write(&file, format!("# one\n# two\n{directives}\n")).expect("part.conf");
    let file = file.to_str().expect("plain names").to_owned();
    let include = format!("include {file};");
    let conf = match place {
        Main => Conf::new("").main(include),
        Events => Conf::new("").events(include),
        Http => Conf::new("").http(include),
        Upstream => Conf::new("").http(format!("upstream u {{ server 127.0.0.1:1; {include} }}")),
        Server => Conf::new(include),
        ServerIf => Conf::new(format!("if ($arg_x) {{ {include} }}")),
        Location => Conf::new(format!("location / {{ {include} }}")),
        If => Conf::new(format!("location / {{ if ($arg_x) {{ {include} }} }}")),
        LimitExcept => Conf::new(format!("location / {{ limit_except GET {{ {include} }} }}")),
    };
    let (ok, said) = Nginx::check(&conf);
    (ok, said, file)
}

fn refused(place: Place, directives: &str, words: &str, line: Option<usize>) {
    let (ok, said, file) = check(place, directives);
    let wanted = match line {
        Some(line) => format!("nginx: [emerg] {words} in {file}:{line}\n"),
        // nginx finds these out when the configuration has been read.
        None => format!("nginx: [emerg] {words}"),
    };
    assert!(!ok && said.contains(&wanted), "{place:?} {directives}\n{said}\nwanted: {wanted}");
    assert_eq!(said.matches("[emerg]").count(), 1, "{directives}: once\n{said}");
}

fn accepted(place: Place, directives: &str) {
    let (ok, said, _) = check(place, directives);
    assert!(ok && said.contains("test is successful"), "{place:?} {directives}\n{said}");
    for word in ["[emerg]", "[alert]", "[crit]", "[error]", "[warn]"] {
        assert!(!said.contains(word), "{place:?} {directives}\n{said}");
    }
}

/// Guards against arguments that are missing or too many, and nobody says so.
#[test]
fn wrong_numbers_of_arguments_are_refused() {
    for (place, directives) in [
        (Http, "upstream_diag;"),
        (Http, "upstream_diag on on;"),
        (Http, "upstream_diag_zone;"),
        (Http, "upstream_diag_zone; upstream_diag on;"),
        (Http, "upstream_diag_log;"),
        (Http, "upstream_diag_query;"),
        (Http, "upstream_diag_query on on;"),
        (Location, "upstream_diag_status json json;"),
        (Location, "upstream_diag_status json prometheus;"),
    ] {
        let name = directives.split([' ', ';']).next().unwrap_or_default();
        let words = format!("invalid number of arguments in \"{name}\" directive");
        refused(place, directives, &words, Some(3));
    }
}

/// Guards against a second directive that silently wins, or silently loses.
#[test]
fn duplicates_are_refused() {
    for (place, first, second) in [
        (Http, "upstream_diag on;", "upstream_diag on;"),
        (Location, "upstream_diag off;", "upstream_diag on;"),
        (If, "upstream_diag on;", "upstream_diag on;"),
        (Http, "upstream_diag_zone 1m;", "upstream_diag_zone 1m;"),
        (Http, "upstream_diag_zone 1m;", "upstream_diag_zone 2m;"),
        (Server, "upstream_diag_query on;", "upstream_diag_query off;"),
        (Location, "upstream_diag_status;", "upstream_diag_status;"),
        (Location, "upstream_diag_status json;", "upstream_diag_status;"),
        (Location, "upstream_diag_status prometheus;", "upstream_diag_status json;"),
    ] {
        let name = second.split([' ', ';']).next().unwrap_or_default();
        let words = format!("\"{name}\" directive is duplicate");
        refused(place, &format!("{first}\n{second}"), &words, Some(4));
    }
    // Logs may be repeated, but "off" means that there is none.
    let words = "\"upstream_diag_log off\" cannot stand beside other \"upstream_diag_log\" \
                 directives of the same block";
    for directives in [
        "upstream_diag_log a.log;\nupstream_diag_log off;",
        "upstream_diag_log off;\nupstream_diag_log a.log;",
        "upstream_diag_log off;\nupstream_diag_log off;",
    ] {
        for place in [Http, Server, Location] {
            refused(place, directives, words, Some(4));
        }
    }
}

/// Guards against a directive that stands where it has no effect.
#[test]
fn wrong_contexts_are_refused() {
    let allowed: [(&str, &[Place]); 5] = [
        ("upstream_diag on;", &[Http, Server, Location, If]),
        ("upstream_diag_zone 1m;", &[Http]),
        ("upstream_diag_log a.log;", &[Http, Server, Location]),
        ("upstream_diag_status;", &[Location]),
        ("upstream_diag_query on;", &[Http, Server, Location]),
    ];
    for (directive, places) in allowed {
        let name = directive.split([' ', ';']).next().unwrap_or_default();
        for place in EVERY {
            if places.iter().any(|p| *p as usize == place as usize) {
                accepted(place, directive);
            } else {
                let words = format!("\"{name}\" directive is not allowed here");
                refused(place, directive, &words, Some(3));
            }
        }
    }
}

/// Guards against an nginx that starts and then has no log. nginx opens files when it has read
/// everything, so it names no line.
#[test]
fn logs_that_cannot_be_opened_are_refused() {
    let words = r#"open() "/missing/diag.log" failed (2: No such file or directory)"#;
    refused(Http, "upstream_diag_log /missing/diag.log;", words, None);
    let words = r#"open() "/proc" failed (21: Is a directory)"#;
    refused(Location, "upstream_diag_log /proc;", words, None);
    let words = r#"unknown "nonsense" variable"#;
    refused(Server, "upstream_diag_log a.log if=$nonsense;", words, None);
}

/// Guards against good configurations being refused, or warned of.
#[test]
fn good_configurations_pass() {
    for (place, directives) in [
        // Loaded and not used at all.
        (Http, ""),
        (Http, "upstream_diag on;"),
        (Http, "upstream_diag off;"),
        (Http, "upstream_diag on; upstream_diag_zone 168k;"),
        (Http, "upstream_diag_zone 64M; upstream_diag on;"),
        (Http, "upstream_diag_zone 1m peers=20; upstream_diag on;"),
        (Http, "upstream_diag_zone 1m events=20;"),
        (Http, "upstream_diag_zone 8m events=100 peers=3000; upstream_diag on;"),
        // A zone that nobody uses, a log that nobody writes.
        (Http, "upstream_diag_zone 1m;"),
        (Http, "upstream_diag_log a.log;"),
        (Http, "upstream_diag_log off;"),
        (If, "upstream_diag on;"),
        (If, "upstream_diag off;"),
        (
            Server,
            "upstream_diag on; upstream_diag_log a.log; upstream_diag_log a.log if=$arg_x;
             upstream_diag_log b.log if=$upstream_diag_cause;
             upstream_diag_log syslog:server=127.0.0.1:1,tag=diag,severity=error,nohostname;",
        ),
        (
            Location,
            "upstream_diag_log a.log rate=1r/s; upstream_diag_log a.log rate=4294967295r/s;
             upstream_diag_log b.log if=$arg_x rate=5r/s;
             upstream_diag_log syslog:server=127.0.0.1:1 rate=5r/s if=$arg_x;",
        ),
        // What a block above has may be said again, or otherwise.
        (
            Http,
            "upstream_diag on; upstream_diag_log a.log; upstream_diag_query on;
             server { listen unix:{prefix}/x.sock; upstream_diag on; upstream_diag_log off;
             location / { upstream_diag off; upstream_diag_log a.log; upstream_diag_query off; } }",
        ),
        (Location, "upstream_diag_status;"),
        (Location, "upstream_diag_status json; allow 127.0.0.1; deny all;"),
        (Location, "upstream_diag on; upstream_diag_status prometheus;"),
        // Variables are there whether or not anything is diagnosed.
        (
            Http,
            "log_format x '$upstream_diag_cause $upstream_diag_json'; access_log x.log x;
             map $upstream_diag_cause $failed { '' 0; default 1; }",
        ),
        (Server, "add_header Proxy-Status $upstream_diag_proxy_status always;"),
    ] {
        let dir = t::temp_dir();
        let dir = dir.path().to_str().expect("plain names");
        accepted(place, &directives.replace("{prefix}", dir));
    }
}

/// Guards against code that takes an http block for granted.
#[test]
fn an_nginx_without_http_block_passes() {
    let name = Name::choose(None, |key| std::env::var_os(key)).expect("a name");
    let build = nginx_setup::Nginx::load(name.as_str()).expect("an nginx");
    let dir = t::temp_dir();
    let file = dir.path().join("nginx.conf");
    let module = build.module_path();
    for rest in ["", "http { }"] {
        let text = format!(
            "load_module \"{}\";\npid nginx.pid;\nerror_log error.log;\nevents {{ }}\n{rest}\n",
            module.display()
        );
        fs::write(&file, text).expect("nginx.conf");
        let output = Command::new(&build.binary)
            .env_remove("NGINX")
            .arg("-p")
            .arg(dir.path())
            .arg("-c")
            .arg(&file)
            .args(["-e", "error.log", "-t"])
            .stdin(Stdio::null())
            .output()
            .expect("nginx -t");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.contains("test is successful"), "{said}");
        assert!(!said.contains("[alert]") && !said.contains("[crit]"), "{said}");
    }
}
