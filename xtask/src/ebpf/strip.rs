//! Leaves out of a BPF object what no loader reads.

use anyhow::Result;
use object::build::elf::{Builder, SectionData};
use object::elf::SHT_STRTAB;

/// DWARF is only the raw material of BTF and most of the object's bytes. The
/// relocations of the BTF sections go with it: offsets there are stored in
/// place, and loaders ask the sections themselves.
const UNREAD: [&[u8]; 3] = [b".debug_", b".rel.debug_", b".rel.BTF"];

/// Returns the object without its DWARF: programs, maps, their relocations and BTF stay.
pub fn dwarf(object: &[u8]) -> Result<Vec<u8>> {
    let mut elf = Builder::read(object)?;
    for section in &mut elf.sections {
        section.delete = UNREAD.iter().any(|prefix| section.name.starts_with(prefix));
    }
    // LLVM keeps all names in one table; this writer wants one for sections alone.
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
    fn the_kept_object_has_what_loaders_read_and_no_more() -> Result<()> {
        let kept = std::fs::read(workspace::root().join(OBJECT))?;
        let elf = object::File::parse(&*kept)?;
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
