-- What did each host see of one connection? Its Community ID comes from a row of another question,
-- or from Zeek or Suricata.
--
-- clickhouse client --param_community_id='1:…' --queries-file flow.sql
SELECT time, host, comm, local, remote, event, verdict, confidence, idle_ms, advice
FROM kaprobe.records FINAL
WHERE community_id = {community_id:String}
ORDER BY time, host, seq;
