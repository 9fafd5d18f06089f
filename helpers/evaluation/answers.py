"""Answers: what a run found, in a sentence with its interval, for the README and the head of each report.

The questions, the sentences and the figures that belong to them are kept here, in English and in French.
"""

import re

import pandas as pd

from helpers.evaluation.report import format_difference, format_percent, format_value

# Models that see only what should not be enough, such as border pixels or the size of a cell.
SHORTCUTS = ("shortcut_features", "border_pixels", "brightness_and_colour", "8_border_pixels")
SHORTCUTS += ("mean_colour", "area", "area_and_colour")
FIGURES = {  # the figure that shows the answer
    "01_mnist": "accuracy_by_test_set",
    "02_ham10000": "confusion_matrix",
    "03_chest_xray": "roc",
    "04_melanoma": "roc",
    "05_plants": "clean_and_leaky",
    "06_leukemia": "roc",
}
CARD_FIGURES = FIGURES | {"02_ham10000": "roc_malignant"}  # on a card, which is too small for a matrix of seven classes
QUESTIONS = {  # the titles of the notebooks, in French
    "01_mnist": "MNIST : quel chiffre est-ce, et quelle déformation le réseau supporte-t-il ?",
    "02_ham10000": "HAM10000 : laquelle de sept lésions de la peau est-ce, et un mélanome serait-il manqué ?",
    "03_chest_xray": "Radiographie du thorax : est-ce une pneumonie, et quel seuil peut-on défendre ?",
    "04_melanoma": "Mélanome : bénin ou malin, et combien de lésions malignes sont manquées ?",
    "05_plants": "Maladies des plantes : le réseau voit-il la maladie, ou reconnaît-il la même feuille ?",
    "06_leukemia": "Leucémie : la cellule est-elle leucémique, et le réseau voit-il plus que sa taille ?",
}
_SENTENCES = {
    "en": {
        "accuracy": "{accuracy} are right (majority class: {majority})",
        "01_mnist": "{mixed} of clean and distorted digits, if training showed distorted ones; otherwise {clean}",
        "02_ham10000": "{answer}; an alarm finds {alarm} of the images of malignant lesions",
        "03_chest_xray": "ROC AUC {auc}; a threshold from validation images finds {sensitivity} of the ill, and "
        "{specificity} of the healthy raise no alarm",
        "04_melanoma": "ROC AUC {auc}, border pixels alone {border}; at the threshold .5, {missed} of 1,000 malignant "
        "lesions are missed. Copies of test images in training would add {worth} points of accuracy",
        "05_plants": "{clean} of leaves that training has not seen, {leaky} of leaves that it has",
        "06_leukemia": "ROC AUC by person {network}; the area of the cell alone {area}: the networks are {better}. By "
        "cell it is {network_cells} and {area_cells}",
        "better": ("not measurably better", "measurably better"),
    },
    "fr": {
        "accuracy": "{accuracy} des réponses sont justes (classe majoritaire : {majority})",
        "01_mnist": "{mixed} des chiffres nets et déformés sont reconnus si l’apprentissage en a montré de déformés ; "
        "sinon {clean}",
        "02_ham10000": "{answer} ; une alarme trouve {alarm} des images de lésions malignes",
        "03_chest_xray": "Aire sous la courbe ROC : {auc} ; un seuil tiré des images de validation trouve "
        "{sensitivity} des malades, et {specificity} des personnes saines ne déclenchent pas d’alarme",
        "04_melanoma": "Aire sous la courbe ROC : {auc}, avec les seuls pixels du bord {border} ; au seuil de 0,5, "
        "{missed} lésions malignes sur 1 000 sont manquées. Des copies des images de test dans l’apprentissage "
        "ajouteraient {worth} points d’exactitude",
        "05_plants": "{clean} de réponses justes sur des feuilles jamais vues à l’apprentissage, {leaky} sur des "
        "feuilles déjà vues",
        "06_leukemia": "Aire sous la courbe ROC par personne : {network} ; avec la seule aire de la cellule {area} : "
        "les réseaux {better}. Par cellule elle vaut {network_cells} et {area_cells}",
        "better": ("ne font pas mieux de façon mesurable", "font mieux de façon mesurable"),
    },
}
# How numbers with intervals are written in French; what they are made of is that of `format_percent`.
_NUMBERS = [
    (r"(?<=\d)\.(?=\d)", ","),
    (r"(?<=\d) to (?=[\d+−])", " à "),
    (r"(\d+) group(s?): no interval", r"\1 groupe\2 : pas d’intervalle"),
    (r"no interval", "pas d’intervalle"),
]


def answer(notebook, run, folder, language="en"):
    """Say in a sentence how a run answers the question of its notebook; "" where it has no answer.

    Parameters
    ----------
    notebook : str, such as ``01_mnist``
    run : FullRun, with the results
    folder : Path, where the tables of the run lie
    language : {"en", "fr"}
    """
    for sentence in (notebook, "accuracy"):  # the second one needs less
        try:
            return _phrase(sentence, _FIND[sentence](run, folder), language)
        except (AttributeError, FileNotFoundError, LookupError, StopIteration, TypeError, ValueError):
            continue  # what it needs is not there, or is no table
    return ""


def choose_model(run):
    """Find the network and the set that answer the question of a notebook: those that were chosen.

    Where a shortcut was chosen instead of a network, it is the network that was best by person on held-out images, or
    the average of the networks where people were not counted.
    """
    model, part = ("cnn_mixed", "union") if run.notebook == "01_mnist" else run.find_chosen()
    if model in SHORTCUTS:
        costs = {name: entry.get("cost", {}) for name, entry in run.results["results"].items()}
        held_out = {name: cost["held_out_by_person"] for name, cost in costs.items() if "held_out_by_person" in cost}
        networks = [name for name in held_out if name not in SHORTCUTS and not name.endswith("_and_area")]
        model = max(networks, key=held_out.get, default="average")
    return model, part


def keep_together(text):
    """Keep the signs of a French text on the line of the word before them."""
    return re.sub(r" (?=[%:;?!])|(?<=1) (?=000 )", "\N{NO-BREAK SPACE}", text)


def _phrase(sentence, found, language):
    """Put numbers into a sentence, written as the language writes them."""
    words = _SENTENCES[language]
    texts = {}
    for name, value in found.items():
        if isinstance(value, dict):  # an answer within an answer
            value = _phrase("accuracy", value, language)
        elif isinstance(value, bool):
            value = words["better"][value]
        elif language == "fr":
            for pattern, replacement in _NUMBERS:
                value = re.sub(pattern, replacement, value)
        texts[name] = value
    text = words[sentence].format(**texts)
    return keep_together(text) if language == "fr" else text


def _count_right(run, _):
    model, part = choose_model(run)
    return {
        "accuracy": _percent(run.get_metric(model, part, "accuracy")),
        "majority": _about(run.get_metric(model, part, "majority_rate")),
    }


def _find_digits(run, _):
    mixed, clean = (run.get_metric(model, "union", "accuracy") for model in ("cnn_mixed", "cnn_clean"))
    return {"mixed": _percent(mixed), "clean": _about(clean)}


def _find_lesions(run, folder):
    alarm = pd.read_csv(folder / "malignant.csv").set_index("metric").loc["sensitivity"]
    return {"answer": _count_right(run, folder), "alarm": _percent(alarm)}


def _find_pneumonia(run, _):
    model, part = choose_model(run)
    point = next(name for name in run.results["results"][model] if name.startswith("test_threshold_from_validation"))
    found = {name: _percent(run.get_metric(model, point, name)) for name in ("sensitivity", "specificity")}
    return found | {"auc": format_value(run.get_metric(model, part, "roc_auc"))}


def _find_melanoma(run, folder):
    model, part = choose_model(run)
    missed = pd.read_csv(folder / "missed.csv").set_index("threshold").loc[0.5]
    border = run.get_metric("border_pixels", part, "roc_auc")
    worth = pd.read_csv(folder / "leak_worth.csv").set_index(["model", "test images", "metric"])
    worth = 100 * worth.loc[(model.replace("_", " "), "all", "accuracy"), ["value", "low", "high"]]
    return {
        "worth": format_difference(worth, 1),
        "auc": format_value(run.get_metric(model, part, "roc_auc")),
        "border": f"{border['value']:.3f}",
        "missed": f"{missed['missed']:.0f} ({missed['missed_low']:.0f} to {missed['missed_high']:.0f})",
    }


def _find_plants(run, _):
    model, part = choose_model(run)
    clean, leaky = (run.get_metric(model, name, "accuracy") for name in (part, "leaky"))
    return {"clean": _percent(clean), "leaky": _percent(leaky)}


def _find_leukemia(run, folder):
    model, _ = choose_model(run)
    table = pd.read_csv(folder / "differences.csv").set_index(["models", "counted", "metric"])
    (network, area), by_cell = (
        [run.get_metric(name, part, "roc_auc") for name in (model, "area")] for part in ("people", "validation")
    )
    return {
        "network": format_value(network),
        "area": f"{area['value']:.3f}",
        "better": bool(table.loc[(f"{model.replace('_', ' ')} - area", "by person", "roc_auc"), "low"] > 0),
        "network_cells": f"{by_cell[0]['value']:.3f}",
        "area_cells": f"{by_cell[1]['value']:.3f}",
    }


_FIND = {
    "accuracy": _count_right,
    "01_mnist": _find_digits,
    "02_ham10000": _find_lesions,
    "03_chest_xray": _find_pneumonia,
    "04_melanoma": _find_melanoma,
    "05_plants": _find_plants,
    "06_leukemia": _find_leukemia,
}


def _percent(metric):
    return format_percent(metric, digits=1)


def _about(metric):
    return f"{100 * metric['value']:.0f} %"
