-- The table of what `kaprobe sockets --json` lists: every connection that exists, also those that
-- nothing has happened to, and that no log has therefore. See docs/fleet.md.
--
-- Needs the tables of schema.sql. The columns are the fields of schema/kaprobe-sockets.schema.json,
-- after the host, which a row does not have; a test compares them. What is absent is NULL, or empty
-- if it is a text.
CREATE TABLE IF NOT EXISTS kaprobe.sockets
(
    host LowCardinality(String),
    version LowCardinality(String),
    time DateTime64(9, 'UTC'),
    mono_ns UInt64,
    netns UInt32,
    family LowCardinality(String),
    laddr IPv6,
    lport UInt16,
    raddr IPv6,
    rport UInt16,
    community_id String,
    state LowCardinality(String),
    recvq Nullable(UInt32),
    sendq Nullable(UInt32),
    timer LowCardinality(String),
    source LowCardinality(String),
    netns_name LowCardinality(String),
    pid Nullable(UInt32),
    comm LowCardinality(String),
    cmdline LowCardinality(String),
    unit LowCardinality(String),
    container LowCardinality(String),
    container_id LowCardinality(String),
    pod LowCardinality(String),
    pod_namespace LowCardinality(String),
    pod_uid LowCardinality(String),
    owners Array(Tuple(pid UInt32, comm String, fd UInt32)),
    uid Nullable(UInt32),
    inode Nullable(UInt64),
    cookie Nullable(UInt64),
    cgroup Nullable(UInt64),
    cgroup_path String,
    orphan Nullable(Bool),
    timer_ms Nullable(UInt64),
    retransmits Nullable(UInt8),
    probes_out Nullable(UInt8),
    unacked Nullable(UInt32),
    keepalive Nullable(Bool),
    keepalive_time_ms Nullable(UInt64),
    keepalive_time_from LowCardinality(String),
    keepalive_intvl_ms Nullable(UInt64),
    keepalive_intvl_from LowCardinality(String),
    keepalive_probes Nullable(UInt64),
    keepalive_probes_from LowCardinality(String),
    user_timeout_ms Nullable(UInt32),
    user_timeout_from LowCardinality(String),
    idle_ms Nullable(UInt64),
    heard_ms Nullable(UInt64),
    lastrcv_ms Nullable(UInt64),
    lastack_ms Nullable(UInt64),
    lastsnd_ms Nullable(UInt64),
    keepalive_next_ms Nullable(UInt64),
    dead_in_ms Nullable(UInt64),
    dead_by LowCardinality(String),
    unacked_bytes Nullable(UInt32),
    unsent_bytes Nullable(UInt32),
    stalled_ms Nullable(UInt64),
    silent_ms Nullable(UInt64),
    err_soft LowCardinality(String),

    raddr_text String ALIAS replaceOne(IPv6NumToString(raddr), '::ffff:', ''),
    remote String ALIAS concat(
        if(position(raddr_text, ':') > 0, concat('[', raddr_text, ']'), raddr_text),
        ':', toString(rport))
)
ENGINE = ReplacingMergeTree
PARTITION BY toDate(time)
ORDER BY (host, time, netns, laddr, lport, raddr, rport)
TTL toDateTime(time) + INTERVAL 30 DAY
SETTINGS ttl_only_drop_parts = 1;

-- The connections that exist now: of each host, those of its last list. Each row has the time at
-- which it was read, and a list takes less than a minute.
CREATE VIEW IF NOT EXISTS kaprobe.connections AS
SELECT *, remote FROM kaprobe.sockets FINAL
INNER JOIN
(
    SELECT host, max(time) AS last FROM kaprobe.sockets GROUP BY host
) AS lists USING (host)
WHERE time > last - INTERVAL 1 MINUTE AND rport > 0;
