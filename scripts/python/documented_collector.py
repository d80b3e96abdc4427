#!/usr/bin/env python3
"""A plain collector as the documents describe it: requests, json, a set, datetime.fromisoformat, JSON Lines.

    documented_collector.py --url URL --store DIR          one run
    documented_collector.py --steps N RESPONSE [LEDGER]    time the steps in memory, print their median

It is here to be compared with, by scripts/compare-with-python. It keeps the documented rule, the 1,000 highest ids, and
with it the documented duplicates.
"""

import argparse
import json
import re
import statistics
import time
from datetime import datetime, timezone
from pathlib import Path

TRACKED = 1000
USER_AGENT = "documented-collector/1.0 (comparison on loopback)"


def read_seen(path: Path) -> set:
    if not path.exists():
        return set()
    return set(json.loads(path.read_text(encoding="utf-8"))["seen_ids"])


def event_date(event: dict) -> datetime:
    # fromisoformat wants two digits of hour and no space before the offset.
    stated = re.sub(r" (\d):", r" 0\1:", event["datetime"])
    return datetime.fromisoformat(stated.replace(" +", "+").replace(" -", "-"))


def to_json_lines(events: list) -> dict:
    by_day: dict = {}
    for event in events:
        by_day.setdefault(event_date(event).strftime("%Y/%m/%d"), []).append(event)
    return {
        day: "\n".join(json.dumps(event, ensure_ascii=False) for event in of_day) + "\n"
        for day, of_day in by_day.items()
    }


def write_seen(path: Path, seen: set) -> None:
    kept = sorted(seen, reverse=True)[:TRACKED]
    ledger = {
        "seen_ids": kept,
        "last_updated": datetime.now(timezone.utc).isoformat(),
        "total_tracked": len(kept),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(ledger, indent=2), encoding="utf-8")


def collect(url: str, store: Path) -> None:
    import requests

    headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "gzip, deflate"}
    response = requests.get(url, headers=headers, timeout=30)
    response.raise_for_status()
    events = response.json()
    ledger = store / "metadata" / "last_seen.json"
    seen = read_seen(ledger)
    new = [event for event in events if event["id"] not in seen]
    if new:
        second = int(time.time())
        for day, lines in to_json_lines(new).items():
            folder = store / "events" / day
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"events-{second}.jsonl").write_text(lines, encoding="utf-8")
        write_seen(ledger, seen | {event["id"] for event in events})
    print(f"{len(new)} new of {len(events)}")


def time_steps(rounds: int, response: Path, ledger: Path | None) -> None:
    body = response.read_bytes()
    seen = read_seen(ledger) if ledger else set()
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        events = json.loads(body)
        to_json_lines([event for event in events if event["id"] not in seen])
        times.append(time.perf_counter() - begin)
    print(json.dumps({"rounds": rounds, "median_us": round(statistics.median(times) * 1e6, 1)}))


def main() -> None:
    parser = argparse.ArgumentParser(description="A plain collector as the documents describe it.")
    parser.add_argument("--url")
    parser.add_argument("--store", type=Path, default=Path("data"))
    parser.add_argument("--steps", type=int, metavar="N")
    parser.add_argument("files", nargs="*", type=Path, metavar="RESPONSE [LEDGER]")
    given = parser.parse_args()
    if given.steps and given.files:
        time_steps(given.steps, given.files[0], given.files[1] if len(given.files) > 1 else None)
    elif given.url:
        collect(given.url, given.store)
    else:
        parser.error("name --url, or --steps and a response")


if __name__ == "__main__":
    main()
