//! The BPF object: its maps created and its filters filled, its programs ready to attach.

use anyhow::{Context as _, Result, anyhow, bail};
use aya::maps::lpm_trie::Key;
use aya::maps::{Array, LpmTrie, Map};
use aya::programs::Iter;
use aya::util::nr_cpus;
use aya::{Btf, Ebpf, Pod};
use ipnet::IpNet;
use kaprobe_ebpf::config::{Config, Learned, State};
use kaprobe_ebpf::wire::counter;

use crate::exit;
use crate::filter::kernel::MAX_NETWORKS;
use crate::filter::ports::PortSet;
use crate::kernel::btf::KernelTypes;
use crate::kernel::config::TracerConfig;
use crate::kernel::decode::Decoder;
use crate::kernel::registers::Registers;
use crate::kernel::testbed::Testbed;
use crate::kernel::{clock, kfunc, loader, members, programs, refusal, socket_table};
use crate::model::attach_mode::AttachMode;
use crate::model::limits::Limits;

/// The compiled programs. The repository holds them beside the digest of their sources.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!("../../bpf/kaprobe.bpf.o");

/// The object and the data to attach its programs. Its maps exist in the kernel; a program
/// is loaded only when it is attached.
pub(super) struct LoadedObject {
    pub ebpf: Ebpf,
    pub types: KernelTypes,
    /// The kernel functions that programs attach to, in the form in which aya looks them up.
    pub functions: Btf,
    /// The settings that the programs have.
    pub config: Config,
    /// kaprobe knows where this architecture has the arguments of a function. Otherwise the
    /// kernel refuses the programs of kprobes.
    pub knows_registers: bool,
    /// The only mode to attach in, for a hook that has several; `None` allows all.
    pub mode: Option<AttachMode>,
    /// Address of `tcp_keepalive_timer`, as in `timer.function`; 0 until it is known.
    pub timer_function: u64,
    /// The modes in which attached programs see nothing, and why.
    pub blind: Vec<(AttachMode, String)>,
    /// Why it could not be tested whether the programs see anything.
    pub untested: Option<String>,
    /// Where connections are reset to test whether the programs see it; `None` until needed.
    pub testbed: Option<Testbed>,
    /// A program sees, inside each firing, whether a probe was sent.
    pub sees_wakeups: bool,
}

impl LoadedObject {
    /// Reads the kernel's types, creates the maps and fills the filters.
    ///
    /// # Errors
    /// When the kernel lacks what kaprobe needs, or refuses a map.
    pub fn load(wanted: &TracerConfig) -> Result<Self> {
        clock::read_namespace()?;
        let types = KernelTypes::read()?;
        let config = wanted.for_programs(&types, OBJECT)?;
        let registers = Registers::find(&types);
        let mut object = OBJECT.to_vec();
        kfunc::put_calls(&mut object, &config.types);
        members::put(&mut object, &config)?;
        socket_table::put_flags(&mut object, socket_table::flags(&types, &config));
        if let Some(registers) = &registers {
            registers.put(&mut object);
        }
        let mut ebpf = create_maps(&object, &config, wanted.limits)?;
        let sockets = &wanted.filter.sockets;
        fill_ports(&mut ebpf, "LOCAL_PORTS", &sockets.local_ports)?;
        fill_ports(&mut ebpf, "REMOTE_PORTS", &sockets.remote_ports)?;
        fill_ports(&mut ebpf, "EITHER_PORTS", &sockets.ports)?;
        fill_networks(&mut ebpf, &sockets.networks)?;
        Ok(Self {
            functions: loader::functions(&types, programs::functions()),
            ebpf,
            types,
            config,
            knows_registers: registers.is_some(),
            mode: wanted.attach,
            sees_wakeups: false,
            timer_function: 0,
            blind: Vec::new(),
            untested: None,
            testbed: None,
        })
    }

    /// Loads one of the object's iterators, over the kernel's items of that name.
    ///
    /// # Errors
    /// When the kernel does not have such an iterator, or refuses it.
    pub fn load_iterator(&mut self, program: &str, items: &str) -> Result<&mut Iter> {
        let iterator = iterator(&mut self.ebpf, program)?;
        if let Err(why) = iterator.load(items, &self.functions) {
            let why = anyhow::Error::from(why);
            if let Some(cause) = exit::exhausted(&why) {
                return Err(cause.into());
            }
            let why = refusal::reason(&why);
            bail!("the kernel refuses the iterator iter/{items}: {why}");
        }
        Ok(iterator)
    }

    /// Decodes what the programs send, on a kernel whose timer ticks `hz` times a second.
    pub fn decoder(&self, hz: u32) -> Decoder {
        Decoder {
            hz,
            reset_reasons: self.types.reset_reasons(),
            clock_offset_ns: clock::offset_ns(),
        }
    }

    /// Keeps only the programs and maps, and frees the data to attach. It is as large as a
    /// ring buffer.
    pub fn into_ebpf(self) -> Ebpf {
        self.ebpf
    }
}

fn create_maps(object: &[u8], config: &Config, limits: Limits) -> Result<Ebpf> {
    let cpus = u32::try_from(cpus()?)?;
    // One more for each softirq that preempts another. A firing whose exit was missed keeps
    // its entry until its timer fires again, so there is room for some of those too.
    let preempted = if config.preempt_rt == 0 {
        1
    } else {
        cpus.saturating_mul(8).max(256)
    };
    loader::without_types()
        .override_global("CONFIG", &Plain(*config), true)
        .map_max_entries("EVENTS", limits.buffer_bytes)
        .map_max_entries("SOCKETS", limits.sockets)
        .map_max_entries("FIRINGS", cpus)
        .map_max_entries("FIRINGS_PREEMPTED", preempted)
        .map_max_entries("COUNTERS", counter::COUNT * cpus)
        .map_max_entries("ADDRESSES", MAX_NETWORKS as u32)
        .load(object)
        .context("cannot create kaprobe's BPF maps")
}

fn fill_ports(ebpf: &mut Ebpf, name: &str, ports: &PortSet) -> Result<()> {
    if ports.is_empty() {
        return Ok(());
    }
    let mut map: Array<_, u64> = Array::try_from(map_mut(ebpf, name)?)?;
    for (index, word) in (0..).zip(ports.bitmap()) {
        if word != 0 {
            map.set(index, word, 0)?;
        }
    }
    Ok(())
}

fn fill_networks(ebpf: &mut Ebpf, networks: &[IpNet]) -> Result<()> {
    let mut map: LpmTrie<_, [u8; 16], u8> = LpmTrie::try_from(map_mut(ebpf, "ADDRESSES")?)?;
    for network in networks {
        let (prefix, bytes) = match network {
            // The programs look IPv4 up as ::ffff:0:0/96.
            IpNet::V4(v4) => (96 + v4.prefix_len(), v4.network().to_ipv6_mapped().octets()),
            IpNet::V6(v6) => (v6.prefix_len(), v6.network().octets()),
        };
        map.insert(&Key::new(u32::from(prefix), bytes), 1, 0)?;
    }
    Ok(())
}

/// Tells the programs what to do from now on.
pub fn set_state(ebpf: &mut Ebpf, state: State) -> Result<()> {
    Array::<_, Plain<State>>::try_from(map_mut(ebpf, ".bss")?)?
        .set(0, Plain(state), 0)
        .context("cannot set the programs' state")
}

/// The values that the programs read from the socket whose cookie is `learn_cookie` in
/// their state.
pub fn calibration(ebpf: &mut Ebpf) -> Result<Learned> {
    let map = Array::<_, Plain<Learned>>::try_from(map_mut(ebpf, "LEARNED")?)?;
    Ok(map.get(&0, 0)?.0)
}

/// Forgets what the programs saw.
pub fn forget_sight(ebpf: &mut Ebpf) -> Result<()> {
    let mut map = Array::<_, Plain<Learned>>::try_from(map_mut(ebpf, "LEARNED")?)?;
    Ok(map.set(0, Plain(Learned::default()), 0)?)
}

/// Whether the programs saw all of these since [`forget_sight`].
pub fn have_seen(ebpf: &mut Ebpf, sights: &[usize]) -> Result<bool> {
    let seen = calibration(ebpf)?.seen;
    Ok(sights.iter().all(|&sight| seen[sight] != 0))
}

/// Takes a map out of the object. Only once all programs are loaded: they refer to maps by
/// descriptor.
pub fn take_map(ebpf: &mut Ebpf, name: &str) -> Result<Map> {
    let map = ebpf.take_map(name);
    map.with_context(|| format!("the BPF object has no map {name}"))
}

fn map_mut<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Map> {
    let map = ebpf.map_mut(name);
    map.with_context(|| format!("the BPF object has no map {name}"))
}

/// An iterator of the object.
pub fn iterator<'a>(ebpf: &'a mut Ebpf, program: &str) -> Result<&'a mut Iter> {
    let program = ebpf.program_mut(program);
    Ok(program
        .context("the BPF object has no iterator")?
        .try_into()?)
}

/// How many CPUs there can be.
pub fn cpus() -> Result<usize> {
    nr_cpus().map_err(|(file, why)| anyhow!("cannot read {file}: {why}"))
}

/// A type that the programs and user space share, as aya may copy it to and from the
/// kernel.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Plain<T>(T);

// SAFETY: integers only, without padding.
unsafe impl Pod for Plain<Config> {}
// SAFETY: integers only, without padding.
unsafe impl Pod for Plain<State> {}
// SAFETY: integers only, without padding.
unsafe impl Pod for Plain<Learned> {}
