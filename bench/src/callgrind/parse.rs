//! The files that callgrind writes: how often each function was entered, and what it cost.

use std::collections::HashMap;

/// What happened between two dumps.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Profile {
    /// Instructions in all.
    pub(crate) total: u64,
    /// By function and the object file it is in.
    pub(crate) functions: HashMap<Function, Cost>,
    /// Instructions by function and the source file they come from, which for inlined code is
    /// another than the function's.
    pub(crate) sources: HashMap<(Function, String), u64>,
}

/// A function; without symbols an address.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Function {
    /// File name of the program or library.
    pub(crate) object: String,
    /// As in the symbol table.
    pub(crate) name: String,
}

/// Of one function.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cost {
    /// Calls of it.
    pub(crate) calls: u64,
    /// Instructions of its own.
    pub(crate) own: u64,
    /// These and those of what it called.
    pub(crate) all: u64,
}

impl Profile {
    /// Calls of every function with one of these names.
    pub(crate) fn calls(&self, names: &[&str]) -> u64 {
        let of = |f: &Function| names.contains(&f.name.as_str());
        self.functions.iter().filter(|(f, _)| of(f)).map(|(_, cost)| cost.calls).sum()
    }
}

/// Names are given once with a number, and by the number alone from then on.
#[derive(Default)]
struct Names(HashMap<String, String>);

impl Names {
    fn get(&mut self, text: &str) -> String {
        let Some((number, name)) = text.split_once(')') else { return text.to_owned() };
        match name.trim() {
            "" => self.0.get(number).cloned().unwrap_or_default(),
            name => {
                self.0.insert(number.to_owned(), name.to_owned());
                name.to_owned()
            }
        }
    }
}

/// Instructions in all.
pub(crate) fn total(text: &str) -> u64 {
    let totals = text.lines().rev().find_map(|line| line.strip_prefix("totals: "));
    totals.and_then(|total| total.trim().parse().ok()).unwrap_or_default()
}

/// Reads one dump.
///
/// The format is that of callgrind's manual; what is not needed here is passed over.
pub(crate) fn parse(text: &str) -> Profile {
    let mut profile = Profile { total: total(text), ..Profile::default() };
    let (mut files, mut objects, mut functions) =
        (Names::default(), Names::default(), Names::default());
    let (mut object, mut called_object) = (String::new(), None);
    let mut current = Function { object: String::new(), name: String::new() };
    let (mut source, mut callee) = (String::new(), None);
    let mut call = false;
    for line in text.lines() {
        let (key, value) = line.split_once('=').unwrap_or((line, ""));
        match key {
            "ob" => object = short(&objects.get(value)),
            "cob" => called_object = Some(short(&objects.get(value))),
            "fl" | "fi" | "fe" => source = files.get(value),
            "cfi" | "cfl" => drop(files.get(value)),
            "fn" => current = Function { object: object.clone(), name: functions.get(value) },
            "cfn" => {
                let object = called_object.take().unwrap_or_else(|| object.clone());
                callee = Some(Function { object, name: functions.get(value) });
            }
            "calls" => {
                let calls = value.split(' ').next().and_then(|n| n.parse().ok());
                let callee = callee.take().unwrap_or_else(|| current.clone());
                profile.functions.entry(callee).or_default().calls += calls.unwrap_or(0);
                call = true;
            }
            _ => {
                let Some(cost) = cost(line) else { continue };
                let entry = profile.functions.entry(current.clone()).or_default();
                entry.all += cost;
                if !std::mem::take(&mut call) {
                    entry.own += cost;
                    *profile.sources.entry((current.clone(), source.clone())).or_default() += cost;
                }
            }
        }
    }
    profile
}

/// `16 400` or `+3 400`: a line of the source, and the instructions.
fn cost(line: &str) -> Option<u64> {
    let (place, cost) = line.split_once(' ')?;
    let is_place = |c: char| c.is_ascii_digit() || "+-*".contains(c);
    (!place.is_empty() && place.chars().all(is_place)).then(|| cost.trim().parse().ok())?
}

fn short(path: &str) -> String {
    path.rsplit('/').next().unwrap_or(path).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards against costs of calls taken for a function's own, and names lost to compression.
    #[test]
    fn reads_a_dump() {
        let text = "version: 1\npositions: line\nevents: Ir\nsummary: 0\n\n\
                    ob=(1) /usr/sbin/nginx\nfl=(1) core.c\nfn=(1) main\n16 400\n\
                    cob=(2) /lib/libc.so.6\ncfi=(2) malloc.c\ncfn=(2) malloc\ncalls=2 50\n16 90\n\
                    fi=(3) inlined.h\n+3 20\nfe=(1)\n* 1\n\n\
                    ob=(2)\nfl=(2)\nfn=(2)\n50 60\ncfn=(3) sbrk\ncalls=1 0\n+1 30\n\n\
                    fn=(3)\n60 30\n\ntotals: 511\n";
        let profile = parse(text);
        assert_eq!(profile.total, 511);
        let of = |object: &str, name: &str| {
            let function = Function { object: object.to_owned(), name: name.to_owned() };
            profile.functions[&function]
        };
        assert_eq!(of("nginx", "main"), Cost { calls: 0, own: 421, all: 511 });
        assert_eq!(of("libc.so.6", "malloc"), Cost { calls: 2, own: 60, all: 90 });
        assert_eq!(of("libc.so.6", "sbrk"), Cost { calls: 1, own: 30, all: 30 });
        assert_eq!(profile.calls(&["malloc", "calloc"]), 2);
        let main = Function { object: "nginx".to_owned(), name: "main".to_owned() };
        assert_eq!(profile.sources[&(main.clone(), "core.c".to_owned())], 401);
        assert_eq!(profile.sources[&(main, "inlined.h".to_owned())], 20);
    }
}
