"""What options become by the data, and the model, optimizer and schedule that are made of them."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nlx import target
from nlx.arguments import ArgumentError
from nlx.data import Dataset, ImageFiles, Split
from nlx.experiment.defaults import (
    Training,
    build_model,
    build_schedule,
    crop_size,
    require_arrays,
    require_steps,
    training_for,
)
from nlx.experiment.options import RecipeOptions
from nlx.training.stages import Stage, Stages


def dataset(inputs, name="mine"):
    labels = np.zeros(len(inputs), np.int32)
    return Dataset(name, ("cat", "dog"), Split(inputs, labels, None), None)


def images(*shape):
    return np.zeros((2, *shape), np.uint8)


FEATURES = np.zeros((2, 5), np.float32)
FILES = ImageFiles(("a.png", "b.png"), 256)
MLP = Training("mlp", 3, 2, 0.5)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (dataset(images(48, 48, 1), "web/sample"), Training("convnet", 30, 128, 0.05, "crop", "constant")),
        (dataset(images(48, 48, 1), "tags/sample"), Training("convnet", 30, 128, 0.05, "crop", "constant")),
        (dataset(images(8, 8, 1), "digits/shuffle-0.4"), Training("mlp", 90, 50, 0.01, "none", "step")),
        (dataset(images(28, 28, 1), "mnist"), Training("mlp", 30, 128, 0.05, "none", "step")),
        (dataset(FEATURES), Training("mlp", 30, 128, 0.05, "none", "cosine", 0.5, 5e-4)),
        (dataset(images(32, 32, 3)), Training("resnet18", 90, 128, 0.01, "crop-flip", "step")),
        (dataset(images(64, 64, 3)), Training("resnet18", 90, 128, 0.01, "crop-flip", "step")),
        (dataset(images(96, 96, 3)), Training("resnet34", 90, 50, 0.01, "crop-flip", "step")),
        (dataset(FILES, "web"), Training("resnet34", 90, 50, 0.01, "crop-flip", "step")),
    ],
)
def test_defaults_by_kind_of_data(data, expected, monkeypatch):
    monkeypatch.setattr(target, "devices", lambda: [None])
    data = replace(data, train=data.train.take(np.zeros(8000, int)))
    assert training_for(RecipeOptions(), data) == expected
    given = Training("mlp", 2, 7, 0.3, "none" if data.input_shape == (5,) else "flip", "cosine", 0.1, 0.2)
    assert training_for(replace(RecipeOptions(), **vars(given)), data) == given
    assert training_for(RecipeOptions(epochs=2), data) == replace(expected, epochs=2)
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    assert training_for(RecipeOptions(), data) == replace(expected, dtype="bfloat16")


@pytest.mark.parametrize(
    ("size", "batch", "epochs"), [(40_000, 128, 30), (1000, 125, 38), (2000, 128, 30), (16, 2, 38), (3, 1, 100)]
)
def test_a_small_set_is_passed_over_more_often_in_smaller_batches(size, batch, epochs, monkeypatch):
    monkeypatch.setattr(target, "devices", lambda: [None])
    data = dataset(np.zeros((size, 5), np.float32))
    training = training_for(RecipeOptions(), data)
    assert (training.batch_size, training.epochs) == (batch, epochs)
    short = training_for(RecipeOptions(epochs=2), data)
    assert (short.batch_size, short.epochs) == (batch, 2)


@pytest.mark.parametrize(("classes", "epochs"), [(10, 30), (20, 39), (40, 77), (1000, 100)])
def test_many_classes_get_thirty_steps_each(classes, epochs, monkeypatch):
    monkeypatch.setattr(target, "devices", lambda: [None])
    data = replace(dataset(np.zeros((2000, 5), np.float32)), class_names=tuple(map(str, range(classes))))
    assert training_for(RecipeOptions(), data).epochs == epochs


def test_a_default_batch_is_no_more_than_the_trusted_examples(monkeypatch):
    data = dataset(np.zeros((1000, 5), np.float32))
    known = {"label": np.zeros(1000, np.int32), "trusted": np.arange(1000) < 20}
    data = replace(data, train=replace(data.train, **known))
    for devices, batch in ((1, 20), (8, 16), (32, 128)):
        monkeypatch.setattr(target, "devices", lambda devices=devices: [None] * devices)
        assert training_for(RecipeOptions(), data).batch_size == batch


def test_a_recipe_may_need_a_smaller_rate_for_single_labels(monkeypatch):
    monkeypatch.setattr(RecipeOptions, "single_label_rate", 0.02)
    assert training_for(RecipeOptions(), dataset(np.zeros((80, 5), np.float32))).learning_rate == 0.02
    assert training_for(RecipeOptions(learning_rate=1.0), dataset(np.zeros((80, 5), np.float32))).learning_rate == 1.0


def test_several_labels_may_have_a_recipes_own_defaults(monkeypatch):
    monkeypatch.setattr(RecipeOptions, "several_labels", {"optimizer": "adam", "batch_size": 32})
    one, many = dataset(np.zeros((1024, 5), np.float32)), dataset(np.zeros((1024, 5), np.float32))
    many = replace(many, train=replace(many.train, noisy_label=np.zeros((1024, 2), np.uint8)))
    assert many.multi_label
    chosen = [training_for(RecipeOptions(), data) for data in (one, many)]
    assert [(t.optimizer, t.learning_rate, t.batch_size) for t in chosen] == [("sgd", 0.05, 128), ("adam", 0.001, 32)]
    told = training_for(RecipeOptions(optimizer="sgd", batch_size=8), many)
    assert (told.optimizer, told.learning_rate, told.batch_size) == ("sgd", 0.05, 8)


def test_lars_has_ten_times_the_rate_of_sgd():
    for data in (dataset(np.zeros((80, 5), np.float32)), dataset(np.zeros((80, 8, 8, 3), np.uint8))):
        rates = [training_for(RecipeOptions(optimizer=o), data).learning_rate for o in ("sgd", "lars")]
        np.testing.assert_allclose(rates[1], 10 * rates[0])
        assert training_for(RecipeOptions(optimizer="lars", learning_rate=2.0), data).learning_rate == 2.0


def test_adam_has_a_rate_of_its_own_and_alone_an_epsilon():
    data = dataset(np.zeros((80, 5), np.float32))
    assert [training_for(RecipeOptions(optimizer=o), data).learning_rate for o in ("adam", "adamw")] == [0.001] * 2
    assert training_for(RecipeOptions(optimizer="adam", learning_rate=0.5, adam_epsilon=0.1), data).learning_rate == 0.5
    with pytest.raises(ArgumentError, match="`adam_epsilon` does nothing without `optimizer`=adam"):
        training_for(RecipeOptions(adam_epsilon=0.1), data)


def test_a_default_batch_divides_over_the_devices(monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 8)
    assert training_for(RecipeOptions(), dataset(np.zeros((1000, 8, 8, 1), np.uint8), "digits/0")).batch_size == 56
    assert training_for(RecipeOptions(), dataset(np.zeros((20, 5), np.float32))).batch_size == 8
    assert training_for(RecipeOptions(batch_size=50), dataset(np.zeros((100, 5), np.float32))).batch_size == 50


def test_a_batch_of_more_than_all_examples_is_refused():
    with pytest.raises(ArgumentError, match="`batch_size`=3 is more than the 2 training examples; take a smaller one"):
        training_for(RecipeOptions(batch_size=3), dataset(FEATURES))
    assert training_for(RecipeOptions(batch_size=2), dataset(FEATURES)).batch_size == 2


def test_gradients_of_more_steps_than_there_are_are_refused():
    afresh = [Stage(2, rows=np.arange(8)), Stage(10), Stage(4, fresh_optimizer=True)]
    for stages, most in ((Stage(3), 30), ([Stage(1), Stage(2)], 30), (afresh, 40)):
        plan = Stages(stages, 40, 4)
        require_steps(RecipeOptions(accumulate=most), plan)
        told = f"`accumulate`={most + 1} is more than the {most} steps of the training, in which no weight would move"
        with pytest.raises(ArgumentError, match=told):
            require_steps(RecipeOptions(accumulate=most + 1), plan)


def test_images_from_folders_leave_an_eighth_for_cropping():
    assert crop_size(RecipeOptions(), dataset(FILES)) == 224
    assert crop_size(RecipeOptions(image_size=128), dataset(images(128, 128, 3))) == 112
    assert crop_size(RecipeOptions(), dataset(images(32, 32, 3))) is None
    assert crop_size(RecipeOptions(image_size=32), dataset(images(32, 32, 3))) is None
    assert crop_size(RecipeOptions(), dataset(FEATURES)) is None


def logits(model, inputs):
    outputs, _ = model.apply(*model.init(jax.random.key(0)), jnp.asarray(inputs), False, None)
    return outputs["logits"]


def test_images_of_their_own_shape_keep_it():
    data = dataset(images(16, 24, 1))
    model = build_model(RecipeOptions(widths=(4, 4)), replace(MLP, model="convnet"), data)
    assert logits(model, data.train.inputs).shape == (2, 2)


def test_the_model_is_built_for_the_data():
    model = build_model(RecipeOptions(widths=(7,)), MLP, dataset(FEATURES))
    assert model.init(jax.random.key(0))[0]["hidden_0"]["kernel"].shape == (5, 7)
    assert logits(model, FEATURES).shape == (2, 2)

    stored = dataset(images(16, 16, 1))
    model = build_model(RecipeOptions(widths=(4, 4)), replace(MLP, model="convnet", dtype="bfloat16"), stored)
    assert "bf16" in str(jax.make_jaxpr(lambda x: logits(model, x))(jnp.zeros((3, 16, 16, 1), jnp.uint8)))


def test_the_model_sees_inputs_without_their_mean_and_at_their_scale():
    features = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    results = []
    for shift, scale in ((0, 1), (5, 100)):
        inputs = (features * np.float32(scale) + np.float32(shift)).astype(np.float32)
        results.append(logits(build_model(RecipeOptions(widths=(7,)), MLP, dataset(inputs)), inputs))
    np.testing.assert_allclose(results[0], results[1], atol=1e-4)


def test_images_from_folders_are_cut_to_what_the_model_sees():
    rng = np.random.default_rng(0)
    data = dataset(rng.integers(0, 256, (2, 72, 72, 3), dtype=np.uint8))
    small = replace(MLP, model="convnet")
    options = RecipeOptions(image_size=72, widths=(4, 4))
    model = build_model(options, small, data)
    edge = data.train.inputs.copy()
    edge[:, :4] = 255
    np.testing.assert_array_equal(logits(model, edge), logits(model, data.train.inputs))
    six = build_model(replace(options, six_crops=True), small, data)
    params, stats = six.init(jax.random.key(0))
    whole = six.apply_test(params, stats, jnp.asarray(data.train.inputs))["logits"]
    assert not np.allclose(whole, logits(model, data.train.inputs))  # other crops as well
    with pytest.raises(ArgumentError, match="`six_crops` needs images stored larger than the model sees them"):
        build_model(RecipeOptions(six_crops=True), small, dataset(images(16, 16, 3)))


def test_training_images_are_augmented_as_the_options_say():
    data = dataset(np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8))
    inputs = jnp.asarray(data.train.inputs)
    for augmentation, same in (("none", True), ("crop", False)):
        model = build_model(RecipeOptions(widths=(4, 4)), Training("convnet", 1, 2, 0.1, augmentation), data)
        params, stats = model.init(jax.random.key(0))
        one, other = (model.apply(params, stats, inputs, True, jax.random.key(i))[0]["logits"] for i in (1, 2))
        assert np.array_equal(one, other) == same


def test_a_model_that_does_not_suit_the_data_is_a_mistake_of_the_users():
    with pytest.raises(ValueError, match=r"convnet takes images .*: use mlp"):
        build_model(RecipeOptions(), replace(MLP, model="convnet"), dataset(FEATURES))
    with pytest.raises(ValueError, match="resnet8 has its own widths"):
        build_model(RecipeOptions(widths=(3,)), replace(MLP, model="resnet8"), dataset(images(8, 8, 3)))


def factors(steps, schedule, **options):
    """Factor on the learning rate at every step of a stage."""
    made = build_schedule(RecipeOptions(**options), replace(MLP, schedule=schedule))
    with jax.numpy_dtype_promotion("standard"):
        return np.array([float(made(steps)(jnp.int32(i))) for i in range(steps)])


@pytest.mark.parametrize(
    ("decay_every", "expected"),
    [
        (1 / 3, np.repeat([1, 0.1, 0.01], [7, 6, 7])),
        (0.5, np.repeat([1, 0.1], 10)),
        (0.25, np.repeat([1, 0.1, 0.01, 0.001], 5)),
        (1.0, np.repeat(1.0, 20)),
        (0.4, np.repeat([1, 0.1, 0.01], [8, 8, 4])),
    ],
)
def test_the_step_schedule_drops_after_every_share_of_the_stage(decay_every, expected):
    np.testing.assert_allclose(factors(20, "step", decay_every=decay_every), expected, rtol=1e-5)


def test_the_cosine_schedule_falls_from_the_first_rate_to_nothing():
    expected = 0.5 * (1 + np.cos(np.pi * np.arange(40) / 40))
    np.testing.assert_allclose(factors(40, "cosine"), expected, rtol=1e-4, atol=1e-6)


def test_the_constant_schedule_is_none():
    assert build_schedule(RecipeOptions(), replace(MLP, schedule="constant")) is Stage(1).schedule


def test_warmup_comes_before_the_course_of_the_rate():
    rate = build_schedule(RecipeOptions(warmup=0.25), replace(MLP, schedule="constant"))(8)
    np.testing.assert_allclose([rate(step) for step in range(8)], [0, 0.5, 1, 1, 1, 1, 1, 1])


def test_models_in_folds_need_one_label_each_and_all_examples_in_memory():
    labels = np.array([0, 1], np.int32)
    require_arrays(Dataset("mine", ("a", "b"), Split(np.zeros((2, 3), np.float32), labels, None), None), "it")
    on_disk = Dataset("mine", ("a", "b"), Split(FILES, labels, None), None)
    with pytest.raises(ArgumentError, match="it needs all examples in the memory of one process: raise"):
        require_arrays(on_disk, "it")
    several = Dataset("mine", ("a", "b"), Split(np.zeros((2, 3), np.float32), np.eye(2, dtype=np.uint8), None), None)
    with pytest.raises(ArgumentError, match="it is for one label per example, but mine has several"):
        require_arrays(several, "it")
