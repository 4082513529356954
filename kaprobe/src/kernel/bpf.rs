//! The system call bpf(2), for what aya does not do. Each function fails if the kernel
//! refuses the command.

use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

use aya_obj::generated::{
    bpf_attach_type, bpf_attr, bpf_cmd, bpf_link_info, bpf_prog_info, bpf_prog_type,
};

/// An instruction of a program.
pub type Instruction = [u8; 8];

/// Loads a program for raw tracepoints.
pub fn load_raw_tracepoint(program: &[Instruction]) -> io::Result<OwnedFd> {
    let mut attr = empty();
    // SAFETY: integers, all zero.
    let load = unsafe { &mut attr.__bindgen_anon_3 };
    load.prog_type = bpf_prog_type::BPF_PROG_TYPE_RAW_TRACEPOINT as u32;
    load.insn_cnt = u32::try_from(program.len()).map_err(io::Error::other)?;
    load.insns = program.as_ptr() as u64;
    load.license = c"Dual MIT/GPL".as_ptr() as u64;
    // SAFETY: the kernel reads as many instructions as there are, and the license up to its
    // NUL; it writes nothing. The result is a new descriptor.
    unsafe { call_for_fd(bpf_cmd::BPF_PROG_LOAD, &mut attr) }
}

/// Runs a program for raw tracepoints with these arguments, and returns its result. Since 5.10
/// (`bpf_prog_test_run_raw_tp`, net/bpf/test_run.c).
pub fn run_raw_tracepoint(program: BorrowedFd<'_>, arguments: &[u64]) -> io::Result<u32> {
    let mut attr = empty();
    attr.test.prog_fd = number(program)?;
    attr.test.ctx_in = arguments.as_ptr() as u64;
    attr.test.ctx_size_in = u32::try_from(size_of_val(arguments)).map_err(io::Error::other)?;
    // SAFETY: the kernel reads the arguments, which have the length that is passed, and writes
    // only its result into the attribute.
    unsafe { call(bpf_cmd::BPF_PROG_TEST_RUN, &mut attr) }?;
    // SAFETY: the kernel has written this member; it is an integer.
    Ok(unsafe { attr.test.retval })
}

/// Attaches a loaded program of an iterator.
pub fn link_iterator(program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut attr = empty();
    attr.link_create.__bindgen_anon_1.prog_fd = number(program)?;
    attr.link_create.attach_type = bpf_attach_type::BPF_TRACE_ITER as u32;
    // SAFETY: the attribute has no pointer. The result is a new descriptor.
    unsafe { call_for_fd(bpf_cmd::BPF_LINK_CREATE, &mut attr) }
}

/// Opens an attached iterator, to be read from its start.
pub fn open_iterator(link: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut attr = empty();
    attr.iter_create.link_fd = number(link)?;
    // SAFETY: the attribute has no pointer. The result is a new descriptor.
    unsafe { call_for_fd(bpf_cmd::BPF_ITER_CREATE, &mut attr) }
}

/// Opens a link by its id.
pub fn open_link(id: u32) -> io::Result<OwnedFd> {
    let mut attr = empty();
    attr.__bindgen_anon_6.__bindgen_anon_1.link_id = id;
    // SAFETY: the attribute has no pointer. The result is a new descriptor.
    unsafe { call_for_fd(bpf_cmd::BPF_LINK_GET_FD_BY_ID, &mut attr) }
}

/// What the kernel says of a program.
pub fn program_info(program: BorrowedFd<'_>) -> io::Result<bpf_prog_info> {
    // SAFETY: integers only.
    unsafe { info(program) }
}

/// What the kernel says of a link.
pub fn link_info(link: BorrowedFd<'_>) -> io::Result<bpf_link_info> {
    // SAFETY: integers only.
    unsafe { info(link) }
}

/// What the kernel says of a BPF object.
///
/// # Safety
/// `T` must consist of integers only. The kernel fills no more of it than there is, and
/// with lengths of 0 in it does not follow its pointers (`bpf_obj_get_info_by_fd`,
/// kernel/bpf/syscall.c).
unsafe fn info<T>(object: BorrowedFd<'_>) -> io::Result<T> {
    // SAFETY: zero is a value of integers.
    let (mut info, mut attr): (T, _) = (unsafe { zeroed() }, empty());
    attr.info.bpf_fd = number(object)?;
    attr.info.info_len = u32::try_from(size_of::<T>()).map_err(io::Error::other)?;
    attr.info.info = &raw mut info as u64;
    // SAFETY: the kernel writes to `info` only, which it has the length of.
    unsafe { call(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr) }?;
    Ok(info)
}

fn empty() -> bpf_attr {
    // SAFETY: zero is a value of this union of integers.
    unsafe { zeroed() }
}

fn number(fd: BorrowedFd<'_>) -> io::Result<u32> {
    u32::try_from(fd.as_raw_fd()).map_err(io::Error::other)
}

/// Gives a command.
///
/// # Safety
/// The pointers in `attr` must suit the command, which reads and writes where they lead.
unsafe fn call(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<RawFd> {
    // SAFETY: the attribute outlives the call and its size is passed; the caller answers
    // for its pointers.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as libc::c_int,
            &raw mut *attr,
            size_of::<bpf_attr>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    RawFd::try_from(result).map_err(io::Error::other)
}

/// Gives a command that makes a descriptor.
///
/// # Safety
/// As for [`call`]; and the result of the command must be a new descriptor.
unsafe fn call_for_fd(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<OwnedFd> {
    // SAFETY: as the caller promises.
    let fd = unsafe { call(command, attr) }?;
    // SAFETY: the kernel has just given this descriptor to this call alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
