-- Which programs use an endpoint whose idle timeout is known, and do not keep their connections
-- alive through it?
--
-- From the last settings of each connection that has a record. Others have none: for those, load
-- what `kaprobe audit` lists on each host. A first probe that comes later than the timeout comes too
-- late; whether one between survived_ms and died_ms comes in time is not known, and not listed.
WITH last AS
(
    SELECT
        host, sock, remote AS endpoint, lport, argMax(comm, seq) AS program,
        argMax(keepalive, seq) AS is_on, argMax(keepalive_time_ms, seq) AS first_probe_ms
    FROM kaprobe.records FINAL
    WHERE isNotNull(keepalive) AND event != 'verdict' AND time >= {since:DateTime64(9, 'UTC')}
    GROUP BY host, sock, remote, lport
)
SELECT
    last.host AS host,
    last.program AS program,
    last.endpoint AS endpoint,
    count() AS connections,
    countIf(NOT is_on) AS keepalive_off,
    countIf(is_on AND first_probe_ms >= died_ms) AS probe_too_late,
    any(survived_ms) AS timeout_over_ms,
    any(died_ms) AS timeout_under_ms,
    -- Half of the shortest silence that killed, in seconds.
    greatest(1, intDiv(any(shortest_ms), 2000)) AS keepidle_at_most_s
FROM last
INNER JOIN kaprobe.bounds AS bounds USING (endpoint)
WHERE believed AND isNotNull(died_ms) AND (NOT is_on OR first_probe_ms >= died_ms)
GROUP BY host, program, endpoint
ORDER BY endpoint, host, program;
