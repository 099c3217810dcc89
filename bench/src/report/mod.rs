//! The results as a page.

mod others;
mod requests;
pub(crate) mod table;

use std::fmt::Write as _;

use crate::results::Results;
use crate::scenario::SCENARIOS;

/// The page, with hand-written notes at its end.
pub(crate) fn page(results: &Results, notes: &str) -> String {
    let machine = &results.machine;
    let mut page = format!(
        "# What the module costs\n\n\
         Made by `make bench`, which measures nginx without the module and with it in one run, and \
         next to them what people use today for the same end. The figures are also in \
         [results.json](results.json), to be compared over time.\n\n\
         {}, {} cores, {}, {}; {}{}. {}.\n\n",
        machine.cpu,
        machine.cores,
        machine.system,
        machine.kernel,
        machine.programs.join(", "),
        machine.commit.as_ref().map_or_else(String::new, |commit| format!("; module at {commit}")),
        machine.date,
    );
    page.push_str(&tables(results));
    let _ = write!(page, "{}", notes.trim_start());
    page
}

/// The tables of what was measured.
pub(crate) fn tables(results: &Results) -> String {
    let mut nginxes: Vec<&str> = results.instructions.iter().map(|i| i.nginx.as_str()).collect();
    nginxes.dedup();
    [
        requests::instructions(results, &nginxes),
        requests::calls(results),
        requests::throughput(results),
        others::memory(results),
        others::status(results),
        others::starts(results),
    ]
    .concat()
}

/// What a scenario is called in tables.
fn title(name: &str) -> &str {
    SCENARIOS.iter().find(|s| s.name == name).map_or(name, |scenario| scenario.title)
}

/// The names in the order in which they come first.
fn distinct<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut found = Vec::new();
    for name in names {
        if !found.contains(&name) {
            found.push(name);
        }
    }
    found
}
