-- Where did a load balancer forget an idle connection, and which server still holds its end?
--
-- One row a connection. The client sent after a silence and was reset (idle_eviction); another
-- server than its own had sent that reset, having no such connection (stray_segment, 5 s before
-- or after, as clocks differ); and within a day its own server gave up on the end that nobody
-- used any more (peer_unreachable).
WITH verdicts AS
(
    SELECT time, host, verdict, community_id, comm, lport, rport, laddr_text, remote, idle_ms, `set`
    FROM kaprobe.records FINAL
    WHERE event = 'verdict' AND community_id != '' AND time >= {since:DateTime64(9, 'UTC')}
        AND verdict IN ('idle_eviction', 'stray_segment', 'peer_unreachable')
)
SELECT
    c.time AS time,
    c.community_id AS community_id,
    c.host AS client,
    c.comm AS program,
    c.remote AS endpoint,
    c.idle_ms AS idle_ms,
    s.host AS strayed_to,
    z.host AS held_by,
    dateDiff('second', c.time, z.time) AS held_s,
    c.`set` AS set_on_client
FROM (SELECT * FROM verdicts WHERE verdict = 'idle_eviction') AS c
INNER JOIN (SELECT * FROM verdicts WHERE verdict = 'stray_segment') AS s
    ON s.community_id = c.community_id
INNER JOIN (SELECT * FROM verdicts WHERE verdict = 'peer_unreachable') AS z
    ON z.community_id = c.community_id
WHERE s.lport = c.rport AND z.lport = c.rport
    AND s.host != c.host AND z.host != c.host AND s.host != z.host
    AND abs(dateDiff('millisecond', c.time, s.time)) <= 5000
    AND z.time > c.time - toIntervalSecond(5) AND z.time < c.time + toIntervalDay(1)
ORDER BY time, community_id;
