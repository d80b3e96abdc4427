"""Runs `collector watch` beside a real Prometheus: it scrapes, and an alert fires when runs stop and ends when they resume.
Then it is reloaded as often as in years, within its limit of memory, and stopped in the middle of a reload.

    service.py FOLDER    with the built programs in FOLDER
"""

import contextlib
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

PROGRAMS = Path(sys.argv[1]).resolve()
ROOT = Path(__file__).resolve().parent.parent.parent
MONITORING = ROOT / "scripts/monitoring"
# An alert that waits for 45 minutes waits here for this number of seconds: more than one interval of ten.
PATIENCE_S = 20
RELOADS = 200
MOST_MEMORY_KB = 16_000


def free_port() -> int:
    with socket.socket() as it:
        it.bind(("127.0.0.1", 0))
        return it.getsockname()[1]


@contextlib.contextmanager
def running(*command, **options):
    process = subprocess.Popen([str(word) for word in command], **options)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


def wait_for(what: str, holds, limit_s: float, pause_s: float = 0.2) -> float:
    begin = time.monotonic()
    while not holds():
        assert time.monotonic() - begin < limit_s, f"not within {limit_s} s: {what}"
        time.sleep(pause_s)
    return time.monotonic() - begin


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        feed = folder / "feed.json"
        shutil.copy(ROOT / "fixtures/data/response.json", feed)
        service_port, prometheus_port = free_port(), free_port()
        rules = (MONITORING / "alerts.yml").read_text().replace("> polisen_collector_max_age_seconds", f"> {PATIENCE_S}").replace("for: 1m", "for: 0s")
        (folder / "alerts.yml").write_text(rules)
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": ["alerts.yml"],
            "scrape_configs": [{"job_name": "polisen", "static_configs": [{"targets": [f"127.0.0.1:{service_port}"]}]}],
        }
        (folder / "prometheus.json").write_text(json.dumps(config))
        settings = folder / "config.toml"

        def set_interval(seconds: int) -> None:
            text = f'feed = "{feed}"\ninterval = "{seconds}s"\nlisten = "127.0.0.1:{service_port}"\n'
            settings.write_text(text)

        set_interval(10)
        watch = [PROGRAMS / "collector", "watch", "--config", settings]
        log = (folder / "log").open("w")
        prometheus = [
            "prometheus",
            f"--config.file={folder / 'prometheus.json'}",
            f"--storage.tsdb.path={folder / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{prometheus_port}",
            "--log.level=error",
        ]
        with running(*watch, cwd=folder, stderr=log) as service, running(*prometheus, cwd=folder):
            page, api = f"http://127.0.0.1:{service_port}", f"http://127.0.0.1:{prometheus_port}/api/v1"
            wait_for("ready", lambda: get(f"{page}/ready")[0] == 200, 15)

            checked = subprocess.run(["promtool", "check", "metrics"], input=get(f"{page}/metrics")[1], capture_output=True, text=True)
            assert checked.returncode == 0, checked.stdout + checked.stderr

            def figure(query: str):
                status, text = get(f"{api}/query?query={urllib.parse.quote(query)}")
                result = json.loads(text)["data"]["result"] if status == 200 else []
                return float(result[0]["value"][1]) if result else None

            def firing() -> set[str]:
                status, text = get(f"{api}/alerts")
                alerts = json.loads(text)["data"]["alerts"] if status == 200 else []
                return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}

            wait_for("scraped", lambda: figure('polisen_collector_events_total{kind="new"}') == 500, 60)
            assert "PolisenCollectorStopped" not in firing(), firing()
            feed.rename(folder / "away")
            took = wait_for("the alert fires", lambda: "PolisenCollectorStopped" in firing(), 60)
            assert get(f"{page}/health")[0] == 503
            (folder / "away").rename(feed)
            back = wait_for("the alert ends", lambda: "PolisenCollectorStopped" not in firing(), 120)
            assert get(f"{page}/health")[0] == 200
            print(f"Prometheus: the alert (after {PATIENCE_S} s instead of 45 min) fired {took:.0f} s after runs failed, ended {back:.0f} s after they could succeed")
            for reload in range(RELOADS):
                seconds = 10 + reload % 5
                set_interval(seconds)
                service.send_signal(signal.SIGHUP)
                expected = f"polisen_collector_poll_interval_seconds {seconds}\n"
                wait_for(f"reload {reload}", lambda: expected in get(f"{page}/metrics")[1], 15, 0.01)
            peak_kb = int(re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{service.pid}/status").read_text())[1])
            assert peak_kb < MOST_MEMORY_KB, f"{peak_kb} kB of memory"
            print(f"{RELOADS} reloads, each took effect; {peak_kb / 1000:.1f} MB of memory at most")
            service.send_signal(signal.SIGHUP)
            service.send_signal(signal.SIGTERM)
            assert service.wait(15) == 0
        text = (folder / "log").read_text()
        assert "stopped" in text and "panicked" not in text, text[-2000:]


if __name__ == "__main__":
    main()
