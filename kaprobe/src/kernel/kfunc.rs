//! `bpf_rdonly_cast`: with it a program tells the verifier what an address is of, and
//! then loads members straight from memory, where it would call a helper for each.
//!
//! It is a function of the kernel, called by its number in the kernel's BTF, which is
//! known only where the programs are loaded. So the object holds a stand-in, and the
//! call is put in its place before the kernel sees it.

use aya_obj::generated::{bpf_attr, bpf_cmd, bpf_prog_type};
use kaprobe_ebpf::config::{ABSENT, RDONLY_CAST, Types};

use crate::kernel::bpf;
use crate::kernel::btf::KernelTypes;

/// One instruction, as it lies in an object.
type Instruction = [u8; 8];

/// What programs can be told of addresses on this kernel.
#[must_use]
pub fn types(types: &KernelTypes) -> Types {
    let found = || {
        Some(Types {
            rdonly_cast: types.function("bpf_rdonly_cast")?,
            tcp_sock: types.structure("tcp_sock")?,
            socket_alloc: types.structure("socket_alloc")?,
            cgroup: types.structure("cgroup")?,
        })
    };
    found().filter(is_taken).unwrap_or(Types::ABSENT)
}

/// An object whose stand-ins are calls, where the kernel has what they stand for.
#[must_use]
pub fn put_calls(object: &[u8], types: &Types) -> Vec<u8> {
    let mut object = object.to_vec();
    if types.rdonly_cast != ABSENT {
        let stand_in = helper_call(RDONLY_CAST);
        // Sections of instructions begin at a multiple of their size.
        for place in object.chunks_exact_mut(size_of::<Instruction>()) {
            if place == stand_in {
                place.copy_from_slice(&kernel_call(types.rdonly_cast));
            }
        }
    }
    object
}

/// Whether the kernel takes such a call: it refuses all of them without its JIT.
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
    // SAFETY: zero is a value of this union of integers.
    let mut attr: bpf_attr = unsafe { std::mem::zeroed() };
    // SAFETY: this is the member that goes with BPF_PROG_LOAD.
    let load = unsafe { &mut attr.__bindgen_anon_3 };
    load.prog_type = bpf_prog_type::BPF_PROG_TYPE_RAW_TRACEPOINT as u32;
    load.insn_cnt = 5;
    load.insns = program.as_ptr() as u64;
    load.license = c"Dual MIT/GPL".as_ptr() as u64;
    // A descriptor that is dropped at once.
    bpf::call_for_fd(bpf_cmd::BPF_PROG_LOAD, &mut attr).is_ok()
}

/// A call of a helper.
fn helper_call(number: i32) -> Instruction {
    instruction(0x85, 0, number.cast_unsigned())
}

/// A call of a function of the kernel: `BPF_PSEUDO_KFUNC_CALL`, uapi/linux/bpf.h.
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
        let called = put_calls(OBJECT, &types);
        assert_eq!(count(&called, helper_call(RDONLY_CAST)), 0);
        assert_eq!(count(&called, kernel_call(77)), stand_ins);
        assert_eq!(put_calls(OBJECT, &Types::ABSENT), OBJECT);
    }
}
