"""What is installed: the lock file has all that pyproject.toml asks for, with hashes, for each Python there is."""

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]


def test_the_lock_file_has_all_that_is_asked_for_with_hashes():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = map(Requirement, project["dependencies"] + project["optional-dependencies"]["test"])
    locked: dict[str, list[Requirement]] = {}
    for entry in re.split(r"\n(?=[a-z])", (ROOT / "requirements.lock").read_text()):
        if not entry.startswith("#"):
            requirement = Requirement(entry.split("\\")[0].strip())
            assert "--hash=sha256:" in entry, requirement
            locked.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    for wanted in asked:
        found = locked.get(canonicalize_name(wanted.name), [])
        for python in ("3.11", "3.12", "3.13"):
            place = {"python_version": python, "python_full_version": f"{python}.0"}
            versions = [
                next(iter(each.specifier)).version
                for each in found
                if each.marker is None or each.marker.evaluate(place)
            ]
            assert len(versions) == 1, f"{wanted} for Python {python}: {versions}; run `make lock`"
            assert wanted.specifier.contains(versions[0]), f"{wanted}, locked at {versions[0]}; run `make lock`"


def test_every_extra_is_described():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    described = (ROOT / "docs" / "install.md").read_text().split("| extra |")[1]
    assert [name for name in extras if f"`{name}`" not in described] == []
