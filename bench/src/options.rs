//! What is asked for on the command line.

use t::Name;

use crate::scenario::{SCENARIOS, Scenario};
use crate::way::Way;

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Figure {
    /// Instructions, allocations and locks for a request.
    Instructions,
    /// System calls for a request.
    Syscalls,
    /// Requests in a second.
    Throughput,
    /// Memory under failures.
    Memory,
    /// The status location and the zone.
    Status,
    /// Starting and reloading.
    Start,
}

use Figure::{Instructions, Memory, Start, Status, Syscalls, Throughput};

const FIGURES: [(Figure, &str); 6] = [
    (Instructions, "instructions"),
    (Syscalls, "syscalls"),
    (Throughput, "throughput"),
    (Memory, "memory"),
    (Status, "status"),
    (Start, "start"),
];

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    /// Measure, and show tables. Everything is also written to bench/.
    Measure,
    /// Show where the instructions go.
    Profile,
    /// Make RESULTS.md again, from results.json and NOTES.md.
    Report,
}

/// All of it.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) command: Command,
    pub(crate) nginxes: Vec<Name>,
    figures: Vec<Figure>,
    scenarios: Vec<&'static str>,
    ways: Vec<Way>,
}

impl Options {
    /// From words: each says by itself what kind it is.
    pub(crate) fn parse(words: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut options = Self {
            command: Command::Measure,
            nginxes: Vec::new(),
            figures: Vec::new(),
            scenarios: Vec::new(),
            ways: Vec::new(),
        };
        for word in words {
            options.add(&word).ok_or_else(|| format!("{word:?}?\n\n{}", usage()))?;
        }
        if options.nginxes.is_empty() {
            let named = Name::choose(None, |key| std::env::var_os(key));
            options.nginxes.push(named.map_err(|e| e.to_string())?);
        }
        Ok(options)
    }

    fn add(&mut self, word: &str) -> Option<()> {
        match word {
            "profile" => self.command = Command::Profile,
            "report" => self.command = Command::Report,
            _ => {
                if let Some((figure, _)) = FIGURES.iter().find(|(_, name)| *name == word) {
                    self.figures.push(*figure);
                } else if let Some(scenario) = SCENARIOS.iter().find(|s| s.name == word) {
                    self.scenarios.push(scenario.name);
                } else if let Some(way) = Way::ALL.iter().find(|way| way.name() == word) {
                    self.ways.push(*way);
                } else {
                    self.nginxes.push(Name::choose(Some(word), |_| None).ok()?);
                }
            }
        }
        Some(())
    }

    /// Everything there is, with two nginxes: what is worth keeping.
    pub(crate) fn is_complete(&self) -> bool {
        self.command == Command::Measure
            && self.nginxes.len() > 1
            && self.figures.is_empty()
            && self.scenarios.is_empty()
            && self.ways.is_empty()
    }

    /// Is this to be measured? Who names only scenarios or ways wants the figure that is quick
    /// and sure.
    pub(crate) fn wants(&self, figure: Figure) -> bool {
        if self.figures.is_empty() && !(self.scenarios.is_empty() && self.ways.is_empty()) {
            return figure == Instructions;
        }
        self.figures.is_empty() || self.figures.contains(&figure)
    }

    /// The scenarios for an nginx.
    pub(crate) fn scenarios(&self, nginx: Name) -> impl Iterator<Item = &'static Scenario> {
        let chosen = move |s: &&Scenario| match self.scenarios.is_empty() {
            true => s.is_for(nginx),
            false => self.scenarios.contains(&s.name),
        };
        SCENARIOS.iter().filter(chosen)
    }

    /// The ways that can be had with an nginx.
    pub(crate) fn ways(&self, nginx: Name) -> Vec<Way> {
        let all = Way::of(nginx).iter().copied();
        all.filter(|way| self.ways.is_empty() || self.ways.contains(way)).collect()
    }
}

/// What can be said.
pub(crate) fn usage() -> String {
    let names = |names: Vec<&str>| names.join(" ");
    format!(
        "bench [profile | report] [WORD]...\n\n\
         Without a word everything is measured. Words choose a part:\n  \
         figures:   {}\n  scenarios: {}\n  ways:      {}\n  nginxes:   release debian custom\n\n\
         With scenarios or ways alone, instructions are counted. `profile` shows where they go;\n\
         `report` writes bench/RESULTS.md again, from bench/results.json and bench/NOTES.md.",
        names(FIGURES.iter().map(|(_, name)| *name).collect()),
        names(SCENARIOS.iter().map(|scenario| scenario.name).collect()),
        names(Way::ALL.iter().map(|way| way.name()).collect()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Options, String> {
        Options::parse(text.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn words_choose() {
        let all = parse("release debian").unwrap();
        assert!(all.is_complete() && all.wants(Memory));
        assert_eq!(all.scenarios(Name::Release).count(), SCENARIOS.len());
        assert!(all.scenarios(Name::Debian).count() < SCENARIOS.len());
        let some = parse("profile release refused module stock").unwrap();
        assert_eq!((some.command, some.is_complete()), (Command::Profile, false));
        assert!(some.wants(Instructions) && !some.wants(Throughput));
        assert_eq!(some.ways(Name::Release), [Way::Stock, Way::Module]);
        assert_eq!(some.scenarios(Name::Debian).map(|s| s.name).collect::<Vec<_>>(), ["refused"]);
        let figures = parse("release syscalls lua").unwrap();
        assert!(figures.wants(Syscalls) && !figures.wants(Instructions));
        assert!(figures.ways(Name::Release).is_empty());
        assert!(parse("release nonsense").unwrap_err().contains("nonsense"));
    }

    /// Guards against a word that means two things, of which the second is never chosen.
    #[test]
    fn words_differ() {
        let text = usage();
        let mut words: Vec<&str> = text
            .lines()
            .filter_map(|line| line.trim().split_once(": "))
            .flat_map(|(_, words)| words.split_whitespace())
            .collect();
        let count = words.len();
        assert!(count > 20, "{words:?}");
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), count);
    }
}
