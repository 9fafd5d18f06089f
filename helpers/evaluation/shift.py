"""Shift: how far validation images can be trusted to tell how a model does on images taken in another way."""

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

_VALIDATION_SHARE = 0.2


def compare_validations(features, altered, positive, groups, acquisition, regularizations=(1e-3, 1e-2, 1e-1), seed=42):
    """Compare validation on plain and on altered images as predictors of the score on images of another acquisition.

    Images of one acquisition at a time are kept away. The others are split by group; on one side several logistic
    regressions are fitted, with and without altered images and more or less regularized; on the other they are
    validated. A good validation puts them in the order of their scores on the images kept away.

    Parameters
    ----------
    features, altered : array (n, n_features)
        Of the images as they are, and under an alteration.
    positive : boolean array (n,)
    groups : sequence, one per image
        What has to stay together in a split.
    acquisition : sequence, one per image
        What is kept away together: something that tells how, and not of what, an image was taken.
    regularizations : sequence of float
        Inverse strengths of the regularization: small values keep the weights small.
    seed : int

    Returns
    -------
    DataFrame with one row per acquisition and model: ``acquisition, altered_images, regularization``, and its ROC AUC
    on ``plain``, ``altered`` and ``unseen`` images.
    """
    features, altered, positive, groups = (np.asarray(array) for array in (features, altered, positive, groups))
    acquisition, rows = pd.Series(acquisition).reset_index(drop=True), []
    for unseen in acquisition.drop_duplicates().sort_values():
        seen, away = np.flatnonzero(acquisition != unseen), np.flatnonzero(acquisition == unseen)
        splitter = GroupShuffleSplit(1, test_size=_VALIDATION_SHARE, random_state=seed)
        fitted, held_out = (seen[part] for part in next(splitter.split(seen, groups=groups[seen])))
        for with_altered in (False, True):
            x, y = features[fitted], positive[fitted]
            if with_altered:
                x, y = np.concatenate([x, altered[fitted]]), np.tile(y, 2)
            for regularization in regularizations:
                regression = LogisticRegression(C=regularization, class_weight="balanced", max_iter=300)
                model = make_pipeline(StandardScaler(), regression).fit(x, y)
                scored = {"plain": features[held_out], "altered": altered[held_out], "unseen": features[away]}
                areas = {
                    name: roc_auc_score(positive[away if name == "unseen" else held_out], model.decision_function(of))
                    for name, of in scored.items()
                }
                about = {"acquisition": unseen, "altered_images": with_altered, "regularization": regularization}
                rows.append(about | areas)
    return pd.DataFrame(rows)


def judge_validations(areas):
    """Judge validations by the order in which they put the models, and by the model that each would have chosen.

    Parameters
    ----------
    areas : DataFrame
        From `compare_validations`.

    Returns
    -------
    DataFrame with one row per acquisition and validation (``plain`` or ``altered``): ``rank_correlation`` (Spearman)
    with the order on the unseen images; ``promised``, the AUC of the model that the validation puts first; ``unseen``,
    what this one reaches on the unseen images; ``best``, what the best model reaches there.
    """
    rows = []
    for acquisition, table in areas.groupby("acquisition", sort=False, observed=True):
        for validation in ("plain", "altered"):
            first = table.loc[table[validation].idxmax()]
            rows.append(
                {
                    "acquisition": acquisition,
                    "validation": validation,
                    "rank_correlation": table[validation].corr(table["unseen"], method="spearman"),
                    "promised": first[validation],
                    "unseen": first["unseen"],
                    "best": table["unseen"].max(),
                }
            )
    return pd.DataFrame(rows)
