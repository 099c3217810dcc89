//! The name of an attempt's peer.

use std::ops::Deref;

use crate::json::{Object, is_plain, key};
use crate::words::Name;

/// The name of a peer, with what it is written as, if that is kept with it.
#[derive(Clone, Debug, Default)]
pub struct PeerName {
    name: String,
    /// A member of an object.
    json: Vec<u8>,
    /// As [`Name::is_plain`], if the rest is kept.
    plain: bool,
}

impl PeerName {
    /// The name in bytes from anywhere, to be used for many attempts. `before`: one that is not
    /// used any more; in a storm of failures it is the same one.
    pub fn kept(name: &[u8], before: PeerName) -> PeerName {
        if before.name.as_bytes() == name && !before.json.is_empty() {
            return before;
        }
        let PeerName { name: mut room, mut json, .. } = before;
        room.clear();
        room.push_str(&crate::text(name));
        json.clear();
        Object::begun(&mut json).text(key!("peer"), &room);
        let plain = is_plain(&room);
        PeerName { name: room, json, plain }
    }

    /// The name, for texts.
    pub(crate) fn name(&self) -> Name<'_> {
        if self.json.is_empty() {
            Name::from(self.name.as_str())
        } else {
            Name::known(&self.name, self.plain)
        }
    }

    pub(super) fn member(&self, o: &mut Object<'_>) {
        if self.json.is_empty() {
            o.text(key!("peer"), &self.name);
        } else {
            o.members(&self.json);
        }
    }
}

impl Deref for PeerName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.name
    }
}

impl From<String> for PeerName {
    fn from(name: String) -> Self {
        PeerName { name, ..PeerName::default() }
    }
}

impl From<&str> for PeerName {
    fn from(name: &str) -> Self {
        name.to_owned().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards against a name that is written as the one before it.
    #[test]
    fn a_name_is_its_own_whatever_came_before() {
        let long = "p".repeat(crate::record::MAX_TEXT + 1);
        let names = ["10.0.0.1:80", "10.0.0.1:8", "unix:/a\"b", "", long.as_str()];
        for before in names {
            for name in names {
                let before = PeerName::kept(before.as_bytes(), PeerName::from("other"));
                let kept = PeerName::kept(name.as_bytes(), before);
                let wanted = crate::text(name.as_bytes()).into_owned();
                assert_eq!(&*kept, wanted);
                let written = |name: &PeerName| {
                    let mut json = Vec::new();
                    name.member(&mut Object::begun(&mut json));
                    String::from_utf8(json).unwrap()
                };
                assert_eq!(written(&kept), written(&PeerName::from(wanted)));
            }
        }
    }
}
