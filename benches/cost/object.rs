//! Assembles BPF object files from instructions, without a compiler.

use anyhow::{Context as _, Result};
use object::write::{
    Object, Relocation, SectionId, StandardSegment, Symbol, SymbolId, SymbolSection,
};
use object::{
    Architecture, BinaryFormat, Endianness, RelocationFlags, SectionKind, SymbolFlags, SymbolKind,
    SymbolScope,
};

/// A BPF instruction (RFC 9669, 3).
pub type Instruction = [u8; 8];

/// Encodes a BPF instruction.
pub fn instruction(
    opcode: u8,
    destination: u8,
    source: u8,
    offset: i16,
    immediate: i32,
) -> Instruction {
    let [o0, o1] = offset.to_le_bytes();
    let [i0, i1, i2, i3] = immediate.to_le_bytes();
    [opcode, source << 4 | destination, o0, o1, i0, i1, i2, i3]
}

/// A BPF program.
pub struct Program<'a> {
    /// The name.
    pub name: &'a str,
    /// The section name, from which libbpf and aya take the type.
    pub section: String,
    /// The instructions.
    pub code: Vec<Instruction>,
    /// The index of the instruction that loads the address of the data.
    pub loads_data: Option<usize>,
}

/// Makes an object file with these programs and a number of zero bytes for their data.
pub fn assemble(programs: &[Program<'_>], data_bytes: u64) -> Result<Vec<u8>> {
    let mut file = Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
    let segment = file.segment_name(StandardSegment::Data).to_vec();
    let license = file.add_section(segment.clone(), b"license".to_vec(), SectionKind::Data);
    file.append_section_data(license, b"GPL\0", 1);
    let data = (data_bytes > 0).then(|| {
        let bss = file.add_section(segment, b".bss".to_vec(), SectionKind::UninitializedData);
        file.append_section_bss(bss, data_bytes, 8);
        symbol(&mut file, "DATA", bss, SymbolKind::Data, data_bytes)
    });
    for program in programs {
        let code = program.code.as_flattened();
        let segment = file.segment_name(StandardSegment::Text).to_vec();
        let section = program.section.clone().into_bytes();
        let section = file.add_section(segment, section, SectionKind::Text);
        file.append_section_data(section, code, 8);
        symbol(
            &mut file,
            program.name,
            section,
            SymbolKind::Text,
            code.len() as u64,
        );
        if let Some(at) = program.loads_data {
            let relocation = Relocation {
                offset: (at * size_of::<Instruction>()) as u64,
                symbol: data.context("a program loads data, but the object has none")?,
                addend: 0,
                flags: RelocationFlags::Elf {
                    r_type: object::elf::R_BPF_64_64,
                },
            };
            file.add_relocation(section, relocation)?;
        }
    }
    file.write().context("cannot write an ELF file")
}

fn symbol(
    file: &mut Object<'_>,
    name: &str,
    section: SectionId,
    kind: SymbolKind,
    size: u64,
) -> SymbolId {
    file.add_symbol(Symbol {
        name: name.as_bytes().to_vec(),
        value: 0,
        size,
        kind,
        scope: SymbolScope::Dynamic,
        weak: false,
        section: SymbolSection::Section(section),
        flags: SymbolFlags::None,
    })
}
