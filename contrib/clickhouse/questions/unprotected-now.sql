-- Which connections exist now to an endpoint whose idle timeout is known, and are not kept alive
-- through it?
--
-- From the last list of `kaprobe sockets --json` of each host (sockets.sql), so also those that
-- nothing has happened to yet; the timeouts are those that the logs show. A first probe that comes
-- later than the timeout comes too late; whether one between survived_ms and died_ms comes in time is
-- not known, and not listed. Nor is what traffic does: a connection that is never silent for so long
-- needs no probe. `silent_s` is the longest silence at the moment of the list.
SELECT
    host,
    comm AS program,
    connections.remote AS endpoint,
    count() AS connections,
    countIf(NOT keepalive) AS keepalive_off,
    countIf(keepalive AND keepalive_time_ms >= died_ms) AS probe_too_late,
    intDiv(max(idle_ms), 1000) AS silent_s,
    any(bounds.survived_ms) AS timeout_over_ms,
    any(died_ms) AS timeout_under_ms,
    -- Half of the shortest silence that killed, in seconds.
    greatest(1, intDiv(any(shortest_ms), 2000)) AS keepidle_at_most_s
FROM kaprobe.connections AS connections
INNER JOIN kaprobe.bounds AS bounds ON connections.remote = bounds.endpoint
WHERE believed AND isNotNull(died_ms) AND state = 'ESTABLISHED'
    AND (NOT keepalive OR keepalive_time_ms >= died_ms)
GROUP BY host, program, endpoint
ORDER BY endpoint, host, program;
