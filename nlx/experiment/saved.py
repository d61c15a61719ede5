"""What a run has trained, kept to be used without its data: a program for any number of examples, and its weights.

The program is the whole way from stored inputs to scores: preparation, backbone, test views and what the method makes
of the outputs. So no backbone, method or option has to be built again, and all systems are read alike.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from jax import Array, export
from numpy.typing import ArrayLike

from nlx.arguments import ArgumentError
from nlx.cleaning.blocks import kept
from nlx.cleaning.evidence import weigh, weigh_each
from nlx.cleaning.table import LabelTable, label_table
from nlx.data.batches import eval_batches
from nlx.data.checks import split_of
from nlx.data.dataset import Dataset, ImageFiles, Inputs, Split
from nlx.experiment.run_folder import versions, write_json
from nlx.files import replacing
from nlx.training.state import TrainState, predicting_params
from nlx.training.trainer import Trainer

PROGRAM, WEIGHTS, ABOUT = "model.jaxexport", "model.safetensors", "model.json"
PLATFORMS = ("cpu", "cuda", "tpu")
_BATCH = 512  # as in a trainer's passes: where predictions are sampled, draws are by position

Weights = dict[str, Array]
Scores = Callable[[Weights, Array], Array]
"""(weights by name, stored inputs ``[B, ...]``) -> scores ``[B, K]``, logits or log-odds."""


def save_trained(folder: Path, trainer: Trainer, state: TrainState, data: Dataset) -> None:
    """Keep what a trainer has learnt, see :func:`save_program`."""
    leaves, tree = jax.tree_util.tree_flatten_with_path({"params": predicting_params(state), "stats": state.stats})
    named = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
    keys = {name: leaf for name, leaf in named.items() if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)}
    weights = {name: np.asarray(leaf) for name, leaf in named.items() if name not in keys}
    model, method = trainer.model, trainer.method

    def scores(weights: Weights, inputs: Array) -> Array:
        learnt = jax.tree.unflatten(tree, [(keys | weights)[name] for name in named])
        outputs = model.apply_test(learnt["params"]["model"], learnt["stats"], inputs)
        return method.predict(learnt["params"]["method"], outputs)

    save_program(
        folder,
        scores,
        weights,
        data.train.inputs,
        class_names=data.class_names,
        multi_label=data.multi_label,
        about={"method": method.name, "dataset": data.name},
    )


def save_program(
    folder: Path,
    scores: Scores,
    weights: Mapping[str, np.ndarray],
    inputs: Inputs,
    *,
    class_names: Sequence[str],
    multi_label: bool,
    about: Mapping[str, str],
) -> None:
    """Write model.jaxexport, model.safetensors and model.json, which :func:`load_run` reads.

    Args:
      folder: where to.
      scores: what the program is to compute.
      weights: by name.
      inputs: such as it takes; only their form matters.
      class_names: K names.
      multi_label: whether each class is a question of its own.
      about: ``method`` and ``dataset``, by name.
    """
    batch = _any_number(inputs.shape[1:], inputs.dtype)
    form = {name: jax.ShapeDtypeStruct(w.shape, w.dtype) for name, w in weights.items()}
    try:
        program = export.export(jax.jit(scores), platforms=PLATFORMS)(form, batch)
    except (TypeError, jax.errors.InconclusiveDimensionOperation):  # Gibbs chains are packed by their number
        program = export.export(jax.jit(partial(_in_blocks, scores)), platforms=PLATFORMS)(form, batch)
    _write(folder / PROGRAM, bytes(program.serialize()))
    _write(folder / WEIGHTS, safetensors.numpy.save({n: np.ascontiguousarray(w) for n, w in weights.items()}))
    told = {
        **about,
        "classes": list(class_names),
        "multi_label": multi_label,
        "input_shape": list(inputs.shape[1:]),
        "input_dtype": str(inputs.dtype),
        "white": inputs.top if isinstance(inputs, ImageFiles) else None,
        "versions": versions(),
    }
    write_json(folder / ABOUT, told)


class SavedModel:
    """What a run has trained; made by :func:`load_run`.

    Attributes:
      class_names: K names.
      multi_label: whether each class is a question of its own.
      input_shape: of one input.
      input_dtype: uint8 for images, float32 for features.
      method: name of the method.
      dataset: name of what it was trained on.
      weights: by name, as in model.safetensors.
    """

    def __init__(self, folder: Path):
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        self.class_names: tuple[str, ...] = tuple(about["classes"])
        self.multi_label: bool = about["multi_label"]
        self.input_shape: tuple[int, ...] = tuple(about["input_shape"])
        self.input_dtype = np.dtype(about["input_dtype"])
        self.method: str = about["method"]
        self.dataset: str = about["dataset"]
        self._white: float | None = about["white"]
        self.weights = safetensors.numpy.load_file(folder / WEIGHTS)
        self._program = export.deserialize(bytearray((folder / PROGRAM).read_bytes()))
        self._call = jax.jit(self._program.call)

    def files(self, paths: Sequence[str | Path]) -> ImageFiles:
        """Pictures as this model was trained on them; ArgumentError where it was not trained on pictures."""
        height, width, channels = self.input_shape if len(self.input_shape) == 3 else (0, 1, 0)
        if height != width or channels != 3:
            raise ArgumentError(f"the run takes inputs of shape {list(self.input_shape)}, no pictures: give an array")
        return ImageFiles(tuple(map(str, paths)), height, self._white)

    def scores(self, inputs: ArrayLike | ImageFiles) -> np.ndarray:
        """Logits, or log-odds of each class, float32 ``[n, K]``; see :meth:`predict`."""
        split = self._checked(inputs)
        size = min(_BATCH, 1 << (len(split) - 1).bit_length())  # few sizes, each of which is compiled once
        called = ((self._call(self.weights, batch["inputs"]), n) for batch, n in eval_batches(split, size))
        return np.concatenate([np.asarray(scores)[:n] for scores, n in called])

    def predict(self, inputs: ArrayLike | ImageFiles) -> np.ndarray:
        """Class probabilities of new inputs, prepared as those that the run was trained on.

        Args:
          inputs: as they were stored for the run: features, any float ``[n, F]``, or images, uint8 ``[n, H, W, C]``; or
            what :meth:`files` makes of paths.

        Returns:
          Rows that sum to 1, or a probability for each class by itself where the run had several labels to an example,
          float32 ``[n, K]``. They are those by which the run scored its test set.

        Raises:
          ArgumentError, DataError: inputs of another form.
        """
        return np.asarray(self._probs(jnp.asarray(self.scores(inputs))))

    def score(self, inputs: ArrayLike | ImageFiles, labels: ArrayLike) -> LabelTable:
        """Find wrong labels among new ones, which the run has not seen.

        Args:
          inputs: see :meth:`predict`.
          labels: class names or numbers ``[n]``, or {0, 1} vectors ``[n, K]``.

        Returns:
          A table like that of a run; ``evidence`` are the predictions. The posterior is by Bayes' rule with a matrix
          found on these labels, see :func:`nlx.cleaning.evidence.weigh`; of several labels, with one for each class.

        Raises:
          ArgumentError, DataError: labels that are of no class of the run, or what :meth:`predict` raises.
        """
        given = self._numbers(np.asarray(labels))
        probs = self.predict(inputs)
        if len(given) != len(probs):
            raise ArgumentError(f"inputs and labels must be of the same examples, got {len(probs)} and {len(given)}")
        return label_table(
            weigh_each(probs, given) if self.multi_label else weigh(probs, given).belief,
            given,
            extras={"evidence": probs if self.multi_label else kept(probs, given)},
            chosen="bayes",
            class_names=self.class_names,
            dataset=self.dataset,
            method=self.method,
        )

    def export(self, folder: str | Path) -> Path:
        """Write the model for use elsewhere, needing nothing but jax, or a reader of safetensors.

        ``model.jaxexport`` holds program and weights in one, from stored inputs ``[B, ...]``, for any B, to class
        probabilities, for cpu, cuda and tpu: ``jax.export.deserialize(bytearray(file.read_bytes())).call(inputs)``.
        ``model.safetensors`` and ``model.json`` are the weights by name and what the model takes and gives.

        Raises:
          ArgumentError: the folder exists.
        """
        folder = Path(folder)
        if folder.exists():
            raise ArgumentError(f"{folder} exists: choose another folder by `out`")
        weights = self.weights

        def probabilities(inputs: Array) -> Array:
            return self._probs(self._program.call(weights, inputs))

        program = export.export(jax.jit(probabilities), platforms=PLATFORMS)
        _write(folder / PROGRAM, bytes(program(_any_number(self.input_shape, self.input_dtype)).serialize()))
        _write(folder / WEIGHTS, safetensors.numpy.save(weights))
        told = {"classes": list(self.class_names), "multi_label": self.multi_label, "method": self.method}
        form_of = {"input_shape": list(self.input_shape), "input_dtype": str(self.input_dtype)}
        write_json(folder / ABOUT, {**told, **form_of, "platforms": list(PLATFORMS), "versions": versions()})
        return folder

    def _probs(self, scores: Array) -> Array:
        return jax.nn.sigmoid(scores) if self.multi_label else jax.nn.softmax(scores)

    def _checked(self, inputs: ArrayLike | ImageFiles) -> Split:
        split = Split(inputs, None, None) if isinstance(inputs, ImageFiles) else split_of(inputs)
        if (split.inputs.shape[1:], split.inputs.dtype) != (self.input_shape, self.input_dtype):
            got = f"{split.inputs.dtype} {['n', *split.inputs.shape[1:]]}".replace("'", "")
            wanted = f"{self.input_dtype} {['n', *self.input_shape]}".replace("'", "")
            raise ArgumentError(f"the run was trained on inputs {wanted}, got {got}: bring them into that form")
        return split

    def _numbers(self, labels: np.ndarray) -> np.ndarray:
        """Labels as numbers of the run's classes: by name, or the numbers themselves where they are no names."""
        k = len(self.class_names)
        if self.multi_label:
            if labels.ndim != 2 or labels.shape[1] != k or not np.isin(labels, (0, 1)).all():
                raise ArgumentError(f"labels must be a {{0, 1}} matrix [n, {k}] as the run's, got {labels.shape}")
            return labels.astype(np.uint8)
        if labels.ndim != 1:
            raise ArgumentError(f"labels must be of one class each, [n], as the run's, got {labels.shape}")
        number = {name: i for i, name in enumerate(self.class_names)}
        texts = list(map(str, labels.tolist()))
        unknown = next((text for text in texts if text not in number), None)
        if unknown is None:
            return np.array([number[text] for text in texts], np.int32)
        if all(text.isdecimal() and int(text) < k for text in texts):
            return np.array(list(map(int, texts)), np.int32)
        raise ArgumentError(f"{unknown!r} is no class of the run: rename it to one, or leave such rows out")


def load_run(path: str | Path) -> SavedModel:
    """What a run has trained, to predict from without its data.

    Args:
      path: the folder of a run of a recipe, of one seed, or of ``nlx clean``.

    Raises:
      ArgumentError: there is no model in it.

    Examples:
      >>> model = load_run("runs/can-web-sample")  # doctest: +SKIP
      >>> model.predict(images).argmax(axis=1)  # doctest: +SKIP
    """
    folder = Path(path)
    if not (folder / ABOUT).exists():
        seeds = sorted(p.name for p in folder.glob("seed-*"))
        fix = f"give one of its seeds, such as {folder / seeds[0]}" if seeds else "give the folder of a finished run"
        if (folder / "labels.parquet").exists() and not (folder / "config.json").exists():
            fix = "nlx clean keeps none of a sparse matrix, whose columns are of its own texts; give it embeddings"
        raise ArgumentError(f"{folder} holds no model: {fix}")
    try:
        return SavedModel(folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArgumentError(f"the model in {folder} cannot be read ({error}): run the training again") from error


def _in_blocks(scores: Scores, weights: Weights, inputs: Array) -> Array:
    """Scores of any number of inputs by a function that must know how many: block by block, the last one filled up."""
    n = inputs.shape[0]
    count = -(-n // _BATCH)
    rows = jnp.minimum(jnp.arange(count * _BATCH), n - 1)
    blocks = inputs[rows].reshape(count, _BATCH, *inputs.shape[1:])
    found = jax.lax.map(partial(scores, weights), blocks)
    return found.reshape(count * _BATCH, -1)[:n]


def _any_number(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
    """The form of any number of inputs."""
    (rows,) = export.symbolic_shape("b")
    return jax.ShapeDtypeStruct((rows, *shape), dtype)


def _write(path: Path, content: bytes) -> None:
    with replacing(path) as file:
        file.write(content)
