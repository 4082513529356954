-- Loads what `kaprobe sockets --json` has listed, from files HOST.jsonl: a row has no host, so the
-- file is named after it. Loading a file again changes no answer.
--
-- clickhouse local --path fleet --param_files='sockets/*.jsonl' --queries-file load-sockets.sql
INSERT INTO kaprobe.sockets
SELECT * REPLACE (extract(_file, '^(.+)\\.jsonl') AS host) FROM file({files:String}, 'JSONEachRow')
SETTINGS
    date_time_input_format = 'best_effort',
    input_format_skip_unknown_fields = 1,
    use_structure_from_insertion_table_in_table_functions = 1;
