//! The running kernel's types, by its BTF: offsets of members, parameters of functions.
//!
//! Members are found by name and by whether they exist, never by kernel version: stable
//! kernels have moves that their version number does not tell.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use kaprobe_ebpf::config::{ABSENT, DescriptorOffsets, Flag, Number, Offsets};

use crate::exit;
use crate::kernel::programs;
use crate::kernel::types::{Bytes, Type, TypeKind, Types};

/// Where the kernel publishes its types.
pub const PATH: &str = "/sys/kernel/btf/vmlinux";

/// A folder that each sysfs has.
const SYSFS: &str = "/sys/kernel";

/// The running kernel's types.
pub(super) struct KernelTypes {
    types: Types,
    /// Numbers of the types that were looked up.
    seen: RefCell<BTreeMap<(TypeKind, String), Option<u32>>>,
}

/// The structures that are looked up by name. They and [`programs::functions`] are found in one
/// pass over all types; another name takes a pass of its own.
const STRUCTURES: [&str; 16] = [
    "bpf_htab",
    "cgroup",
    "file",
    "inet_connection_sock",
    "inet_sock",
    "inet_timewait_sock",
    "net",
    "pt_regs",
    "request_sock",
    "sk_buff",
    "sock",
    "socket_alloc",
    "task_struct",
    "tcp_skb_cb",
    "tcp_sock",
    "timer_list",
];

/// Further types that are looked up by name.
const OTHERS: [(TypeKind, &str); 3] = [
    (TypeKind::Func, "bpf_rdonly_cast"),
    (TypeKind::Typedef, "btf_trace_tcp_send_reset"),
    (TypeKind::Enum, "sk_rst_reason"),
];

/// All types that are known to be looked up.
fn wanted() -> Vec<(TypeKind, &'static str)> {
    let structures = STRUCTURES.map(|name| (TypeKind::Struct, name));
    let functions = programs::functions();
    let functions = functions.into_iter().map(|name| (TypeKind::Func, name));
    structures
        .into_iter()
        .chain(functions)
        .chain(OTHERS)
        .collect()
}

/// A member of a structure.
struct Member<'a> {
    /// Offset from the start of the outermost structure, bytes.
    offset: u32,
    /// The lowest bit of a bit field, from that offset.
    bit: u32,
    /// The number of bits, if it is a bit field; otherwise 0.
    bits: u32,
    ty: Type<'a>,
}

impl<'a> Member<'a> {
    /// A type as a whole.
    const fn start(ty: Type<'a>) -> Self {
        Self {
            offset: 0,
            bit: 0,
            bits: 0,
            ty,
        }
    }
}

impl KernelTypes {
    /// Reads the kernel's types from [`PATH`].
    ///
    /// # Errors
    /// When the file does not exist (a kernel without CONFIG_DEBUG_INFO_BTF, or no sysfs), can't
    /// be read, or is not BTF.
    pub fn read() -> Result<Self> {
        let unreadable = || {
            exit::Error::kernel(format!(
                "cannot read the kernel's types from {PATH}: \
                 kaprobe needs a kernel built with CONFIG_DEBUG_INFO_BTF"
            ))
        };
        let types = match Bytes::read(PATH).map_err(anyhow::Error::from) {
            Err(why) if exit::exhausted(&why).is_some() => {
                return Err(why.context(format!("cannot read {PATH}")));
            }
            // As in a root directory that only has a program: nothing is known of the kernel.
            Err(why) if !Path::new(SYSFS).is_dir() => {
                return Err(why.context(format!("cannot read {PATH}: no sysfs is mounted at /sys")));
            }
            read => read.and_then(Types::parse).with_context(unreadable)?,
        };
        Ok(Self::new(types))
    }

    fn new(types: Types) -> Self {
        let wanted = wanted();
        let numbers = types.numbers(&wanted);
        let names = wanted
            .into_iter()
            .map(|(kind, name)| (kind, name.to_owned()));
        let seen = names.zip(numbers).collect();
        Self {
            types,
            seen: RefCell::new(seen),
        }
    }

    /// Takes types from BTF.
    #[cfg(test)]
    pub fn parse(btf: Vec<u8>) -> Result<Self> {
        Types::parse(Bytes::Copied(btf)).map(Self::new)
    }

    /// How many names have been looked up.
    #[cfg(test)]
    pub fn names(&self) -> usize {
        self.seen.borrow().len()
    }

    /// Number of a function among the types.
    #[must_use]
    pub fn function(&self, name: &str) -> Option<u32> {
        self.named(TypeKind::Func, name).map(|it| it.number)
    }

    /// Number of a structure among the types.
    #[must_use]
    pub fn structure(&self, name: &str) -> Option<u32> {
        self.named(TypeKind::Struct, name).map(|it| it.number)
    }

    /// Position of a function's parameter, from 0, by the parameter's name.
    #[must_use]
    pub fn parameter(&self, function: &str, name: &str) -> Option<usize> {
        let prototype = self.named(TypeKind::Func, function)?.target()?;
        prototype.entries().position(|it| it.name() == name)
    }

    /// Number of arguments that a tracepoint passes. Its `btf_trace_` type is a pointer to a
    /// function that takes one more, the tracepoint's own data.
    #[must_use]
    pub fn tracepoint_arguments(&self, tracepoint: &str) -> Option<usize> {
        let typedef = self.named(TypeKind::Typedef, &format!("btf_trace_{tracepoint}"))?;
        let prototype = typedef.chain().find(|it| it.kind == TypeKind::FuncProto)?;
        prototype.entries().count().checked_sub(1)
    }

    /// The kernel's names of the reset reasons, by number. They lack their common prefix, as
    /// the tracepoint prints them. Empty if this kernel's resets do not have a reason.
    #[must_use]
    pub fn reset_reasons(&self) -> BTreeMap<u32, String> {
        let reasons = self.named(TypeKind::Enum, "sk_rst_reason");
        let reasons = reasons.iter().flat_map(Type::entries);
        let name_of = |name: &str| name.trim_start_matches("SK_RST_REASON_").to_owned();
        reasons.map(|it| (it.number, name_of(it.name()))).collect()
    }

    /// Whether hash maps have an allocator of their own, which works in every context.
    #[must_use]
    pub fn maps_allocate(&self) -> bool {
        self.member("bpf_htab", "ma").is_ok()
    }

    /// Offset of a register in `pt_regs`, the context of a kprobe, bytes.
    #[must_use]
    pub fn pt_regs(&self, register: &str) -> Option<i16> {
        let at = self.offset("pt_regs", register).ok()?;
        i16::try_from(at).ok()
    }

    /// The offsets that the BPF programs need.
    ///
    /// # Errors
    /// Names a member that kaprobe needs and this kernel does not have.
    pub fn offsets(&self) -> Result<Offsets> {
        let at = |structure, path| self.offset(structure, path);
        let maybe = |structure, path| self.offset(structure, path).unwrap_or(ABSENT);
        let icsk = "inet_connection_sock";
        let in_net = |path: &str| format!("__sk_common.skc_net.net->{path}");
        let net = |path| self.offset("sock", &in_net(path));
        let sysctl = |name: &str| self.number("sock", &in_net(&format!("ipv4.sysctl_tcp_{name}")));
        let moved = maybe(icsk, "icsk_keepalive_timer");
        let tagged = maybe("sock", "sk_cgrp_data.val");
        let hops = self.member("inet_sock", "pinet6->mcast_hops").ok();
        // 6.19 (08dfe370239e) moved the timer; sk_timer is now another timer's name.
        let timer = if moved == ABSENT {
            at("sock", "sk_timer")?
        } else {
            moved
        };
        let in_timer = |path| Ok::<_, anyhow::Error>(timer + at("timer_list", path)?);
        Ok(Offsets {
            timer,
            timer_expires: in_timer("expires")?,
            timer_pprev: in_timer("entry.pprev")?,
            timer_function: in_timer("function")?,
            skc_family: at("sock", "__sk_common.skc_family")?,
            skc_state: at("sock", "__sk_common.skc_state")?,
            skc_dport: at("sock", "__sk_common.skc_dport")?,
            skc_daddr: at("sock", "__sk_common.skc_daddr")?,
            skc_rcv_saddr: at("sock", "__sk_common.skc_rcv_saddr")?,
            skc_v6_daddr: maybe("sock", "__sk_common.skc_v6_daddr"),
            skc_v6_rcv_saddr: maybe("sock", "__sk_common.skc_v6_rcv_saddr"),
            skc_net: at("sock", "__sk_common.skc_net")?,
            skc_cookie: at("sock", "__sk_common.skc_cookie")?,
            inet_sport: at("inet_sock", "inet_sport")?,
            sk_flags: at("sock", "__sk_common.skc_flags")?,
            sk_lock_owned: at("sock", "sk_lock.owned")?,
            sk_write_queue: at("sock", "sk_write_queue")?,
            sk_err: at("sock", "sk_err")?,
            sk_err_soft: at("sock", "sk_err_soft")?,
            sk_protocol: at("sock", "sk_protocol")?,
            sk_uid: at("sock", "sk_uid")?,
            sk_socket: at("sock", "sk_socket")?,
            sk_cgrp: if tagged == ABSENT {
                maybe("sock", "sk_cgrp_data.cgroup")
            } else {
                tagged
            },
            sk_cgrp_tagged: u32::from(tagged != ABSENT),
            icsk_probes_out: at(icsk, "icsk_probes_out")?,
            icsk_user_timeout: at(icsk, "icsk_user_timeout")?,
            icsk_retransmits: at(icsk, "icsk_retransmits")?,
            lrcvtime: at(icsk, "icsk_ack.lrcvtime")?,
            rcv_tstamp: at("tcp_sock", "rcv_tstamp")?,
            lsndtime: at("tcp_sock", "lsndtime")?,
            last_oow_ack_time: maybe("tcp_sock", "last_oow_ack_time"),
            bytes_received: at("tcp_sock", "bytes_received")?,
            packets_out: at("tcp_sock", "packets_out")?,
            keepalive_time: at("tcp_sock", "keepalive_time")?,
            keepalive_intvl: at("tcp_sock", "keepalive_intvl")?,
            keepalive_probes: at("tcp_sock", "keepalive_probes")?,
            icsk_rto: at(icsk, "icsk_rto")?,
            // Since 6.15 each socket has a maximum of its own.
            icsk_rto_max: maybe(icsk, "icsk_rto_max"),
            icsk_backoff: at(icsk, "icsk_backoff")?,
            icsk_syn_retries: at(icsk, "icsk_syn_retries")?,
            // Since 5.11, and in later versions of 5.10.
            icsk_probes_tstamp: maybe(icsk, "icsk_probes_tstamp"),
            snd_nxt: at("tcp_sock", "snd_nxt")?,
            snd_wnd: at("tcp_sock", "snd_wnd")?,
            tcp_mstamp: at("tcp_sock", "tcp_mstamp")?,
            first_tx_mstamp: at("tcp_sock", "first_tx_mstamp")?,
            rack_mstamp: at("tcp_sock", "rack.mstamp")?,
            retrans_stamp: at("tcp_sock", "retrans_stamp")?,
            repair: self.flag("tcp_sock", "repair"),
            usec_ts: self.flag("tcp_sock", "tcp_usec_ts"),
            is_mptcp: self.flag("tcp_sock", "is_mptcp"),
            icsk_pending: at(icsk, "icsk_pending")?,
            // 6.19 removed `icsk_timeout`, which repeated its timer's own expiry.
            rto_expires: at(icsk, "icsk_timeout")
                .or_else(|_| at("sock", "tcp_retransmit_timer.expires"))
                .or_else(|_| at(icsk, "icsk_retransmit_timer.expires"))?,
            rcv_nxt: at("tcp_sock", "rcv_nxt")?,
            copied_seq: at("tcp_sock", "copied_seq")?,
            write_seq: at("tcp_sock", "write_seq")?,
            snd_una: at("tcp_sock", "snd_una")?,
            sk_ack_backlog: at("sock", "sk_ack_backlog")?,
            skc_num: at("sock", "__sk_common.skc_num")?,
            tw_expires: at("inet_timewait_sock", "tw_timer.expires")?,
            tw_substate: at("inet_timewait_sock", "tw_substate")?,
            rsk_expires: at("request_sock", "rsk_timer.expires")?,
            rsk_num_timeout: at("request_sock", "num_timeout")?,
            net_inum: net("ns.inum")?,
            net_keepalive_time: net("ipv4.sysctl_tcp_keepalive_time")?,
            net_keepalive_intvl: net("ipv4.sysctl_tcp_keepalive_intvl")?,
            net_keepalive_probes: sysctl("keepalive_probes")?,
            net_syn_retries: sysctl("syn_retries")?,
            // Since 6.5.
            net_syn_linear_timeouts: sysctl("syn_linear_timeouts").unwrap_or(Number::ABSENT),
            net_retries2: sysctl("retries2")?,
            net_orphan_retries: sysctl("orphan_retries")?,
            task_flags: at("task_struct", "flags")?,
            task_group_leader: at("task_struct", "group_leader")?,
            task_tgid: at("task_struct", "tgid")?,
            task_comm: at("task_struct", "comm")?,
            skb_head: at("sk_buff", "head")?,
            skb_network_header: at("sk_buff", "network_header")?,
            skb_transport_header: at("sk_buff", "transport_header")?,
            skb_dev: at("sk_buff", "dev")?,
            skb_iif: at("sk_buff", "skb_iif")?,
            skb_nfct: maybe("sk_buff", "_nfct"),
            skb_seq: at("sk_buff", "cb")? + at("tcp_skb_cb", "seq")?,
            skb_end_seq: at("sk_buff", "cb")? + at("tcp_skb_cb", "end_seq")?,
            skb_ack_seq: at("sk_buff", "cb")? + at("tcp_skb_cb", "ack_seq")?,
            dev_net: at("sk_buff", "dev->nd_net")?,
            dev_ifindex: at("sk_buff", "dev->ifindex")?,
            dst_dev: at("sock", "sk_dst_cache->dev")?,
            sk_dst_cache: at("sock", "sk_dst_cache")?,
            mc_index: at("inet_sock", "mc_index")?,
            mc_ttl: at("inet_sock", "mc_ttl")?,
            pinet6: maybe("inet_sock", "pinet6"),
            mcast_oif: maybe("inet_sock", "pinet6->mcast_oif"),
            mcast_hops: hops.as_ref().map_or(ABSENT, |it| it.offset),
            mcast_hops_shift: hops.map_or(0, |it| it.bit),
            socket_ino: at("socket_alloc", "vfs_inode.i_ino")?,
            descriptors: self.descriptors().unwrap_or(DescriptorOffsets::ABSENT),
            cgroup_kn: maybe("cgroup", "kn"),
            kn_id: maybe("cgroup", "kn->id"),
            cgroup_level: maybe("cgroup", "level"),
            cgroup_ancestor_ids: maybe("cgroup", "ancestor_ids"),
            cgroup_ancestors: maybe("cgroup", "ancestors"),
        })
    }

    fn descriptors(&self) -> Result<DescriptorOffsets> {
        let at = |structure, path| self.offset(structure, path);
        Ok(DescriptorOffsets {
            file_inode: at("file", "f_inode")?,
            inode_mode: at("file", "f_inode->i_mode")?,
            inode_ino: at("file", "f_inode->i_ino")?,
            inode_sb: at("file", "f_inode->i_sb")?,
            sb_magic: at("file", "f_inode->i_sb->s_magic")?,
            task_group_leader: at("task_struct", "group_leader")?,
            task_thread_pid: at("task_struct", "thread_pid")?,
            pid_level: at("task_struct", "thread_pid->level")?,
            pid_numbers: at("task_struct", "thread_pid->numbers")?,
        })
    }

    fn offset(&self, structure: &str, path: &str) -> Result<u32> {
        Ok(self.member(structure, path)?.offset)
    }

    /// A number of one byte or four: some sysctls shrank.
    fn number(&self, structure: &str, path: &str) -> Result<Number> {
        let Member { offset, ty, .. } = self.member(structure, path)?;
        match ty.size().filter(|_| ty.kind == TypeKind::Int) {
            Some(size @ (1 | 4)) => Ok(Number { at: offset, size }),
            _ => bail!("{structure}.{path} is not an integer of one byte or four"),
        }
    }

    /// A flag, if the kernel has it.
    fn flag(&self, structure: &str, path: &str) -> Flag {
        self.member(structure, path)
            .map_or(Flag::ABSENT, |it| Flag {
                at: it.offset,
                mask: match it.bits {
                    0 => 0xff,
                    bits => ((1 << bits.min(8)) - 1) << it.bit,
                },
            })
    }

    /// Follows a path from a structure to a member, as C writes it. After an arrow, the member
    /// is in the structure that the pointer leads to, and its offset is from the start of
    /// that one. Such a structure takes no lookup by name.
    fn member(&self, structure: &str, path: &str) -> Result<Member<'_>> {
        let missing =
            || exit::Error::kernel(format!("this kernel's BTF has no {structure}.{path}"));
        let ty = self
            .named(TypeKind::Struct, structure)
            .with_context(missing)?;
        let start = Member::start(ty);
        let mut steps = path.split("->");
        let first = steps.next().and_then(|path| within(start, path));
        steps
            .try_fold(first.with_context(missing)?, |at, path| {
                let ty = self.pointee(at.ty)?;
                within(Member::start(ty), path)
            })
            .with_context(missing)
    }

    /// The structure that a pointer leads to.
    fn pointee<'a>(&'a self, pointer: Type<'a>) -> Option<Type<'a>> {
        let pointer = Some(pointer).filter(|it| it.kind == TypeKind::Ptr)?;
        let found = pointer.target()?.bare()?;
        match found.kind {
            // The pointer's type is only declared.
            TypeKind::Fwd => self.named(TypeKind::Struct, found.name()),
            _ => Some(found),
        }
    }

    fn named(&self, kind: TypeKind, name: &str) -> Option<Type<'_>> {
        let look = || self.types.numbers(&[(kind, name)])[0];
        let mut seen = self.seen.borrow_mut();
        let number = *seen.entry((kind, name.to_owned())).or_insert_with(look);
        self.types.get(number?)
    }
}

/// Follows a dotted path to a member inside another.
fn within<'a>(start: Member<'a>, path: &str) -> Option<Member<'a>> {
    path.split('.').try_fold(start, |at, name| {
        let inner = child(at.ty, name)?;
        Some(Member {
            offset: at.offset + inner.offset,
            ..inner
        })
    })
}

/// A direct member by name, looking through anonymous structures and unions. The type of the
/// member is without typedefs and qualifiers.
fn child<'a>(ty: Type<'a>, name: &str) -> Option<Member<'a>> {
    if !matches!(ty.kind, TypeKind::Struct | TypeKind::Union) {
        return None;
    }
    ty.entries().find_map(|field| {
        let offset = field.bit_offset / 8;
        let found = match field.name() {
            this if this == name => Member {
                bit: field.bit_offset % 8,
                bits: field.bits,
                ..Member::start(field.ty()?.bare()?)
            },
            "" => child(field.ty()?.bare()?, name)?,
            _ => return None,
        };
        Some(Member {
            offset: offset + found.offset,
            ..found
        })
    })
}
