"""What the checks of `collector publish` have in common: a feed, the judge, and tests that a broker of either kind passes.

A broker has `create(limit=None)`, `delete()`, `target(scheme)`, `count()` and `consume()`, which returns headers and value of each
message, `next_arrival(cause)`, which says when a consumer has the first message after a cause, `start()` and `kill()`, its port, and
its name in the examples of docs/publish.md.

PUBLISH_KILLS: how many times the publisher is killed (20); PUBLISH_BROKER_KILLS: and the server (4); PUBLISH_SEED (1);
PUBLISH_COMMITS: for how many commits of the service it is measured how soon a consumer has them (1).
"""

import collections
import contextlib
import datetime
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

COLLECTOR = Path(sys.argv[1]).absolute()
KILLS = int(os.environ.get("PUBLISH_KILLS", "20"))
BROKER_KILLS = int(os.environ.get("PUBLISH_BROKER_KILLS", "4"))
COMMITS = int(os.environ.get("PUBLISH_COMMITS", "1"))
RANDOM = random.Random(int(os.environ.get("PUBLISH_SEED", "1")))
KINDS = {"events": "event", "revisions": "revision", "withdrawn": "withdrawal"}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def command(*arguments):
    return [COLLECTOR, *map(str, arguments)]


def clean(**variables):
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "SSL_CERT_FILE")}
    return kept | variables


def collector(*arguments, code=0, time_file=None, **variables):
    timed = ["/usr/bin/time", "-f", "%M", "-o", time_file] if time_file else []
    ended = subprocess.run([*timed, *command(*arguments)], capture_output=True, text=True, env=clean(**variables), timeout=120)
    assert code is None or ended.returncode == code, (arguments, ended.returncode, ended.stdout[-2000:], ended.stderr[-3000:])
    return ended


def publish(broker, *arguments, to=None, store="data", **options):
    return collector("publish", "--store", store, "--to", to or broker.target(), *arguments, **options)


class Feed:
    """A feed of 100 events, of which each response replaces some, corrects some and loses some."""

    def __init__(self) -> None:
        self.events, self.next_id, self.second = collections.OrderedDict(), 1000, 1767225600

    def response(self, new=40) -> bytes:
        self.second += 1800
        at = datetime.datetime.fromtimestamp(self.second, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S +00:00")
        for _ in range(new):
            self.next_id += 1
            self.events[self.next_id] = {
                "id": self.next_id,
                "datetime": at,
                "name": f"Händelse {self.next_id}",
                "summary": "Ö" * RANDOM.randrange(400),
                "url": f"/aktuellt/{self.next_id}/",
                "type": RANDOM.choice(["Brand", "Trafikolycka", "Stöld"]),
                "location": {"name": "Malmö", "gps": "55.604981,13.003822"},
            }
        while len(self.events) > 100:
            self.events.popitem(last=False)
        for event in RANDOM.sample(list(self.events.values()), 3):
            event["summary"] += " (rättad)"
        if RANDOM.random() < 0.3:
            del self.events[RANDOM.choice(list(self.events)[20:60])]
        newest_first = sorted(self.events.values(), key=lambda event: -event["id"])
        return json.dumps(newest_first, ensure_ascii=False).encode()

    def collect(self, responses: int, new=40, store="data") -> None:
        with tempfile.TemporaryDirectory() as folder:
            for _ in range(responses):
                body = self.response(new)
                Path(folder, f"{self.second}.json").write_bytes(body)
            collector("import", "--store", store, folder)


def expected(store="data") -> collections.Counter:
    """Every line of the archive with its kind."""
    lines = collections.Counter()
    for folder, kind in KINDS.items():
        for path in sorted(Path(store, folder).rglob("*.jsonl")):
            lines.update((kind, line) for line in path.read_bytes().splitlines())
    return lines


def judge(messages, wanted=None, ordered=True) -> None:
    """Each line of the archive once, in the order of the commits, an event before its revisions before its withdrawal."""
    wanted = expected() if wanted is None else wanted
    found = collections.Counter((headers["kind"], value) for headers, value in messages)
    assert found == wanted, (
        f"{(found - wanted).total()} messages too many, {(wanted - found).total()} missing of {wanted.total()}",
        [str(it)[:200] for it in (found - wanted)][:3],
        [str(it)[:200] for it in (wanted - found)][:3],
    )
    places, latest, ranks = [], {}, {}
    for headers, value in messages:
        archive, sequence, rest = headers["ce_id"].split(":")
        number, line, _, _ = rest.split("+")[1].split(".")
        key = int(headers["key"])
        places.append((int(sequence), int(number), int(line)))
        before = latest.get(key, places[-1])
        assert before <= places[-1], f"the messages of event {key} are not in the order of the commits"
        latest[key] = places[-1]
        assert json.loads(value)["id"] == key and headers["ce_subject"] == headers["key"], (headers, value)
        assert headers["ce_source"] == f"/archives/{archive}" and headers["ce_type"] == f"polisen.{headers['kind']}"
        if headers["kind"] == "event":
            assert key not in ranks, f"event {key} follows what is said of it"
        ranks[key] = headers["kind"]
    assert not ordered or places == sorted(places), "not in the order of the commits"


def counts(messages) -> str:
    kinds = collections.Counter(headers["kind"] for headers, _ in messages)
    return ", ".join(f"{kinds[kind]} {kind}s" for kind in KINDS.values())


def test_once(broker) -> None:
    """The whole archive, and nothing the second time."""
    broker.create()
    refused = publish(broker, code=1)
    assert "--from-start" in refused.stderr, refused.stderr
    report = json.loads(publish(broker, "--from-start", "--json").stdout)
    messages = broker.consume()
    judge(messages)
    findings = json.loads(collector("verify", "--store", "data", "--json").stdout)
    assert (report["events"], report["revisions"]) == (findings["events"], findings["revisions"]), (report, findings)
    again = json.loads(publish(broker, "--json").stdout)
    assert (again["events"], again["revisions"], again["withdrawals"]) == (0, 0, 0), again
    queried = collector("query", "--store", "data", "--format", "jsonl").stdout
    ids = {json.loads(line)["id"] for line in queried.splitlines()}
    assert ids == {int(headers["key"]) for headers, _ in messages if headers["kind"] == "event"}
    rate = len(messages) / report["elapsed_s"]
    print(f"once: {counts(messages)}; {rate:.0f} messages/s with a build for debugging")
    broker.delete()


def test_kinds(broker) -> None:
    broker.create()
    publish(broker, "--from-start", "--kinds", "withdrawal,revision")
    judge(broker.consume(), collections.Counter({it: n for it, n in expected().items() if it[0] != "event"}))
    broker.delete()
    print("kinds: only those that were asked for")


def test_kills(broker, feed) -> None:
    """The publisher is killed at any moment, now and then the server, until enough are; between rounds the archive grows."""
    killed, broker_killed, rounds, restarted = 0, 0, 0, 0
    while killed < KILLS or broker_killed < BROKER_KILLS:
        rounds += 1
        broker.create()
        while True:
            process = subprocess.Popen(
                command("publish", "--store", "data", "--to", broker.target(), "--from-start"),
                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=clean(),
            )  # fmt: skip
            wait = RANDOM.uniform(0.005, 0.12)
            is_broker = broker_killed < BROKER_KILLS and RANDOM.random() < 0.15
            if is_broker:
                ends_within(process, wait)
                broker.kill()
                broker_killed += 1
                ends_within(process, RANDOM.uniform(0, 0.3))
                broker.start()
            elif killed < KILLS:
                ends_within(process, wait)
                process.kill()
            _, errors = process.communicate(timeout=60)
            killed += process.returncode == -signal.SIGKILL
            restarted += 1
            if process.returncode == 0:
                if is_broker:
                    continue  # A server that ends may lose what it has acknowledged; the next publisher notices.
                break
            # Killed, or what an earlier process had under way arrived during each attempt: start again.
            assert process.returncode == -signal.SIGKILL or b"another publisher" in errors, errors.decode()
        judge(broker.consume())
        broker.delete()
        feed.collect(1)
    print(f"kills: {killed} of the publisher, {broker_killed} of the server, {restarted} starts, {rounds} times the archive")


def ends_within(process, seconds: float) -> None:
    """Lets a process run until it ends, or for a time: the random moment of a fault."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)


def wait_for(condition, seconds=30) -> None:
    """Asks again and again for the state of another process; how fast the machine is does not matter."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it does not come to that"
        time.sleep(0.02)


def follow(broker, errors):
    return subprocess.Popen(
        command("publish", "--store", "data", "--to", broker.target(), "--from-start", "--follow"),
        stdout=subprocess.DEVNULL, stderr=errors, env=clean(),
    )  # fmt: skip


def test_fencing(broker, feed) -> None:
    """Of two publishers one is fenced and says so."""
    broker.create()
    with open("one.log", "wb") as one, open("two.log", "wb") as two:
        publishers = [follow(broker, one), follow(broker, two)]
        deadline = time.monotonic() + 30
        while all(process.poll() is None for process in publishers):
            assert time.monotonic() < deadline, "both continue"
            feed.collect(1, 5)
        ended = [index for index, process in enumerate(publishers) if process.poll() is not None]
        assert len(ended) == 1, "both ended"
        text = Path(["one.log", "two.log"][ended[0]]).read_text()
        assert "another publisher writes to" in text and "hint: one publisher" in text, text
        wait_for(lambda: broker.count() == expected().total())
        publishers[1 - ended[0]].terminate()
        assert publishers[1 - ended[0]].wait(10) == 0
    judge(broker.consume())
    broker.delete()
    print("fencing: one publisher ended, the other one continued")


def test_outage(broker, feed) -> None:
    """The server is away for a while; the publisher falls behind and catches up."""
    broker.create()
    with open("outage.log", "wb") as log:
        process = follow(broker, log)
        wait_for(lambda: broker.count() == expected().total())
        broker.kill()
        feed.collect(2)
        wait_for(lambda: "publishing failed" in Path("outage.log").read_text())
        assert process.poll() is None
        broker.start()
        wait_for(lambda: broker.count() == expected().total())
        process.terminate()
        assert process.wait(10) == 0
    judge(broker.consume())
    broker.delete()
    print("outage: caught up")


def test_too_large(broker, feed) -> None:
    """A message that the server does not take is named; the rest is published."""
    feed.next_id += 1
    feed.events[feed.next_id] = {
        "id": feed.next_id, "datetime": "2026-02-01 10:00:00 +01:00", "name": "lång", "summary": "x" * 20_000, "type": "Brand",
    }  # fmt: skip
    large = feed.next_id
    feed.collect(1)
    broker.create(limit=16_384)
    report = json.loads(publish(broker, "--from-start", "--json", code=1).stdout)
    skipped = report["skipped"]
    assert {it["id"] for it in skipped} == {large} and report["skipped_total"] == len(skipped), report
    judge(broker.consume(), collections.Counter({it: n for it, n in expected().items() if len(it[1]) < 15_000}))
    broker.delete()
    print(f"too large: {len(skipped)} named, the rest published")


def test_watch(broker, feed) -> None:
    """The service publishes each commit at once; without a server it collects as well as ever."""
    broker.create()
    port, body = free_port(), Path("feed.json")
    body.write_bytes(feed.response(5))
    Path("watch.toml").write_text(
        f'feed = "feed.json"\nstore = "data"\ninterval = "10s"\njitter = "0s"\nlisten = "127.0.0.1:{port}"\n'
        f'publish_to = "{broker.target()}"\npublish_from = "start"\n'
    )

    def metrics() -> dict:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as page:
            lines = [line.rsplit(" ", 1) for line in page.read().decode().splitlines() if line[:1] != "#"]
        return {name.removeprefix("polisen_collector_"): float(value) for name, value in lines}

    with open("watch.log", "wb") as log:
        process = subprocess.Popen(command("watch", "--config", "watch.toml"), stdout=log, stderr=log, env=clean())
        wait_for(lambda: broker.count() > 0 and broker.count() == expected().total())
        wait_for(lambda: metrics().get("publishing_healthy") == 1)
        waits_s = []
        for _ in range(COMMITS):
            before = broker.count()
            arrived = broker.next_arrival(lambda: body.write_bytes(feed.response(5)))
            waits_s.append(arrived - Path("data/metadata/last_seen.json").stat().st_mtime)
            wait_for(lambda: broker.count() > before and broker.count() == expected().total())
        wait_for(lambda: metrics()["publishing_lag_messages"] == 0)
        examined = collector("doctor", "--config", "watch.toml", "--offline").stdout
        assert "holds messages up to" in examined and "one replica" in examined, examined
        published = broker.count()
        broker.kill()
        body.write_bytes(feed.response(5))
        wait_for(lambda: metrics()["publishing_healthy"] == 0)
        state = metrics()
        assert state["healthy"] == 1 and state["consecutive_failures"] == 0, state
        assert state["publishing_lag_messages"] == expected().total() - published > 0, (state, published)
        examined = collector("doctor", "--config", "watch.toml", "--offline", code=1).stdout
        assert "cannot connect" in examined, examined
        process.terminate()
        assert process.wait(20) == 0, Path("watch.log").read_text()
    broker.start()
    publish(broker)
    judge(broker.consume())
    broker.delete()
    longest_ms = [f"{1000 * wait_s:.0f}" for wait_s in sorted(waits_s)[-3:]]
    print(f"service: each commit published; collecting is healthy while the server is away; a consumer has the first message of "
          f"{COMMITS} commits after at most {', '.join(longest_ms)} ms")  # fmt: skip


def test_replica(broker, feed) -> None:
    """With a replica only what it holds is published. The archive is lost, the replica collects the rest again: each line once."""
    broker.create()
    shutil.copytree("data", "primary")
    collector("mirror", "--store", "primary", "--to", "replica")
    held = expected("replica")
    feed.collect(1, store="primary")
    Path("replica.toml").write_text('mirror_to = "replica"\n')
    publish(broker, "--from-start", "--config", "replica.toml", store="primary")
    judge(broker.consume(), held)
    shutil.rmtree("primary")
    collector("adopt", "--store", "replica")
    feed.collect(1, store="replica")
    publish(broker, store="replica")
    judge(broker.consume(), expected("replica"))
    assert expected("replica").total() > held.total()
    print(f"replica: {held.total()} messages before a fail-over, {expected('replica').total()} after it, each once")
    shutil.rmtree("replica")
    broker.delete()


def test_examples(broker, example: Path) -> None:
    """The consumers of docs/publish.md, in Python and Rust."""
    page = Path(__file__).resolve().parent.parent.parent / "docs/publish.md"
    blocks = re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)
    [block] = [block for block in blocks if broker.CLIENT in block]
    server = f"127.0.0.1:{broker.port}"
    broker.create()
    block = block.replace(broker.USUAL, server).replace('"Stockholm"', '"Malmö"').replace("polisen.events", broker.name)
    publish(broker, "--from-start")
    printed = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True, check=True).stdout
    events = [json.loads(line) for (kind, line), _ in expected().items() if kind != "withdrawal"]
    wanted = sum(event["type"] == "Brand" and "location" in event for event in events)
    assert len(printed.splitlines()) == wanted, (wanted, len(printed.splitlines()))
    found = subprocess.run(
        [example, "Brand", "Malmö", server, broker.name], capture_output=True, text=True, check=True
    ).stdout
    assert len(found.splitlines()) == wanted, (wanted, len(found.splitlines()))
    broker.delete()
    print(f"examples: {wanted} alerts in Python and in Rust")


def refused(broker, text, *arguments, to=None, code=1, **options) -> str:
    """It fails with one error, which has this text, and does not show a secret."""
    ended = publish(broker, *arguments, to=to, code=code, **options)
    assert text in ended.stderr, (text, ended.stderr)
    assert len([line for line in ended.stderr.splitlines() if line.startswith("error:")]) == 1, ended.stderr
    assert WRONG not in ended.stdout + ended.stderr
    return ended.stderr


WRONG = "Swordfish-7c1"


def test_cursors(broker) -> None:
    """Cursors of another archive, of the future, or of another history."""
    refused(broker, "the cursor is of archive", "--from", f"{'0' * 16}:1:{'1' * 16}")
    archive = json.loads(collector("changes", "--store", "data", "--json", "--limit", 1).stdout)["cursor"].split(":")[0]
    refused(broker, "beyond the last one", "--from", f"{archive}:999999:{'1' * 16}")
    refused(broker, "not part of this archive's history", "--from", f"{archive}:2:{'1' * 16}")
    refused(broker, "not a cursor", "--from", "nonsense", code=2)
    refused(broker, "scheme is not supported", to="http://h/x", code=2)
    refused(broker, "there is no archive", "--from-start", store="nowhere")
    assert broker.count() == 0


def test_other_server(scheme: str) -> None:
    """A server of another kind."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                    connection.close()

        threading.Thread(target=serve, daemon=True).start()
        refused(None, "cannot connect", "--from-start", to=f"{scheme}://127.0.0.1:{port}/x")


def openssl(*arguments, **options) -> bytes:
    return subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, **options).stdout


def certificates(folder: Path) -> tuple[Path, Path, Path, Path]:
    """An authority, another one, and the certificate and key of a server on this machine, of the first."""

    def authority(name):
        key, certificate = folder / f"{name}.key", folder / f"{name}.pem"
        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", 2, "-subj", f"/CN={name}", "-keyout", key,
                "-out", certificate)  # fmt: skip
        return certificate

    own, other = authority("own"), authority("other")
    key, request, certificate = folder / "server.key", folder / "server.csr", folder / "server.pem"
    (folder / "extensions").write_text("subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
    openssl("req", "-new", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=server", "-keyout", key, "-out", request)
    openssl("x509", "-req", "-in", request, "-CA", own, "-CAkey", folder / "own.key", "-CAcreateserial", "-days", 2,
            "-extfile", folder / "extensions", "-out", certificate)  # fmt: skip
    return own, other, certificate, key
