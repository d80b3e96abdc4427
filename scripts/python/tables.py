"""Holds the Parquet files of a year against `collector query`, read by DuckDB, Polars and pyarrow, row by row.

    tables.py FOLDER    with the built programs in FOLDER

The snippets of docs/tables.md in Python are run as well.
"""

import datetime
import json
import os
import pty
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import duckdb
import polars
import pyarrow.dataset
import pyarrow.parquet

PROGRAMS = Path(sys.argv[1]).resolve()
PAGE = Path(__file__).resolve().parent.parent.parent / "docs/tables.md"
EVENTS = "data/tables/events/*/*.parquet"
COLUMNS = [
    "id", "datetime", "local_datetime", "utc_offset_minutes", "date", "name", "summary", "url", "type",
    "location_name", "lat", "lon", "first_seen", "versions", "withdrawn", "raw",
]  # fmt: skip


def collector(*arguments, measured=False):
    command = [PROGRAMS / "collector", *map(str, arguments)]
    if measured:
        command = ["/usr/bin/time", "-f", "%e %M", *command]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0, (command, ended.returncode, ended.stderr[-2000:])
    return ended


def write_year() -> None:
    """A year, in which events were revised and withdrawn, and some are not as usual."""
    subprocess.run([PROGRAMS / "bench-reading", "--write", "data"], check=True, stdout=subprocess.DEVNULL)
    odd = [
        {"id": 900000001, "datetime": "2025-07-01T09:00:00.25Z", "name": 5, "location": {"name": "Å", "gps": "nowhere"}},
        {"id": 900000002, "datetime": "2025-07-01 9:00:00 +02:00", "name": "", "more": {"unknown": [1, None]}},
        {"id": 900000003, "datetime": "2025-07-01 23:59:59 +02:00", "type": None, "location": "Falun"},
    ]
    objects = {
        "events/2025/07/01/events-1751400000.jsonl": odd,
        "revisions/2025/07/01/revisions-1751400060.jsonl": [odd[1] | {"name": "changed"}],
        "withdrawn/2025/07/03/withdrawn-1751500000.jsonl": [
            {"id": 900000002, "last_seen": "2025-07-02T00:00:00Z"},
            {"id": 900000003, "last_seen": "2025-07-02T00:00:00Z"},
        ],
        "withdrawn/2025/07/04/withdrawn-1751600000.jsonl": [
            {"id": 900000003, "last_seen": "2025-07-02T00:00:00Z", "returned": "2025-07-04T00:00:00Z"},
        ],
    }
    for name, lines in objects.items():
        path = Path("data") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n" for line in lines))
    collector("repair")


def make() -> None:
    ended = collector("tables", "--json", measured=True)
    seconds, kilobytes = ended.stderr.split()[-2:]
    report = json.loads(ended.stdout)
    assert report["odd_values"] == 3 and report["unreadable"] == 0, report
    print(
        f"tables of {report['events']} events in {report['revisions']} versions: {seconds} s, {int(kilobytes) / 1000:.0f} MB, "
        f"{report['size_bytes'] / 1e6:.1f} MB of files"
    )
    assert int(kilobytes) < 128_000, kilobytes
    again = json.loads(collector("tables", "--json").stdout)
    assert (again["replaced"], again["objects_read"]) == ([], 0), again
    ended = subprocess.run([PROGRAMS / "collector", "verify", "--tables", "--json"], capture_output=True, text=True)
    found = json.loads(ended.stdout)
    # The year itself is made by hand; what is asked here is whether the tables hold it.
    assert found["tables"]["problems"] == [], (found["problems"][:3], found["tables"]["problems"][:3])


def expected() -> dict:
    """What a look at every line gives: for each event the columns of its row."""
    first_seen, versions, withdrawn = {}, {}, {}
    for kind in ("events", "revisions"):
        for path in Path("data", kind).rglob("*.jsonl"):
            seen = int(re.search(r"-(\d+)", path.name)[1])
            for line in path.read_text().splitlines():
                number = json.loads(line)["id"]
                first_seen[number] = min(seen, first_seen.get(number, seen))
                versions[number] = versions.get(number, 0) + 1
    for path in sorted(Path("data/withdrawn").rglob("*.jsonl")):
        for line in map(json.loads, path.read_text().splitlines()):
            withdrawn[line["id"]] = None if "returned" in line else int(re.search(r"-(\d+)", path.name)[1])
    utc = datetime.timezone.utc
    rows = {}
    for raw in collector("query", "--no-tables", "--revisions", "latest", "--format", "jsonl").stdout.splitlines():
        event = json.loads(raw)
        day, clock, offset = re.fullmatch(r"(\S{10})[ T]([\d:.]+) ?(\S+)", event["datetime"]).groups()
        offset = datetime.timedelta() if offset == "Z" else datetime.timedelta(hours=int(offset[1:3]), minutes=int(offset[4:]))
        local = datetime.datetime.fromisoformat(f"{day} {clock.rjust(8, '0') if '.' not in clock else clock + '0000'}")
        place = event.get("location") if isinstance(event.get("location"), dict) else {}
        gps = re.fullmatch(r"(-?[\d.]+),(-?[\d.]+)", place.get("gps") or "")

        def text(value):
            return value if isinstance(value, str) else None

        number = event["id"]
        at = withdrawn.get(number)
        rows[number] = (
            number, (local - offset).replace(tzinfo=utc), local, int(offset.total_seconds()) // 60, local.date(),
            text(event.get("name")), text(event.get("summary")), text(event.get("url")), text(event.get("type")),
            text(place.get("name")), gps and float(gps[1]), gps and float(gps[2]),
            datetime.datetime.fromtimestamp(first_seen[number], utc), versions[number],
            at and datetime.datetime.fromtimestamp(at, utc), raw,
        )  # fmt: skip
    return rows


def compare(tool: str, rows, wanted: dict) -> None:
    found = {}
    for row in rows:
        assert row[0] not in found, (tool, row[0], "stands twice")
        found[row[0]] = tuple(row)
    assert found.keys() == wanted.keys(), (tool, len(found), len(wanted))
    for number, row in wanted.items():
        assert found[number] == row, (tool, found[number], row)
    print(f"{tool}: {len(found)} rows as expected")


def check_tools(wanted: dict) -> None:
    connection = duckdb.connect()
    connection.execute("set timezone = 'UTC'")
    relation = connection.sql(f"select {', '.join(COLUMNS)} from read_parquet('{EVENTS}', hive_partitioning = true)")
    utc = datetime.timezone.utc
    aware = [[it.astimezone(utc) if getattr(it, "tzinfo", None) else it for it in row] for row in relation.fetchall()]
    compare("DuckDB", aware, wanted)
    frame = polars.read_parquet(EVENTS, hive_partitioning=True)
    assert frame["month"].dtype == polars.String and frame["month"].n_unique() == 12, frame["month"]
    compare("Polars", frame.select(COLUMNS).iter_rows(), wanted)
    table = pyarrow.dataset.dataset("data/tables/events", partitioning="hive").to_table(columns=COLUMNS)
    compare("pyarrow", zip(*(table[name].to_pylist() for name in COLUMNS)), wanted)
    months = connection.sql(f"select month, count(*) from read_parquet('{EVENTS}') where month = '2025-07' group by month")
    july = sum(row[4].strftime("%Y-%m") == "2025-07" for row in wanted.values())
    assert months.fetchall() == [("2025-07", july)], months


def check_query() -> None:
    """Each query gives the same bytes with and without tables."""
    for arguments in (
        ["--text", "mordbrand"],
        ["--text", "mordbrand", "--revisions", "all"],
        ["--type", "rån", "--from", "2025-03-03", "--to", "2025-05-02", "--revisions", "latest"],
        ["--id", "900000002", "--revisions", "all"],
        ["--count-by", "type"],
        ["--limit", "1000"],
    ):
        took = {}
        for option in ([], ["--no-tables"]):
            begin = time.monotonic()
            took[bool(option)] = (collector("query", *arguments, *option, "--format", "json"), time.monotonic() - begin)
        assert took[False][0].stdout == took[True][0].stdout, arguments
        print(f"query {' '.join(arguments)}: {took[False][1]:.3f} s, without tables {took[True][1]:.3f} s")
    explained = json.loads(collector("query", "--text", "mordbrand", "--explain", "--count-by", "day").stderr.splitlines()[-1])
    assert len(explained["tables"]["months"]) == 12 and explained["explain"]["objects_listed"] == 0, explained


def check_answers() -> None:
    """Answers as files: every tool reads the rows that the table of revisions has for the lines that the query prints."""
    tables = pyarrow.dataset.dataset("data/tables/revisions").to_table()
    lines = zip(tables["object"].to_pylist(), tables["line"].to_pylist())
    table = dict(zip(lines, zip(*(tables[name].to_pylist() for name in tables.column_names))))
    for arguments in (["--revisions", "all"], ["--text", "mordbrand", "--revisions", "latest", "--no-tables"], ["--id", "1"]):
        with open("answer.parquet", "wb") as out:
            command = ["/usr/bin/time", "-f", "%e %M", PROGRAMS / "collector", "query", *arguments, "--format", "parquet"]
            ended = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, text=True, check=True)
        seconds, kilobytes = ended.stderr.split()[-2:]
        answer = pyarrow.parquet.read_table("answer.parquet")
        assert answer.schema.equals(tables.schema), answer.schema
        rows = list(zip(*(answer[name].to_pylist() for name in answer.column_names)))
        printed = collector("query", *arguments, "--format", "jsonl").stdout.splitlines()
        assert answer["raw"].to_pylist() == printed, arguments
        assert rows == [table[line] for line in zip(answer["object"].to_pylist(), answer["line"].to_pylist())], arguments
        frame = polars.read_parquet("answer.parquet")
        assert [frame[name].to_list() for name in ("id", "raw", "line")] == [answer[name].to_pylist() for name in ("id", "raw", "line")]
        read = duckdb.sql("select id, raw, line from 'answer.parquet'").fetchall()
        assert read == list(zip(*(answer[name].to_pylist() for name in ("id", "raw", "line")))), arguments
        print(f"query {' '.join(arguments)} --format parquet: {len(rows)} rows as expected, {seconds} s, {int(kilobytes) / 1000:.0f} MB")
        assert int(kilobytes) < 128_000, kilobytes
    controller, terminal = pty.openpty()
    command = [PROGRAMS / "collector", "query", "--format", "parquet"]
    ended = subprocess.run(command, stdout=terminal, stderr=subprocess.PIPE, text=True)
    assert ended.returncode == 2 and "stdout is a terminal" in ended.stderr, ended
    os.close(controller)
    os.close(terminal)


def check_four_years() -> None:
    """As many events as four years of the feed have."""
    subprocess.run([PROGRAMS / "bench-reading", "--write", "data", "--years", "4"], check=True, stdout=subprocess.DEVNULL)
    collector("repair")
    ended = collector("tables", "--json", measured=True)
    seconds, kilobytes = ended.stderr.split()[-2:]
    report = json.loads(ended.stdout)
    megabytes = report["size_bytes"] / 1e6
    print(
        f"tables of four years, {report['events']} events in {report['objects_read']} objects: {seconds} s, "
        f"{int(kilobytes) / 1000:.0f} MB, {megabytes:.1f} MB of files"
    )
    assert int(kilobytes) < 128_000 and megabytes < 16, (kilobytes, megabytes)
    counted = [float(collector("query", "--count-by", "type", measured=True).stderr.split()[-2]) for _ in range(5)]
    print(f"count by type over four years: {min(counted)} s")


def run_snippets() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 3, "docs/tables.md has lost its snippets"
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), {})
    print(f"{len(blocks)} snippets of docs/tables.md run")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        write_year()
        make()
        check_tools(expected())
        check_query()
        check_answers()
        run_snippets()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        check_four_years()


main()
