"""Checkpoints of a whole run state, written in the background, by orbax."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import jax
import jax.numpy as jnp
from orbax.checkpoint import v1 as ocp

from nlx.training.state import TrainState


class CheckpointError(RuntimeError):
    """A checkpoint that could not be written or read; the message names the fix."""


class Checkpoints:
    """The last two checkpoints of a run. Use it as a context manager: leaving it waits for writing to end."""

    def __init__(self, directory: Path):
        self.directory = directory
        keep = ocp.training.preservation_policies.LatestN(2)
        self._orbax = ocp.training.Checkpointer(
            directory.resolve(), preservation_policy=keep, cleanup_tmp_directories=True
        )

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._guard(self._orbax.close)
        else:
            # The error under way is what the user has to hear of.
            try:
                self._orbax.close()
            except Exception as late:
                assert error is not None
                error.add_note(f"the last checkpoint was not written either: {late}")

    def save(self, step: int, state: TrainState) -> None:
        """Write a state in the background; waits only where the one before is still being written."""
        if step in {c.step for c in self._orbax.checkpoints}:
            return
        # On CPU the writer may still read the buffers that the next step, which gets the state donated, writes to.
        copy = jax.tree.map(jnp.copy, state)
        self._guard(lambda: self._orbax.save_async(step, copy, force=True))

    def wait(self) -> None:
        """Return once everything is on disk."""
        self._guard(self._orbax.wait)

    def load(self, abstract: TrainState) -> TrainState | None:
        """The latest state, placed as ``abstract`` says (shapes, dtypes and shardings), or None where there is none.

        Raises:
          CheckpointError: it belongs to another model, method or data set, or is damaged.
        """
        if self._orbax.latest is None:
            return None
        try:
            return self._orbax.load(self._orbax.latest, abstract_state=abstract)
        except Exception as error:
            raise CheckpointError(
                f"checkpoint {self._orbax.latest.step} in {self.directory} could not be read ({_first_line(error)}); resume "
                "with the options the run was started with, or delete that checkpoint's folder to use the one before"
            ) from error

    def _guard(self, action: Callable[[], object]) -> None:
        try:
            action()
        except Exception as error:
            raise CheckpointError(
                f"could not write a checkpoint to {self.directory} ({_first_line(error)}); free space or fix the "
                "folder, then go on with --resume: the checkpoint before is intact"
            ) from error


def abstract_state(state: TrainState) -> TrainState:
    """Shapes, dtypes and shardings of a state."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
