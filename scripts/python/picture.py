"""Makes docs/dashboard.png, the picture of the README: a month of plausible runs on the dashboard of `collector watch`.

    picture.py PROGRAMS [FILE]    with the folder of the built programs
"""

import copy
import datetime
import json
import math
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from service import free_port, get, running, wait_for

ROOT = Path(__file__).resolve().parent.parent.parent
HALF_HOUR = datetime.timedelta(minutes=30)
LIMIT_BYTES = 150_000


def poisson(rng: random.Random, mean: float) -> int:
    number, product = 0, rng.random()
    while product > math.exp(-mean):
        number, product = number + 1, product * rng.random()
    return number


def write_month(metrics: Path) -> None:
    """Records of a month before now, made from the one that is there: few events at night, a failure every few days."""
    (path,) = metrics.iterdir()
    model, rng, now = json.loads(path.read_text()), random.Random(1), datetime.datetime.now(datetime.UTC)
    path.unlink()
    for number in range(1, 30 * 48):
        start = now - number * HALF_HOUR
        new = poisson(rng, 1.7 + 1.3 * math.sin((start.hour - 9) * math.pi / 12))
        seconds = rng.lognormvariate(-0.7, 0.25)
        record = copy.deepcopy(model)
        record |= {"start_time": start.timestamp(), "timestamp": start.isoformat(), "total_time": seconds,
                   "end_timestamp": (start + datetime.timedelta(seconds=seconds)).isoformat()}
        record["counts"] |= {"new_events_count": new, "buffer_overlap": 500 - new, "revisions_count": poisson(rng, 0.4)}
        if rng.random() < 0.003:
            error = {"type": "http_status", "message": "the feed answered HTTP 503", "timestamp": start.isoformat()}
            record |= {"status": "failed", "errors": [error]}
        (metrics / f"metrics_{start:%Y%m%d_%H%M%S}.json").write_text(json.dumps(record))


def main() -> None:
    collector = Path(sys.argv[1]).resolve() / "collector"
    picture = Path(sys.argv[2] if sys.argv[2:] else ROOT / "docs/dashboard.png").resolve()
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        folder = Path(name)
        subprocess.run([collector, "run", "--feed", ROOT / "fixtures/data/response.json"], cwd=folder, check=True, capture_output=True)
        write_month(folder / "metrics")
        port = free_port()
        watch = [collector, "watch", "--feed", ROOT / "fixtures/data/response-next.json", "--listen", f"127.0.0.1:{port}"]
        with (folder / "log").open("w") as log, running(*watch, cwd=folder, stderr=log):
            wait_for("healthy", lambda: get(f"http://127.0.0.1:{port}/health")[0] == 200, 30)
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1100, "height": 900})
            page.goto(f"http://127.0.0.1:{port}/")
            page.screenshot(path=picture)
            browser.close()
    size = picture.stat().st_size
    assert size <= LIMIT_BYTES, f"{picture} has {size} bytes"
    print(f"{picture.name}: {size} bytes")


if __name__ == "__main__":
    main()
