//! Enums with a name for each value. The same name is written and read.

use std::fmt;

/// A fieldless enum with a name for each value: one lower-case word, or a kernel name.
pub trait Named: Copy + PartialEq + 'static {
    /// All values, in declaration order.
    const ALL: &'static [Self];

    /// The name of this value.
    fn name(self) -> &'static str;

    /// The value with this name.
    ///
    /// # Errors
    /// If no value has this name. The error lists the known names.
    fn from_name(name: &str) -> Result<Self, UnknownName> {
        let named = Self::ALL.iter().copied().find(|it| it.name() == name);
        named.ok_or_else(|| UnknownName {
            known: Self::ALL.iter().map(|it| it.name()).collect(),
        })
    }
}

/// The error for a name that no value has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownName {
    /// All known names.
    pub known: Vec<&'static str>,
}

impl fmt::Display for UnknownName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "none of {}", self.known.join(", "))
    }
}

impl std::error::Error for UnknownName {}

/// Declares an enum with a name for each value. It implements [`Named`] and can be a
/// field of a record. The default is the first value.
macro_rules! named_enum {
    (
        $(#[$outer:meta])* pub enum $type:ident {
            $($(#[$doc:meta])* $variant:ident = $name:literal,)+
        }
    ) => {
        $(#[$outer])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $type {
            $($(#[$doc])* $variant,)+
        }

        impl $crate::model::named::Named for $type {
            const ALL: &'static [Self] = &[$(Self::$variant),+];

            #[inline]
            fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }
        }

        impl Default for $type {
            fn default() -> Self {
                <Self as $crate::model::named::Named>::ALL[0]
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad($crate::model::named::Named::name(*self))
            }
        }

        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str($crate::model::named::Named::name(*self))
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let name = std::borrow::Cow::<str>::deserialize(from)?;
                let wrong = |why| serde::de::Error::custom(format_args!("{name:?} is {why}"));
                $crate::model::named::Named::from_name(&name).map_err(wrong)
            }
        }

        impl $crate::model::field::Field for $type {
            #[inline]
            fn value(&self) -> $crate::model::field::Value<'_> {
                $crate::model::field::Value::Word($crate::model::named::Named::name(*self))
            }
        }
    };
}

pub(crate) use named_enum;
