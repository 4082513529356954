-- Which endpoints lose idle connections, how many, and after which silence?
SELECT
    endpoint,
    count(*) AS lost,
    count(DISTINCT host) AS hosts,
    array_to_string(list_sort(list(DISTINCT comm))[:8], ' ') AS programs,
    min(age_ms) AS least_ms,
    quantile_disc(age_ms, 0.5) AS median_ms,
    max(age_ms) AS most_ms,
    any_value(believed) AS believed
FROM deaths
LEFT JOIN bounds USING (endpoint)
WHERE died >= getvariable('since')::TIMESTAMP_NS
GROUP BY endpoint
ORDER BY lost DESC, endpoint
LIMIT 100;
