-- kaprobe's logs in DuckDB: reads files of JSON lines as they are, zstd or not. See docs/fleet.md.
--
-- Set the files first. A table is faster than a view if several questions follow, and needs room:
--
--   duckdb fleet.db
--   SET VARIABLE logs = 'logs/*/*.jsonl*'; SET VARIABLE since = '2026-11-01';
--   .read schema.sql
--   .read questions/three-hosts.sql
--
-- What is absent in a line is NULL. The columns are the fields of schema/kaprobe-log.schema.json;
-- a test compares them.
SET TimeZone = 'UTC';

-- One row a record. A line that is read twice counts once.
CREATE OR REPLACE TABLE records AS
WITH lines AS
(
    SELECT * FROM read_json(
        getvariable('logs'), format = 'newline_delimited', maximum_object_size = 16777216,
        columns = {
        time: 'TIMESTAMP_NS',
        mono_ns: 'UBIGINT',
        seq: 'UBIGINT',
        event: 'VARCHAR',
        host: 'VARCHAR',
        sock: 'UBIGINT',
        pid: 'UINTEGER',
        comm: 'VARCHAR',
        cmdline: 'VARCHAR',
        unit: 'VARCHAR',
        container: 'VARCHAR',
        container_id: 'VARCHAR',
        pod: 'VARCHAR',
        pod_namespace: 'VARCHAR',
        pod_uid: 'VARCHAR',
        family: 'VARCHAR',
        laddr: 'VARCHAR',
        lport: 'USMALLINT',
        raddr: 'VARCHAR',
        rport: 'USMALLINT',
        community_id: 'VARCHAR',
        netns: 'UINTEGER',
        netns_name: 'VARCHAR',
        inode: 'UBIGINT',
        cookie: 'UBIGINT',
        uid: 'UINTEGER',
        cgroup: 'UBIGINT',
        orphan: 'BOOLEAN',
        state: 'VARCHAR',
        keepalive: 'BOOLEAN',
        keepalive_time_ms: 'UBIGINT',
        keepalive_time_from: 'VARCHAR',
        keepalive_intvl_ms: 'UBIGINT',
        keepalive_intvl_from: 'VARCHAR',
        keepalive_probes: 'UBIGINT',
        keepalive_probes_from: 'VARCHAR',
        user_timeout_ms: 'UINTEGER',
        user_timeout_from: 'VARCHAR',
        probe: 'UINTEGER',
        probes_out: 'UTINYINT',
        idle_ms: 'UBIGINT',
        heard_ms: 'UBIGINT',
        lastrcv_ms: 'UBIGINT',
        lastack_ms: 'UBIGINT',
        lastsnd_ms: 'UBIGINT',
        next_ms: 'UBIGINT',
        late_ms: 'UBIGINT',
        unacked: 'UINTEGER',
        cause: 'VARCHAR',
        "to": 'VARCHAR',
        err: 'VARCHAR',
        direction: 'VARCHAR',
        reason: 'VARCHAR',
        firing_ns: 'UBIGINT',
        answered_after_ms: 'UBIGINT',
        rtt_us: 'UBIGINT',
        hook: 'VARCHAR',
        lost_kind: 'VARCHAR',
        lost_why: 'VARCHAR',
        lost: 'UBIGINT',
        unsent: 'BOOLEAN',
        retransmits: 'UTINYINT',
        flags: 'VARCHAR',
        len: 'UINTEGER',
        ttl: 'UTINYINT',
        peer_ttl: 'UTINYINT',
        from_this_host: 'BOOLEAN',
        data_received: 'BOOLEAN',
        tracked: 'BOOLEAN',
        process_age_s: 'UINTEGER',
        met: 'VARCHAR',
        verdict: 'VARCHAR',
        confidence: 'VARCHAR',
        evidence: 'UBIGINT[]',
        middlebox: 'VARCHAR',
        survived_ms: 'UBIGINT',
        died_ms: 'UBIGINT',
        learned_of: 'VARCHAR',
        contradictory: 'BOOLEAN',
        advice: 'VARCHAR',
        story: 'VARCHAR',
        why: 'VARCHAR',
        dead_in_ms: 'UBIGINT',
        dead_by: 'VARCHAR',
        set_in: 'VARCHAR',
        "set": 'VARCHAR',
        by_pid: 'UINTEGER',
        by_comm: 'VARCHAR',
        by_exiting: 'BOOLEAN',
        unacked_bytes: 'UINTEGER',
        unsent_bytes: 'UINTEGER',
        stalled_ms: 'UBIGINT',
        silent_ms: 'UBIGINT',
        err_soft: 'VARCHAR',
        mptcp: 'BOOLEAN',
        state_before: 'VARCHAR',
        probes_answered: 'UBIGINT',
        since_ns: 'UBIGINT',
        answered_ns: 'UBIGINT',
        answered_min_ms: 'UBIGINT',
        answered_max_ms: 'UBIGINT',
        rtt_min_us: 'UBIGINT',
        rtt_max_us: 'UBIGINT',
        survived_ages_ms: 'UBIGINT[]',
        held_ages_ms: 'UBIGINT[]',
        quiet_ms: 'UINTEGER',
        quiet_ns: 'UBIGINT'
        })
)
SELECT DISTINCT ON (host, "time", seq, event)
    * EXCLUDE (laddr, raddr),
    -- An IPv4-mapped address is the IPv4 address.
    replace(laddr, '::ffff:', '') AS laddr,
    replace(raddr, '::ffff:', '') AS raddr,
    CASE WHEN contains(replace(laddr, '::ffff:', ''), ':') THEN '[' || laddr || ']:' || lport
        ELSE replace(laddr, '::ffff:', '') || ':' || lport END AS local,
    CASE WHEN contains(replace(raddr, '::ffff:', ''), ':') THEN '[' || raddr || ']:' || rport
        ELSE replace(raddr, '::ffff:', '') || ':' || rport END AS remote
FROM lines WHERE event IS NOT NULL;

-- The connections that died by an idle timeout, as far as one host can tell: see
-- contrib/clickhouse/schema.sql.
CREATE OR REPLACE VIEW deaths AS
WITH own AS
(
    SELECT host, sock, lport, remote, max(list_max(survived_ages_ms)) AS own_ms
    FROM records WHERE event = 'alive' GROUP BY ALL
),
ends AS
(
    SELECT
        r.host, r.remote AS endpoint, r.comm, r.community_id, own.own_ms,
        CASE WHEN r.event = 'timeout' THEN r.silent_ms ELSE coalesce(r.heard_ms, r.idle_ms) END
            + 10 AS age_ms,
        r."time" - to_milliseconds(CASE WHEN r.event = 'timeout' THEN coalesce(r.stalled_ms, 0) ELSE 0 END)
            AS died
    FROM records AS r
    LEFT JOIN records AS v ON r.host = v.host AND r.sock = v.sock AND r.mono_ns = v.mono_ns
        AND v.verdict IN ('idle_eviction', 'probe_reset')
    LEFT JOIN own ON own.host = r.host AND own.sock = r.sock AND own.lport = r.lport
        AND own.remote = r.remote
    WHERE r.event = 'timeout' AND r.silent_ms >= 5000
        OR r.event = 'rst_received' AND r.state IN ('ESTABLISHED', 'FIN_WAIT1')
            AND (v.verdict = 'idle_eviction' OR v.verdict = 'probe_reset' AND r.probes_out = 1)
)
SELECT
    host, endpoint, comm, community_id, age_ms, died,
    died - to_milliseconds(age_ms) AS heard
FROM ends
WHERE age_ms IS NOT NULL AND (own_ms IS NULL OR age_ms > own_ms + 500);

-- The idle times that connections survived, by host and endpoint.
CREATE OR REPLACE VIEW survived AS
SELECT host, remote AS endpoint, unnest(survived_ages_ms) AS age_ms
FROM records WHERE event = 'alive'
UNION ALL
SELECT host, remote, survived_ms FROM records
WHERE event = 'verdict' AND learned_of = 'endpoint' AND survived_ms IS NOT NULL;

-- What all hosts together know of the idle timeout towards each endpoint: see
-- contrib/clickhouse/schema.sql.
CREATE OR REPLACE VIEW bounds AS
WITH longest AS
(
    SELECT endpoint, max(age_ms) AS longest_ms FROM survived GROUP BY endpoint
),
sorted AS
(
    SELECT
        endpoint, host, age_ms, longest_ms,
        coalesce(age_ms <= longest_ms + 500, false) AS is_refuted,
        -- Among the deaths that were no longer, two have no moment in common.
        max(heard) OVER shorter > min(died) OVER shorter AS is_enough,
        max(heard) OVER others > min(died) OVER others AS is_enough_of_others
    FROM deaths LEFT JOIN longest USING (endpoint)
    WINDOW
        shorter AS (PARTITION BY endpoint ORDER BY age_ms, heard, died ROWS UNBOUNDED PRECEDING),
        others AS (
            PARTITION BY endpoint, coalesce(age_ms <= longest_ms + 500, false)
            ORDER BY age_ms, heard, died ROWS UNBOUNDED PRECEDING)
),
died AS
(
    SELECT
        endpoint, count(*) AS dead, count(DISTINCT host) AS hosts, min(age_ms) AS shortest_ms,
        bool_or(is_refuted) AS contradictory,
        min(age_ms) FILTER (is_refuted) AS refuted_ms,
        min(age_ms) FILTER (NOT is_refuted) AS other_ms,
        min(age_ms) FILTER (NOT is_refuted AND is_enough_of_others) AS enough_ms,
        bool_or(is_enough) AS apart
    FROM sorted GROUP BY endpoint
)
SELECT
    endpoint,
    CASE WHEN coalesce(contradictory, false)
        THEN (SELECT max(age_ms) FROM survived AS s
              WHERE s.endpoint = died.endpoint AND s.age_ms < refuted_ms)
        ELSE longest_ms END AS survived_ms,
    CASE WHEN contradictory THEN other_ms ELSE coalesce(enough_ms, other_ms) END AS died_ms,
    shortest_ms,
    coalesce(dead, 0) AS dead,
    coalesce(hosts, 0) AS hosts,
    coalesce(CASE WHEN contradictory THEN apart ELSE enough_ms IS NOT NULL END, false) AS believed,
    coalesce(contradictory, false) AS contradictory
FROM longest FULL JOIN died USING (endpoint);
