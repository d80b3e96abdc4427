"""Runs `collector query`, `fetch` and `cache` as their users do, on a year of events and on the simulated services.

    reading.py FOLDER    with the built programs in FOLDER
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROGRAMS = Path(sys.argv[1]).resolve()
FIXTURES = Path(__file__).resolve().parent.parent.parent / "fixtures/data"


def collector(*arguments, code=0, env=None, cwd=None, measured=False):
    command = [PROGRAMS / "collector", *map(str, arguments)]
    if measured:
        command = ["/usr/bin/time", "-f", "%e %M", *command]
    ended = subprocess.run(command, capture_output=True, text=True, env=env, cwd=cwd)
    assert ended.returncode == code, (command, ended.returncode, ended.stderr[-2000:])
    return ended


def explained(ended) -> dict:
    line = next(line for line in ended.stderr.splitlines() if line.startswith('{"'))
    return json.loads(line)


@contextlib.contextmanager
def served(*arguments):
    process = subprocess.Popen([PROGRAMS / "loadtest", *map(str, arguments)], stdout=subprocess.PIPE, text=True)
    try:
        yield json.loads(process.stdout.readline())
    finally:
        process.kill()
        process.wait()


def check_year(folder: Path) -> None:
    data = folder / "year"
    subprocess.run([PROGRAMS / "bench-reading", "--write", data], check=True, stdout=subprocess.DEVNULL)
    lines = [line for path in data.glob("events/**/*.jsonl") for line in path.read_text().splitlines()]
    # What is looked for stands in what is said; the address alone does not count.
    said = [json.loads(line) for line in lines]
    texts = [" ".join([it["name"], it["summary"], it["type"], it["location"]["name"]]).lower() for it in said]
    expected = sum("mordbrand" in text for text in texts)
    seconds, megabytes = [], []
    for _ in range(3):
        found = collector("query", "--store", data, "--text", "mordbrand", "--format", "jsonl", measured=True)
        assert len(found.stdout.splitlines()) == expected > 0, (len(found.stdout.splitlines()), expected)
        used = found.stderr.split()[-2:]
        seconds.append(float(used[0]))
        megabytes.append(int(used[1]) / 1000)
    everything = collector("query", "--store", data, "--format", "jsonl", measured=True)
    assert sorted(everything.stdout.splitlines()) == sorted(lines)
    megabytes.append(int(everything.stderr.split()[-1]) / 1000)
    print(f"{len(lines)} events by text: {min(seconds):.2f} s; at most {max(megabytes):.0f} MB, also when all are printed")
    assert min(seconds) < 1 and max(megabytes) < 24, (seconds, megabytes)

    # What cannot be read is named, the rest is printed.
    victim = sorted(data.glob("events/2025/06/15/*.jsonl"))[0]
    victim.write_bytes(b"\x00\xff no event\n" + victim.read_bytes())
    june = ["query", "--store", data, "--from", "2025-06-01", "--to", "2025-06-30", "--format", "jsonl"]
    ended = collector(*june, code=1)
    assert len(ended.stdout.splitlines()) == sum(event["datetime"].startswith("2025-06") for event in said)
    assert victim.name in ended.stderr and "line 1" in ended.stderr, ended.stderr


def check_bucket(folder: Path) -> None:
    with served("serve-oci", "--dir", folder / "oci", "--documented-latency") as addresses:
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "OCI_CONFIG_FILE": addresses["config_file"],
            "COLLECTOR_STORE": addresses["store"],
            "COLLECTOR_ENDPOINT": addresses["endpoint"],
        }

        def run(*arguments):
            return collector(*arguments, env=env, cwd=folder)

        run("run", "--feed", FIXTURES / "response.json")
        answers = []
        for _ in range(10):
            begin = time.monotonic()
            ended = run("query", "--format", "jsonl", "--explain")
            answers.append((time.monotonic() - begin, explained(ended)["requests"], ended.stdout))
        first_s, first_requests, first = answers[0]
        again_s = sorted(seconds for seconds, _, _ in answers[1:])[4]
        requests = sum(count for _, count, _ in answers)
        assert first and all(text == first for _, _, text in answers)
        rate = json.loads(run("cache", "stats", "--json").stdout)[0]["hit_rate"]
        print(
            f"a bucket asked the same by ten programs: {first_s:.2f} s, then {again_s:.3f} s; "
            f"{requests} requests instead of {10 * first_requests}; hit rate {rate:.0%}"
        )
        assert again_s < first_s / 2 and 10 * requests <= 7 * 10 * first_requests and rate > 0.7

        # What a run stores is found by the next query, though the listing was kept.
        run("run", "--feed", FIXTURES / "response-next.json")
        found = run("query", "--format", "jsonl").stdout.splitlines()
        assert found == run("query", "--format", "jsonl", "--no-cache").stdout.splitlines()
        assert len(found) > len(first.splitlines())
        run("cache", "clear")
        assert json.loads(run("cache", "stats", "--json").stdout)[0]["kept"]["entries"] == 0


def check_feed(folder: Path) -> None:
    with served("serve", "--speed", "1") as addresses:
        env = {"PATH": os.environ["PATH"], "HOME": str(folder)}
        ask = ["fetch", "--feed", addresses["feed"], "--format", "jsonl", "--explain", "--retries", "0"]
        wanted = ["--type", "Trafikolycka", "--type", "Brand"]
        found = collector(*ask, *wanted, env=env, cwd=folder)
        events = [json.loads(line) for line in found.stdout.splitlines()]
        assert events and {event["type"] for event in events} <= {"Trafikolycka", "Brand"}
        cost = explained(found)["explain"]
        assert cost["calls"] == 1 and cost["not_asked_for"] == 0 and cost["bytes"] < 100_000, cost
        again = explained(collector(*ask, *wanted, env=env, cwd=folder))["explain"]
        assert again["calls"] == 0 and again["from_cache"] == 1, again
        print(f"fetch: {cost['found']} events in {cost['bytes']} bytes and one call; again without a call")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        check_year(Path(folder))
        check_bucket(Path(folder))
        check_feed(Path(folder))


if __name__ == "__main__":
    main()
