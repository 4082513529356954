//! What this kernel allows, found by trying: each mode of each hook is attached and
//! detached at once.

use anyhow::Result;

use crate::exit;
use crate::filter::kernel::KernelFilter;
use crate::kernel::btf::KernelTypes;
use crate::kernel::config::TracerConfig;
use crate::kernel::descriptors::DescriptorIterator;
use crate::kernel::iterator::SocketIterator;
use crate::kernel::object::LoadedObject;
use crate::kernel::owner_hooks::OwnerHooks;
use crate::kernel::{programs, refusal};
use crate::model::attach_mode::AttachMode;
use crate::model::named::Named as _;
use crate::model::values::Hook;

/// One mode of one hook, tried.
#[derive(Debug, Clone)]
pub struct AttachProbe {
    /// The hook.
    pub hook: Hook,
    /// The mode.
    pub mode: AttachMode,
    /// Whether it worked, or why the kernel refused it.
    pub outcome: Result<(), String>,
    /// What it does not show on this kernel, though it works.
    pub misses: Option<&'static str>,
}

/// What this kernel allows.
#[derive(Debug, Clone)]
pub struct Capabilities {
    /// Every mode of every hook.
    pub hooks: Vec<AttachProbe>,
    /// Timer ticks a second; 0 if they are unknown.
    pub hz: u32,
    /// Why it could not be tested whether attached programs see anything; `None` if it was
    /// tested.
    pub untested: Option<String>,
    /// Whether iter/tcp reads the sockets, or why the kernel refused it.
    pub iterator: Result<(), String>,
    /// Whether iter/task_file reads the owners of sockets, or why the kernel refused it.
    pub descriptors: Result<(), String>,
    /// How changes of owners are seen, or why the kernel refused it.
    pub owner_hooks: Result<OwnerHooks, String>,
}

impl Capabilities {
    /// Tries every mode of every hook, and the iterators. Nothing stays attached. A mode
    /// in which a timer fires unseen does not work, though the kernel accepts it.
    ///
    /// # Errors
    /// When the maps can't be created: without privilege, without BPF, or without BTF. Or
    /// when something has run out, so that nothing can be told.
    pub fn probe() -> Result<Self> {
        // The verifier does not look at what the programs do for events that nobody wants.
        let filter = KernelFilter {
            event_mask: u32::MAX,
            ..KernelFilter::default()
        };
        let config = TracerConfig {
            filter,
            ..TracerConfig::default()
        };
        let mut object = LoadedObject::load(&config)?;
        let mut hooks = Vec::new();
        let mut hz = 0;
        if object.attach(Hook::DestroySock).is_ok() {
            hz = object.calibrate()?.hz;
            object.detach(Hook::DestroySock, AttachMode::Tracepoint);
        }
        for &hook in Hook::ALL {
            for mode in programs::modes(hook) {
                let outcome = object.attach_seeing(hook, mode);
                object.detach(hook, mode);
                hooks.push(AttachProbe {
                    hook,
                    mode,
                    outcome: refusal(outcome, refusal::reason)?,
                    misses: misses(&object.types, hook, mode),
                });
            }
        }
        let descriptors = DescriptorIterator::load(&mut object);
        let owner_hooks = object.attach_owner_hooks();
        let untested = object.untested.take();
        drop(object);
        let iterator = SocketIterator::load(&config).and_then(|mut it| it.open());
        Ok(Self {
            hooks,
            hz,
            untested,
            iterator: refusal(iterator.map(drop), |why| format!("{why:#}"))?,
            descriptors: refusal(descriptors.map(drop), |why| format!("{why:#}"))?,
            owner_hooks: refusal(owner_hooks, |why| format!("{why:#}"))?,
        })
    }
}

/// Why the kernel refused something, if it did. An error that says nothing about the kernel
/// stays one.
fn refusal<T>(
    outcome: Result<T>,
    reason: impl FnOnce(&anyhow::Error) -> String,
) -> Result<Result<T, String>> {
    match outcome {
        Err(why) if exit::exhausted(&why).is_some() => Err(why),
        outcome => Ok(outcome.map_err(|why| reason(&why))),
    }
}

/// What a mode does not show on this kernel. Before tracepoint tcp_send_reset had a reason,
/// it was silent about segments that do not meet a full socket (`tcp_v4_send_reset`,
/// net/ipv4/tcp_ipv4.c; seen on 5.10 and 6.1).
fn misses(types: &KernelTypes, hook: Hook, mode: AttachMode) -> Option<&'static str> {
    let without_reason = types.tracepoint_arguments("tcp_send_reset") < Some(3);
    ((hook, mode) == (Hook::SendReset, AttachMode::Tracepoint) && without_reason)
        .then_some("resets that answer a segment which meets nothing here, or what is left of a socket in TIME_WAIT")
}
