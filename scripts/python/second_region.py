"""Fails over from a region that is like S3 (moto) to the simulated Object Storage, and comes back.

    second_region.py FOLDER    with the built programs in FOLDER
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import boto3
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

ROOT = Path(__file__).resolve().parent.parent.parent
PROGRAMS = Path(sys.argv[1])
S3, OCI = "s3://events/archive", "oci://simulated/events/archive"


class Quiet(WSGIRequestHandler):
    def log_request(self, *_):
        pass


class Region:
    """The S3 of a region, which can be lost and come back with what it held."""

    def __init__(self) -> None:
        self.application, self.port = DomainDispatcherApplication(create_backend_app), 0

    def start(self) -> str:
        self.server = make_server(
            "127.0.0.1", self.port, self.application, threaded=True, request_handler=Quiet
        )
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self.port}"

    def lose(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class Site:
    """Both stores, as a machine reaches them."""

    def __init__(self, home: Path, s3: str, oci: dict) -> None:
        self.home, self.endpoints = home, {S3: s3, OCI: oci["endpoint"]}
        self.variables = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "AWS_ACCESS_KEY_ID": "a",
            "AWS_SECRET_ACCESS_KEY": "b",
            "AWS_REGION": "eu-north-1",
            "OCI_CONFIG_FILE": oci["config_file"],
        }

    def collector(self, command: str, store: str, *options: str, code: int = 0) -> str:
        other = OCI if store == S3 else S3
        arguments = [command, "--store", store, "--endpoint", self.endpoints[store], *options]
        if command in ("mirror", "adopt"):
            arguments += ["--peer-endpoint", self.endpoints[other]]
        done = subprocess.run(
            [PROGRAMS / "collector", *arguments],
            cwd=self.home,
            env=self.variables,
            capture_output=True,
            text=True,
        )
        assert done.returncode == code, (arguments, done.returncode, done.stdout, done.stderr)
        return done.stdout if code == 0 else done.stderr

    def run(self, store: str, response: str, code: int = 0) -> str:
        return self.collector("run", store, "--feed", str(ROOT / "fixtures/data" / response), code=code)

    def verified(self, store: str) -> dict:
        return json.loads(self.collector("verify", store, "--json"))


def main() -> None:
    region = Region()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder, "home")
        home.mkdir()
        oci = subprocess.Popen(
            [PROGRAMS / "loadtest", "serve-oci", "--dir", Path(folder, "oci")], stdout=subprocess.PIPE, text=True
        )
        try:
            site = Site(home, region.start(), json.loads(oci.stdout.readline()))
            fail_over_and_back(site, region)
        finally:
            oci.kill()
            oci.wait()


def fail_over_and_back(site: Site, region: Region) -> None:
    client = boto3.client(
        "s3",
        endpoint_url=site.endpoints[S3],
        region_name="eu-north-1",
        aws_access_key_id="a",
        aws_secret_access_key="b",
    )
    client.create_bucket(Bucket="events", CreateBucketConfiguration={"LocationConstraint": "eu-north-1"})
    site.run(S3, "response.json")
    report = json.loads(site.collector("mirror", S3, "--to", OCI, "--json", "--verify"))
    assert report["conflicts_total"] == 0 and report["verified"] == report["objects"] > 1, report
    assert "accepts no runs" in site.run(OCI, "response.json", code=1)
    # The last commit before the region is lost is not copied.
    site.run(S3, "response-next.json")
    region.lose()
    began = time.monotonic()
    adopted = json.loads(site.collector("adopt", OCI, "--json"))
    assert adopted["epoch"] == 2 and adopted["fence"]["state"] == "not_fenced", adopted
    site.run(OCI, "response-next.json")
    print(f"fail-over: {time.monotonic() - began:.1f} s")
    findings = site.verified(OCI)
    assert (findings["events"], findings["duplicates"], findings["revisions"]) == (514, 0, 1), findings
    # The old region is back, and its collector knows nothing.
    region.start()
    refused = site.collector("mirror", S3, "--to", OCI, code=1)
    assert "is not a replica" in refused, refused
    reconciled = json.loads(site.collector("mirror", OCI, "--to", S3, "--reconcile", "--json"))
    # The run that was not copied: two commits, if it began in the second of the one before, whose names were taken.
    assert reconciled["conflicts_total"] == 0 and reconciled["commits"] in (1, 2), reconciled
    for store in (S3, OCI):
        findings = site.verified(store)
        assert (findings["events"], findings["revisions"]) == (514, 1), (store, findings)
    assert "accepts no runs" in site.run(S3, "response-next.json", code=1)
    adopted = json.loads(site.collector("adopt", S3, "--json"))
    assert adopted["epoch"] == 3 and adopted["fence"]["state"] == "fenced", adopted
    site.run(S3, "response-next.json")
    assert site.verified(S3)["events"] == 514


main()
