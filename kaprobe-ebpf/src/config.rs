//! Settings that user space gives the BPF programs, and facts that it gets back.
//!
//! User space sets [`Config`] before it loads the programs. It lies in read-only memory,
//! so the verifier knows every value and drops the branches that this kernel and these
//! filters do not need.

/// Stands for a value that this kernel does not have: an offset, a type or a reason.
pub const ABSENT: u32 = u32::MAX;

/// A number in the kernel whose size differs between kernels.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number {
    /// Offset of the member, bytes; [`ABSENT`] if the kernel has none, which reads as 0.
    pub at: u32,
    /// Size of the member, bytes: 1 or 4.
    pub size: u32,
}

impl Number {
    /// The kernel has no such number.
    pub const ABSENT: Self = Self {
        at: ABSENT,
        size: 0,
    };
}

/// A flag in the kernel: a bit field, or a whole byte.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flag {
    /// Offset of the byte; [`ABSENT`] if the kernel has no such flag, which reads as not
    /// set.
    pub at: u32,
    /// The bits of the byte that are the flag.
    pub mask: u32,
}

impl Flag {
    /// The kernel has no such flag.
    pub const ABSENT: Self = Self {
        at: ABSENT,
        mask: 0,
    };
}

/// Byte offsets of the members that the programs read.
///
/// User space finds each by name in the running kernel's BTF. It is [`ABSENT`] if the
/// kernel has no such member. Offsets in `inet_connection_sock` and `tcp_sock` count from
/// the start of the socket, which all of these structures share.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is named after the kernel's member")]
pub struct Offsets {
    /// `icsk_keepalive_timer` if it exists, else `sk_timer`. Existence decides, never the
    /// version: stable kernels have the move too, and keep `sk_timer` as another timer's
    /// name.
    pub timer: u32,
    /// `expires` of that timer. It and the next two count from the start of the socket.
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
    /// The local port. The programs do not read `skc_num`: `inet_put_port` sets it to 0
    /// before the socket is destroyed.
    pub inet_sport: u32,
    pub sk_flags: u32,
    pub sk_lock_owned: u32,
    pub sk_write_queue: u32,
    pub sk_err: u32,
    pub sk_err_soft: u32,
    pub sk_protocol: u32,
    pub sk_uid: u32,
    pub sk_socket: u32,
    /// The pointer to the cgroup in `sk_cgrp_data`, or 5.10's tagged `val`.
    pub sk_cgrp: u32,
    /// 1 if `sk_cgrp` is 5.10's tagged value.
    pub sk_cgrp_tagged: u32,

    pub icsk_probes_out: u32,
    pub icsk_user_timeout: u32,
    pub icsk_retransmits: u32,
    pub lrcvtime: u32,
    pub rcv_tstamp: u32,
    pub lsndtime: u32,
    pub last_oow_ack_time: u32,
    pub bytes_received: u32,
    pub packets_out: u32,
    pub keepalive_time: u32,
    pub keepalive_intvl: u32,
    pub keepalive_probes: u32,

    pub icsk_rto: u32,
    pub icsk_rto_max: u32,
    pub icsk_backoff: u32,
    pub icsk_syn_retries: u32,
    pub icsk_probes_tstamp: u32,
    pub snd_nxt: u32,
    pub snd_wnd: u32,
    pub tcp_mstamp: u32,
    pub first_tx_mstamp: u32,
    pub rack_mstamp: u32,
    pub retrans_stamp: u32,
    pub repair: Flag,
    pub usec_ts: Flag,
    pub is_mptcp: Flag,

    pub icsk_pending: u32,
    /// Expiry of the retransmission or window probe timer: `icsk_timeout`, or `expires` of
    /// the timer itself on kernels that no longer have `icsk_timeout`.
    pub rto_expires: u32,
    pub rcv_nxt: u32,
    pub copied_seq: u32,
    pub write_seq: u32,
    pub snd_una: u32,
    pub sk_ack_backlog: u32,
    pub skc_num: u32,
    /// `expires` of the timer in an `inet_timewait_sock`. Such a minisock has only the
    /// first part of a socket.
    pub tw_expires: u32,
    pub tw_substate: u32,
    /// `expires` of the timer in a `request_sock`. Such a minisock has only the first part
    /// of a socket.
    pub rsk_expires: u32,
    /// The byte of a `request_sock` whose upper seven bits are `num_timeout`.
    pub rsk_num_timeout: u32,

    pub net_inum: u32,
    pub net_keepalive_time: u32,
    pub net_keepalive_intvl: u32,
    pub net_keepalive_probes: Number,
    pub net_syn_retries: Number,
    pub net_syn_linear_timeouts: Number,
    pub net_retries2: Number,
    pub net_orphan_retries: Number,

    pub task_flags: u32,
    pub task_group_leader: u32,
    pub task_tgid: u32,
    pub task_comm: u32,

    pub skb_head: u32,
    pub skb_network_header: u32,
    pub skb_transport_header: u32,
    pub skb_dev: u32,
    /// The index of the device that delivered the segment. It stays when TCP clears `dev`.
    pub skb_iif: u32,
    /// `_nfct`, or [`ABSENT`] on a kernel without conntrack.
    pub skb_nfct: u32,
    /// `seq` of the `tcp_skb_cb` in `sk_buff.cb`, from the start of the `sk_buff`.
    pub skb_seq: u32,
    /// `end_seq` of the `tcp_skb_cb` in `sk_buff.cb`, from the start of the `sk_buff`.
    pub skb_end_seq: u32,
    /// `ack_seq` of the `tcp_skb_cb` in `sk_buff.cb`, from the start of the `sk_buff`.
    pub skb_ack_seq: u32,
    pub dev_net: u32,
    pub dev_ifindex: u32,
    pub dst_dev: u32,
    pub sk_dst_cache: u32,

    /// `mc_index` of an `inet_sock`. TCP notes there which device delivered the segment that
    /// completed the handshake of an accepted connection, and in `mc_ttl` its TTL
    /// (`tcp_v4_syn_recv_sock`, net/ipv4/tcp_ipv4.c).
    pub mc_index: u32,
    pub mc_ttl: u32,
    /// `pinet6` of an `inet_sock`: the structure with `mcast_oif` and `mcast_hops`, which
    /// are to IPv6 what `mc_index` and `mc_ttl` are to IPv4 (`tcp_v6_syn_recv_sock`,
    /// net/ipv6/tcp_ipv6.c). [`ABSENT`] on a kernel without IPv6.
    pub pinet6: u32,
    pub mcast_oif: u32,
    /// The 16 bits that contain `mcast_hops`.
    pub mcast_hops: u32,
    /// The place of the lowest bit of `mcast_hops` in them.
    pub mcast_hops_shift: u32,

    /// Distance from a `struct socket` to its inode's number.
    pub socket_ino: u32,

    /// The members that lead from a descriptor to its process and its inode.
    pub descriptors: DescriptorOffsets,

    pub cgroup_kn: u32,
    pub kn_id: u32,
    pub cgroup_level: u32,
    /// `cgroup.ancestor_ids`, or [`ABSENT`].
    pub cgroup_ancestor_ids: u32,
    /// `cgroup.ancestors`, or [`ABSENT`].
    pub cgroup_ancestors: u32,
}

impl Offsets {
    /// The offsets, and what else is among them, in the order of the structure.
    #[must_use]
    pub fn words(&self) -> &[u32] {
        const {
            assert!(align_of::<Self>() == align_of::<u32>());
            assert!(size_of::<Self>() as u32 * STAND_IN_BYTES / 4 <= GROUP_BYTES);
        }
        // SAFETY: the structure is made of `u32` alone, without padding: every member of it is
        // a `u32`, or a structure of `u32`.
        unsafe { core::slice::from_raw_parts((&raw const *self).cast(), size_of::<Self>() / 4) }
    }
}

/// Byte offsets of the members that the iterator over descriptors reads. Without the
/// iterator, user space reads the same facts from /proc.
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
    /// Every offset is [`ABSENT`]: this kernel lacks at least one of the members.
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

/// Numbers of a function and of structures in the running kernel's BTF.
///
/// The programs tell the verifier the type of an address by such a number, and it then
/// lets them load members straight from memory. All are [`ABSENT`] if the kernel has no
/// `bpf_rdonly_cast` (before 6.2); a member, or a [`Run`] of them, then takes a helper call.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is named after the kernel's structure")]
pub struct Types {
    /// The function `bpf_rdonly_cast`.
    pub rdonly_cast: u32,
    pub tcp_sock: u32,
    pub socket_alloc: u32,
    pub cgroup: u32,
    pub net: u32,
}

impl Types {
    /// Every number is [`ABSENT`]: the programs do not use `bpf_rdonly_cast`.
    pub const ABSENT: Self = Self {
        rdonly_cast: ABSENT,
        tcp_sock: ABSENT,
        socket_alloc: ABSENT,
        cgroup: ABSENT,
        net: ABSENT,
    };
}

/// Number of the helper whose call stands for a call of `bpf_rdonly_cast`.
///
/// No kernel has a helper of that number. User space replaces each such call with the
/// real one when it loads the programs. Where it cannot, the verifier never reaches the
/// call.
pub const RDONLY_CAST: i32 = 0x6361_7374;

/// Members that a program reads at one time. Without `bpf_rdonly_cast` it copies them from the
/// kernel's memory together, in as few [`Run`]s as pay off.
pub mod group {
    /// Members that are read one by one.
    pub const SINGLE: usize = 0;
    /// Members of a socket that are read when its timer fires.
    pub const ENTRY: usize = 1;
    /// Members of a socket that a firing may have changed.
    pub const EXIT: usize = 2;
    /// Members of a socket that tell whose it is.
    pub const OWNER: usize = 3;
    /// The keepalive settings of a network namespace.
    pub const SYSCTLS: usize = 4;
    /// How many there are.
    pub const COUNT: usize = 5;

    /// The greatest number of runs of each group.
    pub const RUNS: [usize; COUNT] = [0, 16, 6, 6, 3];
    /// Room for the copies of each group, bytes. The programs' stack has 512.
    pub const COPY_BYTES: [usize; COUNT] = [0, 352, 80, 128, 24];
    /// The first place of each group in [`super::Config::runs`].
    pub const FIRST_RUN: [usize; COUNT] = [0, 0, 16, 22, 28];
    /// The number of places in [`super::Config::runs`].
    pub const ALL_RUNS: usize = FIRST_RUN[COUNT - 1] + RUNS[COUNT - 1];
}

/// A part of a structure that is copied from the kernel's memory by one call.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// Offset in the structure, bytes.
    pub from: u32,
    /// Offset in the copy, bytes.
    pub to: u32,
    /// Number of bytes; 0 if the place is not in use.
    pub bytes: u32,
}

/// The offset of a load that stands for a member: its [`group`], and the place of the member's
/// offset in [`Offsets`], bytes.
///
/// A constant in an instruction costs nothing, unlike a value from [`Config`]. User space
/// replaces it with the member's offset in the structure, or in the copy, when it loads the
/// programs. No structure that the programs know is that large.
#[must_use]
pub const fn stand_in(group: usize, place: usize) -> u32 {
    FIRST_STAND_IN + group as u32 * GROUP_BYTES + place as u32 / 4 * STAND_IN_BYTES
}

/// The first [`stand_in`].
pub const FIRST_STAND_IN: u32 = 0x3000;
/// Distance between the stand-ins of two members: the largest has that many bytes.
pub const STAND_IN_BYTES: u32 = 16;
/// Distance between the stand-ins of one member in two groups.
pub const GROUP_BYTES: u32 = 0xa00;

/// Offsets in the context of a kprobe that stand for those of the arguments, in bytes.
///
/// No architecture has that many registers. User space replaces them with the offsets that
/// this kernel's `pt_regs` has when it loads the programs.
pub const ARGUMENTS: [i16; 3] = [0x6b00, 0x6b08, 0x6b10];

/// Flags of the table of known sockets, which stand for those that this kernel takes.
///
/// No kernel has such flags. User space replaces them when it creates the maps.
pub const SOCKETS_FLAGS: u32 = 0x736f_636b;

/// Stands for the offset of what a function returned, like [`ARGUMENTS`].
pub const RETURNED: i16 = 0x6b18;

/// Number of arguments of `tcp_send_active_reset` that may be the reason.
pub const REASON_POSITIONS: usize = 3;

/// Maximum number of cgroups that `--cgroup` takes.
pub const MAX_CGROUPS: usize = 8;
/// Maximum number of network namespaces that `--netns` takes.
pub const MAX_NETNS: usize = 8;

/// A cgroup v2 whose sockets are kept, together with those of all cgroups below it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cgroup {
    /// Id of the cgroup: the inode number of its directory.
    pub id: u64,
    /// Depth of the cgroup; the root has 0.
    pub level: u32,
    /// Always zero.
    pub reserved: u32,
}

/// Bits of [`Config::filters`]: the filter maps that are in use.
pub mod filter {
    /// `LOCAL_PORTS` lists the local ports to keep.
    pub const LOCAL_PORT: u32 = 1 << 0;
    /// `REMOTE_PORTS` lists the remote ports to keep.
    pub const REMOTE_PORT: u32 = 1 << 1;
    /// `EITHER_PORTS` lists the ports to keep on either side.
    pub const EITHER_PORT: u32 = 1 << 2;
    /// `ADDRESSES` lists the networks to keep on either side.
    pub const ADDRESS: u32 = 1 << 3;
}

/// Settings that are fixed before the programs are loaded.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Cgroups to keep. The first `cgroup_count` are in use.
    pub cgroups: [Cgroup; MAX_CGROUPS],
    /// Kinds of events to send, one bit for each [`crate::wire::kind`].
    pub event_mask: u32,
    /// Filter maps in use: bits of [`filter`].
    pub filters: u32,
    /// Address family to keep: AF_INET or AF_INET6; 0 keeps both.
    pub family: u32,
    /// Number of `cgroups` in use; 0 keeps all cgroups.
    pub cgroup_count: u32,
    /// Number of `netns` in use; 0 keeps all network namespaces.
    pub netns_count: u32,
    /// Inode numbers of the network namespaces to keep. The first `netns_count` are in
    /// use.
    pub netns: [u32; MAX_NETNS],
    /// 1 at the position of the reason among `tcp_send_active_reset`'s arguments, counted
    /// from 0; all 0 if it does not take a reason.
    pub reset_reason_at: [u32; REASON_POSITIONS],
    /// 1 if `tcp_v4_send_reset` and `tcp_v6_send_reset` take the reason as a third
    /// argument.
    pub passive_with_reason: u32,
    /// 1 if the tracepoint tcp_send_reset has the reason as a third argument.
    pub reset_traced_with_reason: u32,
    /// Time without data, ms, before which the FIN of a connection is not sent.
    pub fin_idle_ms: u32,
    /// Number of retransmissions of the same data after which a connection has stalled.
    pub stalled_after: u32,
    /// 1 if user space is in the initial pid namespace: the programs see the numbers that
    /// processes have there.
    pub in_initial_pid_namespace: u32,
    /// 1 if a softirq can be preempted.
    pub preempt_rt: u32,
    /// 1 to log details that only the programs know.
    pub debug: u32,
    /// Offsets of kernel members.
    pub offsets: Offsets,
    /// Type numbers of the structures that contain those members.
    pub types: Types,
    /// What is copied of each [`group`], if the kernel has no `bpf_rdonly_cast`.
    pub runs: [Run; group::ALL_RUNS],
}

impl Config {
    /// All zero: it asks for no event.
    // SAFETY: integers only, for which zero is a value.
    pub const EMPTY: Self = unsafe { core::mem::zeroed() };
}

/// Settings that user space writes once the programs are attached. The programs do
/// nothing before that.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// CLOCK_MONOTONIC time from which events count, ns; 0 while the programs are not
    /// armed.
    pub armed_ns: u64,
    /// `timer.function` of a keepalive timer. The timer tracepoints see all timers, so the
    /// programs compare each with this.
    pub timer_function: u64,
    /// Cookie of the socket whose end fills [`Learned`]; 0 for none.
    pub learn_cookie: u64,
    /// Timer ticks per second: CONFIG_HZ.
    pub hz: u32,
    /// 1 if a program sees active resets. A firing during which it saw none sent none.
    pub resets_seen: u32,
    /// 1 if a program sees `tcp_write_wakeup` return. A firing during which it saw none
    /// sent no probe.
    pub wakeups_seen: u32,
    /// 1 while user space tests whether the programs run.
    pub self_test: u32,
}

impl State {
    /// All zero: the programs do nothing.
    // SAFETY: integers only, for which zero is a value.
    pub const EMPTY: Self = unsafe { core::mem::zeroed() };
}

/// Facts that no file of the kernel holds. The programs read them from a socket that user
/// space makes for this purpose.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Learned {
    /// `timer.function` of the socket's keepalive timer; 0 until the programs have read it.
    pub timer_function: u64,
    /// `sysctl_tcp_keepalive_time` of the socket's netns, jiffies. Divided by the seconds in
    /// the sysctl's file, it gives HZ.
    pub keepalive_time: u32,
    /// `sysctl_tcp_keepalive_intvl` of the socket's netns, jiffies. Divided by the seconds
    /// in the sysctl's file, it gives HZ.
    pub keepalive_intvl: u32,
    /// 1 for each [`sight`] that was had during a test.
    pub seen: [u32; sight::COUNT],
}

/// What a program that runs sees while user space tests the programs.
pub mod sight {
    /// A firing began.
    pub const FIRING_BEGAN: usize = 0;
    /// A firing ended.
    pub const FIRING_ENDED: usize = 1;
    /// A socket sent a reset of its own.
    pub const ACTIVE_RESET: usize = 2;
    /// A segment was answered with a reset, by IPv4 if the hook tells.
    pub const PASSIVE_RESET_V4: usize = 3;
    /// A segment was answered with a reset, by IPv6.
    pub const PASSIVE_RESET_V6: usize = 4;
    /// A socket was reset.
    pub const RECEIVED_RESET: usize = 5;
    /// The segment of a reset came in.
    pub const RESET_SEGMENT: usize = 6;
    /// A socket changed its state.
    pub const STATE: usize = 7;
    /// A descriptor was received.
    pub const RECEIVED_DESCRIPTOR: usize = 8;
    /// How many there are.
    pub const COUNT: usize = 9;
}

/// Number of processes that can be watched: the kernel numbers no more, `PID_MAX_LIMIT`,
/// include/linux/threads.h.
pub const PIDS: u32 = 1 << 22;

/// TCP_USER_TIMEOUT of the socket that a test uses, ms. Nobody else sets these three weeks,
/// so no kaprobe shows the test of another.
pub const SELF_TEST_USER_TIMEOUT: u32 = 0x6b61_7072;
