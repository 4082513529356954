//! The system call bpf(2), for what aya does not do.

use std::io;
use std::mem::size_of;
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};

use aya_obj::generated::{bpf_attr, bpf_cmd};

/// Gives a command. It must be one that writes nowhere but where `attr` points, and
/// what it points to must suit the command.
///
/// # Errors
/// The kernel's own.
pub fn call(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<RawFd> {
    // SAFETY: the attribute outlives the call, its size is told, and the commands
    // used here write nowhere but where it points.
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

/// The same, of a command that makes a descriptor.
///
/// # Errors
/// The kernel's own.
pub fn call_for_fd(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<OwnedFd> {
    let fd = call(command, attr)?;
    // SAFETY: the kernel has just given this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
