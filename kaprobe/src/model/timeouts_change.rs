//! Changes of the timeouts that this host applies, namespace by namespace. Pure.
//!
//! A log has the timeouts at the start of a trace, and then only what changed: on a host
//! with hundreds of containers, one more should not repeat all others.

use std::collections::BTreeMap;

use crate::model::host_timeout::{HostTimeouts, NetnsRoutes, NetnsTimeouts};

/// The namespaces where two states differ, as they are in the second.
#[must_use]
pub fn difference(before: &HostTimeouts, after: &HostTimeouts) -> Vec<NetnsTimeouts> {
    let (before, mut changed) = (by_netns(before), by_netns(after));
    for (netns, old) in before {
        match changed.get(&netns) {
            Some(new) if *new == old => drop(changed.remove(&netns)),
            Some(_) => {}
            None => {
                let gone = NetnsTimeouts {
                    netns,
                    ..NetnsTimeouts::default()
                };
                changed.insert(netns, gone);
            }
        }
    }
    changed.into_values().collect()
}

/// Maximum number of timeouts, addresses and routes that are kept: a log is not trusted.
const MOST_KEPT: usize = 1 << 16;

/// Applies a change. One after which there would be too much to keep is left out.
pub fn apply(to: &mut HostTimeouts, change: &[NetnsTimeouts]) {
    let mut all = by_netns(to);
    for it in change {
        all.insert(it.netns, it.clone());
    }
    if all.values().map(size).sum::<usize>() > MOST_KEPT {
        return;
    }
    let routes = |it: &mut NetnsTimeouts| {
        let (netns, routes) = (it.netns, it.routes.take()?);
        Some(NetnsRoutes { netns, routes })
    };
    to.routes = all.values_mut().filter_map(routes).collect();
    to.timeouts = all.into_values().flat_map(|it| it.timeouts).collect();
}

/// The number of parts of a namespace's state.
fn size(it: &NetnsTimeouts) -> usize {
    let addresses = it.timeouts.iter();
    let addresses = addresses.map(|it| 1 + it.services.len() + it.servers.len());
    let routes = it.routes.iter().flatten().map(|it| 1 + it.through.len());
    1 + addresses.chain(routes).sum::<usize>()
}

fn by_netns(all: &HostTimeouts) -> BTreeMap<u32, NetnsTimeouts> {
    let mut found = BTreeMap::<u32, NetnsTimeouts>::new();
    for it in &all.timeouts {
        let netns = found.entry(it.netns).or_default();
        netns.timeouts.push(it.clone());
    }
    for it in &all.routes {
        let netns = found.entry(it.netns).or_default();
        netns.routes = Some(it.routes.clone());
    }
    for (netns, it) in &mut found {
        it.netns = *netns;
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::host_timeout::{HostRoute, HostTimeout};

    fn any_timeouts() -> impl Strategy<Value = HostTimeouts> {
        let timeouts = prop::collection::btree_map((1..5_u32, 0..2_u8), 1..3_u64, 0..6);
        let through = prop::collection::vec(1..5_u32, 0..2);
        let routes =
            prop::collection::btree_map(1..5_u32, prop::collection::vec(through, 0..2), 0..5);
        (timeouts, routes).prop_map(|(timeouts, routes)| HostTimeouts {
            timeouts: timeouts
                .into_iter()
                .map(|((netns, what), seconds)| HostTimeout {
                    what: ["ipvs", "conntrack"][usize::from(what)].into(),
                    netns,
                    seconds,
                    ..HostTimeout::default()
                })
                .collect(),
            routes: routes
                .into_iter()
                .map(|(netns, routes)| NetnsRoutes {
                    netns,
                    routes: routes
                        .into_iter()
                        .map(|through| HostRoute {
                            to: ipnet::Ipv4Net::default().into(),
                            through,
                        })
                        .collect(),
                })
                .collect(),
        })
    }

    #[test]
    fn memory_is_bounded() {
        const CROWD: usize = MOST_KEPT / 5;
        let mut state = HostTimeouts::default();
        let in_netns = |netns| HostTimeout {
            netns,
            ..HostTimeout::default()
        };
        let crowd = |netns| NetnsTimeouts {
            netns,
            timeouts: vec![in_netns(netns); CROWD],
            routes: None,
        };
        for netns in 1..8 {
            apply(&mut state, &[crowd(netns)]);
        }
        assert!(
            state.timeouts.len() <= MOST_KEPT,
            "{}",
            state.timeouts.len()
        );
        // What takes room away is applied.
        let gone = NetnsTimeouts {
            netns: 1,
            ..NetnsTimeouts::default()
        };
        let before = state.timeouts.len();
        apply(&mut state, &[gone]);
        assert_eq!(state.timeouts.len(), before - CROWD);
    }

    proptest! {
        /// A difference has what it takes to get from one state to the other, and nothing
        /// if they are equal.
        #[test]
        fn a_difference_leads_to_the_second_state(before in any_timeouts(), after in any_timeouts()) {
            let change = difference(&before, &after);
            prop_assert_eq!(change.is_empty(), before == after);
            let mut state = before.clone();
            apply(&mut state, &change);
            prop_assert_eq!(&state, &after);
            prop_assert!(difference(&state, &after).is_empty());
        }
    }
}
