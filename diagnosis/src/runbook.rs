//! The runbook: what each cause means and what to do about it, and which of nginx's messages come
//! to which cause, as Markdown made from the tables.

use nix::errno::Errno;

use crate::cause::{Cause, Phase};
use crate::message::{self, SAMPLE_PEER};
use crate::peer::Capacity;
use crate::verdict::{Observation, Progress, classify};

/// Causes that this version never reports; their names are in the table because the set is closed.
/// What nginx says of such a failure comes out as `unknown`, or as nothing.
const RESERVED: &[Cause] = &[Cause::CachedError, Cause::LocalReturn];

const INTRO: &str = "\
# Causes

Why an upstream failed, as `$upstream_diag_cause`, the JSON log and the status location name it.
The set is closed and the names are stable. Each cause maps to one error type of
[RFC 9209](https://www.rfc-editor.org/rfc/rfc9209#section-2.3), given as `proxy_error`.

The phase is how far the attempt had come. Most causes have one; `connection_reset`, for one, can
come in several, and then the usual one is given here.

Names marked *reserved* are not reported yet: those of errors that come from the cache or the
configuration. Until they are, such an error is not diagnosed.

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

/// The list of messages.
pub fn messages() -> String {
    let errnos = ERRNOS.map(|errno| errno as i32);
    let mut page = MESSAGES.to_owned();
    for listed in message::listed(&errnos) {
        let mut causes = Vec::new();
        for sample in &listed.samples {
            for seen in situations(sample) {
                let verdict = classify(&seen).verdict;
                causes.extend(verdict.map(|verdict| verdict.cause));
            }
        }
        causes.sort_unstable();
        causes.dedup();
        let links: Vec<String> =
            causes.iter().map(|cause| format!("[`{0}`](causes.md#{0})", cause.slug())).collect();
        page.push_str(&format!("| `{}` | {} |\n", listed.begins, links.join(", ")));
    }
    page.push_str(
        "\n<!-- Made from diagnosis/src/message.rs by `make docs`: change it there. -->\n",
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
    let mark = if RESERVED.contains(&cause) { " *reserved*" } else { "" };
    format!("[`{slug}`](#{slug}){mark}")
}

fn section(page: &mut String, cause: Cause) {
    let fixed = cause.row();
    let mark = if RESERVED.contains(&cause) { ", *reserved: not reported yet*" } else { "" };
    let meaning = sentence(&fixed.meaning.replace("{peer}", "the upstream"));
    page.push_str(&format!("## {}\n\n", fixed.slug));
    page.push_str(&format!(
        "Phase: {}, error type: `{}`{mark}\n\n",
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

    /// Guards against a cause that is reported and still called reserved.
    #[test]
    fn what_is_reserved_is_not_reported() {
        let code = include_str!("verdict.rs").split("#[cfg(test)]").next().unwrap();
        for cause in RESERVED {
            // What a close in the TLS handshake would be; no message comes to it yet.
            let reported =
                *cause != Cause::TlsClosed && code.contains(&format!("Cause::{cause:?}"));
            assert!(!reported, "{} is reported: take it out of RESERVED", cause.slug());
        }
    }
}
