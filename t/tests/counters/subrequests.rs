//! Requests that nginx makes by itself.

use serde_json::json;
use t::{Nginx, Upstream, diag, script};

use super::wait_counts;

/// Guards against authorizations, parts of pages and copies being counted nowhere, or twice, or
/// with the main request's upstream.
#[test]
fn subrequests_are_counted() {
    let [main, auth, part, copy] = [(); 4].map(|()| Upstream::tcp(script::ok("good")));
    let dead = t::refused_port();
    let nginx = Nginx::start(
        diag::conf(
            "location /auth { auth_request /check; proxy_pass http://main; }
             location /refused { auth_request /dead; proxy_pass http://main; }
             location = /check { internal; proxy_pass http://auth; }
             location = /dead { internal; proxy_pass http://dead; }
             location /page.html { ssi on; root {prefix}/tmp; }
             location /part { proxy_pass http://part; }
             location /mirrored { mirror /copy; proxy_pass http://main; }
             location = /copy { internal; proxy_pass http://copy; }",
        )
        .http(format!(
            "upstream main {{ server {}; }} upstream auth {{ server {}; }}
             upstream part {{ server {}; }} upstream copy {{ server {}; }}
             upstream dead {{ server {} max_fails=0; }}",
            main.addr(),
            auth.addr(),
            part.addr(),
            copy.addr(),
            dead.addr()
        )),
    );
    let page = "[<!--#include virtual=\"/part/1\" --><!--#include virtual=\"/part/2\" -->]";
    std::fs::write(nginx.path("tmp/page.html"), page).expect("page.html");

    assert_eq!(nginx.get("/auth").text(), "good");
    assert_eq!(nginx.get("/refused").status, 500);
    assert_eq!(nginx.get("/page.html").text(), "[goodgood]");
    assert_eq!(nginx.get("/mirrored").text(), "good");
    // The copy goes on when the client has its answer.
    let status = wait_counts(&nginx, "copy", &copy.addr(), [1, 0, 0]);
    for (upstream, addr, counts) in [
        ("main", main.addr(), [2, 0, 0]),
        ("auth", auth.addr(), [1, 0, 0]),
        ("dead", dead.addr(), [0, 1, 0]),
        ("part", part.addr(), [2, 0, 0]),
    ] {
        assert_eq!(diag::counts(diag::peer(&status, upstream, &addr)), counts, "{upstream}");
        let answers = json!({"count": counts[0]});
        let sizes = &status["upstreams"][upstream]["header_bytes"];
        assert_eq!(diag::differences(&answers, sizes), [""; 0], "{upstream}");
    }
    assert_eq!(status["totals"]["requests"], 7);
    assert_eq!(status["upstreams"]["dead"]["failed"], 1);
    diag::finish(&nginx);
}

/// Guards against an update that nobody waits for being counted nowhere.
#[test]
fn updates_in_the_background_are_counted() {
    let dead = t::refused_port();
    let up = Upstream::tcp(|n, conn| {
        conn.read_request();
        let (age, body) = if n == 0 { ("@1", "old") } else { ("60", "new") };
        conn.write(format!(
            "HTTP/1.1 200 OK\r\nX-Accel-Expires: {age}\r\nContent-Length: 3\r\n\r\n{body}"
        ));
    });
    let nginx = Nginx::start(
        diag::conf(
            "proxy_cache c; proxy_cache_key $uri; proxy_cache_use_stale updating error;
             proxy_cache_background_update on; location / { proxy_pass http://u; }",
        )
        .http("proxy_cache_path {prefix}/cache keys_zone=c:1m;")
        .http(format!(
            "upstream u {{ server {} max_fails=0; }} upstream v {{ server {}; }}",
            up.addr(),
            dead.addr()
        )),
    );
    assert_eq!((nginx.get("/").text(), nginx.get("/").text()), ("old".into(), "old".into()));
    wait_counts(&nginx, "u", &up.addr(), [2, 0, 0]);
    assert_eq!(nginx.get("/").text(), "new");
    let status = wait_counts(&nginx, "u", &up.addr(), [2, 0, 0]);
    assert_eq!(status["totals"]["requests"], 2);
    diag::finish(&nginx);
}

/// Guards against requests that go through several locations being counted once for all, or in
/// those that only pass them on.
#[test]
fn redirects_are_counted_where_an_upstream_is_asked() {
    let [good, own, fallback] = [200, 503, 200].map(|status| Upstream::tcp(script::status(status)));
    let accel = Upstream::tcp(script::raw(
        "HTTP/1.1 200 OK\r\nX-Accel-Redirect: /good\r\nContent-Length: 0\r\n\r\n",
    ));
    let nginx = Nginx::start(diag::conf(format!(
        "proxy_intercept_errors on;
         location /good {{ proxy_pass http://{}; }}
         location /accel {{ proxy_pass http://{}; }}
         location /own {{ error_page 503 @fallback; proxy_pass http://{}; }}
         location @fallback {{ proxy_pass http://{}; }}
         location /rewrite {{ rewrite ^ /good last; }}",
        good.addr(),
        accel.addr(),
        own.addr(),
        fallback.addr()
    )));
    for path in ["/good", "/accel", "/own", "/rewrite"] {
        nginx.get(path);
    }
    let status = diag::status(&nginx);
    for (addr, counts) in [
        (good.addr(), [3, 0, 0]),
        (accel.addr(), [1, 0, 0]),
        (own.addr(), [0, 1, 0]),
        (fallback.addr(), [1, 0, 0]),
    ] {
        assert_eq!(diag::counts(diag::peer(&status, &addr, &addr)), counts, "{addr}");
    }
    assert_eq!(status["totals"]["requests"], 6);
    diag::finish(&nginx);
}
