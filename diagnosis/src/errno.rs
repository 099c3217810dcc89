//! Names of the operating system's error numbers.

use std::sync::LazyLock;

use nix::errno::Errno;

/// `EADDRNOTAVAIL`.
pub const NO_ADDRESS: i32 = Errno::EADDRNOTAVAIL as i32;

/// One more than the highest error number of Linux (`errno-base.h`, `errno.h`: EHWPOISON).
const COUNT: i32 = 134;

/// The names by number: what names them makes a new text each time.
static NAMES: LazyLock<Vec<Option<String>>> = LazyLock::new(|| {
    let name = |number| match Errno::from_raw(number) {
        Errno::UnknownErrno => None,
        known => Some(format!("{known:?}")),
    };
    (0..COUNT).map(name).collect()
});

/// The symbolic name of an error number (`ECONNREFUSED`), if the platform has one for it.
pub fn name(errno: i32) -> Option<&'static str> {
    NAMES.get(usize::try_from(errno).ok()?)?.as_deref()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_symbols() {
        assert_eq!(name(Errno::ECONNREFUSED as i32), Some("ECONNREFUSED"));
        assert_eq!(name(Errno::EAGAIN as i32), Some("EAGAIN"));
        assert_eq!(name(Errno::ETIMEDOUT as i32), Some("ETIMEDOUT"));
        assert_eq!(name(Errno::EHWPOISON as i32), Some("EHWPOISON"));
        assert_eq!(name(0), None);
        assert_eq!(name(-5), None);
        assert_eq!(name(99_999), None);
    }
}
