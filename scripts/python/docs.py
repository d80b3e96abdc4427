"""Executes the commands of README.md and docs/, and compares what they print with what the page shows.

    docs.py PROGRAMS [PAGE…]    with the folder of the built programs; without pages: all of them

A fenced block of `console` is executed: each line that begins with `$ ` is a command (a `\\` at its end continues it), and
the lines up to the next one are its output. A line `...` stands for any number of lines. Times, dates, the numbers of runs and
blanks are not compared. A command that ends with another code than 0 is an error, unless the page shows the code: `$ echo $?`
as the next command. The commands of a page run one after the other in one shell, in a fresh folder that holds `fixtures/` and
`scripts/`, with the built programs on the PATH. Comments of HTML right before a block change that:

    <!-- not executed: REASON -->      the block is skipped, and counted as such
    <!-- with: NAME=VALUE … -->        these variables are set for the block

`docs/operate.md` is executed by `scripts/e2e 38-operate`, on machines with systemd, and `docs/publish.md` by `68-publish`, with brokers.

`cargo run` builds the collector in the workspace's target folder. The programs of the harness are run as the tests built them,
without `--release`: a build of each would take minutes.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent.parent
FENCE = re.compile(r"^```(\w*)\s*$")
MARK = re.compile(r"^<!-- (not executed|with): (.+) -->$")
END = "end-of-command-7f3a"
# What differs from run to run, in the order of replacement.
VOLATILE = [
    (r"\x1b\[[0-9;]*m", ""),
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|\+00:00)?", "TIME"),
    (r"metrics_\d{8}_\d{6}(_\d+)?", "metrics_RUN"),
    (r"-\d{10}(-\d+)?\.jsonl", "-RUN.jsonl"),
    (r"/20\d\d/\d\d/\d\d/withdrawn", "/DAY/withdrawn"),
    (r"\d[\d,]*(\.\d+)? ?(ns|µs|ms|s|min)\b", "DURATION"),
    (r"\b(\d[\d,]*(\.\d+)?) MB free", "SPACE free"),
    (r"cursor [0-9a-f]{16}:(\d+):[0-9a-f]{16}", r"cursor \1"),
    (r"^commit: [0-9a-f]{12}$", "commit: COMMIT"),
    (r"[ \t]+", " "),
]


class Command(NamedTuple):
    line: int
    text: str
    output: list[str]
    variables: str


class Page(NamedTuple):
    commands: list[Command]
    skipped: list[tuple[int, str, int]]


def commands_of(block: list[tuple[int, str]], variables: str) -> list[Command]:
    commands: list[Command] = []
    continued = False
    for line, text in block:
        if continued:
            last = commands[-1]
            commands[-1] = last._replace(text=f"{last.text}\n{text}")
        elif text.startswith("$ "):
            commands.append(Command(line, text[2:], [], variables))
        elif commands:
            commands[-1].output.append(text)
            continue
        continued = text.endswith("\\")
    return commands


def read(path: Path) -> Page:
    page, mark, block, language = Page([], []), None, None, ""
    for number, text in enumerate(path.read_text().splitlines(), 1):
        fence = FENCE.match(text)
        if block is None and fence:
            block, language = [], fence[1]
        elif block is not None and text == "```":
            found = commands_of(block, mark[2] if mark and mark[1] == "with" else "")
            if mark and mark[1] == "not executed":
                page.skipped.append((number, mark[2], len(found)))
            elif language == "console":
                page.commands.extend(found)
            elif language in ("sh", "bash", "shell"):
                raise SystemExit(f"{path}:{number}: a block of {language}: use `console`, whose commands are executed")
            block = mark = None
        elif block is not None:
            block.append((number, text))
        elif text.strip():
            mark = MARK.match(text)
    return page


def masked(line: str) -> str:
    for pattern, stand_in in VOLATILE:
        line = re.sub(pattern, stand_in, line)
    return line.rstrip()


def agrees(shown: list[str], printed: list[str]) -> bool:
    """Whether the lines are those shown, where `...` stands for any number of them."""
    if not shown:
        return not printed
    if shown[0] == "...":
        return any(agrees(shown[1:], printed[skip:]) for skip in range(len(printed) + 1))
    return bool(printed) and shown[0] == printed[0] and agrees(shown[1:], printed[1:])


def prepare(folder: Path, programs: Path) -> dict[str, str]:
    """Makes the folder a clone in the eyes of the commands; returns their environment."""
    (folder / "fixtures").symlink_to(ROOT / "fixtures")
    bin_folder, scripts = folder / ".bin", folder / "scripts"
    bin_folder.mkdir()
    for script in [path for path in (ROOT / "scripts").iterdir() if path.is_file()]:
        wrapper(scripts / script.name, f'exec {script} "$@"')
    for shared in ["monitoring", "kubernetes", "systemd"]:
        (scripts / shared).symlink_to(ROOT / "scripts" / shared)
    cargo = subprocess.run(["which", "cargo"], capture_output=True, text=True, check=True).stdout.strip()
    wrapper(bin_folder / "cargo", f"""
[[ $1 = run ]] || {{ cd {ROOT} && exec {cargo} "$@"; }}
package= program=
while shift && (($#)); do
    case $1 in
        -p) shift; package=$1 ;;
        --bin) shift; program=$1 ;;
        --example) shift; program=examples/$1 ;;
        --) shift; break ;;
    esac
done
[[ $package ]] || exec {cargo} run --config {ROOT}/.cargo/config.toml --quiet --locked --release -p polisen-events-collector --manifest-path {ROOT}/Cargo.toml -- "$@"
exec "$CARGO_TARGET_DIR/debug/${{program:-$package}}" "$@"
""")
    home = Path.home()
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(("COLLECTOR_", "OCI_", "AWS_", "RUST_LOG"))},
        "PATH": f"{bin_folder}:{folder}/.cargo/bin:{programs}:{os.environ['PATH']}",
        "CARGO_HOME": os.environ.get("CARGO_HOME", str(home / ".cargo")),
        "RUSTUP_HOME": os.environ.get("RUSTUP_HOME", str(home / ".rustup")),
        "CARGO_INSTALL_ROOT": str(folder / ".cargo"),
        "CARGO_TARGET_DIR": os.environ.get("CARGO_TARGET_DIR", str(ROOT / "target")),
        "HOME": str(folder), "XDG_STATE_HOME": str(folder / ".state"), "XDG_CACHE_HOME": str(folder / ".cache"),
        # As on a terminal, where no summary is logged.
        "COLLECTOR_LOG_LEVEL": "warn",
        "NO_COLOR": "1", "COLUMNS": "100", "TZ": "UTC", "LC_ALL": "C.UTF-8",
    }


def wrapper(path: Path, body: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/usr/bin/env bash\n{body}\n")
    path.chmod(0o755)


def execute(path: Path, page: Page, programs: Path) -> list[str]:
    """What is wrong with the page's commands."""
    wrong = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        environment = prepare(folder, programs)
        shell = subprocess.Popen(["bash"], cwd=folder, env=environment, text=True, stdin=subprocess.PIPE,
                                 stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            for at, command in enumerate(page.commands):
                following = page.commands[at + 1].text if at + 1 < len(page.commands) else ""
                wrong += run(path, shell, command, following == "echo $?")
        finally:
            # Also what the page's commands left in the background.
            os.killpg(shell.pid, 9)
            shell.wait()
    return wrong


def run(path: Path, shell: subprocess.Popen, command: Command, code_is_shown: bool) -> list[str]:
    variables = command.variables.split()
    before = f"export {' '.join(variables)}\n" if variables else ""
    after = f"unset {' '.join(it.split('=')[0] for it in variables)}\n" if variables else ""
    # The code is restored for a command that shows it; nothing reads the shell's own input.
    shell.stdin.write(f"{before}{{ (exit ${{code:-0}})\n{command.text}\n}} </dev/null\ncode=$?\n{after}printf '\\n%s %s\\n' {END} $code\n")
    shell.stdin.flush()
    printed = []
    for line in shell.stdout:
        if line.startswith(END):
            break
        printed.append(line.rstrip("\n"))
    else:
        return [f"{path.relative_to(ROOT)}:{command.line}: the shell ended"]
    code = int(line.split()[1])
    while printed and not printed[-1]:
        printed.pop()
    here = f"{path.relative_to(ROOT)}:{command.line}: {command.text}"
    shown = [masked(it) for it in command.output]
    while shown and not shown[-1]:
        shown.pop()
    if code and not code_is_shown:
        return [f"{here}\n    ended with {code}:\n" + "\n".join(f"    {it}" for it in printed)]
    if shown and not agrees(shown, [masked(it) for it in printed]):
        return [f"{here}\n    printed:\n" + "\n".join(f"    {it}" for it in printed)]
    return []


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        print(__doc__)
        return
    programs = Path(sys.argv[1]).resolve()
    if not (programs / "collector").is_file():
        sys.exit(f"there is no program `collector` in {programs}")
    paths = [Path(it).resolve() for it in sys.argv[2:]] or [ROOT / "README.md", *sorted(set((ROOT / "docs").rglob("*.md")) - {ROOT / "docs/operate.md", ROOT / "docs/publish.md"})]
    wrong, executed, skipped = [], 0, 0
    for path in paths:
        page = read(path)
        wrong += execute(path, page, programs) if page.commands else []
        executed += len(page.commands)
        skipped += sum(number for _, _, number in page.skipped)
        if page.commands or page.skipped:
            print(f"{path.relative_to(ROOT)}: {len(page.commands)} commands executed", flush=True)
        for line, reason, number in page.skipped:
            print(f"    line {line}: {number} not executed: {reason}")
    print(f"{executed} commands executed, {skipped} not executed")
    if wrong:
        raise SystemExit("\n".join(wrong))


if __name__ == "__main__":
    main()
