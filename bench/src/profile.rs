//! Where the instructions go.

use crate::callgrind::{Function, Profile};

/// The object file of the module.
const MODULE: &str = "ngx_http_upstream_diag_module.so";

/// Tables of the functions that cost most, per request.
pub(crate) fn print(profile: &Profile, requests: usize, lines: usize) {
    let per = |n: u64| n as f64 / requests as f64;
    println!("{:.0} instructions a request\n", per(profile.total));
    let mut objects: Vec<(String, u64)> = Vec::new();
    for (function, cost) in &profile.functions {
        match objects.iter_mut().find(|(object, _)| *object == function.object) {
            Some((_, own)) => *own += cost.own,
            None => objects.push((function.object.clone(), cost.own)),
        }
    }
    table("by object file", objects, lines, per);

    let all = |f: &&Function| f.object == MODULE;
    let inclusive = profile.functions.iter().filter(|(f, _)| all(f));
    let inclusive = inclusive
        .map(|(f, cost)| (format!("{:>7.2} calls  {}", per(cost.calls), f.name), cost.all));
    table("functions of the module, with what they call", inclusive.collect(), lines, per);

    let own = profile.functions.iter();
    let own = own.map(|(f, cost)| {
        (format!("{:>7.2} calls  {}  {}", per(cost.calls), f.object, f.name), cost.own)
    });
    table("all functions, alone", own.collect(), lines, per);

    let mut files: Vec<(String, u64)> = Vec::new();
    for ((function, file), cost) in &profile.sources {
        if function.object != MODULE {
            continue;
        }
        match files.iter_mut().find(|(name, _)| name == file) {
            Some((_, own)) => *own += cost,
            None => files.push((file.clone(), *cost)),
        }
    }
    table("source files of the module's code", files, lines, per);
}

fn table(title: &str, mut rows: Vec<(String, u64)>, lines: usize, per: impl Fn(u64) -> f64) {
    rows.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    println!("{title}:");
    for (name, cost) in rows.iter().take(lines).filter(|(_, cost)| *cost > 0) {
        println!("{:>10.1}  {name}", per(*cost));
    }
    println!();
}
