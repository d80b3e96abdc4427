"""Holds the simulated Object Storage and the collector's signer against the service's official SDK, and runs the
collector on it.

    object_storage.py FOLDER    with the built programs in FOLDER
"""

import base64
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


def check_sdk(addresses: dict) -> None:
    config = oci.config.from_file(addresses["config_file"])
    client = oci.object_storage.ObjectStorageClient(
        config, service_endpoint=addresses["endpoint"], retry_strategy=oci.retry.NoneRetryStrategy()
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
            service_endpoint=addresses["endpoint"],
            retry_strategy=oci.retry.NoneRetryStrategy(),
        )
        assert status_of(lambda: forged.get_object(*at, "a/b å.json")) == 401
    print("the official SDK: put, get, head, list by pages, delete, conditions; a wrong key is refused")


def check_signer(addresses: dict) -> None:
    config = oci.config.from_file(addresses["config_file"])
    rng, lines, expected = random.Random(1), [], []
    for _ in range(100):
        with_body = rng.random() < 0.3
        path = "/n/" + "/".join(rng.choice(["b", "x%2Fy", "o", "å".encode().hex()]) for _ in range(4))
        query = rng.choice(["", "?prefix=events%2F&limit=1000", "?fields=name%2Csize"])
        method = "post" if with_body else rng.choice(["get", "put", "delete", "head"])
        host = rng.choice(["objectstorage.eu-stockholm-1.oraclecloud.com", "127.0.0.1:8080"])
        request = {
            "method": method,
            "target": path + query,
            "host": host,
            "date": formatdate(rng.randrange(2_000_000_000), usegmt=True),
        }
        if with_body:
            request["body"] = json.dumps({"n": rng.random()})
        lines.append(json.dumps(request))
        expected.append(sdk_signature(config, request))
    command = [PROGRAMS / "examples/sign", addresses["config_file"]]
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
        prepared.headers["content-type"] = "application/json"
    # Like the SDK itself when it puts an object: a body is signed only where one is given.
    signed = signer(prepared, enforce_content_headers="body" in request)
    fields = dict(re.findall(r'(\w+)="([^"]*)"', signed.headers["authorization"]))
    values = {name.lower(): value for name, value in signed.headers.items()}
    values["(request-target)"] = f"{request['method']} {request['target']}"
    text = "\n".join(f"{name}: {values[name]}" for name in fields["headers"].split(" "))
    return text, fields


def check_identities(addresses: dict, folder: Path) -> None:
    """The official SDK reads a secret and becomes an instance; so does the collector, and with encrypted keys too."""
    config = oci.config.from_file(addresses["config_file"])
    secrets = oci.secrets.SecretsClient(
        config, service_endpoint=addresses["vault_endpoint"], retry_strategy=oci.retry.NoneRetryStrategy()
    )
    bundle = secrets.get_secret_bundle(addresses["secrets"]["user"], stage="CURRENT").data
    assert base64.b64decode(bundle.secret_bundle_content.content).decode() == config["user"]
    assert status_of(lambda: secrets.get_secret_bundle("ocid1.vaultsecret.oc1..absent")) == 404

    os.environ["OCI_METADATA_BASE_URL"] = addresses["metadata_url"]
    instance = oci.auth.signers.InstancePrincipalsSecurityTokenSigner(
        federation_endpoint=f"{addresses['auth_endpoint']}/v1/x509"
    )
    client = oci.object_storage.ObjectStorageClient(
        {}, signer=instance, service_endpoint=addresses["endpoint"], retry_strategy=oci.retry.NoneRetryStrategy()
    )
    client.put_object("simulated", "events", "from-an-instance", b"one", if_none_match="*")
    assert client.get_object("simulated", "events", "from-an-instance").data.content == b"one"
    print("the official SDK: a secret bundle, an instance principal")

    key = folder / "key.pem"
    key.write_bytes(Path(config["key_file"]).read_bytes())
    forms = {
        "pkcs1": ["rsa", "-traditional"],
        "pkcs1-aes128": ["rsa", "-traditional", "-aes128", "-passout", "pass:open sesame"],
        "pkcs1-aes256": ["rsa", "-traditional", "-aes256", "-passout", "pass:open sesame"],
        "pkcs8-aes256": ["pkcs8", "-topk8", "-v2", "aes256", "-passout", "pass:open sesame"],
        "pkcs8-scrypt": ["pkcs8", "-topk8", "-scrypt", "-scrypt_N", "1024", "-passout", "pass:open sesame"],
    }
    response = str(ROOT / "fixtures/data/response.json")
    for name, options in forms.items():
        file = folder / f"{name}.pem"
        subprocess.run(["openssl", *options, "-in", key, "-out", file], check=True, capture_output=True)
        file.chmod(0o600)
        variables = {
            "OCI_USER": config["user"],
            "OCI_TENANCY": config["tenancy"],
            "OCI_FINGERPRINT": config["fingerprint"],
            "OCI_KEY_FILE": str(file),
            "OCI_REGION": "eu-stockholm-1",
        }
        if name != "pkcs1":
            refused = collector(addresses, folder, "verify", **variables)
            assert refused.returncode == 2 and "no pass phrase is given" in refused.stderr, refused.stderr
            refused = collector(addresses, folder, "verify", **variables, OCI_PASS_PHRASE="wrong")
            assert refused.returncode == 2 and "does not open" in refused.stderr, refused.stderr
        opened = collector(addresses, folder, "run", "--feed", response, **variables, OCI_PASS_PHRASE="open sesame")
        assert opened.returncode == 0, opened.stderr
        must_not_show(opened, ["open sesame", *key.read_text().split("\n")[1:-2]])
    print(f"keys in {len(forms)} forms, four of them encrypted by openssl")


def collector(addresses: dict, home: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess:
    variables = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "OCI_CONFIG_FILE": addresses["config_file"],
        "OCI_ENDPOINT": addresses["endpoint"],
        "OCI_NAMESPACE": "simulated",
        "OCI_BUCKET_NAME": "events",
        **more,
    }
    command = [PROGRAMS / "collector", *arguments, "--log-level", "trace"]
    return subprocess.run(command, cwd=home, env=variables, capture_output=True, text=True)


def must_not_show(done: subprocess.CompletedProcess, secrets: list) -> None:
    for text in (done.stdout, done.stderr):
        assert not any(secret in text for secret in secrets), "a secret was shown"
        for word in ("signature=", "PRIVATE KEY", "ST$"):
            assert word not in text, f"{word} was shown"


def check_collector(addresses: dict, home: Path, *options: str) -> None:
    data = ROOT / "fixtures/data"
    secrets = Path(addresses["config_file"]).with_name("key.pem").read_text().split("\n")[1:-2]
    doctor = collector(addresses, home, "doctor", "--json", "--offline", *options)
    assert doctor.returncode == 0, doctor.stdout + doctor.stderr
    assert all(check["verdict"] in ("ok", "skipped", "warning") for check in json.loads(doctor.stdout)["checks"])
    must_not_show(doctor, secrets)
    for name, new in [("response.json", 500), ("response-next.json", 14), ("response-next.json", 0)]:
        done = collector(addresses, home, "run", "--json", "--feed", str(data / name), *options)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["counts"]["new_events_count"] == new
        must_not_show(done, secrets)
    verified = collector(addresses, home, "verify", "--json", *options)
    findings = json.loads(verified.stdout)
    assert verified.returncode == 0 and findings["events"] == 514 and findings["revisions"] == 1, findings
    must_not_show(verified, secrets)


def instance_options(addresses: dict) -> list:
    return ["--auth", "instance", "--metadata-url", addresses["metadata_url"], "--auth-endpoint", addresses["auth_endpoint"]]


def vault_options(addresses: dict) -> list:
    secrets = (("--secret-" + name.replace("_", "-"), id) for name, id in addresses["secrets"].items())
    return [*instance_options(addresses), "--vault-endpoint", addresses["vault_endpoint"], *(word for pair in secrets for word in pair)]


def recordings(folder: Path) -> None:
    """Responses of a feed of 100 events, half an hour apart, two or three new in each."""
    events = json.loads((ROOT / "fixtures/data/response.json").read_bytes())
    events.sort(key=lambda event: event["id"])
    folder.mkdir()
    for number in range(40):
        window = events[number * 5 // 2 :][:100]
        (folder / f"{1767362400 + number * 1800}.json").write_text(json.dumps(window[::-1], ensure_ascii=False))


def persistently(call):
    """The official SDK believes that a bucket is not there; on this service one has to ask again."""
    while True:
        with contextlib.suppress(oci.exceptions.ServiceError, oci.exceptions.RequestException):
            return call()


def lines_of(store: Path) -> list:
    return sorted(line for file in (store / "events").rglob("*.jsonl") for line in file.read_bytes().splitlines())


def check_kills(addresses: dict, home: Path) -> None:
    """Killed at any moment, on a service that misbehaves: in the end the archive holds what an undisturbed one holds."""
    recordings(home / "recorded")
    undisturbed = collector(addresses, home, "import", "recorded", "--store", "undisturbed")
    assert undisturbed.returncode == 0, undisturbed.stderr
    command = [PROGRAMS / "collector", "import", "recorded", "--lease", "1s", "--log-level", "error"]
    variables = {**os.environ, "OCI_CONFIG_FILE": addresses["config_file"], "OCI_ENDPOINT": addresses["endpoint"]}
    variables |= {"OCI_NAMESPACE": "simulated", "OCI_BUCKET_NAME": "events"}
    rng, killed = random.Random(2), 0
    for _ in range(60):
        pair = [
            subprocess.Popen(command, cwd=home, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            for _ in range(rng.choice([1, 1, 2]))
        ]
        for process in pair:
            try:
                process.wait(timeout=rng.uniform(0.01, 0.5))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                killed += 1
    for _ in range(100):
        if collector(addresses, home, "import", "recorded", "--lease", "1s").returncode == 0:
            break
    verified = collector(addresses, home, "verify", "--json")
    findings = json.loads(verified.stdout)
    assert verified.returncode == 0, findings
    client = oci.object_storage.ObjectStorageClient(
        oci.config.from_file(addresses["config_file"]),
        service_endpoint=addresses["endpoint"],
        retry_strategy=oci.retry.NoneRetryStrategy(),
    )
    found, start = [], None
    while True:
        page = persistently(lambda: client.list_objects("simulated", "events", prefix="events/", start=start)).data
        for item in page.objects:
            got = persistently(lambda: client.get_object("simulated", "events", item.name))
            found += got.data.content.splitlines()
        start = page.next_start_with
        if not start:
            break
    assert sorted(found) == lines_of(home / "undisturbed") and len(found) == findings["events"]
    assert killed > 20, killed
    print(f"{killed} times killed on a service that misbehaves: the {len(found)} lines of an undisturbed archive")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        service = Path(folder) / "service"

        def new_home() -> Path:
            """Each simulated service is a new one, which no machine remembers."""
            return Path(tempfile.mkdtemp(dir=folder))

        with served(service) as addresses:
            check_signer(addresses)
            check_sdk(addresses)
            check_identities(addresses, new_home())
        for name, options in [
            ("a user's key", lambda _: []),
            ("an instance", instance_options),
            ("a key from the Vault", vault_options),
        ]:
            with served(service) as addresses:
                check_collector(addresses, new_home(), *options(addresses))
            print(f"{name}: 514 events once each; at trace level no key, token, secret or signature is shown")
        with served(service, "--faults", "3") as addresses:
            check_kills(addresses, new_home())


if __name__ == "__main__":
    main()
