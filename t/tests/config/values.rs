//! Values and parameters.

use super::{Http, Location, Server, accepted, refused};

/// Guards against values and parameters that are taken for something else, or ignored.
#[test]
fn bad_values_are_refused() {
    for (place, directives, words) in [
        (
            Http,
            "upstream_diag maybe;",
            r#"invalid value "maybe" in "upstream_diag" directive, it must be "on" or "off""#,
        ),
        // Flags are written in one way, in lower case.
        (
            Location,
            "upstream_diag ON;",
            r#"invalid value "ON" in "upstream_diag" directive, it must be "on" or "off""#,
        ),
        (
            Server,
            "upstream_diag_query 1;",
            r#"invalid value "1" in "upstream_diag_query" directive, it must be "on" or "off""#,
        ),
        // The value must not be taken for a format.
        (
            Http,
            "upstream_diag '%s%n%p';",
            r#"invalid value "%s%n%p" in "upstream_diag" directive, it must be "on" or "off""#,
        ),
        (
            Http,
            "upstream_diag_zone 2x;",
            r#"invalid zone size "2x" in "upstream_diag_zone" directive"#,
        ),
        (
            Http,
            "upstream_diag_zone -1m;",
            r#"invalid zone size "-1m" in "upstream_diag_zone" directive"#,
        ),
        (
            Http,
            "upstream_diag_zone '';",
            r#"invalid zone size "" in "upstream_diag_zone" directive"#,
        ),
        (
            Http,
            "upstream_diag_zone 99999999999999999999m;",
            r#"invalid zone size "99999999999999999999m" in "upstream_diag_zone" directive"#,
        ),
        (
            Http,
            "upstream_diag_zone 4k;",
            r#"zone size "4k" in "upstream_diag_zone" directive is too small, it must be at least 168k"#,
        ),
        (
            Http,
            "upstream_diag_zone 0;",
            r#"zone size "0" in "upstream_diag_zone" directive is too small, it must be at least 168k"#,
        ),
        (
            Http,
            "upstream_diag_zone 2m nonsense;",
            r#"invalid parameter "nonsense" in "upstream_diag_zone" directive"#,
        ),
        (
            Http,
            "upstream_diag_zone 2m nonsense=1;",
            r#"invalid parameter "nonsense=1" in "upstream_diag_zone" directive"#,
        ),
        (
            Location,
            "upstream_diag_status xml;",
            r#"the format "xml" in "upstream_diag_status" directive is not known, it must be "json" or "prometheus""#,
        ),
        // Formats are written in one way.
        (
            Location,
            "upstream_diag_status JSON;",
            r#"the format "JSON" in "upstream_diag_status" directive is not known, it must be "json" or "prometheus""#,
        ),
        (
            Location,
            "upstream_diag_status '';",
            r#"the format "" in "upstream_diag_status" directive is not known, it must be "json" or "prometheus""#,
        ),
        (
            Http,
            "upstream_diag_log a.log nonsense;",
            r#"invalid parameter "nonsense" in "upstream_diag_log" directive"#,
        ),
        (
            Http,
            "upstream_diag_log a.log if;",
            r#"invalid parameter "if" in "upstream_diag_log" directive"#,
        ),
        (
            Http,
            "upstream_diag_log a.log if=;",
            r#"invalid parameter "if=" in "upstream_diag_log" directive"#,
        ),
        (
            Http,
            "upstream_diag_log a.log if=$arg_a if=$arg_b;",
            r#"invalid parameter "if=$arg_b" in "upstream_diag_log" directive"#,
        ),
        (Http, "upstream_diag_log a.log if=$;", "invalid variable name"),
        (Http, "upstream_diag_log '';", r#"invalid parameter "" in "upstream_diag_log" directive"#),
        (
            Location,
            "upstream_diag_log off if=$arg_a;",
            r#"a parameter stands behind "off" in "upstream_diag_log" directive"#,
        ),
        (
            Location,
            "upstream_diag_log off rate=5r/s;",
            r#"a parameter stands behind "off" in "upstream_diag_log" directive"#,
        ),
        // Neither is supported: they must not become files of that name.
        (
            Http,
            "upstream_diag_log memory:32m;",
            r#"invalid parameter "memory:32m" in "upstream_diag_log" directive"#,
        ),
        (
            Http,
            "upstream_diag_log /tmp/$host.log;",
            r#"invalid parameter "/tmp/$host.log" in "upstream_diag_log" directive"#,
        ),
        (Http, "upstream_diag_log syslog:;", r#"unknown syslog parameter """#),
        (Http, "upstream_diag_log syslog:tag=x;", "no syslog server specified"),
        (
            Http,
            "upstream_diag_log syslog:server=127.0.0.1,nonsense=1;",
            r#"unknown syslog parameter "nonsense=1""#,
        ),
        (
            Http,
            "upstream_diag_log syslog:server=127.0.0.1:99999;",
            r#"invalid port in syslog server "127.0.0.1:99999""#,
        ),
        (
            Server,
            "upstream_diag_log syslog:server=127.0.0.1,severity=loud;",
            r#"unknown syslog severity "loud""#,
        ),
    ] {
        refused(place, directives, words, Some(3));
    }
}

/// Guards against a number with a sign, a unit or too many digits being taken for another one, and
/// against one of two that are given counting.
#[test]
fn bad_numbers_are_refused() {
    let counts = ["", "0", "-1", "+5", "x", "1k", "1.5", "0x10", "99999999999999999999999"];
    // A rate is a number of lines a second, and nothing else.
    let rates = [
        "",
        "5",
        "5r",
        "5r/m",
        "5/s",
        "r/s",
        "0r/s",
        "-1r/s",
        "+1r/s",
        "1.5r/s",
        "5R/S",
        "5kr/s",
        "5r/s5",
        "4294967296r/s",
    ];
    let rows = [("upstream_diag_zone 2m", "peers", "7"), ("upstream_diag_zone 2m", "events", "7")];
    let rows = rows.map(|(directive, name, good)| (directive, name, good, &counts[..]));
    let rate = ("upstream_diag_log a.log", "rate", "7r/s", &rates[..]);
    for (directive, name, good, values) in rows.into_iter().chain([rate]) {
        let directive_name = directive.split(' ').next().unwrap_or_default();
        let is_refused = |parameters: &str, wrong: &str| {
            let words = format!(r#"invalid parameter "{wrong}" in "{directive_name}" directive"#);
            refused(Http, &format!("{directive} {parameters};"), &words, Some(3));
        };
        for value in values {
            is_refused(&format!("{name}={value}"), &format!("{name}={value}"));
        }
        is_refused(name, name);
        let upper = format!("{}={good}", name.to_uppercase());
        is_refused(&upper, &upper);
        // The second one, also where it says the same.
        let given = format!("{name}={good}");
        is_refused(&format!("{given} {given}"), &given);
    }
}

/// Guards against a log whose rate nobody keeps an account of, and lets everything through.
#[test]
fn rates_are_limited_in_number() {
    let logs = |n| "upstream_diag_log a.log rate=1r/s;\n".repeat(n);
    accepted(Http, &logs(64));
    let words = r#"at most 64 "upstream_diag_log" directives can have the parameter "rate""#;
    refused(Http, &logs(65), words, Some(3 + 64));
}
