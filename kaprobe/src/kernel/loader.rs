//! Keeps aya from parsing the kernel's types. There are some 150,000, and aya needs none of
//! them, or the number of one.

use aya::{Btf, EbpfLoader};
use aya_obj::btf::{BtfType, Func, FuncLinkage, Ptr};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::kernel::btf::KernelTypes;

/// Makes a loader that has not read the kernel's types.
///
/// `EbpfLoader::new` of aya 0.14 always reads them, and continues without them if it can't.
/// Only an object with CO-RE relocations needs them, and rustc emits none. So the loader is
/// made while no file can be opened. aya 0.15 reads the types when it needs them; this can
/// go then.
///
/// No other thread may open files meanwhile.
pub fn without_types<'a>() -> EbpfLoader<'a> {
    let limit = getrlimit(Resource::Nofile);
    let none = Rlimit {
        current: Some(0),
        ..limit
    };
    // If this is refused, the types are read in vain, which does no other harm.
    let lowered = setrlimit(Resource::Nofile, none).is_ok();
    let loader = EbpfLoader::new();
    if lowered {
        // A limit up to the hard one may always be set (`do_prlimit`, kernel/sys.c).
        let _cannot_fail = setrlimit(Resource::Nofile, limit);
    }
    loader
}

/// Makes types that contain only those of these functions that the kernel has, under the
/// kernel's numbers. aya needs no others to attach to a kernel function.
pub fn functions<'a>(types: &KernelTypes, names: impl IntoIterator<Item = &'a str>) -> Btf {
    let numbered = |name| Some((types.function(name)?, name));
    numbered_functions(names.into_iter().filter_map(numbered).collect())
}

fn numbered_functions(mut numbered: Vec<(u32, &str)>) -> Btf {
    numbered.sort_unstable();
    let mut types = Btf::new();
    let mut next = 1;
    for (number, name) in numbered {
        let name = types.add_string(name);
        // A type's number is its position. The other positions have types that aya skips
        // without looking at their names.
        while next < number {
            next = types.add_type(BtfType::Ptr(Ptr::new(0, 0))) + 1;
        }
        if next == number {
            let function = Func::new(name, 0, FuncLinkage::Static);
            next = types.add_type(BtfType::Func(function)) + 1;
        }
    }
    types
}

#[cfg(test)]
mod tests {
    use aya_obj::btf::BtfKind;

    use super::*;

    #[test]
    fn functions_are_found_by_their_numbers() {
        let types = numbered_functions(vec![(70_000, "later"), (3, "early"), (4, "next")]);
        let number = |name| types.id_by_type_name_kind(name, BtfKind::Func).ok();
        let numbers = ["early", "next", "later", "none"].map(number);
        assert_eq!(numbers, [Some(3), Some(4), Some(70_000), None]);
    }
}
