-- What `kaprobe sockets --json` lists, in DuckDB: a file HOST.jsonl of each host, zstd or not. See
-- contrib/clickhouse/sockets.sql, and read schema.sql first.
--
--   SET VARIABLE sockets = 'sockets/*.jsonl*';
--   .read sockets.sql
--   .read questions/unprotected-now.sql
CREATE OR REPLACE TABLE sockets AS
WITH rows AS
(
    SELECT * FROM read_json(
        getvariable('sockets'), format = 'newline_delimited', filename = true,
        columns = {
        version: 'VARCHAR',
        time: 'TIMESTAMP_NS',
        mono_ns: 'UBIGINT',
        netns: 'UINTEGER',
        family: 'VARCHAR',
        laddr: 'VARCHAR',
        lport: 'USMALLINT',
        raddr: 'VARCHAR',
        rport: 'USMALLINT',
        community_id: 'VARCHAR',
        state: 'VARCHAR',
        recvq: 'UINTEGER',
        sendq: 'UINTEGER',
        timer: 'VARCHAR',
        source: 'VARCHAR',
        netns_name: 'VARCHAR',
        pid: 'UINTEGER',
        comm: 'VARCHAR',
        cmdline: 'VARCHAR',
        unit: 'VARCHAR',
        container: 'VARCHAR',
        container_id: 'VARCHAR',
        pod: 'VARCHAR',
        pod_namespace: 'VARCHAR',
        pod_uid: 'VARCHAR',
        owners: 'STRUCT(pid UINTEGER, comm VARCHAR, fd UINTEGER)[]',
        uid: 'UINTEGER',
        inode: 'UBIGINT',
        cookie: 'UBIGINT',
        cgroup: 'UBIGINT',
        cgroup_path: 'VARCHAR',
        orphan: 'BOOLEAN',
        timer_ms: 'UBIGINT',
        retransmits: 'UTINYINT',
        probes_out: 'UTINYINT',
        unacked: 'UINTEGER',
        keepalive: 'BOOLEAN',
        keepalive_time_ms: 'UBIGINT',
        keepalive_time_from: 'VARCHAR',
        keepalive_intvl_ms: 'UBIGINT',
        keepalive_intvl_from: 'VARCHAR',
        keepalive_probes: 'UBIGINT',
        keepalive_probes_from: 'VARCHAR',
        user_timeout_ms: 'UINTEGER',
        user_timeout_from: 'VARCHAR',
        idle_ms: 'UBIGINT',
        heard_ms: 'UBIGINT',
        lastrcv_ms: 'UBIGINT',
        lastack_ms: 'UBIGINT',
        lastsnd_ms: 'UBIGINT',
        keepalive_next_ms: 'UBIGINT',
        dead_in_ms: 'UBIGINT',
        dead_by: 'VARCHAR',
        unacked_bytes: 'UINTEGER',
        unsent_bytes: 'UINTEGER',
        stalled_ms: 'UBIGINT',
        silent_ms: 'UBIGINT',
        err_soft: 'VARCHAR'
        })
)
SELECT
    regexp_extract(filename, '([^/]+)\.jsonl[^/]*$', 1) AS host,
    * EXCLUDE (laddr, raddr, filename),
    -- An IPv4-mapped address is the IPv4 address.
    replace(laddr, '::ffff:', '') AS laddr,
    replace(raddr, '::ffff:', '') AS raddr,
    CASE WHEN contains(replace(raddr, '::ffff:', ''), ':') THEN '[' || raddr || ']:' || rport
        ELSE replace(raddr, '::ffff:', '') || ':' || rport END AS remote
FROM rows;

-- The connections that exist now: of each host, those of its last list.
CREATE OR REPLACE VIEW connections AS
SELECT sockets.* FROM sockets
JOIN (SELECT host, max("time") AS last FROM sockets GROUP BY host) AS lists USING (host)
WHERE "time" > last - INTERVAL 1 MINUTE AND rport > 0;
