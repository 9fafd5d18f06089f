"""Clusters: what was put together is found together."""

import inspect

import numpy as np
import pandas as pd
import pytest
from sklearn.cluster import AgglomerativeClustering
from sklearn.manifold import TSNE
from sklearn.metrics import adjusted_rand_score, silhouette_score
from threadpoolctl import threadpool_info

from helpers.evaluation import clusters as clusters_module
from helpers.evaluation.clusters import (
    METHODS,
    cluster,
    compare_clusterings,
    embed,
    find_central,
    reduce_features,
)


def make_features(sizes=(12, 30, 18), n_features=6, distance=12.0, seed=0):
    """Make well separated groups in no order; codes tell which."""
    rng = np.random.default_rng(seed)
    codes = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    centers = distance * np.eye(max(len(sizes), n_features))[: len(sizes), :n_features]
    return centers[codes] + rng.normal(size=(len(codes), n_features)), codes


# reduce_features


def test_components_are_those_of_the_singular_value_decomposition():
    features = make_features()[0] * [1, 1000, 0.01, 1, 1, 1]
    reduced, explained = reduce_features(features, 2)
    standardized = (features - features.mean(0)) / features.std(0)
    u, s, _ = np.linalg.svd(standardized, full_matrices=False)
    np.testing.assert_allclose(np.abs(reduced), np.abs(u * s)[:, :2], rtol=1e-6, atol=1e-8)
    assert explained == pytest.approx((s[:2] ** 2).sum() / (s**2).sum())
    assert isinstance(explained, float)


def test_no_more_components_than_images_or_features():
    features, _ = make_features()
    assert reduce_features(features)[0].shape == (60, 6)
    assert reduce_features(features)[1] == pytest.approx(1)
    assert reduce_features(features)[1] <= 1
    assert reduce_features(features[:4])[0].shape == (4, 4)
    assert reduce_features(features, 3)[0].shape == (60, 3)


def test_constant_features_make_no_difference():
    features, _ = make_features()
    constant = np.column_stack([features, np.full(60, 3.0), np.zeros(60)])
    reduced, explained = reduce_features(constant, 3)
    expected, share = reduce_features(features, 3)
    np.testing.assert_allclose(np.abs(reduced), np.abs(expected), rtol=1e-6, atol=1e-8)
    assert explained == pytest.approx(share)


def test_half_precision_is_not_reduced_in_half_precision():
    features = make_features()[0].astype("float16")
    expected = reduce_features(features.astype("float64"), 3)[0]
    np.testing.assert_allclose(np.abs(reduce_features(features, 3)[0]), np.abs(expected), atol=1e-3)


@pytest.mark.parametrize(
    ("features", "complaint"),
    [
        (np.ones((1, 4)), "at least 2 images"),
        (np.ones(5), "shape"),
        (np.ones((5, 3)), "same features"),
        (np.array([[1, np.nan], [2, 3]]), "missing"),
    ],
    ids=["one image", "one dimension", "constant", "missing values"],
)
def test_features_that_cannot_be_used_are_refused(features, complaint):
    for function in (reduce_features, lambda features: cluster(features, 1)):
        with pytest.raises(ValueError, match=complaint):
            function(features)


def test_at_least_one_component():
    with pytest.raises(ValueError, match="one component"):
        reduce_features(make_features()[0], 0)


# embed


def test_neighbours_stay_neighbours():
    features, codes = make_features()
    points = embed(features)
    assert points.shape == (60, 2)
    assert silhouette_score(points, codes) > 0.5
    np.testing.assert_array_equal(embed(features, seed=42), points)


def test_the_perplexity_fits_small_numbers(monkeypatch):
    used, threads = [], []

    def record(*args, **kwargs):
        used.append((kwargs["perplexity"], kwargs["init"]))
        threads.extend(pool["num_threads"] for pool in threadpool_info())
        return TSNE(*args, **kwargs)

    monkeypatch.setattr(clusters_module, "TSNE", record)
    features, _ = make_features()
    for count in (4, 7, 31):
        assert np.isfinite(embed(features[:count])).all()
    embed(features, perplexity=5)
    assert used == [(1, "pca"), (2, "pca"), (10, "pca"), (5, "pca")]
    assert set(threads) == {1}  # several would wait for one another on busy processors


@pytest.mark.parametrize(("rows", "columns"), [(3, 6), (60, 1)])
def test_too_little_to_embed(rows, columns):
    with pytest.raises(ValueError, match="at least 4 images, at least 2 of each"):
        embed(make_features()[0][:rows, :columns])


# cluster


@pytest.mark.parametrize("method", METHODS)
def test_groups_are_found_and_numbered_by_size(method):
    features, codes = make_features()
    found = cluster(features, 3, method)
    assert found.dtype.kind == "i"
    np.testing.assert_array_equal(found, np.array([2, 0, 1])[codes])
    assert set(cluster(features, 1, method)) == {0}
    assert sorted(cluster(features[:5], 5, method)) == [0, 1, 2, 3, 4]


def test_equal_clusters_are_numbered_by_their_first_image():
    features = np.array([[9.0, 9], [0, 0], [9, 9.1], [0, 0.1], [4, 4]])
    for method in METHODS:
        assert cluster(features, 3, method).tolist() == [0, 1, 0, 1, 2]


@pytest.mark.parametrize("count", [2, 5, 9])
def test_hierarchical_clusters_are_those_of_ward(count):
    features = np.random.default_rng(1).normal(size=(80, 4))
    expected = AgglomerativeClustering(count, linkage="ward").fit_predict(features)
    assert adjusted_rand_score(expected, cluster(features, count, "hierarchical")) == 1
    assert adjusted_rand_score(expected, cluster(features, count)) < 0.9


def test_the_same_seed_gives_the_same_clusters():
    features = np.random.default_rng(1).normal(size=(80, 4))
    np.testing.assert_array_equal(cluster(features, 7), cluster(features, 7, "k-means", 42))
    assert (cluster(features, 7) != cluster(features, 7, seed=1)).any()


def test_clusters_that_cannot_be_are_refused():
    features, _ = make_features()
    with pytest.raises(ValueError, match="61 clusters are more"):
        cluster(features, 61)
    with pytest.raises(ValueError, match=r"different images \(2\)"):
        cluster(np.repeat(features[:2], 10, axis=0), 3)
    with pytest.raises(ValueError, match="at least one cluster"):
        cluster(features, 0)
    with pytest.raises(ValueError, match="Unknown method DBSCAN: expected k-means or hierarchical"):
        cluster(features, 2, "DBSCAN")


# find_central


def test_central_images_are_nearest_to_the_mean_of_their_cluster():
    features, codes = make_features()
    found = find_central(features, codes, 4)
    assert list(found) == [0, 1, 2]
    for number, rows in found.items():
        distances = pd.Series(np.sqrt(((features - features[codes == number].mean(0)) ** 2).sum(1)))[codes == number]
        assert rows.tolist() == distances.sort_values().index[:4].tolist()


def test_small_clusters_have_fewer_central_images():
    features = np.array([[0.0], [1], [2], [10]])
    found = find_central(features, [1, 1, 1, 0])
    assert {number: rows.tolist() for number, rows in found.items()} == {0: [3], 1: [1, 0, 2]}
    assert list(map(type, found)) == [int, int]


def test_clusters_of_other_images_are_refused():
    with pytest.raises(ValueError, match="2 clusters for 3 images"):
        find_central(np.zeros((3, 2)), [0, 1])


# compare_clusterings


@pytest.fixture(scope="module")
def compared():
    features, codes = make_features()
    labels = np.array(["c", "a", "b"])[codes]
    groups = [f"patient {number % 4}" for number in range(60)]
    return features, labels, groups, compare_clusterings(features, labels, groups, range(2, 6))


def test_one_row_per_method_and_number(compared):
    table = compared[-1]
    columns = ["method", "clusters", "silhouette", "agreement_class", "agreement_group", "whole_class", "whole_group"]
    assert table.columns.tolist() == columns
    assert table["method"].tolist() == ["k-means"] * 4 + ["hierarchical"] * 4
    assert table["clusters"].tolist() == [2, 3, 4, 5] * 2


def test_values_are_those_of_the_clusters(compared):
    features, labels, groups, table = compared
    for row in table.itertuples():
        found = cluster(features, row.clusters, row.method)
        assert row.silhouette == pytest.approx(silhouette_score(features, found))
        assert row.agreement_class == pytest.approx(adjusted_rand_score(labels, found))
        assert row.agreement_group == pytest.approx(adjusted_rand_score(groups, found))


def test_clusters_that_are_the_classes_agree_with_them_and_not_with_the_groups(compared):
    best = compared[-1].loc[compared[-1].groupby("method")["silhouette"].idxmax()]
    assert best["clusters"].tolist() == [3, 3]
    assert best["agreement_class"].tolist() == [1, 1]
    assert best["agreement_group"].abs().max() < 0.1
    turned = compare_clusterings(compared[0], compared[2], compared[1], [3])
    assert turned["agreement_group"].tolist() == [1, 1]
    assert turned["agreement_class"].abs().max() < 0.1


def test_few_clusters_cannot_agree_with_many_whole_subjects():
    features, codes = make_features((60, 60))
    groups = 20 * codes + np.random.default_rng(0).integers(0, 20, 120)  # each subject in one of the two clusters
    table = compare_clusterings(features, codes, groups, [2])
    assert table["whole_class"].tolist() == [1, 1]
    np.testing.assert_allclose(table["agreement_group"], table["whole_group"])
    assert table["whole_group"].max() < 0.15
    divided = compare_clusterings(features, codes, np.arange(120) % 3, [2])
    assert (divided["whole_group"] > divided["agreement_group"] + 0.1).all()


def test_whole_subjects_lie_where_most_of_their_images_lie():
    features, codes = make_features((30, 30, 30))
    groups = np.where(np.random.default_rng(0).random(90) < 0.7, codes, (codes + 1) % 3)
    table = compare_clusterings(features, codes, groups, [3])
    assert 0.1 < table["agreement_group"].max() < 0.6
    assert table["whole_group"].tolist() == [1, 1]  # most of each group lie in a cluster of their own
    groups = np.where(np.arange(90) % 15 == 0, 2, codes)  # a few of all, but most of them in the third cluster
    assert compare_clusterings(features, codes, groups, [3])["whole_group"].tolist() == [1, 1]


def test_the_defaults_are_those_announced():
    defaults = {
        name: parameter.default for name, parameter in inspect.signature(compare_clusterings).parameters.items()
    }
    assert list(defaults["counts"]) == [2, 3, 4, 5, 6, 7, 8]
    assert defaults["seed"] == 42


def test_labels_may_be_columns_of_any_kind(compared):
    features, labels, groups, table = compared
    images = pd.DataFrame({"label": pd.Categorical(labels), "group": pd.factorize(np.array(groups))[0]})
    images.index = images.index[::-1] + 7
    pd.testing.assert_frame_equal(compare_clusterings(features, images["label"], images["group"], range(2, 6)), table)


def test_comparisons_that_cannot_be_are_refused(compared):
    features, labels, groups, _ = compared
    for counts in ([1, 2], [60], [2, 80], []):
        with pytest.raises(ValueError, match="numbers of clusters from 2 to 59"):
            compare_clusterings(features, labels, groups, counts)
    with pytest.raises(ValueError, match="at least 3 images"):
        compare_clusterings(features[:2], labels[:2], groups[:2], [2])
    with pytest.raises(ValueError, match=r"different images \(2\)"):
        compare_clusterings(np.repeat(features[:2], 30, axis=0), labels, groups, [3])
    with pytest.raises(ValueError, match="59 labels for 60 images"):
        compare_clusterings(features, labels[1:], groups)
    with pytest.raises(ValueError, match="59 groups for 60 images"):
        compare_clusterings(features, labels, groups[1:])
    with pytest.raises(ValueError, match="1 groups are missing"):
        compare_clusterings(features, labels, [None, *groups[1:]])
