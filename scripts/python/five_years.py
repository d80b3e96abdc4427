"""Reports on 100,000 records: the processor time they take, as a multiple of what Python takes to parse the records; how much memory;
and whether they find the one change there is."""

import json
import random
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

RUNS = 100_000
SLOWER_SINCE = 60_000
MOST_RATIO, MOST_KB = 6.0, 100_000


def record(number: int, rng: random.Random) -> dict:
    start = datetime(2020, 1, 1, tzinfo=timezone.utc) + timedelta(minutes=30 * number)
    fetch = rng.lognormvariate(0, 0.15) * (0.4 if number < SLOWER_SINCE else 0.5)
    # The morning brings most.
    new = min(int(rng.expovariate(1 / 9 if start.hour == 6 else 1 / 1.5)), 60)
    timings = {"api_fetch": fetch, "metadata_fetch": rng.uniform(0.08, 0.13), "parse": 6e-5, "deduplication": 1e-6}
    if new:
        timings |= {"save_events": rng.uniform(0.1, 0.15), "metadata_update": rng.uniform(0.05, 0.08)}
    return {
        "start_time": start.timestamp(),
        "timestamp": start.isoformat(),
        "timings": timings,
        "counts": {"api_events_total": 500, "new_events_count": new, "buffer_overlap": 500 - new},
        "errors": [],
        "total_time": sum(timings.values()),
        "end_timestamp": start.isoformat(),
        "status": "success",
        "process": {"peak_memory_bytes": 7_500_000, "cpu_user_s": 0.006, "cpu_system_s": 0.002},
    }


def report(program: str, records: Path, what: str) -> tuple[dict, float, int]:
    command = ["/usr/bin/time", "--format", "%U %S %M", program, str(records), "--report", what, "--format", "json"]
    # Others use this machine too: the best of five says what the program can do.
    ended = [subprocess.run(command, capture_output=True, text=True, check=True) for _ in range(5)]
    used = [line.stderr.split() for line in ended]
    return json.loads(ended[0].stdout), min(float(user) + float(system) for user, system, _ in used), max(int(kb) for *_, kb in used)


def parse_s(lines: Path) -> float:
    """The processor time that Python takes to parse the records, in seconds."""
    texts = lines.read_text().splitlines()
    times = []
    for _ in range(3):
        begin = time.process_time()
        for text in texts:
            json.loads(text)
        times.append(time.process_time() - begin)
    return min(times)


def main() -> None:
    rng = random.Random(1)
    with tempfile.TemporaryDirectory() as folder:
        lines, files = Path(folder, "runs.jsonl"), Path(folder, "metrics")
        files.mkdir()
        with lines.open("w") as out:
            for number in range(RUNS):
                text = json.dumps(record(number, rng))
                out.write(text + "\n")
                (files / f"metrics_{number:06}.json").write_text(text)
        for what in ("trends", "bottlenecks", "scalability", "scorecard"):
            for records in (lines, files):
                found, seconds, kb = report(sys.argv[1], records, what)
                ratio = seconds / parse_s(lines)
                print(f"{what} of {RUNS} records ({records.name}): {seconds:.2f} s of processor time, {ratio:.1f} times json.loads, {kb / 1000:.0f} MB")
                assert found["overview"]["runs"] == RUNS
                assert ratio < MOST_RATIO and kb < MOST_KB, (ratio, kb)
                if what == "trends":
                    changes = [row for row in found["changes"]["changes"] if row["quantity"] == "api_fetch"]
                    expected = datetime(2020, 1, 1, tzinfo=timezone.utc) + timedelta(minutes=30 * SLOWER_SINCE)
                    assert len(changes) == 1, changes
                    assert abs(datetime.fromisoformat(changes[0]["time"]) - expected) < timedelta(hours=6), changes


if __name__ == "__main__":
    main()
