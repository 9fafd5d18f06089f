"""The seventh data set of CONTRIBUTING.md: its lines are run as they stand there."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import helpers.experiment

PROJECT = Path(__file__).parents[1]
COLORS = {"apple": (170, 50, 50), "pear": (150, 170, 60), "plum": (90, 50, 120)}

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


@pytest.fixture
def lines():
    (block,) = re.findall(r"```python\n(.*?)```", (PROJECT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.DOTALL)
    return block


def test_it_takes_less_than_60_lines(lines):
    assert len([line for line in lines.splitlines() if line.strip()]) < 60


def test_the_lines_run_as_they_are(lines, tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(0)
    for label, color in COLORS.items():
        place = tmp_path / "data" / "fruit" / "train" / label
        place.mkdir(parents=True)
        for number in range(30):
            pixels = np.clip(np.array(color) + rng.normal(0, 40, (40, 40, 3)), 0, 255).astype("uint8")
            Image.fromarray(pixels).save(place / f"{number}.png")
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("CACHE_DIR", str(tmp_path / "cache"))
    for name in ("DATA_SOURCE", "NOTEBOOK_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(helpers.experiment.Experiment.__init__, "__defaults__", (tmp_path, None))
    exec(compile(lines, "CONTRIBUTING.md", "exec"), {"__name__": "__main__"})
    assert "cnn" in capsys.readouterr().out
    results = json.loads((tmp_path / "figures/quick/07_fruit/results.json").read_text())
    assert results["results"]["cnn"]["test"]["accuracy"]["value"] > 0.6
    assert (tmp_path / "models/quick/07_fruit/cnn.keras").is_file()
