-- Which programs use an endpoint whose idle timeout is known, and do not keep their connections
-- alive through it?
--
-- From the last settings of each connection that has a record; see
-- contrib/clickhouse/questions/unprotected.sql.
WITH last AS
(
    SELECT
        host, sock, remote AS endpoint, lport, arg_max(comm, seq) AS program,
        arg_max(keepalive, seq) AS is_on, arg_max(keepalive_time_ms, seq) AS first_probe_ms
    FROM records
    WHERE keepalive IS NOT NULL AND event != 'verdict'
        AND "time" >= getvariable('since')::TIMESTAMP_NS
    GROUP BY host, sock, remote, lport
)
SELECT
    host,
    program,
    endpoint,
    count(*) AS connections,
    count(*) FILTER (NOT is_on) AS keepalive_off,
    count(*) FILTER (is_on AND first_probe_ms >= died_ms) AS probe_too_late,
    any_value(survived_ms) AS timeout_over_ms,
    any_value(died_ms) AS timeout_under_ms,
    -- Half of the shortest silence that killed, in seconds.
    greatest(1, any_value(shortest_ms) // 2000) AS keepidle_at_most_s
FROM last
JOIN bounds USING (endpoint)
WHERE believed AND died_ms IS NOT NULL AND (NOT is_on OR first_probe_ms >= died_ms)
GROUP BY host, program, endpoint
ORDER BY endpoint, host, program;
