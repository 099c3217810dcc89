//! The documents made from the tables. The runbook: what each cause means and what to do about it,
//! and which of nginx's messages come to which cause. The list of findings, with what they rest on.
//! The list of metrics. The schemas.

use nix::errno::Errno;

use crate::cause::{Cause, Phase};
use crate::exposition;
use crate::message::{self, SAMPLE_PEER};
use crate::peer::Capacity;
use crate::schema;
use crate::verdict::{Observation, Progress, classify};

const INTRO: &str = "\
# Causes

Why an upstream failed, as `$upstream_diag_cause`, the JSON log and the status location name it.
The set is closed and the names are stable. Each cause maps to one error type of
[RFC 9209](https://www.rfc-editor.org/rfc/rfc9209#section-2.3), given as `proxy_error`.

The phase is how far the attempt had come. Most causes have one; `connection_reset`, for one, can
come in several, and then the usual one is given here.

";

const END: &str = "\
<!-- Made from diagnosis/src/cause.rs by `make docs`: change it there. -->
";

const MESSAGES: &str = "\
# nginx's messages

What nginx logs at level error or above about an upstream request, as far as the module knows it,
and the causes each message can come to. Which one it is depends on how far the attempt had come,
whether the connection was reused, what was received, and the errno where the message has one; the
table is made by asking the code for all of that.

- A message that is not here gives `unknown` with the message kept, if the attempt failed; if it did
  not, nothing.
- A failure of the resolver is told by its result, not by the message, which begins with a name that
  a client may have chosen: `dns_not_found`, `dns_timed_out`, `dns_failure`.
- `FastCGI sent in stderr: …` is logged for healthy responses too. It makes no failure; the text is
  kept beside one as `stderr`.
- An upstream's own 502, 503 or 504 is not logged: `upstream_response` is told by the status.

| message | causes |
| --- | --- |
";

/// The errnos that make a difference, and one that does not.
const ERRNOS: [Errno; 17] = [
    Errno::ECONNREFUSED,
    Errno::ETIMEDOUT,
    Errno::ENETUNREACH,
    Errno::EHOSTUNREACH,
    Errno::EACCES,
    Errno::EPERM,
    Errno::ENOENT,
    Errno::EAGAIN,
    Errno::EADDRNOTAVAIL,
    Errno::ECONNRESET,
    Errno::EPIPE,
    Errno::EMFILE,
    Errno::ENFILE,
    Errno::EAFNOSUPPORT,
    Errno::ENOMEM,
    Errno::EADDRINUSE,
    Errno::EINVAL,
];

const METRICS: &str = "\
# Metrics

What the status location gives with `upstream_diag_status prometheus`, with `?format=prometheus`, or
to a client that asks for it, as Prometheus does: the text format 0.0.4, or OpenMetrics 1.0.0 where
the client accepts `application/openmetrics-text`. Both have the same samples. OpenMetrics tells the
unit too, leaves `_total` and `_info` out of the name in `# TYPE`, and has a type for information;
in 0.0.4 that is a gauge.

- Counters live in shared memory: all workers count together, a reload keeps them, a restart of
  nginx does not.
- Attempts on peers for which there is no room in that memory are counted under the peer `other`.
- `upstream` is the name of the group, or the address where there is no group.
- In names, control characters are replaced by U+FFFD; what has the same name after that is added
  up.

| metric | type | labels | meaning |
| --- | --- | --- | --- |
";

/// Every document, by the name of its file.
pub fn documents() -> [(&'static str, String); 6] {
    [
        ("causes.md", causes()),
        ("findings.md", crate::findings::page()),
        ("messages.md", messages()),
        ("metrics.md", metrics()),
        ("record.schema.json", schema::record()),
        ("status.schema.json", schema::status()),
    ]
}

/// The list of metrics.
pub fn metrics() -> String {
    let mut page = METRICS.to_owned();
    for metric in exposition::metrics() {
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        page.push_str(&format!(
            "| `{}` | {} | {} | {} |\n",
            metric.name,
            metric.kind.slug(),
            labels.join(", "),
            metric.help
        ));
    }
    page.push_str(
        "\n<!-- Made from diagnosis/src/exposition.rs by `make docs`: change it there. -->\n",
    );
    page
}

/// The list of messages.
pub fn messages() -> String {
    let errnos = ERRNOS.map(|errno| errno as i32);
    let mut page = MESSAGES.to_owned();
    for listed in message::listed(&errnos) {
        let mut causes = Vec::new();
        for sample in &listed.samples {
            for seen in situations(sample) {
                let failure = classify(&seen);
                let decided = failure.verdict.map(|verdict| verdict.cause);
                causes.extend(decided.or(failure.kind.map(|_| failure.if_failed())));
            }
        }
        causes.sort_unstable();
        causes.dedup();
        let links: Vec<String> =
            causes.iter().map(|cause| format!("[`{0}`](causes.md#{0})", cause.slug())).collect();
        page.push_str(&format!("| `{}` | {} |\n", listed.begins, links.join(", ")));
    }
    page.push_str(
        "\n<!-- Made from diagnosis/src/message/known.rs by `make docs`: change it there. -->\n",
    );
    page
}

/// The situations that a message can come in, as far as they make a difference.
fn situations(message: &str) -> Vec<Observation<'_>> {
    let at = |tls_handshake, request_sent, request_body_sent, header_done| Progress {
        tls_handshake,
        request_sent,
        request_body_sent,
        header_done,
    };
    let phases = [
        at(false, false, false, false),
        at(true, false, false, false),
        at(false, true, false, false),
        at(false, true, true, false),
        at(false, true, true, true),
    ];
    let mut situations = Vec::new();
    for progress in phases {
        for (reused, received) in [(false, 0), (false, 1), (true, 0)] {
            for odd in [false, true] {
                situations.push(Observation {
                    message: message.as_bytes(),
                    peer: Some(SAMPLE_PEER.as_bytes()),
                    unix: odd,
                    no_source_address: odd,
                    tls_failed: true,
                    reset: odd,
                    first_bytes: if odd { b"SSH-" } else { b"" },
                    capacity: Some(if odd { Capacity::Full } else { Capacity::None }),
                    progress,
                    reused,
                    received,
                    ..Observation::default()
                });
            }
        }
    }
    situations
}

/// The runbook.
pub fn causes() -> String {
    let mut page = INTRO.to_owned();
    index(&mut page);
    for cause in Cause::ALL {
        section(&mut page, *cause);
    }
    page.push_str(END);
    page
}

/// The causes of each phase, as links.
fn index(page: &mut String) {
    page.push_str("| phase | causes |\n| --- | --- |\n");
    let mut phases: Vec<Option<Phase>> = Cause::ALL.iter().map(|cause| cause.row().phase).collect();
    phases.dedup();
    for phase in phases {
        let of_phase = Cause::ALL.iter().filter(|cause| cause.row().phase == phase);
        let links: Vec<String> = of_phase.map(|cause| link(*cause)).collect();
        page.push_str(&format!("| {} | {} |\n", name(phase), links.join(", ")));
    }
    page.push('\n');
}

fn link(cause: Cause) -> String {
    let slug = cause.slug();
    format!("[`{slug}`](#{slug})")
}

fn section(page: &mut String, cause: Cause) {
    let fixed = cause.row();
    let meaning = sentence(&fixed.meaning.replace("{peer}", "the upstream"));
    page.push_str(&format!("## {}\n\n", fixed.slug));
    page.push_str(&format!(
        "Phase: {}, error type: `{}`\n\n",
        name(fixed.phase),
        fixed.proxy_error
    ));
    page.push_str(&format!("{meaning}\n\n**What to do:** {}\n\n", fixed.advice));
}

fn name(phase: Option<Phase>) -> &'static str {
    phase.map_or("none", Phase::slug)
}

/// A clause as a sentence; "nginx" keeps its small letter.
fn sentence(clause: &str) -> String {
    let mut sentence = format!("{clause}.");
    if let Some(first) = sentence.get_mut(..1).filter(|_| !clause.starts_with("nginx")) {
        first.make_ascii_uppercase();
    }
    sentence
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards against a cause without a place to look it up, and against one that is listed
    /// under two phases because the table is not sorted by them.
    #[test]
    fn every_cause_has_one_section_and_one_link() {
        let page = causes();
        for cause in Cause::ALL {
            let slug = cause.slug();
            assert_eq!(page.matches(&format!("\n## {slug}\n")).count(), 1, "{slug}");
            assert_eq!(page.matches(&format!("(#{slug})")).count(), 1, "{slug}");
        }
        assert!(!page.contains('{'), "a placeholder is left");
    }

    /// Guards against a message that the table has and a longer one before it hides, or that comes
    /// to no cause at all.
    #[test]
    fn every_message_is_recognised() {
        for listed in message::listed(&[Errno::ECONNRESET as i32]) {
            for sample in &listed.samples {
                let peer = Some(SAMPLE_PEER.as_bytes());
                assert!(message::recognise(sample.as_bytes(), peer).is_some(), "{sample}");
            }
        }
        assert!(!messages().contains("` |  |"), "a message without a cause");
    }
}
