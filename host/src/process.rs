//! When a process started.

use std::fs::File;
use std::io::Read as _;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use nix::unistd::{SysconfVar, sysconf};

/// How long ago a process started, up to 10 ms too much (a clock tick). A number that was given to
/// another process since cannot be told from the first one's.
///
/// Both ends are of the boot clock, which also runs while the host sleeps: `starttime` in
/// proc_pid_stat(5) is `start_boottime` (`do_task_stat` in `fs/proc/array.c`), and in a time
/// namespace both are shifted alike.
pub fn process_started(pid: i32) -> Option<Duration> {
    let mut stat = [0; STAT];
    let length = File::open(format!("/proc/{pid}/stat")).ok()?.read(&mut stat).ok()?;
    let started = start_time(stat.get(..length)?)?;
    // Read after the process was seen, so that it cannot have started later.
    let now = Duration::from(clock_gettime(ClockId::CLOCK_BOOTTIME).ok()?);
    let per_second = u64::try_from(sysconf(SysconfVar::CLK_TCK).ok()??).ok()?;
    let millis = started.checked_mul(1000)?.checked_div(per_second)?;
    now.checked_sub(Duration::from_millis(millis))
}

/// Room for the 22 numbers at their longest, after a name of 64 bytes.
const STAT: usize = 1024;

/// Field 22, in clock ticks. The second is the program's name in parentheses, which can hold any
/// byte, these too; the others are numbers and a letter.
fn start_time(stat: &[u8]) -> Option<u64> {
    let name = stat.iter().rposition(|&byte| byte == b')')?;
    let (_, fields) = stat.split_at_checked(name)?;
    let mut fields = fields.split(|&byte| byte == b' ').skip(20);
    let started = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    // Without a field after it, it may have been cut off.
    fields.next().map(|_| started)
}

#[cfg(test)]
mod tests {
    use super::start_time;

    const FIELDS: &str = "S 1 2 2 0 -1 4194560 9 0 0 0 0 0 0 0 20 0 1 0 4711 5 6";

    /// Guards against a program whose name looks like fields, and against a cut or foreign text
    /// that is taken for a time.
    #[test]
    fn the_22nd_field() {
        for (name, expected) in [
            ("1 (nginx)", Some(4711)),
            ("1 (a b)", Some(4711)),
            ("1 (a) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 (b)", Some(4711)),
            ("1 ())))", Some(4711)),
            ("1 (\u{fffd}\n)", Some(4711)),
            ("1 nginx", None),
            ("", None),
        ] {
            assert_eq!(start_time(format!("{name} {FIELDS}").as_bytes()), expected, "{name}");
        }
        let whole = format!("1 (nginx) {FIELDS}");
        for length in 0..whole.len() {
            let cut = start_time(&whole.as_bytes()[..length]);
            assert_eq!(cut, (length >= whole.len() - 3).then_some(4711), "{length}");
        }
        assert_eq!(start_time(b"1 (x) S 1 2 2 0 -1 4 9 0 0 0 0 0 0 0 20 0 1 0 -1 5"), None);
        assert_eq!(
            start_time(b"1 (x) S 1 2 2 0 -1 4 9 0 0 0 0 0 0 0 20 0 1 0 99999999999999999999 5"),
            None
        );
    }
}
