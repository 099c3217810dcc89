//! `upstream_diag_zone`: the sizes that go together.

use super::{Http, Nginx, check};
use t::Conf;

/// The number behind these words.
fn number(text: &str, words: &str) -> usize {
    let (_, rest) = text.split_once(words).unwrap_or_else(|| panic!("no {words:?} in {text}"));
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().expect("a number")
}

/// Guards against a zone that is refused with a size that does not do, or with more than it needs.
#[test]
fn the_least_size_is_the_least() {
    for parameters in [
        "",
        " peers=1",
        " events=1",
        " peers=1 events=1",
        " peers=1000",
        " events=500",
        " peers=1000 events=500",
        " events=3000 peers=20",
    ] {
        let zone = |size: usize| {
            check(Http, &format!("upstream_diag_zone {size}k{parameters}; upstream_diag on;"))
        };
        let (ok, said, file) = zone(1);
        let words = r#"[emerg] zone size "1k" in "upstream_diag_zone" directive is too small, it must be at least "#;
        let least = number(&said, words);
        assert!(!ok && said.contains(&format!("{words}{least}k in {file}:3\n")), "{said}");
        // It is given in whole pages of memory.
        let (ok, said, _) = zone(least - 4);
        assert!(!ok && number(&said, "must be at least ") == least, "{parameters}: {said}");
        let (ok, said, _) = zone(least);
        assert!(ok && !said.contains("[warn]"), "{parameters}: {said}");
    }
    // As many as never fit: a sum that overflows must not come out small.
    for parameters in ["peers=4611686018427387904", "events=9223372036854775807"] {
        let (ok, said, _) = check(Http, &format!("upstream_diag_zone 2m {parameters};"));
        assert!(!ok && said.contains("is too small"), "{said}");
    }
}

/// `nginx -t` with so many servers that the zone keeps an account of, one of them in a pass
/// directive. It has to pass; gives what nginx said.
fn with_servers(servers: usize, zone: &str) -> String {
    let group: String = (1..servers).map(|n| format!("server 127.0.0.1:{};", 1000 + n)).collect();
    let conf = Conf::new(
        "location / { proxy_pass http://u; } location /b { proxy_pass http://127.0.0.1:999; }",
    );
    let conf = conf.http(format!("upstream u {{ {group} }} upstream_diag on; {zone}"));
    let (ok, said) = Nginx::check(&conf);
    assert!(ok, "{zone}: {said}");
    said
}

/// Guards against more servers than there is room for being an error, or nobody being told.
#[test]
fn more_peers_than_room_is_a_warning() {
    let said = with_servers(20, "upstream_diag_zone 2m peers=10;");
    let words = "[warn] the upstreams have 20 peers and \"upstream_diag_zone\" has room for 10: \
                 those beyond are counted as \"other\"; ";
    assert_eq!(said.matches(words).count(), 1, "{said}");
    for enough in ["upstream_diag_zone 2m peers=20;", "upstream_diag_zone 2m;", ""] {
        assert!(!with_servers(20, enough).contains("[warn]"), "{enough}");
    }
    // Nobody counts where nothing is diagnosed.
    let conf = Conf::new("").http("upstream u { server 127.0.0.1:1; server 127.0.0.1:2; }");
    let (ok, said) = Nginx::check(&conf.http("upstream_diag_zone 2m peers=1;"));
    assert!(ok && !said.contains("[warn]"), "{said}");
}

/// Guards against advice that brings the next warning, or an error, when it is followed.
#[test]
fn the_remedy_for_more_peers_helps() {
    for (servers, size, peers, events) in [
        (20, "2m", " peers=10", ""),
        (1_500, "168k", "", ""),
        (1_500, "200k", " peers=10", ""),
        (100, "600k", " peers=10", " events=300"),
        (1_500, "600k", "", " events=300"),
    ] {
        let said = with_servers(servers, &format!("upstream_diag_zone {size}{peers}{events};"));
        let remedy = said.split("give them room with \"").nth(1).expect("a remedy");
        let followed = remedy.split('"').next().expect("the end of the directive");
        assert!(!with_servers(servers, followed).contains("[warn]"), "{followed}");
    }
}
