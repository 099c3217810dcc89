//! Numbers as people read them. Times are milliseconds.

/// How long something took or how long ago it was: to a part of a second, then to the minute, the
/// hour, the day.
pub(crate) fn span(ms: u64) -> String {
    const MINUTE: u64 = 60_000;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    match ms {
        0..1_000 => format!("{} s", hundredths(ms)),
        1_000..120_000 => format!("{} s", tenths(ms)),
        120_000..7_200_000 => format!("{} min", rounded(ms, MINUTE)),
        7_200_000..172_800_000 => format!("{} h", rounded(ms, HOUR)),
        _ => format!("{} days", rounded(ms, DAY)),
    }
}

/// Seconds with two decimals: an age at which something happened once.
pub(crate) fn hundredths(ms: u64) -> String {
    let hundredths = rounded(ms, 10);
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}

/// Seconds with one decimal.
pub(crate) fn tenths(ms: u64) -> String {
    let tenths = rounded(ms, 100);
    format!("{}.{}", tenths / 10, tenths % 10)
}

/// A timeout that was measured. Timeouts are configured in whole seconds, and measured a little
/// late: a fiftieth, or a tenth of a second, is taken for that.
pub(crate) fn as_timeout(ms: u64) -> String {
    let whole = rounded(ms, 1_000);
    if whole > 0 && whole.saturating_mul(1_000).abs_diff(ms) <= (ms / 50).max(100) {
        format!("{whole} s")
    } else {
        format!("{} s", tenths(ms))
    }
}

/// The largest sensible time below one, as it is written in nginx's configuration.
pub(crate) fn as_set(ms: u64) -> String {
    // What nginx closes last must be on its way before the upstream's time is over.
    match ms.saturating_sub(200) / 1_000 {
        0 => format!("{}ms", ms / 2),
        seconds => format!("{seconds}s"),
    }
}

/// How often.
pub(crate) fn times(n: u64) -> String {
    match n {
        1 => "once".to_owned(),
        2 => "twice".to_owned(),
        n => format!("{n} times"),
    }
}

fn rounded(value: u64, unit: u64) -> u64 {
    value.saturating_add(unit / 2).checked_div(unit).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_by_people() {
        for (ms, words) in [
            (0, "0.00 s"),
            (374, "0.37 s"),
            (42_349, "42.3 s"),
            (119_949, "119.9 s"),
            (120_000, "2 min"),
            (7_199_999, "120 min"),
            (7_200_000, "2 h"),
            (172_799_000, "48 h"),
            (172_800_000, "2 days"),
        ] {
            assert_eq!(span(ms), words);
        }
        assert_eq!(
            (hundredths(5_003), hundredths(995), hundredths(999)),
            ("5.00".into(), "1.00".into(), "1.00".into())
        );
        assert_eq!((tenths(4_950), tenths(99)), ("5.0".into(), "0.1".into()));
        assert_eq!(
            (times(1), times(2), times(3)),
            ("once".into(), "twice".into(), "3 times".into())
        );
    }

    /// Guards against a timeout that nobody configured, and a value that still loses the race.
    #[test]
    fn timeouts_and_what_is_below_them() {
        for (ms, timeout, set) in [
            (5_003, "5 s", "4s"),
            (4_990, "5 s", "4s"),
            (4_700, "4.7 s", "4s"),
            (5_250, "5.3 s", "5s"),
            (30_420, "30 s", "30s"),
            (1_000, "1 s", "500ms"),
            (75_000, "75 s", "74s"),
        ] {
            assert_eq!((as_timeout(ms), as_set(ms)), (timeout.to_owned(), set.to_owned()), "{ms}");
        }
    }
}
