-- Whose log ended two hours or more before the newest record of all? A recorder writes a sum of
-- answered probes each hour, so such a host, or its recorder, is down, or has no connection.
WITH (SELECT max(time) FROM kaprobe.records) AS newest
SELECT host, max(time) AS last, dateDiff('second', last, newest) AS behind_s
FROM kaprobe.records
WHERE time >= {since:DateTime64(9, 'UTC')}
GROUP BY host
HAVING behind_s >= 7200
ORDER BY host;
