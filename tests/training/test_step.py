import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nlx.methods.can import Heads, can, paper_schedule
from nlx.methods.method import Aux, Method, only
from nlx.methods.plain import plain
from nlx.models import build
from nlx.training.state import by_example, init_state, make_mesh, replicated
from nlx.training.step import epoch_order, make_step, run_steps

N, F, K, B = 96, 6, 3, 16
RNG = np.random.default_rng(0)
DATA = {"features": RNG.normal(size=(N, F)).astype(np.float32), "noisy_label": RNG.integers(0, K, N).astype(np.int32)}
MODEL = build("mlp", (F,), K, widths=(16,))
CAN = can(K, temperature=paper_schedule(30), rho=paper_schedule(30), heads=Heads(2, 8, 8))


def raw(inputs, key):
    del key
    return inputs


def counting() -> Method:
    """A method that counts in its memory how often it has seen each example."""

    def loss(params, memory, outputs, batch, key, step):
        del params, key, step
        return jnp.sum(outputs["logits"] ** 2, axis=-1), Aux({"seen": memory["seen"]}, {"seen": memory["seen"] + 1})

    return Method(
        "counting",
        lambda key, batch, size: ({}, {"seen": jnp.zeros(size)}),
        loss,
        lambda params, memory, outputs, batch: only("classifier", jax.nn.softmax(outputs["logits"])),
    )


def start(method, devices=1, model=MODEL, momentum=0.9):
    mesh = make_mesh(jax.devices()[:devices])
    optimizer = optax.sgd(0.1, momentum=momentum)
    batch = {name: jnp.asarray(rows[:devices]) for name, rows in DATA.items()} | {"index": jnp.arange(devices)}
    state = init_state(jax.random.key(0), model, method, optimizer, batch, N, mesh)
    step = make_step(model, method, optimizer, raw, mesh)
    return state, step, mesh


def on(mesh, data=DATA):
    return {name: jax.device_put(rows, replicated(mesh)) for name, rows in data.items()}


PROGRAMS = {}  # by method and number of devices: compiled once for all tests


def train(method, devices=1, chunks=((0, 6),), epochs=2, data=DATA):
    state, step, mesh = start(method, devices)
    run, _ = PROGRAMS.setdefault((id(method), devices), (run_steps(step, B), method))
    for epoch in range(epochs):
        order = epoch_order(jax.random.key(0), epoch, jnp.arange(N), N)
        for first, last in chunks:
            state = run(state, on(mesh, data), order, np.int32(first), np.int32(last - first))
    return state, run


@pytest.mark.parametrize("method", [plain(), CAN], ids=lambda m: m.name)
def test_eight_devices_compute_what_one_computes(method):
    one, _ = train(method, 1)
    eight, _ = train(method, 8)
    assert one.sums["train_loss"] > 0
    for a, b in zip(jax.tree.leaves((one.params, one.sums)), jax.tree.leaves((eight.params, eight.sums)), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-5)


def test_batch_statistics_are_those_of_the_whole_batch_on_eight_devices():
    model = build("resnet8", (8, 8, 1), K)
    data = DATA | {"image": RNG.normal(size=(N, 8, 8, 1)).astype(np.float32)}
    del data["features"]

    def run(devices):
        mesh = make_mesh(jax.devices()[:devices])
        optimizer = optax.sgd(0.1)
        batch = {"image": jnp.zeros((8, 8, 8, 1)), "noisy_label": jnp.zeros(8, jnp.int32), "index": jnp.arange(8)}
        state = init_state(jax.random.key(0), model, plain(), optimizer, batch, N, mesh)
        step = make_step(model, plain(), optimizer, raw, mesh)
        return run_steps(step, B)(state, on(mesh, data), jnp.arange(N), np.int32(0), np.int32(2))

    one, eight = run(1), run(8)
    for a, b in zip(jax.tree.leaves(one.stats), jax.tree.leaves(eight.stats), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_the_whole_run_is_one_trace_and_its_cuts_do_not_matter():
    whole, _ = train(CAN, chunks=((0, 6),))
    cut, run = train(CAN, chunks=((0, 1), (1, 4), (4, 6)))
    assert run._cache_size() == 1
    jax.tree.map(np.testing.assert_array_equal, whole.params, cut.params)


def test_an_epoch_visits_every_example_once_in_an_order_of_its_own():
    state, _ = train(counting(), epochs=1)
    np.testing.assert_array_equal(state.memory["seen"][:N], 1)
    state, _ = train(counting(), devices=8, epochs=2)
    np.testing.assert_array_equal(state.memory["seen"][:N], 2)
    assert float(state.sums["seen"]) == 6
    first, second = (epoch_order(jax.random.key(0), epoch, jnp.arange(N), N) for epoch in (0, 1))
    assert sorted(np.asarray(first)) == list(range(N))
    assert (np.asarray(first) != np.asarray(second)).mean() > 0.8


def test_memory_lies_spread_over_the_devices_and_the_rest_on_all():
    state, _, mesh = start(counting(), 8)
    assert state.memory["seen"].sharding == by_example(mesh)
    assert all(leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(state.params))


def test_the_state_is_donated():
    state, step, mesh = start(plain())
    leaf = state.params["model"]
    run_steps(step, B)(state, on(mesh), jnp.arange(N), np.int32(0), np.int32(1))
    assert all(x.is_deleted() for x in jax.tree.leaves(leaf))


def test_no_loss_can_see_the_true_label():
    """A batch that carries it is refused, so that even a method that asks for it cannot be given it."""
    state, step, mesh = start(plain())
    with pytest.raises(ValueError, match="may not hold \\['label'\\]"):
        run_steps(step, B)(
            state, on(mesh, DATA | {"label": DATA["noisy_label"]}), jnp.arange(N), np.int32(0), np.int32(1)
        )

    def peek(params, memory, outputs, batch, key, step):
        return batch["label"].astype(jnp.float32), Aux({})

    with pytest.raises(KeyError, match="label"):
        start(plain()._replace(loss=peek))


def test_the_projection_follows_every_step():
    method = CAN._replace(project=lambda params: jax.tree.map(jnp.zeros_like, params))
    state, _ = train(method, epochs=1)
    assert all((np.asarray(leaf) == 0).all() for leaf in jax.tree.leaves(state.params["method"]))
    assert any((np.asarray(leaf) != 0).any() for leaf in jax.tree.leaves(state.params["model"]))


def test_every_step_draws_anew_and_the_same_again():
    """Augmentation, the model and the method each have a key of their own, made from the run's and the step."""

    def loss(params, memory, outputs, batch, key, step):
        drawn = {"method": jnp.full(B, jax.random.uniform(key)), "augmented": batch["features"][:, 0]}
        return jnp.sum(outputs["logits"] ** 2, axis=-1), Aux({}, drawn)

    def augment(inputs, key):
        return inputs * 0 + jax.random.uniform(key) if key is not None else inputs

    def draws():
        mesh = make_mesh(jax.devices()[:1])
        optimizer = optax.sgd(0.1)
        batch = {name: jnp.asarray(rows[:B]) for name, rows in DATA.items()} | {"index": jnp.arange(B)}
        state = init_state(jax.random.key(0), MODEL, method, optimizer, batch, N, mesh)
        run = run_steps(make_step(MODEL, method, optimizer, augment, mesh), B)
        key = np.array(jax.random.key_data(state.key))
        state = run(state, on(mesh), jnp.arange(N), np.int32(0), np.int32(6))
        np.testing.assert_array_equal(jax.random.key_data(state.key), key)
        return np.concatenate([np.asarray(state.memory[name])[:N:B] for name in ("method", "augmented")])

    method = counting()._replace(
        init=lambda key, batch, size: ({}, {"method": jnp.zeros(size), "augmented": jnp.zeros(size)}), loss=loss
    )
    first = draws()
    assert len(set(first)) == 12
    np.testing.assert_array_equal(first, draws())


def test_training_lowers_the_loss():
    learnable = DATA | {"noisy_label": (DATA["features"][:, 0] > 0).astype(np.int32)}
    state, step, mesh = start(plain())
    run = run_steps(step, B)
    losses = []
    for epoch in range(20):
        state = run(
            state,
            on(mesh, learnable),
            epoch_order(jax.random.key(0), epoch, jnp.arange(N), N),
            np.int32(0),
            np.int32(6),
        )
        losses.append(float(state.sums["train_loss"]))
        state = state._replace(sums=jax.tree.map(jnp.zeros_like, state.sums))
    assert losses[-1] < 0.3 * losses[0]
