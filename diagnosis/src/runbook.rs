//! The runbook: what each cause means and what to do about it, as Markdown made from the table of
//! causes.

use crate::cause::{Cause, Phase};

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
