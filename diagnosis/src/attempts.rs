//! The variables with one value for each attempt, lined up with nginx's `$upstream_addr`.

use crate::record::Attempt;

/// One entry of `r->upstream_states`, or an attempt for which nginx made none.
#[derive(Clone, Copy, Debug)]
pub struct Slot<'a> {
    /// `state->peer` is set. An entry without one stands between the groups of two upstream
    /// requests (`ngx_http_upstream_init_request`), or belongs to an attempt that got no peer.
    pub has_peer: bool,
    /// What is known of the attempt; `None` for an entry that is only a separator.
    pub attempt: Option<&'a Attempt>,
}

/// Joins one value for each attempt the way `ngx_http_upstream_addr_variable` joins addresses:
/// `, ` between attempts, ` : ` between groups, `-` where there is no value.
pub fn join(slots: &[Slot<'_>], value: impl Fn(&Attempt) -> Option<String>) -> String {
    // Step by step what nginx does: it takes a first entry as an address whether it has one or
    // not, and reads the entry behind a separator without looking whether it is one itself.
    let mut joined = String::new();
    let mut entries = slots.iter();
    let mut shown = entries.next().and_then(|slot| slot.attempt);
    loop {
        if let Some(attempt) = shown {
            joined.push_str(value(attempt).as_deref().unwrap_or("-"));
        }
        let Some(slot) = entries.next() else { return joined };
        if slot.has_peer {
            joined.push_str(", ");
            shown = slot.attempt;
        } else {
            joined.push_str(" : ");
            // The separator can be the entry of an attempt that got no peer.
            let behind = entries.next().and_then(|slot| slot.attempt);
            shown = slot.attempt.or(behind);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(errno: Option<i32>) -> Attempt {
        Attempt { errno, ..Attempt::default() }
    }

    fn joined(slots: &[Slot<'_>]) -> String {
        join(slots, |attempt| attempt.errno.map(|errno| errno.to_string()))
    }

    #[test]
    fn lines_up_with_upstream_addr() {
        let (a, b) = (attempt(Some(111)), attempt(None));
        let slot = |has_peer, attempt| Slot { has_peer, attempt };
        assert_eq!(joined(&[slot(true, Some(&a))]), "111");
        assert_eq!(joined(&[slot(true, Some(&a)), slot(true, Some(&b))]), "111, -");
        // Two groups: the entry between has no peer and no attempt.
        assert_eq!(
            joined(&[slot(true, Some(&a)), slot(false, None), slot(true, Some(&b))]),
            "111 : -"
        );
        // The second group got no peer at all: its attempt is the separator's own entry.
        assert_eq!(joined(&[slot(true, Some(&b)), slot(false, Some(&a))]), "- : 111");
        // A resolver failure, then another group: nginx prints ", ADDRESS".
        assert_eq!(joined(&[slot(false, Some(&a)), slot(true, Some(&b))]), "111, -");
        // A bind failure as second attempt, then another group.
        assert_eq!(
            joined(&[
                slot(true, Some(&b)),
                slot(false, Some(&a)),
                slot(false, None),
                slot(true, Some(&b))
            ]),
            "- : 111, -"
        );
        assert_eq!(joined(&[]), "");
    }
}
