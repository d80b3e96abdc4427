"""The change points of apache-otava and of the collector's own analysis, at the same settings: sys.argv[1] is the program."""

import json
import random
import subprocess
import sys
from pathlib import Path

from otava.analysis import compute_change_points

TIGERBEETLE = json.loads(Path("scripts/python/tigerbeetle.json").read_text())["series"]


def random_series(rng: random.Random) -> list[float]:
    level, series = 100.0, []
    for _ in range(rng.randrange(2, 300)):
        if rng.random() < 0.02:
            level *= rng.uniform(0.8, 1.25)
        series.append(round(rng.gauss(level, 3.0), 2))
    return series


def main() -> None:
    rng = random.Random(1)
    # The settings of Otava's own tests, and the defaults of its command line.
    settings = [(30, p, m) for p in (0.2, 0.1, 0.05, 0.01, 1e-3, 1e-4, 1e-5) for m in (0.0, 0.01, 0.05)]
    settings.append((50, 0.001, 0.0))
    questions = [(TIGERBEETLE, *setting) for setting in settings]
    questions += [(random_series(rng), 50, p, 0.0) for p in (0.01, 0.001, 1e-5) for _ in range(100)]
    names = ("series", "window", "max_p_value", "min_magnitude")
    asked = "".join(json.dumps(dict(zip(names, question))) + "\n" for question in questions)
    answers = subprocess.run([sys.argv[1]], input=asked, capture_output=True, text=True, check=True).stdout.splitlines()
    different = 0
    for (series, window, max_p_value, min_magnitude), answer in zip(questions, answers, strict=True):
        points, _ = compute_change_points(
            series, window_len=window, max_pvalue=max_p_value, min_magnitude=min_magnitude
        )
        expected = [int(point.index) for point in points]
        if json.loads(answer) != expected:
            different += 1
            known = "tigerbeetle" if series is TIGERBEETLE else f"{len(series)} points"
            print(f"{known}, p {max_p_value}, magnitude {min_magnitude}: {answer}, apache-otava {expected}")
    assert not different, f"{different} of {len(questions)} differ"
    print(f"{len(questions)} series and settings: the points of apache-otava")


if __name__ == "__main__":
    main()
