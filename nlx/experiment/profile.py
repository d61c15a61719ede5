"""A profile of a few steps, for those who want to see where a training's time goes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import jax

from nlx.training.observers import Observer, Progress

_STEPS = 5  # at least, of those after the first program, in which all is compiled


class Profile(Observer):
    """Writes a trace of some steps early in a training, which XProf and Perfetto show; each process one of its own.

    Args:
      folder: where to.
      say: told where it lies, or why there is none.
    """

    def __init__(self, folder: Path, say: Callable[[str], None]):
        self._folder, self._say = folder / f"process-{jax.process_index()}", say
        self._looks, self._begun, self._done = 0, 0, False

    def on_progress(self, progress: Progress) -> None:
        """See :class:`Observer`."""
        self._looks += 1
        if self._done:
            return
        if not self._begun:
            if progress.done < progress.total:
                self._trying(lambda: jax.profiler.start_trace(self._folder))
                self._begun = progress.done
        elif progress.done >= self._begun + _STEPS or progress.done == progress.total:
            self._end()

    def close(self, error: BaseException | None) -> None:
        """End what is under way."""
        if self._begun and not self._done:
            self._end()
        elif self._looks and not self._done:
            self._say("there is no profile: no epoch has more steps than the first program took")

    def _end(self) -> None:
        if self._trying(jax.profiler.stop_trace):
            self._say(f"a profile of some steps lies in {self._folder}: pip install xprof; xprof {self._folder}")
        self._done = True

    def _trying(self, action: Callable[[], object]) -> bool:
        """Whether it could be done; a profile is not worth a training."""
        try:
            action()
        except (RuntimeError, OSError, ValueError) as error:
            self._done = True
            self._say(f"warning: there is no profile ({str(error).partition(chr(10))[0]})")
            return False
        return True
