"""Checkpoints of a whole run state, written in the background, by orbax."""

from __future__ import annotations

import json
import textwrap
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import tensorstore
from etils import epath
from orbax.checkpoint import v1 as ocp

from nlx.training.mesh import agree
from nlx.training.observers import Observer, Row, Trains
from nlx.training.stages import Stages
from nlx.training.state import TrainState

_SHARE = 20  # seconds of training for each that a checkpoint holds it up


class CheckpointError(RuntimeError):
    """A checkpoint that could not be written or read; the message names the fix."""


class Checkpoints(Observer):
    """Keeps the last two states of a training in a folder; an observer for :class:`nlx.training.trainer.Trainer`.

    Args:
      directory: of these checkpoints alone, which all processes reach: a path, or ``gs://BUCKET/FOLDER``.
      seconds: least time between two checkpoints, within an epoch or between two; longer where writing would hold the
        training up for more than a twentieth of it, but 0 writes one about twice a second. One is written at the end in
        any case, and wherever a stop is asked for.
      about: what training they are of, such as digests of the data; others are refused.

    Attributes:
      directory: where they lie.
      damaged: steps of checkpoints that could not be read.

    Raises:
      CheckpointError: a folder that cannot be reached.
    """

    def __init__(self, directory: str | Path, seconds: float = 60.0, about: Mapping[str, str] | None = None):
        self._about = dict(about or {})
        self._seconds, self._saved = seconds, time.monotonic()
        try:
            self.directory = epath.Path(directory)
            if not _is_remote(self.directory):
                self.directory = self.directory.absolute()
            self.directory.exists()
        except Exception as error:
            why = "pip install 'nlx[gcs]'" if isinstance(error, ImportError) else _first_line(error)
            raise CheckpointError(f"`checkpoint_dir`={directory} cannot be reached: {why}") from error
        self._took = 0.0  # seconds that the training waited for the last one
        self.damaged: set[int] = set()
        self._partial: int | None = None  # the step of a state whose epoch was still under way
        self._opened: ocp.training.Checkpointer | None = None

    @property
    def _orbax(self) -> ocp.training.Checkpointer:
        if self._opened is None:
            context = ocp.Context()
            # Spreading each array's rows over the devices that hold it compiles a slice per shape: seconds to minutes.
            context.array.saving.use_replica_parallel = False
            # Of trained numbers compression saves a seventh, and costs a second copy in memory and seven times as long.
            context.array.saving.use_compression = False
            self._opened = ocp.training.Checkpointer(
                self.directory,
                context=context,
                preservation_policy=ocp.training.preservation_policies.LatestN(2),
                cleanup_tmp_directories=True,
            )
        return self._opened

    def on_start(self, trainer: Trains, stages: Stages, state: TrainState) -> None:
        """Make the folder, and refuse one of another training, whose checkpoints would stay in place of this one's."""
        self._saved, done = time.monotonic(), int(state.step)
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CheckpointError(f"{self.directory} cannot be made ({error.strerror or error})") from error
        saved = self._steps()
        if any(step > done for step in saved - self.damaged):
            raise CheckpointError(
                f"{self.directory} holds checkpoint {max(saved)}, but training is to start after step {done}: go on "
                "with the state that `load` gives, or choose another folder"
            )

    def on_steps(self, state: TrainState) -> None:
        """See :class:`Observer`."""
        began = time.monotonic()
        wait = max(self._seconds, _SHARE * self._took) if self._seconds else 0.0
        if agree(0, began - self._saved >= wait)[1]:
            self.save(state)
            self._saved = time.monotonic()
            self._took = self._saved - began

    def on_epoch(self, state: TrainState, row: Row) -> None:
        """See :class:`Observer`."""
        if int(state.step) != self._partial:  # to be written anew it would have to be deleted first
            self.on_steps(state)

    def on_stop(self, state: TrainState) -> None:
        """See :class:`Observer`."""
        self.save(state, kept=True)
        self.wait()

    def on_end(self, state: TrainState) -> None:
        """See :class:`Observer`."""
        self.save(state, kept=True)

    def close(self, error: BaseException | None) -> None:
        """Wait for writing to end."""
        if self._opened is None:
            return
        opened, self._opened = self._opened, None
        if error is None:
            self._guard(opened.close)
            return
        try:
            opened.close()
        except Exception as late:  # the error under way is what the user has to hear of
            error.add_note(f"the last checkpoint was not written either: {late}")

    def save(self, state: TrainState, *, kept: bool = False) -> None:
        """Write a state in the background; waits while the one before is still being written.

        Args:
          state: what to write.
          kept: whether nothing consumes it before :meth:`wait` or :meth:`close` returns; otherwise it waits until
            nothing is read from the devices any more: of an accelerator orbax has copied all by then, on a CPU it reads
            the very buffers that the next step writes to, until all is on disk.
        """
        step = int(state.step)
        rewrite = self.damaged | ({self._partial} if not state.sums else set())
        if step in self._steps() - rewrite:
            return
        self._guard(
            lambda: self._orbax.save_async(
                step, state, force=True, overwrite=step in rewrite, custom_metadata=self._about
            )
        )
        if not kept and next(iter(state.step.devices())).platform == "cpu":
            self.wait()
        self.damaged.discard(step)
        self._partial = step if state.sums else None

    def wait(self) -> None:
        """Return once everything is on disk."""
        self._guard(self._orbax.wait)

    def load(self, abstract: TrainState) -> TrainState | None:
        """The latest readable state, placed as ``abstract`` says, or None without any.

        Args:
          abstract: shapes, dtypes and shardings, see :meth:`nlx.training.trainer.Trainer.abstract_state`.

        Damaged checkpoints (a disk that was full, a machine that lost power) are passed over for the one before, and
        left where they are until the run comes to their step again.

        Raises:
          CheckpointError: the latest one belongs to another model, method or data set, or none can be read.
        """
        first: Exception | None = None
        for step in sorted(self._steps(), reverse=True):
            try:
                _read_through(self.directory / str(step) / "state")
                found = self._orbax.metadata(step)
                if self._about and not found.custom_metadata:
                    raise ValueError("it does not say what it is of")
                stored, wanted = found.metadata, _with_sums(found.metadata, abstract)
                difference = _difference(stored, abstract) or _other(found.custom_metadata or {}, self._about)
                state = None if difference else self._orbax.load(step, abstract_state=wanted)
            except Exception as error:
                first = first or error
                self.damaged.add(step)
                continue
            if difference:
                raise CheckpointError(
                    f"checkpoint {step} in {self.directory} is of another training ({difference}): go on with the "
                    "model, method and data that it was started with, or choose another folder"
                )
            self._partial = step if wanted.sums else None
            return state
        if first is None:
            return None
        raise CheckpointError(
            f"no checkpoint in {self.directory} can be read ({_first_line(first)}): delete that folder to start again"
        ) from first

    def _steps(self) -> set[int]:
        try:
            return {c.step for c in self._orbax.checkpoints}
        except Exception as error:
            raise CheckpointError(
                f"the checkpoints in {self.directory} cannot be told apart ({_first_line(error)}): delete the damaged "
                "one, or that folder to start again"
            ) from error

    def _guard(self, action: Callable[[], object]) -> None:
        try:
            action()
        except Exception as error:
            raise CheckpointError(
                f"could not write a checkpoint to {self.directory} ({_first_line(error)}); free space or fix the "
                "folder, then resume: the checkpoint before is intact"
            ) from error


def _is_remote(folder: epath.Path) -> bool:
    return "://" in str(folder)


def _read_through(folder: epath.Path) -> None:
    """Read one array after another, and raise where one cannot be read.

    Orbax reads them side by side, and where one cannot be read prints a traceback for every other one.
    """
    for file in folder.glob("array_metadatas/*"):
        json.loads(file.read_bytes())
    place = str(folder)
    store = {"driver": "ocdbt", "base": f"{place}/" if _is_remote(folder) else f"file://{place}/"}
    keys = [key.decode() for key in tensorstore.KvStore.open(store).result().list().result()]
    arrays = [key.removesuffix("zarr.json") for key in keys if key.endswith("/zarr.json")]
    if not arrays:
        raise ValueError("it holds no arrays")
    for path in arrays:
        spec = {"driver": "zarr3", "kvstore": {**store, "path": path}}
        tensorstore.open(spec, read=True, recheck_cached=False).result().read().result()


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


def _other(there: Any, here: Mapping[str, str]) -> str:
    """The first thing that a checkpoint says of its training and that is not so here."""
    names = [name for name, value in here.items() if there.get(name) != value]
    return f"{names[0]} is {there.get(names[0], 'missing')} there and {here[names[0]]} here" if names else ""


def _with_sums(stored: Any, abstract: TrainState) -> TrainState:
    """What to load: the sums of the epoch under way are whatever the stage that was left had."""
    scalar = jax.ShapeDtypeStruct((), jnp.float32, sharding=abstract.step.sharding)
    sums: dict[str, Any] = dict.fromkeys(_sums(stored), scalar)
    return abstract._replace(sums=sums)


def _sums(stored: Any) -> list[str]:
    names = (jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in _leaves(stored))
    return [name.removeprefix("sums/") for name in names if name.startswith("sums/")]


def _forms(tree: Any) -> dict[str, str]:
    """Dtype and shape of each leaf by its place, the same for a state and for what orbax says of a stored one."""

    def form(leaf: Any) -> str:
        if isinstance(leaf, jax.ShapeDtypeStruct) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.eval_shape(jax.random.key_data, leaf)  # keys are stored as their words
        return f"{jnp.dtype(leaf.dtype).name}{list(leaf.shape)}"

    named = {jax.tree_util.keystr(path, simple=True, separator="/"): form(leaf) for path, leaf in _leaves(tree)}
    return {name: text for name, text in named.items() if not name.startswith("sums/")}


def _leaves(tree: Any) -> list[tuple[jax.tree_util.KeyPath, Any]]:
    return jax.tree_util.tree_leaves_with_path(tree)


def _first_line(error: BaseException) -> str:
    while error.__cause__ is not None:  # orbax wraps what went wrong in pages of what it tried
        error = error.__cause__
    return textwrap.shorten((str(error).strip() or type(error).__name__).splitlines()[0], 200)
