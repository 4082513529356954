-- Between which idle times does the timeout towards each endpoint lie, as all hosts together show?
--
-- Without a row here, or with believed = false, no timeout is known. That is not: there is none.
SELECT endpoint, survived_ms, died_ms, shortest_ms, dead, hosts, believed, contradictory
FROM kaprobe.bounds
WHERE dead > 0
ORDER BY endpoint;
