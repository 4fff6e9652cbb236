"""The recipes that come with the program: found by name, listed, copied, and part of the package that is installed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mmpretrain.__main__ import main
from mmpretrain.config import RunConfig, range_text
from mmpretrain.run.shipped import find_recipe, shipped_recipes

ROOT = Path(__file__).parents[2]


def test_a_recipe_is_found_by_name_with_or_without_its_folder_and_with_its_variant():
    small = str(ROOT / "configs" / "pretrain" / "small_real.py")
    assert find_recipe("small_real") == find_recipe("pretrain/small_real") == small
    assert find_recipe("avhubert_base_lrs3:paper").endswith("configs/pretrain/avhubert_base_lrs3.py:paper")
    assert find_recipe("configs/demo.py") == "configs/demo.py"
    with pytest.raises(FileNotFoundError, match=r"--config=smal: .* no recipe of that name; .*pretrain/small_real"):
        find_recipe("smal")


def test_all_are_listed_with_what_they_are_for(capsys):
    main(["recipes"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(shipped_recipes())
    assert all(line.endswith(".") for line in lines)


def test_a_copy_is_a_recipe_of_ones_own_and_replaces_nothing(tmp_path, capsys):
    mine = tmp_path / "new" / "mine.py"
    main(["recipes", "copy", "small_real_affect", str(mine)])
    with pytest.raises(SystemExit):
        main(["recipes", "copy", "demo", str(mine)])
    assert "there is something already" in capsys.readouterr().err
    assert mine.read_text() == (ROOT / "configs" / "pretrain" / "small_real_affect.py").read_text()


def test_every_field_of_a_recipe_is_shown_with_its_value_what_it_may_hold_and_another_default(capsys):
    main(["recipes", "show", "--config=demo", "--config.seed=7"])
    lines = capsys.readouterr().out.splitlines()
    (seed,) = (line for line in lines if line.startswith("  seed="))
    assert seed.split(maxsplit=1) == ["seed=7", f"{range_text(RunConfig, 'seed')}; by default 1337"]
    assert sum("rounds[1].num_steps=" in line for line in lines) == 1


def test_a_part_of_a_recipe_is_shown_and_an_unknown_one_refused(capsys):
    main(["recipes", "show", "--config=demo", "--field=finetune.optimizer"])
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith(("  finetune.optimizer.", "    ")) for line in lines)
    assert len(lines) > 5
    with pytest.raises(SystemExit):
        main(["recipes", "show", "--config=demo", "--field=finetune.opt"])
    assert "--field=finetune.opt: the recipe has no such field" in capsys.readouterr().err


@pytest.mark.slow
def test_the_installed_package_has_the_recipes_and_prepares_what_they_need(tmp_path):
    """A wheel, installed alone and used from elsewhere; all that it depends on is here already."""
    source = tmp_path / "source"
    skipped = shutil.ignore_patterns(".*", "tests", "build", "*.egg-info", "runs", "benchmarks", "__pycache__")
    shutil.copytree(ROOT, source, ignore=skipped)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    site = tmp_path / "site"
    subprocess.run([*pip, "install", "--no-deps", "--target", str(site), str(source)], check=True)
    shutil.rmtree(source)
    assert not (site / "configs").exists()  # a name that others may have too
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    command = [sys.executable, "-m", "mmpretrain"]
    environment = {**os.environ, "PYTHONPATH": str(site)}

    def run(*arguments: str) -> str:
        done = subprocess.run([*command, *arguments], cwd=elsewhere, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    assert run("recipes").split()[0] == "demo"
    few = '--config.data.corpora[0].prepare=("synthetic", "--clips", "120", "--mouth-size", "36", "--face-size", "34")'
    clusters = "--config.rounds[0].targets[0].num_clusters=5"
    printed = run("targets", "--config=demo", "--round=1", few, clusters)
    assert "kept 120 of 120 clips" in printed
    assert (elsewhere / "runs" / "demo" / "round1" / "targets" / "result.json").exists()
    assert "kept" not in run("targets", "--config=demo", "--round=1", few, clusters)  # it is there now
