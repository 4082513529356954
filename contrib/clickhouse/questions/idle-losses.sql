-- Which endpoints lose idle connections, how many, and after which silence?
--
-- clickhouse client --param_since='2026-11-01 00:00:00' --queries-file idle-losses.sql
SELECT
    endpoint,
    count() AS lost,
    uniqExact(host) AS hosts,
    arrayStringConcat(arraySlice(arraySort(groupUniqArray(comm)), 1, 8), ' ') AS programs,
    min(age_ms) AS least_ms,
    quantileExactLow(0.5)(age_ms) AS median_ms,
    max(age_ms) AS most_ms,
    any(bounds.believed) AS believed
FROM kaprobe.deaths
LEFT JOIN kaprobe.bounds AS bounds USING (endpoint)
WHERE died >= {since:DateTime64(9, 'UTC')}
GROUP BY endpoint
ORDER BY lost DESC, endpoint
LIMIT 100;
