"""Checkpoints of a whole run state, written in the background, by orbax."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

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
        context = ocp.Context()
        # Spreading each array's rows over the devices that hold it compiles a slice per shape: seconds to minutes.
        context.array.saving.use_replica_parallel = False
        self._orbax = ocp.training.Checkpointer(
            directory.resolve(),
            context=context,
            preservation_policy=ocp.training.preservation_policies.LatestN(2),
            cleanup_tmp_directories=True,
        )
        self._damaged: set[int] = set()

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
        if step in {c.step for c in self._orbax.checkpoints} - self._damaged:
            return
        # On CPU the writer may still read the buffers that the next step, which gets the state donated, writes to.
        copy = jax.tree.map(jnp.copy, state)
        self._guard(lambda: self._orbax.save_async(step, copy, force=True, overwrite=step in self._damaged))
        self._damaged.discard(step)

    def wait(self) -> None:
        """Return once everything is on disk."""
        self._guard(self._orbax.wait)

    def load(self, abstract: TrainState) -> TrainState | None:
        """The latest readable state, placed as ``abstract`` says (shapes, dtypes and shardings), or None without any.

        Damaged checkpoints (a disk that was full, a machine that lost power) are passed over for the one before, and
        left where they are until the run comes to their step again.

        Raises:
          CheckpointError: the latest one belongs to another model, method or data set, or none can be read.
        """
        first: Exception | None = None
        for step in sorted((c.step for c in self._orbax.checkpoints), reverse=True):
            try:
                difference = _difference(self._orbax.metadata(step).metadata, abstract)
                state = None if difference else self._orbax.load(step, abstract_state=abstract)
            except Exception as error:
                first = first or error
                self._damaged.add(step)
                continue
            if difference:
                raise CheckpointError(
                    f"checkpoint {step} in {self.directory} is of another run ({difference}): resume with the options "
                    "that run was started with, or choose another --run_dir"
                )
            return state
        if first is None:
            return None
        raise CheckpointError(
            f"no checkpoint in {self.directory} can be read ({_first_line(first)}): delete that folder to start again"
        ) from first

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


def _difference(stored: Any, abstract: TrainState) -> str:
    """Where what a checkpoint holds is not what a run needs, in words; empty where it is."""
    if stored is None:
        raise ValueError("it does not say what it holds")
    has, needs = _forms(stored), _forms(abstract)
    different = [name for name in has.keys() | needs.keys() if has.get(name) != needs.get(name)]
    if not different:
        return ""
    name = min(different, key=lambda name: (len(name), name))  # a parameter rather than its moments
    return f"{name} is {has.get(name, 'missing')} there and {needs.get(name, 'missing')} here"


def _forms(tree: Any) -> dict[str, str]:
    """Dtype and shape of each leaf by its place, the same for a state and for what orbax says of a stored one."""

    def form(leaf: Any) -> str:
        if isinstance(leaf, jax.ShapeDtypeStruct) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.eval_shape(jax.random.key_data, leaf)  # keys are stored as their words
        return f"{jnp.dtype(leaf.dtype).name}{list(leaf.shape)}"

    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): form(leaf) for path, leaf in leaves}


def _first_line(error: BaseException) -> str:
    while error.__cause__ is not None:  # orbax wraps what went wrong in pages of what it tried
        error = error.__cause__
    return textwrap.shorten((str(error).strip() or type(error).__name__).splitlines()[0], 200)
