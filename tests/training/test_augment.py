"""Augmentation on whole batches, against ImageDataGenerator's own run and against plain loops."""

import numpy as np
import pytest
from scipy import stats

from helpers.training.augment import (
    ImageDataGenerator,
    apply_parameters,
    augment_images,
    chain_augmenters,
    draw_parameters,
    keep_background,
    make_augmenter,
    make_exposure_augmenter,
    mix_augmenters,
    paste_on_canvas,
    transform,
    turn_about_centre,
)

# Keras itself calls SciPy by an old name.
pytestmark = pytest.mark.filterwarnings("ignore:Please import `affine_transform`:DeprecationWarning")

SIZE = (31, 21)
SQUARE = (25, 25)
NEUTRAL = {"theta": 0, "tx": 0, "ty": 0, "shear": 0, "zx": 1, "zy": 1, "flip_horizontal": False, "flip_vertical": False}
NUMPY_PADDING = {"nearest": "edge", "constant": "constant", "reflect": "symmetric"}


@pytest.fixture(autouse=True)
def _keep_numpy_state():
    state = np.random.get_state()
    yield
    np.random.set_state(state)


def make_noise(count, size=SIZE, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *size, channels)).astype("uint8")


def make_blobs(count, size=SIZE, channels=3, seed=0):
    """Make smooth images: Gaussian blobs at random places, one per channel."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: size[0], : size[1]][:, None, :, :, None]
    centres = rng.uniform(0.2, 0.8, (2, count, 1, 1, channels)) * np.array(size)[:, None, None, None, None]
    return 255 * np.exp(-((rows - centres[0]) ** 2 + (columns - centres[1]) ** 2) / 30)


def make_parameters(count, seed=0, **overrides):
    """Draw transforms on their own account, larger than usual; every second image gets all of them at once."""
    rng = np.random.default_rng(seed)
    parameters = {
        "theta": rng.uniform(-60, 60, count),
        "tx": rng.uniform(-6, 6, count),
        "ty": rng.uniform(-6, 6, count),
        "shear": rng.uniform(-25, 25, count),
        "zx": rng.uniform(0.7, 1.4, count),
        "zy": rng.uniform(0.7, 1.4, count),
        "flip_horizontal": rng.random(count) < 0.5,
        "flip_vertical": rng.random(count) < 0.5,
    }
    for image in range(1, count, 2):  # the others get one transform only, so that no two can cancel
        kept = list(parameters)[image // 2 % len(parameters)]
        for name in parameters:
            if name != kept:
                parameters[name][image] = NEUTRAL[name]
        if "flip" in kept:
            parameters[kept][image] = True
    return parameters | {"channel_shift_intensity": None, "brightness": None} | overrides


def pick(parameters, image):
    return {name: None if values is None else values[image] for name, values in parameters.items()}


def apply_keras(images, parameters, generator):
    """Run the generator itself, image by image."""
    return np.stack(
        [
            generator.apply_transform(image, pick(parameters, number))
            for number, image in enumerate(images.astype("float32"))
        ]
    )


def apply_keras_about_centre(images, parameters, generator):
    """Run the generator on images padded to a square, whose centre it gets right, and cut the padding off.

    Away from the border of the original, the padding makes no difference.
    """
    height, width = images.shape[1:3]
    down, right = max(width - height, 0) // 2, max(height - width, 0) // 2
    square = np.pad(images, ((0, 0), (down, down), (right, right), (0, 0)), "edge")
    assert square.shape[1] == square.shape[2]
    return apply_keras(square, parameters, generator)[:, down : down + height, right : right + width]


def find_interior(parameters, size=SIZE, apply=apply_keras):
    """Mark the pixels that are read from at least one pixel away from the border, by transforming coordinates."""
    geometry = parameters | {"channel_shift_intensity": None, "brightness": None}
    rows, columns = np.mgrid[: size[0], : size[1]]
    coordinates = np.repeat(np.stack([rows, columns], -1)[None], len(parameters["theta"]), 0)
    read = apply(coordinates, geometry, ImageDataGenerator(fill_mode="nearest"))
    return ((read >= 1) & (read <= np.array(size) - 2)).all(-1)


# Agreement with ImageDataGenerator


@pytest.mark.parametrize("fill_mode", ["nearest", "constant", "reflect"])
@pytest.mark.parametrize("size", [SIZE, SIZE[::-1], SQUARE], ids=str)
@pytest.mark.parametrize("make_images", [make_noise, make_blobs])
def test_geometry_agrees_with_keras_within_a_grey_level(make_images, size, fill_mode):
    images, parameters = make_images(32, size), make_parameters(32)
    generator = ImageDataGenerator(fill_mode=fill_mode, cval=77.0)
    expected = apply_keras(images, parameters, generator)
    result = apply_parameters(images, parameters, generator)
    interior = find_interior(parameters, size)
    assert interior.mean() > 0.5
    assert result.dtype == np.float32
    assert np.abs(result - expected)[interior].max() < 1
    moved = np.abs(expected - images).max((1, 2, 3)) > 20
    assert moved.all()  # each transform was large enough to show


@pytest.mark.parametrize("fill_mode", ["nearest", "reflect"])
def test_border_agrees_with_keras_too_where_both_pad_alike(fill_mode):
    images, parameters = make_noise(32, SQUARE), make_parameters(32)
    generator = ImageDataGenerator(fill_mode=fill_mode)
    result = apply_parameters(images, parameters, generator)
    assert np.abs(result - apply_keras(images, parameters, generator)).max() < 1


@pytest.mark.parametrize("size", [(8, 8), (9, 9), (28, 28)])
def test_geometry_agrees_for_even_and_odd_sizes_and_one_channel(size):
    images, parameters = make_noise(16, size, channels=1), make_parameters(16, seed=3)
    generator = ImageDataGenerator()
    expected = apply_keras(images, parameters, generator)
    assert np.abs(apply_parameters(images, parameters, generator) - expected).max() < 1


def test_nearest_neighbour_interpolation_agrees_with_keras():
    images, parameters = make_noise(32), make_parameters(32)
    generator = ImageDataGenerator(interpolation_order=0)
    result = apply_parameters(images, parameters, generator)
    interior = find_interior(parameters)
    np.testing.assert_array_equal(result[interior], apply_keras(images, parameters, generator)[interior])
    bilinear = apply_parameters(images, parameters, ImageDataGenerator())
    assert np.abs(result - bilinear)[interior].max() > 50


def test_channel_shift_agrees_with_keras():
    shift = np.random.default_rng(1).uniform(-90, 90, 24)
    images, parameters = make_blobs(24, SQUARE) * 0.5 + 60, make_parameters(24, channel_shift_intensity=shift)
    generator = ImageDataGenerator()
    expected = apply_keras(images, parameters, generator)
    result = apply_parameters(images, parameters, generator)
    assert np.abs(result - expected).max() < 1
    unshifted = apply_parameters(images, parameters | {"channel_shift_intensity": None}, generator)
    # Clipped to each image's own range, as Keras does.
    np.testing.assert_allclose(result.max((1, 2, 3))[shift > 0], unshifted.max((1, 2, 3))[shift > 0], atol=1e-3)
    assert (np.abs(result - unshifted).max((1, 2, 3)) > np.minimum(np.abs(shift), 20) - 1).all()


def test_brightness_agrees_with_keras_within_a_grey_level():
    brightness = np.random.default_rng(1).uniform(0.3, 1.8, 24)
    images = make_noise(24)
    parameters = {name: np.repeat(value, 24) for name, value in NEUTRAL.items()}
    parameters |= {"channel_shift_intensity": None, "brightness": brightness}
    generator = ImageDataGenerator()
    result = apply_parameters(images, parameters, generator)
    # Pillow drops the decimals of the brightened value.
    np.testing.assert_allclose(np.floor(result + 1e-3), apply_keras(images, parameters, generator), atol=1e-6)
    assert result.max() == 255


def test_everything_together_agrees_with_keras_up_to_pillows_rounding():
    rng = np.random.default_rng(2)
    brightness = rng.uniform(0.5, 1.5, 24)
    images = make_noise(24, SQUARE)
    parameters = make_parameters(24, channel_shift_intensity=rng.uniform(-40, 40, 24), brightness=brightness)
    generator = ImageDataGenerator()
    difference = apply_parameters(images, parameters, generator) - apply_keras(images, parameters, generator)
    # Before brightening, Keras cuts the image down to whole grey levels, and again afterwards.
    assert (np.abs(difference).max((1, 2, 3)) < 1 + brightness).all()
    assert np.abs(difference).mean() < 1.2


def test_each_image_has_its_own_parameters():
    images, parameters = make_noise(6), make_parameters(6, brightness=np.linspace(0.5, 1, 6))
    generator = ImageDataGenerator()
    together = apply_parameters(images, parameters, generator)
    for image in range(6):
        alone = {name: None if values is None else values[image : image + 1] for name, values in parameters.items()}
        np.testing.assert_array_equal(apply_parameters(images[image : image + 1], alone, generator)[0], together[image])


@pytest.mark.parametrize("channels", [2, 3, 4, 5])
@pytest.mark.parametrize("order", [0, 1])
def test_each_channel_is_resampled_like_a_grey_image(channels, order):
    images, parameters = np.tile(make_noise(24)[..., :1].astype("float32"), channels), make_parameters(24)
    images *= np.linspace(0.5, 1, channels, dtype="float32")
    generator = ImageDataGenerator(interpolation_order=order, fill_mode="constant", cval=42.0)
    result = apply_parameters(images, parameters, generator)
    for channel in range(channels):
        grey = apply_parameters(images[..., channel : channel + 1], parameters, generator)
        np.testing.assert_allclose(result[..., channel : channel + 1], grey, atol=1e-2)
        assert np.abs(grey - images[..., channel : channel + 1]).max() > 50


def test_neutral_parameters_change_nothing():
    images = make_noise(4)
    parameters = {name: np.repeat(value, 4) for name, value in NEUTRAL.items()}
    parameters |= {"channel_shift_intensity": None, "brightness": None}
    result = apply_parameters(images, parameters, ImageDataGenerator())
    np.testing.assert_array_equal(result, images)
    assert result.dtype == np.float32


@pytest.mark.parametrize("fill_mode", ["nearest", "constant", "reflect"])
@pytest.mark.parametrize(("tx", "ty"), [(3, 0), (-3, 0), (0, 5), (0, -5), (2, -4)])
def test_fill_mode_decides_what_lies_beyond_the_border(fill_mode, tx, ty):
    images = make_noise(2, (9, 12))
    generator = ImageDataGenerator(fill_mode=fill_mode, cval=42.0)
    parameters = {name: np.repeat(value, 2) for name, value in NEUTRAL.items()}
    parameters |= {"tx": np.repeat(tx, 2), "ty": np.repeat(ty, 2), "channel_shift_intensity": None, "brightness": None}
    constants = {"constant_values": 42} if fill_mode == "constant" else {}
    padded = np.pad(images, ((0, 0), (6, 6), (6, 6), (0, 0)), NUMPY_PADDING[fill_mode], **constants)
    expected = padded[:, 6 + ty : 15 + ty, 6 + tx : 18 + tx]
    np.testing.assert_allclose(apply_parameters(images, parameters, generator), expected, atol=0.01)


@pytest.mark.parametrize(("settings", "across"), [({"height_shift_range": [3]}, 2), ({"width_shift_range": [3]}, 1)])
def test_height_shifts_move_up_and_down_and_width_shifts_sideways(settings, across):
    images = np.zeros((60, 20, 20, 1), "uint8")
    images[:, 10, 10] = 200
    shifted = make_augmenter(ImageDataGenerator(**settings))(images, np.random.default_rng(0))
    places = np.argwhere(shifted > 100)
    assert set(places[:, across]) == {10}
    assert set(places[:, 3 - across]) == {7, 13}


@pytest.mark.parametrize("size", [SIZE, SIZE[::-1], (16, 40), SQUARE], ids=str)
def test_adjusted_parameters_turn_images_about_their_centre(size):
    images, parameters = make_noise(32, size), make_parameters(32, seed=1)
    before = {name: None if values is None else values.copy() for name, values in parameters.items()}
    generator = ImageDataGenerator()
    adjusted = turn_about_centre(parameters, size)
    expected = apply_keras_about_centre(images, parameters, generator)
    interior = find_interior(parameters, size, apply_keras_about_centre)
    assert interior.mean() > 0.4
    assert np.abs(apply_parameters(images, adjusted, generator) - expected)[interior].max() < 1
    assert np.abs(apply_keras(images, adjusted, generator) - expected)[interior].max() < 1
    for name, values in before.items():
        np.testing.assert_array_equal(parameters[name], values)
        if name not in ("tx", "ty") or size == SQUARE:
            np.testing.assert_array_equal(adjusted[name], values)


def test_images_that_are_not_square_turn_about_their_centre():
    images = make_noise(2, (9, 16))
    np.testing.assert_allclose(transform(images, "nearest", theta=180), images[:, ::-1, ::-1], atol=0.05)
    turned = make_augmenter(ImageDataGenerator(rotation_range=90, zoom_range=[0.001, 0.001]))
    zoomed = turned(images, np.random.default_rng(0))
    np.testing.assert_allclose(
        zoomed, np.broadcast_to(images[:, 4:5, 7:9].mean(2, keepdims=True), zoomed.shape), atol=3
    )


def test_flips_and_half_turns_are_exact():
    images = make_noise(3, (12, 12))
    np.testing.assert_allclose(transform(images, flip_horizontal=True), images[:, :, ::-1], atol=0.01)
    np.testing.assert_allclose(transform(images, flip_vertical=True), images[:, ::-1], atol=0.01)
    half_turn = transform(images, "nearest", theta=180)
    np.testing.assert_allclose(half_turn, images[:, ::-1, ::-1], atol=0.05)


def test_positive_angles_turn_left_and_positive_shifts_move_left_and_up_as_in_keras():
    image = np.zeros((1, 11, 11, 1), "uint8")
    image[0, 2, 5] = 200  # above the centre
    for given, place in [({"theta": 90}, (5, 2)), ({"tx": 2}, (2, 3)), ({"ty": 2}, (0, 5))]:
        for moved in (
            transform(image, **given)[0],
            ImageDataGenerator(fill_mode="constant").apply_transform(image[0].astype("float32"), given),
        ):
            assert np.unravel_index(moved.argmax(), moved.shape)[:2] == place


# transform


def test_transform_takes_one_value_for_all_or_one_for_each():
    images = make_noise(3)
    one = transform(images, theta=10, tx=2)
    np.testing.assert_array_equal(transform(images, theta=[10, 10, 10], tx=[2, 2, 2]), one)
    each = transform(images, theta=[0, 10, 20], tx=2)
    np.testing.assert_array_equal(each[1], one[1])
    assert np.abs(each[2] - one[2]).max() > 20
    np.testing.assert_array_equal(transform(images), images)


def test_transform_agrees_with_keras_and_fills_with_black_by_default():
    images = make_noise(3) // 2 + 100
    given = {"theta": 20, "shear": 5, "zx": 1.2, "zy": 0.9, "ty": 1.5}
    result = transform(images, **given)
    parameters = {name: np.repeat(value, 3) for name, value in (NEUTRAL | given).items()}
    interior = find_interior(parameters, SIZE, apply_keras_about_centre)
    expected = apply_keras_about_centre(images, parameters, ImageDataGenerator())
    assert np.abs(result - expected)[interior].max() < 1
    assert result[~interior].min() == 0
    assert transform(images, "nearest", **given).min() >= 100


def test_transform_brightens_and_shifts_channels():
    images = np.full((2, 4, 4, 1), 100, "uint8")
    images[:, 0] = 0
    images[:, 1] = 200
    np.testing.assert_allclose(transform(images, brightness=[0.5, 2])[:, 2, 2, 0], [50, 200])
    assert transform(images, brightness=2).max() == 255
    np.testing.assert_allclose(transform(images, channel_shift_intensity=[30, -30])[:, 2, 2, 0], [130, 70])


# Draws


def draw_keras(generator, count, size):
    np.random.seed(5)
    draws = [generator.get_random_transform((*size, 3)) for _ in range(count)]
    return {name: np.array([draw[name] for draw in draws]) for name in draws[0]}


def assert_same_distribution(ours, theirs):
    __tracebackhide__ = True
    if len(np.unique(theirs)) <= 20:
        values, counts = np.unique(np.round(theirs.astype(float), 9), return_counts=True)
        our_values, our_counts = np.unique(np.round(ours.astype(float), 9), return_counts=True)
        np.testing.assert_allclose(our_values, values)
        np.testing.assert_allclose(our_counts / len(ours), counts / len(theirs), atol=0.04)
        return
    assert stats.ks_2samp(ours, theirs).pvalue > 1e-3
    width = np.ptp(theirs)
    np.testing.assert_allclose([ours.min(), ours.max()], [theirs.min(), theirs.max()], atol=0.01 * width)
    np.testing.assert_allclose(ours.mean(), theirs.mean(), atol=0.03 * width)


SHIFTS = [
    {"height_shift_range": 0.25, "width_shift_range": 0.3},
    {"height_shift_range": 3.5, "width_shift_range": 1.0},
    {"height_shift_range": 4, "width_shift_range": 1},
    {"height_shift_range": np.int64(3), "width_shift_range": 2},
    {"height_shift_range": [1, 3], "width_shift_range": (0.5, 2.0, 4.0)},
    {"height_shift_range": [0.1, 0.2], "width_shift_range": [-3, -1]},
    {"height_shift_range": [0], "width_shift_range": [0, 2]},
    {"rotation_range": 5, "height_shift_range": 0.1, "zoom_range": 0.1, "horizontal_flip": True},
]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"rotation_range": 15, "shear_range": 8.0},
        {"zoom_range": 0.3},
        {"zoom_range": [0.5, 1.5]},
        {"zoom_range": [1.2, 1.2]},
        {"horizontal_flip": True},
        {"vertical_flip": True},
        {"channel_shift_range": 30.0, "brightness_range": (0.4, 1.1)},
        *SHIFTS,
    ],
    ids=str,
)
def test_draws_are_distributed_as_those_of_keras(settings):
    generator = ImageDataGenerator(**settings)
    size, count = (20, 50), 3000  # not square: height and width cannot be mistaken for each other
    ours = draw_parameters(generator, count, size, np.random.default_rng(1))
    theirs = draw_keras(generator, count, size)
    # Keras draws tx, which moves images sideways, from height_shift_range.
    theirs["tx"], theirs["ty"] = theirs["ty"], theirs["tx"]
    assert ours.keys() == theirs.keys()
    for name, values in ours.items():
        if values is None:
            assert (theirs[name] == None).all()  # noqa: E711
            continue
        assert values.shape == (count,)
        assert_same_distribution(values, theirs[name])


def test_draws_are_independent_of_each_other():
    generator = ImageDataGenerator(
        rotation_range=9,
        shear_range=9,
        zoom_range=0.2,
        height_shift_range=0.2,
        width_shift_range=0.2,
        horizontal_flip=True,
        vertical_flip=True,
        brightness_range=(0.5, 1),
        channel_shift_range=9.0,
    )
    draws = draw_parameters(generator, 4000, SIZE, np.random.default_rng(0))
    correlations = np.corrcoef([values.astype(float) for values in draws.values()])
    assert np.abs(correlations - np.eye(len(draws))).max() < 0.06


# make_augmenter

GEOMETRY = {"rotation_range": 20, "width_shift_range": 0.1, "zoom_range": 0.2, "horizontal_flip": True}


def test_augmenter_is_decided_by_the_generator_of_random_numbers():
    images = make_noise(6)
    augment = make_augmenter(ImageDataGenerator(**GEOMETRY))
    first = augment(images, np.random.default_rng(1))
    np.testing.assert_array_equal(augment(images, np.random.default_rng(1)), first)
    assert (np.abs(augment(images, np.random.default_rng(2)) - first).max((1, 2, 3)) > 20).all()
    assert first.shape == images.shape
    assert first.dtype == np.float32


def test_augmenter_applies_the_drawn_parameters_and_leaves_its_input_alone():
    images = make_noise(6)
    before = images.copy()
    generator = ImageDataGenerator(**GEOMETRY, brightness_range=(0.5, 1))
    result = make_augmenter(generator)(images, np.random.default_rng(1))
    parameters = turn_about_centre(draw_parameters(generator, 6, SIZE, np.random.default_rng(1)), SIZE)
    np.testing.assert_array_equal(result, apply_parameters(images, parameters, generator))
    np.testing.assert_array_equal(images, before)


def test_augmenter_leaves_numpys_global_state_alone():
    np.random.seed(3)
    expected = np.random.random(3)
    np.random.seed(3)
    make_augmenter(ImageDataGenerator(**GEOMETRY))(make_noise(2), np.random.default_rng(1))
    np.testing.assert_array_equal(np.random.random(3), expected)


def make_fallback(name):
    if name == "preprocessing_function":
        return ImageDataGenerator(rotation_range=20, preprocessing_function=lambda image: 255 - image, rescale=0.5)
    if name == "interpolation_order=3":
        return ImageDataGenerator(rotation_range=20, interpolation_order=3)
    if name == "fill_mode='wrap'":
        return ImageDataGenerator(rotation_range=20, width_shift_range=0.4, fill_mode="wrap")
    generator = ImageDataGenerator(horizontal_flip=True, zca_whitening=True, featurewise_center=True)
    generator.fit(make_noise(20, (6, 5)))
    return generator


@pytest.mark.parametrize(
    "name", ["preprocessing_function", "interpolation_order=3", "fill_mode='wrap'", "zca_whitening"]
)
def test_what_cannot_be_batched_is_run_by_keras_with_a_warning(name):
    generator, images = make_fallback(name), make_noise(5, (6, 5), seed=4)
    with pytest.warns(UserWarning, match=name):
        augment = make_augmenter(generator)
    np.random.seed(11)
    before = images.copy()
    result = augment(images, np.random.default_rng(7))
    assert result.shape == images.shape
    state_afterwards = np.random.random(3)

    np.random.seed(11)
    np.testing.assert_array_equal(np.random.random(3), state_afterwards)
    np.testing.assert_array_equal(images, before)
    np.random.seed(np.random.default_rng(7).integers(2**32))
    expected = [generator.standardize(generator.random_transform(image.astype("float32"))) for image in images]
    np.testing.assert_allclose(result, expected, atol=1e-5)
    np.testing.assert_array_equal(augment(images, np.random.default_rng(7)), result)
    assert np.abs(augment(images, np.random.default_rng(8)) - result).max() > 0.1


@pytest.mark.parametrize(
    "name", ["preprocessing_function", "interpolation_order=3", "fill_mode='wrap'", "zca_whitening"]
)
def test_what_is_run_by_keras_is_float32_too(name):
    with pytest.warns(UserWarning, match=name):
        augment = make_augmenter(make_fallback(name))
    assert augment(make_noise(2, (6, 5)), np.random.default_rng(7)).dtype == np.float32


def test_numpys_global_state_is_put_back_also_after_an_error():
    def fail(image):
        raise RuntimeError("on purpose")

    with pytest.warns(UserWarning, match="preprocessing_function"):
        augment = make_augmenter(ImageDataGenerator(rotation_range=20, preprocessing_function=fail))
    np.random.seed(11)
    with pytest.raises(RuntimeError, match="on purpose"):
        augment(make_noise(2), np.random.default_rng(7))
    after = np.random.random()
    np.random.seed(11)
    assert np.random.random() == after


def test_what_can_be_batched_gives_no_warning():
    settings = GEOMETRY | {"brightness_range": (0.5, 1), "channel_shift_range": 9.0, "rescale": 1 / 255}
    make_augmenter(ImageDataGenerator(**settings, interpolation_order=0, fill_mode="reflect"))


@pytest.mark.parametrize(
    "settings",
    [
        {"rescale": 1 / 255},
        {"samplewise_center": True},
        {"samplewise_center": True, "samplewise_std_normalization": True},
        {"featurewise_center": True},
        {"featurewise_center": True, "featurewise_std_normalization": True},
        {"rescale": 1 / 255, "samplewise_center": True, "samplewise_std_normalization": True},
        {"rescale": 1 / 255, "featurewise_center": True, "featurewise_std_normalization": True},
    ],
    ids=str,
)
def test_standardization_agrees_with_keras(settings):
    generator, images = ImageDataGenerator(**settings), make_noise(5)
    generator.fit(make_noise(10, seed=1).astype("float32"))
    result = make_augmenter(generator)(images, np.random.default_rng(0))
    expected = [generator.standardize(image.astype("float32")) for image in images]
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-4)
    assert np.abs(result - images).max() > 1
    assert result.dtype == np.float32


def test_standardization_comes_after_the_transform():
    generator = ImageDataGenerator(**GEOMETRY, rescale=1 / 255, samplewise_center=True)
    result = make_augmenter(generator)(make_noise(5), np.random.default_rng(0))
    np.testing.assert_allclose(result.mean((1, 2, 3)), 0, atol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [{"featurewise_center": True}, {"featurewise_center": True, "featurewise_std_normalization": True}],
    ids=str,
)
def test_featurewise_settings_without_statistics_are_refused(settings):
    augment = make_augmenter(ImageDataGenerator(**settings))
    with pytest.raises(ValueError, match=r"generator\.fit"):
        augment(make_noise(2), np.random.default_rng(0))


# paste_on_canvas


def paste_naively(images, canvas, rng):
    """Paste and pool with plain loops; the places are drawn in the same order."""
    count, height, width, channels = images.shape
    tops = rng.integers(0, canvas - height + 1, count)
    lefts = rng.integers(0, canvas - width + 1, count)
    result = np.zeros_like(images)
    for image in range(count):
        large = np.zeros((canvas, canvas, channels), images.dtype)
        for row in range(height):
            for column in range(width):
                large[tops[image] + row, lefts[image] + column] = images[image, row, column]
        for row in range(height):
            for column in range(width):
                above, below = int(np.floor(row * canvas / height)), int(np.ceil((row + 1) * canvas / height))
                left, right = int(np.floor(column * canvas / width)), int(np.ceil((column + 1) * canvas / width))
                result[image, row, column] = large[above:below, left:right].max((0, 1))
    return result


@pytest.mark.parametrize(("size", "canvas"), [((28, 28), 56), ((28, 28), 42), ((28, 28), 35), ((12, 9), 17)])
def test_pasting_agrees_with_plain_loops(size, canvas):
    images = make_noise(4, size, channels=2)
    result = paste_on_canvas(images, canvas, np.random.default_rng(3))
    np.testing.assert_array_equal(result, paste_naively(images, canvas, np.random.default_rng(3)))
    assert result.dtype == images.dtype


def test_canvas_of_twice_the_size_is_the_plain_two_by_two_max_pool():
    images = make_noise(5, (28, 28), channels=1)
    result = paste_on_canvas(images, 56, np.random.default_rng(3))
    rng = np.random.default_rng(3)
    tops, lefts = rng.integers(0, 29, 5), rng.integers(0, 29, 5)
    large = np.zeros((5, 56, 56, 1), "uint8")
    for image, (top, left) in enumerate(zip(tops, lefts, strict=True)):
        large[image, top : top + 28, left : left + 28] = images[image]
    np.testing.assert_array_equal(result, large.reshape(5, 28, 2, 28, 2, 1).max((2, 4)))


def test_single_bright_pixel_survives_at_its_place():
    images = np.zeros((300, 28, 28, 1), "uint8")
    images[:, 10, 4] = 200
    result = paste_on_canvas(images, 56, np.random.default_rng(0))
    assert (result.reshape(300, -1).sum(1) == 200).all()  # neither faded nor doubled
    _, rows, columns, _ = np.nonzero(result)
    assert set(rows) == set(range(10 // 2, (10 + 28) // 2 + 1))
    assert set(columns) == set(range(4 // 2, (4 + 28) // 2 + 1))


def test_image_takes_up_its_share_of_the_canvas():
    result = paste_on_canvas(np.full((50, 28, 28, 1), 255, "uint8"), 56, np.random.default_rng(0))
    heights, widths = result.max((2, 3)).astype(bool).sum(1), result.max((1, 3)).astype(bool).sum(1)
    assert set(heights) == set(widths) == {14, 15}
    np.testing.assert_array_equal(result.astype(bool).sum((1, 2, 3)), heights * widths)  # a full rectangle


def test_canvas_of_the_same_size_changes_nothing():
    images = make_noise(3, (28, 28))
    np.testing.assert_array_equal(paste_on_canvas(images, 28, np.random.default_rng(0)), images)


def test_pasting_keeps_the_dtype_and_follows_the_seed():
    images = make_noise(6, (28, 28)).astype("float32") / 2
    first = paste_on_canvas(images, 56, np.random.default_rng(1))
    assert first.dtype == np.float32
    np.testing.assert_array_equal(paste_on_canvas(images, 56, np.random.default_rng(1)), first)
    assert not np.array_equal(paste_on_canvas(images, 56, np.random.default_rng(2)), first)


@pytest.mark.parametrize("size", [(28, 28), (28, 20), (20, 28)])
def test_canvas_smaller_than_the_images_is_refused(size):
    with pytest.raises(ValueError, match="canvas=27"):
        paste_on_canvas(make_noise(1, size), 27, np.random.default_rng(0))


# mix_augmenters


def paint(value):
    return lambda images, rng: np.full(images.shape, value, np.float32)


def test_mixing_respects_the_probabilities():
    images = make_noise(4000, (2, 2), channels=1)
    mixed = mix_augmenters([None, paint(1000.0), paint(2000.0)], [0.6, 0.3, 0.1])(images, np.random.default_rng(0))
    shares = [(mixed == value).all((1, 2, 3)).mean() for value in (images, 1000, 2000)]
    np.testing.assert_allclose(shares, [0.6, 0.3, 0.1], atol=0.025)
    assert mixed.dtype == np.float32
    assert mixed.shape == images.shape


def test_mixing_gives_equal_shares_by_default():
    mixed = mix_augmenters([paint(0.0), paint(1.0), paint(2.0), paint(3.0)])(
        make_noise(4000, (2, 2)), np.random.default_rng(0)
    )
    shares = np.bincount(mixed[:, 0, 0, 0].astype(int)) / 4000
    np.testing.assert_allclose(shares, 0.25, atol=0.03)


def test_mixing_hands_each_image_to_one_augmenter_and_keeps_the_order():
    images = make_noise(50)
    seen = []

    def invert(part, rng):
        seen.append(len(part))
        return 255.0 - part

    mixed = mix_augmenters([None, invert])(images, np.random.default_rng(0))
    inverted = np.array([np.array_equal(after, 255.0 - before) for before, after in zip(images, mixed, strict=True)])
    kept = np.array([np.array_equal(after, before) for before, after in zip(images, mixed, strict=True)])
    assert (inverted ^ kept).all()
    assert seen == [inverted.sum()]
    assert 0 < inverted.sum() < 50


def test_mixing_leaves_its_input_alone_and_may_leave_all_as_it_is():
    images = make_noise(5).astype("float32")
    before = images.copy()
    mixed = mix_augmenters([None, paint(1.0)], [1, 0])(images, np.random.default_rng(0))
    np.testing.assert_array_equal(mixed, before)
    mix_augmenters([paint(1.0)])(images, np.random.default_rng(0))
    np.testing.assert_array_equal(images, before)


def test_mixing_is_decided_by_the_seed():
    images = make_noise(40)
    mixed = mix_augmenters([None, make_augmenter(ImageDataGenerator(**GEOMETRY)), lambda part, rng: part[:, ::-1]])
    first = mixed(images, np.random.default_rng(1))
    np.testing.assert_array_equal(mixed(images, np.random.default_rng(1)), first)
    assert not np.array_equal(mixed(images, np.random.default_rng(2)), first)


def test_transform_refuses_parameters_that_do_not_exist():
    with pytest.raises(TypeError, match=r"No such parameter: rotate\. Known: theta"):
        transform(make_noise(1), rotate=30)


# make_exposure_augmenter

CHANGES = {"gamma": 0.6, "contrast": 0.5, "brightness": 0.3, "sharpness": 0.9, "noise": 20.0}


def make_ramps(count, channels=1, low=60, high=190, size=(12, 16)):
    """Make images that are all alike: levels that rise from one corner to the other, away from 0 and 255."""
    ramp = np.linspace(low, high, size[0] * size[1]).reshape(size)[..., None] - 5 * np.arange(channels)
    return np.broadcast_to(ramp, (count, *ramp.shape)).astype("float32")


def blur(images):
    """Take the mean of 3 x 3 pixels twice, with plain loops; beyond the border lies nothing."""
    for _ in range(2):
        before, images = images, np.empty(images.shape)
        for row in range(images.shape[1]):
            for column in range(images.shape[2]):
                window = before[:, max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
                images[:, row, column] = window.mean(axis=(1, 2))
    return images


def assert_uniform(draws, low, high):
    __tracebackhide__ = True
    assert low - 1e-3 * (high - low) <= min(draws) < max(draws) <= high + 1e-3 * (high - low)
    assert stats.kstest((np.asarray(draws) - low) / (high - low), "uniform").pvalue > 1e-3


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("changes", [*({name: value} for name, value in CHANGES.items()), CHANGES], ids="-".join)
def test_levels_stay_in_range_and_images_are_changed_each_in_its_own_way(changes, channels):
    images = np.broadcast_to(make_noise(1, channels=channels), (12, *SIZE, channels))
    before = images.copy()
    augment = make_exposure_augmenter(**changes)
    first = augment(images, np.random.default_rng(1))
    assert (first.shape, first.dtype) == (images.shape, np.float32)
    assert 0 <= first.min() < 20
    assert 235 < first.max() <= 255
    np.testing.assert_array_equal(images, before)
    np.testing.assert_array_equal(augment(images, np.random.default_rng(1)), first)
    others = augment(images, np.random.default_rng(2))
    for number in range(12):
        assert np.abs(first[number] - others[number]).max() > 0.01
        assert np.abs(first[number] - first[number - 1]).max() > 0.01
        assert np.abs(first[number] - images[number]).max() > 0.01


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
def test_without_any_change_images_stay_as_they_are(dtype):
    images = make_noise(3).astype(dtype)
    result = make_exposure_augmenter()(images, np.random.default_rng(0))
    np.testing.assert_array_equal(result, images)
    assert result.dtype == np.float32
    result[:] = 0
    assert images.max() > 0  # not the same memory


@pytest.mark.parametrize("name", CHANGES)
def test_images_that_are_floats_are_not_changed_either(name):
    images = make_noise(3).astype("float32")
    before = images.copy()
    make_exposure_augmenter(**{name: CHANGES[name]})(images, np.random.default_rng(0))
    np.testing.assert_array_equal(images, before)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_type_of_the_images_makes_no_difference(dtype):
    images, augment = make_noise(4), make_exposure_augmenter(**CHANGES)
    expected = augment(images, np.random.default_rng(0))
    np.testing.assert_array_equal(augment(images.astype(dtype), np.random.default_rng(0)), expected)


def test_gamma_is_the_exponent_of_a_tone_curve():
    images = make_ramps(800)
    result = make_exposure_augmenter(gamma=0.7)(images, np.random.default_rng(0))
    exponents = np.log(result / 255) / np.log(images / 255)
    np.testing.assert_allclose(exponents, np.broadcast_to(exponents[:, :1, :1], images.shape), rtol=1e-3)
    assert_uniform(np.log(exponents[:, 0, 0, 0]), -0.7, 0.7)


def test_gamma_leaves_black_and_white():
    images = np.tile(np.array([0, 255], "uint8")[None, :, None, None], (20, 1, 1, 1))
    result = make_exposure_augmenter(gamma=1.0)(images, np.random.default_rng(0))
    np.testing.assert_allclose(result, images, atol=1e-4)


@pytest.mark.parametrize("channels", [1, 3])
def test_contrast_is_a_factor_of_the_distance_from_the_mean_of_the_image(channels):
    images = make_ramps(800, channels, 90, 160)
    result = make_exposure_augmenter(contrast=0.8)(images, np.random.default_rng(0))
    mean = images.mean(axis=(1, 2, 3), keepdims=True)  # of all channels together: colours keep their balance
    factors = np.sum((result - mean) * (images - mean), axis=(1, 2, 3)) / np.sum((images - mean) ** 2, axis=(1, 2, 3))
    np.testing.assert_allclose(result, mean + factors[:, None, None, None] * (images - mean), atol=1e-2)
    assert_uniform(factors, 0.2, 1.8)


def test_contrast_is_about_the_mean_of_each_image():
    images = np.concatenate([make_ramps(1, low=30, high=60), make_ramps(1, low=190, high=220)])
    result = make_exposure_augmenter(contrast=0.9)(images, np.random.default_rng(0))
    np.testing.assert_allclose(result.mean(axis=(1, 2, 3)), [45, 205], atol=0.1)


def test_brightness_is_a_shift_by_a_share_of_the_range():
    images = make_ramps(800, 3, 100, 150)
    result = make_exposure_augmenter(brightness=0.2)(images, np.random.default_rng(0))
    shifts = result - images
    np.testing.assert_allclose(shifts, np.broadcast_to(shifts[:, :1, :1, :1], images.shape), atol=1e-3)
    assert_uniform(shifts[:, 0, 0, 0], -51, 51)


def test_sharpness_is_a_share_of_the_difference_from_a_blurred_image():
    """A single bright pixel spreads over 5 x 5 pixels."""
    images = make_noise(600, (9, 7), channels=2).astype("float32") / 6 + 100
    result = make_exposure_augmenter(sharpness=0.9)(images, np.random.default_rng(0))
    edges = images - blur(images)
    shares = np.sum((result - images) * edges, axis=(1, 2, 3)) / np.sum(edges**2, axis=(1, 2, 3))
    np.testing.assert_allclose(result, images + shares[:, None, None, None] * edges, atol=1e-2)
    assert_uniform(shares, -0.9, 0.9)

    point = np.full((1, 11, 11, 1), 100.0, "float32")
    point[0, 5, 5] = 181
    changed = np.abs(make_exposure_augmenter(sharpness=0.9)(point, np.random.default_rng(0)) - point) > 1e-3
    assert changed[0, 3:8, 3:8].all()
    assert changed.sum() == 25


def test_noise_has_a_standard_deviation_of_its_own_in_each_image():
    images = np.full((400, 40, 40, 3), 128, "uint8")
    result = make_exposure_augmenter(noise=12)(images, np.random.default_rng(0))
    spread = result.std(axis=(1, 2, 3))
    assert_uniform(spread, 0, 12 * 1.03)  # of 4800 draws, a standard deviation is known to a percent
    noise = (result - 128) / spread[:, None, None, None]
    np.testing.assert_allclose(noise.mean(), 0, atol=0.01)
    assert stats.kstest(noise[:20].ravel(), "norm").pvalue > 1e-3
    neighbours = [noise[:, 1:].ravel(), noise[:, :-1].ravel()], [noise[..., 0].ravel(), noise[..., 1].ravel()]
    for pair in neighbours:  # each pixel and each channel has its own
        assert abs(np.corrcoef(*pair)[0, 1]) < 0.01


@pytest.mark.parametrize("ground", [0, 255])
def test_noise_is_cut_off_at_black_and_white(ground):
    result = make_exposure_augmenter(noise=30)(np.full((4, 20, 20, 1), ground, "uint8"), np.random.default_rng(0))
    assert ((result == ground).mean(axis=(1, 2, 3)) > 0.4).all()


def test_changes_come_one_after_the_other():
    """The tone curve, contrast, brightness, sharpness, noise: as if each had been made alone with the same draws."""
    images = make_noise(4, (9, 7)).astype("float32") / 8 + 110
    together = make_exposure_augmenter(**CHANGES | {"noise": 2.0})(images, np.random.default_rng(5))
    rng = np.random.default_rng(5)
    for name, value in (CHANGES | {"noise": 2.0}).items():
        images = make_exposure_augmenter(**{name: value})(images, rng)
        assert 0 < images.min() < images.max() < 255  # else the cut-off in between would show
    np.testing.assert_allclose(together, images, atol=1e-3)


@pytest.mark.parametrize(
    "wrong",
    [
        *({"gamma": -0.1}, {"contrast": -0.1}, {"contrast": 1.0}, {"contrast": 1.5}),
        *({"brightness": -0.1}, {"sharpness": -0.1}, {"noise": -1}, {"gamma": 0.5, "noise": -1}),
    ],
    ids=str,
)
def test_exposures_without_meaning_are_refused(wrong):
    with pytest.raises(ValueError, match="no negative values, and a contrast below 1"):
        make_exposure_augmenter(**wrong)


# chain_augmenters


def test_a_chain_runs_one_augmenter_after_the_other_with_the_same_generator():
    images = make_noise(5)
    first, second = make_augmenter(ImageDataGenerator(**GEOMETRY)), make_exposure_augmenter(**CHANGES)
    result = chain_augmenters(first, second)(images, np.random.default_rng(3))
    rng = np.random.default_rng(3)
    expected = second(first(images, rng), rng)
    np.testing.assert_array_equal(result, expected)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(chain_augmenters(first, second)(images, np.random.default_rng(3)), result)
    assert np.abs(chain_augmenters(first, second)(images, np.random.default_rng(4)) - result).max() > 20
    turned = chain_augmenters(second, first)(images, np.random.default_rng(3))
    assert np.abs(turned - result).max() > 20
    np.testing.assert_array_equal(images, make_noise(5))
    assert (result.min() >= 0) & (result.max() <= 255)


def test_a_chain_of_one_is_that_one_and_a_chain_of_none_changes_nothing():
    images, alone = make_noise(5, channels=1), make_exposure_augmenter(**CHANGES)
    expected = alone(images, np.random.default_rng(3))
    np.testing.assert_array_equal(chain_augmenters(alone)(images, np.random.default_rng(3)), expected)
    np.testing.assert_array_equal(chain_augmenters()(images, np.random.default_rng(3)), images)


def test_chains_can_be_chained_and_mixed():
    images = make_noise(40)
    chain = chain_augmenters(chain_augmenters(lambda part, rng: part + 1.0), lambda part, rng: 2.0 * part)
    np.testing.assert_array_equal(chain(images, np.random.default_rng(0)), 2 * (images + 1.0))
    mixed = mix_augmenters([None, chain])(images, np.random.default_rng(0))
    kept = (mixed == images).all(axis=(1, 2, 3))
    np.testing.assert_array_equal(mixed[~kept], 2 * (images[~kept] + 1.0))
    assert 0 < kept.sum() < 40


# augment_images


def test_images_are_augmented_once_and_for_all():
    images = np.random.default_rng(0).integers(0, 256, (70, 6, 6, 1)).astype("uint8")
    shift = make_exposure_augmenter(brightness=0.2)
    augmented = augment_images(shift, images, copies=2)
    assert augmented.dtype == np.uint8
    assert augmented.shape == (140, 6, 6, 1)
    assert not np.array_equal(augmented[:70], augmented[70:])
    np.testing.assert_array_equal(augmented, augment_images(shift, images, copies=2))
    assert not np.array_equal(augmented, augment_images(shift, images, seed=1, copies=2))


def test_every_image_of_every_batch_gets_its_own_draw():
    images = np.full((200, 4, 4, 1), 100, "uint8")
    levels = augment_images(make_exposure_augmenter(brightness=0.3), images).mean(axis=(1, 2, 3))
    assert len(np.unique(levels)) > 60
    assert not np.array_equal(levels[:64], levels[64:128])


def test_other_fill_modes_are_refused():
    with pytest.raises(ValueError, match="fill_mode='wrap': expected one of constant, nearest, reflect"):
        transform(make_noise(1), "wrap", theta=10)


def test_only_the_rows_named_are_augmented_and_values_are_rounded():
    images = np.arange(5, dtype="uint8").reshape(5, 1, 1, 1)
    augmented = augment_images(lambda batch, rng: batch + np.float32(0.6), images, [3, 1], copies=2)
    assert augmented.ravel().tolist() == [4, 2, 4, 2]


# keep_background


def make_cell(level=100):
    images = np.zeros((2, 12, 12, 3), "uint8")
    images[:, 3:9, 3:9] = level
    images[:, 0, 0] = 8  # as dark as background may be
    return images


def test_the_background_stays_black_and_the_cell_is_changed():
    images = make_cell()
    result = keep_background(lambda images, rng: images + rng.normal(20, 10, images.shape), 8)(
        images, np.random.default_rng(0)
    )
    cell = images.max(axis=-1) > 8
    assert (result[~cell] == 0).all()
    assert result[cell].std() > 5
    assert result.dtype == np.float32


def test_the_changed_cell_keeps_its_decimals():
    result = keep_background(lambda images, rng: images + np.float32(0.75), 8)(make_cell(), np.random.default_rng(0))
    assert set(np.unique(result)) == {0, np.float32(100.75)}


def test_no_part_of_the_cell_becomes_background():
    images = make_cell()
    result = keep_background(lambda images, rng: images - 500.0, 8)(images, np.random.default_rng(0))
    assert (result[images.max(axis=-1) > 8] == 9).all()


def test_the_background_is_that_of_the_images_as_they_come():
    images = make_cell(30)
    result = keep_background(lambda images, rng: images, threshold=40)(images, np.random.default_rng(0))
    assert (result == 0).all()
