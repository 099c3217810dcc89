//! Where the instructions go.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use crate::callgrind::{dump_name, parse};
use crate::report::table::{calls, whole};
use crate::results::Instructions;

/// The object file of the module.
const MODULE: &str = "ngx_http_upstream_diag_module.so";

/// Lines of a table.
const LINES: usize = 45;

/// Tables of what costs most, per request.
pub(crate) fn print(counted: &Instructions, keep: &Path) {
    let path =
        keep.join(dump_name(&counted.nginx, &counted.scenario, &counted.way, 2 * counted.requests));
    let profile = parse(&fs::read_to_string(&path).expect("a dump"));
    let per = |n: u64| n as f64 / (2 * counted.requests) as f64;
    println!(
        "{}, {}, {}: {} instructions, {} allocations, {} locks a request; for \
         callgrind_annotate, kcachegrind: {}\n",
        counted.nginx,
        counted.scenario,
        counted.way,
        whole(counted.per_request),
        calls(counted.allocations),
        calls(counted.locks),
        path.canonicalize().unwrap_or(path).display(),
    );
    let named = |count: u64, name: &str| format!("{:>7} calls  {name}", calls(per(count)));
    let functions = profile.functions.iter();
    table("by object file", functions.clone().map(|(f, cost)| (f.object.clone(), cost.own)), per);
    let ours = functions.clone().filter(|(f, _)| f.object == MODULE);
    let inclusive = ours.map(|(f, cost)| (named(cost.calls, &f.name), cost.all));
    table("functions of the module, with all that they call", inclusive, per);
    let own = functions
        .map(|(f, cost)| (named(cost.calls, &format!("{}  {}", f.object, f.name)), cost.own));
    table("all functions, alone", own, per);
    let sources = profile.sources.iter().filter(|((f, _), _)| f.object == MODULE);
    let sources = sources.map(|((_, file), cost)| (file.clone(), *cost));
    table("the module's own code by source file, inlined or not", sources, per);
}

fn table(title: &str, rows: impl Iterator<Item = (String, u64)>, per: impl Fn(u64) -> f64) {
    let mut sums: HashMap<String, u64> = HashMap::new();
    for (name, cost) in rows {
        *sums.entry(name).or_default() += cost;
    }
    let mut rows: Vec<(String, u64)> = sums.into_iter().collect();
    rows.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    println!("{title}:");
    for (name, cost) in rows.iter().take(LINES).filter(|(_, cost)| *cost > 0) {
        println!("{:>10.1}  {name}", per(*cost));
    }
    println!();
}
