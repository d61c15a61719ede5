"""Every public function of the primitives under everything that JAX can be told to do to it, from one table."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from nlx import losses
from tests.primitives.cases import CASES, MODULES, table
from tests.primitives.drawing import SEEDS, SIZES, another, few, is_key, is_labels, one_in

TRACED = [name for name, case in CASES.items() if not case.host]
DRAWN = [
    n for n, case in CASES.items() if case.arrays and n not in ("transitions.invert", "transitions.from_confusion")
]
SPREAD = [name for name in TRACED if CASES[name].rows]


def same(ours, expected, tolerance=2e-5):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        np.testing.assert_allclose(np.asarray(a, np.float64), np.asarray(b, np.float64), atol=tolerance, rtol=tolerance)


def finite(leaf):
    return not jnp.issubdtype(leaf.dtype, jnp.floating) or not np.isnan(np.asarray(leaf, np.float64)).any()


@pytest.fixture
def compilations():
    """A list that grows by every trace and compilation."""
    seen = []

    def listen(event, duration, **kwargs):
        if event in ("/jax/core/compile/backend_compile_duration", "/jax/core/compile/jaxpr_trace_duration"):
            seen.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield seen
    jax.monitoring.unregister_event_duration_listener(listen)


def test_every_public_function_has_a_case():
    public = {
        f"{module.__name__.split('.')[-1]}.{name}"
        for module in MODULES
        for name in getattr(module, "__all__", [n for n, f in vars(module).items() if n[0] != "_" and n.islower()])
        if callable(function := getattr(module, name))
        and not isinstance(function, type)
        and getattr(function, "__module__", "").startswith(module.__name__)
    }
    assert len(public) > 60
    assert public - {name.split(",")[0] for name in CASES} == {"bits.default_generator"}  # which takes no arrays


@one_in(3, CASES)
def test_the_third_eager_call_compiles_nothing(name, compilations):
    for _ in range(2):
        case = table()[name]
        case.call(*case.arrays)
    case = table()[name]
    compilations.clear()
    case.call(*case.arrays)
    assert compilations == []


@one_in(2, DRAWN)
@given(seed=SEEDS, size=SIZES, unknown=st.booleans())
@few(2)
def test_whatever_is_drawn_gives_numbers_that_follow_their_rows(name, seed, size, unknown):
    case, rng = CASES[name], np.random.default_rng(seed)
    arrays = [another(x, rng, size, unknown) for x in case.arrays]
    whole = np.all([(x >= 0) & (x < 3) for x in arrays if is_labels(x)] or [np.ones(8, bool)], axis=0)
    results = [np.asarray(leaf) for leaf in jax.tree.leaves(case.call(*arrays))]
    for leaf in results:
        if not (case.nothing and not whole.any()):
            assert finite(leaf[whole] if leaf.shape[:1] == (8,) else leaf)
    if (
        not case.rows
        or any(map(is_key, arrays))
        or name in ("prototypes.cosine_similarity", "transitions.from_anchors")
    ):
        return  # draws go by position; both axes are rows; of equal rows the first is the anchor
    order = rng.permutation(8)
    moved = case.call(*(x[order] if i in case.rows else x for i, x in enumerate(arrays)))
    for ours, before in zip(jax.tree.leaves(moved), results, strict=True):
        expected = before[order] if before.shape[:1] == (8,) else before
        np.testing.assert_allclose(ours, expected, rtol=2e-5, atol=2e-5 * max(1, size))


@one_in(3, TRACED)
def test_jit_vmap_scan_and_checkpoint_agree_with_a_plain_call(name):
    case = CASES[name]

    def batch(x):
        return jax.random.split(x, 2) if is_key(x) else jnp.stack([x, x[::-1] if x.ndim and x.shape[0] == 8 else x])

    stacked = tuple(batch(x) if is_key(x) else batch(np.asarray(x)) for x in case.arrays)
    first = tuple(x[0] for x in stacked)

    @jax.jit
    def both_ways(stacked):
        scanned = jax.lax.map(jax.checkpoint(lambda args: case.call(*args)), stacked)
        return jax.vmap(case.call)(*stacked), scanned

    mapped, scanned = both_ways(stacked)
    same(mapped, scanned)
    same(jax.tree.map(lambda x: x[0], scanned), jax.tree.map(jnp.asarray, case.call(*first)))


@one_in(4, SPREAD)
def test_shard_map_works_on_every_shard(name):
    case = CASES[name]
    mesh = jax.make_mesh((4,), ("d",), devices=jax.devices()[:4], axis_types=(AxisType.Auto,))
    specs = tuple(P("d") if i in case.rows else P() for i in range(len(case.arrays)))
    outer = lambda *args: jax.tree.map(lambda x: x[None], case.call(*args))  # noqa: E731
    ours = jax.jit(jax.shard_map(outer, mesh=mesh, in_specs=specs, out_specs=P("d")))(*case.arrays)
    parts = [np.reshape(x, (4, 2, *x.shape[1:])) for i, x in enumerate(case.arrays) if i in case.rows]

    def one(rows):
        rows = iter(rows)
        return case.call(*(next(rows) if i in case.rows else x for i, x in enumerate(case.arrays)))

    same(ours, jax.jit(lambda parts: jax.lax.map(one, parts))(parts))


@pytest.mark.parametrize("name", [name for name in SPREAD if not name.startswith("bits.")])
def test_a_mesh_of_type_explicit_is_refused_in_one_sentence(name):
    case = CASES[name]
    mesh = jax.make_mesh((4,), ("d",), devices=jax.devices()[:4])
    arrays = [
        jax.device_put(x, NamedSharding(mesh, P("d"))) if i in case.rows else x for i, x in enumerate(case.arrays)
    ]
    with pytest.raises(ValueError, match=r"wrap the call in jax.sharding.auto_axes, or make the mesh with axis_types"):
        case.call(*arrays)


def test_the_cure_for_an_explicit_mesh_is_right():
    case = CASES["losses.forward_corrected"]
    mesh = jax.make_mesh((4,), ("d",), devices=jax.devices()[:4])
    put = lambda x: jax.device_put(x, NamedSharding(mesh, P("d")))  # noqa: E731
    with jax.set_mesh(mesh):
        wrapped = jax.jit(jax.sharding.auto_axes(losses.forward_corrected, out_sharding=P("d")))
        ours = wrapped(put(case.arrays[0]), put(case.arrays[1]), jnp.asarray(case.arrays[2]))
    np.testing.assert_allclose(ours, case.call(*case.arrays), rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", TRACED)
def test_float64_other_generators_and_the_search_for_nans(name):
    """All at once: x64 with float64 arguments, another default generator and a key of it, debug_nans, strictness."""
    with jax.enable_x64(True), jax.default_prng_impl("rbg"), jax.debug_nans(True):
        case = table(dtype=np.float64)[name]
        out = jax.jit(case.call)(*case.arrays)
        floats = [x.dtype for x in jax.tree.leaves(out) if jnp.issubdtype(x.dtype, jnp.floating)]
        assert set(floats) <= {jnp.dtype(np.float64 if case.double else np.float32)}
        threefry = [jax.random.key(0, impl="threefry2x32") if is_key(x) else x for x in case.arrays]
        if any(map(is_key, threefry)):
            drawn = jax.jit(case.call)(*threefry)
    if any(map(is_key, case.arrays)) and not case.double:
        # The same key, the same draws, whatever the settings (but for features and biases in other digits).
        ours, expected = (jax.tree.leaves(x)[0] for x in (drawn, CASES[name].call(*CASES[name].arrays)))
        np.testing.assert_allclose(np.asarray(ours, np.float64), np.asarray(expected, np.float64), atol=1e-3)


@one_in(2, CASES)
@pytest.mark.parametrize("size", [(0, 3), (8, 1)])
def test_no_example_and_one_class_are_right_or_refused(name, size):
    case = table(*size)[name]
    refused = case.one if size[1] == 1 else case.none
    call = case.call if case.host else jax.jit(case.call)
    if refused is not None:
        with pytest.raises(ValueError, match=refused):
            call(*case.arrays)
        return
    for leaf in jax.tree.leaves(call(*case.arrays)):
        if size[0] == 0 and case.nothing:
            assert np.isnan(leaf).all()
        elif not isinstance(leaf, (bool, int)):
            assert finite(leaf), leaf
