-- Whose log ended two hours or more before the newest record of all? A recorder writes a sum of
-- answered probes each hour, so such a host, or its recorder, is down, or has no connection.
SELECT
    host, max("time") AS last,
    date_diff('second', max("time"), (SELECT max("time") FROM records)) AS behind_s
FROM records
WHERE "time" >= getvariable('since')::TIMESTAMP_NS
GROUP BY host
HAVING behind_s >= 7200
ORDER BY host;
