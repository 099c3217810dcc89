//! What the module costs: nginx without it and with it, in one run. `make bench` is the way to
//! start it, and `--help` says what can be asked.

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
mod endpoint;
mod load;
mod machine;
mod options;
mod profile;
mod report;
mod results;
mod scenario;
mod site;
mod start;
mod syscalls;
mod way;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use machine::Machine;
use options::{Command, Figure, Options};
use results::Results;
use scenario::{MANY_LOCATIONS, SCENARIOS};
use site::Upstreams;
use way::Way;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.iter().any(|word| word == "-h" || word == "--help") {
        println!("{}", options::usage());
        return ExitCode::SUCCESS;
    }
    let options = match Options::parse(words) {
        Ok(options) => options,
        Err(why) => {
            eprintln!("bench: {why}");
            return ExitCode::FAILURE;
        }
    };
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    match options.command {
        Command::Report => {
            let text = fs::read_to_string(here.join("results.json")).expect("results.json");
            write_page(here, &serde_json::from_str(&text).expect("results.json is ours"));
        }
        Command::Profile => profile(&options, &dumps(here)),
        Command::Measure => {
            let results = measure(&options, &dumps(here));
            if options.is_complete() {
                let text = serde_json::to_string_pretty(&results).expect("numbers and names");
                fs::write(here.join("results.json"), text + "\n").expect("results.json");
                write_page(here, &results);
            } else {
                println!("{}", report::tables(&results));
            }
        }
    }
    ExitCode::SUCCESS
}

/// The scenario that is measured in every way: a failure as they are most often.
const MAIN: &str = "refused";

/// Where callgrind's files are kept.
fn dumps(here: &Path) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").filter(|dir| !dir.is_empty());
    let target = target.map_or_else(|| PathBuf::from("target"), PathBuf::from);
    let dir = here.join("..").join(target).join("bench");
    fs::create_dir_all(&dir).expect("a directory in target");
    dir
}

fn write_page(here: &Path, results: &Results) {
    let notes = fs::read_to_string(here.join("NOTES.md")).expect("NOTES.md");
    fs::write(here.join("RESULTS.md"), report::page(results, &notes)).expect("RESULTS.md");
    eprintln!("bench/RESULTS.md is written");
}

fn measure(options: &Options, keep: &Path) -> Results {
    let begin = Instant::now();
    let say = |what: &str| eprintln!("{:>4} s  {what}", begin.elapsed().as_secs());
    let mut results = Results {
        v: results::VERSION,
        machine: Machine::look(&options.nginxes),
        ..Results::default()
    };
    let wants = |figure| options.wants(figure);
    for &nginx in &options.nginxes {
        let upstreams = Upstreams::start(nginx);
        let ways = options.ways(nginx);
        // A request id makes no difference that can be seen there, and takes as long as others.
        let mut loaded = ways.clone();
        loaded.retain(|way| *way != Way::AccessLogId);
        // With another nginx only what there is more to compare with.
        let first = nginx == options.nginxes[0];
        for scenario in options.scenarios(nginx) {
            let main = scenario.name == MAIN;
            let name = |what: &str| say(&format!("{}: {what}, {}", nginx.as_str(), scenario.name));
            if wants(Figure::Instructions) {
                name("instructions");
                let measure = |&way: &Way| callgrind::measure(&upstreams, scenario, way, keep);
                results.instructions.extend(ways.iter().map(measure));
            }
            if wants(Figure::Syscalls) {
                name("system calls");
                let measure = |&way: &Way| syscalls::measure(&upstreams, scenario, way);
                results.syscalls.extend(ways.iter().map(measure));
            }
            if wants(Figure::Throughput) && (first && scenario.throughput || main) {
                name("throughput");
                results.throughput.extend(load::throughput(&upstreams, scenario, &loaded));
            }
            if wants(Figure::Memory) && first && main {
                name("memory");
                let measure = |&way: &Way| load::memory(&upstreams, scenario, way);
                results.memory.extend(loaded.iter().map(measure));
            }
        }
        if wants(Figure::Status) && first {
            say("status location");
            results.scrapes.extend(endpoint::scrapes(&upstreams));
            results.zone.extend(endpoint::zones(&upstreams));
        }
        if wants(Figure::Start) && first {
            say("start and reload");
            let scenario = SCENARIOS.iter().find(|s| s.locations == MANY_LOCATIONS);
            let scenario = scenario.expect("a scenario with many locations");
            results.starts.extend(start::measure(&upstreams, scenario, &loaded, keep));
        }
    }
    say("done");
    results
}

fn profile(options: &Options, keep: &Path) {
    for &nginx in &options.nginxes {
        let upstreams = Upstreams::start(nginx);
        for scenario in options.scenarios(nginx) {
            for way in options.ways(nginx) {
                let counted = callgrind::measure(&upstreams, scenario, way, keep);
                profile::print(&counted, keep);
            }
        }
    }
}
