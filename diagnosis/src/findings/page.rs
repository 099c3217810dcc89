//! The documentation of the findings.

use super::{Code, Key, Kind};

const INTRO: &str = "\
# Findings

What is concluded from the history of a peer, from the host and from nginx's configuration, in
`findings` of the JSON object, the strongest first. A cause is what was observed; a finding says
what it means, and how sure that is:

- `certain`: the evidence leaves no other reading.
- `likely`: right in at least nineteen of twenty cases. `possible`: worth a look. How often they are
  right is tested with ten thousand random histories of backends whose truth is known.

A finding that lacks its evidence is not given. The strongest one that tells more than the cause
does also writes `advice`. `text` is for people and may change; `code`, `confidence` and the keys of
`evidence` are stable.

History begins when the shared memory is made: with the start of nginx, or with another size of
`upstream_diag_zone`. It is kept through reloads. It is what nginx's own requests saw: what happens
between two of them is not known.

";

const END: &str = "\
<!-- Made from diagnosis/src/findings by `make docs`: change it there. -->
";

/// The list of findings.
pub fn page() -> String {
    let mut page = INTRO.to_owned();
    page.push_str("| finding | meaning |\n| --- | --- |\n");
    for code in Code::ALL {
        let row = code.row();
        page.push_str(&format!("| [`{0}`](#{0}) | {1} |\n", row.slug, row.meaning));
    }
    page.push('\n');
    for code in Code::ALL {
        section(&mut page, *code);
    }
    page.push_str(END);
    page
}

fn section(page: &mut String, code: Code) {
    let row = code.row();
    page.push_str(&format!("## {}\n\n{}.\n\n", row.slug, capitalised(row.meaning)));
    page.push_str(&format!("**When:** {}\n\n", row.rule));
    page.push_str(&format!("**What it cannot know:** {}\n\n", row.limits));
    page.push_str("| evidence | |\n| --- | --- |\n");
    for key in row.evidence {
        page.push_str(&format!("| `{}` | {}{} |\n", key.slug(), key.meaning(), unit(*key)));
    }
    page.push('\n');
}

fn unit(key: Key) -> &'static str {
    match key.kind() {
        Kind::Time => ", seconds",
        Kind::Count | Kind::Text | Kind::Texts | Kind::Flag => "",
    }
}

/// A clause as the begin of a sentence; "nginx" keeps its small letter.
fn capitalised(clause: &str) -> String {
    let mut sentence = clause.to_owned();
    if let Some(first) = sentence.get_mut(..1).filter(|_| !clause.starts_with("nginx")) {
        first.make_ascii_uppercase();
    }
    sentence
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards against a finding without a place to look it up, and a key that no finding has.
    #[test]
    fn everything_is_explained() {
        let page = page();
        for code in Code::ALL {
            assert_eq!(page.matches(&format!("\n## {}\n", code.slug())).count(), 1);
        }
        for key in Key::ALL {
            assert!(page.contains(&format!("\n| `{}` | ", key.slug())), "{key:?}");
        }
    }
}
