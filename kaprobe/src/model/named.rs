//! Names of values, said once: what is printed is what is read back.

use std::fmt;

/// A fieldless enum whose every value has a name: one lower-case word, or a name
/// that the kernel gave.
pub trait Word: Copy + PartialEq + 'static {
    /// Every value, in the order of the declaration.
    const ALL: &'static [Self];

    /// The name of this one.
    fn word(self) -> &'static str;

    /// The value of that name.
    ///
    /// # Errors
    /// With the names that there are.
    fn from_word(word: &str) -> Result<Self, UnknownWord> {
        let named = Self::ALL.iter().copied().find(|it| it.word() == word);
        named.ok_or_else(|| UnknownWord {
            known: Self::ALL.iter().map(|it| it.word()).collect(),
        })
    }
}

/// A name that no value has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownWord {
    /// The names that there are.
    pub known: Vec<&'static str>,
}

impl fmt::Display for UnknownWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "none of {}", self.known.join(", "))
    }
}

impl std::error::Error for UnknownWord {}

/// Names the variants of an enum, which makes it a [`Word`] that records can hold.
macro_rules! words {
    ($type:ty { $($variant:ident => $word:expr),+ $(,)? }) => {
        impl $crate::model::named::Word for $type {
            const ALL: &'static [Self] = &[$(Self::$variant),+];

            fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let word = std::borrow::Cow::<str>::deserialize(from)?;
                let wrong = |why| serde::de::Error::custom(format_args!("{word:?} is {why}"));
                $crate::model::named::Word::from_word(&word).map_err(wrong)
            }
        }

        impl $crate::model::record::Field for $type {
            fn value(&self) -> $crate::model::record::Value<'_> {
                $crate::model::record::Value::Word($crate::model::named::Word::word(*self))
            }
        }
    };
}

pub(crate) use words;
