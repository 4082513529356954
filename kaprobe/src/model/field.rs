//! Fields of records: their types, and the macros that declare them.
//!
//! A record is nested in memory and flat in the output. [`group!`] declares a group of
//! fields that several records share. [`record!`] declares a record: its own fields, its
//! groups, and the output order of all fields. The macro generates the field names, the
//! visitor, and the deserializer. A derived field is computed when a record is written, and
//! ignored when one is read.

use std::fmt;
use std::fmt::Display;
use std::net::IpAddr;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};

use crate::model::community_id::CommunityId;
use crate::model::owner_fds::{OwnerFd, OwnerFds};
use crate::model::time::WallTime;
use crate::text::escape::Escaped;

/// The name of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name(&'static str);

/// Makes a [`Name`] from an identifier.
macro_rules! name {
    ($name:ident) => {
        $crate::model::field::Name::of_key(concat!(",\"", stringify!($name), "\":"))
    };
}

pub(crate) use name;

impl Name {
    /// Makes a name from its [`Name::key`].
    pub(crate) const fn of_key(key: &'static str) -> Self {
        Self(key)
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.0.trim_matches([',', ':', '"'])
    }

    /// The JSON key, with the separators for a field that is not the first: `,"name":`.
    #[must_use]
    pub const fn key(self) -> &'static str {
        self.0
    }
}

/// A record: named fields in a fixed order.
pub trait Fields {
    /// The names of the fields, in output order.
    const NAMES: &'static [&'static str];

    /// Passes each field to a visitor, in output order. Absent fields are passed too.
    fn visit<'a>(&'a self, to: impl FieldVisitor<'a>);
}

/// A record that can be read from its fields.
pub trait ReadFields: Sized {
    /// Reads a record from a map. Calls `on_unknown` for each field that it does not have.
    ///
    /// # Errors
    /// If a field is missing, is there twice, or has no value of its type.
    fn read<'de, D: Deserializer<'de>>(
        from: D,
        on_unknown: &mut dyn FnMut(),
    ) -> Result<Self, D::Error>;
}

/// Reads the name of a field, and finds its place among the names of a record.
///
/// Fields come in output order, so the next one is most likely a little further on: that is
/// several times as fast as a look at all names.
pub(crate) struct NextField {
    pub(crate) names: &'static [&'static str],
    /// The place behind the last field that was found.
    pub(crate) from: usize,
}

impl<'de> DeserializeSeed<'de> for NextField {
    /// The number of names if it is none of them.
    type Value = usize;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<usize, D::Error> {
        from.deserialize_identifier(self)
    }
}

impl Visitor<'_> for NextField {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a field")
    }

    fn visit_str<E>(self, name: &str) -> Result<usize, E> {
        let (before, behind) = self.names.split_at(self.from);
        let in_order = behind.iter().position(|it| *it == name);
        let found = in_order.map(|at| self.from + at);
        let found = found.or_else(|| before.iter().position(|it| *it == name));
        Ok(found.unwrap_or(self.names.len()))
    }
}

/// A visitor of the fields of a record.
pub trait FieldVisitor<'a> {
    /// Receives a field. In an `#[inline(always)]` implementation, each field's name and
    /// value type are compile-time constants.
    fn visit(&mut self, name: Name, value: Value<'a>);
}

impl<'a, F: FnMut(Name, Value<'a>)> FieldVisitor<'a> for F {
    fn visit(&mut self, name: Name, value: Value<'a>) {
        self(name, value);
    }
}

/// The value of a field.
#[derive(Clone, Copy)]
pub enum Value<'a> {
    /// Not applicable, or not known.
    Absent,
    /// A number.
    Number(u64),
    /// A boolean.
    Bool(bool),
    /// A name of an enum value.
    Word(&'static str),
    /// A list of numbers.
    Numbers(&'a [u64]),
    /// A list of a socket's owners.
    Owners(&'a [OwnerFd]),
    /// A point in time.
    Time(WallTime),
    /// An address.
    Address(IpAddr),
    /// The Community ID of a connection.
    CommunityId(CommunityId),
    /// Text from outside kaprobe, escaped.
    Escaped(&'a Escaped),
    /// Any other text, printable, on one line.
    Text(&'a dyn Display),
}

impl Serialize for Value<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Absent => to.serialize_none(),
            Self::Number(number) => to.serialize_u64(*number),
            Self::Bool(bool) => to.serialize_bool(*bool),
            Self::Word(word) => to.serialize_str(word),
            Self::Numbers(numbers) => to.collect_seq(*numbers),
            Self::Owners(owners) => to.collect_seq(*owners),
            Self::Time(time) => to.collect_str(time),
            Self::Address(address) => to.collect_str(address),
            Self::CommunityId(id) => to.serialize_str(id.text().as_str()),
            Self::Escaped(text) => to.serialize_str(text.as_str()),
            Self::Text(text) => to.collect_str(text),
        }
    }
}

/// The text of a derived field in a log: read, and left out. `IgnoredAny` would be reported as
/// a field that is not known.
pub(crate) struct DerivedText;

impl<'de> Deserialize<'de> for DerivedText {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = DerivedText;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }

            fn visit_str<E>(self, _: &str) -> Result<DerivedText, E> {
                Ok(DerivedText)
            }
        }

        from.deserialize_str(Text)
    }
}

/// A type that a field of a record can have.
pub trait Field {
    /// A record is valid without this field.
    const OPTIONAL: bool = false;

    /// The value of the field.
    fn value(&self) -> Value<'_>;
}

impl<F: Field> Field for Box<F> {
    const OPTIONAL: bool = F::OPTIONAL;

    fn value(&self) -> Value<'_> {
        (**self).value()
    }
}

impl<F: Field> Field for Option<F> {
    const OPTIONAL: bool = true;

    #[inline(always)]
    fn value(&self) -> Value<'_> {
        match self {
            Some(value) => value.value(),
            None => Value::Absent,
        }
    }
}

/// Whether a record is valid without this field.
pub(crate) const fn is_optional<F: Field>(_: &F) -> bool {
    F::OPTIONAL
}

/// Implements [`Field`] for types, each with a function that returns the value.
macro_rules! fields {
    ($($type:ty: |$it:ident| $value:expr),+ $(,)?) => {
        $(impl $crate::model::field::Field for $type {
            #[inline(always)]
            fn value(&self) -> $crate::model::field::Value<'_> {
                let $it = self;
                $value
            }
        })+
    };
}

pub(crate) use fields;

fields! {
    bool: |it| Value::Bool(*it),
    u8: |it| Value::Number(u64::from(*it)),
    u16: |it| Value::Number(u64::from(*it)),
    u32: |it| Value::Number(u64::from(*it)),
    u64: |it| Value::Number(*it),
    WallTime: |it| Value::Time(*it),
    IpAddr: |it| Value::Address(*it),
    Escaped: |it| Value::Escaped(it),
    OwnerFds: |it| Value::Owners(&it.0),
}

/// Declares a group of fields that several records share.
macro_rules! group {
    (
        $(#[$outer:meta])* pub struct $group:ident {
            $($(#[$doc:meta])* $field:ident: $type:ty,)+
        }
    ) => {
        $(#[$outer])*
        pub struct $group {
            $($(#[$doc])* pub $field: $type,)+
        }

        impl $group {
            /// The names of the group's fields.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($field)),+];
        }
    };
}

pub(crate) use group;

/// Declares a record: its own fields and its groups, then the output order.
/// `group.field` is a field of a group; `group?.field` is a field of an optional group.
/// `derived.field` is a method of the record that returns the value.
/// A field that is not an `Option` is required.
macro_rules! record {
    (
        $(#[$outer:meta])* pub struct $record:ident {
            $($(#[$doc:meta])* $field:ident: $type:ty,)+
        }
        order { $($own:ident $(. $inner:ident)? $(?. $maybe:ident)?,)+ }
    ) => {
        $(#[$outer])*
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct $record {
            $($(#[$doc])* pub $field: $type,)+
        }

        impl $crate::model::field::Fields for $record {
            const NAMES: &'static [&'static str] =
                &[$($crate::model::field::record!(@name stringify, $own $(. $inner)? $(?. $maybe)?)),+];

            #[inline]
            fn visit<'a>(&'a self, mut to: impl $crate::model::field::FieldVisitor<'a>) {
                use $crate::model::field::{Field as _, name};
                $(to.visit(
                    $crate::model::field::record!(@name name, $own $(. $inner)? $(?. $maybe)?),
                    $crate::model::field::record!(@value self, $own $(. $inner)? $(?. $maybe)?),
                );)+
            }
        }

        impl serde::Serialize for $record {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                use serde::ser::SerializeMap as _;
                use $crate::model::field::{Fields as _, Name, Value};
                let mut map = to.serialize_map(None)?;
                let mut result = Ok(());
                self.visit(|name: Name, value: Value<'_>| {
                    if result.is_ok() && !matches!(value, Value::Absent) {
                        result = map.serialize_entry(name.as_str(), &value);
                    }
                });
                result?;
                map.end()
            }
        }

        impl $crate::model::field::ReadFields for $record {
            fn read<'de, D: serde::Deserializer<'de>>(
                from: D,
                on_unknown: &mut dyn FnMut(),
            ) -> Result<Self, D::Error> {
                $crate::model::field::record!(@keys $($own $(. $inner)? $(?. $maybe)?,)+);

                struct Visitor<'a>(&'a mut dyn FnMut());

                impl<'de> serde::de::Visitor<'de> for Visitor<'_> {
                    type Value = $record;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str(concat!("struct ", stringify!($record)))
                    }

                    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<$record, A::Error> {
                        use serde::de::Error as _;
                        use $crate::model::field::{Fields, NextField};
                        let names = <$record as Fields>::NAMES;
                        let mut record = $record::default();
                        // One bit for each field.
                        let mut seen = 0_u128;
                        let mut next = 0;
                        while let Some(at) = map.next_key_seed(NextField { names, from: next })? {
                            let Some(&key) = FIELD_KEYS.get(at) else {
                                (self.0)();
                                map.next_value::<serde::de::IgnoredAny>()?;
                                continue;
                            };
                            next = at + 1;
                            let bit = 1 << at;
                            if seen & bit != 0 {
                                return Err(A::Error::duplicate_field(names[at]));
                            }
                            seen |= bit;
                            match key {
                                $($crate::model::field::record!(@key $own $(. $inner)? $(?. $maybe)?) => {
                                    $crate::model::field::record!(@read record, map, $own $(. $inner)? $(?. $maybe)?);
                                })+
                            }
                        }
                        $(if seen & 1 << $crate::model::field::record!(@key $own $(. $inner)? $(?. $maybe)?) as u32 == 0
                            && $crate::model::field::record!(@required record, $own $(. $inner)? $(?. $maybe)?)
                        {
                            return Err(A::Error::missing_field($crate::model::field::record!(@name stringify, $own $(. $inner)? $(?. $maybe)?)));
                        })+
                        Ok(record)
                    }
                }

                from.deserialize_map(Visitor(on_unknown))
            }
        }

        impl<'de> serde::Deserialize<'de> for $record {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                <Self as $crate::model::field::ReadFields>::read(from, &mut || {})
            }
        }
    };

    (@name $make:ident, $own:ident) => { $make!($own) };
    (@name $make:ident, $own:ident . $inner:ident) => { $make!($inner) };
    (@name $make:ident, $own:ident ?. $inner:ident) => { $make!($inner) };

    (@value $it:ident, derived . $name:ident) => { $it.$name() };
    (@value $it:ident, $own:ident) => { $it.$own.value() };
    (@value $it:ident, $own:ident . $inner:ident) => { $it.$own.$inner.value() };
    (@value $it:ident, $own:ident ?. $inner:ident) => {
        match &$it.$own {
            Some(group) => group.$inner.value(),
            None => $crate::model::field::Value::Absent,
        }
    };

    (@keys $($own:ident $(. $inner:ident)? $(?. $maybe:ident)?,)+) => {
        $crate::model::field::record!(@enum [] $($own $(. $inner)? $(?. $maybe)?,)+);
    };
    (@enum [$($name:ident)*] $own:ident, $($rest:tt)*) => {
        $crate::model::field::record!(@enum [$($name)* $own] $($rest)*);
    };
    (@enum [$($name:ident)*] $own:ident . $inner:ident, $($rest:tt)*) => {
        $crate::model::field::record!(@enum [$($name)* $inner] $($rest)*);
    };
    (@enum [$($name:ident)*] $own:ident ?. $inner:ident, $($rest:tt)*) => {
        $crate::model::field::record!(@enum [$($name)* $inner] $($rest)*);
    };
    (@enum [$($name:ident)*]) => {
        /// A field of the record, numbered in output order.
        #[derive(Clone, Copy)]
        #[expect(non_camel_case_types, reason = "field names")]
        enum FieldKey {
            $($name,)*
        }

        const FIELD_KEYS: &[FieldKey] = &[$(FieldKey::$name,)*];
    };

    (@key $own:ident) => { FieldKey::$own };
    (@key $own:ident . $inner:ident) => { FieldKey::$inner };
    (@key $own:ident ?. $inner:ident) => { FieldKey::$inner };

    (@read $it:ident, $map:ident, derived . $name:ident) => {
        $map.next_value::<$crate::model::field::DerivedText>()?;
    };
    (@read $it:ident, $map:ident, $own:ident) => { $it.$own = $map.next_value()?; };
    (@read $it:ident, $map:ident, $own:ident . $inner:ident) => { $it.$own.$inner = $map.next_value()?; };
    (@read $it:ident, $map:ident, $own:ident ?. $inner:ident) => {
        $it.$own.get_or_insert_default().$inner = $map.next_value()?;
    };

    (@required $it:ident, derived . $name:ident) => { false };
    (@required $it:ident, $own:ident) => { !$crate::model::field::is_optional(&$it.$own) };
    (@required $it:ident, $own:ident . $inner:ident) => { !$crate::model::field::is_optional(&$it.$own.$inner) };
    (@required $it:ident, $own:ident ?. $inner:ident) => {
        $it.$own.as_ref().is_some_and(|group| !$crate::model::field::is_optional(&group.$inner))
    };
}

pub(crate) use record;
