"""Publishes an archive to a server of Kafka's protocol, and judges with another client (librdkafka) what was committed.

    publish_kafka.py COLLECTOR KAFKA_SERVER EXAMPLE
    publish_kafka.py COLLECTOR KAFKA_SERVER --rate    only measures how fast an archive of four years is published
    publish_kafka.py --create TOPIC HOST:PORT    only creates a topic
"""

import atexit
import base64
import collections
import contextlib
import hashlib
import hmac
import json
import os
import secrets
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from publishing import (
    WRONG, Feed, certificates, collector, expected, free_port, judge, publish, refused, test_cursors, test_examples,
    test_fencing, test_kills, test_kinds, test_once, test_other_server, test_outage, test_replica, test_too_large,
    test_watch, wait_for,
)  # fmt: skip

SERVER = Path(sys.argv[2]).absolute()


def create_topic(server: str, name: str, partitions=1, **settings) -> None:
    topic = NewTopic(name, partitions, 1, config={name.replace("_", "."): value for name, value in settings.items()})
    client = AdminClient({"bootstrap.servers": server})
    [created] = client.create_topics([topic]).values()
    created.result(20)


class Broker:
    """A server on a port of its own; what it stores outlives it. Each topic has a name of its own."""

    CLIENT, USUAL = "confluent_kafka", "127.0.0.1:9092"

    def __init__(self, folder: Path, host="127.0.0.1") -> None:
        self.port, self.folder, self.host = free_port(), folder, host
        self.name, self.topics = "", 0
        self.start()

    def start(self) -> None:
        arguments = ["--data-dir", self.folder, "--host", self.host, "--only", "kafka", "--kafka-port", str(self.port)]
        with open(f"{self.folder}.log", "ab") as log:
            self.process = subprocess.Popen([SERVER, "start", *arguments], stdout=log, stderr=log)
        atexit.register(self.process.kill)

        def answers() -> bool:
            with contextlib.suppress(OSError), socket.create_connection((self.host, self.port), 1):
                return True
            return False

        wait_for(answers)

    def kill(self) -> None:
        """Ends it at once. It is not killed: it writes to disk once a second, so that acknowledged messages would be lost."""
        self.process.terminate()
        self.process.wait()

    @property
    def server(self) -> str:
        return f"{self.host}:{self.port}"

    def target(self, scheme="kafka", topic=None) -> str:
        return f"{scheme}://127.0.0.1:{self.port}/{topic or self.name}"

    def create(self, partitions=1, limit=None, **settings) -> None:
        self.topics += 1
        self.name, self.partitions = f"events-{self.topics}", partitions
        settings |= {"max_message_bytes": str(limit)} if limit else {}
        create_topic(self.server, self.name, partitions, **settings)

    def delete(self) -> None:
        client = AdminClient({"bootstrap.servers": self.server})
        [deleted] = client.delete_topics([self.name]).values()
        deleted.result(20)

    def consumer(self, **options) -> Consumer:
        """A consumer of what is committed, from the first message on, which it gets in one piece.

        This server lists in each answer also transactions that were aborted before it, so that clients would take the
        messages of later ones for aborted. Kafka does not.
        """
        consumer = Consumer({
            "bootstrap.servers": self.server, "group.id": "judge", "isolation.level": "read_committed",
            "enable.auto.commit": False, "enable.partition.eof": True, "reconnect.backoff.max.ms": 200,
            "topic.metadata.refresh.interval.ms": 1000, "log_level": 0, "fetch.max.bytes": 200_000_000,
            "max.partition.fetch.bytes": 200_000_000, "receive.message.max.bytes": 201_000_000, **options,
        })  # fmt: skip
        consumer.assign([TopicPartition(self.name, partition, 0) for partition in range(self.partitions)])
        return consumer

    def count(self) -> int:
        """The number of messages; none while the server is away."""
        with contextlib.suppress(AssertionError):
            return len(self.consume(wait_s=2))
        return 0

    def consume(self, wait_s=30, **options) -> list:
        """Every message, as a consumer of its own reads it: headers and value."""
        consumer = self.consumer(**options)
        found = self.read_to_end(consumer, wait_s)
        consumer.close()
        return found

    def read_to_end(self, consumer: Consumer, wait_s=30) -> list:
        found, open_partitions = [], set(range(self.partitions))
        while open_partitions:
            message = consumer.poll(wait_s)
            assert message is not None, "the consumer does not come to the end"
            if message.error() is None:
                headers = {name: value.decode() for name, value in message.headers()}
                assert message.key().decode() == headers["key"], headers
                found.append((headers, message.value()))
            elif message.error().code() == KafkaError._PARTITION_EOF:
                open_partitions.discard(message.partition())
        return found

    def next_arrival(self, cause) -> float:
        consumer = self.consumer()
        self.read_to_end(consumer)
        cause()
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            message = consumer.poll(1)
            if message is not None and message.error() is None:
                at = time.time()
                consumer.close()
                return at
        raise AssertionError("no message arrives")

    def producer(self, **options) -> Producer:
        return Producer({"bootstrap.servers": self.server, "log_level": 0, **options})


def test_partitions(broker, feed) -> None:
    """With several partitions the messages of an event keep their order."""
    broker.create(partitions=3)
    for _ in range(3):
        publish(broker, "--from-start")
        feed.collect(1)
    publish(broker)
    messages = broker.consume()
    judge(messages, ordered=False)
    broker.delete()
    print(f"partitions: {len(messages)} messages in three partitions")


def test_aborted(broker, feed) -> None:
    """What another producer with this id began is aborted; its messages are not the last ones, and it is fenced."""
    broker.create()
    publish(broker, "--from-start")
    other = broker.producer(**{"transactional.id": f"polisen-events-collector.{broker.name}"})
    other.init_transactions(20)
    other.begin_transaction()
    for _ in range(100):
        other.produce(broker.name, b"never committed")
    other.flush(20)
    feed.collect(1)
    examined = collector("doctor", "--store", "data", "--publish-to", broker.target(), "--offline", code=None).stdout
    assert "holds messages up to" in examined, examined
    other.produce(broker.name, b"the examination has fenced no process")
    assert other.flush(20) == 0
    publish(broker)
    with contextlib.suppress(Exception):
        other.commit_transaction(20)
        raise AssertionError("it was not fenced")
    judge(broker.consume())
    broker.delete()
    print("aborted: 101 messages of another producer were not committed, and it was fenced")


def test_open_transaction(broker, feed) -> None:
    """While a program with another id has a transaction open, it is unknown what is last."""
    broker.create()
    publish(broker, "--from-start")
    other = broker.producer(**{"transactional.id": "another-program"})
    other.init_transactions(20)
    other.begin_transaction()
    other.produce(broker.name, b"never committed")
    other.flush(20)
    feed.collect(1)
    refused(broker, "a transaction of another program is open")
    other.abort_transaction(20)
    publish(broker)
    judge(broker.consume())
    broker.delete()
    print("open transaction: refused until it was over")


def test_purge(broker, feed) -> None:
    """Where the last message is gone, it is refused to guess."""
    broker.create()
    publish(broker, "--from-start")
    cursor = json.loads(collector("changes", "--store", "data", "--json", "--limit", 10**6).stdout)["cursor"]
    client = AdminClient({"bootstrap.servers": broker.server})
    [purged] = client.delete_records([TopicPartition(broker.name, 0, -1)]).values()
    purged.result(20)
    for arguments in ([], ["--from-start"]):
        assert "--from CURSOR" in refused(broker, "the last one is gone", *arguments)
    before = expected()
    feed.collect(1)
    publish(broker, "--from", cursor)
    judge(broker.consume(**{"auto.offset.reset": "earliest"}), expected() - before)
    broker.delete()
    print("purge: refused, then continued after a cursor")


def test_bad_input(broker, feed) -> None:
    assert "kafka-topics.sh" in refused(broker, "does not exist", "--from-start", to=broker.target(topic="nowhere"))
    broker.create(cleanup_policy="compact")
    refused(broker, "is compacted", "--from-start")
    broker.delete()
    broker.create()
    test_cursors(broker)
    refused(broker, "do not belong in the address", to=f"kafka://user:{WRONG}@h/x", code=2)
    refused(broker, "the topic is not valid", to="kafka://h/a/b", code=2)
    other = broker.producer()
    other.produce(broker.name, b"from another program")
    assert other.flush(20) == 0
    refused(broker, "was not written by `collector publish`")
    broker.delete()
    test_other_server("kafka")
    print("bad input: each refused, nothing published")


class Front:
    """Listens where the server says that it is, for a server on another address of this machine: with TLS or with users."""

    def __init__(self, broker: Broker, context=None, users=None) -> None:
        self.broker, self.context, self.users = broker, context, users
        self.listener = socket.create_server(("127.0.0.1", broker.port))
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                threading.Thread(target=self.serve, args=[connection], daemon=True).start()

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def serve(self, client) -> None:
        with contextlib.suppress(OSError, EOFError):
            client = self.context.wrap_socket(client, server_side=True) if self.context else client
            with client, socket.create_connection((self.broker.host, self.broker.port)) as server:
                threading.Thread(target=self.answers, args=[server, client], daemon=True).start()
                proof = None if self.users is None else Proof(self.users)
                while True:
                    request = read_frame(client)
                    key, version = struct.unpack_from(">hh", request)
                    if proof is not None and key in (17, 36):
                        write_frame(client, proof.answer(key, version, request))
                    elif proof is not None and key != 18 and not proof.given:
                        return
                    else:
                        write_frame(server, request)

    def answers(self, server, client) -> None:
        with contextlib.suppress(OSError, EOFError, ValueError):
            while True:
                write_frame(client, read_frame(server).replace(self.broker.host.encode(), b"127.0.0.1"))


def read_frame(connection) -> bytes:
    def read(size):
        data = b""
        while len(data) < size:
            part = connection.recv(size - len(data))
            if not part:
                raise EOFError
            data += part
        return data

    [size] = struct.unpack(">i", read(4))
    if size > 100_000_000:
        # As Kafka does, such as when a client begins with TLS.
        raise EOFError
    return read(size)


def write_frame(connection, data: bytes) -> None:
    connection.sendall(struct.pack(">i", len(data)) + data)


class Proof:
    """The server's part of SASL: PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512 (RFC 5802)."""

    def __init__(self, users: dict) -> None:
        self.users, self.given, self.first = users, False, None

    def answer(self, key: int, version: int, request: bytes) -> bytes:
        correlation, client = request[4:8], struct.unpack_from(">h", request, 8)[0]
        body = request[10 + max(client, 0) :]
        if key == 17:
            [length] = struct.unpack_from(">h", body)
            self.mechanism = body[2 : 2 + length].decode()
            names = [b"PLAIN", b"SCRAM-SHA-256", b"SCRAM-SHA-512"]
            return correlation + struct.pack(">hi", 0, 3) + b"".join(struct.pack(">h", len(name)) + name for name in names)
        assert version < 2, "a flexible version"
        reply, error = self.prove(body[4:])
        text = struct.pack(">h", -1) if error == 0 else struct.pack(">h", 6) + b"denied"
        lifetime = struct.pack(">q", 0) if version == 1 else b""
        return correlation + struct.pack(">h", error) + text + struct.pack(">i", len(reply)) + reply + lifetime

    def prove(self, data: bytes) -> tuple[bytes, int]:
        if self.mechanism == "PLAIN":
            _, user, password = data.decode().split("\0")
            self.given = self.users.get(user) == password
            return b"", 0 if self.given else 58
        digest = {"SCRAM-SHA-256": "sha256", "SCRAM-SHA-512": "sha512"}[self.mechanism]
        fields = dict(field.split("=", 1) for field in data.decode().removeprefix("n,,").split(","))
        if self.first is None:
            self.user, self.salt = fields["n"], secrets.token_bytes(16)
            self.nonce = fields["r"] + secrets.token_hex(8)
            reply = f"r={self.nonce},s={base64.b64encode(self.salt).decode()},i=4096"
            self.first = f"{data.decode().removeprefix('n,,')},{reply}"
            return reply.encode(), 0

        def mac(key, text):
            return hmac.new(key, text.encode(), digest).digest()

        password = self.users.get(self.user, secrets.token_hex()).encode()
        salted = hashlib.pbkdf2_hmac(digest, password, self.salt, 4096)
        everything = f"{self.first},c={fields['c']},r={fields['r']}"
        client_key = mac(salted, "Client Key")
        signature = mac(hashlib.new(digest, client_key).digest(), everything)
        wanted = bytes(a ^ b for a, b in zip(client_key, signature))
        self.given = fields["r"] == self.nonce and hmac.compare_digest(wanted, base64.b64decode(fields["p"]))
        reply = b"v=" + base64.b64encode(mac(mac(salted, "Server Key"), everything))
        return (reply, 0) if self.given else (b"", 58)


def test_credentials(broker: Broker) -> None:
    front = Front(broker, users={"publisher": "correct-horse"})
    broker.create()
    Path("secret").write_text("correct-horse\n")
    Path("secret").chmod(0o600)
    user = ["--from-start", "--publish-user", "publisher"]
    for mechanism in ("plain", "scram-sha-256", "scram-sha-512"):
        refused(broker, "check publish_sasl", *user, "--publish-sasl", mechanism, KAFKA_PASSWORD=WRONG)
        publish(broker, *user, "--publish-sasl", mechanism, KAFKA_PASSWORD="correct-horse")
    publish(broker, *user, "--publish-secret-file", "secret")
    refused(broker, "neither publish_secret_file nor KAFKA_PASSWORD", *user, code=2)
    judge(broker.consume())
    # The front is right: another client is let in and kept out likewise.
    for password, count in (("correct-horse", 1), (WRONG, 0)):
        client = AdminClient({
            "bootstrap.servers": f"127.0.0.1:{broker.port}", "security.protocol": "SASL_PLAINTEXT", "log_level": 0,
            "sasl.mechanism": "SCRAM-SHA-512", "sasl.username": "publisher", "sasl.password": password,
        })  # fmt: skip
        brokers = []
        with contextlib.suppress(Exception):
            brokers = client.list_topics(timeout=5).brokers
        assert len(brokers) == count, brokers
    broker.delete()
    front.close()
    print("credentials: PLAIN and SCRAM; wrong ones are refused and not shown")


def test_tls(broker: Broker, folder: Path) -> None:
    own, other, certificate, key = certificates(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    broker.create()
    target = broker.target("kafka+tls")
    front = Front(broker, context)
    refused(broker, "a certificate that is trusted", "--from-start", to=target, SSL_CERT_FILE=str(other))
    publish(broker, "--from-start", to=target, SSL_CERT_FILE=str(own))
    judge(broker.consume())
    front.close()
    front = Front(broker)
    refused(broker, "cannot connect", to=target, SSL_CERT_FILE=str(own))
    broker.delete()
    front.close()
    print("TLS: verified; neither a foreign certificate nor a connection without encryption is accepted")


def rate() -> None:
    """How fast as many messages as in four years are published; how fast librdkafka stores the same ones in transactions of 1,000."""
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        Feed().collect(930, new=90)
        broker, ratios = Broker(Path(folder, "kafka")), []
        try:
            for _ in range(3):
                broker.create()
                ended = publish(broker, "--from-start", "--json", time_file="peak")
                seconds = json.loads(ended.stdout)["elapsed_s"]
                messages = [(list(headers.items()), headers["key"], value) for headers, value in broker.consume()]
                broker.delete()
                broker.create()
                reference = broker.producer(**{"transactional.id": "reference"})
                reference.init_transactions(20)
                begun = time.monotonic()
                for first in range(0, len(messages), 1000):
                    reference.begin_transaction()
                    for headers, key, value in messages[first : first + 1000]:
                        reference.produce(broker.name, value, key, headers=headers)
                    reference.commit_transaction(20)
                reference_seconds = time.monotonic() - begun
                broker.delete()
                ratios.append(reference_seconds / seconds)
                print(f"{len(messages)} messages: {len(messages) / seconds:.0f}/s with {Path('peak').read_text().strip()} kB; "
                      f"librdkafka {len(messages) / reference_seconds:.0f}/s; ratio {ratios[-1]:.2f}", flush=True)  # fmt: skip
        finally:
            broker.kill()
        print(f"{sorted(ratios)[1]:.2f} of the rate of librdkafka (median of three)")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        example = Path(sys.argv[3]).absolute()
        os.chdir(folder)
        feed = Feed()
        feed.collect(10)
        broker = Broker(Path(folder, "kafka"))
        try:
            # Small enough for one answer of the server.
            test_examples(broker, example)
            feed.collect(50)
            for test in (test_once, test_kinds):
                test(broker)
            for test in (
                test_partitions, test_watch, test_replica, test_kills, test_fencing, test_outage, test_aborted,
                test_open_transaction, test_purge, test_bad_input, test_too_large,
            ):  # fmt: skip
                test(broker, feed)
        finally:
            broker.kill()
        elsewhere = Broker(Path(folder, "elsewhere"), host="127.0.0.2")
        try:
            test_credentials(elsewhere)
            test_tls(elsewhere, Path(folder))
        finally:
            elsewhere.kill()


if sys.argv[1] == "--create":
    create_topic(sys.argv[3], sys.argv[2])
elif sys.argv[3] == "--rate":
    rate()
else:
    begun = time.monotonic()
    main()
    print(f"{time.monotonic() - begun:.0f} s")
