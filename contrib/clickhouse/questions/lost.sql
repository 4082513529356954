-- Which hosts lost events, where, and why? What they did not see, no question here finds.
SELECT
    host,
    lost_why AS why,
    hook,
    sum(lost) AS lost,
    countIf(isNull(records.lost)) AS not_counted,
    max(time) AS last
FROM kaprobe.records FINAL
WHERE event = 'lost' AND time >= {since:DateTime64(9, 'UTC')}
GROUP BY host, why, hook
ORDER BY host, why, hook;
