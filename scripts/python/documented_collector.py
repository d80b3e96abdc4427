#!/usr/bin/env python3
"""A plain collector as the documents describe it: requests, json, a set, datetime.fromisoformat, JSON Lines.

    documented_collector.py --url URL --store DIR          one run into a folder
    documented_collector.py --url URL --bucket CONFIG --endpoint URL
                                                           one run into Object Storage, with the official SDK
    documented_collector.py --steps N RESPONSE [LEDGER]    time the steps in memory, print their median
    documented_collector.py --install DIR                  make what an installation leaves after months

It is here to be compared with, by scripts/compare-with-python. It keeps the documented rule, the 1,000 highest ids, and
with it the documented duplicates. `--install` makes DIR/.env, an archive of 20,000 events of which 19 % are duplicates, the
metrics of a month, and the units of systemd and cron, as the documented collector names and writes them.
"""

import argparse
import json
import random
import re
import statistics
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

TRACKED = 1000
USER_AGENT = "documented-collector/1.0 (comparison on loopback)"


class Folder:
    """Objects as files."""

    def __init__(self, folder: Path):
        self.folder = folder

    def read(self, name: str) -> str | None:
        path = self.folder / name
        return path.read_text(encoding="utf-8") if path.exists() else None

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


class Bucket:
    """Objects in Object Storage."""

    def __init__(self, config: str, endpoint: str, namespace: str, bucket: str):
        import oci

        self.refused = oci.exceptions.ServiceError
        self.at = (namespace, bucket)
        self.client = oci.object_storage.ObjectStorageClient(oci.config.from_file(config), service_endpoint=endpoint)

    def read(self, name: str) -> str | None:
        try:
            return self.client.get_object(*self.at, name).data.text
        except self.refused as error:
            if error.status == 404:
                return None
            raise

    def write(self, name: str, text: str) -> None:
        self.client.put_object(*self.at, name, text.encode())


LEDGER = "metadata/last_seen.json"


def read_seen(text: str | None) -> set:
    return set(json.loads(text)["seen_ids"]) if text else set()


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


def write_seen(store: Folder | Bucket, seen: set) -> None:
    kept = sorted(seen, reverse=True)[:TRACKED]
    ledger = {
        "seen_ids": kept,
        "last_updated": datetime.now(timezone.utc).isoformat(),
        "total_tracked": len(kept),
    }
    store.write(LEDGER, json.dumps(ledger, indent=2))


def collect(url: str, store: Folder | Bucket) -> None:
    import requests

    headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "gzip, deflate"}
    response = requests.get(url, headers=headers, timeout=30)
    response.raise_for_status()
    events = response.json()
    seen = read_seen(store.read(LEDGER))
    new = [event for event in events if event["id"] not in seen]
    if new:
        second = int(time.time())
        for day, lines in to_json_lines(new).items():
            store.write(f"events/{day}/events-{second}.jsonl", lines)
        write_seen(store, seen | {event["id"] for event in events})
    print(f"{len(new)} new of {len(events)}")


def time_steps(rounds: int, response: Path, ledger: Path | None) -> None:
    body = response.read_bytes()
    seen = read_seen(ledger.read_text(encoding="utf-8")) if ledger else set()
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        events = json.loads(body)
        to_json_lines([event for event in events if event["id"] not in seen])
        times.append(time.perf_counter() - begin)
    print(json.dumps({"rounds": rounds, "median_us": round(statistics.median(times) * 1e6, 1)}))


EVENTS, DUPLICATES = 20_000, 3_800
DOTENV = """\
# Polisen Events Collector - Environment Configuration
OCI_NAMESPACE=example
OCI_BUCKET_NAME=polisen-events-collector
OCI_COMPARTMENT_ID=ocid1.compartment.oc1..example
OCI_REGION=eu-stockholm-1
USE_VAULT=false
API_USER_AGENT=Collector/1.0 (Data Collection; Contact: me@example.org)
API_CONTACT_EMAIL=me@example.org
LOG_DIR=./logs
LOG_LEVEL=WARNING
POLISEN_API_URL=https://polisen.se/api/events
POLLING_INTERVAL_MINUTES=30
"""
SERVICE = """\
[Unit]
Description=Polisen Events Collector
[Service]
Type=oneshot
WorkingDirectory=/opt/polisen
ExecStart=/usr/bin/python3 /opt/polisen/collect_events.py
"""
TIMER = """\
[Unit]
Description=Polisen Events Collector Timer
[Timer]
OnBootSec=2min
OnUnitActiveSec=30min
[Install]
WantedBy=timers.target
"""


def made_event(number: int, moment: datetime) -> dict:
    # One digit of hour, as the feed has it.
    stated = f"{moment:%Y-%m-%d} {moment.hour}:{moment:%M:%S} +01:00"
    return {"id": 300_000 + number, "datetime": stated, "name": f"{moment:%d} januari, Rån, Malmö", "summary": "En händelse.",
            "url": f"/aktuellt/handelser/{number}/", "type": "Rån", "location": {"name": "Malmö", "gps": "55.604981,13.003822"}}


def install(folder: Path, seed: int = 1) -> None:
    """An archive as the documented rule leaves it: events that came back after they had been forgotten stand in it again."""
    chance = random.Random(seed)
    begin = datetime(2025, 6, 1, tzinfo=timezone(timedelta(hours=1)))
    distinct = EVENTS - DUPLICATES
    events = [made_event(number, begin + timedelta(minutes=20) * number) for number in range(distinct)]
    # The position in time at which each is stored, again or for the first time.
    stored = [(number, event) for number, event in enumerate(events)]
    stored += [(min(number + chance.randrange(1_001, 6_000), distinct), events[number])
               for number in chance.sample(range(distinct - 6_000), DUPLICATES)]
    stored.sort(key=lambda it: it[0])
    for at in range(0, len(stored), 25):
        run = stored[at : at + 25]
        second = int((begin + timedelta(minutes=20) * run[-1][0]).timestamp())
        for day, lines in to_json_lines([event for _, event in run]).items():
            day_folder = folder / "data" / "events" / day
            day_folder.mkdir(parents=True, exist_ok=True)
            # The original writes no line feed at the end.
            (day_folder / f"events-{second + at % 7}.jsonl").write_text(lines.rstrip("\n"), encoding="utf-8")
    write_seen(Folder(folder / "data"), {event["id"] for event in events})
    made_metrics(folder / "metrics", chance)
    (folder / ".env").write_text(DOTENV, encoding="utf-8")
    units = folder / "etc" / "systemd" / "system"
    units.mkdir(parents=True, exist_ok=True)
    (units / "polisen-collector.service").write_text(SERVICE)
    (units / "polisen-collector.timer").write_text(TIMER)
    cron = folder / "etc" / "cron.d"
    cron.mkdir(parents=True, exist_ok=True)
    (cron / "polisen-collector").write_text("*/30 * * * * me /usr/bin/python3 /opt/polisen/collect_events.py\n")


def made_metrics(folder: Path, chance: random.Random) -> None:
    """A record of each run of a month, with the members of the documented PerformanceMetrics."""
    folder.mkdir(parents=True, exist_ok=True)
    begin = datetime(2025, 12, 1, tzinfo=timezone.utc)
    for number in range(48 * 31):
        start = begin + timedelta(minutes=30) * number
        new = chance.randrange(4)
        timings = {"api_fetch": chance.uniform(1.2, 1.8), "metadata_fetch": chance.uniform(0.4, 0.6), "deduplication": 0.001}
        if new:
            timings |= {"save_events": chance.uniform(0.7, 0.9), "metadata_update": chance.uniform(0.25, 0.35)}
        failed = chance.random() < 0.05
        errors = [{"type": "collection_failed", "message": "timed out", "timestamp": start.isoformat()}] if failed else []
        total = sum(timings.values()) + 0.02
        record = {
            "start_time": 1_000.0 + number, "timestamp": start.isoformat(), "timings": timings,
            "counts": {"api_events_total": 500, "api_response_bytes": 172_000, "api_response_kb": 167.97,
                       "seen_ids_count": 1_000, "new_events_count": new},
            "errors": errors, "total_time": total, "end_timestamp": (start + timedelta(seconds=total)).isoformat(),
        }
        (folder / f"metrics_{start:%Y%m%d_%H%M%S}.json").write_text(json.dumps(record, indent=2))


def main() -> None:
    parser = argparse.ArgumentParser(description="A plain collector as the documents describe it.")
    parser.add_argument("--url")
    parser.add_argument("--store", type=Path, default=Path("data"))
    parser.add_argument("--bucket", metavar="CONFIG", help="a configuration file of the SDK")
    parser.add_argument("--endpoint", help="where Object Storage is")
    parser.add_argument("--steps", type=int, metavar="N")
    parser.add_argument("--install", type=Path, metavar="DIR")
    parser.add_argument("files", nargs="*", type=Path, metavar="RESPONSE [LEDGER]")
    given = parser.parse_args()
    if given.steps and given.files:
        time_steps(given.steps, given.files[0], given.files[1] if len(given.files) > 1 else None)
    elif given.install:
        install(given.install)
    elif given.url:
        bucket = given.bucket and Bucket(given.bucket, given.endpoint, "simulated", "events")
        collect(given.url, bucket or Folder(given.store))
    else:
        parser.error("name --url, --install, or --steps and a response")


if __name__ == "__main__":
    main()
