//! The names of closed sets.

/// Gives each of a closed set its name, written once: as it is, and as a member of a JSON object that
/// only has to be copied.
macro_rules! slugs {
    ($set:ident, $key:literal: $( $name:ident = $slug:literal ),+ $(,)?) => {
        impl $set {
            /// The name used in variables and JSON.
            pub const fn slug(self) -> &'static str {
                match self { $( $set::$name => $slug, )+ }
            }

            /// The name as a member of an object.
            pub(crate) const fn member(self) -> $crate::json::Member {
                match self { $( $set::$name => $crate::json::member!($key, $slug), )+ }
            }
        }

        impl serde::Serialize for $set {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.slug())
            }
        }
    };
}
pub(crate) use slugs;
