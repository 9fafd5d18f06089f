"""Strangers: pictures that show nothing that a classifier knows."""

import numpy as np
import pytest

from samples.strangers import draw_strangers


@pytest.mark.parametrize("shape", [(28, 28, 1), (30, 40, 3)])
def test_each_kind_is_drawn_as_often_and_as_large_as_asked_for(shape):
    drawn = draw_strangers(shape, count=12, seed=3)
    assert list(drawn) == ["blank", "noise", "document"]
    assert {(images.shape, images.dtype.name) for images in drawn.values()} == {((12, *shape), "uint8")}
    again, other = draw_strangers(shape, 12, 3), draw_strangers(shape, 12, 4)
    for kind, images in drawn.items():
        np.testing.assert_array_equal(images, again[kind])
        assert not np.array_equal(images, other[kind])


def test_blank_ones_are_blank_and_the_others_are_not():
    drawn = {kind: images.std(axis=(1, 2)).max(axis=1) for kind, images in draw_strangers((40, 40, 3), 30).items()}
    assert (drawn["blank"] == 0).all()
    assert (drawn["noise"] > 5).all()
    assert (drawn["document"] > 5).all()
