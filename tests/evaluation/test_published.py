"""Published figures stand beside ours, each with its source and with whether it may be compared."""

import json

import pytest

from helpers.evaluation import published
from helpers.evaluation.full_run import FullRun
from helpers.evaluation.published import compare_published, list_published
from helpers.evaluation.report import FIGURES_FOLDER

NOTEBOOKS = ["01_mnist", "02_ham10000", "03_chest_xray", "04_melanoma", "05_plants", "06_leukemia"]
HEAD = "notebook,source,link,model,metric,value,low,high,our_model,our_set,protocol,comparable,checked\n"
FIGURES = """\
07_fruit,Pear 2020,https://doi.org/1,CNN,accuracy,0.885,,,,,their test set,Yes: the images are the same.,yes
07_fruit,Pear 2020,https://doi.org/1,CNN,roc_auc,0.9804,,,,,their test set,Yes: the images are the same.,yes
07_fruit,Plum 2021,,two CNNs,accuracy,0.44,,0.6,frozen,all_of_valid,by tree,No: the trees are others.,no
08_nuts,Oak 2022,https://doi.org/2,CNN,accuracy,0.7,,,,,by tree,Yes.,yes
07_fruit,Fig 2022,https://doi.org/3,CNN,macro_f1,0.7401,0.7252,0.7541,,,by tree,Roughly.,figure not seen
"""


def metric(value):
    return {"value": value, "low": value - 0.1, "high": value + 0.1, "groups": 50}


@pytest.fixture
def full_run(tmp_path, monkeypatch):
    """Make a run with a chosen model, and a file of published figures to stand beside it."""
    results = {
        "frozen": {"test": {"accuracy": metric(0.3)}, "all_of_valid": {"accuracy": metric(0.5)}},
        "fine_tuned": {"test": {"accuracy": metric(0.8), "roc_auc": metric(0.85)}, "cost": {"chosen": True}},
    }
    path = tmp_path / "07_fruit" / "results.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"results": results}))
    (tmp_path / "published.csv").write_text(HEAD + FIGURES)
    monkeypatch.setattr(published, "_TABLE", tmp_path / "published.csv")
    return FullRun("07_fruit", tmp_path)


def test_the_figures_of_one_model_stand_in_a_line_beside_those_of_the_chosen_model(full_run):
    head, _, pear, *others = compare_published("07_fruit", full_run).splitlines()
    assert head == "| source | model | result | ours | protocol | may it be compared? |"
    assert pear == (
        "| [Pear 2020](https://doi.org/1) | CNN | accuracy 88.5 %<br>ROC AUC 0.9804 | fine tuned, test:<br>"
        "80.00 % (70.00 to 90.00)<br>0.850 (0.750 to 0.950) | their test set | Yes: the images are the same. |"
    )
    assert len(others) == 2
    assert "Oak" not in "".join(others)


def test_a_range_and_an_interval_look_different_and_what_was_not_found_is_told(full_run):
    *_, plum, fig = compare_published("07_fruit", full_run).splitlines()
    assert plum == (
        "| Plum 2021 (source not found) | two CNNs | accuracy 44 to 60 % | frozen, all of valid:<br>"
        "50.00 % (40.00 to 60.00) | by tree | No: the trees are others. |"
    )
    assert fig.startswith(
        "| [Fig 2022](https://doi.org/3) (figure not checked) | CNN | macro F1 74.01 % (72.52 to 75.41)"
    )
    assert "| fine tuned, test:<br>not measured |" in fig


def test_a_notebook_without_published_figures_has_no_table(full_run):
    assert len(list_published("09_sweets")) == 0
    assert compare_published("09_sweets", full_run) == ""


def test_a_file_is_listed_in_its_order_with_empty_texts(full_run):
    table = list_published("07_fruit")
    assert table["source"].tolist() == ["Pear 2020", "Pear 2020", "Plum 2021", "Fig 2022"]
    assert table.loc[2, ["link", "our_model", "our_set"]].tolist() == ["", "frozen", "all_of_valid"]
    assert table.loc[0, ["our_model", "our_set"]].tolist() == ["", ""]
    assert table["high"].notna().tolist() == [False, False, True, True]


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_each_figure_that_is_kept_can_stand_beside_ours(notebook):
    table = list_published(notebook)
    assert len(table) >= 2
    assert not table.isna().drop(columns=["low", "high"]).any(axis=None)
    assert table["value"].between(0, 1).all()
    assert (table["high"].isna() | (table["high"] > table["value"])).all()
    assert (table["low"].isna() | (table["low"] < table["value"])).all()
    assert set(table["checked"]) <= {"yes", "figure not seen", "no"}
    assert (table["link"].str.startswith("https://") == (table["checked"] != "no")).all()
    assert table["comparable"].str.match(r"(Yes|No|Roughly|Not closely|Only)\b.*\.$").all()
    assert not table.map(lambda cell: "|" in str(cell)).any(axis=None)
    text = compare_published(notebook, FullRun(notebook, FIGURES_FOLDER))
    assert "not measured" not in text
    assert all(source in text for source in table["source"])
