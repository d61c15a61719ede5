"""What options may be, what they become by the data, and what the optimizer makes of them."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nlx.data import Dataset, ImageFiles, Split
from nlx.experiment.options import (
    ConfigError,
    RunConfig,
    build_model,
    crop_size,
    fill,
    learning_rates,
    make_optimizer,
)
from nlx.models import NAMES

NAN, INF = float("nan"), float("inf")


def dataset(inputs, name="mine"):
    labels = np.zeros(len(inputs), np.int32)
    return Dataset(name, ("cat", "dog"), Split(inputs, labels, None), None)


def images(*shape):
    return np.zeros((2, *shape), np.uint8)


FEATURES = np.zeros((2, 5), np.float32)
FILES = ImageFiles(("a.png", "b.png"), 256)


def test_the_defaults_are_sound():
    RunConfig().check()
    for data in (FEATURES, images(32, 32, 3), FILES):
        fill(RunConfig(), dataset(data)).check()


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("epochs", 0, "--epochs must be above 0, got 0"),
        ("batch_size", -5, "--batch_size must be above 0, got -5"),
        ("image_size", 0, "--image_size must be above 0, got 0"),
        ("seeds", 0, "--seeds must be above 0, got 0"),
        ("evaluate_every", 0, "--evaluate_every must be above 0, got 0"),
        ("learning_rate", 0.0, "--learning_rate must be above 0, got 0.0"),
        ("learning_rate", NAN, "--learning_rate must be above 0, got nan"),
        ("learning_rate", INF, "--learning_rate must be above 0, got inf"),
        ("method_rate", -1.0, "--method_rate must be above 0, got -1.0"),
        ("momentum", 1.0, "--momentum must lie in [0, 1), got 1.0"),
        ("dropout", -0.1, "--dropout must lie in [0, 1), got -0.1"),
        ("dropout", NAN, "--dropout must lie in [0, 1), got nan"),
        ("validation_fraction", 1.0, "--validation_fraction must lie in [0, 1), got 1.0"),
        ("weight_decay", -1e-4, "--weight_decay must be at least 0, got -0.0001"),
        ("weight_decay", NAN, "--weight_decay must be at least 0, got nan"),
        ("seed", -1, "--seed must be at least 0, got -1"),
        ("noise_seed", -1, "--noise_seed must be at least 0, got -1"),
        ("checkpoint_seconds", -1.0, "--checkpoint_seconds must be at least 0, got -1.0"),
        ("decay_every", 0.0, "--decay_every must lie in (0, 1], got 0.0"),
        ("decay_every", 1.5, "--decay_every must lie in (0, 1], got 1.5"),
        ("model", "vgg", f"--model=vgg is not known; choose one of {', '.join(NAMES)}"),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused_by_name(option, value, message):
    with pytest.raises(ConfigError) as error:
        replace(RunConfig(), **{option: value}).check()
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("epochs", 1),
        ("momentum", 0.0),
        ("dropout", 0.99),
        ("decay_every", 1.0),
        ("weight_decay", 0.0),
        ("model", "mlp"),
    ],
)
def test_values_at_the_edge_are_allowed(option, value):
    replace(RunConfig(), **{option: value}).check()


@pytest.mark.parametrize(
    ("data", "model", "epochs", "batch_size", "learning_rate", "augmentation"),
    [
        (dataset(images(48, 48, 1), "web/sample"), "convnet", 30, 128, 0.05, "crop"),
        (dataset(images(8, 8, 1), "digits/shuffle-0.4"), "mlp", 90, 50, 0.01, "none"),
        (dataset(FEATURES), "mlp", 30, 128, 0.05, "none"),
        (dataset(images(32, 32, 3)), "resnet18", 90, 128, 0.01, "crop-flip"),
        (dataset(images(64, 64, 3)), "resnet18", 90, 128, 0.01, "crop-flip"),
        (dataset(images(96, 96, 3)), "resnet34", 90, 50, 0.01, "crop-flip"),
        (dataset(FILES, "web"), "resnet34", 90, 50, 0.01, "crop-flip"),
    ],
)
def test_defaults_by_kind_of_data(data, model, epochs, batch_size, learning_rate, augmentation):
    wanted = {
        "model": model,
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "augmentation": augmentation,
        "schedule": "constant" if model == "convnet" else "step",
    }
    filled = fill(RunConfig(), data)
    assert filled == replace(RunConfig(), **wanted)
    given = RunConfig(model="mlp", epochs=2, batch_size=7, learning_rate=0.3, augmentation="flip", schedule="cosine")
    assert fill(given, data) == given


def test_images_from_folders_leave_an_eighth_for_cropping():
    assert crop_size(RunConfig(), dataset(FILES)) == 224
    assert crop_size(RunConfig(image_size=128), dataset(images(128, 128, 3))) == 112
    assert crop_size(RunConfig(), dataset(images(32, 32, 3))) is None
    assert crop_size(RunConfig(image_size=32), dataset(images(32, 32, 3))) is None
    assert crop_size(RunConfig(), dataset(FEATURES)) is None


@pytest.mark.parametrize("widths", [(), (0,), (8, -3)])
def test_widths_are_checked(widths):
    with pytest.raises(ConfigError, match="--widths must be above 0"):
        RunConfig(widths=widths).check()


def test_images_of_their_own_shape_keep_it():
    data = dataset(images(16, 24, 1))
    model = build_model(RunConfig(model="convnet", widths=(4, 4)), data)
    outputs, _ = model.apply(*model.init(jax.random.key(0)), jnp.zeros((3, 16, 24, 1)), False, None)
    assert outputs["logits"].shape == (3, 2)


def test_the_model_is_built_for_the_data():
    model = build_model(fill(RunConfig(widths=(7,)), dataset(FEATURES)), dataset(FEATURES))
    params, stats = model.init(jax.random.key(0))
    assert params["hidden_0"]["kernel"].shape == (5, 7)
    outputs, _ = model.apply(params, stats, jnp.zeros((3, 5)), False, None)
    assert outputs["logits"].shape == (3, 2)

    stored = dataset(images(16, 16, 1))
    model = build_model(RunConfig(model="convnet", widths=(4, 4), dtype="bfloat16"), stored)
    params, stats = model.init(jax.random.key(0))
    text = str(jax.make_jaxpr(lambda x: model.apply(params, stats, x, False, None)[0])(jnp.zeros((3, 16, 16, 1))))
    assert "bf16" in text


def test_a_model_that_does_not_suit_the_data_is_a_mistake_of_the_users():
    with pytest.raises(ConfigError, match=r"convnet takes images .*: use mlp"):
        build_model(RunConfig(model="convnet"), dataset(FEATURES))
    with pytest.raises(ConfigError, match="resnet8 has its own widths"):
        build_model(RunConfig(model="resnet8", widths=(3,)), dataset(images(8, 8, 3)))


def course(total_steps, **options):
    """Learning rates of backbone and method at every step."""
    with jax.numpy_dtype_promotion("standard"):
        schedules = learning_rates(RunConfig(learning_rate=0.5, **options), total_steps)
        return [np.array([float(schedule(jnp.int32(i))) for i in range(total_steps)]) for schedule in schedules]


def test_the_step_schedule_drops_at_thirds():
    backbone, method = course(30)
    np.testing.assert_allclose(backbone, np.repeat([0.5, 0.05, 0.005], 10), rtol=1e-5)
    np.testing.assert_array_equal(method, backbone)


@pytest.mark.parametrize(
    ("decay_every", "expected"),
    [
        (0.5, np.repeat([0.5, 0.05], 10)),
        (0.25, np.repeat([0.5, 0.05, 0.005, 0.0005], 5)),
        (1.0, np.repeat(0.5, 20)),
        (0.4, np.repeat([0.5, 0.05, 0.005], [8, 8, 4])),
    ],
)
def test_the_step_schedule_drops_after_every_share_of_the_run(decay_every, expected):
    np.testing.assert_allclose(course(20, decay_every=decay_every)[0], expected, rtol=1e-5)


def test_the_cosine_schedule_falls_from_the_first_rate_to_nothing():
    backbone, _ = course(40, schedule="cosine")
    np.testing.assert_allclose(backbone, 0.25 * (1 + np.cos(np.pi * np.arange(40) / 40)), rtol=1e-4, atol=1e-6)


def test_the_constant_schedule_stays():
    np.testing.assert_allclose(course(9, schedule="constant")[0], 0.5)


@pytest.mark.parametrize("schedule", ["step", "cosine", "constant"])
def test_the_method_has_a_rate_of_its_own(schedule):
    backbone, method = course(30, schedule=schedule, method_rate=0.04)
    np.testing.assert_allclose(method, 0.04 * backbone, rtol=1e-5)


def walk(config, grads, steps, total_steps=300, start=2.0):
    """Where one weight of the backbone and one of the method go, under the same gradient at every step."""
    optimizer = make_optimizer(config, total_steps)
    params = {"model": {"w": jnp.float32(start)}, "method": {"v": jnp.float32(start)}}
    path = []
    with jax.numpy_dtype_promotion("standard"):  # which optax leans on
        state = optimizer.init(params)
        for _ in range(steps):
            same = jax.tree.map(lambda p: jnp.full_like(p, grads), params)
            updates, state = optimizer.update(same, state, params)
            params = optax.apply_updates(params, updates)
            path.append([float(params["model"]["w"]), float(params["method"]["v"])])
    return np.array(path)


def test_sgd_moves_backbone_and_method_at_their_own_rates():
    path = walk(RunConfig(learning_rate=0.1, method_rate=0.04, momentum=0.0), 1.0, 3)
    np.testing.assert_allclose(path, 2 - np.outer([1, 2, 3], [0.1, 0.004]), rtol=1e-6)


def test_momentum_adds_up_past_gradients():
    path = walk(RunConfig(learning_rate=0.1, momentum=0.5), 1.0, 3)
    np.testing.assert_allclose(path[:, 0], 2 - 0.1 * np.cumsum([1, 1.5, 1.75]), rtol=1e-6)


def test_the_optimizer_follows_the_schedule():
    path = walk(RunConfig(learning_rate=0.1, momentum=0.0), 1.0, 6, total_steps=6)
    np.testing.assert_allclose(path[:, 0], 2 - np.cumsum([0.1, 0.1, 0.01, 0.01, 0.001, 0.001]), rtol=1e-5)


def test_weight_decay_is_an_l2_penalty():
    config = RunConfig(learning_rate=0.1, method_rate=0.5, momentum=0.0, weight_decay=0.2)
    path = walk(config, 0.0, 4)
    np.testing.assert_allclose(path[:, 0], 2 * (1 - 0.1 * 0.2) ** np.arange(1, 5), rtol=1e-5)
    np.testing.assert_allclose(path[:, 1], 2 * (1 - 0.05 * 0.2) ** np.arange(1, 5), rtol=1e-5)
    np.testing.assert_array_equal(walk(replace(config, weight_decay=0.0), 0.0, 2), 2)


def test_adam_steps_by_the_learning_rate_whatever_the_gradients_size():
    config = RunConfig(optimizer="adam", learning_rate=0.01, method_rate=10.0)
    for size in (1e-3, 1e3):
        np.testing.assert_allclose(walk(config, size, 2), 2 - np.outer([1, 2], [0.01, 0.1]), rtol=1e-4)


def test_adams_first_decay_rate_is_the_momentum():
    optimizer = make_optimizer(RunConfig(optimizer="adam", learning_rate=0.01, momentum=0.5), 10)
    params = {"model": {"w": jnp.ones(())}, "method": {}}
    with jax.numpy_dtype_promotion("standard"):
        state = optimizer.init(params)
        _, state = optimizer.update(params, state, params)
    means = [x for path, x in jax.tree.leaves_with_path(state) if ".mu" in jax.tree_util.keystr(path)]
    assert [float(x) for x in means] == [0.5]


def test_a_method_may_have_nothing_to_train():
    optimizer = make_optimizer(RunConfig(learning_rate=0.1), 10)
    params = {"model": {"w": jnp.ones(3)}, "method": {}}
    with jax.numpy_dtype_promotion("standard"):
        updates, _ = optimizer.update(params, optimizer.init(params), params)
    np.testing.assert_allclose(updates["model"]["w"], -0.1, rtol=1e-6)
    assert updates["method"] == {}
