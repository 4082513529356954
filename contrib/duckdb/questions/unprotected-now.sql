-- Which connections exist now to an endpoint whose idle timeout is known, and are not kept alive
-- through it?
--
-- From the last list of `kaprobe sockets --json` of each host; see
-- contrib/clickhouse/questions/unprotected-now.sql.
SELECT
    host,
    comm AS program,
    remote AS endpoint,
    count(*) AS connections,
    count(*) FILTER (NOT keepalive) AS keepalive_off,
    count(*) FILTER (keepalive AND keepalive_time_ms >= died_ms) AS probe_too_late,
    max(idle_ms) // 1000 AS silent_s,
    any_value(survived_ms) AS timeout_over_ms,
    any_value(died_ms) AS timeout_under_ms,
    -- Half of the shortest silence that killed, in seconds.
    greatest(1, any_value(shortest_ms) // 2000) AS keepidle_at_most_s
FROM connections
JOIN bounds ON connections.remote = bounds.endpoint
WHERE believed AND died_ms IS NOT NULL AND state = 'ESTABLISHED'
    AND (NOT keepalive OR keepalive_time_ms >= died_ms)
GROUP BY host, comm, remote
ORDER BY endpoint, host, program;
