"""Explanations: on networks made by hand, of which it is known where they look."""

import numpy as np
import pandas as pd
import pytest

from helpers.training import tf  # isort: skip  (first: its start-up is silent)
import keras
from keras import layers

from helpers.evaluation import explain
from helpers.evaluation.explain import (
    compute_grad_cam,
    cover_border,
    cover_middle,
    find_foreground,
    measure_evidence,
    render_feature_maps,
    summarize_evidence,
)

SIDE, SQUARE = 12, 3
PLACES = [(1, 1), (7, 2), (4, 8)]


def make_squares(places=PLACES, level=255, ground=0, side=SIDE):
    """Make images with a bright square of 3 x 3 pixels each, its corner at the given place."""
    images = np.full((len(places), side, side, 1), ground, "uint8")
    for image, (row, column) in zip(images, places, strict=True):
        image[row : row + SQUARE, column : column + SQUARE] = level
    return images


def build_detector(gain=20.0, strides=1, dtype="float32", gains_of_other=(0.0, 0.0)):
    """Build a network whose class 0 asks for something bright; the other feature, for something dark, is not used."""
    inputs = layers.Input((SIDE, SIDE, 1), name="pixels", dtype=dtype)
    x = layers.Rescaling(1 / 255, name="scaling")(inputs)
    x = layers.Conv2D(2, 3, strides=strides, padding="same", activation="relu", name="conv")(x)
    x = layers.MaxPooling2D(2, name="pool")(x)
    x = layers.GlobalAveragePooling2D(name="features")(x)
    outputs = layers.Dense(2, activation="softmax", name="probabilities")(x)
    model = keras.Model(inputs, outputs, name="detector")
    kernel = np.stack([np.full((3, 3, 1), 1 / 9), np.full((3, 3, 1), -1 / 9)], axis=-1)
    model.get_layer("conv").set_weights([kernel, np.array([0.0, 1.0])])
    weights = np.array([[gain, gains_of_other[0]], [0.0, gains_of_other[1]]])
    model.get_layer("probabilities").set_weights([weights, np.zeros(2)])
    return model


def find_peaks(heatmaps):
    return [np.unravel_index(heatmap.argmax(), heatmap.shape) for heatmap in heatmaps]


def is_inside(peak, place, margin=0):
    return all(start - margin <= at < start + SQUARE + margin for at, start in zip(peak, place, strict=True))


@pytest.mark.parametrize("strides", [1, 2])
def test_heatmaps_are_as_large_as_the_images_and_go_from_0_to_1(strides):
    heatmaps = compute_grad_cam(build_detector(strides=strides), make_squares(), [0, 0, 0])
    assert heatmaps.shape == (3, SIDE, SIDE)
    assert heatmaps.dtype == np.float32
    assert heatmaps.min() >= 0
    np.testing.assert_allclose(heatmaps.max(axis=(1, 2)), 1, rtol=1e-6)


def test_heatmaps_may_have_another_size():
    model, images = build_detector(), make_squares()
    heatmaps = compute_grad_cam(model, images, [0, 0, 0], size=(6, 24))
    assert heatmaps.shape == (3, 6, 24)
    for (row, column), place in zip(find_peaks(heatmaps), PLACES, strict=True):
        assert is_inside((2 * row, column // 2), place, margin=2)


@pytest.mark.parametrize("layer", [None, "conv", "pool"])
def test_the_heatmap_peaks_where_the_evidence_lies(layer):
    heatmaps = compute_grad_cam(build_detector(), make_squares(), [0, 0, 0], layer)
    for heatmap, peak, place in zip(heatmaps, find_peaks(heatmaps), PLACES, strict=True):
        assert is_inside(peak, place, margin=0 if layer == "conv" else 1)
        row, column = place
        far = heatmap.copy()
        far[max(row - 3, 0) : row + 6, max(column - 3, 0) : column + 6] = 0
        assert far.max() == 0


def test_of_the_convolution_the_heatmap_is_the_feature_that_speaks_for_the_class():
    """One feature with a positive weight: the heatmap is its map over its maximum, whatever the weight."""
    image = make_squares([(4, 4)])
    expected = np.zeros((SIDE, SIDE))
    for row in range(3, 8):
        for column in range(3, 8):
            expected[row, column] = image[0, row - 1 : row + 2, column - 1 : column + 2, 0].sum() / 255 / 9
    for gain in (0.5, 10):
        found = compute_grad_cam(build_detector(gain), image, [0], "conv")
        np.testing.assert_allclose(found[0], expected, atol=1e-5)


def test_what_speaks_against_the_class_is_left_out():
    """Bright pixels speak for class 0 and half as strongly against it, dark ones against it alone."""
    model = build_detector(3, gains_of_other=(0, 3))
    model.get_layer("conv").set_weights([model.get_layer("conv").get_weights()[0], np.array([0.0, 1.0])])
    model.get_layer("probabilities").set_weights([np.array([[3.0, 0.0], [-3.0, 0.0]]), np.zeros(2)])
    image = make_squares([(4, 4)])
    found = compute_grad_cam(model, image, [0], "conv")[0]
    bright = np.array([[image[0, max(r - 1, 0) : r + 2, max(c - 1, 0) : c + 2, 0].sum() / 2295 for c in range(SIDE)]
                       for r in range(SIDE)])  # fmt: skip
    np.testing.assert_allclose(found, np.maximum(2 * bright - 1, 0), atol=1e-5)
    assert (found[bright < 0.5] == 0).all()


def test_each_image_is_explained_for_its_own_class():
    """Class 0 looks for bright pixels, class 1 for dark ones."""
    model = build_detector(3, gains_of_other=(0, 3))
    images = make_squares([(4, 4), (4, 4)])
    bright, dark = compute_grad_cam(model, images, [0, 1], "conv")
    assert bright[5, 5] == pytest.approx(1)
    assert dark[5, 5] == 0
    assert bright[0, 10] == 0
    assert dark[0, 10] == pytest.approx(1)
    turned = compute_grad_cam(model, images, np.array([1, 0]), "conv")
    np.testing.assert_allclose(turned, [dark, bright], atol=1e-6)


def test_images_do_not_depend_on_those_beside_them():
    model, images = build_detector(), make_squares()
    together = compute_grad_cam(model, images, [0, 1, 0])
    for number, class_index in enumerate([0, 1, 0]):
        alone = compute_grad_cam(model, images[number : number + 1], [class_index])
        np.testing.assert_allclose(together[number], alone[0], atol=1e-6)


@pytest.mark.parametrize("images_at_once", [1, 2, 1000])
def test_no_more_images_are_computed_at_once_than_fit_into_memory(monkeypatch, images_at_once):
    model, seen = build_detector(), []
    expected = compute_grad_cam(model, make_squares(), [0, 0, 1])
    monkeypatch.setattr(explain, "_PIXELS_AT_ONCE", images_at_once * SIDE**2)
    call = layers.Conv2D.call
    monkeypatch.setattr(layers.Conv2D, "call", lambda self, x: seen.append(len(x)) or call(self, x))
    np.testing.assert_allclose(compute_grad_cam(model, make_squares(), [0, 0, 1]), expected, atol=1e-6)
    assert sum(seen) == 3
    assert max(seen) <= images_at_once


def test_where_nothing_speaks_for_the_class_the_heatmap_is_zero():
    black = np.zeros((1, SIDE, SIDE, 1), "uint8")
    assert (compute_grad_cam(build_detector(), black, [0], "conv") == 0).all()
    assert (compute_grad_cam(build_detector(), make_squares([(4, 4)]), [1], "conv") == 0).all()


def test_models_with_all_layers_frozen_can_be_explained():
    model, images = build_detector(), make_squares()
    expected = compute_grad_cam(model, images, [0, 0, 0])
    model.trainable = False
    assert not model.trainable_variables
    np.testing.assert_array_equal(compute_grad_cam(model, images, [0, 0, 0]), expected)
    cloned = keras.models.clone_model(model)  # never was trainable
    cloned.set_weights(model.get_weights())
    np.testing.assert_array_equal(compute_grad_cam(cloned, images, [0, 0, 0]), expected)


def test_a_map_before_the_first_weights_can_be_explained():
    """Of the scaled pixels: no variable comes before them, so that no gradient is recorded by itself."""
    images = make_squares([(4, 4)])
    found = compute_grad_cam(build_detector(), images, [0], "scaling")
    np.testing.assert_allclose(found[0], images[0, ..., 0] / 255, atol=1e-6)


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
def test_images_may_have_any_type(dtype):
    model, images = build_detector(), make_squares()
    expected = compute_grad_cam(model, images, [0, 0, 0])
    np.testing.assert_array_equal(compute_grad_cam(model, images.astype(dtype), [0, 0, 0]), expected)
    assert images.dtype == np.uint8


def test_explaining_leaves_the_model_as_it_was():
    model, images = build_detector(), make_squares()
    model.get_layer("conv").trainable = False
    before, y_prob = [weight.copy() for weight in model.get_weights()], model.predict(images, verbose=0)
    compute_grad_cam(model, images, [0, 0, 0])
    for weight, old in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, old)
    np.testing.assert_array_equal(model.predict(images, verbose=0), y_prob)
    assert [layer.trainable for layer in model.layers if layer.weights] == [False, True]


@pytest.mark.parametrize("gain", [1000.0, 5000.0])
def test_a_probability_of_one_is_explained_too(gain):
    """Where the network is quite sure the probabilities no longer change, but the evidence is there all the more."""
    model, image = build_detector(gain), make_squares([(4, 4)])
    assert model.predict(image, verbose=0)[0, 0] == 1
    expected = compute_grad_cam(build_detector(), image, [0], "conv")
    np.testing.assert_allclose(compute_grad_cam(model, image, [0], "conv"), expected, atol=1e-4)


def test_a_probability_of_zero_is_explained_too():
    """What speaks for the class that was not predicted: all that is dark, though the bright square weighs more."""
    model, image = build_detector(5000.0, gains_of_other=(0.0, 20.0)), make_squares([(4, 4)])
    assert model.predict(image, verbose=0)[0, 1] < 1e-30
    found = compute_grad_cam(model, image, [1], "conv")
    assert found[0, 0, 10] == pytest.approx(1)
    assert found[0, 5, 5] == 0


def test_unknown_layers_are_refused_and_the_known_ones_named():
    with pytest.raises(ValueError, match=r"detector has no layer 'conv_9' with a map of features among .*conv, pool"):
        compute_grad_cam(build_detector(), make_squares(), [0, 0, 0], "conv_9")


@pytest.mark.parametrize("layer", ["features", "probabilities"])
def test_layers_without_a_map_are_refused(layer):
    with pytest.raises(ValueError, match=f"no layer '{layer}' with a map"):
        compute_grad_cam(build_detector(), make_squares(), [0, 0, 0], layer)


def nest(last):
    """Put the layers up to ``last`` into a model inside another."""
    detector = build_detector()
    inner = keras.Model(detector.input, detector.get_layer(last).output, name="inner")
    inputs = layers.Input((SIDE, SIDE, 1), name="outer_pixels")
    x = inner(inputs)
    x = x if last == "features" else layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(2, activation="softmax")(x), name="nested")


@pytest.mark.parametrize("layer", [None, "inner", "conv"])
@pytest.mark.parametrize("last", ["pool", "features"])
def test_nested_models_are_refused(last, layer):
    """Also those that average inside: the pixels of the outer model are no map of features."""
    with pytest.raises(ValueError, match=r"nested has no layer .*nested model cannot be reached"):
        compute_grad_cam(nest(last), make_squares(), [0, 0, 0], layer)


def test_networks_of_the_project_can_be_explained():
    from helpers.training.networks import build_cnn

    keras.utils.set_random_seed(0)
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3)).astype("uint8")
    model = build_cnn((16, 16, 3), 4, ([100.0] * 3, [50.0] * 3), filters=((4,), (8,)))
    heatmaps = compute_grad_cam(model, images, [3, 1])
    assert heatmaps.shape == (2, 16, 16)
    assert heatmaps.max() == pytest.approx(1)
    assert tf.executing_eagerly()


# render_feature_maps


def build_filters(factors, dtype="float32", height=6, width=8, bias=0.0):
    """Build a network whose maps are the image times a factor each, plus a bias: it is known which varies most."""
    inputs = layers.Input((height, width, 1), name="pixels")
    x = layers.Conv2D(len(factors), 1, name="conv", dtype=dtype)(inputs)
    x = layers.MaxPooling2D(2, name="pool", dtype=dtype)(x)
    x = layers.GlobalAveragePooling2D(name="features", dtype=dtype)(x)
    model = keras.Model(inputs, layers.Dense(2, name="scores", dtype="float32")(x), name="filters")
    model.get_layer("conv").set_weights([np.reshape(factors, (1, 1, 1, -1)), np.full(len(factors), bias)])
    return model


def make_ramp(height=6, width=8):
    """Make an image with all levels from 0 to its number of pixels, in no order."""
    levels = np.random.default_rng(0).permutation(height * width)
    return levels.reshape(height, width, 1).astype("uint8")


def stretch(values):
    return np.floor(255.0 * (values - values.min()) / np.ptp(values))


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16", "mixed_float16", "bfloat16", "float16"])
def test_the_most_varied_maps_come_first_each_from_black_to_white(dtype):
    image, factors = make_ramp(), [0.5, -2.0, 0.0, 1.0, 4.0]
    maps = render_feature_maps(build_filters(factors, dtype, bias=3.0), image, "conv")
    assert maps.shape == (5, 6, 8, 1)
    assert maps.dtype == np.uint8
    upright, inverted = stretch(image), stretch(-image.astype(float))
    for number, expected in enumerate([upright, inverted, upright, upright]):
        np.testing.assert_allclose(maps[number].astype(float), expected, atol=1 if dtype == "float32" else 2)
    assert maps[:4].min(axis=(1, 2, 3)).tolist() == [0] * 4
    assert maps[:4].max(axis=(1, 2, 3)).min() >= 254
    assert (maps[4] == 0).all()  # the map that does not vary at all


def test_white_is_reached_whatever_the_range_of_a_map():
    """Rounding must not leave the largest value a level below white."""
    factors = np.random.default_rng(0).uniform(0.001, 30, 60)
    maps = render_feature_maps(build_filters(factors), make_ramp(), "conv", 60)
    assert set(maps.max(axis=(1, 2, 3))) == {255}
    assert set(maps.min(axis=(1, 2, 3))) == {0}


@pytest.mark.parametrize("count", [1, 2, 3])
def test_no_more_maps_than_asked_for_are_shown(count):
    model, image = build_filters([1.0, -2.0, 4.0]), make_ramp()
    maps = render_feature_maps(model, image, "conv", count)
    assert len(maps) == count
    np.testing.assert_array_equal(maps, render_feature_maps(model, image, "conv")[:count])
    assert np.argmax(maps[0]) == np.argmax(image)
    if count > 1:
        assert np.argmax(maps[1]) == np.argmin(image)


def test_eight_maps_are_shown_by_default_or_as_many_as_there_are():
    image = make_ramp()
    assert len(render_feature_maps(build_filters(np.arange(1, 12)), image, "conv")) == 8
    assert len(render_feature_maps(build_filters(np.arange(1, 4)), image, "conv")) == 3
    assert len(render_feature_maps(build_filters(np.arange(1, 4)), image, "conv", 30)) == 3


def test_maps_that_vary_alike_stay_in_their_order():
    maps = render_feature_maps(build_filters([1.0, -1.0] * 20), make_ramp(), "conv", 40)
    assert [np.argmax(each) == np.argmax(make_ramp()) for each in maps] == [True, False] * 20


def test_maps_of_another_layer_have_its_size():
    image = make_ramp()
    maps = render_feature_maps(build_filters([1.0]), image, "pool")
    assert maps.shape == (1, 3, 4, 1)
    largest = image.reshape(3, 2, 4, 2).max(axis=(1, 3))
    np.testing.assert_allclose(maps[0, ..., 0], stretch(largest), atol=1)
    assert render_feature_maps(build_filters([1.0]), image, "pixels").shape == (1, 6, 8, 1)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("level", [0, 255])
def test_maps_that_are_constant_are_black(level):
    image = np.full((6, 8, 1), level, "uint8")
    assert (render_feature_maps(build_filters([1.0, -2.0, 0.0], bias=5.0), image, "conv") == 0).all()


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
def test_the_image_of_feature_maps_may_have_any_type(dtype):
    model, image = build_filters([1.0, -2.0]), make_ramp()
    before = image.copy()
    expected = render_feature_maps(model, image, "conv")
    np.testing.assert_array_equal(render_feature_maps(model, image.astype(dtype), "conv"), expected)
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("layer", ["conv_9", "features", "scores", "", None])
def test_layers_without_feature_maps_are_refused_and_the_known_ones_named(layer):
    with pytest.raises(
        ValueError, match=rf"^filters has no layer {layer!r} with a map .*: pixels, conv, pool, features, "
    ):
        render_feature_maps(build_filters([1.0]), make_ramp(), layer)


def test_feature_maps_are_those_of_inference():
    """Not of training, in which a map is dropped or normalized by what the one image holds."""
    inputs = layers.Input((6, 8, 1))
    x = layers.BatchNormalization(name="norm")(inputs)
    model = keras.Model(inputs, layers.SpatialDropout2D(0.999, name="dropped")(x))
    np.testing.assert_allclose(render_feature_maps(model, make_ramp(), "dropped")[0], stretch(make_ramp()), atol=1)
    statistics = [np.array(weight) for weight in model.get_layer("norm").get_weights()]
    for weight, before in zip(model.get_layer("norm").get_weights(), statistics, strict=True):
        np.testing.assert_array_equal(weight, before)


# cover_border and cover_middle


def make_noise(count=3, size=(12, 20), channels=3, seed=0):
    """Make images of noise, each channel at a level of its own."""
    noise = np.random.default_rng(seed).integers(0, 100, (count, *size, channels))
    return (noise + 50 * np.arange(channels)).astype("uint8")


LEVEL = 117.25


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("share", "rows", "columns"),
    [(0.25, (3, 9), (5, 15)), (0.1, (1, 11), (2, 18)), (0.4, (5, 7), (8, 12)), (1 / 12, (1, 11), (2, 18))],
)
def test_border_or_middle_have_the_level_of_the_cover(share, rows, columns, channels, dtype):
    images = make_noise(channels=channels).astype(dtype)
    before = images.copy()
    middle = slice(None), slice(*rows), slice(*columns)
    only_middle, only_border = np.full(images.shape, LEVEL), images.astype("float64")
    only_middle[middle], only_border[middle] = images[middle], LEVEL
    without_border, without_middle = cover_border(images, share, LEVEL), cover_middle(images, share, LEVEL)
    by_image = cover_border(images, [share, 0, 0.5], LEVEL)
    np.testing.assert_array_equal(by_image, [only_middle[0], images[1], np.full(images[2].shape, LEVEL)])
    np.testing.assert_array_equal(without_border, only_middle)
    np.testing.assert_array_equal(without_middle, only_border)
    assert without_border.dtype == without_middle.dtype == np.float32
    np.testing.assert_array_equal(images, before)


@pytest.mark.parametrize("size", [(12, 20), (12, 12), (7, 10), (8, 6)], ids=str)
@pytest.mark.parametrize("share", [0, 0.07, 0.2, 0.33, 0.45])
def test_what_one_covers_the_other_leaves(share, size):
    images = make_noise(size=size)
    both = cover_border(images, share, LEVEL) + cover_middle(images, share, LEVEL)
    np.testing.assert_array_equal(both, images + np.float32(LEVEL))


def test_no_border_is_nothing_and_half_is_all():
    images = make_noise(size=(12, 8))
    np.testing.assert_array_equal(cover_border(images, 0, LEVEL), images)
    assert (cover_middle(images, 0, LEVEL) == LEVEL).all()
    assert (cover_border(images, 0.5, LEVEL) == LEVEL).all()
    np.testing.assert_array_equal(cover_middle(images, 0.5, LEVEL), images)


@pytest.mark.parametrize("share", [0.07, 0.25, 0.4])
@pytest.mark.parametrize(("cover", "other"), [(cover_border, cover_middle), (cover_middle, cover_border)])
def test_nothing_of_what_is_covered_can_be_told_from_the_result(cover, other, share):
    """Two images that differ under the cover alone, one of them in its mean too, give the same result."""
    images = make_noise()
    covered = other(np.zeros(images.shape), share, 1) == 0  # what the other one leaves
    assert 0 < covered.sum() < covered.size
    for number, altered in enumerate([255 - images, np.full_like(images, 255), make_noise(seed=1)]):
        changed = np.where(covered, altered, images)
        assert (changed != images).any(axis=(1, 2, 3)).all(), number
        np.testing.assert_array_equal(cover(changed, share, LEVEL), cover(images, share, LEVEL))
        changed = np.where(covered, images, altered)
        assert (cover(changed, share, LEVEL) != cover(images, share, LEVEL)).any(axis=(1, 2, 3)).all(), number


@pytest.mark.parametrize("cover", [cover_border, cover_middle])
def test_images_are_covered_alike_alone_and_beside_others(cover):
    images = make_noise()
    together = cover(images, 0.2, LEVEL)
    for number in range(len(images)):
        np.testing.assert_array_equal(cover(images[number : number + 1], 0.2, LEVEL)[0], together[number])
    assert cover(images[:0], 0.2, LEVEL).shape == (0, *images.shape[1:])


@pytest.mark.parametrize("cover", [cover_border, cover_middle])
def test_covered_images_can_be_changed_without_changing_the_images(cover):
    images = make_noise().astype("float32")
    before = images.copy()
    cover(images, 0.2, LEVEL)[:] = 0
    np.testing.assert_array_equal(images, before)


@pytest.mark.parametrize("cover", [cover_border, cover_middle])
@pytest.mark.parametrize("share", [-0.01, 0.51, 1, float("nan")])
def test_shares_beyond_the_middle_are_refused(cover, share):
    with pytest.raises(ValueError, match=f"share={share}: expected 0 to 0.5"):
        cover(make_noise(), share, LEVEL)


def test_a_head_that_was_built_on_its_own_can_be_explained():
    """As in transfer learning, where the layers of the head belong to two models."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 1))
    maps = keras.layers.Conv2D(4, 3, padding="same", activation="relu")(inputs)
    extractor = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(maps))
    features = keras.Input((4,))
    dense = keras.layers.Dense(2, activation="softmax")
    head = keras.Model(features, dense(features))
    joined = keras.Model(inputs, dense(extractor.output))
    plain = keras.Model(inputs, (own := keras.layers.Dense(2, activation="softmax"))(extractor.output))
    own.set_weights(dense.get_weights())
    images = np.random.default_rng(0).uniform(0, 255, (3, 8, 8, 1))
    heatmaps = compute_grad_cam(joined, images, [0, 1, 0])
    assert heatmaps.max() == 1
    np.testing.assert_allclose(heatmaps, compute_grad_cam(plain, images, [0, 1, 0]), rtol=1e-5)
    assert dense.activation is keras.activations.softmax
    np.testing.assert_allclose(head(np.ones((1, 4))).numpy().sum(), 1, rtol=1e-6)


# find_foreground


def draw_discs(side=40, channels=3):
    """Make images of a disc with a hole, of noise around two colours, and the discs without their holes."""
    rng, (rows, columns) = np.random.default_rng(0), np.mgrid[:side, :side]
    images, discs = [], []
    for row, column, radius in [(20, 20, 10), (15, 24, 8), (22, 17, 12)]:
        distance = np.hypot(rows - row, columns - column)
        ring = (distance <= radius) & (distance > 3)
        colour = np.where(ring[..., None], [60, 90, 40][:channels], [200, 170, 180][:channels])
        images.append(colour + rng.normal(0, 3, colour.shape))
        discs.append(distance <= radius)
    return np.stack(images).round().astype("uint8"), np.stack(discs)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("invert", [False, True])
def test_the_foreground_is_the_disc_with_its_hole_filled(channels, invert):
    images, discs = draw_discs(channels=channels)
    before = images.copy()
    found = find_foreground(255 - images if invert else images)
    assert found.dtype == bool
    assert (found == discs).mean() > 0.99
    assert found[0, 20, 20]
    np.testing.assert_array_equal(images, before)
    np.testing.assert_allclose(find_foreground(images / np.float32(255)), find_foreground(images))


def test_only_the_largest_part_counts():
    image = np.zeros((1, 30, 20, 1), "uint8")
    image[0, 5:15, 5:15] = 200
    image[0, 20:23, 3:9] = image[0, 2:4, 12:17] = 255
    expected = np.zeros((1, 30, 20), bool)
    expected[0, 5:15, 5:15] = True
    np.testing.assert_array_equal(find_foreground(image), expected)


def test_the_background_may_be_given():
    """What covers the border is the object, where its colour is not that of the background."""
    image = np.full((1, 20, 20, 3), 200, "uint8")
    image[0, 8:12, 8:12] = [10, 20, 30]
    assert find_foreground(image).sum() == 16
    found = find_foreground(image, background=[10, 20, 30])
    assert found.all()  # the middle is a hole of it
    image[0, :, 14:] = [10, 20, 30]
    assert not find_foreground(image, background=[10, 20, 30])[0, :, 14:].any()


def test_images_of_one_colour_have_no_foreground():
    assert not find_foreground(np.full((2, 12, 12, 3), 77, "uint8")).any()
    assert not find_foreground(np.full((1, 12, 12, 1), 77, "uint8"), background=[0]).any()
    assert find_foreground(np.zeros((0, 12, 9, 3), "uint8")).shape == (0, 12, 9)


def test_the_colour_of_the_background_is_that_of_each_border():
    images = np.stack([np.full((12, 12, 1), 0), np.full((12, 12, 1), 255)]).astype("uint8")
    images[0, 4:8, 4:8], images[1, 4:8, 4:8] = 255, 0
    assert find_foreground(images).sum(axis=(1, 2)).tolist() == [16, 16]


# measure_evidence


def test_evidence_by_hand():
    heatmap = np.array([[1, 0.5], [0.25, 0.25]])
    masks = np.array([[[1, 0], [0, 0]], [[1, 1], [0, 0]], [[0, 0], [0, 1]]], bool)
    found = measure_evidence(np.stack([heatmap] * 3), masks)
    assert found.columns.tolist() == ["inside", "area", "ratio"]
    np.testing.assert_allclose(found["inside"], [0.5, 0.75, 0.125])
    np.testing.assert_allclose(found["area"], [0.25, 0.5, 0.25])
    np.testing.assert_allclose(found["ratio"], [2, 1.5, 0.5])


def test_masks_may_be_larger_than_heatmaps():
    """Of the first pixel the mask covers half, of the second nothing, of the two below three quarters and all."""
    mask = np.zeros((1, 4, 6), bool)
    mask[0, :2, 0] = mask[0, 0, 1] = mask[0, 2:, 3:] = True
    mask[0, 2:, :3] = [[True, True, False], [True, False, False]]
    heatmap = np.array([[[1.0, 0.4], [0.2, 0.4]]])
    inside = (1.0 * 3 / 6 + 0.2 * 3 / 6 + 0.4) / 2
    found = measure_evidence(heatmap, mask).iloc[0]
    np.testing.assert_allclose(found, [inside, 12 / 24, inside / 0.5], rtol=1e-6)


def test_masks_may_be_smaller_than_heatmaps():
    heatmaps = np.random.default_rng(0).random((2, 6, 8))
    masks = np.array([[[1, 0], [0, 0]], [[0, 1], [1, 1]]], bool)
    found = measure_evidence(heatmaps, masks)
    large = np.repeat(np.repeat(masks, 3, axis=1), 4, axis=2)
    expected = (heatmaps * large).sum(axis=(1, 2)) / heatmaps.sum(axis=(1, 2))
    np.testing.assert_allclose(found["inside"], expected, rtol=1e-6)
    assert found["area"].tolist() == [0.25, 0.75]


def test_evidence_that_is_everywhere_alike_has_ratio_one():
    masks = np.random.default_rng(0).random((5, 30, 21)) < 0.3
    found = measure_evidence(np.ones((5, 7, 5)), masks)
    np.testing.assert_allclose(found["ratio"], 1, rtol=1e-5)


def test_without_evidence_or_a_mask_nothing_can_be_measured():
    heatmaps = np.stack([np.zeros((4, 4)), np.ones((4, 4)), np.ones((4, 4))])
    masks = np.stack([np.eye(4), np.zeros((4, 4)), np.ones((4, 4))]).astype(bool)
    found = measure_evidence(heatmaps, masks)
    assert found[["inside", "ratio"]].isna().all(axis=None)
    assert found["area"].tolist() == [0.25, 0, 1]
    assert measure_evidence(heatmaps[:0], masks[:0]).columns.tolist() == ["inside", "area", "ratio"]


def test_negative_evidence_and_missing_masks_are_refused():
    masks = np.eye(4, dtype=bool)[None]
    for worst in (-0.1, np.nan):
        with pytest.raises(ValueError, match="expected one mask for each heatmap, and no negative evidence"):
            measure_evidence(np.full((1, 4, 4), worst), masks)
    with pytest.raises(ValueError, match=r"Found 2 heatmaps from 1\.0 and 1 masks"):
        measure_evidence(np.ones((2, 4, 4)), masks)


def test_the_evidence_of_a_detector_lies_on_the_squares():
    images = make_squares()
    masks = find_foreground(images)
    np.testing.assert_array_equal(masks, images[..., 0] > 0)
    found = measure_evidence(compute_grad_cam(build_detector(), images, [0, 0, 0], "conv"), masks)
    assert (found["ratio"] > 5).all()


def test_evidence_is_averaged_over_the_images_of_each_kind():
    table = pd.DataFrame(
        {
            "inside": [0.2, 0.4, np.nan, 0.9, np.nan],
            "area": [0.1, 0.2, 0.7, 0.3, 1],
            "ratio": [2, 2.5, np.nan, 3, np.nan],
        }
    )
    found = summarize_evidence(table, ["wrong", "wrong", "wrong", "right", "foreign"])
    assert found.index.name == "kind"
    assert found.index.tolist() == ["wrong", "right", "foreign"]
    assert found["images"].tolist() == [2, 1, 0]
    np.testing.assert_allclose(found[["inside", "area", "ratio"]], [[0.3, 0.15, 2.25], [0.9, 0.3, 3], [np.nan] * 3])
    assert summarize_evidence(table.set_axis([7, 8, 9, 10, 11]), list("aabbb"))["images"].tolist() == [2, 1]
