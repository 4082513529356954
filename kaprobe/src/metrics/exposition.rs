//! Encodes the metrics in the text format of OpenMetrics.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::registry::Registry;

use crate::metrics::counts::{ANSWER_ENDS_US, AnswerTimes, CLOSERS, Reset, SeriesCounts};
use crate::metrics::families::{self, MetricFamily};
use crate::metrics::gauges::{ConnectionGauges, ConnectionSums};
use crate::metrics::key::SeriesKey;
use crate::metrics::snapshot::{HostCounts, MetricsSnapshot};
use crate::model::fate::Fate;
use crate::model::named::Named;
use crate::model::peers::Peers;
use crate::model::record::EventName;
use crate::model::values::{Cause, Hook};
use crate::timeout::estimate::TimeoutBounds;

/// The media type of what [`encode`] makes.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All that the metrics show.
#[derive(Clone, Debug, Default)]
pub struct Exposition {
    /// What was counted.
    pub counted: Arc<MetricsSnapshot>,
    /// The connections; `None` until they were read first.
    pub connections: Option<Arc<ConnectionGauges>>,
    /// The agent itself.
    pub own: OwnFacts,
}

/// What is known of the agent itself.
#[derive(Clone, Debug, Default)]
pub struct OwnFacts {
    /// Version of kaprobe, its commit, and the version of the kernel.
    pub versions: [String; 3],
    /// Each hook, and how it is attached.
    pub hooks: Vec<[String; 2]>,
    /// Times that the connections could not be read.
    pub snapshots_failed: u64,
    /// Pause until the connections are read again.
    pub snapshot_pause: Duration,
    /// The recorder, if there is one.
    pub recorder: Option<RecorderFacts>,
    /// Whether the last file of `--config` was good; `None` without one.
    pub reloaded: Option<bool>,
    /// Requests by the status of their response.
    pub requests: Vec<(u16, u64)>,
    /// Connections of the server that were cut, by reason.
    pub cut: Vec<(&'static str, u64)>,
    /// This process.
    pub process: ProcessFacts,
    /// The process that reads the connections.
    pub reader: ProcessFacts,
}

/// What the recorder keeps.
#[derive(Clone, Copy, Debug, Default)]
pub struct RecorderFacts {
    /// What its segments take.
    pub bytes: u64,
    /// What they may take.
    pub max_bytes: u64,
    /// Number of segments.
    pub segments: u64,
    /// Records that it lost.
    pub lost: u64,
}

/// What a process uses. What can't be read is 0.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessFacts {
    /// CPU time, s.
    pub cpu_s: f64,
    /// Resident memory, bytes.
    pub resident: u64,
    /// Virtual memory, bytes.
    pub virtual_: u64,
    /// Open file descriptors.
    pub fds: u64,
    /// Most file descriptors.
    pub max_fds: u64,
    /// Threads.
    pub threads: u64,
    /// When it started, s since 1970.
    pub started_s: f64,
}

/// Encodes the metrics as text.
///
/// # Errors
/// Never: writing to a `String` can't fail.
pub fn encode(exposition: Exposition) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(exposition));
    let mut out = String::new();
    text::encode(&mut out, &registry)?;
    Ok(out)
}

/// Takes one count of a series.
type CountOf = fn(&SeriesCounts) -> u64;

type Labels = Vec<(&'static str, String)>;

impl Collector for Exposition {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Out(&mut encoder);
        self.series(&mut out)?;
        self.gauges(&mut out)?;
        self.learned(&mut out)?;
        host(&mut out, &self.counted.host)?;
        out.count(&families::DROPPED, self.counted.dropped)?;
        self.snapshots(&mut out)?;
        self.own.encode(&mut out)
    }
}

impl Exposition {
    fn series(&self, out: &mut Out<'_, '_>) -> fmt::Result {
        let mut all: Vec<(&SeriesKey, &SeriesCounts)> = self
            .counted
            .series
            .iter()
            .map(|(key, it)| (&**key, &**it))
            .collect();
        all.sort_unstable_by(|a, b| a.0.cmp(b.0));
        let other = SeriesKey::default();
        all.push((&other, &self.counted.other));
        let plain: [(&MetricFamily, CountOf); 4] = [
            (&families::SENT, |it| it.sent),
            (&families::ANSWERED, |it| it.answered),
            (&families::UNANSWERED, |it| it.unanswered),
            (&families::STALLS, |it| it.stalls),
        ];
        for (family, value) in plain {
            let each = all.iter().map(|(key, it)| (key.labels(), value(it)));
            out.counts(family, each)?;
        }
        out.by_label(&families::GAVE_UP, &all, |it| {
            names::<Cause>().zip(it.gave_up).collect()
        })?;
        out.by_label(&families::RESETS, &all, |it| {
            Reset::ALL
                .map(|(_, name)| name)
                .into_iter()
                .zip(it.resets)
                .collect()
        })?;
        out.by_label(&families::IDLE_CLOSES, &all, |it| {
            CLOSERS.into_iter().zip(it.idle_closes).collect()
        })?;
        let verdicts = all.iter().flat_map(|(key, it)| {
            it.verdicts.iter().map(|((verdict, confidence), count)| {
                let mut labels = key.labels();
                labels.push(("verdict", verdict.name().to_owned()));
                labels.push(("confidence", confidence.name().to_owned()));
                (labels, *count)
            })
        });
        out.counts(&families::VERDICTS, verdicts)?;
        let answers = all.iter().filter(|(_, it)| it.answers.count > 0);
        out.histograms(
            &families::ANSWER_SECONDS,
            answers.map(|(key, it)| (key.labels(), &it.answers)),
        )
    }

    fn gauges(&self, out: &mut Out<'_, '_>) -> fmt::Result {
        let other = SeriesKey::default();
        let groups: Vec<(&SeriesKey, &ConnectionSums)> = match &self.connections {
            Some(it) => {
                let groups = it.groups.iter().map(|(key, sums)| (key, sums));
                groups.chain([(&other, &it.other)]).collect()
            }
            None => Vec::new(),
        };
        let by_label =
            |groups: &[(&SeriesKey, &ConnectionSums)],
             label: &'static str,
             values: &dyn Fn(&ConnectionSums) -> Vec<(&'static str, u64)>| {
                let mut rows = Vec::new();
                for (key, sums) in groups {
                    for (value, count) in values(sums) {
                        let mut labels = key.labels();
                        labels.push((label, value.to_owned()));
                        rows.push((labels, count));
                    }
                }
                rows
            };
        let keepalive = by_label(&groups, "keepalive", &|it| {
            vec![
                ("on", it.keepalive_on),
                ("off", it.keepalive_off),
                ("unknown", it.keepalive_unknown),
            ]
        });
        out.gauges(&families::CONNECTIONS, keepalive)?;
        let fates = by_label(&groups, "fate", &|it| {
            names::<Fate>().zip(it.fates).collect()
        });
        out.gauges(&families::FATES, fates)?;
        let unanswered = groups.iter().map(|(key, it)| (key.labels(), it.unanswered));
        out.gauges(&families::PROBES_OUT, unanswered)
    }

    fn learned(&self, out: &mut Out<'_, '_>) -> fmt::Result {
        let seconds = |ms: Option<u64>| Some(ms? as f64 / 1e3);
        self.bounds(out, &families::SURVIVED, |it| seconds(it.survived_ms))?;
        self.bounds(out, &families::DIED, |it| seconds(it.died_ms))?;
        // Without a death there is nothing to believe or to contradict.
        let died = |it: &TimeoutBounds| it.deaths > 0;
        self.bounds(out, &families::DEATHS, |it| {
            died(it).then_some(it.deaths as f64)
        })?;
        self.bounds(out, &families::CONTRADICTORY, |it| {
            died(it).then_some(f64::from(u8::from(it.contradictory)))
        })
    }

    /// One value of the bounds towards each server; `None` is not shown.
    fn bounds(
        &self,
        out: &mut Out<'_, '_>,
        family: &'static MetricFamily,
        value: impl Fn(&TimeoutBounds) -> Option<f64>,
    ) -> fmt::Result {
        let rows = self.counted.learned.iter().filter_map(|learned| {
            let (address, port) = learned.server;
            let labels = vec![
                ("remote", Peers::Server(address, port).to_string()),
                ("learned_of", learned.bounds.of.name().to_owned()),
            ];
            Some((labels, value(&learned.bounds)?))
        });
        out.gauges(family, rows)
    }

    fn snapshots(&self, out: &mut Out<'_, '_>) -> fmt::Result {
        let read = self.connections.as_ref();
        let time = read.map(|it| (Vec::new(), it.time.0 as f64 / 1e9));
        out.gauges(&families::SNAPSHOT_TIME, time)?;
        let pause = [(Vec::new(), self.own.snapshot_pause.as_secs_f64())];
        out.gauges(&families::SNAPSHOT_INTERVAL, pause)?;
        out.count(&families::SNAPSHOTS_FAILED, self.own.snapshots_failed)?;
        let is_judged = read.map(|it| (Vec::new(), u64::from(it.is_judged)));
        out.gauges(&families::JUDGED, is_judged)
    }
}

/// The counts of all connections together. Those whose labels are few are shown before they are counted.
fn host(out: &mut Out<'_, '_>, host: &HostCounts) -> fmt::Result {
    let records = names::<EventName>().zip(host.records);
    out.counts(
        &families::RECORDS,
        records.map(|(event, count)| (vec![("event", event.to_owned())], count)),
    )?;
    let reasons = host.reasons.iter().map(|((reset, reason), count)| {
        let direction = Reset::ALL[*reset as usize].1;
        let mut labels = vec![("direction", direction.to_owned())];
        labels.extend(reason.as_deref().map(|it| ("reason", it.to_owned())));
        (labels, *count)
    });
    out.counts(&families::REASONS, reasons)?;
    let lost = host.lost.iter().map(|((hook, why, event), count)| {
        let mut labels = vec![
            ("hook", hook.name().to_owned()),
            ("why", why.name().to_owned()),
        ];
        labels.extend(event.map(|it| ("event", it.name().to_owned())));
        (labels, *count)
    });
    out.counts(&families::LOST, lost)?;
    let switched = Hook::ALL.iter().map(|hook| {
        let count = host.switched_off.get(hook).copied().unwrap_or_default();
        (vec![("hook", hook.name().to_owned())], count)
    });
    out.counts(&families::SWITCHED_OFF, switched)
}

impl OwnFacts {
    fn encode(&self, out: &mut Out<'_, '_>) -> fmt::Result {
        let recorder = |value: fn(&RecorderFacts) -> u64| {
            self.recorder.iter().map(move |it| (Vec::new(), value(it)))
        };
        out.gauges(&families::RECORDER_BYTES, recorder(|it| it.bytes))?;
        out.gauges(&families::RECORDER_MAX, recorder(|it| it.max_bytes))?;
        out.gauges(&families::RECORDER_SEGMENTS, recorder(|it| it.segments))?;
        out.counts(&families::RECORDER_LOST, recorder(|it| it.lost))?;
        let reloaded = self.reloaded.map(|it| (Vec::new(), u64::from(it)));
        out.gauges(&families::RELOADED, reloaded)?;
        let requests = self.requests.iter();
        let requests = requests.map(|(code, count)| (vec![("code", code.to_string())], *count));
        out.counts(&families::HTTP, requests)?;
        let cut = self.cut.iter();
        let cut = cut.map(|(why, count)| (vec![("why", (*why).to_owned())], *count));
        out.counts(&families::HTTP_CUT, cut)?;
        let names = ["version", "revision", "kernel"];
        let versions = names.into_iter().zip(self.versions.clone());
        out.gauges(&families::BUILD, [(versions.collect(), 1_u64)])?;
        let hooks = self
            .hooks
            .iter()
            .map(|[hook, mode]| (vec![("hook", hook.clone()), ("mode", mode.clone())], 1_u64));
        out.gauges(&families::HOOKS, hooks)?;
        out.count_f64(&families::READER_CPU, self.reader.cpu_s)?;
        out.gauge(&families::READER_MEMORY, self.reader.resident)?;
        out.count_f64(&families::CPU, self.process.cpu_s)?;
        out.gauge(&families::MEMORY, self.process.resident)?;
        out.gauge(&families::VIRTUAL, self.process.virtual_)?;
        out.gauge(&families::OPEN_FDS, self.process.fds)?;
        out.gauge(&families::MAX_FDS, self.process.max_fds)?;
        out.gauge(&families::THREADS, self.process.threads)?;
        let started = [(Vec::new(), self.process.started_s)];
        out.gauges(&families::STARTED, started)
    }
}

/// Writes metrics one after another.
struct Out<'a, 'e>(&'a mut DescriptorEncoder<'e>);

impl Out<'_, '_> {
    fn family(&mut self, family: &'static MetricFamily) -> Result<MetricEncoder<'_>, fmt::Error> {
        self.0
            .encode_descriptor(family.name, family.help, None, family.kind)
    }

    fn count(&mut self, family: &'static MetricFamily, value: u64) -> fmt::Result {
        self.counts(family, [(Vec::new(), value)])
    }

    fn count_f64(&mut self, family: &'static MetricFamily, value: f64) -> fmt::Result {
        self.family(family)?
            .encode_counter::<NoLabelSet, _, f64>(&value, None)
    }

    fn gauge(&mut self, family: &'static MetricFamily, value: u64) -> fmt::Result {
        self.gauges(family, [(Vec::new(), value)])
    }

    fn counts(
        &mut self,
        family: &'static MetricFamily,
        rows: impl IntoIterator<Item = (Labels, u64)>,
    ) -> fmt::Result {
        let mut encoder = self.family(family)?;
        for (labels, value) in rows {
            let mut row = encoder.encode_family(&labels)?;
            row.encode_counter::<NoLabelSet, _, f64>(&value, None)?;
        }
        Ok(())
    }

    fn gauges<V: prometheus_client::encoding::EncodeGaugeValue>(
        &mut self,
        family: &'static MetricFamily,
        rows: impl IntoIterator<Item = (Labels, V)>,
    ) -> fmt::Result {
        let mut encoder = self.family(family)?;
        for (labels, value) in rows {
            encoder.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }

    /// Counts of each series that a further label tells apart.
    fn by_label(
        &mut self,
        family: &'static MetricFamily,
        all: &[(&SeriesKey, &SeriesCounts)],
        values: impl Fn(&SeriesCounts) -> Vec<(&'static str, u64)>,
    ) -> fmt::Result {
        let rows = all.iter().flat_map(|(key, counts)| {
            values(counts).into_iter().map(|(value, count)| {
                let mut labels = key.labels();
                labels.extend(family.labels.iter().map(|label| (*label, value.to_owned())));
                (labels, count)
            })
        });
        self.counts(family, rows)
    }

    fn histograms<'h>(
        &mut self,
        family: &'static MetricFamily,
        rows: impl Iterator<Item = (Labels, &'h AnswerTimes)>,
    ) -> fmt::Result {
        let mut encoder = self.family(family)?;
        for (labels, times) in rows {
            let ends = ANSWER_ENDS_US.iter().map(|us| *us as f64 / 1e6);
            let ends = ends.chain([f64::INFINITY]);
            let buckets: Vec<_> = ends.zip(times.classes).collect();
            let sum_s = times.sum_us as f64 / 1e6;
            let mut row = encoder.encode_family(&labels)?;
            row.encode_histogram::<NoLabelSet>(sum_s, times.count, &buckets, None)?;
        }
        Ok(())
    }
}

/// The names of all values.
fn names<T: Named>() -> impl Iterator<Item = &'static str> {
    T::ALL.iter().map(|it| it.name())
}
