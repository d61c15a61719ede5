"""Runs of the tables: remembered by what decided them, on as many cores as there are workers."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import multiprocessing
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing import connection
from pathlib import Path
from typing import Any, TypeVar

import jax

from nlx.experiment.console import Console
from nlx.experiment.main import Train, run_recipe
from nlx.experiment.options import RecipeOptions
from nlx.experiment.run_folder import write_json
from nlx.experiment.signals import Stopped
from nlx.files import replacing
from nlx.training.observers import Interrupted

RESULTS = Path(__file__).resolve().parents[1] / "results"

A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True)
class Entry:
    """A method in a table: the recipe that makes it, and its options."""

    options: RecipeOptions
    train: Train[Any]

    def but(self, **options: Any) -> Entry:
        """The same with other options."""
        return Entry(replace(self.options, **options), self.train)


class Runner:
    """Runs single seeds and remembers their summaries by what decided them; a context that ends its workers.

    Attributes:
      seeds: of each method.
      quick: one seed, a third of the epochs, fewer cases, no tuning.
      workers: runs at a time, each in a process with a core of its own; 1 trains in this process, on all cores.
      run_seconds: what the runs that were asked for took, whether now or when they were remembered.
      shared: folder whose data/ holds the real data of the small protocols.
    """

    def __init__(
        self,
        console: Console,
        seeds: int,
        shared: Path,
        *,
        quick: bool = False,
        workers: int = 1,
        compiled: str | None = None,
    ):
        """As the attributes say; ``compiled`` is a folder for the programs that runs share."""
        self.console, self.seeds, self.shared = console, 1 if quick else seeds, shared
        self.quick, self.workers, self.run_seconds = quick, workers, 0.0
        self._locks: dict[Path | None, threading.Lock] = {}
        share_programs(compiled)
        self._pool = None
        if workers > 1:
            spawn = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(workers, spawn, initializer=_settle, initargs=(compiled,))

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._pool is not None:
            if kind is not None:
                self._end_workers()
            self._pool.shutdown(cancel_futures=True)

    def __call__(self, label: str, entry: Entry, keep: Path | None = None) -> dict[str, Any]:
        """The summary of a run: a remembered one, or a new one.

        Args:
          label: what the console calls it.
          entry: what to run.
          keep: where the run's labels.parquet is to be kept, for methods that read it.
        """
        entry = self._shortened(entry)
        about, path = self._remembered(entry)
        with self._locks.setdefault(path, threading.Lock()):
            if path.exists() and (keep is None or keep.exists()):
                summary: dict[str, Any] = json.loads(path.read_text())["summary"]
            else:
                if self._pool is None:
                    summary = train(entry, keep)
                else:
                    summary = self._pool.submit(_train_or_end, entry, keep).result()
                write_json(path, {"label": label, **about, "summary": summary})
                self.console.say(f"{label}: {headline(summary)} ({summary['wall_seconds']:.0f} s)")
        with self._locks.setdefault(None, threading.Lock()):
            self.run_seconds += summary["wall_seconds"]
        return summary

    def map(self, function: Callable[[A], B], items: Iterable[A]) -> list[B]:
        """``[function(item) for item in items]``; with workers, all at once, so that none of them waits for runs."""
        if self._pool is None:
            return [function(item) for item in items]
        waiting = list(items)
        with ThreadPoolExecutor(max(1, len(waiting))) as threads:
            futures = [threads.submit(function, item) for item in waiting]
            try:
                for future in as_completed(futures):  # what failed first says why; what is then dropped does not
                    future.result()
            except BaseException:
                self._end_workers()  # the threads wait for them
                raise
            return [future.result() for future in futures]

    def _end_workers(self) -> None:
        """Drop what waits in line, and stop what is running."""
        assert self._pool is not None
        self._pool.shutdown(wait=False, cancel_futures=True)
        for worker in multiprocessing.active_children():
            worker.terminate()

    def either(self, whole: Sequence[Any], quick: Sequence[Any]) -> Sequence[Any]:
        """What a table goes through, or less of it where it has to be quick."""
        return quick if self.quick else whole

    def _shortened(self, entry: Entry) -> Entry:
        if self.quick and entry.options.epochs is not None:
            return entry.but(epochs=max(min(2, entry.options.epochs), entry.options.epochs // 3))
        return entry

    def _remembered(self, entry: Entry) -> tuple[dict[str, Any], Path]:
        """What decides a run, and where its summary is kept."""
        options = {name: str(value) for name, value in sorted(vars(entry.options).items())}
        for folder, name in ((self.shared, "shared"), (RESULTS, "results")):
            options = {option: value.replace(str(folder), name) for option, value in options.items()}
        about = {"recipe": entry.train.__module__, **options}
        return about, RESULTS / "runs" / f"{hashlib.sha256(json.dumps(about).encode()).hexdigest()[:20]}.json"


def train(entry: Entry, keep: Path | None) -> dict[str, Any]:
    """Train in a folder that is thrown away.

    Args:
      entry: what to run.
      keep: where the run's labels.parquet goes, if anywhere.

    Returns:
      The run's summary.
    """
    with tempfile.TemporaryDirectory() as scratch, contextlib.redirect_stderr(io.StringIO()):
        folder = Path(scratch) / "run"
        options = replace(entry.options, run_dir=folder, checkpoint_seconds=1e9)
        summary = run_recipe(options, entry.train, pictures=False)
        if keep is not None:
            with replacing(keep) as file:
                file.write((folder / "labels.parquet").read_bytes())
    return summary


def _train_or_end(entry: Entry, keep: Path | None) -> dict[str, Any]:
    """:func:`train` in a worker, which ends where it is asked to stop, so that nothing that waits is begun."""
    try:
        return train(entry, keep)
    except (Stopped, Interrupted):
        os._exit(1)


def headline(summary: dict[str, Any]) -> str:
    """The scores of a run that a reader looks for first."""
    shown = ("test_map", "test_accuracy", "recovery", "outlier_ap", "transition_mae", "validation_score")
    return ", ".join(f"{name} {100 * summary['last'][name]:.1f}" for name in shown if name in summary["last"])


def share_programs(folder: str | None) -> None:
    """Keep compiled programs in a folder: to compile them anew for each run would take longer than to train."""
    if folder is not None:
        jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


def _settle(compiled: str | None) -> None:
    """Give a worker a core of its own, where the system lets a process choose, and let it end with its parent."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    if hasattr(os, "sched_setaffinity"):
        allowed = sorted(os.sched_getaffinity(0))
        # Workers are numbered one after another.
        number = int(multiprocessing.current_process().name.rpartition("-")[2])
        os.sched_setaffinity(0, {allowed[number % len(allowed)]})
    share_programs(compiled)
