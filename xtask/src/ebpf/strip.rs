//! Removes the sections of a BPF object that no loader reads.

use anyhow::Result;
use object::build::elf::{Builder, SectionData};
use object::elf::SHT_STRTAB;

/// Prefixes of the sections to remove: DWARF, and the relocations of DWARF and BTF.
///
/// DWARF is only the input for BTF, and most of the object's bytes. The BTF sections
/// store their offsets in place, so loaders do not need the relocations.
const UNREAD: [&[u8]; 3] = [b".debug_", b".rel.debug_", b".rel.BTF"];

/// The object without DWARF. Programs, maps, their relocations and BTF stay.
pub fn dwarf(object: &[u8]) -> Result<Vec<u8>> {
    let mut elf = Builder::read(object)?;
    for section in &mut elf.sections {
        section.delete = UNREAD.iter().any(|prefix| section.name.starts_with(prefix));
    }
    // LLVM puts all names in one table; this writer needs a separate one for sections.
    let names = elf.sections.add();
    names.name = ".shstrtab".into();
    names.sh_type = SHT_STRTAB;
    names.sh_addralign = 1;
    names.data = SectionData::SectionString;

    let mut stripped = Vec::new();
    elf.write(&mut stripped)?;
    Ok(stripped)
}

#[cfg(test)]
mod tests {
    use anyhow::Result;
    use object::{Object, ObjectSection};

    use crate::ebpf::digest::OBJECT;
    use crate::workspace;

    #[test]
    fn the_committed_object_has_btf_and_no_dwarf() -> Result<()> {
        let bytes = std::fs::read(workspace::root().join(OBJECT))?;
        let elf = object::File::parse(&*bytes)?;
        for section in [
            ".BTF",
            ".BTF.ext",
            "license",
            "maps",
            ".symtab",
            "fentry",
            ".relfentry",
        ] {
            assert!(elf.section_by_name(section).is_some(), "{section}");
        }
        assert!(!elf.sections().any(|section| {
            section
                .name_bytes()
                .is_ok_and(|name| name.starts_with(b".debug_"))
        }));
        Ok(())
    }
}
