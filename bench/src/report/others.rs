//! Tables of what is not a request's.

use std::fmt::Write as _;

use super::table::{Table, whole};
use crate::results::{Results, Scrape, median};

/// Memory under failures.
pub(crate) fn memory(results: &Results) -> String {
    let Some(first) = results.memory.first() else { return String::new() };
    let mut text = "## Memory under failures\n\n\
        Of a worker whose requests are refused, in kB: all that is resident, with the pages of the \
        zone, and in brackets what is its own.\n\n"
        .to_owned();
    let titles: Vec<String> =
        first.seen.iter().map(|seen| format!("{} failures", about(seen.failures))).collect();
    let titles: Vec<&str> =
        ["nginx", ""].into_iter().chain(titles.iter().map(String::as_str)).collect();
    let mut table = Table::new(&titles, 2);
    for row in &results.memory {
        let seen = row.seen.iter();
        let seen = seen.map(|s| format!("{} ({})", whole(s.kb as f64), whole(s.own_kb as f64)));
        table.row([row.nginx.clone(), format!("`{}`", row.way)].into_iter().chain(seen));
    }
    text.push_str(&table.end());
    text
}

/// Loads are for a time, so a number of failures is a little larger than asked for.
fn about(failures: u64) -> String {
    let least = [100_000, 20_000, 1_000].into_iter().find(|least| failures >= *least);
    least.map_or_else(|| failures.to_string(), |least| whole(least as f64))
}

/// The status location and the zone.
pub(crate) fn status(results: &Results) -> String {
    let mut text = String::new();
    if !results.scrapes.is_empty() {
        text.push_str(
            "## Status location\n\n\
             One answer: all peers of one group, and in JSON the latest 100 records. By a peer: \
             how much more it is for each peer more than in the row of that format before.\n\n",
        );
        let titles =
            ["nginx", "format", "peers", "instructions", "by a peer", "bytes", "by a peer", "ms"];
        let mut table = Table::new(&titles, 2);
        for row in &results.scrapes {
            let same = |other: &&Scrape| {
                other.nginx == row.nginx && other.format == row.format && other.peers < row.peers
            };
            let before = results.scrapes.iter().filter(same).max_by_key(|other| other.peers);
            let slope = |of: fn(&Scrape) -> f64| {
                before.map_or_else(String::new, |before| {
                    whole((of(row) - of(before)) / (row.peers - before.peers) as f64)
                })
            };
            table.row([
                row.nginx.clone(),
                row.format.clone(),
                whole(row.peers as f64),
                whole(row.instructions),
                slope(|row| row.instructions),
                whole(row.bytes as f64),
                slope(|row| row.bytes as f64),
                format!("{:.2}", row.ms),
            ]);
        }
        text.push_str(&table.end());
    }
    if let [first, .., last] = &results.zone[..] {
        let per_peer =
            last.used.abs_diff(first.used) as f64 / last.places.abs_diff(first.places) as f64;
        let _ = write!(
            text,
            "A zone with {} places for peers has {} bytes in use, one with {} places {}: {} bytes \
             for each.\n\n",
            whole(first.places as f64),
            whole(first.used as f64),
            whole(last.places as f64),
            whole(last.used as f64),
            whole(per_peer),
        );
    }
    text
}

/// Starting and reloading.
pub(crate) fn starts(results: &Results) -> String {
    let Some(first) = results.starts.first() else { return String::new() };
    let mut text = format!(
        "## Start and reload\n\n\
         With {} locations. Instructions are those of `nginx -t`, times medians of {}, until the \
         (new) worker serves and no old one does.\n\n",
        whole(first.locations as f64),
        first.start_ms.len(),
    );
    let titles =
        ["nginx", "", "instructions", "start, ms", "reload, ms", "worker's own memory, kB"];
    let mut table = Table::new(&titles, 2);
    for row in &results.starts {
        table.row([
            row.nginx.clone(),
            format!("`{}`", row.way),
            whole(row.instructions as f64),
            whole(median(row.start_ms.iter().copied())),
            whole(median(row.reload_ms.iter().copied())),
            whole(row.own_kb as f64),
        ]);
    }
    text.push_str(&table.end());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_numbers() {
        assert_eq!(about(104_321), "100,000");
        assert_eq!(about(20_001), "20,000");
        assert_eq!(about(12), "12");
    }
}
