-- The tables of kaprobe's logs in ClickHouse. See docs/fleet.md.
--
-- Lines of a log go to `kaprobe.lines`, as JSONEachRow. It keeps nothing: two materialized views
-- put records into `records`, and headers into `traces`.
--
-- A number or a Bool that is absent in a line is NULL here; a text that is absent is empty. The
-- columns of `records` are the fields of schema/kaprobe-log.schema.json; a test compares them.

CREATE DATABASE IF NOT EXISTS kaprobe;

-- One row a record. A line that is loaded twice counts once: ReplacingMergeTree keeps one row
-- for each key, and the questions read with FINAL. The key begins with what the questions ask
-- for: an event, then an endpoint. `community_id` has an index of its own, to find one
-- connection of a host and of its peer.
CREATE TABLE IF NOT EXISTS kaprobe.records
(
    time DateTime64(9, 'UTC') CODEC(Delta, ZSTD),
    mono_ns UInt64 CODEC(Delta, ZSTD),
    seq UInt64 CODEC(Delta, ZSTD),
    event LowCardinality(String),
    host LowCardinality(String),
    sock Nullable(UInt64),
    pid Nullable(UInt32),
    comm LowCardinality(String),
    cmdline LowCardinality(String),
    unit LowCardinality(String),
    container LowCardinality(String),
    container_id LowCardinality(String),
    pod LowCardinality(String),
    pod_namespace LowCardinality(String),
    pod_uid LowCardinality(String),
    family LowCardinality(String),
    laddr IPv6,
    lport UInt16,
    raddr IPv6,
    rport UInt16,
    community_id String,
    netns Nullable(UInt32),
    netns_name LowCardinality(String),
    inode Nullable(UInt64),
    cookie Nullable(UInt64),
    uid Nullable(UInt32),
    cgroup Nullable(UInt64),
    orphan Nullable(Bool),
    state LowCardinality(String),
    keepalive Nullable(Bool),
    keepalive_time_ms Nullable(UInt64),
    keepalive_time_from LowCardinality(String),
    keepalive_intvl_ms Nullable(UInt64),
    keepalive_intvl_from LowCardinality(String),
    keepalive_probes Nullable(UInt64),
    keepalive_probes_from LowCardinality(String),
    user_timeout_ms Nullable(UInt32),
    user_timeout_from LowCardinality(String),
    probe Nullable(UInt32),
    probes_out Nullable(UInt8),
    idle_ms Nullable(UInt64),
    heard_ms Nullable(UInt64),
    lastrcv_ms Nullable(UInt64),
    lastack_ms Nullable(UInt64),
    lastsnd_ms Nullable(UInt64),
    next_ms Nullable(UInt64),
    late_ms Nullable(UInt64),
    unacked Nullable(UInt32),
    cause LowCardinality(String),
    `to` LowCardinality(String),
    err LowCardinality(String),
    direction LowCardinality(String),
    reason LowCardinality(String),
    firing_ns Nullable(UInt64),
    answered_after_ms Nullable(UInt64),
    rtt_us Nullable(UInt64),
    hook LowCardinality(String),
    lost_kind LowCardinality(String),
    lost_why LowCardinality(String),
    lost Nullable(UInt64),
    unsent Nullable(Bool),
    retransmits Nullable(UInt8),
    flags LowCardinality(String),
    len Nullable(UInt32),
    ttl Nullable(UInt8),
    peer_ttl Nullable(UInt8),
    from_this_host Nullable(Bool),
    data_received Nullable(Bool),
    tracked Nullable(Bool),
    process_age_s Nullable(UInt32),
    met LowCardinality(String),
    verdict LowCardinality(String),
    confidence LowCardinality(String),
    evidence Array(UInt64),
    middlebox LowCardinality(String),
    survived_ms Nullable(UInt64),
    died_ms Nullable(UInt64),
    learned_of LowCardinality(String),
    contradictory Nullable(Bool),
    advice String CODEC(ZSTD(3)),
    story String CODEC(ZSTD(3)),
    why LowCardinality(String),
    dead_in_ms Nullable(UInt64),
    dead_by LowCardinality(String),
    set_in LowCardinality(String),
    `set` LowCardinality(String),
    by_pid Nullable(UInt32),
    by_comm LowCardinality(String),
    by_exiting Nullable(Bool),
    unacked_bytes Nullable(UInt32),
    unsent_bytes Nullable(UInt32),
    stalled_ms Nullable(UInt64),
    silent_ms Nullable(UInt64),
    err_soft LowCardinality(String),
    mptcp Nullable(Bool),
    state_before LowCardinality(String),
    probes_answered Nullable(UInt64),
    since_ns Nullable(UInt64),
    answered_ns Nullable(UInt64),
    answered_min_ms Nullable(UInt64),
    answered_max_ms Nullable(UInt64),
    rtt_min_us Nullable(UInt64),
    rtt_max_us Nullable(UInt64),
    survived_ages_ms Array(UInt64),
    held_ages_ms Array(UInt64),
    quiet_ms Nullable(UInt32),
    quiet_ns Nullable(UInt64),

    -- Computed when they are read: an address without the prefix of an IPv4-mapped one, and an
    -- address with its port.
    laddr_text String ALIAS replaceOne(IPv6NumToString(laddr), '::ffff:', ''),
    raddr_text String ALIAS replaceOne(IPv6NumToString(raddr), '::ffff:', ''),
    local String ALIAS concat(
        if(position(laddr_text, ':') > 0, concat('[', laddr_text, ']'), laddr_text),
        ':', toString(lport)),
    remote String ALIAS concat(
        if(position(raddr_text, ':') > 0, concat('[', raddr_text, ']'), raddr_text),
        ':', toString(rport)),

    INDEX community_id community_id TYPE bloom_filter GRANULARITY 4
)
ENGINE = ReplacingMergeTree
PARTITION BY toDate(time)
ORDER BY (event, raddr, rport, time, host, seq)
TTL toDateTime(time) + INTERVAL 30 DAY
SETTINGS ttl_only_drop_parts = 1;

-- One row a header: a trace, or one of its files.
CREATE TABLE IF NOT EXISTS kaprobe.traces
(
    started DateTime64(9, 'UTC'),
    host LowCardinality(String),
    part UInt32,
    version LowCardinality(String),
    kernel LowCardinality(String),
    kaprobe LowCardinality(String),
    alive_ms UInt64,
    hz UInt32,
    -- The whole header, as JSON.
    header String CODEC(ZSTD(3))
)
ENGINE = ReplacingMergeTree
ORDER BY (host, started, part)
TTL toDateTime(started) + INTERVAL 90 DAY;

CREATE TABLE IF NOT EXISTS kaprobe.lines AS kaprobe.records ENGINE = Null;
ALTER TABLE kaprobe.lines ADD COLUMN IF NOT EXISTS header String;

CREATE MATERIALIZED VIEW IF NOT EXISTS kaprobe.lines_to_records TO kaprobe.records AS
SELECT * EXCEPT (header) FROM kaprobe.lines WHERE event != '';

CREATE MATERIALIZED VIEW IF NOT EXISTS kaprobe.lines_to_traces TO kaprobe.traces AS
SELECT
    parseDateTime64BestEffort(JSONExtractString(header, 'started'), 9, 'UTC') AS started,
    JSONExtractString(header, 'host') AS host,
    JSONExtractUInt(header, 'part') AS part,
    JSONExtractString(header, 'version') AS version,
    JSONExtractString(header, 'kernel') AS kernel,
    JSONExtractString(header, 'kaprobe') AS kaprobe,
    JSONExtractUInt(header, 'alive_ms') AS alive_ms,
    JSONExtractUInt(header, 'hz') AS hz,
    header
FROM kaprobe.lines WHERE header != '';

-- The connections that died by an idle timeout, as far as one host can tell: what kaprobe's own
-- estimator takes as a death. A reset that answered the first segment or the first probe after a
-- silence; or data after a silence of 5 s or more that was never acknowledged. `age_ms` is an
-- upper bound for the silence, with the 10 ms of a tick. A silence that the connection itself had
-- survived before, with 500 ms to spare, did not end it.
CREATE VIEW IF NOT EXISTS kaprobe.deaths AS
WITH
    judged AS
    (
        SELECT host, sock, mono_ns, verdict AS judged_as FROM kaprobe.records FINAL
        WHERE event = 'verdict' AND verdict IN ('idle_eviction', 'probe_reset')
    ),
    ends AS
    (
        SELECT
            host, sock, mono_ns, event, state, probes_out, silent_ms, comm, community_id,
            remote AS endpoint, lport, raddr, rport,
            if(event = 'timeout', silent_ms, ifNull(heard_ms, idle_ms)) + 10 AS age_ms,
            time - toIntervalMillisecond(if(event = 'timeout', ifNull(stalled_ms, 0), 0)) AS died
        FROM kaprobe.records FINAL WHERE event IN ('rst_received', 'timeout')
    ),
    own AS
    (
        SELECT host, sock, lport, raddr, rport, max(arrayMax(survived_ages_ms)) AS own_ms
        FROM kaprobe.records FINAL
        WHERE event = 'alive' AND notEmpty(survived_ages_ms)
        GROUP BY host, sock, lport, raddr, rport
    )
SELECT
    host, endpoint, comm, community_id,
    assumeNotNull(ends.age_ms) AS age_ms, died, died - toIntervalMillisecond(age_ms) AS heard
FROM ends
LEFT JOIN judged USING (host, sock, mono_ns)
LEFT JOIN own USING (host, sock, lport, raddr, rport)
WHERE isNotNull(ends.age_ms)
    AND if(
        event = 'timeout', ifNull(silent_ms, 0) >= 5000,
        state IN ('ESTABLISHED', 'FIN_WAIT1')
            AND (judged_as = 'idle_eviction' OR judged_as = 'probe_reset' AND probes_out = 1))
    AND (own_ms = 0 OR ends.age_ms > own_ms + 500);

-- The idle times that connections survived, by host and endpoint: from the sums of answered
-- probes, and from the bounds in verdicts.
CREATE VIEW IF NOT EXISTS kaprobe.survived AS
SELECT
    host, remote AS endpoint,
    arrayJoin(if(event = 'alive', survived_ages_ms, [assumeNotNull(survived_ms)])) AS age_ms
FROM kaprobe.records FINAL
WHERE event = 'alive'
    OR event = 'verdict' AND learned_of = 'endpoint' AND isNotNull(survived_ms);

-- What all hosts together know of the idle timeout towards each endpoint: it lies between
-- `survived_ms` and `died_ms`. One restart of a server looks like the death of each connection
-- that was idle then, so a timeout is believed only if two deaths have no moment in common.
-- Ages within 500 ms are the same. `shortest_ms` is the shortest death, believed or not: a setting
-- must stay below it. `contradictory`: a connection survived what killed another.
CREATE VIEW IF NOT EXISTS kaprobe.bounds AS
WITH
    lived AS
    (
        SELECT endpoint, groupUniqArray(age_ms) AS ages FROM kaprobe.survived GROUP BY endpoint
    ),
    died AS
    (
        SELECT
            endpoint, uniqExact(host) AS hosts,
            arraySort(groupArray((
                age_ms, toUnixTimestamp64Nano(heard), toUnixTimestamp64Nano(died)))) AS deaths
        FROM kaprobe.deaths GROUP BY endpoint
    ),
    known AS
    (
        SELECT
            endpoint, hosts, deaths, ages,
            arrayFilter(it -> notEmpty(ages) AND it.1 <= arrayMax(ages) + 500, deaths) AS refuted,
            arrayFilter(it -> empty(ages) OR it.1 > arrayMax(ages) + 500, deaths) AS others,
            -- How many of the shortest deaths it takes until two have no moment in common.
            arrayFirstIndex(
                n -> arrayMax(it -> it.2, arraySlice(others, 1, n))
                    > arrayMin(it -> it.3, arraySlice(others, 1, n)),
                arrayEnumerate(others)) AS enough,
            arrayMax(it -> it.2, deaths) > arrayMin(it -> it.3, deaths) AS apart
        FROM lived FULL OUTER JOIN died USING (endpoint)
    )
SELECT
    endpoint,
    nullIf(multiIf(
        empty(ages), 0,
        empty(refuted), arrayMax(ages),
        arrayMax(arrayFilter(it -> it < refuted[1].1, ages))), 0) AS survived_ms,
    nullIf(multiIf(
        empty(others), 0,
        empty(refuted) AND enough > 0, others[enough].1,
        others[1].1), 0) AS died_ms,
    if(empty(deaths), NULL, deaths[1].1) AS shortest_ms,
    length(deaths) AS dead,
    hosts,
    toBool(if(empty(refuted), enough > 0, notEmpty(deaths) AND apart)) AS believed,
    toBool(notEmpty(refuted)) AS contradictory
FROM known;
