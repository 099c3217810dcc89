//! What happens on the way and at its end: variables, circles, responses that are cut off, and
//! requests that nobody waits for.

use serde_json::{Value, json};
use t::{Nginx, Upstream, diag, script};

use crate::{REFUSED, handing_on};

/// Guards against what is cut off behind a failure having the verdict, or the outcome, of that.
#[test]
fn cut_off_in_the_second_place() {
    let dead = t::refused_port();
    let cut = Upstream::tcp(script::partial_body(100, "part", script::End::Fin));
    let handing = handing_on(200, "@cut");
    let nginx = Nginx::start(
        diag::conf(format!(
            "location @cut {{ proxy_pass http://{}; }}
             location /page {{ error_page 502 = @cut; proxy_pass http://{dead}; }}
             location /handed {{ proxy_pass http://u; }}",
            cut.addr(),
            dead = dead.addr(),
        ))
        .http(format!(
            "upstream u {{ server {}; server {}; }}",
            dead.addr(),
            handing.addr()
        )),
    );
    for (n, (path, causes)) in [
        ("/page", "connection_refused : response_truncated"),
        ("/handed", "connection_refused, - : response_truncated"),
    ]
    .into_iter()
    .enumerate()
    {
        let response = nginx.get(path);
        assert_eq!((response.status, response.truncated), (200, true), "{path}");
        let seen = diag::seen(&nginx, n);
        seen.expect(
            "response_truncated",
            &json!({"outcome": "truncated", "phase": "body", "uri": path, "location": "@cut",
                    "status": 200}),
        );
        assert_eq!(seen.variable("causes"), causes);
    }
    diag::finish(&nginx);
}

/// Guards against variables that are no use on the way: in what the next upstream is told, and in
/// conditions.
#[test]
fn variables_decide_where_to_go() {
    let dead = t::refused_port();
    let good = Upstream::tcp(script::ok("good"));
    let nginx = Nginx::start(diag::conf(format!(
        "location / {{ proxy_set_header X-Why '[$upstream_diag_cause]'; error_page 502 = @next;
                       proxy_pass http://{}; }}
         location @next {{
             if ($upstream_diag_cause != connection_refused) {{ return 500; }}
             rewrite ^ /asked/$upstream_diag_phase break;
             proxy_set_header X-Why $upstream_diag_cause;
             proxy_set_header X-Json $upstream_diag_json;
             proxy_pass http://{};
         }}",
        dead.addr(),
        good.addr()
    )));
    assert_eq!(nginx.get("/page").text(), "good");
    let asked = String::from_utf8_lossy(&good.requests()[0]).into_owned();
    assert!(asked.starts_with("GET /asked/connect HTTP"), "{asked}");
    assert!(asked.contains("\r\nX-Why: connection_refused\r\n"), "{asked}");
    let json = asked.split("X-Json: ").nth(1).and_then(|text| text.lines().next());
    let json: Value = serde_json::from_str(json.unwrap_or_default()).expect("the record so far");
    assert_eq!((&json["cause"], &json["uri"]), (&REFUSED.into(), &"/page".into()));
    diag::seen(&nginx, 0).expect(REFUSED, &json!({"outcome": "masked", "location": "/"}));
    diag::finish(&nginx);
}

/// Guards against a request that goes round in circles, until nginx has enough, having fewer
/// attempts than it made, or one that is endless.
#[test]
fn in_circles() {
    let dead = t::refused_port();
    let nginx = Nginx::start(diag::conf(format!(
        "recursive_error_pages on;
         location / {{ error_page 502 = @again; proxy_pass http://{dead}; }}
         location @again {{ error_page 502 = @again; proxy_pass http://{dead}; }}",
        dead = dead.addr()
    )));
    let response = nginx.get("/page");
    let seen = diag::seen(&nginx, 0);
    seen.expect(
        REFUSED,
        &json!({"status": response.status, "outcome": "failed", "location": "@again"}),
    )
    .in_header(&response);
    let attempts = seen.record["attempts"].as_array().expect("attempts");
    assert!(attempts.len() > 5 && attempts.iter().all(|a| a["cause"] == REFUSED), "{attempts:#?}");
    diag::finish(&nginx);
}

/// Guards against a post_action, which nobody waits for, being reported, or hiding what is.
#[test]
fn post_actions() {
    let dead = [(); 2].map(|()| t::refused_port());
    let good = Upstream::tcp(script::ok("good"));
    let nginx = Nginx::start(diag::conf(format!(
        "location /good {{ post_action @dead; proxy_pass http://{good}; }}
         location /dead {{ post_action @good; proxy_pass http://{}; }}
         location /both {{ post_action @dead; proxy_pass http://{}; }}
         location @dead {{ proxy_pass http://{}; }}
         location @good {{ proxy_pass http://{good}; }}",
        dead[0].addr(),
        dead[0].addr(),
        dead[1].addr(),
        good = good.addr(),
    )));
    assert_eq!(nginx.get("/good").text(), "good");
    nginx.wait_lines("access.log", 1);
    assert_eq!(nginx.lines("diag.json"), [""; 0]);
    for (n, path) in ["/dead", "/both"].into_iter().enumerate() {
        assert_eq!(nginx.get(path).status, 502);
        let record = nginx.wait_json_lines("diag.json", n + 1).remove(n);
        let differences = diag::differences(
            &json!({"cause": REFUSED, "uri": path, "location": path, "status": 502,
                    "outcome": "failed"}),
            &record,
        );
        assert_eq!(differences, [""; 0], "{record:#}");
        assert_eq!(record["attempts"][0]["peer"], dead[0].addr());
    }
}
