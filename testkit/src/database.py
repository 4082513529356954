"""Runs statements in ClickHouse or in DuckDB, inside this process.

Reads one JSON object from standard input: `engine`, and `run`, a list of texts of SQL by name.
Writes one JSON object: for each name the seconds that it took, and the rows of its last
statement. Both engines write the same values in the same way: what is absent is null, an empty
text too, and a time has microseconds.
"""

import datetime
import json
import re
import sys
import time

TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}\d*\Z")


def statements(text):
    """The statements of a file: no line of a comment, no semicolon within one."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("--")]
    return [part for part in "\n".join(lines).split(";") if part.strip()]


def plain(value):
    """A value as both engines write it."""
    if isinstance(value, datetime.datetime):
        return value.isoformat(sep=" ", timespec="microseconds")
    if isinstance(value, str):
        return value[:26] if TIME.match(value) else value or None
    return value


class ClickHouse:
    def __init__(self):
        from chdb import session

        self.session = session.Session()
        self.run("SET output_format_json_quote_64bit_integers = 0")

    def run(self, statement):
        lines = str(self.session.query(statement, "JSONCompactEachRow")).splitlines()
        return [json.loads(line) for line in lines if line]


class DuckDb:
    def __init__(self):
        import duckdb

        self.connection = duckdb.connect()
        # It would be written to standard output.
        self.run("SET enable_progress_bar = false")

    def run(self, statement):
        return self.connection.execute(statement).fetchall()


def main():
    request = json.load(sys.stdin)
    engine = {"clickhouse": ClickHouse, "duckdb": DuckDb}[request["engine"]]()
    answers = {}
    for name, text in request["run"]:
        began = time.monotonic()
        rows = []
        # An inserted line may have anything in it: it is one statement.
        parts = [text] if name.startswith("insert") else statements(text)
        for statement in parts:
            rows = engine.run(statement)
        answers[name] = {
            "seconds": time.monotonic() - began,
            "rows": [[plain(value) for value in row] for row in rows],
        }
    json.dump(answers, sys.stdout)


main()
