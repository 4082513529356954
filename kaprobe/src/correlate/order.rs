//! Puts the two ends of a reset on one host in the order of cause and effect.
//!
//! The tracepoint reports a reset only after it was sent (`tcp_send_active_reset`,
//! net/ipv4/tcp_output.c). On one host it may have arrived by then: its arrival is reported
//! first.

use crate::model::event::{Event, Kind, SocketEvent};

/// How many events may lie between the two: those of other processors.
const MAX_BETWEEN: usize = 64;

/// The longest time from the arrival to the report of the sender, ns.
const MAX_LATE_NS: u64 = 10_000_000;

/// Moves each sent reset of a batch before its arrival.
pub fn causes_first(batch: &mut [Event]) {
    for at in 0..batch.len() {
        let end = batch.len().min(at + MAX_BETWEEN);
        let Some(arrival) = socket_event(&batch[at], Kind::RstReceived) else {
            continue;
        };
        let is_cause = |event: &Event| {
            socket_event(event, Kind::RstSent).is_some_and(|sent| caused(sent, arrival))
        };
        let cause = batch[at..end].iter().position(is_cause);
        if let Some(distance) = cause {
            batch[at..=at + distance].rotate_right(1);
        }
    }
}

fn socket_event(event: &Event, kind: Kind) -> Option<&SocketEvent> {
    match event {
        Event::Socket(event) if event.kind == kind => Some(event),
        _ => None,
    }
}

fn caused(sent: &SocketEvent, arrival: &SocketEvent) -> bool {
    let late_ns = sent.at.mono_ns.saturating_sub(arrival.at.mono_ns);
    late_ns <= MAX_LATE_NS && sent.endpoints.flow() == arrival.endpoints.flow().reversed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{event, of, with};

    #[test]
    fn a_reset_comes_before_its_arrival() {
        let arrival = || event(10, Kind::RstReceived);
        let sent = |at_ms| {
            let other_end = |it: &mut SocketEvent| {
                let flow = it.endpoints.flow().reversed();
                (it.endpoints.laddr, it.endpoints.lport) = flow.local();
                (it.endpoints.raddr, it.endpoints.rport) = flow.remote();
            };
            with(event(at_ms, Kind::RstSent), other_end)
        };
        let kinds = |events: Vec<SocketEvent>| -> Vec<Kind> {
            let mut batch: Vec<_> = events.into_iter().map(of).collect();
            causes_first(&mut batch);
            let kind = |event: &Event| match event {
                Event::Socket(event) => Some(event.kind),
                _ => None,
            };
            batch.iter().filter_map(kind).collect()
        };
        let busy = || event(10, Kind::Busy);
        use Kind::{Busy, RstReceived, RstSent};
        for (events, expected) in [
            (
                vec![arrival(), busy(), sent(11)],
                vec![RstSent, RstReceived, Busy],
            ),
            (vec![sent(9), arrival()], vec![RstSent, RstReceived]),
            // Another reset of the same ports, or of another connection.
            (vec![arrival(), sent(500)], vec![RstReceived, RstSent]),
            (
                vec![arrival(), event(10, Kind::RstSent)],
                vec![RstReceived, RstSent],
            ),
        ] {
            assert_eq!(kinds(events), expected);
        }
    }
}
