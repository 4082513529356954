//! Reads BTF: the types of a kernel, as the kernel publishes them.
//!
//! The format is that of Documentation/bpf/btf.rst and include/uapi/linux/btf.h. Types are
//! looked up in the bytes and not parsed into a tree: kaprobe needs a few dozen of some
//! 150,000. Every access is checked, so bytes that are not BTF are an error or nothing found.

use std::collections::BTreeSet;
use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read as _};
use std::ops::{Deref, Range};

use anyhow::{Context as _, Result, bail, ensure};
use hashbrown::HashMap;
use memmap2::{Mmap, MmapOptions};

/// The number that BTF starts with, in the byte order of its machine.
const MAGIC: u16 = 0xeb9f;
/// The length of `struct btf_header` in version 1.
const HEADER_LEN: usize = 24;
/// The length of `struct btf_type`.
const TYPE_LEN: usize = 12;

/// The kinds of types: `BTF_KIND_…`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "documented in include/uapi/linux/btf.h")]
pub enum TypeKind {
    Int,
    Ptr,
    Array,
    Struct,
    Union,
    Enum,
    Fwd,
    Typedef,
    Volatile,
    Const,
    Restrict,
    Func,
    FuncProto,
    Var,
    DataSec,
    Float,
    DeclTag,
    TypeTag,
    Enum64,
}

impl TypeKind {
    /// All kinds, by number from 1.
    const ALL: [Self; 19] = [
        Self::Int,
        Self::Ptr,
        Self::Array,
        Self::Struct,
        Self::Union,
        Self::Enum,
        Self::Fwd,
        Self::Typedef,
        Self::Volatile,
        Self::Const,
        Self::Restrict,
        Self::Func,
        Self::FuncProto,
        Self::Var,
        Self::DataSec,
        Self::Float,
        Self::DeclTag,
        Self::TypeTag,
        Self::Enum64,
    ];

    fn of_number(number: u32) -> Option<Self> {
        Self::ALL.get(number.checked_sub(1)? as usize).copied()
    }

    /// The length of each entry behind a type, and whether there is one for each count.
    const fn entries(self) -> (usize, bool) {
        match self {
            // `struct btf_member`, `btf_var_secinfo`, `btf_enum64`.
            Self::Struct | Self::Union | Self::DataSec | Self::Enum64 => (12, true),
            // `struct btf_enum`, `btf_param`.
            Self::Enum | Self::FuncProto => (8, true),
            // `struct btf_array`.
            Self::Array => (12, false),
            Self::Int | Self::Var | Self::DeclTag => (4, false),
            _ => (0, false),
        }
    }
}

/// The bytes of BTF: those of the kernel itself, or a copy.
pub enum Bytes {
    /// Mapped.
    Mapped(Mmap),
    /// Copied.
    Copied(Vec<u8>),
}

impl Bytes {
    /// Maps a file that the kernel publishes. Copies it if that is refused: before Linux 6.16
    /// sysfs does not let it be mapped.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn read(path: &str) -> io::Result<Self> {
        let mut file = File::open(path)?;
        // SAFETY: the kernel does not change its types while it runs, nor cut them off.
        if let Ok(mapped) = unsafe { MmapOptions::new().map_copy_read_only(&file) } {
            return Ok(Self::Mapped(mapped));
        }
        let mut copy = Vec::new();
        file.read_to_end(&mut copy)?;
        Ok(Self::Copied(copy))
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(bytes) => bytes,
            Self::Copied(bytes) => bytes,
        }
    }
}

/// All types of a kernel.
pub struct Types {
    bytes: Bytes,
    /// Where each type is in the bytes. The number of a type is its position here, from 1;
    /// 0 is `void`.
    starts: Vec<u32>,
    /// Where the names are.
    names: Range<usize>,
}

/// A type.
#[derive(Clone, Copy)]
pub struct Type<'a> {
    types: &'a Types,
    /// The number of the type.
    pub number: u32,
    /// Its kind.
    pub kind: TypeKind,
    /// The entries behind it: of a structure, its members.
    entries: &'a [u8],
    name: u32,
    /// Members are bit fields: `kind_flag`.
    flag: bool,
    /// Its size in bytes or the number of the type that it refers to, by its kind.
    size_or_type: u32,
}

/// A member of a structure or union, a parameter of a function, or a value of an enum.
#[derive(Clone, Copy)]
pub struct Entry<'a> {
    types: &'a Types,
    name: u32,
    /// The number of its type, or the value.
    pub number: u32,
    /// Its offset from the start of the structure, bits.
    pub bit_offset: u32,
    /// Its size in bits, if it is a bit field; otherwise 0.
    pub bits: u32,
}

impl Types {
    /// Parses BTF.
    ///
    /// # Errors
    /// When these bytes are not BTF, or of a version or with a kind that is unknown.
    pub fn parse(bytes: Bytes) -> Result<Self> {
        let number = |at| read(&bytes, at).context("its header is cut off");
        let magic = number(0)?;
        ensure!(magic & 0xffff == u32::from(MAGIC), "it is not BTF");
        let version = magic >> 16 & 0xff;
        ensure!(version == 1, "its version is {version}");
        let header = number(4)? as usize;
        ensure!(header >= HEADER_LEN, "its header is too short");
        let [types, types_len, names, names_len] = [8, 12, 16, 20].map(number);
        let at = |offset: Result<u32>| anyhow::Ok(header + offset? as usize);
        let (types, names) = (at(types)?, at(names)?);
        let (types_len, names_len) = (types_len? as usize, names_len? as usize);
        let part = |start: usize, len: usize| bytes.get(start..start.checked_add(len)?);
        let list = part(types, types_len).context("its types are cut off")?;
        let text = part(names, names_len).context("its names are cut off")?;
        ensure!(text.last() == Some(&0), "its names do not end");
        Ok(Self {
            starts: starts(list, types)?,
            names: names..names + names_len,
            bytes,
        })
    }

    /// The type of this number. `None` for `void`, and if there is none.
    #[must_use]
    pub fn get(&self, number: u32) -> Option<Type<'_>> {
        let start = *self.starts.get(number as usize)? as usize;
        let [name, info, size_or_type] = [0, 4, 8].map(|at| read(&self.bytes, start + at));
        let info = Info(info?);
        let entries = start + TYPE_LEN;
        Some(Type {
            types: self,
            number,
            kind: info.kind()?,
            entries: self.bytes.get(entries..entries + info.entries_len()?)?,
            name: name?,
            flag: info.0 >> 31 != 0,
            size_or_type: size_or_type?,
        })
        .filter(|_| number != 0)
    }

    /// The numbers of these types, found by kind and name; of several, the lowest. Takes one pass
    /// over all types, for any number of them.
    pub fn numbers(&self, wanted: &[(TypeKind, &str)]) -> Vec<Option<u32>> {
        let places: HashMap<_, _> = wanted.iter().copied().zip(0..).collect();
        let kinds: BTreeSet<_> = wanted.iter().map(|&(kind, _)| kind).collect();
        let mut numbers = vec![None; wanted.len()];
        for (number, &start) in (0..).zip(&self.starts).skip(1) {
            let [name, info] = [0, 4].map(|at| read(&self.bytes, start as usize + at));
            let kind = info.and_then(|info| Info(info).kind());
            let Some((kind, name)) = kind.zip(name) else {
                continue;
            };
            if !kinds.contains(&kind) {
                continue;
            }
            if let Some(&place) = places.get(&(kind, self.name(name))) {
                let found: &mut Option<u32> = &mut numbers[place];
                found.get_or_insert(number);
            }
        }
        numbers
    }

    /// The name at a place. Empty if it has none.
    fn name(&self, place: u32) -> &str {
        let text = self.bytes[self.names.clone()].get(place as usize..);
        let name = text.and_then(|text| CStr::from_bytes_until_nul(text).ok());
        name.and_then(|name| name.to_str().ok()).unwrap_or_default()
    }
}

impl<'a> Type<'a> {
    /// Its name. Empty if it has none.
    #[must_use]
    pub fn name(&self) -> &'a str {
        self.types.name(self.name)
    }

    /// Its size in bytes, if it is an integer, a structure or a union.
    #[must_use]
    pub fn size(&self) -> Option<u32> {
        let sized = matches!(
            self.kind,
            TypeKind::Int | TypeKind::Struct | TypeKind::Union
        );
        sized.then_some(self.size_or_type)
    }

    /// The type that it refers to: of a pointer, what it leads to; of a function, its
    /// prototype; of a qualifier, what it qualifies.
    #[must_use]
    pub fn target(&self) -> Option<Self> {
        let refers = matches!(
            self.kind,
            TypeKind::Ptr
                | TypeKind::Typedef
                | TypeKind::Volatile
                | TypeKind::Const
                | TypeKind::Restrict
                | TypeKind::Func
                | TypeKind::TypeTag
        );
        self.types.get(self.size_or_type).filter(|_| refers)
    }

    /// The type and those that it refers to, one after the other.
    pub fn chain(self) -> impl Iterator<Item = Self> {
        // BTF of a kernel has no circle of these; other bytes may.
        const MOST: usize = 64;
        std::iter::successors(Some(self), Self::target).take(MOST)
    }

    /// The type without typedefs and qualifiers.
    #[must_use]
    pub fn bare(self) -> Option<Self> {
        let is_wrapper = |kind| {
            matches!(
                kind,
                TypeKind::Typedef
                    | TypeKind::Volatile
                    | TypeKind::Const
                    | TypeKind::Restrict
                    | TypeKind::TypeTag
            )
        };
        self.chain().find(|it| !is_wrapper(it.kind))
    }

    /// The members of a structure or union, the parameters of a prototype, or the values of
    /// an enum. Of other types, none.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'a>> + use<'a> {
        let (types, flag) = (self.types, self.flag);
        let len = match self.kind {
            TypeKind::Struct | TypeKind::Union => 12,
            TypeKind::FuncProto | TypeKind::Enum => 8,
            _ => usize::MAX,
        };
        self.entries.chunks_exact(len).filter_map(move |entry| {
            let offset = read(entry, 8).unwrap_or_default();
            Some(Entry {
                types,
                name: read(entry, 0)?,
                number: read(entry, 4)?,
                // The upper byte is the size of a bit field.
                bit_offset: if flag { offset & 0xff_ffff } else { offset },
                bits: if flag { offset >> 24 } else { 0 },
            })
        })
    }
}

impl<'a> Entry<'a> {
    /// Its name. Empty if it has none.
    #[must_use]
    pub fn name(&self) -> &'a str {
        self.types.name(self.name)
    }

    /// Its type.
    #[must_use]
    pub fn ty(&self) -> Option<Type<'a>> {
        self.types.get(self.number)
    }
}

/// The member `info` of a type.
#[derive(Clone, Copy)]
struct Info(u32);

impl Info {
    fn kind(self) -> Option<TypeKind> {
        TypeKind::of_number(self.0 >> 24 & 0x1f)
    }

    fn entries_len(self) -> Option<usize> {
        let (len, each) = self.kind()?.entries();
        let count = if each { self.0 & 0xffff } else { 1 };
        Some(len * count as usize)
    }
}

/// Where each type of a list is, if the list begins at `at`. The first is `void`.
fn starts(list: &[u8], at: usize) -> Result<Vec<u32>> {
    let mut starts = vec![0];
    let mut offset = 0;
    while offset < list.len() {
        starts.push(u32::try_from(at + offset)?);
        let info = read(list, offset + 4).context("its last type is cut off")?;
        let Some(len) = Info(info).entries_len() else {
            bail!("a type has the unknown kind {}", info >> 24 & 0x1f);
        };
        offset += TYPE_LEN + len;
    }
    ensure!(offset == list.len(), "its last type is cut off");
    Ok(starts)
}

/// The number at this place. BTF of the running kernel has its byte order.
fn read(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*bytes))
}

#[cfg(test)]
pub(super) mod testing {
    use crate::kernel::types::MAGIC;

    /// BTF with these types and names.
    pub fn btf(types: &[u32], names: &str) -> Vec<u8> {
        let len = |bytes: usize| u32::try_from(bytes).unwrap_or_default();
        let types_len = len(types.len() * 4);
        let header = [
            u32::from(MAGIC) | 1 << 16,
            24,
            0,
            types_len,
            types_len,
            len(names.len()),
        ];
        let words = header.iter().chain(types);
        let words = words.flat_map(|word| word.to_ne_bytes());
        words.chain(names.bytes()).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kernel::btf::PATH;
    use crate::kernel::types::testing::btf;

    /// An int, a structure with a bit field, a typedef of it, a pointer to that, a prototype
    /// and a function.
    fn sample() -> Vec<u8> {
        let names = "\0unsigned int\0sock\0flags\0sock_t\0sk\0tcp_close\0";
        let at = |name: &str| {
            let place = names.find(&format!("{name}\0")).unwrap_or_default();
            u32::try_from(place).unwrap_or_default()
        };
        #[rustfmt::skip]
        let types = [
            at("unsigned int"), 1 << 24, 4, 32,
            at("sock"), 1 << 31 | 4 << 24 | 2, 16, at("int"), 1, 64, at("flags"), 1, 3 << 24 | 69,
            at("sock_t"), 8 << 24, 2,
            0, 2 << 24, 3,
            0, 13 << 24 | 1, 0, at("sk"), 4,
            at("tcp_close"), 12 << 24, 5,
        ];
        btf(&types, names)
    }

    #[test]
    fn types_are_found_by_name() -> Result<()> {
        let types = Types::parse(Bytes::Copied(sample()))?;
        let wanted = [
            (TypeKind::Struct, "sock"),
            (TypeKind::Typedef, "sock_t"),
            (TypeKind::Func, "tcp_close"),
            (TypeKind::Struct, "sock_t"),
            (TypeKind::Struct, "ock"),
            (TypeKind::Ptr, ""),
        ];
        assert_eq!(
            types.numbers(&wanted),
            [Some(2), Some(3), Some(6), None, None, Some(4)]
        );
        let close = types.get(6).context("no function")?;
        let parameters = close.target().context("no prototype")?;
        let sk = parameters.entries().next().context("no parameter")?;
        let socket = sk
            .ty()
            .and_then(|it| it.target()?.bare())
            .context("no type")?;
        assert_eq!(
            (sk.name(), socket.name(), socket.size()),
            ("sk", "sock", Some(16))
        );
        let members = socket.entries().map(|it| (it.name(), it.bit_offset));
        assert_eq!(members.collect::<Vec<_>>(), [("int", 64), ("flags", 69)]);
        assert!(types.get(0).is_none() && types.get(7).is_none());
        Ok(())
    }

    #[test]
    fn what_is_not_btf_is_an_error() {
        let whole = sample();
        for len in 0..whole.len() {
            assert!(
                Types::parse(Bytes::Copied(whole[..len].to_vec())).is_err(),
                "{len}"
            );
        }
        let why = |types: &[u32]| {
            Types::parse(Bytes::Copied(btf(types, "\0")))
                .map_err(|why| why.to_string())
                .err()
        };
        assert_eq!(
            why(&[0, 20 << 24, 0]).as_deref(),
            Some("a type has the unknown kind 20")
        );
        assert_eq!(
            why(&[0, 0, 0]).as_deref(),
            Some("a type has the unknown kind 0")
        );
        assert_eq!(
            why(&[0, 4 << 24 | 9, 0]).as_deref(),
            Some("its last type is cut off")
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(at in 0..200_usize, byte: u8) {
            let mut bytes = sample();
            let len = bytes.len();
            bytes[at % len] = byte;
            if let Ok(types) = Types::parse(Bytes::Copied(bytes)) {
                let numbers = (0..9).filter_map(|number| types.get(number));
                let named = types.numbers(&[(TypeKind::Struct, "sock")]);
                let named = named.into_iter().flatten().filter_map(|number| types.get(number));
                for found in numbers.chain(named) {
                    let members = found.entries().map(|it| (it.name(), it.ty().map(|it| it.name())));
                    let chain = found.chain().map(|it| it.name());
                    prop_assert!(members.count() < 1 << 16 && chain.count() <= 64);
                }
            }
        }
    }

    #[test]
    fn this_kernel_is_read() -> Result<()> {
        let Ok(bytes) = Bytes::read(PATH) else {
            println!("skipped: this kernel has no BTF");
            return Ok(());
        };
        let types = Types::parse(bytes)?;
        let numbers = types.numbers(&[(TypeKind::Struct, "sock")]);
        let socket = numbers[0].and_then(|number| types.get(number));
        let socket = socket.context("no struct sock")?;
        let first = socket.entries().next().context("no member")?;
        assert_eq!((first.name(), first.bit_offset), ("__sk_common", 0));
        Ok(())
    }
}
