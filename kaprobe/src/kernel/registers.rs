//! Where a kprobe finds the arguments of a function, and what it returned: in `pt_regs`, whose
//! members differ between architectures.
//!
//! The verifier lets a program read its context at constant offsets only. So the object
//! contains offsets that stand for the real ones, and kaprobe replaces them before it loads
//! the programs.

use kaprobe_ebpf::config::{ARGUMENTS, RETURNED};

use crate::kernel::bpf::Instruction;
use crate::kernel::btf::KernelTypes;

/// Offsets in the context of a kprobe, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registers {
    /// Of the first arguments of a function.
    arguments: [i16; ARGUMENTS.len()],
    /// Of what a function returned.
    returned: i16,
}

impl Registers {
    /// Finds the registers of this kernel's architecture by their names; `None` if it is not
    /// one that kaprobe knows.
    #[must_use]
    pub fn find(types: &KernelTypes) -> Option<Self> {
        let at = |name| types.pt_regs(name);
        // How functions are called: arch/x86/include/asm/ptrace.h, `regs_get_kernel_argument`.
        let x86_64 = || {
            Some(Self {
                arguments: [at("di")?, at("si")?, at("dx")?],
                returned: at("ax")?,
            })
        };
        // The same function in arch/arm64/include/asm/ptrace.h. Other architectures have `regs`
        // too, and pass arguments elsewhere in them; only this one has `pstate`.
        let arm64 = || {
            let (_, first) = (at("pstate")?, at("regs")?);
            Some(Self {
                arguments: [first, first + 8, first + 16],
                returned: first,
            })
        };
        x86_64().or_else(arm64)
    }

    /// Replaces the offsets that stand for these in an object.
    pub fn put(&self, object: &mut [u8]) {
        let stand_ins = ARGUMENTS.iter().chain([&RETURNED]);
        let registers = self.arguments.iter().chain([&self.returned]);
        let places: Vec<_> = stand_ins.zip(registers).collect();
        // Sections of instructions begin at a multiple of their size.
        for instruction in object.chunks_exact_mut(size_of::<Instruction>()) {
            let read = read_offset(instruction);
            if let Some((_, place)) = places.iter().find(|(it, _)| read == Some(**it)) {
                instruction[2..4].copy_from_slice(&place.to_le_bytes());
            }
        }
    }
}

/// The offset of a read of eight bytes, `BPF_LDX | BPF_MEM | BPF_DW` (uapi/linux/bpf.h);
/// `None` for another instruction.
fn read_offset(instruction: &[u8]) -> Option<i16> {
    match *instruction {
        [0x79, _, low, high, 0, 0, 0, 0] => Some(i16::from_le_bytes([low, high])),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use anyhow::{Context as _, Result};

    use super::*;
    use crate::kernel::object::OBJECT;
    use crate::kernel::types::testing::btf;

    /// The registers of `pt_regs` with these 64-bit members.
    fn found(members: &[(&str, u32)]) -> Result<Option<Registers>> {
        let mut names = "\0pt_regs\0".to_owned();
        let count = u32::try_from(members.len())?;
        let mut types = vec![0, 1 << 24, 8, 64, 1, 4 << 24 | count, 1024];
        for (name, offset) in members {
            types.extend([u32::try_from(names.len())?, 1, offset * 8]);
            names += &format!("{name}\0");
        }
        Ok(Registers::find(&KernelTypes::parse(btf(&types, &names))?))
    }

    /// The offsets are those of 6.1 on both architectures.
    #[test]
    fn registers_are_those_of_the_architecture() -> Result<()> {
        let x86_64 = [("ax", 80), ("dx", 96), ("si", 104), ("di", 112)];
        let arm64 = [("regs", 0), ("sp", 248), ("pc", 256), ("pstate", 264)];
        let loongarch = [("regs", 0), ("orig_a0", 256), ("csr_era", 264)];
        let expected = |arguments, returned| {
            Some(Registers {
                arguments,
                returned,
            })
        };
        assert_eq!(found(&x86_64)?, expected([112, 104, 96], 80));
        assert_eq!(found(&arm64)?, expected([0, 8, 16], 0));
        assert_eq!(found(&loongarch)?, None);
        assert_eq!(found(&x86_64[1..])?, None);
        Ok(())
    }

    #[test]
    fn this_kernel_has_known_registers() -> Result<()> {
        let types = KernelTypes::read()?;
        let registers = Registers::find(&types).context("no registers")?;
        let mut places = registers.arguments.to_vec();
        places.dedup();
        assert_eq!(places.len(), ARGUMENTS.len(), "{registers:?}");
        Ok(())
    }

    #[test]
    fn each_stand_in_is_replaced() {
        let count = |object: &[u8], wanted: &[i16]| {
            let all = object.chunks_exact(size_of::<Instruction>());
            let reads = all.filter_map(read_offset);
            reads.filter(|it| wanted.contains(it)).count()
        };
        let registers = Registers {
            arguments: [0x7000, 0x7008, 0x7010],
            returned: 0x7018,
        };
        let mut placed = OBJECT.to_vec();
        registers.put(&mut placed);
        // timer: 1. wakeup: 1. active resets: 3. passive resets: 2 times 3. arrivals: 2.
        for (stand_in, register, reads) in [
            (ARGUMENTS[0], registers.arguments[0], 5),
            (ARGUMENTS[1], registers.arguments[1], 4),
            (ARGUMENTS[2], registers.arguments[2], 3),
            (RETURNED, registers.returned, 1),
        ] {
            assert_eq!(count(OBJECT, &[stand_in]), reads, "{stand_in:x}");
            assert_eq!(count(&placed, &[stand_in]), 0, "{stand_in:x}");
            assert_eq!(count(&placed, &[register]), reads, "{stand_in:x}");
        }
    }
}
