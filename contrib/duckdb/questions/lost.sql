-- Which hosts lost events, where, and why? What they did not see, no question here finds.
SELECT
    host,
    lost_why AS why,
    coalesce(hook, '') AS hook,
    sum(lost)::UBIGINT AS lost,
    count(*) FILTER (records.lost IS NULL) AS not_counted,
    max("time") AS last
FROM records
WHERE event = 'lost' AND "time" >= getvariable('since')::TIMESTAMP_NS
GROUP BY host, lost_why, hook
ORDER BY host, why, hook;
