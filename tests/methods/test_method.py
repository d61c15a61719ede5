"""The same demands on every method, as the contract in nlx/methods/method.py makes them."""

import functools
import importlib
import inspect
import pkgutil
import typing

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec
from orbax.checkpoint import v1 as ocp

from nlx import losses, methods
from nlx.crf.rbm import RBM
from nlx.methods import method as contract
from nlx.methods.can import can, paper_schedule
from nlx.methods.clean_net import clean_net
from nlx.methods.co_teaching import co_teaching
from nlx.methods.crf import annealed, crf, crf_analytic
from nlx.methods.crowd import crowd
from nlx.methods.crowd_layers import conal, crowd_layer
from nlx.methods.distill import distill
from nlx.methods.divide_mix import divide_mix
from nlx.methods.dynamics import with_dynamics
from nlx.methods.elr import elr
from nlx.methods.icnm import icnm
from nlx.methods.joint_optimization import joint_optimization
from nlx.methods.noise_layer import forward, noise_layer, outliers
from nlx.methods.noise_types import bottom_up, noise_types, pretrain_noise_types, second_backbone, shared_trunk
from nlx.methods.plain import backward, cross_entropy, per_class, plain, trusted_cross_entropy, with_vectors
from nlx.methods.self_learning import self_learning
from nlx.methods.sop import sop
from nlx.models import from_nnx
from nlx.training.mesh import by_example, make_mesh, replicated

K, B, F, N = 3, 16, 5, 24
EYE = np.eye(K, dtype=np.float32)
OFF = (1 - EYE) / (K - 1)
OWN = second_backbone(lambda key: {"w": jax.random.normal(key, (F, 3))}, lambda params, x: x @ params["w"])
AUX = RBM(*(jnp.asarray(np.random.default_rng(1).normal(size=s), jnp.float32) for s in ((K + 2, K), K, K + 2)))
PEOPLE = {"num_annotators": 4, "num_classes": K}
SAID = [np.random.default_rng(2).integers(-1, size, (N, 3)) for size in (4, K)]  # by whom, and what; some say nothing
METHODS = {
    "plain": plain(cross_entropy, "plain"),
    "per_class": plain(per_class),
    "bootstrap_soft": plain(with_vectors(losses.bootstrap_soft)),
    "trusted_cross_entropy": trusted_cross_entropy(),
    "icnm": icnm(),
    "can": can(K, temperature=paper_schedule(100), rho=paper_schedule(100)),
}
SINGLE_LABEL = {
    "generalized_ce": plain(losses.generalized_cross_entropy),
    "backward": backward(EYE),
    "forward": forward(EYE),
    "noise_layer": noise_layer(K, learn_from=0),
    "outliers": outliers(K, 0.1),
    "noise_types": noise_types(K, OFF, shared_trunk()),
    "pretrain_noise_types": pretrain_noise_types(OFF, shared_trunk())._replace(
        init=noise_types(K, OFF, shared_trunk()).init
    ),
    "noise_types_own": noise_types(K, OFF, OWN),
    "bottom_up": bottom_up(EYE),
    "crf_analytic": crf_analytic(EYE, alpha=annealed(2.0, 1.0, 10)),
    "self_learning": self_learning(K, refresh_after=lambda epochs: True),
    "self_learning_short": self_learning(K, refresh_after=lambda epochs: True, keep_scores=False),
    "distill": distill(np.full((N, K), 1 / K)),
    "elr": elr(),
    "joint_optimization": joint_optimization(start=2),
    "sop": sop(),
    "co_teaching": co_teaching(lambda step: 0.3),
    "clean_net": clean_net(K, refresh_after=lambda epochs: True),
    "divide_mix": divide_mix(warm_up=1, unlabelled_weight=2.0),
    **{make.__name__: make(*SAID, **PEOPLE) for make in (crowd, crowd_layer, conal)},
    "dynamics": with_dynamics(plain(cross_entropy)),
}
MULTI_LABEL = {
    "noise_layer": noise_layer(K, learn_from=0, multi_label=True),
    "crf": crf(K, K, alpha=annealed(2.0, 1.0, 10), auxiliary=AUX, hidden=2, chains=3, sweeps=2),
    "crf_without_pairs": crf(K, K, alpha=annealed(2.0, 1.0, 10), auxiliary=None, pairwise=False, link=True),
}
CASES = [
    *((f"{name}-{kind}", kind, method) for kind in ("single", "multi") for name, method in METHODS.items()),
    *((f"{name}-single", "single", method) for name, method in SINGLE_LABEL.items()),
    *((f"{name}-multi", "multi", method) for name, method in MULTI_LABEL.items()),
]
RNG = np.random.default_rng(0)
OUTPUTS = {
    "logits": jnp.asarray(RNG.normal(size=(B, K)), jnp.float32),
    "features": jnp.asarray(RNG.normal(size=(B, F)), jnp.float32),
    "pair_logits": jnp.asarray(RNG.normal(size=(B, 2, K)), jnp.float32),  # of two networks, for those who want them
}
INDEX = jnp.asarray(RNG.permutation(N)[:B], jnp.int32)
OUTPUTS |= {
    name: jax.nn.log_softmax(jnp.asarray(RNG.normal(size=(B, 2, 2, K)), jnp.float32))
    for name in ("guess_logits", "mixed_logits")  # of two networks on two views
}
OUTPUTS |= {"mix_weight": jnp.full((B, 2), 0.7), "mix_with": jnp.asarray(RNG.integers(0, B // 2, (B, 2)), jnp.int32)}
LABELS = {
    "single": jnp.asarray(RNG.integers(0, K, B), jnp.int32),
    "multi": jnp.asarray(RNG.integers(0, 2, (B, K)), jnp.float32),
}
# A draw is the whole batch's, so that parts of a batch draw otherwise; the last two compare what a batch says.
DRAWS = ("can", "crf-", "co_teaching", "joint_optimization", "divide_mix")
BATCH_WISE = ("crf", "crf_without_pairs")  # Eq. 8 adds means over noisy and over trusted examples
# Every leaf of their memory is written at every step.
ANEW = ("crf", "crf_analytic", "crf_without_pairs", "elr", "joint_optimization", "sop", "dynamics")


def each(cases):
    return pytest.mark.parametrize(("name", "kind", "method"), cases, ids=[name for name, _, _ in cases])


every_method = each(CASES)
# Of these shapes, parts of a batch, eight devices and the compiled program are for -m slow: others go these ways.
VARIANTS = (
    "self_learning_short",
    "noise_types_own",
    "pretrain_noise_types",
    "bottom_up",
    "crf_without_pairs",
    "dynamics",
)
VARIANTS += ("per_class", "bootstrap_soft", "trusted_cross_entropy", "generalized_ce", "conal")
mostly = pytest.mark.parametrize(
    ("name", "kind", "method"),
    [pytest.param(*c, id=c[0], marks=[pytest.mark.slow] * (c[0].split("-")[0] in VARIANTS)) for c in CASES],
)
# Op by op they compile for long.
EAGERLY = ("plain-single", "can-single", "noise_layer-single", "noise_layer-multi", "noise_types-single", "crf-multi")
EAGERLY += ("self_learning-single", "sop-single", "clean_net-single", "divide_mix-single", "crowd-single")
some = pytest.mark.parametrize(
    ("name", "kind", "method"),
    [pytest.param(*c, id=c[0], marks=[] if c[0] in EAGERLY else [pytest.mark.slow]) for c in CASES],
)


def batch_of(kind, trusted=True):
    labels = LABELS[kind]
    known = (jnp.arange(B) % 4 == 0).reshape((B,) + (1,) * (labels.ndim - 1))
    batch = {"noisy_label": labels, "index": INDEX, "inputs": OUTPUTS["features"]}
    return batch | ({"trusted_label": jnp.where(known, labels.astype(jnp.int32), -1)} if trusted else {})


@functools.cache
def begun(name):
    """First parameters and memory of a method."""
    method = next(m for n, _, m in CASES if n == name)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype), OUTPUTS)
    return jax.jit(lambda key: method.init(key, shapes, K, N))(jax.random.key(0))


def rows_of(memory, index=INDEX):
    return jax.tree.map(lambda m: m[index], memory)


def run(method, params, memory, outputs, batch, step=3):
    """Loss, stored rows, metrics, the gradient of the mean loss, and the posterior."""

    def objective(params, logits):
        loss, stored, metrics = method.loss(
            jax.random.key(1), params, rows_of(memory, batch["index"]), {**outputs, "logits": logits}, batch, step
        )
        return jnp.mean(loss), (loss, stored, metrics)

    gradient, (loss, stored, metrics) = jax.grad(objective, (0, 1), has_aux=True)(params, outputs["logits"])
    posterior = method.posterior(params, rows_of(memory, batch["index"]), outputs, batch)
    return loss, stored, metrics, gradient, posterior


@functools.cache
def jitted(name):
    """``run`` of a method, compiled once for all tests."""
    method = next(m for n, _, m in CASES if n == name)
    return jax.jit(functools.partial(run, method))


def test_no_method_is_left_out():
    modules = [importlib.import_module(f"nlx.methods.{m.name}") for m in pkgutil.iter_modules(methods.__path__)]
    functions = [
        f for m in modules for f in vars(m).values() if inspect.isfunction(f) and not f.__name__.startswith("_")
    ]
    makers = {f.__name__ for f in functions if f.__annotations__.get("return") == "Method"}
    tested = {method.loss.__qualname__.split(".")[0] for _, _, method in CASES}
    assert {"can", "crf", "self_learning"} < makers
    assert makers - tested == {"backward"}  # the plain method of a loss; in the list by hand
    assert "backward" in SINGLE_LABEL


@mostly
def test_shapes_dtypes_and_kinds(name, kind, method):
    params, memory = begun(name)
    loss, stored, metrics, _, posterior = jitted(name)(params, memory, OUTPUTS, batch_of(kind), jnp.int32(3))
    chex.assert_shape(loss, (B,))
    chex.assert_type(loss, jnp.float32)
    chex.assert_trees_all_equal_shapes_and_dtypes(stored, rows_of(memory))
    assert all(leaf.shape[:1] == (N,) for leaf in jax.tree.leaves(memory))
    assert isinstance(memory, tuple)
    assert all(value.shape in ((), (B,)) for value in metrics.values())
    for candidate in posterior.candidates.values():
        chex.assert_shape(candidate, [(B, K), (B,)])
        chex.assert_type([candidate.probs, candidate.cost], jnp.float32)
        assert ((candidate.probs >= 0) & (candidate.probs <= 1)).all()
        if kind == "single":
            np.testing.assert_allclose(candidate.probs.sum(-1), 1, rtol=1e-5)
    for column in posterior.columns.values():
        assert column.kind in typing.get_args(contract.Kind)
        assert column.values.shape[0] == B
        if column.kind == "belief":
            chex.assert_shape(column.values, (B, K))
        if column.kind == "label":
            chex.assert_shape(column.values, (B,))
            assert jnp.issubdtype(column.values.dtype, jnp.integer)
    scores = method.predict(params, OUTPUTS)
    chex.assert_shape(scores, (B, K))
    chex.assert_type(scores, jnp.float32)
    chex.assert_trees_all_equal_shapes_and_dtypes(method.project(params), params)


@some
def test_jit_is_eager_and_one_trace_serves_every_step(name, kind, method):
    params, memory = begun(name)
    batch, traces = batch_of(kind), []

    def counted(*args):
        traces.append(1)
        return run(method, *args)

    compiled = jax.jit(counted)
    for step in range(3):
        args = params, memory, OUTPUTS, batch, jnp.int32(step)
        outcome = compiled(*args)
        _, stored, _, (slopes, _), _ = outcome
        # What a step leaves is what the next begins with, and another batch comes.
        memory = jax.tree.map(lambda m, rows, at=batch["index"]: m.at[at].set(rows), memory, stored)
        params = method.project(jax.tree.map(lambda p, g: p - 0.1 * g, params, slopes))
        batch = jax.tree.map(lambda x: jnp.roll(x, 1, axis=0), batch)
    assert len(traces) == 1
    chex.assert_trees_all_close(outcome, run(method, *args), rtol=2e-4, atol=2e-5)


@mostly
def test_examples_do_not_depend_on_each_other(name, kind, method):
    params, memory = begun(name)
    part = jnp.arange(0, B, 2)
    batch = batch_of(kind, trusted=name.split("-")[0] not in BATCH_WISE)
    whole = jax.jit(functools.partial(run, method))(params, memory, OUTPUTS, batch)
    half = jax.jit(functools.partial(run, method))(params, memory, *jax.tree.map(lambda x: x[part], (OUTPUTS, batch)))
    if not name.startswith(DRAWS):
        np.testing.assert_allclose(half[0], whole[0][part], rtol=1e-5, atol=1e-6)
        chex.assert_trees_all_close(half[1], jax.tree.map(lambda x: x[part], whole[1]), rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_close(half[4], jax.tree.map(lambda x: x[part], whole[4]), rtol=1e-5, atol=1e-6)


@mostly
def test_eight_devices_are_as_one(name, kind, method):
    params, memory = begun(name)
    batch = batch_of(kind)
    mesh = make_mesh(jax.devices())
    placed = jax.device_put(
        (params, memory, OUTPUTS, batch), (replicated(mesh), by_example(mesh), by_example(mesh), by_example(mesh))
    )
    sharded = jax.jit(functools.partial(run, method))(*placed, jnp.int32(3))
    one = jitted(name)(params, memory, OUTPUTS, batch, jnp.int32(3))
    chex.assert_trees_all_close(jax.device_get(sharded), jax.device_get(one), rtol=2e-4, atol=2e-5)


class Half(nnx.Module):
    """A module that computes and answers in bfloat16."""

    def __init__(self, *, rngs):
        self.head = nnx.Linear(F, K, dtype=jnp.bfloat16, rngs=rngs)

    def __call__(self, x):
        return {"logits": self.head(x), "features": x.astype(jnp.bfloat16)}


@functools.cache
def half():
    model = from_nnx(Half)
    weights, stats = model.init(jax.random.key(0))
    return model, weights, stats


@every_method
def test_a_backbone_in_bfloat16_gives_float32(name, kind, method):
    """Methods need no rule of their own: the contract promises them float32, and models keep that promise."""
    (model, weights, stats), (params, memory) = half(), begun(name)
    inputs = OUTPUTS["features"].astype(jnp.bfloat16)
    assert Half(rngs=nnx.Rngs(0))(inputs)["logits"].dtype == jnp.bfloat16

    def objective(both):
        outputs = model.apply(both[0], stats, inputs, True, None)[0]
        pair = jnp.stack([outputs["logits"]] * 2, axis=1)
        views = dict.fromkeys(("guess_logits", "mixed_logits"), jnp.stack([pair, pair], axis=1))
        outputs = {**OUTPUTS, **outputs, "pair_logits": pair, **views}
        batch, rows = batch_of(kind), rows_of(memory)
        loss, stored, metrics = method.loss(jax.random.key(1), both[1], rows, outputs, batch, jnp.int32(3))
        return jnp.mean(loss), (loss, stored, metrics, method.posterior(both[1], rows, outputs, batch))

    slopes, (loss, stored, metrics, posterior) = jax.eval_shape(jax.grad(objective, has_aux=True), (weights, params))
    floats = [x for x in jax.tree.leaves((slopes, metrics, posterior)) if jnp.issubdtype(x.dtype, jnp.floating)]
    assert {x.dtype for x in (loss, *floats)} == {jnp.dtype("float32")}
    chex.assert_trees_all_equal_shapes_and_dtypes(stored, jax.eval_shape(rows_of, memory))


@every_method
def test_losses_and_gradients_are_finite_at_extremes(name, kind, method):
    params, memory = begun(name)
    extreme = {**OUTPUTS, "logits": jnp.sign(OUTPUTS["logits"]) * 1e4}
    loss, _, _, gradient, posterior = jitted(name)(params, memory, extreme, batch_of(kind), jnp.int32(3))
    chex.assert_tree_all_finite((loss, gradient, posterior))


@each([case for case in CASES if case[0] != "crowd-single"])
def test_a_leaf_of_memory_that_does_not_change_is_handed_back_as_it_was(name, kind, method):
    params, memory = begun(name)
    rows = rows_of(memory)
    _, stored, _ = method.loss(jax.random.key(1), params, rows, OUTPUTS, batch_of(kind), jnp.int32(3))
    for old, new in zip(jax.tree.leaves(rows), jax.tree.leaves(stored), strict=True):
        assert (new is old) != (name.split("-")[0] in ANEW)


@each([case for case in CASES if case[2].init is not contract.no_state])
def test_parameters_and_memory_survive_a_checkpoint(name, kind, method, tmp_path):
    state = begun(name)
    ocp.save(tmp_path / "state", {"state": state})
    sharding = NamedSharding(make_mesh(jax.devices()[:1]), PartitionSpec())
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), state)
    loaded = ocp.load(tmp_path / "state", {"state": abstract})["state"]
    chex.assert_trees_all_equal(loaded, state)
    assert type(loaded[1]) is type(state[1])
