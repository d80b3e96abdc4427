"""Runs the load tests of docs/load-testing.md and checks the results that it states.

    loadtest.py LOADTEST            with the built program
    loadtest.py LOADTEST --years    what takes minutes: a year of virtual time, and hundreds of runs
"""

import json
import subprocess
import sys
import time

LOADTEST = sys.argv[1]


def ask(*arguments: str) -> dict:
    began = time.monotonic()
    done = subprocess.run([LOADTEST, *arguments, "--json", "-"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    print(f"loadtest {' '.join(arguments)}: {time.monotonic() - began:.1f} s")
    return json.loads(done.stdout)


def run(*arguments: str) -> dict:
    """The scenarios by rate; of each, that it is sound."""
    scenarios = ask("run", *arguments)["scenarios"]
    for scenario in scenarios:
        assert scenario["duplicates"] == 0, scenario
        assert scenario["lost"] == scenario["published"] - scenario["stored"], scenario
        gaps = scenario["gaps"]
        assert gaps["told"] == gaps["polls_after_loss"] and gaps["told_in_vain"] == 0, gaps
    return {scenario["rate"]: scenario for scenario in scenarios}


def check_reliability(runs: int) -> None:
    for experiment in ask("reliability", "--runs", str(runs))["experiments"]:
        assert experiment["lost"] == [0, 0], experiment
        assert experiment["with_retries"]["value"] >= experiment["without_retries"]["value"], experiment


def weeks() -> None:
    daily = run("--rates", "1,10,50,100", "--days", "7", "--seed", "42")
    assert daily[1]["lost"] == daily[10]["lost"] == 0 < daily[100]["lost"]
    assert {loss["hour"] for loss in daily[100]["lost_by_hour"]} <= {6, 7, 8}
    assert run("--rates", "50", "--interval", "15m", "--days", "7")[50]["lost"] == 0
    flat = run("--rates", "10,100,400", "--traffic", "flat", "--days", "7")
    assert flat[10]["lost"] == flat[100]["lost"] == 0 < flat[400]["lost"]
    print(f"lost at 100x in a week: {daily[100]['lost']} of {daily[100]['published']}, all in the morning")

    capacity = ask("capacity")
    for limit in capacity["limits"]:
        if limit["traffic"] == "flat":
            assert abs(limit["max_rate_simulated"] / limit["max_rate_formula"] - 1) < 0.05, limit
    verdicts = {(row["rate"], row["interval_s"]): row["verdict"] for row in capacity["matrix"]}
    assert "lost" in verdicts[100, 1800] and verdicts[10, 1800] == "nothing lost", verdicts

    check_reliability(runs=80)
    stress = ask("stress", "--duration", "3s", "--runs-per-second", "50")
    assert stress["failed"] == 0 and stress["unfinished"] == 0, stress


def years() -> None:
    # Both at once: no speed is measured.
    service = subprocess.Popen([LOADTEST, "service", "--json", "-"], stdout=subprocess.PIPE, text=True)
    year = run("--rates", "1", "--days", "365")[1]
    assert year["lost"] == 0 and year["polls"] == 17_521
    assert year["peak_rss_bytes"] < 200_000_000, year["peak_rss_bytes"]
    print(f"a year at 1x: {year['polls']} polls, {year['stored']} events, {year['peak_rss_bytes'] // 10**6} MB")

    check_reliability(runs=400)

    printed, _ = service.communicate()
    assert service.returncode == 0, printed
    life = json.loads(printed)
    assert life["polls"] == 365 * 48 and life["pages"] == 3 * life["polls"], life
    assert life["stored"] >= life["published"], life
    megabytes = [round(rss / 1e6, 1) for rss in life["rss_by_month_bytes"]]
    print(f"a year of the service: {life['polls']} polls, {life['peak_rss_bytes'] / 1e6:.1f} MB at most; by month {megabytes}")


years() if sys.argv[2:] == ["--years"] else weeks()
