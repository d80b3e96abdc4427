"""Runs the behaviour suite and the collector on moto, a server that is like S3.

    s3.py COLLECTOR    with the built program
"""

import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import boto3
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

ROOT = Path(__file__).resolve().parent.parent.parent
COLLECTOR = Path(sys.argv[1])
SECRET = "a-secret-that-must-not-appear"


class Quiet(WSGIRequestHandler):
    def log_request(self, *_):
        pass


def ignoring_conditions(application):
    """Takes the conditional headers and ignores them, as some servers do."""

    def answer(environ, start_response):
        environ.pop("HTTP_IF_MATCH", None)
        environ.pop("HTTP_IF_NONE_MATCH", None)
        return application(environ, start_response)

    return answer


def losing_answers(application):
    """Does what a third of all PUTs ask for and answers 500, so that they are repeated and meet themselves."""
    rng = random.Random(4)

    def answer(environ, start_response):
        if environ["REQUEST_METHOD"] != "PUT" or rng.random() > 1 / 3:
            return application(environ, start_response)
        list(application(environ, lambda *_: None))
        start_response("500 Internal Server Error", [("Content-Length", "0")])
        return []

    return answer


@contextlib.contextmanager
def served(wrap=lambda application: application):
    application = wrap(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    client = boto3.client(
        "s3", endpoint_url=endpoint, region_name="eu-north-1", aws_access_key_id="a", aws_secret_access_key="b"
    )
    with contextlib.suppress(client.exceptions.BucketAlreadyOwnedByYou):
        client.create_bucket(Bucket="events", CreateBucketConfiguration={"LocationConstraint": "eu-north-1"})
    for item in client.list_objects_v2(Bucket="events").get("Contents", []):
        client.delete_object(Bucket="events", Key=item["Key"])
    try:
        yield endpoint
    finally:
        server.shutdown()


def suite(endpoint: str, **more: str) -> None:
    variables = {
        **os.environ,
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "eu-north-1",
        "S3_BUCKET": "events",
        **more,
    }
    # With -p, cargo would compile the dependencies once more, for the features that this package needs.
    command = ["cargo", "test", "--locked", "-q", "--workspace", "--test", "s3"]
    subprocess.run(command, cwd=ROOT, env=variables, check=True)


def collector(home: Path, *arguments: str) -> subprocess.CompletedProcess:
    variables = {"PATH": os.environ["PATH"], "HOME": str(home)}
    command = [COLLECTOR, *arguments, "--store", "s3://events/archive", "--log-level", "trace"]
    done = subprocess.run(command, cwd=home, env=variables, capture_output=True, text=True)
    for word in (SECRET, "Signature=", "session-token-that-must-not-appear"):
        assert word not in done.stdout + done.stderr, f"{word} was shown"
    return done


def check_collector(home: Path, endpoint: str) -> None:
    """With the keys, region and address of a profile."""
    aws = home / ".aws"
    aws.mkdir(exist_ok=True)
    (aws / "credentials").write_text(f"[default]\naws_access_key_id = a\naws_secret_access_key = {SECRET}\n")
    (aws / "credentials").chmod(0o600)
    (aws / "config").write_text(f"[default]\nregion = eu-north-1\nendpoint_url = {endpoint}\n")
    data = ROOT / "fixtures/data"
    doctor = collector(home, "doctor", "--offline", "--json")
    assert doctor.returncode == 0, doctor.stdout + doctor.stderr
    for name, new in [("response.json", 500), ("response-next.json", 14), ("response-next.json", 0)]:
        done = collector(home, "run", "--json", "--feed", str(data / name))
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["counts"]["new_events_count"] == new, done.stdout
    verified = collector(home, "verify", "--json")
    findings = json.loads(verified.stdout)
    assert verified.returncode == 0 and findings["events"] == 514 and findings["revisions"] == 1, findings


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        home, other_home = Path(folder, "home"), Path(folder, "other")
        home.mkdir()
        other_home.mkdir()
        with served() as endpoint:
            suite(endpoint)
            check_collector(home, endpoint)
            (home / ".aws/credentials").unlink()
            refused = collector(home, "verify", "--endpoint", "http://192.0.2.1")
            assert refused.returncode == 2 and "must be https" in refused.stderr, refused.stderr
        print("moto: the suite passes, races included; the collector stores 514 events once each; no secret is shown")
        with served(losing_answers) as endpoint:
            check_collector(other_home, endpoint)
        print("every third PUT or so done and answered with 500: 514 events once each")
        with served(ignoring_conditions) as endpoint:
            suite(endpoint, S3_UNTRUSTED="1")
            (other_home / ".aws/config").write_text(f"[default]\nregion = eu-north-1\nendpoint_url = {endpoint}\n")
            refused = collector(other_home, "run", "--feed", str(ROOT / "fixtures/data/response.json"))
            assert refused.returncode == 1 and "cannot be trusted" in refused.stderr, refused.stderr
        print("a server that ignores the conditions is refused")


if __name__ == "__main__":
    main()
