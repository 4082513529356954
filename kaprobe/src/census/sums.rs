//! Sums up a snapshot by program and remote end. Pure.
//!
//! Memory is bounded for any number of sockets: groups beyond [`MAX_GROUPS`] share one, and
//! only the worst connections of a group are kept one by one. The rest is counted.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::audit::assessment::Assessment;
use crate::model::fate::Fate;
use crate::model::flow::Flow;
use crate::model::peer_group::{Listeners, PeerGroup, widen};
use crate::model::row::Row;
use crate::model::socket::{Endpoints, Process};
use crate::model::time::WallTime;
use crate::model::values::State;
use crate::text::escape::Escaped;

/// Most groups that are kept.
pub(crate) const MAX_GROUPS: usize = 1_024;
/// Most connections of a group that are kept.
const MAX_WORST: usize = 8;
/// Most connections that are kept of the group that is shown open.
const MAX_OPEN: usize = 1_000;
/// Most listeners that are kept.
const MAX_LISTENERS: usize = 4_096;

/// The upper ends of the classes of idle ages, ms. The last class has none.
pub(crate) const IDLE_ENDS_MS: [u64; 7] = [
    1_000, 10_000, 60_000, 300_000, 900_000, 3_600_000, 21_600_000,
];

/// The number of fates.
const FATES: usize = 8;

/// What a census keeps beside the sums.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum CensusRequest {
    /// Nothing.
    #[default]
    Sums,
    /// The worst connections of each group, and more of one.
    Worst {
        /// The group of which more are kept.
        open: Option<PeerGroup>,
    },
}

impl CensusRequest {
    /// The most connections that are kept of a group.
    fn most(&self, group: &PeerGroup) -> usize {
        match self {
            Self::Sums => 0,
            Self::Worst { open } if open.as_ref() == Some(group) => MAX_OPEN,
            Self::Worst { .. } => MAX_WORST,
        }
    }
}

/// A snapshot, summed up.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Census {
    /// When it ended, wall clock.
    pub(crate) time: WallTime,
    /// When it ended, CLOCK_MONOTONIC, ns.
    pub(crate) mono_ns: u64,
    pub(crate) groups: Vec<CensusGroup>,
    /// All connections.
    pub(crate) total: Sums,
    /// The connections of the groups beyond the limit.
    pub(crate) other: Sums,
    /// Namespaces and ports of listeners.
    pub(crate) listening: Vec<(u32, u16)>,
    /// What the snapshot could not show, in whole sentences.
    pub(crate) notes: Vec<String>,
    /// An idle timeout is known, by which connections are judged.
    pub(crate) is_judged: bool,
}

/// The connections of a program to one remote end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct CensusGroup {
    pub(crate) id: PeerGroup,
    /// Name of the network namespace.
    pub(crate) netns_name: Option<Escaped>,
    pub(crate) sums: Sums,
    /// The worst connections, worst first.
    pub(crate) worst: Vec<LiveConnection>,
}

/// A connection of a snapshot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct LiveConnection {
    pub(crate) state: State,
    /// It passes a middlebox, so its fate is judged.
    pub(crate) is_judged: bool,
    pub(crate) assessment: Assessment,
}

/// Sums of connections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sums {
    pub(crate) connections: u64,
    /// SO_KEEPALIVE is on.
    pub(crate) keepalive_on: u64,
    /// SO_KEEPALIVE is off.
    pub(crate) keepalive_off: u64,
    /// The shortest and the longest keepalive time of those where it is on, ms.
    pub(crate) time_ms: Option<(u64, u64)>,
    /// The shortest and the longest interval, ms.
    pub(crate) intvl_ms: Option<(u64, u64)>,
    /// The lowest and the highest probe count.
    pub(crate) probes: Option<(u64, u64)>,
    /// The lowest and the highest TCP_USER_TIMEOUT, ms; also where keepalive is off.
    pub(crate) user_timeout_ms: Option<(u64, u64)>,
    /// How many have each class of idle ages.
    pub(crate) idle: [u64; IDLE_ENDS_MS.len() + 1],
    /// The shortest and the longest idle age, ms.
    pub(crate) idle_ms: Option<(u64, u64)>,
    /// With unanswered keepalive probes.
    pub(crate) unanswered: u64,
    /// With data that was sent again and again and not acknowledged.
    pub(crate) stalled: u64,
    /// The shortest time until the kernel gives up on a connection with unanswered probes or
    /// stalled data, ms.
    pub(crate) dead_in_ms: Option<u64>,
    /// The shortest time until a keepalive timer fires, ms.
    pub(crate) next_ms: Option<u64>,
    /// How many have each fate, worst first. Only of the judged ones.
    pub(crate) fates: [u64; FATES],
}

impl Sums {
    /// The sums of no connection.
    pub(crate) const NONE: Self = Self {
        connections: 0,
        keepalive_on: 0,
        keepalive_off: 0,
        time_ms: None,
        intvl_ms: None,
        probes: None,
        user_timeout_ms: None,
        idle: [0; IDLE_ENDS_MS.len() + 1],
        idle_ms: None,
        unanswered: 0,
        stalled: 0,
        dead_in_ms: None,
        next_ms: None,
        fates: [0; FATES],
    };

    fn add(&mut self, row: &Row, fate: Option<Fate>) {
        self.connections += 1;
        let set = &row.settings;
        self.keepalive_on += u64::from(set.keepalive == Some(true));
        self.keepalive_off += u64::from(set.keepalive == Some(false));
        if set.keepalive == Some(true) {
            widen(&mut self.time_ms, set.keepalive_time_ms);
            widen(&mut self.intvl_ms, set.keepalive_intvl_ms);
            widen(&mut self.probes, set.keepalive_probes);
        }
        widen(
            &mut self.user_timeout_ms,
            set.user_timeout_ms.map(u64::from),
        );
        if let Some(ms) = row.ages.idle_ms {
            self.idle[idle_class(ms)] += 1;
        }
        widen(&mut self.idle_ms, row.ages.idle_ms);
        let stalled = fate == Some(Fate::Dying);
        let unanswered = row.probes_out > Some(0) && !stalled;
        self.stalled += u64::from(stalled);
        self.unanswered += u64::from(unanswered);
        if stalled || unanswered {
            lower(&mut self.dead_in_ms, row.dead_in_ms);
        }
        lower(&mut self.next_ms, row.keepalive_next_ms);
        if let Some(fate) = fate {
            self.fates[fate as usize] += 1;
        }
    }

    /// The number of connections with a fate.
    pub(crate) fn of(&self, fate: Fate) -> u64 {
        self.fates[fate as usize]
    }

    /// Whether SO_KEEPALIVE of a connection can't be seen.
    pub(crate) fn hides_keepalive(&self) -> bool {
        self.keepalive_on + self.keepalive_off < self.connections
    }
}

fn lower(least: &mut Option<u64>, value: Option<u64>) {
    if let Some(value) = value {
        *least = Some(least.map_or(value, |it| it.min(value)));
    }
}

/// Takes the rows of a snapshot, in the order in which they are read: listeners before
/// connections.
#[derive(Debug, Default)]
pub(crate) struct CensusTaker {
    census: Census,
    places: HashMap<PeerGroup, usize>,
    listeners: Listeners,
    request: CensusRequest,
}

impl CensusTaker {
    /// Begins a census.
    pub(crate) fn new(request: CensusRequest) -> Self {
        Self {
            request,
            ..Self::default()
        }
    }

    /// Notes a listener.
    pub(crate) fn listener(&mut self, row: &Row) {
        let listener = (row.endpoints.netns, row.endpoints.lport);
        let is_new = !self.listeners.accepted(&row.endpoints);
        if is_new && self.census.listening.len() < MAX_LISTENERS {
            self.census.listening.push(listener);
        }
        self.listeners.see(row);
    }

    /// Counts a connection with its fate; `None` if it is not judged. `assess` is called if
    /// the connection is one of the worst of its group.
    pub(crate) fn connection(
        &mut self,
        row: &Row,
        fate: Option<Fate>,
        assess: impl FnOnce(bool) -> Assessment,
    ) {
        let accepted = self.listeners.accepted(&row.endpoints);
        self.census.total.add(row, fate);
        let id = group_of(&row.endpoints, &row.process, accepted);
        let Some(group) = self.group(id, row) else {
            self.census.other.add(row, fate);
            return;
        };
        let most = self.request.most(&self.census.groups[group].id);
        let group = &mut self.census.groups[group];
        group.sums.add(row, fate);
        if most == 0 {
            return;
        }
        let worth = worth(row, fate);
        let worst = &mut group.worst;
        let is_full = worst.len() >= most;
        if is_full && worst.last().is_some_and(|last| last.worth() <= worth) {
            return;
        }
        let connection = LiveConnection {
            state: row.state,
            is_judged: fate.is_some(),
            assessment: assess(accepted),
        };
        let place = worst.partition_point(|it| it.worth() <= worth);
        worst.insert(place, connection);
        worst.truncate(most);
    }

    /// The place of a group. `None` if there are too many.
    fn group(&mut self, id: PeerGroup, row: &Row) -> Option<usize> {
        if let Some(place) = self.places.get(&id) {
            return Some(*place);
        }
        let groups = &mut self.census.groups;
        if groups.len() >= MAX_GROUPS {
            return None;
        }
        groups.push(CensusGroup {
            id: id.clone(),
            netns_name: row.netns_name.clone(),
            sums: Sums::default(),
            worst: Vec::new(),
        });
        self.places.insert(id, groups.len() - 1);
        Some(groups.len() - 1)
    }

    /// Ends the census.
    pub(crate) fn end(self) -> Census {
        self.census
    }
}

/// What the connections of a group are ordered by, worst first: the fate, unanswered probes,
/// and the class of the idle age. Then by name, so that rows stay where they are.
type Worth = (Fate, u8, usize, Flow);

fn worth(row: &Row, fate: Option<Fate>) -> Worth {
    of_parts(fate, row.probes_out, row.ages.idle_ms, &row.endpoints)
}

fn of_parts(
    fate: Option<Fate>,
    probes_out: Option<u8>,
    idle_ms: Option<u64>,
    endpoints: &Endpoints,
) -> Worth {
    (
        fate.unwrap_or(Fate::Safe),
        u8::MAX - probes_out.unwrap_or(0),
        IDLE_ENDS_MS.len() - idle_ms.map_or(0, idle_class),
        Flow::from(endpoints),
    )
}

/// The class of an idle age.
fn idle_class(ms: u64) -> usize {
    IDLE_ENDS_MS.partition_point(|&end| end <= ms)
}

impl LiveConnection {
    /// The fate, if it is judged.
    pub(crate) fn fate(&self) -> Option<Fate> {
        Some(self.assessment.fate).filter(|_| self.is_judged)
    }

    /// Whether it is dead or dying, as far as can be seen.
    pub(crate) fn is_in_trouble(&self) -> bool {
        let is_dead = matches!(self.fate(), Some(Fate::Dying | Fate::Zombie));
        is_dead || self.assessment.probes_out > Some(0)
    }

    fn worth(&self) -> Worth {
        let it = &self.assessment;
        of_parts(self.fate(), it.probes_out, it.ages.idle_ms, &it.endpoints)
    }
}

/// The group of a connection. It has only what a snapshot and a trace both know, so that they
/// name the same group.
pub(crate) fn group_of(endpoints: &Endpoints, process: &Process, accepted: bool) -> PeerGroup {
    PeerGroup::of(endpoints, None, process, false, accepted)
}

/// Whether sockets in this state are counted: not listeners, and not what has ended.
pub(crate) const fn is_connection(state: State) -> bool {
    !matches!(
        state,
        State::Listen | State::Close | State::TimeWait | State::NewSynRecv | State::BoundInactive
    )
}
