"""Publishes an archive to a server of NATS JetStream, and judges with another client what arrived.

    publish.py COLLECTOR NATS_SERVER EXAMPLE
    publish.py --create SUBJECT HOST:PORT    only creates a stream
"""

import asyncio
import atexit
import base64
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nats
from nats.js.api import StorageType, StreamConfig
from publishing import (
    WRONG, Feed, certificates, clean, collector, command, expected, free_port, judge, publish, refused, test_cursors,
    test_examples, test_fencing, test_kills, test_kinds, test_once, test_other_server, test_outage, test_replica,
    test_too_large, test_watch, wait_for,
)  # fmt: skip

SERVER = Path(sys.argv[2]).absolute()
SUBJECT = "polisen.events"


class Broker:
    """A server on a port of its own; what it stores outlives it."""

    CLIENT, USUAL, name = "nats", "127.0.0.1:4222", SUBJECT

    def __init__(self, folder: Path, *options: str) -> None:
        self.port, self.folder, self.options = free_port(), folder, options
        self.process = None
        self.start()

    def start(self) -> None:
        command = [SERVER, "--addr", "127.0.0.1", "--port", str(self.port), "--jetstream", "--store_dir", self.folder]
        self.log = Path(f"{self.folder}.log")
        self.process = subprocess.Popen([*command, "--log", self.log, *self.options], stdout=subprocess.DEVNULL)
        atexit.register(self.process.kill)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                if connection.recv(4) == b"INFO":
                    return
            time.sleep(0.02)
        raise AssertionError(f"the server does not start: {self.log.read_text()}")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def target(self, scheme="nats", subject=SUBJECT) -> str:
        return f"{scheme}://127.0.0.1:{self.port}/{subject}"

    def ask(self, work, **options):
        """Runs work with a connection to JetStream."""

        async def asked():
            client = await nats.connect(f"127.0.0.1:{self.port}", allow_reconnect=False, **options)
            try:
                return await work(client.jetstream(timeout=20))
            finally:
                await client.close()

        return asyncio.run(asked())

    def create(self, name="EVENTS", subjects=(SUBJECT,), window_s=0.5, limit=None, **options) -> None:
        config = StreamConfig(
            name=name, subjects=list(subjects), storage=StorageType.FILE, duplicate_window=window_s, max_msg_size=limit,
            **options,
        )  # fmt: skip
        self.ask(lambda stream: stream.add_stream(config))

    def delete(self, name="EVENTS") -> None:
        self.ask(lambda stream: stream.delete_stream(name))

    def purge(self, name="EVENTS") -> None:
        self.ask(lambda stream: stream.purge_stream(name))

    def count(self, name="EVENTS") -> int:
        return self.ask(lambda stream: stream.stream_info(name)).state.messages

    def consume(self, name="EVENTS") -> list:
        """Every message in its order, as a consumer of its own reads it: headers and value."""

        async def read(stream):
            info = await stream.stream_info(name)
            found, wanted = [], info.state.messages
            if not wanted:
                return found
            subscription = await stream.subscribe(info.config.subjects[0], stream=name, ordered_consumer=True)
            while len(found) < wanted:
                message = await subscription.next_msg(timeout=20)
                found.append((message.headers, message.data))
            return found

        return self.ask(read)

    def next_arrival(self, cause) -> float:
        async def arrived() -> float:
            client = await nats.connect(f"127.0.0.1:{self.port}", allow_reconnect=False)
            messages = await client.subscribe(SUBJECT)
            await client.flush()
            cause()
            await messages.next_msg(timeout=30)
            at = time.time()
            await client.close()
            return at

        return asyncio.run(arrived())


def test_window(broker, feed) -> None:
    """A restart after the server's window of duplicates is over."""
    broker.create(window_s=0.1)
    process = subprocess.Popen(
        command("publish", "--store", "data", "--to", broker.target(), "--from-start"),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=clean(),
    )  # fmt: skip
    wait_for(lambda: broker.count() > 0)
    process.kill()
    process.wait()
    part = broker.count()
    time.sleep(0.5)
    publish(broker, "--from-start")
    judge(broker.consume())
    broker.delete()
    print(f"window: continued after {part} messages, when their ids were forgotten")


def test_purge(broker, feed) -> None:
    """Where the last message is gone, it is refused to guess; what the server remembers is not repeated."""
    broker.create(window_s=60)
    publish(broker, "--from-start")
    cursor = json.loads(collector("changes", "--store", "data", "--json", "--limit", 10**6).stdout)["cursor"]
    broker.purge()
    for arguments in ([], ["--from-start"]):
        assert "--from CURSOR" in refused(broker, "the last one is gone", *arguments)
    first = cursor.split(":")[0] + ":0:"
    assert "duplicate window" in refused(broker, "before", "--from", first)
    assert broker.count() == 0
    before = expected()
    feed.collect(1)
    publish(broker, "--from", cursor)
    judge(broker.consume(), expected() - before)
    broker.delete()
    print("purge: refused, then continued after a cursor")


def test_bad_input(broker, feed) -> None:
    refused(broker, "no stream of", "--from-start")
    broker.create(subjects=(SUBJECT, "other"))
    refused(broker, "the publisher's own", "--from-start")
    broker.delete()
    broker.create(retention="workqueue")
    refused(broker, "the publisher's own", "--from-start")
    broker.delete()
    broker.create()
    test_cursors(broker)
    refused(broker, "do not belong in the address", to=f"nats://user:{WRONG}@h/x", code=2)
    broker.ask(lambda stream: stream.publish(SUBJECT, b"from another program"))
    refused(broker, "was not written by `collector publish`")
    broker.delete()
    test_other_server("nats")
    print("bad input: each refused, nothing published")


def nkey() -> tuple[str, str]:
    """A seed and its public key, as NATS writes them."""
    private = subprocess.run(
        ["openssl", "genpkey", "-algorithm", "ed25519", "-outform", "DER"], check=True, capture_output=True
    ).stdout
    public = subprocess.run(
        ["openssl", "pkey", "-inform", "DER", "-pubout", "-outform", "DER"], input=private, check=True, capture_output=True
    ).stdout

    def encode(data: bytes) -> str:
        crc = 0
        for byte in data:
            crc ^= byte << 8
            for _ in range(8):
                crc = (crc << 1 ^ 0x1021 if crc & 0x8000 else crc << 1) & 0xFFFF
        return base64.b32encode(data + crc.to_bytes(2, "little")).decode().rstrip("=")

    seed, user = 18 << 3, 20 << 3
    return encode(bytes([seed | user >> 5, (user & 31) << 3]) + private[-32:]), encode(bytes([user]) + public[-32:])


def secured(folder: Path, name: str, config: str) -> Broker:
    path = folder / f"{name}.conf"
    path.write_text(config)
    return Broker(folder / name, "--config", str(path))


def test_credentials(folder: Path) -> None:
    token = secured(folder, "token", 'authorization { token: "correct-horse" }')
    token.ask(lambda stream: stream.add_stream(StreamConfig(name="EVENTS", subjects=[SUBJECT])), token="correct-horse")
    for variables in ({}, {"NATS_TOKEN": WRONG}):
        refused(token, "authorization violation", "--from-start", **variables)
    Path("secret").write_text("correct-horse\n")
    Path("secret").chmod(0o600)
    publish(token, "--from-start", "--publish-secret-file", "secret")
    publish(token, "--from-start", NATS_TOKEN="correct-horse")
    token.kill()

    seed, public = nkey()
    allowed = '["$JS.API.STREAM.NAMES", "$JS.API.STREAM.INFO.EVENTS", "$JS.API.STREAM.MSG.GET.EVENTS", "polisen.events"]'
    users = secured(folder, "users", f"""authorization {{ users: [
        {{ user: admin, password: admin }},
        {{ user: reader, password: reader, permissions: {{ publish: ["$JS.API.>"], subscribe: ["_INBOX.>"] }} }},
        {{ nkey: {public}, permissions: {{ publish: {allowed}, subscribe: ["_INBOX.>"] }} }} ] }}""")
    users.ask(
        lambda stream: stream.add_stream(StreamConfig(name="EVENTS", subjects=[SUBJECT])), user="admin", password="admin"
    )
    refused(users, "Permissions Violation", "--from-start", "--publish-user", "reader", NATS_PASSWORD="reader")
    Path("seed").write_text(seed)
    Path("seed").chmod(0o600)
    publish(users, "--from-start", "--publish-credentials", "seed")
    users.kill()
    print("credentials: token, password and nkey; the least permissions are enough; secrets are not shown")


def test_tls(folder: Path) -> None:
    own, other, certificate, key = certificates(folder)
    broker = secured(folder, "tls", f"tls {{ cert_file: '{certificate}', key_file: '{key}' }}")
    target = broker.target("tls")
    refused(broker, "certificate", "--from-start", to=target, SSL_CERT_FILE=str(other))
    refused(broker, "no stream of", "--from-start", to=target, SSL_CERT_FILE=str(own))
    broker.kill()
    plain = Broker(folder / "plain")
    refused(plain, "a certificate that is trusted", "--from-start", to=plain.target("tls"))
    plain.kill()
    print("TLS: verified; neither a foreign certificate nor a connection without encryption is accepted")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        example = Path(sys.argv[3]).absolute()
        os.chdir(folder)
        feed = Feed()
        feed.collect(60)
        broker = Broker(Path(folder, "jetstream"))
        try:
            for test in (test_once, test_kinds):
                test(broker)
            test_examples(broker, example)
            for test in (
                test_watch, test_replica, test_kills, test_window, test_fencing, test_outage, test_purge, test_bad_input,
                test_too_large,
            ):  # fmt: skip
                test(broker, feed)
        finally:
            broker.kill()
        test_credentials(Path(folder))
        test_tls(Path(folder))


async def create(subject: str, server: str) -> None:
    client = await nats.connect(server, connect_timeout=10)
    await client.jetstream().add_stream(StreamConfig(name="EVENTS", subjects=[subject]))
    await client.close()


if sys.argv[1] == "--create":
    asyncio.run(create(*sys.argv[2:]))
else:
    begun = time.monotonic()
    main()
    print(f"{time.monotonic() - begun:.0f} s")
