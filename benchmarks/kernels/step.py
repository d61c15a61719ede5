"""What the robust losses add to a training step, what sampling adds, and what dispatching a step costs.

The steps compared share backbone, batch, optimizer and everything else but the method; their ratios are taken within a
round, since some are closer to 1 than two moments on a busy machine are to each other.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import SingleDeviceSharding

from benchmarks.kernels.timing import Row, each_round, paired
from nlx import transitions
from nlx.data import Split
from nlx.losses import cross_entropy
from nlx.methods.can import can, paper_schedule
from nlx.methods.crf import annealed, crf, crf_analytic
from nlx.methods.method import Method
from nlx.methods.noise_layer import forward, noise_layer
from nlx.methods.noise_types import noise_types, shared_trunk
from nlx.methods.plain import cross_entropy as plain_loss
from nlx.methods.plain import plain
from nlx.methods.self_learning import corrections, self_learning
from nlx.models import Model, build
from nlx.training.feed import Program, make_program
from nlx.training.mesh import make_mesh
from nlx.training.state import TrainState
from nlx.training.step import make_step
from nlx.training.trainer import Trainer

_Data = dict[str, np.ndarray]
_NOISY, _CLEAN, _HIDDEN, _CHAINS, _SWEEPS = 1000, 73, 200, 50, 100


def measure(rounds: int, model: str = "resnet20", batch_size: int = 64) -> list[Row]:
    """Every method's step against that of plain cross-entropy, 10 classes, images of 32 pixels."""
    data = _images(batch_size, 10)
    net = build(model, (32, 32, 3), 10)
    methods = methods_for(10)
    t = each_round(steps(net, {"plain": plain(plain_loss, "plain"), **methods}, data), rounds)
    about = f"step, {model} at 32 pixels, batch {batch_size}, K = 10"
    # CAN trains two networks of its own: that is work, not overhead of a loss.
    limits = {"can": 1.10}
    return [paired(f"{about}: {name} / plain", t, "plain", limits.get(name, 1.05), name) for name in methods]


def many_classes(rounds: int, model: str = "resnet20", batch_size: int = 64) -> list[Row]:
    """The noise layer's step against plain cross-entropy at 1000 classes, behind a ResNet and behind a small MLP.

    T has a million entries, each of which is updated and projected at every step, whatever the batch: behind an MLP on
    features, which has no more weights than that, this is most of the step; a row without a limit says how much.
    """
    k = 1000
    rng = np.random.default_rng(0)
    matrix = transitions.sparse(jax.random.key(0), k, 0.4)
    methods = {
        "plain": plain(plain_loss, "plain"),
        "forward": forward(matrix),
        "noise_layer": noise_layer(k, learn_from=0),
    }
    features: _Data = {"inputs": rng.normal(size=(batch_size, 256)).astype(np.float32), **_labels(batch_size, k)}
    rows = []
    cases: tuple[tuple[str, Model, _Data, tuple[float, float | None]], ...] = (
        (f"{model} at 32 pixels", build(model, (32, 32, 3), k), _images(batch_size, k), (1.10, 1.10)),
        ("MLP on 256 features", build("mlp", (256,), k), features, (1.10, None)),
    )
    for about, net, data, limits in cases:
        t = each_round(steps(net, methods, data), rounds)
        about = f"step, {about}, batch {batch_size}, K = {k}"
        rows += [
            paired(f"{about}: forward, T given / plain", t, "plain", limits[0], "forward"),
            paired(f"{about}: noise_layer, T learned / plain", t, "plain", limits[1], "noise_layer"),
        ]
    return [*rows, _projection(matrix, rounds)]


def _projection(matrix: jax.Array, rounds: int) -> Row:
    """The projection as it follows a step, beside the one by sorting."""

    @jax.jit
    def by_sorting(rows: jax.Array) -> jax.Array:
        sums = jnp.cumsum(jnp.sort(rows, axis=1, descending=True), axis=1) - 1
        counts = jnp.arange(1, rows.shape[1] + 1, dtype=rows.dtype)
        return jnp.maximum(rows - jnp.max(sums / counts[None, :], axis=1, keepdims=True), 0)

    ours = jax.jit(transitions.project)
    rows = matrix + 1e-3 * jax.random.normal(jax.random.key(1), matrix.shape)
    np.testing.assert_allclose(ours(rows), by_sorting(rows), atol=1e-5)
    t = each_round({"ours": lambda: ours(rows), "sorting": lambda: by_sorting(rows)}, rounds)
    return paired("projection of T, 1000 x 1000: ours / by sorting", t, "sorting", None, "ours")


def sampling(rounds: int) -> list[Row]:
    """The CRF's step with a ResNet-50 at 224 pixels: with all sweeps, with one, and without pairwise terms.

    4 examples on a CPU, where a step takes seconds, and 128 in bfloat16 on an accelerator: time of the backbone and of
    the chains both grow with the batch.
    With one sweep instead of 100 the step is otherwise the same; without pairwise terms there are neither chains nor
    the matrix products of the loss.
    """
    on_cpu = jax.default_backend() == "cpu"
    n, dtype, rounds = (4, jnp.float32, 5) if on_cpu else (128, jnp.bfloat16, rounds)
    rng = np.random.default_rng(0)
    data: _Data = {
        "inputs": rng.normal(size=(n, 224, 224, 3)).astype(np.float32),
        "noisy_label": (rng.uniform(size=(n, _NOISY)) < 0.02).astype(np.uint8),
    }

    def method(**options: Any) -> Method:
        return crf(
            _CLEAN, _NOISY, alpha=annealed(40, 5, 1000), auxiliary=None, hidden=_HIDDEN, chains=_CHAINS, **options
        )

    methods = {"all": method(sweeps=_SWEEPS), "one": method(sweeps=1), "none": method(pairwise=False)}
    t = each_round(steps(build("resnet50", (224, 224, 3), _CLEAN, dtype=dtype), methods, data), rounds)
    about = f"step, ResNet-50 at 224 pixels, batch {n}, {_CHAINS} chains"
    return [
        paired(f"{about}: {_SWEEPS} sweeps / one sweep", t, "one", 1.16, "all"),
        paired(f"{about}: {_SWEEPS} sweeps / no pairwise terms", t, "none", 1.16, "all"),
    ]


def methods_for(k: int) -> dict[str, Method]:
    """Every method for one label per example, as its recipe makes it."""
    symmetric = transitions.symmetric(k, 0.4)
    confusing = (1 - jnp.eye(k)) / (k - 1)
    return {
        "forward": forward(symmetric),
        "noise_layer": noise_layer(k, learn_from=0),
        "can": can(k, temperature=paper_schedule(1000), rho=paper_schedule(1000, floor=0.0)),
        "noise_types": noise_types(k, confusing, shared_trunk()),
        "self_learning": self_learning(k, refresh_after=corrections(1)),
        "crf_analytic": crf_analytic(symmetric, alpha=annealed(8, 1, 1000)),
    }


def _images(n: int, k: int) -> _Data:
    return {"inputs": np.random.default_rng(0).normal(size=(n, 32, 32, 3)).astype(np.float32), **_labels(n, k)}


def _labels(n: int, k: int) -> _Data:
    return {"noisy_label": np.random.default_rng(1).integers(0, k, n, np.int32)}


def prepared(
    method: Method, model: Model, data: _Data, batch_size: int
) -> tuple[TrainState, Program, dict[str, jax.Array]]:
    """First state, the trainer's programs, and the data as a batch, on one device."""
    mesh, optimizer = make_mesh(jax.devices()[:1]), optax.sgd(0.01, momentum=0.9)
    trainer = Trainer(model, method, optimizer, batch_size=batch_size, mesh=mesh)
    batch = {name: jnp.asarray(rows) for name, rows in data.items()}
    batch["index"] = jnp.arange(len(batch["noisy_label"]), dtype=jnp.int32)
    state = trainer.init(jax.random.key(0), Split(data["inputs"], data["noisy_label"], None))
    step = make_step(model, method, optimizer, mesh)
    names = jax.eval_shape(step, state, {name: rows[:batch_size] for name, rows in batch.items()})[1]
    return state._replace(sums={name: jnp.zeros(()) for name in names}), make_program(step, batch_size), batch


class Step(NamedTuple):
    """One method's step, compiled.

    Attributes:
      take: takes a step and keeps the state.
      flops: its operations, see :func:`_flops`.
    """

    take: Callable[[], Any]
    flops: float


def steps(model: Model, methods: dict[str, Method], data: _Data) -> dict[str, Callable[[], Any]]:
    """A call for each method that takes one step and keeps the state."""
    return {name: step.take for name, step in compiled(model, methods, data).items()}


def compiled(model: Model, methods: dict[str, Method], data: _Data) -> dict[str, Step]:
    """Every method's step; all are compiled at once, on a GPU after the first, whose choice of kernels serves them."""

    def step_of(method: Method) -> Step:
        state, program, batch = prepared(method, model, data, len(data["noisy_label"]))
        flops = _flops(method, model, state, batch)
        holder = [state]

        def take() -> Any:
            holder[0] = program.one(holder[0], batch)
            return holder[0].params, holder[0].memory, holder[0].sums

        jax.block_until_ready(take())
        return Step(take, flops)

    alone = 1 if jax.default_backend() == "gpu" else 0
    order = list(methods.values())
    done = [step_of(method) for method in order[:alone]]
    with ThreadPoolExecutor() as pool:
        done += pool.map(step_of, order[alone:])
    return dict(zip(methods, done, strict=True))


def _flops(method: Method, model: Model, state: TrainState, batch: dict[str, jax.Array]) -> float:
    """Operations of one step, as XLA counts them for a CPU, before kernels are chosen: for GPUs it does not say."""
    here = SingleDeviceSharding(jax.devices("cpu")[0])
    forms = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), (state, batch))
    step = make_step(model, method, optax.sgd(0.01, momentum=0.9), None)
    counted = jax.jit(step).lower(*forms).cost_analysis()
    return float(counted["flops"]) if counted else float("nan")


def dispatch(rounds: int) -> list[Row]:
    """A small net of 26 leaves: our step against a bare one, dispatched one by one and inside one program."""
    rng = np.random.default_rng(0)
    n, k, b, many = 1024, 10, 16, 200
    data = {"inputs": rng.normal(size=(n, 32)).astype(np.float32), **_labels(n, k)}
    net = build("mlp", (32,), k, widths=(32,) * 12)
    state, program, on_device = prepared(plain(plain_loss, "plain"), net, data, b)
    batch = {name: rows[:b] for name, rows in on_device.items()}
    bare, carry = _bare(state, k)
    # Programs consume the state they are given, so that each of the four calls needs its own.
    bare_state = [jax.tree.map(jnp.copy, carry)]
    looped = [jax.tree.map(jnp.copy, state)]
    ours_one, bare_one = program.one, jax.jit(bare, donate_argnums=0)
    ours, theirs = [state], [carry]

    def call_ours() -> Any:
        for _ in range(many):
            ours[0] = ours_one(ours[0], batch)
        return ours[0].sums

    def call_bare() -> Any:
        for _ in range(many):
            theirs[0] = bare_one(theirs[0], batch)
        return theirs[0][2]

    rows = {name: x for name, x in on_device.items() if name != "index"}
    order, in_epoch = on_device["index"], n // b

    def call_loop() -> Any:
        looped[0] = program.many(looped[0], rows, order, np.int32(0), np.int32(in_epoch))
        return looped[0].sums

    def bare_epoch(carry: Any, data: Any) -> Any:
        def one(i: Any, carry: Any) -> Any:
            return bare(carry, {m: jax.lax.dynamic_slice_in_dim(v, i * b, b) for m, v in data.items()})

        return jax.lax.fori_loop(0, in_epoch, one, carry)

    bare_loop = jax.jit(bare_epoch, donate_argnums=0)

    def call_bare_loop() -> Any:
        bare_state[0] = bare_loop(bare_state[0], rows)
        return bare_state[0][2]

    sides = {"ours": call_ours, "bare": call_bare, "loop": call_loop, "bare_loop": call_bare_loop}
    t = each_round(sides, rounds)
    leaves = len(jax.tree.leaves(ours[0].params["model"]))
    one_by_one = paired(f"dispatch of one step, {leaves} weight leaves: ours / bare jax.jit", t, "bare", 1.2, "ours")
    for side in ("ours_s", "peer_s"):
        one_by_one[side] /= many

    def added(seconds: dict[str, list[float]]) -> list[float]:
        """Microseconds a step: first quartile, median and third."""
        more = np.array(seconds["loop"]) - np.array(seconds["bare_loop"])
        return [float(q) for q in np.percentile(1e6 * more / in_epoch, (25, 50, 75))]

    low, middle, high = added(t.wall)
    inside: Row = {
        "name": f"one step inside a program, {leaves} weight leaves: ours - bare arithmetic, microseconds",
        "ours_s": float(np.median(t.wall["loop"])) / in_epoch,
        "peer_s": float(np.median(t.wall["bare_loop"])) / in_epoch,
        "ratio": middle,
        "limit": 25.0,
        "spread": [low, high],
    }
    if jax.default_backend() == "cpu":
        low, middle, high = added(t.cpu)
        inside |= {"cpu_ratio": middle, "cpu_spread": [low, high]}
    return [one_by_one, inside]


def _bare(state: Any, k: int) -> tuple[Callable[[Any, Any], Any], Any]:
    """What one would write by hand, dicts of weights and no framework: (carry, batch) -> carry, and the first carry."""
    optimizer = optax.sgd(0.01, momentum=0.9)

    def step(carry: Any, batch: Any) -> Any:
        params, opt_state, total = carry

        def objective(params: Any) -> jax.Array:
            x = batch["inputs"]
            for i, layer in enumerate(params):
                x = x @ layer["kernel"] + layer["bias"]
                x = jax.nn.relu(x) if i < len(params) - 1 else x
            return jnp.mean(cross_entropy(x, batch["noisy_label"]))

        loss, grads = jax.value_and_grad(objective)(params)
        updates, opt_state = optimizer.update(grads, opt_state)
        return optax.apply_updates(params, updates), opt_state, total + loss

    kernels = [leaf for leaf in jax.tree.leaves(state.params["model"]) if leaf.ndim == 2]
    kernels.sort(key=lambda leaf: leaf.shape[1] == k)
    weights = [{"kernel": jnp.copy(w), "bias": jnp.zeros(w.shape[1])} for w in kernels]
    return step, (weights, optimizer.init(weights), jnp.zeros(()))
