//! Tables of what a request takes.

use std::fmt::Write as _;

use super::table::{Table, calls as number, more, whole};
use super::{distinct, title};
use crate::results::{Instructions, Results, Syscalls, Throughput, median};

const STOCK: &str = "stock";

/// Instructions by scenario and way, a table for each nginx.
pub(crate) fn instructions(results: &Results, nginxes: &[&str]) -> String {
    if results.instructions.is_empty() {
        return String::new();
    }
    let mut text = "## Instructions for a request\n\n\
        In user space, counted by callgrind in the worker: what N and 2N requests differ by, from \
        one client that keeps its connection. Other columns than `stock` say how many more. Work \
        that is done once a second is not in them.\n\n"
        .to_owned();
    for nginx in nginxes {
        let rows: Vec<&Instructions> =
            results.instructions.iter().filter(|row| row.nginx == *nginx).collect();
        let ways = distinct(rows.iter().map(|row| row.way.as_str()));
        let _ = writeln!(text, "nginx {}:\n", version(results, nginx));
        let titles: Vec<String> = ways.iter().map(|way| format!("`{way}`")).collect();
        let titles: Vec<&str> =
            std::iter::once("request").chain(titles.iter().map(String::as_str)).collect();
        let mut table = Table::new(&titles, 1);
        for scenario in distinct(rows.iter().map(|row| row.scenario.as_str())) {
            let of = |way: &str| rows.iter().find(|row| row.scenario == scenario && row.way == way);
            let stock = of(STOCK);
            let cell = |way: &&str| match (of(way), stock) {
                (Some(row), Some(stock)) if *way != STOCK => {
                    more(row.per_request - stock.per_request)
                }
                (Some(row), _) => whole(row.per_request),
                (None, _) => String::new(),
            };
            table.row(std::iter::once(title(scenario).to_owned()).chain(ways.iter().map(cell)));
        }
        text.push_str(&table.end());
    }
    text + &repeatability(&results.instructions)
}

/// How far apart two starts were that do not differ.
fn repeatability(rows: &[Instructions]) -> String {
    let apart = |row: &Instructions| match row.starts[..] {
        [a, b, ..] => (a - b).abs(),
        _ => 0.0,
    };
    let same = rows.iter().filter(|row| apart(row) < 0.5).count();
    let mut text = format!(
        "Every count was made again with nginx started anew: {same} of {} came out the same.",
        rows.len()
    );
    let worst = rows.iter().max_by(|a, b| apart(a).total_cmp(&apart(b)));
    if let Some(worst) = worst.filter(|row| apart(row) >= 0.5) {
        let _ = write!(
            text,
            " The largest difference is {} instructions in {}: {}, `{}`.",
            whole(apart(worst)),
            whole(worst.per_request),
            title(&worst.scenario),
            worst.way
        );
    }
    text + "\n\n"
}

/// Allocations, locks and system calls.
pub(crate) fn calls(results: &Results) -> String {
    if results.syscalls.is_empty() {
        return String::new();
    }
    let mut text = "## Allocations, locks and system calls for a request\n\n\
        Allocations are calls of malloc and its like, locks those of nginx's and of threads', both \
        counted by callgrind; system calls are counted by strace. In brackets those that stock \
        nginx does not make.\n\n"
        .to_owned();
    let mut table =
        Table::new(&["nginx", "request", "", "allocations", "locks", "system calls"], 3);
    for row in &results.syscalls {
        let same = |i: &&Instructions| {
            i.nginx == row.nginx && i.scenario == row.scenario && i.way == row.way
        };
        let counted = results.instructions.iter().find(same);
        let stock = results.syscalls.iter().find(|stock| {
            stock.nginx == row.nginx && stock.scenario == row.scenario && stock.way == STOCK
        });
        let cell =
            |of: fn(&Instructions) -> f64| counted.map_or_else(String::new, |i| number(of(i)));
        table.row([
            row.nginx.clone(),
            title(&row.scenario).to_owned(),
            format!("`{}`", row.way),
            cell(|i| i.allocations),
            cell(|i| i.locks),
            syscalls(row, stock),
        ]);
    }
    text.push_str(&table.end());
    text
}

fn syscalls(row: &Syscalls, stock: Option<&Syscalls>) -> String {
    let sum: f64 = row.per_request.values().sum();
    let others: Vec<String> = row
        .per_request
        .iter()
        .filter_map(|(name, calls)| {
            let before = stock?.per_request.get(name).copied().unwrap_or(0.0);
            (calls - before >= 0.005).then(|| format!("{name} {}", number(calls - before)))
        })
        .collect();
    match others.is_empty() {
        true => number(sum),
        false => format!("{} ({})", number(sum), others.join(", ")),
    }
}

/// Requests in a second.
pub(crate) fn throughput(results: &Results) -> String {
    if results.throughput.is_empty() {
        return String::new();
    }
    let mut text = "## Throughput\n\n\
        With wrk, 16 connections, on the same cores as nginx and its upstream. The ways took turns \
        of a second; a ratio is the median of those of each turn, with the smallest and the \
        largest.\n\n"
        .to_owned();
    let titles = ["nginx", "request", "", "requests/s", "to `stock`", "to `access_log`"];
    let mut table = Table::new(&titles, 3);
    for row in &results.throughput {
        let ratio = |way: &str| {
            let same = |other: &&Throughput| {
                other.nginx == row.nginx && other.scenario == row.scenario && other.way == way
            };
            let other = results.throughput.iter().find(same).filter(|_| row.way != way);
            other.map_or_else(String::new, |other| ratio(&row.runs, &other.runs))
        };
        table.row([
            row.nginx.clone(),
            title(&row.scenario).to_owned(),
            format!("`{}`", row.way),
            whole(median(row.runs.iter().copied())),
            ratio(STOCK),
            if row.way == STOCK { String::new() } else { ratio("access_log") },
        ]);
    }
    text.push_str(&table.end());
    text
}

fn ratio(runs: &[f64], others: &[f64]) -> String {
    let ratios: Vec<f64> = runs.iter().zip(others).map(|(run, other)| run / other).collect();
    let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
    let most = ratios.iter().copied().fold(0.0, f64::max);
    format!("{:.2} ({least:.2} – {most:.2})", median(ratios))
}

/// `1.28.3 (release)`, as the program says it.
fn version<'a>(results: &'a Results, nginx: &'a str) -> &'a str {
    let mark = format!("({nginx})");
    let programs = results.machine.programs.iter();
    let mut programs = programs.filter_map(|program| program.strip_prefix("nginx "));
    programs.find(|program| program.ends_with(&mark)).unwrap_or(nginx)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_pairs() {
        assert_eq!(ratio(&[10.0, 40.0, 9.0], &[20.0, 40.0, 10.0]), "0.90 (0.50 – 1.00)");
    }

    #[test]
    fn tells_which_calls_are_new() {
        let row = |calls: &[(&str, f64)]| Syscalls {
            nginx: String::new(),
            scenario: String::new(),
            way: String::new(),
            per_request: calls.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect(),
        };
        let stock = row(&[("recvfrom", 2.0), ("write", 1.0)]);
        let module = row(&[("recvfrom", 2.0), ("write", 2.0), ("getsockopt", 0.5)]);
        assert_eq!(syscalls(&module, Some(&stock)), "4.5 (getsockopt 0.5, write 1)");
        assert_eq!(syscalls(&stock, Some(&stock)), "3");
    }
}
