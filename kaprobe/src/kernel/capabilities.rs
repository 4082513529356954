//! What this kernel allows, found by trying: each way of each hook is attached and
//! taken back at once.

use crate::model::named::Named as _;
use anyhow::Result;
use kaprobe_ebpf::config::Config;

use crate::kernel::attach::{self, Attacher};
use crate::kernel::btf::KernelTypes;
use crate::kernel::descriptors::DescriptorIterator;
use crate::kernel::iterator::SocketIterator;
use crate::kernel::tracer::{self, Wanted};
use crate::model::attach_mode::AttachMode;
use crate::model::values::Hook;

/// Bytes of a ring buffer that nothing is written to: a page, of the largest size
/// that Linux has.
const SMALLEST_BUFFER: u32 = 65_536;

/// One way to hook a fact, tried.
#[derive(Debug, Clone)]
pub struct Tried {
    /// Which hook.
    pub hook: Hook,
    /// Which way.
    pub way: AttachMode,
    /// Whether it worked, or why the kernel refused it.
    pub outcome: Result<(), String>,
    /// What it does not show on this kernel, though it works.
    pub misses: Option<&'static str>,
}

/// What was tried.
#[derive(Debug, Clone)]
pub struct Survey {
    /// Every way of every hook.
    pub hooks: Vec<Tried>,
    /// Timer ticks a second; 0 where it could not be learned.
    pub hz: u32,
    /// Whether sockets are read by iter/tcp, or why the kernel refused it.
    pub iterator: Result<(), String>,
    /// Whether the kernel has iter/task_file, which tells who holds them, or why it refused
    /// it.
    pub descriptors: Result<(), String>,
}

/// Tries every way of every hook, and the iterators. Nothing stays attached.
///
/// # Errors
/// When not even the maps can be made: no privilege, no BPF, no BTF.
pub fn survey() -> Result<Survey> {
    let types = KernelTypes::read()?;
    let wanted = Wanted {
        buffer_bytes: SMALLEST_BUFFER,
        ..Wanted::default()
    };
    let config: Config = tracer::config(&types, &wanted)?;
    let mut ebpf = tracer::load(&config, &wanted)?;
    let mut attacher = Attacher::new(&mut ebpf, &types);
    let mut tried = Vec::new();
    let mut hz = 0;
    for &hook in Hook::ALL {
        for way in attach::ways(hook) {
            let outcome = attacher.attach_way(hook, way);
            if hook == Hook::DestroySock && outcome.is_ok() {
                hz = tracer::learn(attacher.ebpf())?.hz;
            }
            attacher.detach_way(hook, way);
            tried.push(Tried {
                hook,
                way,
                outcome: outcome.map_err(|why| attach::reason(&why)),
                misses: misses(&types, hook, way),
            });
        }
    }
    let offsets = &config.offsets.descriptors;
    let descriptors = DescriptorIterator::load(&mut ebpf, &types, offsets);
    drop(ebpf);
    let iterator = SocketIterator::load(&wanted).and_then(|mut it| it.open());
    Ok(Survey {
        hooks: tried,
        hz,
        iterator: iterator.map(drop).map_err(|why| format!("{why:#}")),
        descriptors: descriptors.map(drop).map_err(|why| format!("{why:#}")),
    })
}

/// Before it told reasons, tracepoint tcp_send_reset was silent of segments that have
/// no full socket (`tcp_v4_send_reset`, net/ipv4/tcp_ipv4.c; seen on 5.10 and 6.1).
fn misses(types: &KernelTypes, hook: Hook, way: AttachMode) -> Option<&'static str> {
    let without_reason = types.tracepoint_arguments("tcp_send_reset") < Some(3);
    ((hook, way) == (Hook::SendReset, AttachMode::Tracepoint) && without_reason)
        .then_some("resets that answer a segment which meets nothing here, or what is left of a socket in TIME_WAIT")
}
