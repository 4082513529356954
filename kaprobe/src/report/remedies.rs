//! The settings that verdicts advise, with commands to copy.
//!
//! A command has numbers and kaprobe's own words only: names come from other programs, and
//! one could be written so that a shell runs it.

use std::collections::BTreeMap;

use crate::model::advice::Advice;
use crate::model::record::Record;
use crate::model::remedy::SetIn;
use crate::model::values::{Confidence, VerdictName};
use crate::report::conversation::{End, ends};
use crate::report::programs::ProgramName;
use crate::report::rank::rank;

/// Most groups of verdicts that are kept. The others are counted.
const MAX_GROUPS: usize = 256;

/// Verdicts with the same remedy in the same place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct GroupKey {
    host: usize,
    verdict: VerdictName,
    service: End,
    program: Option<ProgramName>,
    netns: u32,
    set_in: Option<SetIn>,
    /// Values that differ from death to death are those of the last.
    settings: Vec<SettingName>,
}

/// What verdicts advise together.
#[derive(Clone, Debug)]
pub(super) struct CommonAdvice {
    /// Number of the host among the hosts of the logs.
    pub(super) host: usize,
    pub(super) verdict: VerdictName,
    /// The end that seems to have accepted the connections.
    pub(super) service: End,
    /// How many verdicts.
    pub(super) count: u64,
    /// The highest confidence.
    pub(super) confidence: Option<Confidence>,
    /// The text of the last one.
    pub(super) text: Option<Box<Advice>>,
    /// What to change.
    pub(super) remedy: Option<Change>,
}

/// Settings to change, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) set_in: SetIn,
    /// Network namespace, inode number.
    netns: u32,
    settings: Vec<(SettingName, u64)>,
}

/// A setting that a remedy changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum SettingName {
    Keepalive,
    Idle,
    Interval,
    Count,
    UserTimeout,
    SysctlTime,
    SysctlInterval,
    SysctlProbes,
}

impl SettingName {
    const ALL: [Self; 8] = [
        Self::Keepalive,
        Self::Idle,
        Self::Interval,
        Self::Count,
        Self::UserTimeout,
        Self::SysctlTime,
        Self::SysctlInterval,
        Self::SysctlProbes,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Keepalive => "SO_KEEPALIVE",
            Self::Idle => "TCP_KEEPIDLE",
            Self::Interval => "TCP_KEEPINTVL",
            Self::Count => "TCP_KEEPCNT",
            Self::UserTimeout => "TCP_USER_TIMEOUT",
            Self::SysctlTime => "net.ipv4.tcp_keepalive_time",
            Self::SysctlInterval => "net.ipv4.tcp_keepalive_intvl",
            Self::SysctlProbes => "net.ipv4.tcp_keepalive_probes",
        }
    }
}

impl Change {
    /// The change that a verdict advises. `None` if there is none, or if the log has other
    /// words than kaprobe writes.
    fn of(record: &Record) -> Option<Self> {
        let words = record.set.as_ref()?.as_str().split(' ');
        let setting = |word: &str| {
            let (name, value) = word.split_once('=')?;
            let name = SettingName::ALL.into_iter().find(|it| it.name() == name)?;
            Some((name, value.parse().ok()?))
        };
        Some(Self {
            set_in: record.set_in?,
            netns: record.endpoints?.netns,
            settings: words.map(setting).collect::<Option<_>>()?,
        })
    }

    /// What to type or to write, each line on its own.
    pub(super) fn commands(&self) -> Vec<String> {
        let Self {
            set_in,
            netns,
            settings,
        } = self;
        let settings = settings.iter();
        match set_in {
            SetIn::Sysctl => {
                let words: Vec<_> = settings
                    .map(|(name, value)| format!("{}={value}", name.name()))
                    .collect();
                // lsns(8) finds a process of the namespace. If there is none any more,
                // nsenter(1) refuses the empty number, and nothing is changed.
                vec![format!(
                    "sudo nsenter --net --target \"$(sudo lsns -n -t net -o NS,PID | awk \
                     '$1 == {netns} {{ print $2; exit }}')\" sysctl -w {}",
                    words.join(" ")
                )]
            }
            SetIn::Program | SetIn::Peer => settings
                .map(|(name, value)| {
                    let level = if *name == SettingName::Keepalive {
                        "SOL_SOCKET"
                    } else {
                        "IPPROTO_TCP"
                    };
                    format!(
                        "setsockopt(fd, {level}, {}, &(int){{{value}}}, sizeof(int));",
                        name.name()
                    )
                })
                .collect(),
        }
    }
}

/// The advice of all verdicts.
#[derive(Debug, Default)]
pub(super) struct Remedies {
    groups: BTreeMap<GroupKey, CommonAdvice>,
    /// Verdicts that are in no group.
    pub(super) more: u64,
}

impl Remedies {
    /// Adds the advice of a verdict.
    pub(super) fn add(&mut self, host: usize, record: &Record) {
        let (Some(verdict), Some(endpoints)) = (record.verdict, record.endpoints) else {
            return;
        };
        let remedy = Change::of(record);
        let settings = remedy.iter().flat_map(|it| &it.settings);
        let key = GroupKey {
            host,
            verdict,
            service: ends(&endpoints).0[1],
            program: ProgramName::of(record),
            netns: endpoints.netns,
            set_in: remedy.as_ref().map(|it| it.set_in),
            settings: settings.map(|(name, _)| *name).collect(),
        };
        if !self.groups.contains_key(&key) && self.groups.len() == MAX_GROUPS {
            self.more += 1;
            return;
        }
        let service = key.service;
        let group = self.groups.entry(key).or_insert_with(|| CommonAdvice {
            host,
            verdict,
            service,
            count: 0,
            confidence: None,
            text: None,
            remedy: None,
        });
        group.count += 1;
        group.confidence = group.confidence.max(record.confidence);
        group.text.clone_from(&record.advice);
        group.remedy = remedy;
    }

    /// All advice: one of each verdict before the second of any, what can be set first, then
    /// what is most telling, then what is most frequent.
    pub(super) fn sorted(&self) -> Vec<&CommonAdvice> {
        let mut all: Vec<_> = self.groups.values().collect();
        let place = |it: &CommonAdvice| (it.remedy.is_none(), rank(&[it.verdict].into()));
        all.sort_by_key(|it| (place(it), std::cmp::Reverse(it.count)));
        let mut of_verdict = BTreeMap::<_, usize>::new();
        let numbered = all.into_iter().map(|it| {
            let nth = of_verdict.entry(it.verdict).or_default();
            *nth += 1;
            ((*nth, place(it)), it)
        });
        let mut numbered: Vec<_> = numbered.collect();
        numbered.sort_by_key(|(key, _)| *key);
        numbered.into_iter().map(|(_, it)| it).collect()
    }
}
