"""The pins fit the ranges in pyproject.toml, the lock holds a hash for each, and nothing is installed without one."""

import os
import re
import subprocess
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

PROJECT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
UNLOCKED = "bench"  # PyTorch: nothing installs it but the user


def read_pins(name="requirements.txt"):
    """Read the pins of a file: the name of each package, its version and its marker."""
    lines = (PROJECT / name).read_text(encoding="utf-8").splitlines()
    found = [match for line in lines if (match := re.match(r"([\w.-]+)==([^ ;]+)([^\\]*)", line))]
    return {match[1]: (match[2], match[3].strip()) for match in found}


def read_ranges():
    project = PYPROJECT["project"]
    extras = [text for group in project["optional-dependencies"].values() for text in group]
    return [Requirement(text) for text in project["dependencies"] + extras]


def read_groups():
    groups = {name: group for name, group in PYPROJECT["dependency-groups"].items() if name != UNLOCKED}
    return [Requirement(text) for group in groups.values() for text in group]


def test_every_dependency_is_pinned_within_its_range():
    pins = read_pins()
    for requirement in read_ranges():
        assert requirement.specifier.contains(pins[requirement.name][0]), requirement


def test_installed_versions_are_the_pinned_ones():
    pins = read_pins()
    for requirement in read_ranges():
        assert version(requirement.name) == pins[requirement.name][0]


def test_helpers_are_installed_with_the_requirements():
    assert "-e ." in (PROJECT / "requirements.txt").read_text().splitlines()


def test_the_lock_holds_the_same_pins_and_those_of_the_tools():
    locked = read_pins("requirements.lock")
    assert read_pins().items() <= locked.items()
    needed_to_build = [Requirement(text) for text in PYPROJECT["build-system"]["requires"]]
    for requirement in read_groups() + needed_to_build:
        assert requirement.specifier.contains(locked[requirement.name][0]), requirement


def test_every_locked_package_has_its_hashes_and_no_file_names_an_index():
    text = (PROJECT / "requirements.lock").read_text(encoding="utf-8")
    assert len(text) < 1_000_000
    entries = re.split(r"\n(?=\S)", re.sub(r"(?m)^ *#.*\n", "", text).strip())
    assert len(entries) == len(read_pins("requirements.lock"))
    for entry in entries:
        assert re.fullmatch(r"[a-z0-9-]+==[^ ]+( ; [^\n]+)?( \\\n +--hash=sha256:[0-9a-f]{64})+", entry), entry
    for name in ("requirements.in", "requirements.txt", "requirements.lock", "pyproject.toml", "Makefile"):
        assert not re.search("://|--(extra-)?index|--find-links", (PROJECT / name).read_text(encoding="utf-8")), name


def test_make_installs_nothing_without_a_hash():
    recipes = "".join((PROJECT / name).read_text(encoding="utf-8") for name in ("Makefile", ".ci/security"))
    recipes = recipes.replace("\\\n", " ")
    assert re.search(r"(?m)^LOCKED := .*--no-build --require-hashes --constraint requirements.lock", recipes)
    installing = re.findall(r"pip install .*", recipes)
    assert installing
    for command in installing:
        assert re.search(r"\$\(LOCKED\)|--require-hashes|--no-deps --no-build-isolation .*-e \.$", command), command


def test_every_direct_dependency_is_explained():
    rows = re.findall(r"(?m)^\| `([\w-]+)` \|", (PROJECT / "docs" / "dependencies.md").read_text(encoding="utf-8"))
    bench = [Requirement(text) for text in PYPROJECT["dependency-groups"][UNLOCKED]]
    build = [Requirement(text) for text in PYPROJECT["build-system"]["requires"]]
    assert sorted(rows) == sorted(requirement.name for requirement in read_ranges() + read_groups() + bench + build)


@pytest.mark.parametrize(
    ("audit", "status", "word"),
    [
        ("exit 0", 0, "No known vulnerability in 1 packages"),
        ('for last; do :; done; echo "six 1.17.0 PYSEC-1" > "$last"; exit 1', 1, "PYSEC-1"),
        ('case "$*" in *--strict*) exit 1 ;; esac', 3, "No source of advisories is reachable: nothing was checked."),
    ],
    ids=["nothing found", "something found", "nothing known"],
)
def test_security_tells_what_was_checked(tmp_path, audit, status, word):
    (tmp_path / "requirements.lock").write_text("six==1.17.0 ; python_full_version < '3.12' \\\n    --hash=sha256:0\n")
    uv = tmp_path / ".venv" / "bin" / "uv"  # in its place one that installs an audit with a known answer
    uv.parent.mkdir(parents=True)
    uv.write_text(f"""#!/bin/sh
[ "$1" = venv ] || exit 0
for last; do :; done
mkdir -p "$last/bin"
cat > "$last/bin/pip-audit" <<'END'
#!/bin/sh
{audit}
END
chmod +x "$last/bin/pip-audit"
""")
    uv.chmod(0o755)
    run = subprocess.run(
        [PROJECT / ".ci" / "security"],
        cwd=tmp_path,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert (run.returncode, word in run.stdout) == (status, True), run
    assert sorted(path.name for path in tmp_path.iterdir()) == [".venv", "requirements.lock"]  # it leaves nothing
