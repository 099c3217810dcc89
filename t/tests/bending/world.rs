//! Upstreams and an nginx in front of them, with logs of all that the module says.

use std::fs;

use serde_json::Value;
use t::{Conf, Nginx, RefusedPort, Response, Upstream, script};

/// The variables with a value for each attempt, for the access log.
pub(crate) const PER_ATTEMPT: [&str; 7] =
    ["causes", "errno", "errname", "connect_time", "header_size", "reused", "peer_state"];

/// Upstreams and an nginx in front of them.
pub(crate) struct World {
    pub(crate) dead: [RefusedPort; 5],
    pub(crate) good: Upstream,
    pub(crate) nginx: Nginx,
    asked: usize,
}

/// The configuration of a server with diagnosis: `@dead` and `@good` are addresses, `@www` a
/// directory with a file `page.html`.
pub(crate) fn world(server: &str) -> World {
    world_with(server, |conf| conf)
}

pub(crate) fn world_with(server: &str, change: impl Fn(Conf) -> Conf) -> World {
    let dead = [(); 5].map(|()| t::refused_port());
    let good = Upstream::tcp(script::ok("good"));
    let addr = |text: &str| {
        let text = dead.iter().enumerate().fold(text.to_owned(), |text, (i, dead)| {
            text.replace(&format!("@dead{i}"), &dead.addr())
        });
        text.replace("@good", &good.addr()).replace("@www", "{prefix}/tmp")
    };
    let per_attempt = PER_ATTEMPT.map(|name| format!("\"{name}\":\"$upstream_diag_{name}\""));
    let conf = Conf::new(addr(server))
        .access_log(format!(
            "{{\"uri\":\"$request_uri\",\"status\":\"$status\",\"addr\":\"$upstream_addr\",\
             \"cause\":\"$upstream_diag_cause\",\"outcome\":\"$upstream_diag_outcome\",\
             \"json\":\"$upstream_diag_json\",{}}}",
            per_attempt.join(",")
        ))
        .http(addr(
            "upstream_diag on; upstream_diag_log {prefix}/diag.json;
             access_log {prefix}/failed.log t if=$upstream_diag_cause;
             map $upstream_diag_cause $kind { '' none; connection_refused refused; default other; }
             upstream two { server @dead1; server @dead2; }
             upstream gone { server @dead1; server @dead2; }
             upstream half { server @dead3; server @good; }
             upstream more { server @dead4; server @good; }
             add_header X-Cause '[$upstream_diag_cause]' always; add_header X-Kind $kind always;",
        ));
    let nginx = Nginx::start(change(conf));
    fs::write(nginx.path("tmp/page.html"), "page").expect("page.html");
    World { dead, good, nginx, asked: 0 }
}

impl World {
    /// The response, and its line of the access log.
    pub(crate) fn get(&mut self, path: &str) -> (Response, Value) {
        let response = self.nginx.get(path);
        (response, self.line())
    }

    pub(crate) fn line(&mut self) -> Value {
        self.asked += 1;
        self.nginx.wait_json_lines("access.log", self.asked).remove(self.asked - 1)
    }

    pub(crate) fn records(&self) -> Vec<Value> {
        self.nginx.json_log("diag.json")
    }

    /// Checks that this many of the requests so far have failed.
    pub(crate) fn failed(&self, n: usize) {
        // Records are written before the line that was waited for.
        assert_eq!(self.records().len(), n);
        assert_eq!(self.nginx.wait_json_lines("failed.log", n).len(), n);
    }
}
