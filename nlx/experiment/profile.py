"""A profile of a few steps, for those who want to see where a training's time goes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import jax

from nlx.training.observers import Observer, Progress

_STEPS = 5  # at least, of those after the first program, in which all is compiled


class Profile(Observer):
    """Writes a trace of some steps early in a training, which XProf and Perfetto show; one for each process.

    Args:
      folder: where to.
      say: told where it lies.
    """

    def __init__(self, folder: Path, say: Callable[[str], None]):
        self._folder, self._say = folder, say
        self._begun: int | None = None
        self._done = False

    def on_progress(self, progress: Progress) -> None:
        """See :class:`Observer`."""
        if self._begun is None and progress.done < progress.total:
            jax.profiler.start_trace(self._folder)
            self._begun = progress.done
        elif self._begun is not None and (progress.done >= self._begun + _STEPS or progress.done == progress.total):
            self._end()

    def close(self, error: BaseException | None) -> None:
        """End what is under way."""
        if self._begun is not None:
            self._end()

    def _end(self) -> None:
        if not self._done:
            self._done = True
            jax.profiler.stop_trace()
            self._say(f"a profile of some steps lies in {self._folder}: pip install xprof; xprof {self._folder}")
