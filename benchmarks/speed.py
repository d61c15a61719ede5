"""How fast the training step and the kernels are, as ratios to peers and limits measured in the same run.

  python benchmarks/speed.py
  python benchmarks/speed.py --device=gpu --batch_size=128

Compilation is left out; every call is waited for; each figure is the median of interleaved runs. Two sides of a ratio
do the same work, and where both give a result the results are compared before anything is timed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from sklearn.metrics import average_precision_score

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.kernels.timing import Row, interleaved
from nlx import metrics
from nlx.losses import cross_entropy
from nlx.methods.can import can, paper_schedule
from nlx.methods.method import Method
from nlx.methods.plain import plain
from nlx.models import build
from nlx.training.folder import versions, write_json
from nlx.training.state import init_state, make_mesh
from nlx.training.step import Step, make_step, run_steps

RESULTS = Path(__file__).resolve().parent / "results"


@dataclass(frozen=True)
class Options:
    """What to time."""

    only: tuple[Literal["step", "dispatch", "map"], ...] = ("step", "dispatch", "map")
    """Which measurements."""
    device: Literal["cpu", "gpu"] = "cpu"
    """Where: one device of this kind."""
    batch_size: int = 64
    """Examples per step of the ResNet."""
    model: str = "resnet20"
    """Backbone of the step's comparison, at 32 pixels."""
    rounds: int = 11
    """Interleaved runs of each side, at least 5."""


def raw(inputs: jax.Array, key: jax.Array | None) -> jax.Array:
    """No preparation: what is timed is the step."""
    del key
    return inputs


def make_can(k: int) -> Method:
    """CAN with its default heads."""
    return can(k, temperature=paper_schedule(1000), rho=paper_schedule(1000, floor=0.0))


def prepared(method: Method, model_name: str, data: dict[str, np.ndarray], k: int) -> tuple[Any, Step]:
    """First state and step of a method on one device."""
    mesh = make_mesh(jax.devices()[:1])
    inputs = data.get("image", data.get("features"))
    assert inputs is not None
    model = build(model_name, inputs.shape[1:], k, widths=(32,) * 12 if model_name == "mlp" else None)
    optimizer = optax.sgd(0.01, momentum=0.9)
    batch = {name: jnp.asarray(rows[:2]) for name, rows in data.items()} | {"index": jnp.arange(2)}
    state = init_state(jax.random.key(0), model, method, optimizer, batch, len(inputs), mesh)
    return state, make_step(model, method, optimizer, raw, mesh)


def step_overhead(options: Options) -> list[Row]:
    """The CAN step against the plain step, same ResNet, same batch; target: at most 1.10."""
    rng = np.random.default_rng(0)
    n, k = options.batch_size, 10
    data = {"image": rng.normal(size=(n, 32, 32, 3)).astype(np.float32), "noisy_label": rng.integers(0, k, n, np.int32)}
    calls: dict[str, Callable[[], Any]] = {}
    for method in (plain(), make_can(k)):
        state, step = prepared(method, options.model, data, k)
        jitted = jax.jit(step, donate_argnums=0)
        batch = {name: jnp.asarray(rows) for name, rows in data.items()} | {"index": jnp.arange(n)}
        holder = [jitted(state, batch)]

        def call(holder: list[Any] = holder, jitted: Any = jitted, batch: Any = batch) -> Any:
            holder[0] = jitted(holder[0], batch)
            return holder[0].sums

        calls[method.name] = call
    t = interleaved(calls, options.rounds)
    name = f"step, {options.model} at 32 pixels, batch {n}: CAN / plain cross-entropy"
    return [{"name": name, "ours_s": t["can"], "peer_s": t["plain"], "ratio": t["can"] / t["plain"], "limit": 1.10}]


def dispatch(options: Options) -> list[Row]:
    """A small net of 26 leaves: our step against a bare one, dispatched one by one and inside one program."""
    rng = np.random.default_rng(0)
    n, k, b = 1024, 10, 16
    data = {"features": rng.normal(size=(n, 32)).astype(np.float32), "noisy_label": rng.integers(0, k, n, np.int32)}
    state, step = prepared(plain(), "mlp", data, k)
    batch = {name: jnp.asarray(rows[:b]) for name, rows in data.items()} | {"index": jnp.arange(b)}
    optimizer = optax.sgd(0.01, momentum=0.9)

    def bare(carry: Any, batch: Any) -> Any:
        """What one would write by hand: dicts of weights, no framework."""
        params, opt_state, total = carry

        def objective(params: Any) -> jax.Array:
            x = batch["features"]
            for i, layer in enumerate(params):
                x = x @ layer["kernel"] + layer["bias"]
                x = jax.nn.relu(x) if i < len(params) - 1 else x
            return jnp.mean(cross_entropy(x, batch["noisy_label"]))

        loss, grads = jax.value_and_grad(objective)(params)
        updates, opt_state = optimizer.update(grads, opt_state)
        return optax.apply_updates(params, updates), opt_state, total + loss

    leaves = jax.tree.leaves(state.params["model"])
    kernels = sorted((leaf for leaf in leaves if leaf.ndim == 2), key=lambda leaf: (leaf.shape[1] == k,))
    weights = [{"kernel": jnp.copy(w), "bias": jnp.zeros(w.shape[1])} for w in kernels]
    carry = (weights, optimizer.init(weights), jnp.zeros(()))
    ours_one, bare_one = jax.jit(step, donate_argnums=0), jax.jit(bare, donate_argnums=0)
    ours, theirs = [ours_one(state, batch)], [bare_one(carry, batch)]
    many = 200

    def call_ours() -> Any:
        for _ in range(many):
            ours[0] = ours_one(ours[0], batch)
        return ours[0].sums

    def call_bare() -> Any:
        for _ in range(many):
            theirs[0] = bare_one(theirs[0], batch)
        return theirs[0][2]

    looped = [prepared(plain(), "mlp", data, k)[0]]
    run = run_steps(step, b)
    on_device = {name: jnp.asarray(rows) for name, rows in data.items()}
    order = jnp.arange(n, dtype=jnp.int32)
    in_epoch = n // b

    def call_loop() -> Any:
        looped[0] = run(looped[0], on_device, order, np.int32(0), np.int32(in_epoch))
        return looped[0].sums

    bare_loop = jax.jit(
        lambda carry, data: jax.lax.fori_loop(
            0,
            in_epoch,
            lambda i, c: bare(c, {m: jax.lax.dynamic_slice_in_dim(v, i * b, b) for m, v in data.items()}),
            carry,
        ),
        donate_argnums=0,
    )
    bare_state = [jax.tree.map(jnp.copy, theirs[0])]

    def call_bare_loop() -> Any:
        bare_state[0] = bare_loop(bare_state[0], on_device)
        return bare_state[0][2]

    t = interleaved(
        {"ours": call_ours, "bare": call_bare, "loop": call_loop, "bare_loop": call_bare_loop}, options.rounds
    )
    return [
        {
            "name": f"dispatch of one step, {len(leaves)} weight leaves: ours / bare jax.jit",
            "ours_s": t["ours"] / many,
            "peer_s": t["bare"] / many,
            "ratio": t["ours"] / t["bare"],
            "limit": 1.2,
        },
        {
            "name": f"one step inside a program, {len(leaves)} weight leaves: ours - bare arithmetic, microseconds",
            "ours_s": t["loop"] / in_epoch,
            "peer_s": t["bare_loop"] / in_epoch,
            "ratio": 1e6 * (t["loop"] - t["bare_loop"]) / in_epoch,
            "limit": 25.0,
        },
    ]


def mean_average_precision(options: Options) -> list[Row]:
    """mAP of 20,000 x 80 against scikit-learn's; theirs does not interpolate, ours does more."""
    rng = np.random.default_rng(0)
    labels = (rng.uniform(size=(20_000, 80)) < 0.05).astype(np.int32)
    scores = (rng.normal(size=labels.shape) + labels).astype(np.float32)
    ours = jax.jit(metrics.mean_average_precision)
    value, reference = float(ours(scores, labels)), float(average_precision_score(labels, scores))
    if not 0 <= value - reference < 0.01:
        raise AssertionError(f"interpolated mAP {value} should be just above scikit-learn's {reference}")
    s, y = jnp.asarray(scores), jnp.asarray(labels)
    t = interleaved(
        {"ours": lambda: ours(s, y), "sklearn": lambda: average_precision_score(labels, scores)}, min(5, options.rounds)
    )
    ratio = t["ours"] / t["sklearn"]
    name = "mAP of 20,000 x 80: ours / scikit-learn"
    return [{"name": name, "ours_s": t["ours"], "peer_s": t["sklearn"], "ratio": ratio, "limit": 0.25}]


MEASUREMENTS = {"step": step_overhead, "dispatch": dispatch, "map": mean_average_precision}


def main() -> int:
    """Measure, print a table and write it."""
    options = tyro.cli(Options, description=__doc__, use_underscores=True)
    jax.config.update("jax_platforms", "cpu" if options.device == "cpu" else "cuda")
    rows = [row for name in options.only for row in MEASUREMENTS[name](options)]
    lines = ["| measurement | ours | peer | value | limit | met |", "| --- | --- | --- | --- | --- | --- |"]
    for row in rows:
        row["met"] = row["ratio"] <= row["limit"]
        times = f"{1e3 * row['ours_s']:.3f} ms | {1e3 * row['peer_s']:.3f} ms"
        met = "yes" if row["met"] else "no"
        lines.append(f"| {row['name']} | {times} | {row['ratio']:.3f} | {row['limit']} | {met} |")
    about = ", ".join(f"{name} {value}" for name, value in versions().items())
    text = "\n".join([*lines, "", about + "."])
    print(text)
    RESULTS.mkdir(exist_ok=True)
    write_json(RESULTS / f"speed-{options.device}.json", {"rows": rows, "versions": versions()})
    (RESULTS / f"speed-{options.device}.md").write_text(
        f"# Speed\n\n`python benchmarks/speed.py --device={options.device}`; medians of interleaved runs.\n\n{text}\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
