//! Names of the operating system's error numbers.

use nix::errno::Errno;

/// `EADDRNOTAVAIL`.
pub const NO_ADDRESS: i32 = Errno::EADDRNOTAVAIL as i32;

/// The symbolic name of an error number (`ECONNREFUSED`), if the platform has one for it.
pub fn name(errno: i32) -> Option<String> {
    match Errno::from_raw(errno) {
        Errno::UnknownErrno => None,
        known => Some(format!("{known:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_symbols() {
        assert_eq!(name(Errno::ECONNREFUSED as i32).as_deref(), Some("ECONNREFUSED"));
        assert_eq!(name(Errno::EAGAIN as i32).as_deref(), Some("EAGAIN"));
        assert_eq!(name(Errno::ETIMEDOUT as i32).as_deref(), Some("ETIMEDOUT"));
        assert_eq!(name(0), None);
        assert_eq!(name(-5), None);
        assert_eq!(name(99_999), None);
    }
}
