"""Holds the simulated Object Storage and the collector's signer against the service's official SDK, and runs the
collector on it.

    object_storage.py FOLDER    with the built programs in FOLDER
"""

import contextlib
import json
import os
import random
import re
import subprocess
import sys
import tempfile
from email.utils import formatdate
from pathlib import Path

import oci
import requests

ROOT = Path(__file__).resolve().parent.parent.parent
PROGRAMS = Path(sys.argv[1])


@contextlib.contextmanager
def served(folder: Path, *options: str):
    command = [PROGRAMS / "loadtest", "serve-oci", "--dir", folder, *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield json.loads(process.stdout.readline())
    finally:
        process.kill()
        process.wait()


def status_of(call) -> int:
    try:
        call()
    except oci.exceptions.ServiceError as error:
        return error.status
    return 200


def check_sdk(told: dict) -> None:
    config = oci.config.from_file(told["config_file"])
    client = oci.object_storage.ObjectStorageClient(
        config, service_endpoint=told["endpoint"], retry_strategy=oci.retry.NoneRetryStrategy()
    )
    at = ("simulated", "events")
    put = client.put_object(*at, "a/b å.json", b"one", if_none_match="*")
    got = client.get_object(*at, "a/b å.json")
    assert got.data.content == b"one" and got.headers["etag"] == put.headers["etag"]
    assert client.head_object(*at, "a/b å.json").headers["etag"] == put.headers["etag"]
    assert status_of(lambda: client.put_object(*at, "a/b å.json", b"two", if_none_match="*")) == 412
    assert status_of(lambda: client.put_object(*at, "a/b å.json", b"two", if_match="stale")) == 412
    client.put_object(*at, "a/b å.json", b"two", if_match=put.headers["etag"])
    assert client.get_object(*at, "a/b å.json").data.content == b"two"
    assert status_of(lambda: client.get_object(*at, "absent")) == 404
    assert status_of(lambda: client.head_object(*at, "absent")) == 404
    assert status_of(lambda: client.get_object("simulated", "elsewhere", "a")) == 404
    for number in range(25):
        client.put_object(*at, f"list/{number:02}", b"x" * number)
    names, start = [], None
    while True:
        page = client.list_objects(*at, prefix="list/", limit=10, start=start, fields="name,size").data
        names += [(item.name, item.size) for item in page.objects]
        start = page.next_start_with
        if not start:
            break
    assert names == [(f"list/{number:02}", number) for number in range(25)], names
    client.delete_object(*at, "list/00")
    assert status_of(lambda: client.delete_object(*at, "list/00")) == 404
    with tempfile.TemporaryDirectory() as other, served(Path(other)) as stranger:
        wrong = oci.config.from_file(stranger["config_file"])
        forged = oci.object_storage.ObjectStorageClient(
            {**wrong, "fingerprint": config["fingerprint"]},
            service_endpoint=told["endpoint"],
            retry_strategy=oci.retry.NoneRetryStrategy(),
        )
        assert status_of(lambda: forged.get_object(*at, "a/b å.json")) == 401
    print("the official SDK: put, get, head, list by pages, delete, conditions; a wrong key is refused")


def check_signer(told: dict) -> None:
    config = oci.config.from_file(told["config_file"])
    dice, lines, expected = random.Random(1), [], []
    for _ in range(100):
        with_body = dice.random() < 0.3
        path = "/n/" + "/".join(dice.choice(["b", "x%2Fy", "o", "å".encode().hex()]) for _ in range(4))
        query = dice.choice(["", "?prefix=events%2F&limit=1000", "?fields=name%2Csize"])
        method = "post" if with_body else dice.choice(["get", "put", "delete", "head"])
        host = dice.choice(["objectstorage.eu-stockholm-1.oraclecloud.com", "127.0.0.1:8080"])
        request = {
            "method": method,
            "target": path + query,
            "host": host,
            "date": formatdate(dice.randrange(2_000_000_000), usegmt=True),
        }
        if with_body:
            request |= {"body": json.dumps({"n": dice.random()}), "content_type": "application/json"}
        lines.append(json.dumps(request))
        expected.append(sdk_signature(config, request))
    command = [PROGRAMS / "examples/sign", told["config_file"]]
    signed = subprocess.run(command, input="\n".join(lines), capture_output=True, text=True, check=True).stdout
    for line, (text, fields) in zip(signed.splitlines(), expected, strict=True):
        ours = json.loads(line)
        assert ours["text"] == text, (ours["text"], text)
        assert dict(re.findall(r'(\w+)="([^"]*)"', ours["authorization"])) == fields, line
    print("100 random requests: the same text and the same signature as the official SDK")


def sdk_signature(config: dict, request: dict) -> tuple:
    """What the SDK signs, and the fields of its header."""
    signer = oci.signer.Signer(config["tenancy"], config["user"], config["fingerprint"], config["key_file"])
    prepared = requests.Request(
        request["method"].upper(), f"https://{request['host']}{request['target']}", data=request.get("body")
    ).prepare()
    prepared.headers["date"] = request["date"]
    if "body" in request:
        prepared.headers["content-type"] = request["content_type"]
    # Like the SDK itself when it puts an object: a body is signed only where one is given.
    signed = signer(prepared, enforce_content_headers="body" in request)
    fields = dict(re.findall(r'(\w+)="([^"]*)"', signed.headers["authorization"]))
    values = {name.lower(): value for name, value in signed.headers.items()}
    values["(request-target)"] = f"{request['method']} {request['target']}"
    text = "\n".join(f"{name}: {values[name]}" for name in fields["headers"].split(" "))
    return text, fields


def collector(told: dict, home: Path, *arguments: str) -> subprocess.CompletedProcess:
    variables = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "OCI_CONFIG_FILE": told["config_file"],
        "OCI_ENDPOINT": told["endpoint"],
        "OCI_NAMESPACE": "simulated",
        "OCI_BUCKET_NAME": "events",
    }
    command = [PROGRAMS / "collector", *arguments, "--log-level", "trace"]
    return subprocess.run(command, cwd=home, env=variables, capture_output=True, text=True)


def check_collector(told: dict, home: Path) -> None:
    data = ROOT / "fixtures/data"
    outputs = []
    for name, new in [("response.json", 500), ("response-next.json", 14), ("response-next.json", 0)]:
        done = collector(told, home, "run", "--json", "--feed", str(data / name))
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["counts"]["new_events_count"] == new
        outputs.append(done.stdout + done.stderr)
    verified = collector(told, home, "verify", "--json")
    findings = json.loads(verified.stdout)
    assert verified.returncode == 0 and findings["events"] == 514 and findings["revisions"] == 1, findings
    outputs.append(verified.stdout + verified.stderr)
    key = Path(told["config_file"]).with_name("key.pem").read_text().split("\n")[1:-2]
    for output in outputs:
        assert not any(line in output for line in key), "a key was logged"
        assert "signature=" not in output and "PRIVATE KEY" not in output, "a signature was logged"
    print("the collector stores 514 events once each; at trace level neither key nor signature is logged")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        service, home = Path(folder) / "service", Path(folder) / "home"
        home.mkdir()
        with served(service) as told:
            check_signer(told)
            check_sdk(told)
        with served(service) as told:
            check_collector(told, home)


if __name__ == "__main__":
    main()
