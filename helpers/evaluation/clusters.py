"""Clusters: what features have in common without their labels. They are no classes, and their number is not known."""

import numpy as np
import pandas as pd
from scipy.cluster.hierarchy import cut_tree, linkage
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.metrics import adjusted_rand_score, silhouette_score
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

METHODS = ("k-means", "hierarchical")
# One thread, because on processors that others use threads wait for one another: t-SNE then takes ten times as long.
_run_in_one_thread = threadpool_limits.wrap(limits=1)


def reduce_features(features, components=50, seed=42):
    """Reduce features (n, n_features) to their principal components, each feature standardized first.

    Return an array (n, components), fewer components if there are fewer images or features, and the share of the
    variance that they hold, 0 to 1.

    Raises
    ------
    ValueError
        Fewer than two images, all features constant, values missing, or fewer than one component.
    """
    features = _check_features(features)
    if components < 1:
        raise ValueError(f"Expected at least one component, got {components}.")
    pca = PCA(min(*features.shape, components), random_state=seed)
    reduced = pca.fit_transform(StandardScaler().fit_transform(features))
    return reduced, min(1.0, float(pca.explained_variance_ratio_.sum()))


@_run_in_one_thread
def embed(features, seed=42, perplexity=30):
    """Lay features (n, n_features) out in two dimensions by t-SNE (van der Maaten and Hinton 2008).

    It is faster with those of `reduce_features`. The perplexity is about how many neighbours of an image count, at most
    a third of the other images. In the float32 array (n, 2) that is returned neighbours stay neighbours; distances
    between groups and their sizes mean little.

    Raises
    ------
    ValueError
        Fewer than four images or two features, all features constant, or values missing.
    """
    features = _check_features(features, rows=4, columns=2)
    perplexity = min(perplexity, (len(features) - 1) / 3)
    return TSNE(2, init="pca", perplexity=perplexity, random_state=seed).fit_transform(features)


@_run_in_one_thread
def compare_clusterings(features, labels, groups, counts=range(2, 9), seed=42):
    """Cluster features into several numbers of clusters, and compare these with the classes and the subjects.

    Parameters
    ----------
    features : array (n, n_features)
        At least three images, up to some thousand: the memory grows with the square of their number.
    labels, groups : sequence of length n
        Class and subject of each image.
    counts : sequence of int
        Numbers of clusters, from 2 to n - 1, and at most the number of different images.

    Returns
    -------
    DataFrame with one row per method and number: ``method`` (of `METHODS`), ``clusters``, ``silhouette`` (-1 to 1;
    Rousseeuw 1987), ``agreement_class, agreement_group`` (adjusted Rand indices, 0 for chance and 1 for the same
    partition; Hubert and Arabie 1985), ``whole_class, whole_group`` (see below).

    Notes
    -----
    Few clusters cannot agree with many subjects: where all images of each of 200 subjects lie together in one of two
    clusters, the index is about 0.01. Read an agreement therefore beside ``whole_group``: the index that the subjects
    would reach if each lay whole in the cluster that holds most of it. ``whole_class`` is the same for classes.
    """
    features = _check_features(features, rows=3)
    references = {"class": _encode(labels, "labels", features), "group": _encode(groups, "groups", features)}
    counts = list(counts)
    if not counts or min(counts) < 2 or max(counts) >= len(features):
        raise ValueError(f"Expected numbers of clusters from 2 to {len(features) - 1}, got {counts}.")
    rows = []
    for method in METHODS:
        for count, clusters in zip(counts, _cluster(features, counts, method, seed), strict=True):
            row = {"method": method, "clusters": count, "silhouette": float(silhouette_score(features, clusters))}
            row |= {f"agreement_{name}": adjusted_rand_score(codes, clusters) for name, codes in references.items()}
            for name, codes in references.items():
                largest = pd.crosstab(codes, clusters).to_numpy().argmax(axis=1)  # the cluster with most of each
                row[f"whole_{name}"] = adjusted_rand_score(codes, largest[codes])
            rows.append(row)
    return pd.DataFrame(rows)


@_run_in_one_thread
def cluster(features, count, method="k-means", seed=42):
    """Divide images by their features (n, n_features) into clusters, at most as many as there are different images.

    ``method`` is one of `METHODS`: k-means, the best of ten starts, or hierarchical, by the criterion of Ward (1963).
    Return the cluster of each image, an int array (n,): from 0, the largest cluster first, of equal ones that of the
    first image.
    """
    clusters = _cluster(_check_features(features), [count], method, seed)[0]
    _, first, codes, sizes = np.unique(clusters, return_index=True, return_inverse=True, return_counts=True)
    return np.lexsort((first, -sizes)).argsort()[codes]


def find_central(features, clusters, count=6):
    """Find the images nearest to the centre of each cluster of `cluster`, which is the mean of its features.

    Return a dict of each cluster to an int array, the positions of at most ``count`` of its images, nearest first.
    """
    features, clusters = np.asarray(features), np.asarray(clusters)
    if len(clusters) != len(features):
        raise ValueError(f"{len(clusters)} clusters for {len(features)} images: expected one for each.")
    central = {}
    for number in np.unique(clusters):
        rows = np.flatnonzero(clusters == number)
        distances = np.linalg.norm(features[rows] - features[rows].mean(axis=0), axis=1)
        central[int(number)] = rows[np.argsort(distances, kind="stable")[:count]]
    return central


def _check_features(features, rows=2, columns=1):
    """Check that features differ between images; return them as floats of at least 32 bits."""
    features = np.asarray(features)
    if features.ndim != 2 or len(features) < rows or features.shape[1] < columns:
        expected = f"features of at least {rows} images, at least {columns} of each"
        raise ValueError(f"Expected {expected}, got shape {features.shape}.")
    features = features.astype(np.result_type(features, "float32"), copy=False)
    if not np.isfinite(features).all():
        raise ValueError("Features have missing or infinite values.")
    if not np.ptp(features, axis=0).any():
        raise ValueError("All images have the same features: there is nothing to tell them apart.")
    return features


def _encode(values, name, features):
    """Number the values, of which there is one for each image."""
    codes, _ = pd.factorize(pd.Series(list(values), dtype=object))
    if len(codes) != len(features):
        raise ValueError(f"{len(codes)} {name} for {len(features)} images: expected one for each.")
    if (codes < 0).any():
        raise ValueError(f"{(codes < 0).sum()} {name} are missing.")
    return codes


def _cluster(features, counts, method, seed):
    """Cluster into each number of clusters."""
    if method not in METHODS:
        raise ValueError(f"Unknown method {method}: expected {' or '.join(METHODS)}.")
    if min(counts) < 1:
        raise ValueError(f"Expected at least one cluster, got {min(counts)}.")
    if max(counts) > (different := len(np.unique(features, axis=0))):
        raise ValueError(f"{max(counts)} clusters are more than there are different images ({different}).")
    if method == "k-means":
        return [KMeans(count, n_init=10, random_state=seed).fit_predict(features) for count in counts]
    tree = linkage(features, "ward")
    return [cut_tree(tree, count)[:, 0] for count in counts]
