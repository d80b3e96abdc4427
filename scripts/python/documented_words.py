#!/usr/bin/env python3
"""Compares what is printed as Python prints it with Python itself, for random values.

    documented_words.py PROGRAMS [SEED]

`repr` of floats and `datetime.isoformat` as `collector health` shows and reads them, and the documented trend report as
`analyze-metrics` prints it, over loose and over packed records.
"""

import json
import math
import random
import statistics
import struct
import subprocess
import sys
import tempfile
from datetime import datetime, timedelta, timezone
from pathlib import Path

# As many floats as fit into the length to which a text of a file is cut.
FLOATS_AT_ONCE = 70
FLOATS, DATES, FOLDERS = 70 * FLOATS_AT_ONCE, 150, 40
STEPS = ("api_fetch", "metadata_fetch", "deduplication", "save_events", "metadata_update")


def run(program: Path, *arguments: str) -> str:
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False).stdout


def any_float(source: random.Random) -> float:
    kind = source.randrange(4)
    if kind == 0:
        number = struct.unpack("<d", source.randbytes(8))[0]
        return number if math.isfinite(number) else 0.5
    if kind == 1:
        return source.choice([1, -1]) * float(f"{source.randrange(10**6)}e{source.randrange(-30, 30)}")
    return round(source.uniform(0, 10), source.randrange(7)) if kind == 2 else source.lognormvariate(0, 4)


def check_floats(collector: Path, file: Path, source: random.Random) -> None:
    for _ in range(FLOATS // FLOATS_AT_ONCE):
        numbers = [any_float(source) for _ in range(FLOATS_AT_ONCE)]
        now = datetime.now(timezone.utc).isoformat()
        file.write_text(json.dumps({"last_run": now, "status": "success", "events_processed": numbers}))
        printed = run(collector, "health", "--health-file", str(file))
        assert f"  Events processed: {numbers}\n" in printed, f"{printed}\n\nPython: {numbers}"


def check_dates(collector: Path, file: Path, source: random.Random) -> None:
    for _ in range(DATES):
        zone = timezone(timedelta(seconds=source.choice([0, 3600, -60 * source.randrange(1440), source.randrange(86_400)])))
        # Far from a whole minute, since time passes.
        age = timedelta(minutes=source.randrange(10, 40), seconds=source.randrange(10, 50))
        moment = datetime.now(zone) - age
        timespec = source.choice(["auto", "seconds", "milliseconds", "microseconds"])
        text = moment.isoformat(source.choice("T _"), timespec)
        age = (datetime.now(timezone.utc) - datetime.fromisoformat(text)).total_seconds() // 60
        file.write_text(json.dumps({"last_run": text, "status": "success"}))
        printed = run(collector, "health", "--health-file", str(file))
        assert f"  Last run: {int(age)} minutes ago\n" in printed, (text, printed)
    for text in ("", "soon", "2026-02-30T00:00:00", "2026-13-01", "2026-01-02T25:00", "2026-01-02T00:60", "it's", "2026-1-2"):
        try:
            datetime.fromisoformat(text)
        except ValueError as error:
            file.write_text(json.dumps({"last_run": text, "status": "success"}))
            printed = run(collector, "health", "--health-file", str(file))
            assert printed == f"ERROR: Invalid datetime format: {error}\n", (text, printed)


def documented_report(records: list) -> str:
    lines = ["=" * 80, "PERFORMANCE TREND ANALYSIS", "=" * 80, f"Total runs analyzed: {len(records)}", ""]

    def times(title: str, values: list, deviation: bool) -> None:
        if not values:
            return
        lines.append(f"{title}:")
        lines.append(f"  Mean:   {statistics.mean(values):.4f}s")
        lines.append(f"  Median: {statistics.median(values):.4f}s")
        lines.extend([f"  Min:    {min(values):.4f}s", f"  Max:    {max(values):.4f}s"])
        if deviation and len(values) > 1:
            lines.append(f"  StdDev: {statistics.stdev(values):.4f}s")
        lines.append("")

    times("Total Execution Time", [record["total_time"] for record in records if "total_time" in record], True)
    for step in STEPS:
        times(step, [record["timings"][step] for record in records if step in record.get("timings", {})], False)
    counts = [record["counts"].get("new_events_count", 0) for record in records if "counts" in record]
    if counts:
        lines.append("New Events per Run:")
        lines.append(f"  Mean:   {statistics.mean(counts):.2f}")
        lines.append(f"  Median: {statistics.median(counts):.2f}")
        lines.extend([f"  Min:    {min(counts)}", f"  Max:    {max(counts)}", f"  Total:  {sum(counts)}", ""])
    errors = [len(record.get("errors", [])) for record in records]
    if sum(errors):
        rate = sum(1 for count in errors if count) / len(records) * 100
        lines.extend([f"Errors: {sum(errors)} errors across {len(records)} runs", f"  Error rate: {rate:.2f}%", ""])
    return "\n".join(lines) + "\n"


def any_record(number: int, source: random.Random) -> dict:
    def seconds() -> float:
        return source.choice([source.uniform(0, 5), round(source.uniform(0, 5), source.randrange(1, 6)), source.randrange(9)])

    record = {"timestamp": (datetime(2026, 1, 1, tzinfo=timezone.utc) + timedelta(minutes=30 * number)).isoformat()}
    if source.random() < 0.9:
        record["total_time"] = seconds()
    record["timings"] = {step: seconds() for step in STEPS if source.random() < 0.7}
    if source.random() < 0.9:
        record["counts"] = {"new_events_count": source.randrange(60)}
    record["errors"] = [{"type": "network"}] * source.choice([0, 0, 0, 1, 2])
    return record


def check_reports(analyze: Path, folder: Path, source: random.Random) -> None:
    for count in range(1, FOLDERS):
        metrics = folder / f"metrics-{count}"
        metrics.mkdir()
        records = [any_record(number, source) for number in range(count)]
        for number, record in enumerate(records):
            (metrics / f"metrics_{number:04}.json").write_text(json.dumps(record, indent=2))
        expected = documented_report(records)
        printed = run(analyze, "--metrics-dir", str(metrics))
        assert printed == expected, f"{printed}\n\nPython:\n{expected}"
        if count % 10 == 0:
            run(analyze, "--metrics-dir", str(metrics), "--archive-older-than", "0s")
            assert not list(metrics.glob("*.json")), "nothing was packed"
            printed = run(analyze, "--metrics-dir", str(metrics))
            assert printed == expected, f"packed: {printed}\n\nPython:\n{expected}"


def main() -> None:
    programs = Path(sys.argv[1]).resolve()
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(2**32)
    print(f"seed {seed}")
    source = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        check_floats(programs / "collector", folder / "health.json", source)
        check_dates(programs / "collector", folder / "health.json", source)
        check_reports(programs / "analyze-metrics", folder, source)
    print(f"{FLOATS} floats, {DATES} dates and {FOLDERS - 1} reports are printed as Python prints them")


if __name__ == "__main__":
    main()
