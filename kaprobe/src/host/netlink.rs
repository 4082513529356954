//! Asks the kernel by netlink, in this thread's network namespace.

use std::io;
use std::ops::ControlFlow;

use anyhow::{Context as _, Result, bail};
use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage,
    NetlinkPayload, NetlinkSerializable,
};
use netlink_sys::{Socket, SocketAddr};

/// Size of the read buffer in bytes: the same as in `ss`, and the maximum that the kernel
/// fills (`netlink_dump`, net/netlink/af_netlink.c).
const BUFFER: usize = 32 * 1024;

/// A request, and its answers.
pub trait Message:
    NetlinkSerializable + NetlinkDeserializable + Into<NetlinkPayload<Self>>
{
}

impl<M: NetlinkSerializable + NetlinkDeserializable + Into<NetlinkPayload<M>>> Message for M {}

/// Asks for all objects of a kind. Passes each to `on_answer` until it breaks.
///
/// # Errors
/// If they can't be read, or `on_answer` fails.
pub fn dump<M: Message>(
    protocol: isize,
    request: M,
    on_answer: &mut dyn FnMut(M) -> Result<ControlFlow<()>>,
) -> Result<()> {
    ask(protocol, NLM_F_DUMP, request, on_answer)
}

/// Asks for one object.
///
/// # Errors
/// If it can't be read.
pub fn get<M: Message>(protocol: isize, request: M) -> Result<M> {
    let mut found = None;
    ask(protocol, 0, request, &mut |answer| {
        found = Some(answer);
        Ok(ControlFlow::Break(()))
    })?;
    found.context("netlink did not answer")
}

fn ask<M: Message>(
    protocol: isize,
    flags: u16,
    request: M,
    on_answer: &mut dyn FnMut(M) -> Result<ControlFlow<()>>,
) -> Result<()> {
    let mut socket = Socket::new(protocol)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    let mut request = NetlinkMessage::new(header, request.into());
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let mut buffer = vec![0; BUFFER];
    loop {
        let got = match socket.recv(&mut &mut buffer[..], 0) {
            Err(why) if why.kind() == io::ErrorKind::Interrupted => continue,
            got => got?,
        };
        let mut rest = buffer
            .get(..got)
            .context("a datagram longer than the buffer")?;
        while !rest.is_empty() {
            let message = NetlinkMessage::<M>::deserialize(rest)?;
            match message.payload {
                NetlinkPayload::InnerMessage(answer) => {
                    if on_answer(answer)?.is_break() {
                        return Ok(());
                    }
                }
                NetlinkPayload::Done(_) => return Ok(()),
                NetlinkPayload::Error(error) => match error.code {
                    Some(_) => return Err(error.to_io().into()),
                    None => return Ok(()),
                },
                NetlinkPayload::Noop => {}
                _ => bail!("an unexpected netlink message"),
            }
            // NLMSG_ALIGN, include/uapi/linux/netlink.h: four bytes.
            let length = (message.header.length as usize).next_multiple_of(4).max(4);
            rest = rest.get(length..).unwrap_or_default();
        }
    }
}
