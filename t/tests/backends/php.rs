//! PHP-FPM on a unix socket.

use std::fs;
use std::time::Instant;

use serde_json::json;
use t::diag;
use t::{Backend, Nginx, Signal, backend};

use crate::{answer, ask, expect_age, give_up_until_told, told};

const EAGAIN: i32 = 11;
const ECONNRESET: i32 = 104;

/// How many connections may wait when `listen.backlog` is 1: Linux lets one more in.
const QUEUE: usize = 2;

/// Starts it with so many workers, and a setting more.
fn php(workers: usize, more: &str) -> Backend {
    let conf = include_str!("fpm.conf");
    let conf = conf.replace("{workers}", &workers.to_string()).replace("{more}", more);
    let files = [("index.php", include_str!("index.php")), ("fpm.conf", &conf)];
    // The stack is to end before memory_limit, and to have no limit of PHP's own, as it has in
    // newer versions.
    let limits = ["-d", "memory_limit=16M", "-d", "zend.max_allowed_stack_size=-1"];
    let errors = ["-d", "display_errors=0", "-d", "log_errors=1"];
    let program = program();
    let args = ["--stack=1048576", "--", &program, "-F", "-n", "-y", "{dir}/fpm.conf"];
    let php = Backend::start("prlimit", &[&args[..], &limits, &errors].concat(), &files);
    php.wait_for("ready to handle connections", 1);
    php
}

/// The program, which Debian gives a name with the version in it.
fn program() -> String {
    let path = backend::path();
    let dirs = path.split(':').filter_map(|dir| fs::read_dir(dir).ok());
    let names = dirs.flatten().flatten().map(|f| f.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with("php-fpm")).max().expect("the package php-fpm")
}

fn nginx(php: &Backend) -> Nginx {
    let (script, socket) = (php.path("index.php"), php.path("php.sock"));
    Nginx::start(diag::conf(format!(
        "location / {{ fastcgi_pass unix:{}; fastcgi_buffering off;
                       fastcgi_param SCRIPT_FILENAME {}; fastcgi_param SCRIPT_NAME $uri;
                       fastcgi_param REQUEST_METHOD $request_method; }}",
        socket.display(),
        script.display(),
    )))
}

/// Guards against a pool that is too small for its requests looking like one that is down. The
/// operator is to be told that the queue of the socket is full: there are too few workers.
#[test]
fn queue_is_full() {
    const REFUSED: usize = 6;
    let php = php(1, "listen.backlog = 1");
    let nginx = nginx(&php);
    let mut asked = vec![ask(&nginx, "GET", "/held")];
    php.wait_for("has held", 1);
    asked.extend([(); QUEUE + REFUSED].map(|()| ask(&nginx, "GET", "/held")));
    nginx.wait_lines("diag.json", REFUSED);
    fs::write(php.path("open"), "").expect("a file");
    let served = asked.iter_mut().map(|client| answer(client).status).filter(|s| *s == 200);
    assert_eq!(served.count(), 1 + QUEUE);
    let peer = format!("unix:{}", php.path("php.sock").display());
    for n in 0..REFUSED {
        let seen = diag::seen(&nginx, n);
        let attempt = json!({
            "peer": peer, "cause": "listen_queue_full", "errno": EAGAIN, "errname": "EAGAIN",
            "reused": false, "status": 502, "tcp": null,
        });
        seen.expect(
            "listen_queue_full",
            &json!({"status": 502, "outcome": "failed", "phase": "connect",
                    "attempts": [attempt]}),
        );
        told(&seen, &["has a full accept queue"], &["Add workers", "(now 1)"]);
        seen.finds(
            "listen_backlog_full",
            "certain",
            &format!("The accept queue of {peer} is full: 2 connections wait, its limit is 1."),
            &json!({"queue": QUEUE, "backlog": 1}),
        );
        assert_eq!(seen.codes(), ["listen_backlog_full"]);
    }
    diag::finish(&nginx);
}

/// Guards against the end of a worker being told as something else. It shows as a reset, as PHP does
/// not read what ends the request before the script asks for its body. The operator is to be told to
/// look for a crash in the server's log.
#[test]
fn worker_dies() {
    let php = php(1, "");
    let nginx = nginx(&php);
    let peer = format!("unix:{}", php.path("php.sock").display());
    for (n, (what, cause, signal)) in [
        // Over the limit of its stack: ended by the kernel.
        ("stack", "connection_reset", None),
        // As by the kernel when memory runs out.
        ("stuck", "connection_reset", Some(Signal::KILL)),
        ("half", "response_truncated", Some(Signal::KILL)),
    ]
    .into_iter()
    .enumerate()
    {
        let sent = Instant::now();
        let mut asked = ask(&nginx, "GET", &format!("/{what}"));
        if what == "half" {
            asked.wait_for(b"half");
        }
        let said = php.wait_for(&format!("has {what}"), 1).swap_remove(0);
        if let Some(signal) = signal {
            // "… child 123 said into stderr: …"
            let (_, rest) = said.split_once("child ").expect("a worker's words");
            let (pid, _) = rest.split_once(' ').expect("more words");
            php.signal(pid.parse().expect("a number"), signal);
        }
        let response = answer(&mut asked);
        let truncated = what == "half";
        let (status, outcome, phase) =
            if truncated { (200, "truncated", "body") } else { (502, "failed", "header") };
        assert_eq!((response.status, response.truncated), (status, truncated), "{what}");
        php.wait_for("exited on signal", n + 1);
        let seen = diag::seen(&nginx, n);
        let attempt = json!({
            "peer": peer, "cause": cause, "errno": ECONNRESET, "reused": false, "tcp": null,
        });
        seen.expect(
            cause,
            &json!({"status": status, "outcome": outcome, "phase": phase, "module": "fastcgi",
                    "attempts": [attempt]}),
        );
        expect_age(&seen, 0.0, sent);
        told(&seen, &["ECONNRESET"], &["Look for a crash", "out of memory"]);
        // The server goes on, and its other workers with it.
        assert_eq!(seen.codes(), [""; 0]);
    }
    php.wait_for("SIGSEGV", 1);
    diag::finish(&nginx);
}

/// Guards against an answer that PHP gives itself when a script is over `memory_limit` being taken
/// for a worker that died: it lives, and says 500. nginx's error log has PHP's own words; there is
/// nothing to be told.
#[test]
fn script_takes_too_much_memory() {
    let php = php(1, "");
    let nginx = nginx(&php);
    assert_eq!(nginx.get("/memory").status, 500);
    assert!(nginx.error_log().contains("Allowed memory size of 16777216 bytes exhausted"));
    assert_eq!(nginx.get("/good").text(), "good");
    assert!(!php.output().contains("exited on signal"), "{}", php.output());
    nginx.wait_lines("access.log", 2);
    assert_eq!(nginx.lines("diag.json").len(), 0);
    diag::finish(&nginx);
}

/// Guards against requests that take too long being laid to a crash. The operator is to be told
/// that the server itself gives them up after 2 s, which its log says, too: its
/// request_terminate_timeout is to be raised, or the scripts made faster.
#[test]
fn gives_up_what_takes_too_long() {
    const WORKERS: usize = 8;
    let php = php(WORKERS, "request_terminate_timeout = 2");
    let start = || nginx(&php);
    let check = |seen: &diag::Seen, sent: Instant| {
        let attempt = json!({
            "cause": "connection_reset", "errno": ECONNRESET, "reused": false,
            "bytes_received": 0, "status": 502, "tcp": null,
        });
        seen.expect(
            "connection_reset",
            &json!({"outcome": "failed", "phase": "header", "attempts": [attempt]}),
        );
        // The master looks three times in 2 s.
        expect_age(seen, 1.9, sent);
        told(seen, &["reset the connection", "s after the request was sent"], &[]);
    };
    let ready = |round: usize| drop(php.wait_for("started", WORKERS * round));
    give_up_until_told(start, WORKERS, "PHP-FPM's request_terminate_timeout", ready, check);
    php.wait_for("execution timed out", WORKERS);
}
