//! uWSGI, whose master kills a worker that has been at a request for `harakiri` seconds.

use std::time::Instant;

use serde_json::json;
use t::diag;
use t::ports::Reservation;
use t::{Backend, Nginx};

use crate::{expect_age, give_up_until_told, told};

const WORKERS: usize = 8;

/// Guards against what [`crate::gunicorn`] guards against, in another protocol. The operator is to
/// be told that the server itself gives requests up after 2 s, which its log says, too: its harakiri
/// is to be raised, or the requests made faster.
#[test]
fn gives_up_what_takes_too_long() {
    let port = Reservation::v4().expect("a port");
    let (addr, workers) = (port.addr().to_string(), WORKERS.to_string());
    let args = "--plugin python3 --wsgi-file app.py --need-app --master --harakiri 2";
    let args: Vec<&str> =
        args.split(' ').chain(["--socket", &addr, "--processes", &workers]).collect();
    let uwsgi = Backend::start("uwsgi-core", &args, &[("app.py", include_str!("app.py"))]);
    uwsgi.wait_for("spawned uWSGI worker", WORKERS);
    let start = || {
        Nginx::start(diag::conf(format!(
            "location / {{ uwsgi_pass {addr}; uwsgi_param PATH_INFO $uri;
                           uwsgi_param REQUEST_METHOD $request_method; }}"
        )))
    };
    let check = |seen: &diag::Seen, sent: Instant| {
        let attempt = json!({
            "peer": addr, "cause": "closed_before_response", "reused": false, "errno": null,
            "bytes_received": 0, "status": 502, "tcp": {"state": "CLOSE_WAIT"},
        });
        seen.expect(
            "closed_before_response",
            &json!({"outcome": "failed", "phase": "header", "module": "uwsgi",
                    "attempts": [attempt]}),
        );
        // It counts whole seconds, and the master looks once a second.
        expect_age(seen, 1.9, sent);
        told(seen, &["closed the connection without sending"], &[]);
    };
    let ready = |round: usize| drop(uwsgi.wait_for("Respawned uWSGI worker", WORKERS * round));
    give_up_until_told(start, WORKERS, "uWSGI's harakiri", ready, check);
    uwsgi.wait_for("HARAKIRI ON WORKER", WORKERS);
}
