-- Loads files of kaprobe's logs that the server can read, compressed or not: a recorder's
-- segments, or what `kaprobe trace -o` wrote. Loading a file again changes no answer.
--
-- clickhouse local --path fleet --param_files='logs/*/*.jsonl.zst' --queries-file load.sql
INSERT INTO kaprobe.lines
SELECT * FROM file({files:String}, 'JSONEachRow')
SETTINGS
    date_time_input_format = 'best_effort',
    input_format_skip_unknown_fields = 1,
    use_structure_from_insertion_table_in_table_functions = 1;
