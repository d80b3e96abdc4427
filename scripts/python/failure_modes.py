#!/usr/bin/env python3
"""Makes each failure that the documents analyse happen, and writes what the collector does into docs/operate.md.

    failure_modes.py PROGRAMS            print the table
    failure_modes.py PROGRAMS --check    fail if docs/operate.md shows another one
    failure_modes.py PROGRAMS --update   write it there

Each failure happens to a collector that has an archive and has polled before. Afterwards the failure ends, and the collector polls
once more: what is lost is what the feed has shown and the archive does not hold then.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent.parent
PROGRAMS = Path(sys.argv[1]).resolve()
PAGE = ROOT / "docs" / "operate.md"
BEGIN, END = "<!-- failures: written by scripts/python/failure_modes.py -->\n", "<!-- end of failures -->\n"
GOOD = (ROOT / "fixtures/data/response.json").read_bytes()
NEXT = (ROOT / "fixtures/data/response-next.json").read_bytes()


def reply(status: str, body: bytes = b"", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


class Feed:
    """Answers calls on loopback one after the other, the last answer for ever; `None` is silence, b"" a closed connection."""

    def __init__(self, *answers):
        self.answers, self.calls = list(answers), 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.called = threading.Event()
        threading.Thread(target=self.serve, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.listener.getsockname()[1]}/api/events"

    def serve(self) -> None:
        held = []
        while True:
            connection, _ = self.listener.accept()
            while b"\r\n\r\n" not in connection.recv(65536):
                pass
            self.calls += 1
            self.called.set()
            answer = self.answers[min(self.calls, len(self.answers)) - 1]
            if answer is None:
                held.append(connection)
                continue
            connection.sendall(answer)
            connection.close()


class Home:
    """A collector that has polled once."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "LC_ALL": "C.UTF-8"}
        assert self.run("--feed", Feed(reply("200 OK", GOOD)).url).returncode == 0

    def command(self, *arguments: str, timeout: str = "1s") -> list:
        quick = ["--timeout", timeout, "--retry-backoff", "10ms", "--log-level", "error"]
        return [PROGRAMS / "collector", "run", *quick, *arguments]

    def run(self, *arguments: str, prefix=(), **more) -> subprocess.CompletedProcess:
        more = {"capture_output": True, **more}
        return subprocess.run([*prefix, *self.command(*arguments)], cwd=self.folder, env=self.environment, text=True, **more)

    def health(self) -> str:
        """The reason of an unhealthy state, or none."""
        done = subprocess.run([PROGRAMS / "collector", "health"], cwd=self.folder, env=self.environment, capture_output=True, text=True)
        errors = [line.removeprefix("ERROR: ") for line in done.stdout.splitlines() if line.startswith("ERROR: ")]
        return errors[-1] if done.returncode else ""

    def lost(self, *arguments: str) -> int:
        """Polls once more, and counts the events of the feed that the archive does not hold."""
        done = self.run("--feed", Feed(reply("200 OK", NEXT)).url, *arguments)
        assert done.returncode == 0, done.stderr
        self.ask("verify", *arguments)
        stored = [json.loads(line)["id"] for line in self.ask("query", "--format", "jsonl", *arguments).splitlines()]
        assert len(stored) == len(set(stored)), "an event stands in the archive twice"
        return len({event["id"] for event in json.loads(NEXT)} - set(stored))

    def ask(self, *arguments: str) -> str:
        done = subprocess.run([PROGRAMS / "collector", *arguments], cwd=self.folder, env=self.environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout


class Failure(NamedTuple):
    name: str
    done: str
    lost: int
    noticed: str


def error_of(done: subprocess.CompletedProcess) -> str:
    lines = [line.removeprefix("error: ") for line in done.stderr.splitlines() if line.startswith("error: ")]
    return lines[0] if lines else ""


def ended(done: subprocess.CompletedProcess, calls: int | None = None) -> str:
    """What a run did, in one sentence."""
    made = "" if calls is None else f" after {calls} call{'s' if calls > 1 else ''}"
    if done.returncode == 0:
        return f"the run succeeds{made}"
    return f"the run fails{made}: `{shortened(error_of(done))}`"


def shortened(text: str) -> str:
    text = re.sub(r"127\.0\.0\.1:\d+", "HOST", text)
    text = re.sub(r"oci://\S+/b\b\S*?(?=[: ]|$)", "the bucket", text)
    text = re.sub(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d\S*", "TIME", text)
    text = re.sub(r" \(request [^)]*\)", "", text)
    text = text.replace("`", "'")
    return text if len(text) <= 160 else f"{text[:157]}…"


def of_feed(name: str, *answers) -> Failure:
    with tempfile.TemporaryDirectory() as folder:
        home, feed = Home(Path(folder)), Feed(*answers)
        done = home.run("--feed", feed.url)
        return failure(name, home, ended(done, feed.calls))


def failure(name: str, home: Home, done: str) -> Failure:
    health = home.health()
    # A run that succeeds in the end is healthy.
    noticed = named(health, done) if health else "the log (`WARN`), and `http.attempts` in the record"
    return Failure(name, done, home.lost(), noticed)


def named(health: str, done: str) -> str:
    """Where the health check repeats the error of the run, it is not written twice."""
    shown = shortened(health)
    return "`collector health` names the error" if shown in done else f"`collector health`: `{shown}`"


def of_store(name: str, disturb, prefix=()) -> Failure:
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder))
        arguments, repair = disturb(home)
        done = home.run("--feed", Feed(reply("200 OK", NEXT)).url, *arguments, prefix=prefix)
        text = ended(done)
        health = home.health()
        end = repair()
        lost = home.lost(*arguments)
        if end:
            end.kill()
            end.wait()
        return Failure(name, text, lost, named(health, text))


def wrong_key(home: Home):
    process, config = serve_bucket(home)
    text = config.read_text()
    config.write_text(re.sub(r"fingerprint *=.*", "fingerprint=" + ":".join(["00"] * 16), text))

    def repair() -> subprocess.Popen:
        config.write_text(text)
        return process

    return home.bucket, repair


def unavailable(home: Home):
    process, _ = serve_bucket(home)
    port = home.bucket[-1].rpartition(":")[2].strip("/")
    process.kill()
    process.wait()
    return home.bucket, lambda: serve_bucket(home, "--port", port)[0]


def serve_bucket(home: Home, *options: str) -> tuple:
    command = [PROGRAMS / "loadtest", "serve-oci", "--dir", home.folder / "oci", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    addresses = json.loads(process.stdout.readline())
    home.bucket = ["--store", "oci://simulated/events/b", "--endpoint", addresses["endpoint"]]
    home.environment |= {"OCI_CONFIG_FILE": addresses["config_file"]}
    return process, Path(addresses["config_file"])


def corrupt(home: Home):
    ledger = home.folder / "data/metadata/last_seen.json"
    ledger.write_bytes(ledger.read_bytes()[:200])

    def repair() -> None:
        command = [PROGRAMS / "collector", "repair"]
        subprocess.run(command, cwd=home.folder, env=home.environment, check=True, capture_output=True)

    return [], repair


def full_log() -> Failure:
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder))
        with open("/dev/full", "w") as full:
            done = home.run("--feed", Feed(reply("200 OK", NEXT)).url, capture_output=False, stdout=subprocess.PIPE, stderr=full)
        text = "the run succeeds; its log is lost" if done.returncode == 0 else f"the run ends with {done.returncode}"
        return Failure("Disk full (logs)", text, home.lost(), "the log is empty; a monitor of the disk")


def full_disk() -> Failure:
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder))
        script = 'mount -t tmpfs -o size=64k none "$1" && cp -r data/. "$1" 2>/dev/null; shift; exec "$@"'
        (home.folder / "small").mkdir()
        own = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
        done = home.run("--feed", Feed(reply("200 OK", NEXT)).url, "--store", "small", prefix=[*own, "sh", "-c", script, "sh", "small"])
        error = "No space left on device" if "space" in error_of(done) else error_of(done)
        health = home.health()
        noticed = "`collector health` names the error" if health else "the log"
        return Failure("Disk full (archive)", f"the run fails: `{error}`", home.lost(), noticed)


def out_of_memory() -> Failure:
    """The kernel kills the process while it waits for the response."""
    with tempfile.TemporaryDirectory() as folder:
        home, feed = Home(Path(folder)), Feed(None)
        process = subprocess.Popen(home.command("--feed", feed.url, timeout="60s"), cwd=home.folder, env=home.environment)
        feed.called.wait()
        process.send_signal(signal.SIGKILL)
        code = process.wait()
        records = len(list((home.folder / "metrics").glob("*.json")))
        assert (code, records) == (-9, 1)
        noticed = "the service manager reports the signal; after 45 min `collector health` fails, because the last run is too old"
        return Failure("Memory exhaustion", "the run is killed and leaves no record; the next one finishes what it claimed", home.lost(), noticed)


def bomb() -> Failure:
    return of_feed("Memory exhaustion by a response", reply("200 OK", b" " * (65 << 20)))


def failures() -> list[Failure]:
    return [
        of_feed("API timeout", None),
        of_feed("API rate limit exceeded", reply("429 Too Many Requests")),
        of_feed("API rate limit, come back later", reply("429 Too Many Requests", b"", "Retry-After: 86400")),
        of_feed("Network transient failure", b"", reply("503 Service Unavailable"), reply("200 OK", NEXT)),
        of_store("OCI auth failure", wrong_key),
        of_store("OCI storage unavailable", unavailable),
        of_store("Metadata corruption", corrupt),
        full_log(),
        full_disk(),
        out_of_memory(),
        bomb(),
    ]


def table() -> str:
    rows = ["| Failure | What the program does | Lost | How it is noticed |", "|---|---|---|---|"]
    for it in failures():
        lost = "nothing" if it.lost == 0 else f"{it.lost} events"
        rows.append(f"| {it.name} | {it.done} | {lost} | {it.noticed} |".replace(" |  |", " | – |"))
    return "\n".join(rows) + "\n"


def main() -> None:
    made = table()
    page = PAGE.read_text()
    before, rest = page.split(BEGIN)
    shown, after = rest.split(END)
    if "--update" in sys.argv:
        PAGE.write_text(f"{before}{BEGIN}{made}{END}{after}")
    elif "--check" in sys.argv:
        if shown != made:
            sys.exit(f"docs/operate.md shows another table; `failure_modes.py PROGRAMS --update` writes it:\n{made}")
        print(f"{made.count(chr(10)) - 2} failures happened as docs/operate.md describes them")
    else:
        print(made, end="")


if __name__ == "__main__":
    main()
