"""The README's tables and pictures, made from what lies in benchmarks/results.

  python benchmarks/readme.py
  python benchmarks/readme.py --check

A block of the README between ``<!-- NAME -->`` and ``<!-- end of NAME -->`` is replaced; nothing else is touched.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from matplotlib.ticker import PercentFormatter

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.protocols.common import spread, table
from benchmarks.protocols.leaderboard import CASES, PLAIN, SYSTEMS
from benchmarks.protocols.runner import RESULTS
from nlx.report.figures import BLUE, GREEN, GREY, RED, new_figure, save

NEEDED = ("leaderboard-small.json", "layer-fig3-small.json", "speed-cpu.json")
NOT_TESTED = {
    "can-2, can-3": "needs WEB and VOC; [one command](docs/full_size.md)",
    "can-4": "needs the features of AMT and SD4; likewise",
    "can-fig7, can-fig9": "pictures; a run of `recipes/can.py` draws them",
    "self-1, verified and clean labels": "needs Clothing1M; likewise",
    "self-5": "needs Food-101N; likewise",
}
README = Path(__file__).resolve().parents[1] / "README.md"


@dataclass(frozen=True)
class Options:
    """What to do."""

    check: bool = False
    """Change nothing; say whether the README's blocks are what the results give."""


def read(name: str) -> dict[str, Any]:
    """A file of results."""
    content: dict[str, Any] = json.loads((RESULTS / name).read_text())
    return content


def leaderboard() -> list[str]:
    """Accuracy of every method on every case, and what becomes of the worst labels; the systems first."""
    results = read("leaderboard-small.json")["results"]
    others = sorted((n for n in results["worst"] if n not in SYSTEMS), key=lambda n: -accuracy(results["worst"][n]))
    names = [*sorted(SYSTEMS, key=lambda n: -accuracy(results["worst"][n])), *others]
    rows = []
    for name in names:
        worst = results["worst"][name]["last"]
        cells = [spread(results[case][name]["last"]["test_accuracy"]) for case in CASES]
        cells += [spread(worst[m]) if m in worst else "" for m in ("recovery", "issue_auc")]
        rows.append([f"**{name}**" if name in SYSTEMS else name, *cells])
    return table(["method", *CASES, "worst: labels recovered", "worst: AUC of 'wrong'"], rows)


def accuracy(row: dict[str, Any]) -> float:
    """Mean test accuracy after the last epoch."""
    return float(np.mean(row["last"]["test_accuracy"]))


def speed() -> list[str]:
    """Every measurement that has a limit."""
    rows = []
    for section in read("speed-cpu.json")["sections"].values():
        for row in section["rows"]:
            if row["limit"] is not None:
                figures = f"{1e3 * row['ours_s']:.3g} ms", f"{row['ratio']:.2f}", f"{row['limit']:.3g}", row["met"]
                rows.append([row["name"], *figures])
    return table(["measurement", "ours", "ratio", "limit", "met"], rows)


def claims() -> list[str]:
    """How many claims of the papers hold, are not shown, or do not hold, by protocol."""
    rows = []
    for path in sorted(RESULTS.glob("*-small.json")):
        verdicts = [c["verdict"] for c in json.loads(path.read_text())["claims"]]
        counts = [str(verdicts.count(v)) for v in ("holds", "not shown", "does not hold")]
        name = path.stem.removesuffix("-small")
        rows.append([f"[{name}](benchmarks/results/{path.stem}.md)", *counts, ""])
    rows += [[name, "", "", "", why] for name, why in NOT_TESTED.items()]
    return table(["protocol", "claims that hold", "not shown", "do not hold", "not tested"], rows)


BLOCKS: dict[str, Callable[[], list[str]]] = {"leaderboard": leaderboard, "claims": claims, "speed": speed}


def draw_leaderboard(path: Path) -> None:
    """Accuracy on the labels with most noise, by people and made, mean and standard deviation over seeds, sorted."""
    results = read("leaderboard-small.json")["results"]
    names = sorted(results["worst"], key=lambda n: accuracy(results["worst"][n]))
    figure = new_figure(7.5, 0.6 + 0.3 * len(names))
    axes = figure.subplots()
    for case, colour, marker in (("worst", BLUE, "o"), ("instance", RED, "s")):
        values = [results[case][n]["last"]["test_accuracy"] for n in names]
        means, stds = [np.mean(v) for v in values], [np.std(v, ddof=1) if len(v) > 1 else 0 for v in values]
        axes.errorbar(means, range(len(names)), xerr=stds, fmt=marker, color=colour, capsize=2, label=case)
    axes.set_yticks(range(len(names)), names)
    for tick, name in zip(axes.get_yticklabels(), names, strict=True):
        tick.set_fontweight("bold" if name in SYSTEMS else "normal")
    axes.axvline(accuracy(results["worst"][PLAIN]), color=GREY, linestyle="--", linewidth=1)
    axes.xaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    axes.set_title("CIFAR-10N, 40 % of the labels wrong: test accuracy after the last epoch", loc="left", fontsize=11)
    axes.legend(frameon=False, loc="lower right")
    finish(axes, path)


def draw_noise_rates(path: Path) -> None:
    """Accuracy by noise rate with plain training, T learned and T known."""
    content = read("layer-fig3-small.json")
    results = content["results"]
    figure = new_figure(7.5, 3.2)
    axes = figure.subplots()
    lines = (("plain", GREY, "o:"), ("learned T", BLUE, "s-"), ("true T", GREEN, "^--"))
    for name, colour, style in lines:
        values = [results[rate][name]["last"]["test_accuracy"] for rate in results]
        means, stds = [np.mean(v) for v in values], [np.std(v, ddof=1) if len(v) > 1 else 0 for v in values]
        axes.errorbar([float(r) for r in results], means, yerr=stds, fmt=style, color=colour, capsize=2, label=name)
    axes.xaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    axes.set_xlabel("labels that are wrong, each class taken for three others")
    axes.set_title(f"{content['dataset']}: test accuracy after the last epoch", loc="left", fontsize=11)
    axes.legend(frameon=False, loc="lower left")
    finish(axes, path)


def finish(axes: Any, path: Path) -> None:
    """Give a picture the look that both share, and write it."""
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    save(axes.figure, path)


def filled(text: str) -> str:
    """The README with its blocks made anew.

    Raises:
      ValueError: a block that the README does not have.
    """
    for name, make in BLOCKS.items():
        pattern = re.compile(f"(<!-- {name} -->\n).*?(<!-- end of {name} -->)", re.DOTALL)
        match = pattern.search(text)
        if match is None:
            raise ValueError(f"README.md has no block between <!-- {name} --> and <!-- end of {name} -->")
        block = "\n".join(make())
        text = f"{text[: match.end(1)]}{block}\n{text[match.start(2) :]}"
    return text


def main() -> int:
    """Fill in the README, or say whether that would change it."""
    options = tyro.cli(Options, description=__doc__, use_underscores=True)
    if missing := [name for name in NEEDED if not (RESULTS / name).exists()]:
        print(f"not there: {', '.join(missing)} in {RESULTS}; run benchmarks/tables.py and benchmarks/speed.py first")
        return 1
    text = README.read_text()
    if options.check:
        if filled(text) == text:
            return 0
        print("README.md does not show what lies in benchmarks/results: run python benchmarks/readme.py")
        return 1
    README.write_text(filled(text))
    draw_leaderboard(RESULTS / "leaderboard.png")
    draw_noise_rates(RESULTS / "layer-fig3.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
