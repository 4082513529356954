//! The only module that reads kernel memory.
//!
//! Every offset of a member comes from [`Config`]: user space finds it by name in the
//! running kernel's BTF. A read that faults gives zeroes: `bpf_probe_read_kernel` clears
//! its destination, and so does a load from a [`Typed`] address (`ex_handler_bpf`, in
//! net/bpf_jit_comp.c of both arch/x86 and arch/arm64).

use core::ffi::c_void;
use core::marker::PhantomData;
use core::mem::{MaybeUninit, offset_of};

use aya_ebpf::helpers::generated::{bpf_get_current_task, bpf_probe_read_kernel};
use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_jiffies64, bpf_ktime_get_ns};
use kaprobe_ebpf::config::{ABSENT, Config, Flag, Offsets, RDONLY_CAST, group, stand_in};
use kaprobe_ebpf::wire::{
    Descriptor, Detailed, Event, Sending, Snapshot, Socket, flag, kind, path,
};

/// Settings of the programs. User space writes them before it loads the programs.
#[unsafe(no_mangle)]
pub static CONFIG: Config = Config::EMPTY;

/// Reads a member of [`CONFIG`]. The read is volatile, so that the compiler does not take
/// the value from the initializer: only the verifier sees the real one.
macro_rules! config {
    ($($member:tt)+) => {
        // SAFETY: the place is inside a static, and aligned as its type is.
        unsafe { core::ptr::read_volatile(&raw const $crate::kernel::CONFIG.$($member)+) }
    };
}
pub(crate) use config;

/// `AF_INET`: IPv4.
pub const AF_INET: u16 = 2;
/// `AF_INET6`: IPv6.
pub const AF_INET6: u16 = 10;
/// Index of the loopback device in each network namespace: include/net/flow.h.
const LOOPBACK_IFINDEX: u32 = 1;
/// Bits of `_nfct` that are no address: include/linux/skbuff.h. Alone they mark a packet that
/// is exempted from tracking.
const NFCT_INFOMASK: u64 = 7;
/// `TCP_ESTABLISHED`, include/net/tcp_states.h.
pub const TCP_ESTABLISHED: u8 = 1;
/// `TCP_SYN_SENT`, include/net/tcp_states.h.
pub const TCP_SYN_SENT: u8 = 2;
/// `TCP_SYN_RECV`, include/net/tcp_states.h.
pub const TCP_SYN_RECV: u8 = 3;
/// `TCP_FIN_WAIT1`, include/net/tcp_states.h.
pub const TCP_FIN_WAIT1: u8 = 4;
/// `TCP_FIN_WAIT2`, include/net/tcp_states.h.
pub const TCP_FIN_WAIT2: u8 = 5;
/// `TCP_TIME_WAIT`, include/net/tcp_states.h: the state of a minisock.
const TCP_TIME_WAIT: u8 = 6;
/// `TCP_CLOSE`, include/net/tcp_states.h.
pub const TCP_CLOSE: u8 = 7;
/// `TCP_CLOSE_WAIT`, include/net/tcp_states.h.
pub const TCP_CLOSE_WAIT: u8 = 8;
/// `TCP_LAST_ACK`, include/net/tcp_states.h.
pub const TCP_LAST_ACK: u8 = 9;
/// `TCP_LISTEN`, include/net/tcp_states.h.
pub const TCP_LISTEN: u8 = 10;
/// `TCP_CLOSING`, include/net/tcp_states.h.
pub const TCP_CLOSING: u8 = 11;
/// `TCP_NEW_SYN_RECV`, include/net/tcp_states.h: the state of another kind of minisock.
const TCP_NEW_SYN_RECV: u8 = 12;

/// `ETIMEDOUT`: uapi/asm-generic/errno.h.
pub const ETIMEDOUT: u32 = 110;
/// `ECONNREFUSED`: uapi/asm-generic/errno.h.
pub const ECONNREFUSED: u32 = 111;
/// `ECONNABORTED`: uapi/asm-generic/errno.h.
pub const ECONNABORTED: u32 = 103;

/// `IPPROTO_TCP`: uapi/linux/in.h.
const IPPROTO_TCP: u16 = 6;
/// `TCP_RTO_MAX`, include/net/tcp.h, s.
const TCP_RTO_MAX_S: u32 = 120;

/// `PF_EXITING` of `task_struct.flags`, include/linux/sched.h.
const PF_EXITING: u32 = 0x4;
/// `PF_KTHREAD` of `task_struct.flags`, include/linux/sched.h.
const PF_KTHREAD: u32 = 0x20_0000;

/// SYN in the 14th byte of a TCP header (RFC 9293, 3.1).
const TCP_FLAG_SYN: u8 = 1 << 1;
/// RST in the 14th byte of a TCP header (RFC 9293, 3.1).
pub const TCP_FLAG_RST: u8 = 1 << 2;
/// ACK in the 14th byte of a TCP header (RFC 9293, 3.1).
const TCP_FLAG_ACK: u8 = 1 << 4;

/// Mask of the type in a file's mode: uapi/linux/stat.h.
const S_IFMT: u16 = 0o170_000;
/// Type of a socket in a file's mode: uapi/linux/stat.h.
const S_IFSOCK: u16 = 0o140_000;
/// Magic number of the file system of sockets: uapi/linux/magic.h.
const SOCKFS_MAGIC: u64 = 0x534F_434B;
/// Size of a `struct upid`, whose first member is the number: include/linux/pid.h.
const UPID_SIZE: u64 = 16;

/// `SOCK_DEAD` of `enum sock_flags`, include/net/sock.h. The first entries of the enum are
/// the same since 2.6.
const SOCK_DEAD: u64 = 1 << 0;
/// `SOCK_KEEPOPEN` of `enum sock_flags`, include/net/sock.h.
const SOCK_KEEPOPEN: u64 = 1 << 3;

/// A type that can be read from any memory.
///
/// # Safety
///
/// Any bytes must be a value of the type.
unsafe trait Plain: Copy + Default {}

// SAFETY: an integer.
unsafe impl Plain for u8 {}
// SAFETY: an integer.
unsafe impl Plain for u16 {}
// SAFETY: an integer.
unsafe impl Plain for u32 {}
// SAFETY: an integer.
unsafe impl Plain for u64 {}
// SAFETY: integers.
unsafe impl Plain for [u8; 16] {}
// SAFETY: an integer. The verifier refuses a program that loads from an address whose
// type it does not know, so a number that is not a pointer does no harm.
unsafe impl Plain for Tracked {}
// SAFETY: as for `Tracked`.
unsafe impl Plain for Typed {}

/// Reads a `T` at `base + offset` into its final place: the programs' stack has 512
/// bytes, too few for copies.
#[inline(always)]
fn read_into<T: Plain>(to: &mut T, base: u64, offset: u32) {
    let from = (base + offset as u64) as *const c_void;
    // SAFETY: `to` has room for a `T`, and any bytes are a `T`. The helper itself checks
    // the address that it reads.
    unsafe { bpf_probe_read_kernel((&raw mut *to).cast(), size_of::<T>() as u32, from) };
}

/// Reads a `T` at `base + offset`.
#[inline(always)]
fn read<T: Plain>(base: u64, offset: u32) -> T {
    let mut value = T::default();
    read_into(&mut value, base, offset);
    value
}

/// An address whose type the verifier knows on every kernel: the context of an iterator,
/// or a pointer that was loaded from a tracked address.
#[derive(Clone, Copy, Default)]
struct Tracked(u64);

impl Tracked {
    /// Takes an address that the verifier tracks.
    ///
    /// # Safety
    ///
    /// The verifier must know the type of what lies at `address`.
    #[inline(always)]
    unsafe fn assume(address: u64) -> Self {
        Self(address)
    }

    /// Loads a `T` at an offset from the address.
    #[inline(always)]
    fn load<T: Plain>(self, offset: u32) -> T {
        let place = (self.0 + offset as u64) as *const T;
        // SAFETY: the verifier knows what lies there, and any bytes are a `T`. The load
        // may fault, and then gives zeroes.
        unsafe { place.read_volatile() }
    }
}

/// A member of a kernel structure: the place of its offset in [`Offsets`], bytes.
#[derive(Clone, Copy)]
struct Member(usize);

impl Member {
    /// Offset of the member, bytes.
    #[inline(always)]
    fn offset(self) -> u32 {
        let place = (&raw const CONFIG.offsets).cast::<u8>();
        // SAFETY: the place is that of a `u32` inside a static. It is read as `config!` reads.
        unsafe { place.add(self.0).cast::<u32>().read_volatile() }
    }

    /// Loads a `T`, `plus` bytes after the member, at an offset that stands for the real one.
    ///
    /// # Safety
    ///
    /// The verifier must know what lies there once user space has put the real offset in.
    #[inline(always)]
    unsafe fn load_from<T: Plain>(self, base: u64, group: usize, plus: u32) -> T {
        let place = base + (stand_in(group, self.0) + plus) as u64;
        // SAFETY: the caller promises that the verifier knows what lies there, and any bytes
        // are a `T`. The load may fault, and then gives zeroes. It is volatile, so that it
        // stays one instruction that user space can find.
        unsafe { (place as *const T).read_volatile() }
    }
}

/// What members are loaded from.
trait Source: Copy {
    /// Address of the structure in the kernel.
    fn address(self) -> u64;

    /// Loads a `T`, `plus` bytes after a member: 0, or 8 for the second half of a larger one.
    fn load<T: Plain>(self, member: Member, plus: u32) -> T;
}

/// An address whose type the verifier knows if the kernel has `bpf_rdonly_cast`: one that
/// [`typed`] returned, or a pointer that was loaded from a typed address.
#[derive(Clone, Copy, Default)]
pub struct Typed(u64);

impl Source for Typed {
    #[inline(always)]
    fn address(self) -> u64 {
        self.0
    }

    /// Without `bpf_rdonly_cast`, each load takes a helper call.
    #[inline(always)]
    fn load<T: Plain>(self, member: Member, plus: u32) -> T {
        if config!(types.rdonly_cast) == ABSENT {
            return read(self.0, member.offset() + plus);
        }
        // SAFETY: this kernel has `bpf_rdonly_cast`, so the verifier knows the type.
        unsafe { member.load_from(self.0, group::SINGLE, plus) }
    }
}

/// The members of a structure that are read at one time: those of one [`group`]. They are
/// loaded from a copy, or from a [`Typed`] address if the kernel has `bpf_rdonly_cast`.
#[derive(Clone, Copy)]
struct View<'a, const GROUP: usize> {
    address: u64,
    /// Address of the structure or of the copy.
    base: u64,
    copy: PhantomData<&'a ()>,
}

impl<'a, const GROUP: usize> View<'a, GROUP> {
    /// Copies the members, if they have to be.
    #[inline(always)]
    fn of<T>(structure: Typed, copy: &'a mut MaybeUninit<T>) -> Self {
        const { assert!(size_of::<T>() == group::COPY_BYTES[GROUP] && align_of::<T>() == 8) };
        let mut base = structure.0;
        if config!(types.rdonly_cast) == ABSENT {
            let copy: *mut u8 = copy.as_mut_ptr().cast();
            for n in 0..group::RUNS[GROUP] {
                copy_run(copy, structure.0, group::FIRST_RUN[GROUP] + n);
            }
            base = copy as u64;
        }
        Self {
            address: structure.0,
            base,
            copy: PhantomData,
        }
    }
}

/// Copies a [`Run`] of a structure, if its place is in use.
#[inline(always)]
fn copy_run(copy: *mut u8, structure: u64, run: usize) {
    let bytes = config!(runs[run].bytes);
    if bytes != 0 {
        let from = (structure + config!(runs[run].from) as u64) as *const c_void;
        let to = copy.wrapping_add(config!(runs[run].to) as usize);
        // SAFETY: user space sees to it that the run fits into the copy, and the verifier
        // checks it. The helper itself checks the address that it reads.
        unsafe { bpf_probe_read_kernel(to.cast(), bytes, from) };
    }
}

impl<const GROUP: usize> Source for View<'_, GROUP> {
    #[inline(always)]
    fn address(self) -> u64 {
        self.address
    }

    #[inline(always)]
    fn load<T: Plain>(self, member: Member, plus: u32) -> T {
        // SAFETY: the verifier knows the type of the structure, or the copy has every member
        // that a program loads from it.
        unsafe { member.load_from(self.base, GROUP, plus) }
    }
}

/// Room on the stack for the copy of a group.
macro_rules! copy_of {
    ($group:ident) => {
        MaybeUninit::<[u64; group::COPY_BYTES[group::$group] / 8]>::uninit()
    };
}

/// Tells the verifier the type of what lies at an address, if `structure` is not
/// [`ABSENT`]. The verifier then lets loads do without a helper. The call itself is
/// only a move (`fixup_kfunc_call`, kernel/bpf/verifier.c).
#[inline(always)]
fn typed(address: u64, structure: u32) -> Typed {
    if structure == ABSENT {
        return Typed(address);
    }
    // SAFETY: nothing is called at this address: see `RDONLY_CAST`.
    let rdonly_cast: extern "C" fn(u64, u32) -> u64 =
        unsafe { core::mem::transmute(RDONLY_CAST as usize) };
    Typed(rdonly_cast(address, structure))
}

/// The [`Typed`] address of a socket. A minisock is smaller: memory past its end is not its
/// own.
#[inline(always)]
fn tcp_sock(sk: u64) -> Typed {
    typed(sk, config!(types.tcp_sock))
}

/// The [`Member`] whose offset has this name in [`Offsets`].
macro_rules! place {
    ($($offset:ident).+) => {
        Member(offset_of!(Offsets, $($offset).+))
    };
}

/// Loads the member at an offset of [`Config::offsets`] from a [`Source`].
macro_rules! member {
    ($base:expr, $offset:ident) => {
        $base.load(place!($offset), 0)
    };
    ($base:expr, $offset:ident => $type:ty) => {
        $base.load::<$type>(place!($offset), 0)
    };
}

/// Reads the member at an offset of [`Config::offsets`] from any address.
macro_rules! probe {
    ($base:expr, $($offset:ident).+) => {
        read($base, config!(offsets.$($offset).+))
    };
    ($base:expr, $offset:ident => $type:ty) => {
        read::<$type>($base, config!(offsets.$offset))
    };
}

/// Loads a number whose size depends on the kernel; 0 if the kernel has none.
macro_rules! number {
    ($base:expr, $number:ident) => {{
        match config!(offsets.$number.size) {
            1 => $base.load::<u8>(place!($number.at), 0) as u32,
            4 => $base.load(place!($number.at), 0),
            _ => 0,
        }
    }};
}

/// Whether a flag is set that may be a bit field.
macro_rules! is_set {
    ($base:expr, $flag:ident) => {{
        let Flag { at, mask } = config!(offsets.$flag);
        at != ABSENT && $base.load::<u8>(place!($flag.at), 0) as u32 & mask != 0
    }};
}

/// Sets all of a value to zero, word by word. An assignment would become a call of
/// `memset`, which for BPF is a loop of six instructions per byte.
#[inline(always)]
pub fn clear<T>(place: &mut MaybeUninit<T>) {
    const {
        assert!(
            align_of::<T>() == align_of::<u64>(),
            "the type is not made of words"
        )
    };
    let words = place.as_mut_ptr().cast::<u64>();
    for n in 0..size_of::<T>() / size_of::<u64>() {
        // SAFETY: the word is inside `place`, and aligned. The write is volatile, as the
        // compiler would otherwise turn the loop into a `memset`.
        unsafe { words.add(n).write_volatile(0) };
    }
}

/// Copies a value word by word. The kernel's own copy (`bpf_ringbuf_output`) is an instruction
/// that repeats for each byte, which takes longer to begin than this takes.
#[inline(always)]
pub fn copy<T>(from: &T, to: &mut MaybeUninit<T>) {
    const {
        assert!(
            align_of::<T>() == align_of::<u64>(),
            "the type is not made of words"
        )
    };
    let words = (&raw const *from).cast::<u64>();
    let places = to.as_mut_ptr().cast::<u64>();
    for n in 0..size_of::<T>() / size_of::<u64>() {
        // SAFETY: both words are inside their values, and aligned. The write is volatile, as in
        // `clear`: the compiler would turn the loop into a `memcpy`.
        unsafe { places.add(n).write_volatile(words.add(n).read()) };
    }
}

/// The time now, in the kernel's 32-bit jiffies (`tcp_jiffies32`).
#[inline(always)]
pub fn jiffies() -> u32 {
    // SAFETY: the helper takes no arguments.
    unsafe { bpf_jiffies64() as u32 }
}

/// The time now, CLOCK_MONOTONIC ns.
#[inline(always)]
pub fn now_ns() -> u64 {
    // SAFETY: the helper takes no arguments.
    unsafe { bpf_ktime_get_ns() }
}

/// Address of the socket that a keepalive timer is in.
#[inline(always)]
pub fn socket_of(timer: u64) -> u64 {
    timer - config!(offsets.timer) as u64
}

/// Address of a socket's keepalive timer.
#[inline(always)]
pub fn timer_of(sk: u64) -> u64 {
    sk + config!(offsets.timer) as u64
}

/// Address of the function that a timer calls.
#[inline(always)]
pub fn timer_function(timer: u64) -> u64 {
    member!(tcp_sock(socket_of(timer)), timer_function)
}

/// Cookie of a socket; 0 if the kernel has not made one.
#[inline(always)]
pub fn cookie(sk: u64) -> u64 {
    member!(tcp_sock(sk), skc_cookie)
}

/// Keepalive time and interval of a socket's netns, jiffies.
#[inline(always)]
pub fn sysctls(sk: u64) -> (u32, u32) {
    let net: Typed = member!(tcp_sock(sk), skc_net);
    (
        member!(net, net_keepalive_time),
        member!(net, net_keepalive_intvl),
    )
}

/// Identity of a socket: the values that the filters compare.
pub trait Identity {
    /// Address of the socket in the kernel.
    fn sk(&self) -> u64;
    /// Address family.
    fn family(&self) -> u16;
    /// Local port, host order.
    fn lport(&self) -> u16;
    /// Remote port, host order.
    fn rport(&self) -> u16;
    /// Local and remote address. The family determines where they lie.
    fn addresses(&self, family: u16) -> ([u8; 16], [u8; 16]);
    /// Inode number of the network namespace.
    fn netns(&self) -> u32;
}

/// A socket in the kernel, by its address. A value is read each time it is asked for.
pub struct Unread(pub u64);

impl Identity for Unread {
    #[inline(always)]
    fn sk(&self) -> u64 {
        self.0
    }

    #[inline(always)]
    fn family(&self) -> u16 {
        member!(tcp_sock(self.0), skc_family)
    }

    #[inline(always)]
    fn lport(&self) -> u16 {
        u16::from_be(member!(tcp_sock(self.0), inet_sport))
    }

    #[inline(always)]
    fn rport(&self) -> u16 {
        u16::from_be(member!(tcp_sock(self.0), skc_dport))
    }

    #[inline(always)]
    fn addresses(&self, family: u16) -> ([u8; 16], [u8; 16]) {
        addresses(tcp_sock(self.0), family)
    }

    #[inline(always)]
    fn netns(&self) -> u32 {
        let net: Typed = member!(tcp_sock(self.0), skc_net);
        member!(net, net_inum)
    }
}

/// A socket whose identity has been read.
impl Identity for Socket {
    #[inline(always)]
    fn sk(&self) -> u64 {
        self.sk
    }

    #[inline(always)]
    fn family(&self) -> u16 {
        self.family
    }

    #[inline(always)]
    fn lport(&self) -> u16 {
        self.lport
    }

    #[inline(always)]
    fn rport(&self) -> u16 {
        self.rport
    }

    #[inline(always)]
    fn addresses(&self, _family: u16) -> ([u8; 16], [u8; 16]) {
        (self.laddr, self.raddr)
    }

    #[inline(always)]
    fn netns(&self) -> u32 {
        self.netns
    }
}

/// Reads the ends of a socket's connection.
#[inline(always)]
fn ends(sk: impl Source, socket: &mut Socket) {
    socket.sk = sk.address();
    socket.family = member!(sk, skc_family);
    socket.lport = u16::from_be(member!(sk, inet_sport));
    socket.rport = u16::from_be(member!(sk, skc_dport));
    (socket.laddr, socket.raddr) = addresses(sk, socket.family);
}

/// Local and remote address of a socket of this family.
#[inline(always)]
fn addresses(sk: impl Source, family: u16) -> ([u8; 16], [u8; 16]) {
    if family == AF_INET6 && config!(offsets.skc_v6_daddr) != ABSENT {
        (
            v6(sk, place!(skc_v6_rcv_saddr)),
            v6(sk, place!(skc_v6_daddr)),
        )
    } else {
        (
            wide(member!(sk, skc_rcv_saddr)),
            wide(member!(sk, skc_daddr)),
        )
    }
}

/// Loads an IPv6 address.
#[inline(always)]
fn v6(sk: impl Source, member: Member) -> [u8; 16] {
    let halves: [u64; 2] = [sk.load(member, 0), sk.load(member, 8)];
    // SAFETY: both are integers, and have the same size.
    unsafe { core::mem::transmute(halves) }
}

/// Widens an IPv4 address to sixteen bytes, of which it fills the first four.
#[inline(always)]
fn wide(v4: u32) -> [u8; 16] {
    // SAFETY: both are integers, and have the same size.
    unsafe { core::mem::transmute([v4, 0, 0, 0]) }
}

/// Reads the ends of the segment in `skb`, seen from this host, and its flags, TTL and
/// length.
///
/// `sk` is the socket or minisock that the segment met, or 0 if it met none. The network
/// namespace is that of `sk`, or that of the device if `sk` is 0. (`tcp_v4_rcv` removes
/// the device from a segment that has a socket.)
#[inline(always)]
pub fn dissect(sk: u64, skb: u64, event: &mut Event) {
    let head: u64 = probe!(skb, skb_head);
    let network = probe!(skb, skb_network_header => u16) as u64;
    let transport = probe!(skb, skb_transport_header => u16) as u64;
    let (ip, tcp) = (head + network, head + transport);
    let socket = &mut event.socket;

    socket.rport = u16::from_be(read(tcp, 0));
    socket.lport = u16::from_be(read(tcp, 2));
    let tcp_bytes = (read::<u8>(tcp, 12) >> 4) as u64 * 4;
    event.segment_flags = read(tcp, 13);

    let ip_bytes = if read::<u8>(ip, 0) >> 4 == 6 {
        socket.family = AF_INET6;
        read_into(&mut socket.raddr, ip, 8);
        read_into(&mut socket.laddr, ip, 24);
        event.segment_ttl = read(ip, 7);
        40 + u16::from_be(read(ip, 4)) as u64
    } else {
        socket.family = AF_INET;
        socket.raddr = wide(read(ip, 12));
        socket.laddr = wide(read(ip, 16));
        event.segment_ttl = read(ip, 8);
        u16::from_be(read(ip, 2)) as u64
    };
    event.segment_len = ip_bytes.saturating_sub(transport - network + tcp_bytes) as u32;

    let net: u64 = if sk != 0 {
        event.state = probe!(sk, skc_state);
        probe!(sk, skc_net)
    } else {
        let dev: u64 = probe!(skb, skb_dev);
        probe!(dev, dev_net)
    };
    socket.netns = probe!(net, net_inum);
}

/// Reads what conntrack made of a segment that met no socket. Where TCP finds a socket, it
/// has forgotten that (`nf_reset_ct` in `tcp_v4_rcv`), and in IPv6 it always has
/// (`ip6_protocol_deliver_rcu`, net/ipv6/ip6_input.c).
#[inline(always)]
pub fn tracking(skb: u64, event: &mut Event) {
    if config!(offsets.skb_nfct) == ABSENT || event.socket.family != AF_INET {
        return;
    }
    let entry: u64 = probe!(skb, skb_nfct);
    if entry == 0 {
        event.segment_path |= path::UNTRACKED;
    } else if entry & !NFCT_INFOMASK != 0 {
        event.segment_path |= path::TRACKED;
    }
}

/// Facts of a segment that came in for a socket.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Segment {
    /// TCP flags: the 14th byte of its header.
    pub flags: u8,
    /// TTL or hop limit left.
    pub ttl: u8,
    /// Always zero.
    pub reserved: [u8; 2],
    /// Index of the device that delivered it.
    pub iif: u32,
}

/// Reads the facts of a segment.
#[inline(always)]
pub fn segment(skb: u64) -> Segment {
    Segment {
        flags: segment_flags(skb),
        ttl: segment_ttl(skb),
        reserved: [0; 2],
        iif: probe!(skb, skb_iif),
    }
}

/// Adds a segment to the event of the socket that it came in for.
#[inline(always)]
pub fn put_segment(sk: u64, segment: &Segment, event: &mut Event) {
    event.segment_flags = segment.flags;
    event.segment_ttl = segment.ttl;
    if segment.iif == LOOPBACK_IFINDEX {
        event.segment_path |= path::LOOPBACK;
    }
    let device = if event.peer_ttl != 0 {
        handshake_device(sk, event.socket.family)
    } else {
        route_device(sk)
    };
    if device != 0 && device != LOOPBACK_IFINDEX {
        event.segment_path |= path::ELSEWHERE;
    }
}

/// Notes in an event whether the peer has sent data.
#[inline(always)]
pub fn note_data(sk: u64, event: &mut Event) {
    let received: u64 = member!(tcp_sock(sk), bytes_received);
    if received != 0 {
        event.flags |= flag::DATA_RECEIVED;
    }
}

/// Reads the TTL that the peer's handshake left behind, if this host accepted the
/// connection.
#[inline(always)]
pub fn handshake(sk: u64, event: &mut Event) {
    let family = event.socket.family;
    if handshake_device(sk, family) == 0 {
        return;
    }
    event.peer_ttl = if family == AF_INET6 {
        let pinet6: u64 = probe!(sk, pinet6);
        let hops: u16 = probe!(pinet6, mcast_hops);
        (hops >> (config!(offsets.mcast_hops_shift) & 15)) as u8
    } else {
        probe!(sk, mc_ttl)
    };
}

/// Index of the device that delivered the peer's handshake; 0 if this host opened the
/// connection.
#[inline(always)]
fn handshake_device(sk: u64, family: u16) -> u32 {
    if family != AF_INET6 {
        return probe!(sk, mc_index);
    }
    if config!(offsets.pinet6) == ABSENT {
        return 0;
    }
    let pinet6: u64 = probe!(sk, pinet6);
    probe!(pinet6, mcast_oif)
}

/// Index of the device that the socket's route to the peer leads to; 0 if it has none now.
#[inline(always)]
fn route_device(sk: u64) -> u32 {
    let dst: u64 = probe!(sk, sk_dst_cache);
    if dst == 0 {
        return 0;
    }
    let dev: u64 = probe!(dst, dst_dev);
    probe!(dev, dev_ifindex)
}

/// `icsk_probes_out`: number of probes sent and not answered.
#[inline(always)]
pub fn probes_out(sk: u64) -> u8 {
    member!(tcp_sock(sk), icsk_probes_out)
}

/// TCP flags of the segment in `skb`: FIN, SYN, RST, PSH, ACK, URG, ECE and CWR, with FIN
/// in the lowest bit.
#[inline(always)]
fn segment_flags(skb: u64) -> u8 {
    let head: u64 = probe!(skb, skb_head);
    read(head + probe!(skb, skb_transport_header => u16) as u64, 13)
}

/// TTL or hop limit left in the segment in `skb`.
#[inline(always)]
pub fn segment_ttl(skb: u64) -> u8 {
    let head: u64 = probe!(skb, skb_head);
    let ip = head + probe!(skb, skb_network_header => u16) as u64;
    if read::<u8>(ip, 0) >> 4 == 6 {
        read(ip, 7)
    } else {
        read(ip, 8)
    }
}

/// Whether the segment in `skb` answers the probes: whether `tcp_ack` will reach the place
/// where it sets `icsk_probes_out` to 0 (net/ipv4/tcp_input.c).
///
/// `tcp_validate_incoming` lets a segment through that is not a reset, not a SYN and not
/// older than what was received. A probe that the peer sends is older by one byte. (PAWS
/// and segments from beyond the window are not checked here.) `tcp_ack` requires that the
/// segment acknowledges data that is outstanding, or all data that was outstanding.
#[inline(always)]
pub fn answers_probes(sk: u64, skb: u64) -> bool {
    let flags = segment_flags(skb);
    let sk = tcp_sock(sk);
    let end_seq: u32 = probe!(skb, skb_end_seq);
    let ack_seq: u32 = probe!(skb, skb_ack_seq);
    let (rcv_nxt, snd_una): (u32, u32) = (member!(sk, rcv_nxt), member!(sk, snd_una));
    let write_seq: u32 = member!(sk, write_seq);
    flags & TCP_FLAG_ACK != 0
        && flags & (TCP_FLAG_RST | TCP_FLAG_SYN) == 0
        && !before(end_seq, rcv_nxt)
        && !before(ack_seq, snd_una)
        && !before(write_seq, ack_seq)
}

/// Whether one sequence number is before another: `before`, include/net/tcp.h. Sequence
/// numbers wrap.
#[inline(always)]
fn before(one: u32, other: u32) -> bool {
    (one.wrapping_sub(other) as i32) < 0
}

/// Reads all values of a socket that an event reports.
#[inline(always)]
pub fn describe(sk: u64, event: &mut Event) {
    note_time(event);
    let at = tcp_sock(sk);
    look(at, event);
    let net: Typed = member!(at, skc_net);
    sysctls_of(net, event);
    ends(at, &mut event.socket);
    let mut owner = Owner {
        net: net.0,
        ..Owner::NONE
    };
    owner.find(at, event);
    owner.name(event);
}

/// Reads what an event reports of a socket whose timer fires, but not its owner. Returns the
/// address of the socket's network namespace.
#[inline(always)]
pub fn look_at_entry(sk: u64, event: &mut Event) -> u64 {
    note_time(event);
    let mut copy = copy_of!(ENTRY);
    let at = View::<{ group::ENTRY }>::of(tcp_sock(sk), &mut copy);
    look(at, event);
    ends(at, &mut event.socket);
    let net: Typed = member!(at, skc_net);
    let mut copy = copy_of!(SYSCTLS);
    sysctls_of(View::<{ group::SYSCTLS }>::of(net, &mut copy), event);
    net.0
}

/// Addresses that lead from a socket to what tells whose it is. They stay valid until a softirq
/// ends, even if the socket is destroyed meanwhile: a softirq is a reader of RCU, and an inode
/// of sockfs is freed after one (`sock_free_inode`, net/socket.c).
#[derive(Clone, Copy)]
pub struct Owner {
    /// The network namespace.
    pub net: u64,
    /// The `struct socket`; 0 for an orphan.
    pub socket: u64,
    /// The cgroup v2; 0 if it is unknown.
    pub cgroup: u64,
}

impl Owner {
    /// Not known yet.
    pub const NONE: Self = Self {
        net: 0,
        socket: 0,
        cgroup: 0,
    };

    /// Finds the owner of a socket, and reads what is in the socket itself.
    #[inline(always)]
    fn find(&mut self, sk: impl Source, event: &mut Event) {
        self.socket = member!(sk, sk_socket);
        self.cgroup = cgroup_in(sk).0;
        event.uid = member!(sk, sk_uid);
        if is_set!(sk, is_mptcp) {
            event.flags |= flag::MPTCP;
        }
    }

    /// Finds the owner of a socket whose timer fires.
    #[inline(always)]
    pub fn find_in_firing(&mut self, sk: u64, event: &mut Event) {
        let mut copy = copy_of!(OWNER);
        let at = View::<{ group::OWNER }>::of(tcp_sock(sk), &mut copy);
        self.find(at, event);
    }

    /// Reads the numbers by which user space knows the owner.
    #[inline(always)]
    pub fn name(&self, event: &mut Event) {
        event.socket.netns = member!(typed(self.net, config!(types.net)), net_inum);
        event.inode = self.inode();
        event.cgroup = cgroup_id(typed(self.cgroup, config!(types.cgroup)));
    }

    /// Inode number of the socket's file; 0 for an orphan.
    #[inline(always)]
    pub fn inode(&self) -> u64 {
        if self.socket == 0 {
            return 0;
        }
        member!(typed(self.socket, config!(types.socket_alloc)), socket_ino)
    }
}

/// Reads what a [`Detailed`] event reports, but not who did it.
#[inline(always)]
pub fn detail(sk: u64, detailed: &mut Detailed) {
    describe(sk, &mut detailed.event);
    let sk = tcp_sock(sk);
    sending(sk, &mut detailed.sending);
    detailed.rack_mstamp = member!(sk, rack_mstamp);
}

/// Reads what a socket has sent, and when it sends it again.
#[inline(always)]
fn sending(sk: impl Source, sending: &mut Sending) {
    sending.err_soft = member!(sk, sk_err_soft);
    sending.snd_una = member!(sk, snd_una);
    sending.snd_nxt = member!(sk, snd_nxt);
    sending.write_seq = member!(sk, write_seq);
    sending.snd_wnd = member!(sk, snd_wnd);
    sending.tcp_mstamp = member!(sk, tcp_mstamp);
    sending.first_tx_mstamp = member!(sk, first_tx_mstamp);
    sending.retrans_stamp = member!(sk, retrans_stamp);
    sending.usec_ts = is_set!(sk, usec_ts) as u8;
    sending.rto = member!(sk, icsk_rto);
    if config!(offsets.icsk_rto_max) != ABSENT {
        sending.rto_max = member!(sk, icsk_rto_max);
    }
    if config!(offsets.icsk_probes_tstamp) != ABSENT {
        sending.probes_tstamp = member!(sk, icsk_probes_tstamp);
        sending.probes_timed = 1;
    }
    sending.backoff = member!(sk, icsk_backoff);
    let net: Typed = member!(sk, skc_net);
    sending.retries2 = number!(net, net_retries2);
    sending.orphan_retries = number!(net, net_orphan_retries);
}

/// Reads which process closes or resets a socket, if one holds its lock. A softirq finds
/// the lock free, or leaves the work to its holder (`sock_owned_by_user`,
/// include/net/sock.h): segments and timers, which close no connection of their own accord.
/// A thread of the kernel is not named.
#[inline(always)]
pub fn name_actor(detailed: &mut Detailed) {
    if detailed.event.flags & flag::OWNED == 0 {
        return;
    }
    // SAFETY: the helper takes no arguments.
    let task = unsafe { bpf_get_current_task() };
    let flags: u32 = probe!(task, task_flags);
    if flags & PF_KTHREAD != 0 {
        return;
    }
    detailed.exiting = (flags & PF_EXITING != 0) as u8;
    let leader: u64 = probe!(task, task_group_leader);
    read_into(&mut detailed.comm, leader, config!(offsets.task_comm));
    if config!(in_initial_pid_namespace) != 0 {
        detailed.pid = (bpf_get_current_pid_tgid() >> 32) as u32;
    }
}

/// Number of the process that a thread is in, in the initial pid namespace.
#[inline(always)]
pub fn process_of(task: u64) -> u32 {
    probe!(task, task_tgid)
}

/// Whether a thread is the main thread of its process, which has the process's name.
#[inline(always)]
pub fn is_main_thread(task: u64) -> bool {
    probe!(task, task_group_leader => u64) == task
}

/// Inode number of the socket that a `struct file` is; `None` if it is not a socket.
#[inline(always)]
pub fn socket_inode(file: u64) -> Option<u64> {
    let inode: u64 = probe!(file, descriptors.file_inode);
    let mode: u16 = probe!(inode, descriptors.inode_mode);
    let sb: u64 = probe!(inode, descriptors.inode_sb);
    let magic: u64 = probe!(sb, descriptors.sb_magic);
    if mode & S_IFMT != S_IFSOCK || magic != SOCKFS_MAGIC {
        return None;
    }
    Some(probe!(inode, descriptors.inode_ino))
}

/// `icsk_retransmits`: number of retransmission timeouts in a row.
#[inline(always)]
pub fn retransmits(sk: u64) -> u8 {
    member!(tcp_sock(sk), icsk_retransmits)
}

/// Whether the segment in `skb`, which a socket sends, is the oldest that is not
/// acknowledged.
#[inline(always)]
pub fn is_oldest(sk: u64, skb: u64) -> bool {
    let seq: u32 = probe!(skb, skb_seq);
    let una: u32 = member!(tcp_sock(sk), snd_una);
    seq == una
}

/// Whether a socket is of TCP. Other protocols use the states of TCP too.
#[inline(always)]
pub fn is_tcp(sk: u64) -> bool {
    member!(tcp_sock(sk), sk_protocol => u16) == IPPROTO_TCP
}

/// How long a connection has carried no data, either way, jiffies.
#[inline(always)]
pub fn without_data(sk: u64) -> u32 {
    let sk = tcp_sock(sk);
    elapsed(member!(sk, lrcvtime), member!(sk, lsndtime), jiffies())
}

/// How long no data was received, and none was sent that the peer acknowledged, jiffies.
#[inline(always)]
pub fn without_answer(sk: u64, hz: u32) -> u32 {
    let sk = tcp_sock(sk);
    let received: u32 = member!(sk, lrcvtime);
    let now_us: u64 = member!(sk, tcp_mstamp);
    let sent_us: u64 = member!(sk, rack_mstamp);
    let since_us = now_us.saturating_sub(sent_us);
    let since = since_us * hz as u64 / 1_000_000;
    jiffies().wrapping_sub(received).min(since as u32)
}

/// Whether a process has the socket's lock.
#[inline(always)]
pub fn is_owned(sk: u64) -> bool {
    member!(tcp_sock(sk), sk_lock_owned => u32) != 0
}

/// State of a socket.
#[inline(always)]
pub fn state_of(sk: u64) -> u8 {
    member!(tcp_sock(sk), skc_state)
}

/// `repair`: a process repairs the socket, and ends it without a word to the peer.
#[inline(always)]
pub fn is_repaired(sk: u64) -> bool {
    is_set!(tcp_sock(sk), repair)
}

/// `sk_err`: a positive errno, or 0.
#[inline(always)]
pub fn error(sk: u64) -> u32 {
    member!(tcp_sock(sk), sk_err)
}

/// The sequence numbers of a socket's send queue, which outlive the queue itself.
#[derive(Clone, Copy)]
pub struct Sequences {
    una: u32,
    nxt: u32,
    write: u32,
}

impl Sequences {
    /// Reads them.
    #[inline(always)]
    pub fn of(sk: u64) -> Self {
        let sk = tcp_sock(sk);
        Self {
            una: member!(sk, snd_una),
            nxt: member!(sk, snd_nxt),
            write: member!(sk, write_seq),
        }
    }

    /// Whether all data that the socket was given is acknowledged, and the FIN.
    #[inline(always)]
    pub fn all_acknowledged(self) -> bool {
        self.una == self.write
    }

    /// Whether what was sent, be it a SYN, data or a FIN, is not acknowledged.
    #[inline(always)]
    pub fn in_flight(self) -> bool {
        self.una != self.nxt
    }

    /// Whether anything waits to be sent.
    #[inline(always)]
    pub fn unsent(self) -> bool {
        self.nxt != self.write
    }
}

/// Whether a socket has neither data in flight nor data to send left in its queues.
/// `tcp_write_queue_purge` (net/ipv4/tcp.c) empties them, and leaves the sequence numbers.
#[inline(always)]
pub fn queues_are_empty(sk: u64) -> bool {
    let sk = tcp_sock(sk);
    let packets_out: u32 = member!(sk, packets_out);
    packets_out == 0 && flags(sk) & flag::WRITE_QUEUE == 0
}

/// Whether a SYN was sent as often as the kernel sends it: `tcp_write_timeout`,
/// net/ipv4/tcp_timer.c.
#[inline(always)]
pub fn syn_retries_used(sk: u64) -> bool {
    let sk = tcp_sock(sk);
    let net: Typed = member!(sk, skc_net);
    let own: u8 = member!(sk, icsk_syn_retries);
    let retries = if own != 0 {
        own as u32
    } else {
        number!(net, net_syn_retries)
    };
    let retransmits: u8 = member!(sk, icsk_retransmits);
    retransmits as u32 >= retries + number!(net, net_syn_linear_timeouts)
}

/// Whether the peer's window is 0 for a socket that a process has: its retransmissions are
/// window probes then (`tcp_retransmit_timer`, net/ipv4/tcp_timer.c).
#[inline(always)]
pub fn window_is_shut(sk: u64) -> bool {
    let sk = tcp_sock(sk);
    let (window, bits): (u32, u64) = (member!(sk, snd_wnd), member!(sk, sk_flags));
    window == 0 && bits & SOCK_DEAD == 0
}

/// Whether nothing was received for the longest time for which the kernel retransmits into
/// a window of 0.
#[inline(always)]
pub fn silent_for_rto_max(sk: u64, hz: u32) -> bool {
    let heard: u32 = member!(tcp_sock(sk), rcv_tstamp);
    jiffies().wrapping_sub(heard) > TCP_RTO_MAX_S * hz
}

/// Whether window probes went unanswered for longer than the user timeout
/// (`tcp_probe_timer`, net/ipv4/tcp_timer.c).
#[inline(always)]
pub fn probed_for_user_timeout(sk: u64, hz: u32) -> bool {
    if config!(offsets.icsk_probes_tstamp) == ABSENT {
        return true;
    }
    let since: u32 = member!(tcp_sock(sk), icsk_probes_tstamp);
    let probed = jiffies().wrapping_sub(since) as u64;
    since != 0 && probed >= user_timeout(sk) as u64 * hz as u64 / 1000
}

/// Notes the time before anything is read.
#[inline(always)]
fn note_time(event: &mut Event) {
    event.mono_ns = now_ns();
    event.jiffies = jiffies();
    event.jiffies_after = event.jiffies;
}

/// Reads the state of a socket, and its settings.
#[inline(always)]
fn look(sk: impl Source, event: &mut Event) {
    event.flags |= flags(sk);
    event.state = member!(sk, skc_state);
    event.retransmits = member!(sk, icsk_retransmits);
    event.probes_out = member!(sk, icsk_probes_out);
    event.packets_out = member!(sk, packets_out);
    event.lrcvtime = member!(sk, lrcvtime);
    event.rcv_tstamp = member!(sk, rcv_tstamp);
    event.lsndtime = member!(sk, lsndtime);
    if config!(offsets.last_oow_ack_time) != ABSENT {
        event.last_oow_ack_time = member!(sk, last_oow_ack_time);
        event.flags |= flag::OOW_SEEN;
    }
    event.expires = member!(sk, timer_expires);
    event.state_after = event.state;
    event.probes_out_after = event.probes_out;
    event.expires_after = event.expires;
    event.keepalive_time = member!(sk, keepalive_time);
    event.keepalive_intvl = member!(sk, keepalive_intvl);
    event.user_timeout = member!(sk, icsk_user_timeout);
    event.keepalive_probes = member!(sk, keepalive_probes => u8) as u32;
    event.cookie = member!(sk, skc_cookie);
}

/// Reads the keepalive settings of a network namespace.
#[inline(always)]
fn sysctls_of(net: impl Source, event: &mut Event) {
    event.sysctl_time = member!(net, net_keepalive_time);
    event.sysctl_intvl = member!(net, net_keepalive_intvl);
    event.sysctl_probes = number!(net, net_keepalive_probes);
}

/// The [`flag`]s that follow from members of a socket.
#[inline(always)]
fn flags(sk: impl Source) -> u16 {
    let bits: u64 = member!(sk, sk_flags);
    let owned: u32 = member!(sk, sk_lock_owned);
    // The queue is empty if the list head points to itself: `tcp_write_queue_empty`.
    let first: u64 = member!(sk, sk_write_queue);
    let queue = sk.address() + config!(offsets.sk_write_queue) as u64;
    let mut flags = 0;
    if bits & SOCK_DEAD != 0 {
        flags |= flag::DEAD;
    }
    if bits & SOCK_KEEPOPEN != 0 {
        flags |= flag::KEEPOPEN;
    }
    if owned != 0 {
        flags |= flag::OWNED;
    }
    if first != queue {
        flags |= flag::WRITE_QUEUE;
    }
    flags
}

/// Reads what a firing has changed, once the timer's function has returned.
///
/// The socket may be free by then, and its memory may even be another socket's. Another
/// processor may have changed it since the timer released its lock. So these values prove
/// an outcome only as far as nobody else makes the same change.
#[inline(always)]
pub fn look_again(sk: u64, event: &mut Event) {
    let mut copy = copy_of!(EXIT);
    changes(View::<{ group::EXIT }>::of(tcp_sock(sk), &mut copy), event);
}

/// Reads the values of a socket that a firing changes.
#[inline(always)]
fn changes(sk: impl Source, event: &mut Event) {
    let pprev: u64 = member!(sk, timer_pprev);
    if pprev != 0 {
        event.flags |= flag::PENDING_AFTER;
    }
    event.expires_after = member!(sk, timer_expires);
    event.state_after = member!(sk, skc_state);
    event.probes_out_after = member!(sk, icsk_probes_out);
    event.err = member!(sk, sk_err);
    event.jiffies_after = jiffies();
}

/// The error that `tcp_write_err` gives a connection (net/ipv4/tcp_timer.c): what ICMP
/// said, or ETIMEDOUT.
#[inline(always)]
pub fn timeout_error(sk: u64) -> u32 {
    let soft: u32 = member!(tcp_sock(sk), sk_err_soft);
    if soft != 0 { soft } else { ETIMEDOUT }
}

/// Whether a socket is an orphan in FIN_WAIT2. Its timer is not keepalive's then.
#[inline(always)]
pub fn is_fin_wait2_orphan(sk: u64) -> bool {
    let sk = tcp_sock(sk);
    let (state, bits): (u8, u64) = (member!(sk, skc_state), member!(sk, sk_flags));
    state == TCP_FIN_WAIT2 && bits & SOCK_DEAD != 0
}

/// `icsk_user_timeout`, ms; 0 means none.
#[inline(always)]
pub fn user_timeout(sk: u64) -> u32 {
    member!(tcp_sock(sk), icsk_user_timeout)
}

/// Jiffies since a socket last heard from its peer: `keepalive_time_elapsed`,
/// include/net/tcp.h, which is wrapping and unsigned.
#[inline(always)]
pub fn elapsed(lrcvtime: u32, rcv_tstamp: u32, jiffies: u32) -> u32 {
    (jiffies.wrapping_sub(lrcvtime)).min(jiffies.wrapping_sub(rcv_tstamp))
}

/// When the peer was last heard, jiffies, if that was after the entry of the firing.
#[inline(always)]
pub fn heard_since(sk: u64, event: &Event) -> Option<u32> {
    let sk = tcp_sock(sk);
    let (received, acked): (u32, u32) = (member!(sk, lrcvtime), member!(sk, rcv_tstamp));
    if received == event.lrcvtime && acked == event.rcv_tstamp {
        return None;
    }
    let now = event.jiffies_after;
    Some(now.wrapping_sub(elapsed(received, acked, now)))
}

/// Whether another processor has changed a socket since the entry of the firing: what
/// `tcp_keepalive_timer` decides by, and does not itself change.
#[inline(always)]
pub fn has_changed(sk: u64, event: &Event) -> bool {
    const SEEN: u16 = flag::DEAD | flag::KEEPOPEN | flag::WRITE_QUEUE | flag::OWNED;
    let at = tcp_sock(sk);
    let packets_out: u32 = member!(at, packets_out);
    let time: u32 = member!(at, keepalive_time);
    let intvl: u32 = member!(at, keepalive_intvl);
    let (sysctl_time, sysctl_intvl) = sysctls(sk);
    event.state_after != event.state
        || (flags(at) ^ event.flags) & SEEN != 0
        || packets_out != event.packets_out
        || (time, intvl) != (event.keepalive_time, event.keepalive_intvl)
        || (sysctl_time, sysctl_intvl) != (event.sysctl_time, event.sysctl_intvl)
        || heard_since(sk, event).is_some()
}

/// Whether a socket has ended, or can only end: `inet_csk_destroy_sock`
/// (net/ipv4/inet_connection_sock.c) requires both the state and the flag.
#[inline(always)]
pub fn is_gone(sk: u64) -> bool {
    let sk = tcp_sock(sk);
    member!(sk, skc_state => u8) == TCP_CLOSE && member!(sk, sk_flags => u64) & SOCK_DEAD != 0
}

/// The socket that an iterator has reached, from the iterator's context; 0 at the end. It
/// is the second argument of `bpf_iter_tcp`, net/ipv4/tcp_ipv4.c.
#[inline(always)]
pub fn iterated(ctx: *mut c_void) -> u64 {
    read(ctx as u64, 8)
}

/// The descriptor that an iterator has reached, if it is a process's and refers to a
/// socket. A thread may have descriptors of its own; /proc/PID/fd does not have them
/// either.
///
/// The context has a task, a descriptor and a file: the arguments of `bpf_iter_task_file`,
/// kernel/bpf/task_iter.c. At the end it has none.
///
/// # Safety
///
/// `ctx` must be the context of a program of iter/task_file.
#[inline(always)]
pub unsafe fn descriptor(ctx: *mut c_void) -> Option<Descriptor> {
    // SAFETY: the verifier knows the type of its program's context.
    let ctx = unsafe { Tracked::assume(ctx as u64) };
    let (task, file): (Tracked, Tracked) = (ctx.load(8), ctx.load(24));
    if task.0 == 0 || file.0 == 0 {
        return None;
    }
    let inode: Tracked = file.load(config!(offsets.descriptors.file_inode));
    let mode: u16 = inode.load(config!(offsets.descriptors.inode_mode));
    if mode & S_IFMT != S_IFSOCK {
        return None;
    }
    // A socket that was bound to a path and opened with O_PATH is in another file system.
    let sb: Tracked = inode.load(config!(offsets.descriptors.inode_sb));
    let magic: u64 = sb.load(config!(offsets.descriptors.sb_magic));
    let leader: u64 = task.load(config!(offsets.descriptors.task_group_leader));
    if magic != SOCKFS_MAGIC || leader != task.0 {
        return None;
    }
    // SAFETY: the helper takes no arguments.
    let reader = unsafe { bpf_get_current_task() };
    let reader: u64 = probe!(reader, descriptors.task_thread_pid);
    let level: u32 = probe!(reader, descriptors.pid_level);
    let pid: u64 = task.load(config!(offsets.descriptors.task_thread_pid));
    // A process has one `upid` for each pid namespace that it is in, the outermost first.
    // The iterator shows only processes that are in the reader's namespace.
    let upid = pid + level as u64 * UPID_SIZE;
    Some(Descriptor {
        inode: inode.load(config!(offsets.descriptors.inode_ino)),
        pid: probe!(upid, descriptors.pid_numbers),
        fd: ctx.load(16),
    })
}

/// Reads the state of a socket or minisock. A minisock shares only `sock_common` with a
/// socket; the members past that are its own.
#[inline(always)]
pub fn snapshot(sk: u64, snapshot: &mut Snapshot) {
    let event = &mut snapshot.event;
    event.kind = kind::SNAPSHOT;
    event.state = member!(tcp_sock(sk), skc_state);
    match event.state {
        TCP_TIME_WAIT => {
            snapshot.rto_expires = probe!(sk, tw_expires);
            snapshot.substate = probe!(sk, tw_substate);
        }
        TCP_NEW_SYN_RECV => {
            snapshot.rto_expires = probe!(sk, rsk_expires);
            snapshot.timeouts = probe!(sk, rsk_num_timeout => u8) >> 1;
        }
        _ => {
            describe(sk, event);
            let sk = tcp_sock(sk);
            changes(sk, event);
            snapshot.rto_expires = member!(sk, rto_expires);
            snapshot.pending = member!(sk, icsk_pending);
            snapshot.rcv_nxt = member!(sk, rcv_nxt);
            snapshot.copied_seq = member!(sk, copied_seq);
            sending(sk, &mut snapshot.sending);
            snapshot.ack_backlog = member!(sk, sk_ack_backlog);
            return;
        }
    }
    note_time(event);
    let at = tcp_sock(sk);
    ends(at, &mut event.socket);
    event.socket.netns = Unread(sk).netns();
    // `inet_sport` is past the part that a minisock shares with a socket.
    event.socket.lport = member!(at, skc_num);
}

/// Inode number of a socket's file; 0 for an orphan.
#[inline(always)]
pub fn inode(sk: u64) -> u64 {
    let socket = member!(tcp_sock(sk), sk_socket);
    Owner {
        socket,
        ..Owner::NONE
    }
    .inode()
}

/// The cgroup v2 in which a socket was made; 0 if it is unknown.
#[inline(always)]
pub fn cgroup_of(sk: u64) -> Typed {
    cgroup_in(tcp_sock(sk))
}

#[inline(always)]
fn cgroup_in(sk: impl Source) -> Typed {
    if config!(offsets.sk_cgrp) == ABSENT {
        return Typed(0);
    }
    let cgroup: Typed = member!(sk, sk_cgrp);
    // 5.10 does this in `sock_cgroup_ptr`, include/linux/cgroup.h. If a low bit is set, the
    // value is not a pointer, and the socket belongs to the root.
    if config!(offsets.sk_cgrp_tagged) != 0 && cgroup.0 & 3 != 0 {
        return Typed(0);
    }
    cgroup
}

/// Id of a cgroup: the inode number of its directory.
#[inline(always)]
fn cgroup_id(cgroup: Typed) -> u64 {
    if cgroup.0 == 0 {
        return 0;
    }
    let kn: Typed = member!(cgroup, cgroup_kn);
    member!(kn, kn_id)
}

/// Id of a cgroup's ancestor at `level`, where a cgroup is its own ancestor; 0 if the
/// cgroup lies above that level.
#[inline(always)]
pub fn ancestor_id(cgroup: Typed, level: u32) -> u64 {
    if cgroup.0 == 0 || member!(cgroup, cgroup_level => u32) < level {
        return 0;
    }
    let slot = level * 8;
    if config!(offsets.cgroup_ancestors) != ABSENT {
        let ancestor = read(cgroup.0, config!(offsets.cgroup_ancestors) + slot);
        return cgroup_id(typed(ancestor, config!(types.cgroup)));
    }
    read(cgroup.0, config!(offsets.cgroup_ancestor_ids) + slot)
}
