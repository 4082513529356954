//! Calls of the kernel function `bpf_rdonly_cast`. With it a program tells the verifier the
//! type of an address, and then loads members straight from memory; without it, members are
//! read by helper calls.
//!
//! A program calls it by its number in the kernel's BTF, which is known only where the
//! programs are loaded. So the object contains a stand-in for each call, and kaprobe
//! replaces the stand-ins before it loads the programs.

use kaprobe_ebpf::config::{ABSENT, RDONLY_CAST, Types};

use crate::kernel::bpf::{self, Instruction};
use crate::kernel::btf::KernelTypes;

/// The types that the programs can give to addresses on this kernel.
#[must_use]
pub fn types(types: &KernelTypes) -> Types {
    let found = || {
        Some(Types {
            rdonly_cast: types.function("bpf_rdonly_cast")?,
            tcp_sock: types.structure("tcp_sock")?,
            socket_alloc: types.structure("socket_alloc")?,
            cgroup: types.structure("cgroup")?,
            net: types.structure("net")?,
        })
    };
    found().filter(is_taken).unwrap_or(Types::ABSENT)
}

/// Replaces the stand-ins in an object with calls, if the kernel has the function.
pub fn put_calls(object: &mut [u8], types: &Types) {
    if types.rdonly_cast != ABSENT {
        let stand_in = helper_call(RDONLY_CAST);
        // Sections of instructions begin at a multiple of their size.
        for instruction in object.chunks_exact_mut(size_of::<Instruction>()) {
            if instruction == stand_in {
                instruction.copy_from_slice(&kernel_call(types.rdonly_cast));
            }
        }
    }
}

/// Whether the kernel accepts such a call. Without its JIT it refuses all calls of its
/// functions.
fn is_taken(types: &Types) -> bool {
    let program = [
        // r1 = 0; r2 = tcp_sock
        instruction(0xb7, 1, 0),
        instruction(0xb7, 2, types.tcp_sock),
        kernel_call(types.rdonly_cast),
        // r0 = 0; exit
        instruction(0xb7, 0, 0),
        instruction(0x95, 0, 0),
    ];
    bpf::load_raw_tracepoint(&program).is_ok()
}

/// A call of a helper.
fn helper_call(number: i32) -> Instruction {
    instruction(0x85, 0, number.cast_unsigned())
}

/// A call of a kernel function: `BPF_PSEUDO_KFUNC_CALL`, uapi/linux/bpf.h.
fn kernel_call(number: u32) -> Instruction {
    instruction(0x85, 2 << 4, number)
}

fn instruction(code: u8, registers: u8, immediate: u32) -> Instruction {
    let [a, b, c, d] = immediate.to_le_bytes();
    [code, registers, 0, 0, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::object::OBJECT;

    #[test]
    fn each_stand_in_becomes_a_call() {
        let types = Types {
            rdonly_cast: 77,
            ..Types::ABSENT
        };
        let count = |object: &[u8], instruction| {
            let all = object.chunks_exact(size_of::<Instruction>());
            all.filter(|&place| place == instruction).count()
        };
        let stand_ins = count(OBJECT, helper_call(RDONLY_CAST));
        assert_ne!(stand_ins, 0);
        let mut called = OBJECT.to_vec();
        put_calls(&mut called, &types);
        assert_eq!(count(&called, helper_call(RDONLY_CAST)), 0);
        assert_eq!(count(&called, kernel_call(77)), stand_ins);
        let mut uncalled = OBJECT.to_vec();
        put_calls(&mut uncalled, &Types::ABSENT);
        assert_eq!(uncalled, OBJECT);
    }
}
