//! A BPF egress program for all cgroups. It drops packets with one mark, and drops
//! packets with another mark as congested. Other packets pass.
//!
//! It is loaded with plain bpf(2): a few instructions need no library, and the tests must
//! not depend on kaprobe's own loader.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};

use crate::traffic::scenarios::{MARK_CONGEST, MARK_DROP};
use anyhow::{Context, Result};
use kaprobe::host::privilege::raise_memlock;

use crate::{bpf, cgroup};

// From include/uapi/linux/bpf.h.
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_PROG_TYPE_CGROUP_SKB: u32 = 8;
const BPF_CGROUP_INET_EGRESS: u32 = 1;
/// Offset of `mark` in `struct __sk_buff`.
const SKB_MARK: i16 = 8;

/// Return values of the program: `__cgroup_bpf_run_filter_skb`, kernel/bpf/cgroup.c.
mod verdict {
    /// Drops the packet. The sender gets EPERM.
    pub const DROP: i32 = 0;
    pub const PASS: i32 = 1;
    /// Drops the packet. The sender gets NET_XMIT_DROP: congestion.
    pub const DROP_CONGESTED: i32 = 2;
}

/// The attached egress program. Detached when dropped.
#[derive(Debug)]
pub struct Egress {
    _link: OwnedFd,
}

/// `struct bpf_insn`.
#[repr(C)]
struct Insn {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

const fn insn(code: u8, registers: u8, offset: i16, immediate: i32) -> Insn {
    Insn {
        code,
        registers,
        offset,
        immediate,
    }
}

const fn load_word(to: u8, from: u8, offset: i16) -> Insn {
    insn(0x61, to | (from << 4), offset, 0)
}

const fn jump_if_equal(register: u8, value: u32, over: i16) -> Insn {
    insn(0x15, register, over, value.cast_signed())
}

const fn set(register: u8, value: i32) -> Insn {
    insn(0xb7, register, 0, value)
}

const fn exit() -> Insn {
    insn(0x95, 0, 0, 0)
}

static PROGRAM: [Insn; 9] = [
    load_word(0, 1, SKB_MARK),
    jump_if_equal(0, MARK_DROP, 3),
    jump_if_equal(0, MARK_CONGEST, 4),
    set(0, verdict::PASS),
    exit(),
    set(0, verdict::DROP),
    exit(),
    set(0, verdict::DROP_CONGESTED),
    exit(),
];

/// The head of `union bpf_attr` for BPF_PROG_LOAD.
#[repr(C)]
#[derive(Default)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

/// The head of `union bpf_attr` for BPF_LINK_CREATE.
#[repr(C)]
#[derive(Default)]
struct LinkCreate {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
}

impl Egress {
    /// Attaches the program to the root cgroup.
    pub fn attach() -> Result<Self> {
        // A kernel before 5.11 counts the program against RLIMIT_MEMLOCK.
        raise_memlock();
        let load = ProgLoad {
            prog_type: BPF_PROG_TYPE_CGROUP_SKB,
            insn_cnt: PROGRAM.len() as u32,
            insns: PROGRAM.as_ptr() as u64,
            license: c"GPL".as_ptr() as u64,
            expected_attach_type: BPF_CGROUP_INET_EGRESS,
            ..ProgLoad::default()
        };
        let program = bpf::call(BPF_PROG_LOAD, &load).context("load the egress program")?;
        let root = File::open(cgroup::root()?)?;
        let create = LinkCreate {
            prog_fd: program.as_raw_fd().cast_unsigned(),
            target_fd: root.as_raw_fd().cast_unsigned(),
            attach_type: BPF_CGROUP_INET_EGRESS,
            flags: 0,
        };
        let link = bpf::call(BPF_LINK_CREATE, &create).context("attach the egress program")?;
        Ok(Self { _link: link })
    }
}
