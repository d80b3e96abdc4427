"""Runs the collector as the Dockerfile, compose.yaml and the examples for Kubernetes do, in the root folder of the container:
with their user, variables, arguments and volumes, on a read-only root. Without root, only the files are checked.

    scripts/python/containers.py ROOT    a folder that scripts/container/rootfs has made
"""

import os
import re
import subprocess
import sys
import time
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

DATA = "/var/lib/collector"
MOUNT = """
set -e
mount --bind "$ROOT" "$ROOT"
mount -o remount,ro,bind "$ROOT"
mount -t tmpfs -o "$VOLUME" data "$ROOT$DATA"
[ -z "$TMP" ] || mount -t tmpfs -o mode=1777 tmp "$ROOT/tmp"
cp fixtures/data/response.json "$ROOT$DATA/feed.json"
chmod 0644 "$ROOT$DATA/feed.json"
exec "$@"
"""


@dataclass(frozen=True)
class Container:
    name: str
    args: list[str]
    variables: dict[str, str]
    user: int
    group: int
    # The volume as the platform makes it.
    volume: str
    tmp: bool

    def command(self, root: str, args: list[str]) -> list[str]:
        """The command in the container, for a process that sees its mounts."""
        variables = {**self.variables, "COLLECTOR_FEED": f"{DATA}/feed.json"}
        if "://" in variables.get("COLLECTOR_STORE", ""):
            variables["COLLECTOR_STORE"] = f"{DATA}/bucket"  # no bucket can be reached from here
        inside = ["unshare", f"--root={root}", f"--wd={DATA}", f"--setgid={self.group}", f"--setuid={self.user}"]
        return ["env", "-i", f"PATH={os.environ['PATH']}", *(f"{key}={value}" for key, value in variables.items()), *inside,
                "/usr/local/bin/collector", *args]

    def run(self, root: str) -> None:
        outside = {**os.environ, "ROOT": root, "DATA": DATA, "VOLUME": self.volume, "TMP": "1" if self.tmp else ""}
        command = ["unshare", "--mount", "--net", "--propagation=private", "sh", "-c", MOUNT, "sh", *self.command(root, self.args)]
        process = subprocess.Popen(command, env=outside, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            if self.args[0] == "watch":
                self.wait_for_health(root, process)
                process.terminate()
            output, _ = process.communicate(timeout=60)
        finally:
            process.kill()
        assert process.returncode == 0, f"{self.name}: exit code {process.returncode}: {output}"
        assert "denied" not in output and "Read-only" not in output, f"{self.name}: {output}"
        print(f"{self.name}: {' '.join(self.args)} as {self.user}:{self.group}")

    def wait_for_health(self, root: str, process: subprocess.Popen) -> None:
        """The health check of the container succeeds in time, and nothing is kept outside of the volume's known folders."""
        check = ["nsenter", f"--target={process.pid}", "--mount", *self.command(root, ["health"])]
        for _ in range(300):
            if process.poll() is not None:
                return
            if subprocess.run(check, capture_output=True, check=False).returncode == 0:
                kept = set(os.listdir(f"/proc/{process.pid}/root{DATA}"))
                assert "state" in kept and not kept & {".local", ".cache"}, f"{self.name}: {kept}"
                return
            time.sleep(0.1)
        raise AssertionError(f"{self.name}: never healthy")


def of_dockerfile() -> Container:
    text = Path("Dockerfile").read_text()
    variables = dict(word.split("=", 1) for word in re.search(r"^ENV (.*)$", text, re.M)[1].split())
    args = yaml.safe_load(re.search(r"^CMD (.*)$", text, re.M)[1])
    user, group = re.search(r"^USER (\d+):(\d+)$", text, re.M).groups()
    return Container("Dockerfile", args, variables, int(user), int(group), "uid=65532,gid=0,mode=0770", tmp=False)


def of_compose(image: Container) -> Container:
    service = yaml.safe_load(Path("compose.yaml").read_text())["services"]["collector"]
    assert service["read_only"] and service["cap_drop"] == ["ALL"]
    variables = {**image.variables, **service["environment"], "COLLECTOR_CONTACT": "me@example.org"}
    return replace(image, name="compose.yaml", variables=variables, tmp="/tmp" in service["tmpfs"])


def of_kubernetes(name: str) -> Container:
    """Without the variables of the image: the example alone is enough."""
    documents = list(yaml.safe_load_all(Path(f"scripts/kubernetes/{name}.yaml").read_text()))
    assert all("privileged: True" not in str(document) for document in documents)
    spec = next(document for document in documents if document["kind"] in ("CronJob", "Deployment"))["spec"]
    pod = spec.get("jobTemplate", {"spec": spec})["spec"]["template"]["spec"]
    container, security = pod["containers"][0], pod["securityContext"]
    assert security["runAsNonRoot"] and container["securityContext"]["readOnlyRootFilesystem"], name
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    claims = {volume["name"] for volume in pod["volumes"] if "persistentVolumeClaim" in volume}
    assert mounts[DATA] in claims, f"{name}: {DATA} is not kept"
    variables = {variable["name"]: variable["value"] for variable in container["env"]}
    return Container(name, container["args"], variables, security["runAsUser"], security["runAsGroup"],
                     f"uid=0,gid={security['fsGroup']},mode=2775", tmp="/tmp" in mounts)


def main() -> None:
    # The container is built from what is sent to the engine.
    sent = set(re.findall(r"^!(\S+)", Path(".dockerignore").read_text(), re.M))
    members = tomllib.loads(Path("Cargo.toml").read_text())["workspace"]["members"]
    missing = {"Cargo.toml", "Cargo.lock", "LICENSE-*", "scripts/container", "scripts/notices", *members} - sent
    assert not missing, f".dockerignore lacks {missing}"
    image = of_dockerfile()
    anybody = replace(image, name="an arbitrary user", user=1000660000, group=0, variables={**image.variables, "HOME": "/"})
    containers = [image, anybody, of_compose(image), *map(of_kubernetes, ["cronjob", "deployment"])]
    if os.geteuid() == 0:
        for container in containers:
            container.run(sys.argv[1])
    else:
        print("not root: the containers were not run")


if __name__ == "__main__":
    main()
