//! What user space tells the BPF programs before they are loaded.
//!
//! It lies in read-only memory, so the verifier knows every value and drops the
//! branches that this kernel and these filters do not need.

/// A member that this kernel does not have.
pub const ABSENT: u32 = u32::MAX;

/// Byte offsets of the members that the programs read, resolved by name in the
/// running kernel's BTF; [`ABSENT`] where the kernel has no such member. Members
/// of `inet_connection_sock` and `tcp_sock` count from the start of the socket,
/// which all of these structures share.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is named after the kernel's member")]
pub struct Offsets {
    /// `icsk_keepalive_timer` where it exists, else `sk_timer`; by existence, never
    /// by version: stable kernels carry the move too, and leave `sk_timer` behind
    /// as another timer's name.
    pub timer: u32,
    pub timer_expires: u32,
    pub timer_pprev: u32,
    pub timer_function: u32,

    pub skc_family: u32,
    pub skc_state: u32,
    pub skc_dport: u32,
    pub skc_daddr: u32,
    pub skc_rcv_saddr: u32,
    pub skc_v6_daddr: u32,
    pub skc_v6_rcv_saddr: u32,
    pub skc_net: u32,
    pub skc_cookie: u32,
    /// The local port. Not `skc_num`, which is 0 once the port was given back
    /// (`inet_put_port`), before the socket is destroyed.
    pub inet_sport: u32,
    pub sk_flags: u32,
    pub sk_lock_owned: u32,
    pub sk_write_queue: u32,
    pub sk_err: u32,
    pub sk_uid: u32,
    pub sk_socket: u32,
    /// `sk_cgrp_data`, where a pointer (or 5.10's tagged `val`) to the cgroup lies.
    pub sk_cgrp: u32,
    /// 1 where `sk_cgrp` is 5.10's tagged value.
    pub sk_cgrp_tagged: u32,

    pub icsk_probes_out: u32,
    pub icsk_user_timeout: u32,
    pub icsk_retransmits: u32,
    pub lrcvtime: u32,
    pub rcv_tstamp: u32,
    pub lsndtime: u32,
    pub packets_out: u32,
    pub keepalive_time: u32,
    pub keepalive_intvl: u32,
    pub keepalive_probes: u32,

    pub icsk_pending: u32,
    /// When the retransmission or window probe timer is due: `icsk_timeout`, or since
    /// that is gone its timer's own `expires`.
    pub rto_expires: u32,
    pub rcv_nxt: u32,
    pub copied_seq: u32,
    pub write_seq: u32,
    pub snd_una: u32,
    pub sk_ack_backlog: u32,
    pub skc_num: u32,
    /// Of an `inet_timewait_sock`, which is no more of a socket than its start.
    pub tw_expires: u32,
    pub tw_substate: u32,
    /// Of a `request_sock`, likewise.
    pub rsk_expires: u32,
    /// Of the byte whose upper seven bits are `num_timeout`.
    pub rsk_num_timeout: u32,

    pub net_inum: u32,
    pub net_keepalive_time: u32,
    pub net_keepalive_intvl: u32,
    pub net_keepalive_probes: u32,
    /// Bytes of `sysctl_tcp_keepalive_probes`: 1, or 4 before it shrank.
    pub net_keepalive_probes_size: u32,

    pub skb_head: u32,
    pub skb_network_header: u32,
    pub skb_transport_header: u32,
    pub skb_dev: u32,
    /// Of the `tcp_skb_cb` in `sk_buff.cb`, from the start of the `sk_buff`.
    pub skb_end_seq: u32,
    pub skb_ack_seq: u32,
    pub dev_net: u32,

    /// From a `struct socket` to its inode's number.
    pub socket_ino: u32,

    /// Of what leads from a descriptor to its process and its inode.
    pub descriptors: DescriptorOffsets,

    pub cgroup_kn: u32,
    pub kn_id: u32,
    pub cgroup_level: u32,
    /// `cgroup.ancestor_ids`, or [`ABSENT`].
    pub cgroup_ancestor_ids: u32,
    /// `cgroup.ancestors`, or [`ABSENT`].
    pub cgroup_ancestors: u32,
}

/// Where the iterator over descriptors looks. Without it /proc tells the same.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is named after the kernel's member")]
pub struct DescriptorOffsets {
    pub file_inode: u32,
    pub inode_mode: u32,
    pub inode_ino: u32,
    pub inode_sb: u32,
    pub sb_magic: u32,
    pub task_group_leader: u32,
    pub task_thread_pid: u32,
    pub pid_level: u32,
    pub pid_numbers: u32,
}

impl DescriptorOffsets {
    /// This kernel has not all of them.
    pub const ABSENT: Self = Self {
        file_inode: ABSENT,
        inode_mode: ABSENT,
        inode_ino: ABSENT,
        inode_sb: ABSENT,
        sb_magic: ABSENT,
        task_group_leader: ABSENT,
        task_thread_pid: ABSENT,
        pid_level: ABSENT,
        pid_numbers: ABSENT,
    };
}

/// What the verifier is told of addresses, so that it lets the programs load members
/// straight from memory: numbers in the running kernel's BTF. All [`ABSENT`] where it
/// has no `bpf_rdonly_cast` (before 6.2); each member then takes a helper call.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is named after the kernel's structure")]
pub struct Types {
    /// The function `bpf_rdonly_cast`.
    pub rdonly_cast: u32,
    pub tcp_sock: u32,
    pub socket_alloc: u32,
    pub cgroup: u32,
}

impl Types {
    /// Nothing is told.
    pub const ABSENT: Self = Self {
        rdonly_cast: ABSENT,
        tcp_sock: ABSENT,
        socket_alloc: ABSENT,
        cgroup: ABSENT,
    };
}

/// The helper that the programs call where `bpf_rdonly_cast` is meant. No kernel has a
/// helper of that number: user space makes the call what it stands for as it loads the
/// programs, and where it can't, the verifier never comes to it.
pub const RDONLY_CAST: i32 = 0x6361_7374;

/// How the two ends of a firing know each other where others may run meanwhile.
pub mod key {
    /// By the timer's address: both ends of the firing know it.
    pub const TIMER: u32 = 0;
    /// By CPU and task: a kretprobe knows no argument.
    pub const TASK: u32 = 1;
}

/// How many arguments of `tcp_send_active_reset` the reason is looked for among.
pub const REASON_POSITIONS: usize = 3;

/// How many cgroups `--cgroup` takes.
pub const MAX_CGROUPS: usize = 8;
/// How many network namespaces `--netns` takes.
pub const MAX_NETNS: usize = 8;

/// One cgroup v2 to keep, itself and all below it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cgroup {
    /// Its id: the inode number of its directory.
    pub id: u64,
    /// How deep it lies below the root, which is 0.
    pub level: u32,
    /// Zero.
    pub reserved: u32,
}

/// Which filter maps are in use: bits of [`Config::filters`].
pub mod filter {
    /// `LOCAL_PORTS` names the local ports to keep.
    pub const LOCAL_PORT: u32 = 1 << 0;
    /// `REMOTE_PORTS` names the remote ports to keep.
    pub const REMOTE_PORT: u32 = 1 << 1;
    /// `EITHER_PORTS` names ports to keep on either side.
    pub const EITHER_PORT: u32 = 1 << 2;
    /// `ADDRESSES` names networks to keep, on either side.
    pub const ADDRESS: u32 = 1 << 3;
}

/// Everything that the programs are told.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// The cgroups to keep; the first `cgroup_count` count.
    pub cgroups: [Cgroup; MAX_CGROUPS],
    /// One bit for each [`crate::wire::kind`] to send up.
    pub event_mask: u32,
    /// Bits of [`filter`].
    pub filters: u32,
    /// AF_INET or AF_INET6 to keep one family; 0 for both.
    pub family: u32,
    /// How many of `cgroups` count; 0 keeps all.
    pub cgroup_count: u32,
    /// How many of `netns` count; 0 keeps all.
    pub netns_count: u32,
    /// The network namespaces to keep, by inode number.
    pub netns: [u32; MAX_NETNS],
    /// 1 at the position of the reason among `tcp_send_active_reset`'s arguments,
    /// counted from 0; all 0 where it takes none.
    pub reset_reason_at: [u32; REASON_POSITIONS],
    /// 1 where `tcp_v4_send_reset` and `tcp_v6_send_reset` take a third argument, the
    /// reason.
    pub passive_with_reason: u32,
    /// 1 where the tracepoint tcp_send_reset has a third argument, the reason.
    pub reset_traced_with_reason: u32,
    /// 1 where a softirq can be preempted.
    pub preempt_rt: u32,
    /// 1 to log what only the programs can say.
    pub debug: u32,
    /// Where the members lie.
    pub offsets: Offsets,
    /// What they are members of.
    pub types: Types,
}

impl Config {
    /// All zero: no event is asked for.
    // SAFETY: integers only, for which zero is a value.
    pub const EMPTY: Self = unsafe { core::mem::zeroed() };
}

/// What user space sets once the programs are attached: they do nothing before.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// Since when events count, CLOCK_MONOTONIC ns; 0 while not armed.
    pub armed_ns: u64,
    /// `timer.function` of a keepalive timer, for the tracepoints that see all timers.
    pub timer_function: u64,
    /// Cookie of the socket whose end fills [`Learned`]; 0 for none.
    pub learn_cookie: u64,
    /// Timer ticks a second: CONFIG_HZ.
    pub hz: u32,
    /// One of [`key`].
    pub key: u32,
    /// 1 when resets are hooked: a firing without one then sent none.
    pub resets_seen: u32,
    /// Zero.
    pub reserved: u32,
}

impl State {
    /// All zero: the programs do nothing.
    // SAFETY: integers only, for which zero is a value.
    pub const EMPTY: Self = unsafe { core::mem::zeroed() };
}

/// What the programs read from a socket that user space made for this purpose:
/// facts that the kernel tells in no file.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Learned {
    /// `timer.function` of its keepalive timer; 0 until learned.
    pub timer_function: u64,
    /// `sysctl_tcp_keepalive_time` of its netns, jiffies. Divided by the sysctl
    /// file's seconds it gives HZ.
    pub keepalive_time: u32,
    /// `sysctl_tcp_keepalive_intvl`, likewise.
    pub keepalive_intvl: u32,
}
