//! The floor: programs that do nothing, on the hooks that kaprobe takes.

use anyhow::{Context as _, Result, bail};
use aya::programs::Program;
use aya::{Btf, Ebpf};
use object::write::{Object, StandardSegment, Symbol, SymbolSection};
use object::{
    Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolKind, SymbolScope,
};

/// `r0 = 0; exit`.
const NOTHING: [u8; 16] = [0xb7, 0, 0, 0, 0, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0];

/// The kernel's function.
const TIMER: &str = "tcp_keepalive_timer";

/// Sections of a way's two programs, as libbpf names them, and what they attach to.
fn parts(way: &str) -> Result<[(&'static str, &'static str); 2]> {
    Ok(match way {
        "fentry" => [("fentry", TIMER), ("fexit", TIMER)],
        "kprobe" => [("kprobe", TIMER), ("kretprobe", TIMER)],
        "tracepoint" => [
            ("raw_tp", "timer_expire_entry"),
            ("raw_tp", "timer_expire_exit"),
        ],
        _ => bail!("no empty programs for {way}"),
    })
}

/// Attaches empty programs in one way, until dropped. They are this process's.
pub fn attach(way: &str) -> Result<Ebpf> {
    let parts = parts(way)?;
    let mut ebpf = Ebpf::load(&assemble(&parts)?).context("cannot load the empty programs")?;
    for (n, (_, target)) in parts.into_iter().enumerate() {
        let program = ebpf.program_mut(&name(n)).context("no empty program")?;
        match program {
            Program::FEntry(p) => {
                p.load(target, &Btf::from_sys_fs()?)?;
                p.attach()?;
            }
            Program::FExit(p) => {
                p.load(target, &Btf::from_sys_fs()?)?;
                p.attach()?;
            }
            Program::KProbe(p) => {
                p.load()?;
                p.attach(target, 0)?;
            }
            Program::RawTracePoint(p) => {
                p.load()?;
                p.attach(target)?;
            }
            _ => bail!("an empty program of a strange type"),
        }
    }
    Ok(ebpf)
}

fn name(n: usize) -> String {
    format!("empty_{n}")
}

/// A BPF object file with an empty program for each part.
fn assemble(parts: &[(&str, &str)]) -> Result<Vec<u8>> {
    let mut file = Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
    let segment = file.segment_name(StandardSegment::Data).to_vec();
    let license = file.add_section(segment, b"license".to_vec(), SectionKind::Data);
    file.append_section_data(license, b"GPL\0", 1);
    for (n, (kind, target)) in parts.iter().enumerate() {
        let segment = file.segment_name(StandardSegment::Text).to_vec();
        let section = format!("{kind}/{target}").into_bytes();
        let section = file.add_section(segment, section, SectionKind::Text);
        file.append_section_data(section, &NOTHING, 8);
        file.add_symbol(Symbol {
            name: name(n).into_bytes(),
            value: 0,
            size: NOTHING.len() as u64,
            kind: SymbolKind::Text,
            scope: SymbolScope::Dynamic,
            weak: false,
            section: SymbolSection::Section(section),
            flags: SymbolFlags::None,
        });
    }
    file.write().context("cannot write an ELF file")
}
