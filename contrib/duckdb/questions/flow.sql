-- What did each host see of one connection? Its Community ID comes from a row of another question,
-- or from Zeek or Suricata.
--
-- SET VARIABLE community_id = '1:…';
SELECT "time" AS time, host, comm, local, remote, event, verdict, confidence, idle_ms, advice
FROM records
WHERE community_id = getvariable('community_id')
ORDER BY time, host, seq;
