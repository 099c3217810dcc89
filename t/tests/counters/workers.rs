//! What several workers count together.

use std::collections::BTreeSet;

use serde_json::json;
use t::{Nginx, Upstream, diag, script};

use super::{SOON, group, wait_counts};

/// Guards against a count that is one worker's own, and against counts that are lost when two
/// count at once.
#[test]
fn counts_add_up() {
    for workers in [2, 4] {
        for zone in ["", "zone u 64k;"] {
            let good = Upstream::tcp(script::ok("good"));
            let dead = t::refused_port();
            let mut conf = group(&format!(
                "{zone} server {} max_fails=0; server {} backup;",
                dead.addr(),
                good.addr()
            ))
            .workers(workers)
            .http("add_header X-Pid $pid;");
            // The kernel spreads connections over the workers by their ports.
            conf.servers[0].push_str("listen 127.0.0.1:{port} reuseport;");
            let nginx = Nginx::start(conf);
            let one = || {
                let response = nginx.get("/");
                assert_eq!(response.text(), "good");
                response.header("X-Pid").map(str::to_owned).expect("a pid")
            };
            // All at once, and as long as it takes until each worker had some.
            let mut seen = BTreeSet::new();
            let mut asked = 0_u64;
            while seen.len() < workers {
                assert!(asked < 4_000, "some worker takes no connection");
                std::thread::scope(|scope| {
                    let ask = || (0..25).map(|_| one()).collect::<Vec<_>>();
                    let threads = [(); 4].map(|()| scope.spawn(ask));
                    for thread in threads {
                        let pids = thread.join().expect("answers");
                        asked += pids.len() as u64;
                        seen.extend(pids);
                    }
                });
            }
            wait_counts(&nginx, "u", &good.addr(), [asked, 0, 0]);
            let status = wait_counts(&nginx, "u", &dead.addr(), [0, asked, 0]);
            let wanted = json!({
                "totals": {"requests": asked},
                "upstreams": {"u": {"header_bytes": {"count": asked},
                                    "connect_seconds": {"count": asked}}},
            });
            assert_eq!(diag::differences(&wanted, &status), [""; 0]);
            t::eventually("every record is counted", SOON, || {
                let status = diag::status(&nginx);
                let all = (&status["totals"]["masked"], &status["upstreams"]["u"]["masked"]);
                (all == (&json!(asked), &json!(asked))).then_some(())
            });
            // What one worker says of the past has what the others did.
            let records = nginx.wait_json_lines("diag.json", usize::try_from(asked).expect("few"));
            let most =
                records.iter().filter_map(|r| r["attempts"][0]["history"]["failed"].as_u64());
            assert_eq!(most.max(), Some(asked));
            nginx.stop();
        }
    }
}
