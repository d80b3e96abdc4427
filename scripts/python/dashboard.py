"""Looks at the dashboard of `collector watch` in a headless Chromium: wide and on a phone, healthy and not.

    dashboard.py FOLDER SCREENSHOTS    with the built programs in FOLDER
"""

import copy
import datetime
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from service import free_port, get, running, wait_for

PROGRAMS, SCREENSHOTS = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
DATA = Path(__file__).resolve().parent.parent.parent / "fixtures/data"
NOW = datetime.datetime.now(datetime.UTC)
HALF_HOUR = datetime.timedelta(minutes=30)
# What a finger and an eye can use.
PHONE = {"width": 360, "height": 740}
SMALLEST_LETTERS_PX = 11
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
HEIGHTS = "[...document.querySelectorAll('svg.chart text')].filter(it => it.getBoundingClientRect().width).map(it => parseFloat(getComputedStyle(it).fontSize) * it.getScreenCTM().d)"


def month_of_records(folder: Path) -> list[dict]:
    """Records of a month as runs every half hour would have left them, made from one that a run did leave."""
    scratch = folder / "scratch"
    scratch.mkdir()
    subprocess.run([PROGRAMS / "collector", "run", "--feed", DATA / "response.json"], cwd=scratch, check=True, capture_output=True)
    (model,) = (json.loads(path.read_text()) for path in (scratch / "metrics").iterdir())
    metrics = folder / "metrics"
    metrics.mkdir()
    records = []
    for number in range(1, 31 * 48 - 60):
        start = NOW - number * HALF_HOUR
        record = copy.deepcopy(model)
        new = (number * 7 + number // 48) % 5
        record["counts"] |= {"new_events_count": new, "buffer_overlap": 500 - new, "revisions_count": number % 2}
        record |= {"start_time": start.timestamp(), "timestamp": start.isoformat(), "total_time": 1.2 + 0.1 * (number % 9)}
        if number % 97 == 0:
            record |= {"status": "failed", "errors": [{"type": "http_status", "message": "the feed answered HTTP 503", "timestamp": start.isoformat()}]}
        (metrics / f"metrics_{start:%Y%m%d_%H%M%S}.json").write_text(json.dumps(record))
        records.append(record)
    # Beside them lies a file that is not a record.
    (metrics / f"metrics_{NOW:%Y%m%d}_000000_x.json").write_text("{")
    (metrics / "metrics_20200101_000000.json").write_text(json.dumps(model))
    return records


def facts(page: Page) -> dict[str, str]:
    return dict(zip(page.locator("dt").all_inner_texts(), page.locator("dd").all_inner_texts()))


def rows(page: Page) -> list[list[str]]:
    return [row.locator("th, td").all_inner_texts() for row in page.locator("#runs tbody tr").all()]


class Watched:
    """A page on which nothing may go wrong unseen."""

    def __init__(self, browser, url: str, **options):
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.wrong, self.asked, self.loads = [], [], 0
        self.page.on("console", lambda message: self.wrong.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("requestfailed", lambda request: self.wrong.append(f"failed: {request.url}"))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("load", lambda _: setattr(self, "loads", self.loads + 1))
        self.url = url
        self.page.goto(url)

    def look(self, name: str) -> None:
        assert not self.wrong, (name, self.wrong)
        others = {url for url in self.asked if url != self.url and not url.startswith("data:")}
        assert not others, (name, others)
        assert self.page.evaluate(OVERFLOW) <= 0, (name, "it is wider than the screen", self.page.evaluate(OVERFLOW))
        letters = self.page.evaluate(HEIGHTS)
        assert not letters or min(letters) >= SMALLEST_LETTERS_PX, (name, min(letters))
        self.page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)


def main() -> None:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        folder = Path(name)
        records = month_of_records(folder)
        feed = folder / "feed.json"
        shutil.copy(DATA / "response.json", feed)
        port = free_port()
        url = f"http://127.0.0.1:{port}/"
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"] if os.geteuid() == 0 else [])
        watch = [PROGRAMS / "collector", "watch", "--feed", feed, "--interval", "10s", "--listen", f"127.0.0.1:{port}"]
        with (folder / "log").open("w") as log, running(*watch, cwd=folder, stderr=log):
            polled = lambda: [run for run in json.loads(get(f"{url}api/runs")[1] or '{"runs": []}')["runs"] if run["new"] >= 400]
            wait_for("the first run", polled, 20)
            started = time.monotonic()
            phone = Watched(browser, url, viewport=PHONE, device_scale_factor=2, is_mobile=True, has_touch=True)
            wide = Watched(browser, url, viewport={"width": 1280, "height": 900})

            # The figures are those of the run, of the archive, and of the records from before.
            lines = lambda: sum(1 for path in (folder / "data/events").rglob("*.jsonl") for _ in path.open())
            stored = lines()
            day = [record for record in records if NOW.timestamp() - record["start_time"] < 86_000]
            good = lambda record: record["counts"]["new_events_count"] if record["status"] == "success" else 0
            shown, first = facts(wide.page), rows(wide.page)[0]
            assert first[1:3] == ["success", str(stored)], (first, stored)
            assert shown["New at the last run"] == str(stored) == "500", shown
            assert int(shown["New in 24 hours"]) - 500 in range(sum(map(good, day)), sum(map(good, day)) + 6), shown
            assert shown["Buffer headroom"] == "0.0 % (0 of 500 known)", shown
            assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d \(now\)", shown["Last good run (UTC)"]), shown
            assert wide.page.locator("#month svg.chart").count() == 1 and wide.page.locator("#day svg.chart").count() == 3
            assert "Healthy" in wide.page.locator(".state").inner_text()
            wide.look("wide")
            phone.look("phone")
            dark = Watched(browser, url, viewport=PHONE, color_scheme="dark")
            dark.look("phone-dark")
            for width in [320, 480, 768]:
                narrow = Watched(browser, url, viewport={"width": width, "height": 700})
                narrow.look(f"{width}")

            # By the keyboard: a point of a chart shows its values.
            point = wide.page.locator("#day svg.chart .column").last
            point.focus()
            assert point.locator("text").first.is_visible()
            # By the finger.
            point = phone.page.locator("#day svg.chart").first.locator(".column").nth(20)
            point.locator("rect").tap()
            assert point.locator("text").first.is_visible()

            shutil.copy(DATA / "response-next.json", feed)
            wait_for("a run with a few new events", lambda: lines() > stored, 30)
            feed.rename(folder / "away")
            wait_for("unhealthy", lambda: get(f"{url}health")[0] == 503, 30)
            # It loads itself again; without an action of the user.
            wide.page.locator(".state.bad").wait_for(timeout=45_000)
            assert wide.loads >= 2 and "Unhealthy" in wide.page.locator(".state").inner_text()
            assert "cannot read" in rows(wide.page)[0][-1], rows(wide.page)[0]
            news = [int(row[2]) for row in rows(wide.page)]
            first = news.index(stored)
            assert sum(news[:first]) == lines() - stored > 0, (news, lines(), stored)
            took = time.monotonic() - started
            wide.look("wide-unhealthy")
            phone = Watched(browser, url, viewport=PHONE, device_scale_factor=2, is_mobile=True, has_touch=True)
            phone.look("phone-unhealthy")
            browser.close()
        print(f"the dashboard: 9 views without an error, within 320 to 1280 px, letters of at least {SMALLEST_LETTERS_PX} px; it showed the failure by itself within {took:.0f} s; screenshots in {SCREENSHOTS.name}/")


if __name__ == "__main__":
    main()
