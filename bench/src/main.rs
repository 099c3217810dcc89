//! What the module costs: see `make bench`.

#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a tool: a broken assumption should stop it at once"
)]

mod callgrind;
mod profile;
mod scenario;
mod site;
mod way;

use t::Name;

fn main() {
    let mut names: Vec<String> = std::env::args().skip(1).collect();
    let nginx = Name::choose(None, |key| std::env::var_os(key)).unwrap_or_else(|e| panic!("{e}"));
    let plan = callgrind::Plan { requests: 200, rounds: 4 };
    let out = std::path::PathBuf::from("target/bench");
    std::fs::create_dir_all(&out).unwrap();
    let profiling = names.first().is_some_and(|n| n == "profile");
    if profiling {
        names.remove(0);
    }
    let upstreams = site::Upstreams::start(nginx);
    let chosen = |name: &str, of: &[&str]| {
        let named: Vec<_> = names.iter().filter(|n| of.contains(&n.as_str())).collect();
        named.is_empty() || named.iter().any(|n| *n == name)
    };
    let all_scenarios: Vec<_> = scenario::SCENARIOS.iter().map(|s| s.name).collect();
    let all_ways: Vec<_> = way::Way::ALL.iter().map(|w| w.name()).collect();
    for scenario in scenario::SCENARIOS.iter().filter(|s| chosen(s.name, &all_scenarios)) {
        let mut stock = None;
        for &way in way::ways(nginx).iter().filter(|w| chosen(w.name(), &all_ways)) {
            let conf = site::conf(nginx, scenario, way, &upstreams);
            let mut cg = callgrind::Callgrind::start(conf, way.file());
            let keep = out.join(format!("{}.{}.callgrind", scenario.name, way.name()));
            let count = callgrind::count(&mut cg, scenario, plan, &keep);
            let base = *stock.get_or_insert(count.per_request);
            println!(
                "{:10} {:10} {:9.1} {:+9.1}  rounds {:?} allocations {}",
                scenario.name,
                way.name(),
                count.per_request,
                count.per_request - base,
                count.rounds,
                (count.profiles[1].calls(callgrind::ALLOCATORS) as f64
                    - count.profiles[0].calls(callgrind::ALLOCATORS) as f64)
                    / plan.requests as f64,
            );
            if profiling {
                profile::print(&count.profiles[1], 2 * plan.requests, 40);
            }
        }
    }
}
