//! What is printed: at most 100 columns, plain ASCII.

use std::env;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use serde_json::Value;
use t::{Nginx, Response};

use super::cases::{Case, NGINX_SAYS};
use super::{Counted, Shown, evidence};

const WIDTH: usize = 100;
/// Where the text behind a label starts.
const INDENT: usize = 12;

/// A colour, by its number in ECMA-48.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ink {
    Plain,
    Bold,
    Dim,
    Red,
    Green,
    Yellow,
}

/// Standard output.
pub(crate) struct Page {
    colour: bool,
    site: String,
}

impl Page {
    pub(crate) fn new(port: u16) -> Self {
        let set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = env::var_os("TERM").is_none_or(|term| term == "dumb");
        let colour = io::stdout().is_terminal() && !set("NO_COLOR") && !dumb;
        Self { colour, site: format!("http://127.0.0.1:{port}") }
    }

    /// Prints a line. That nobody reads it any more is no reason to leave
    /// nginx behind.
    pub(crate) fn say(&mut self, line: &str) {
        let _ = writeln!(io::stdout(), "{line}");
    }

    /// Who is asked.
    pub(crate) fn header(&mut self, status: &Result<Response, String>, cases: usize) {
        let server = match status {
            Ok(response) => response.header("server").unwrap_or_default().to_owned(),
            Err(e) => e.clone(),
        };
        let title = format!("{server} at {} with ngx_http_upstream_diag_module", self.site);
        self.say(&self.ink(Ink::Bold, &title));
        self.say(&format!(
            "{cases} upstreams, all but one of them broken. For each: what nginx's own variables say in the\n\
             access log, then what the module adds. The reason is in the lines of the module only."
        ));
    }

    /// One case.
    pub(crate) fn case(
        &mut self,
        number: usize,
        case: &Case,
        shown: &Shown,
        differences: &[String],
    ) {
        let title = format!("-- {number}. {} ", case.title);
        self.say("");
        self.say(&self.ink(Ink::Bold, &format!("{title:-<WIDTH$}")));
        let before = if case.before.is_some() { " after a GET" } else { "" };
        let (ink, got) = match &shown.response {
            Some(response) => client(response),
            None => (Ink::Red, "no answer".to_owned()),
        };
        let request = format!("{} /{}{before} -> {got}", case.method, case.name);
        self.field("request", ink, &request);
        let directives: Vec<_> = case.location.split("; ").map(unbroken).collect();
        self.field("location", Ink::Plain, &directives.join("; "));
        if let Some(group) = &case.group {
            self.field("", Ink::Plain, group);
        }
        let mut says = Vec::new();
        for name in NGINX_SAYS {
            let value = shown.nginx.get(name).and_then(Value::as_str).unwrap_or_default();
            says.push(unbroken(&format!("${name}={value}")));
        }
        self.field("nginx", Ink::Dim, &says.join(" "));
        match &shown.module {
            Some(record) => self.verdict(record),
            None => self.field("module", Ink::Dim, "nothing: there is nothing to explain"),
        }
        for difference in differences {
            self.field("UNEXPECTED", Ink::Red, difference);
        }
    }

    fn verdict(&mut self, record: &Value) {
        let text = |key: &str| record.get(key).and_then(Value::as_str).unwrap_or("-");
        let outcome = text("outcome");
        let phase = match text("phase") {
            "-" => String::new(),
            phase => format!(" in phase {phase}"),
        };
        let verdict = format!("{}{phase}, outcome: {outcome}", text("cause"));
        self.field("module", outcome_ink(outcome), &verdict);
        self.field("", Ink::Bold, text("summary"));
        for (at, line) in evidence::lines(record).iter().enumerate() {
            self.field(if at == 0 { "evidence" } else { "" }, Ink::Plain, line);
        }
        self.field("advice", Ink::Plain, text("advice"));
    }

    /// All cases, a line each.
    pub(crate) fn overview(&mut self, seen: &[(&Case, Shown, Vec<String>)], status: &Counted) {
        self.say("");
        self.say(&self.ink(Ink::Bold, &format!("{:-<WIDTH$}", "-- In short ")));
        let head =
            format!("{:<22}{:<9}{:<12}{:<10}{}", "request", "status", "outcome", "phase", "cause");
        self.say(&self.ink(Ink::Dim, &head));
        for (case, shown, differences) in seen {
            let text = |key: &str| {
                let record = shown.module.as_ref();
                record.and_then(|r| r.get(key)).and_then(Value::as_str).unwrap_or("-")
            };
            let status = shown.response.as_ref().map_or(0, |response| response.status);
            let request = format!("{} /{}", case.method, case.name);
            let outcome =
                self.ink(outcome_ink(text("outcome")), &format!("{:<12}", text("outcome")));
            let mut line =
                format!("{request:<22}{status:<9}{outcome}{:<10}{}", text("phase"), text("cause"));
            if !differences.is_empty() {
                line.push_str(&self.ink(Ink::Red, "  UNEXPECTED"));
            }
            self.say(&line);
            for difference in differences {
                self.say(&self.ink(Ink::Red, &format!("    {difference}")));
            }
        }
        self.say("");
        match status {
            Ok(counts) => self.say(&format!("The status location counted {counts}.")),
            Err(difference) => self.say(&self.ink(Ink::Red, difference)),
        }
    }

    /// How it went, and what one can do now or could have done.
    pub(crate) fn end(&mut self, nginx: &Nginx, time: Duration, differences: usize) {
        let (ink, result) = match differences {
            0 => (Ink::Green, "All is as expected".to_owned()),
            1 => (Ink::Red, "1 difference from what was expected".to_owned()),
            n => (Ink::Red, format!("{n} differences from what was expected")),
        };
        self.say("");
        self.say(&self.ink(ink, &format!("{result}, in {:.1} s.", time.as_secs_f64())));
        self.say(match io::stdout().is_terminal() {
            true => "nginx stays until Ctrl-C, which also removes its files:",
            false => {
                "nginx ends now and its files are removed. On a terminal it stays, to be asked:"
            }
        });
        let pretty = pretty();
        let file = |name| nginx.path(name).display().to_string();
        let log = format!("tail -n 1 {}{pretty}", file("upstream_diag.json"));
        self.field("JSON log", Ink::Plain, &log);
        self.field("status", Ink::Plain, &format!("curl -s {}/upstream_diag{pretty}", self.site));
        self.field("requests", Ink::Plain, &format!("curl -i {}/refused", self.site));
        self.field("", Ink::Plain, &format!("curl {}/ lists the others", self.site));
        self.field("settings", Ink::Plain, &format!("less {}", file("nginx.conf")));
    }

    /// A label and a text, wrapped behind the label.
    fn field(&mut self, label: &str, ink: Ink, text: &str) {
        let mut label = self.ink(Ink::Dim, &format!("{label:<INDENT$}"));
        for line in wrap(text, WIDTH - INDENT) {
            self.say(&format!("{label}{}", self.ink(ink, &line)));
            label = " ".repeat(INDENT);
        }
    }

    fn ink(&self, ink: Ink, text: &str) -> String {
        let code = match ink {
            Ink::Plain => return text.to_owned(),
            _ if !self.colour => return text.to_owned(),
            Ink::Bold => "1",
            Ink::Dim => "2",
            Ink::Red => "31",
            Ink::Green => "32",
            Ink::Yellow => "33",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

fn client(response: &Response) -> (Ink, String) {
    let mut text = response.status.to_string();
    if response.truncated {
        let length = response.header("content-length").unwrap_or("?");
        text.push_str(&format!(", {} of {length} bytes of body", response.body.len()));
        return (Ink::Red, text);
    }
    (if response.status < 500 { Ink::Green } else { Ink::Red }, text)
}

fn outcome_ink(outcome: &str) -> Ink {
    match outcome {
        "failed" | "truncated" => Ink::Red,
        "-" => Ink::Plain,
        _ => Ink::Yellow,
    }
}

/// Text that [`wrap`] does not break.
fn unbroken(text: &str) -> String {
    text.replace(' ', "\u{a0}")
}

/// Breaks at spaces. A word that is longer than a line stays whole: it is a
/// path or an address, to be copied.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().expect("one line at least");
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
            lines.push(word.to_owned());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines.iter().map(|line| line.replace('\u{a0}', " ")).collect()
}

/// What makes JSON readable here.
fn pretty() -> &'static str {
    let path = env::var_os("PATH").unwrap_or_default();
    let has = |name| env::split_paths(&path).any(|dir| dir.join(name).is_file());
    if has("jq") {
        " | jq ."
    } else if has("python3") {
        " | python3 -m json.tool"
    } else {
        ""
    }
}
