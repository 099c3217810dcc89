//! Subrequests in the background, which nobody waits for.

use serde_json::json;
use t::{Nginx, Upstream, diag, script};

/// Guards against a mirror that fails, or is slow to, being taken for the main request, and
/// against mirrors that fail together being counted as one.
#[test]
fn mirrors() {
    let dead = t::refused_port();
    let silent = Upstream::tcp(script::silent());
    let own = Upstream::tcp(script::status(503));
    let good = Upstream::tcp(script::ok("good"));
    let nginx = Nginx::start(diag::conf(format!(
        "location / {{ mirror /good; mirror /dead; mirror /silent; mirror /own;
                           proxy_pass http://{good}; }}
             location = /good {{ proxy_pass http://{good}; }}
             location = /dead {{ proxy_pass http://{}; }}
             location = /silent {{ proxy_read_timeout 150ms; proxy_pass http://{}; }}
             location = /own {{ proxy_pass http://{}; }}
             location = /lost {{ mirror /dead; proxy_pass http://{}; }}",
        dead.addr(),
        silent.addr(),
        own.addr(),
        dead.addr(),
        good = good.addr(),
    )));
    let request = b"POST /page?a=b HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody";
    assert_eq!(nginx.request(request).text(), "good");
    for (n, (uri, status, cause, outcome, up)) in [
        ("/dead", 502, "connection_refused", "failed", dead.addr()),
        ("/silent", 504, "response_timed_out", "failed", silent.addr()),
        ("/own", 503, "upstream_response", "passed", own.addr()),
    ]
    .into_iter()
    .enumerate()
    {
        nginx.wait_lines("diag.json", 3);
        let found = (0..3).map(|n| diag::subrequest(&nginx, n)).find(|s| s.record["uri"] == uri);
        let seen = found.unwrap_or_else(|| panic!("record {n}: none of {uri}"));
        seen.expect(
            cause,
            &json!({"status": status, "outcome": outcome, "method": "POST", "location": uri,
                    "attempts": [{"peer": up, "cause": cause, "status": status}]}),
        )
        .explains_nothing();
    }
    // Both fail: each has its own.
    let response = nginx.get("/lost");
    assert_eq!(response.status, 502);
    diag::subrequest(&nginx, 3).expect("connection_refused", &json!({"uri": "/dead"}));
    diag::seen(&nginx, 4)
        .expect("connection_refused", &json!({"uri": "/lost", "outcome": "failed"}))
        .in_header(&response);
    diag::finish(&nginx);
}

/// Guards against a mirror that is ended with its main request, which is still waiting, having
/// failed, or having a status that nobody gave it.
#[test]
fn mirrors_end_with_their_client() {
    let dead = t::refused_port();
    let silent = Upstream::tcp(script::silent());
    let nginx = Nginx::start(
        diag::conf(format!(
            "location / {{ mirror /copy; mirror /silent; proxy_pass http://{silent}; }}
             location = /copy {{ proxy_pass http://u; }}
             location = /silent {{ proxy_pass http://{silent}; }}",
            silent = silent.addr(),
        ))
        .http(format!(
            "upstream u {{ server {}; server {} backup; }}",
            dead.addr(),
            silent.addr()
        )),
    );
    let mut client = nginx.connect();
    client.send(b"GET /page HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("a request");
    silent.wait_requests(3);
    drop(client);
    let seen = diag::subrequest(&nginx, 0);
    seen.expect(
        "connection_refused",
        &json!({
            "uri": "/copy", "outcome": "aborted",
            "attempts": [{"peer": dead.addr(), "cause": "connection_refused"},
                         {"peer": silent.addr(), "cause": null}],
        }),
    )
    .explains_nothing();
    assert!(seen.record["status"] != 0, "a status that was not given: {:#}", seen.record);
    assert_eq!(nginx.lines("diag.json").len(), 1);
    diag::finish(&nginx);
}

/// Guards against a mirror, of which the client's request knows nothing, being the reason of an
/// error that the request ends with, and hiding the true one.
#[test]
fn mirrors_explain_nothing() {
    let dead = t::refused_port();
    let own500 = Upstream::tcp(script::status(500));
    let nginx = Nginx::start(diag::conf(format!(
        "mirror /copy;
         location /own {{ proxy_pass http://{}; }}
         location /local {{ error_page 404 =503 @closed; root {{prefix}}/tmp; }}
         location @closed {{ mirror off; return 200 closed; }}
         location = /copy {{ internal; mirror off; proxy_pass http://{}; }}",
        own500.addr(),
        dead.addr()
    )));
    let copy = json!({"uri": "/copy", "status": 502, "outcome": "failed"});
    let response = nginx.get("/local");
    assert_eq!(response.status, 503);
    diag::subrequest(&nginx, 0).expect("connection_refused", &copy);
    diag::seen(&nginx, 1)
        .expect("local_return", &json!({"uri": "/local", "origin": "config", "attempts": []}))
        .in_header(&response);
    assert_eq!(nginx.get("/own").status, 500);
    diag::subrequest(&nginx, 2).expect("connection_refused", &copy).explains_nothing();
    diag::finish(&nginx);
}
