-- Where did a load balancer forget an idle connection, and which server still holds its end?
--
-- One row a connection: see contrib/clickhouse/questions/three-hosts.sql.
SELECT
    c."time" AS time,
    c.community_id AS community_id,
    c.host AS client,
    c.comm AS program,
    c.remote AS endpoint,
    c.idle_ms AS idle_ms,
    s.host AS strayed_to,
    z.host AS held_by,
    date_diff('second', c."time", z."time") AS held_s,
    c."set" AS set_on_client
FROM records AS c
JOIN records AS s ON s.community_id = c.community_id AND s.lport = c.rport
JOIN records AS z ON z.community_id = c.community_id AND z.lport = c.rport
WHERE c.verdict = 'idle_eviction' AND s.verdict = 'stray_segment'
    AND z.verdict = 'peer_unreachable'
    AND c."time" >= getvariable('since')::TIMESTAMP_NS
    AND s.host != c.host AND z.host != c.host AND s.host != z.host
    AND abs(date_diff('millisecond', c."time", s."time")) <= 5000
    AND z."time" > c."time" - INTERVAL 5 SECOND AND z."time" < c."time" + INTERVAL 1 DAY
ORDER BY time, community_id;
