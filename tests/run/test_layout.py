"""The stages that a recipe stands for, which every command that needs them takes from one place."""

import dataclasses

import pytest

from mmpretrain.config import FinetuneConfig, RoundConfig, as_dict, mfcc
from mmpretrain.files import write_json
from mmpretrain.run.layout import recipe_of_run, runs_below, stage_names, stages_by_command, training_stages
from mmpretrain.run.sealed import write_sealed
from mmpretrain.tools.status import status
from tests.tiny import tiny_run

ROUNDS = tuple(RoundConfig(targets=mfcc(3), num_steps=1) for _ in range(2))
WALKED = ["round1/targets", "round1/pretrain", "round2/targets", "round2/pretrain"]


def recipe(**fields):
    return dataclasses.replace(tiny_run(), **fields)


def test_a_recipe_with_all_parts_goes_through_all_stages_in_order():
    finetune = FinetuneConfig(protocol="speakers-5", folds=(2, 4), compare_from_scratch=True)
    config = recipe(rounds=ROUNDS, finetune=finetune)
    folds = [f"finetune/{kind}/fold{fold}" for kind in ("pretrained", "scratch") for fold in (2, 4)]
    assert stages_by_command(config) == {
        "refine": WALKED, "finetune": folds, "evaluate": ["evaluation"], "export": ["export"],
    }  # fmt: skip
    assert list(stages_by_command(config)) == ["refine", "finetune", "evaluate", "export"]
    assert stage_names(config) == [*WALKED, *folds, "evaluation", "export"]
    assert training_stages(config) == [WALKED[1], WALKED[3], *folds]


def test_a_recipe_without_a_part_has_no_stages_of_it():
    assert stage_names(recipe(rounds=ROUNDS, finetune=None)) == [*WALKED, "export"]
    finetune = FinetuneConfig(protocol="crema-5", encoder="none")
    folds = [f"finetune/scratch/fold{fold}" for fold in range(1, 6)]
    assert stage_names(recipe(rounds=(), finetune=finetune)) == [*folds, "evaluation"]


def test_the_recipe_of_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: there is no such folder"):
        recipe_of_run(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"is no run: it has no config\.json, which every run begins with"):
        recipe_of_run(tmp_path)
    write_json(tmp_path / "config.json", {"sed": 3})
    with pytest.raises(ValueError, match=r"no recipe of this version of mmpretrain \(unknown field 'sed' of RunConfig"):
        recipe_of_run(tmp_path)


def test_status_shows_the_runs_in_a_folder_that_has_no_stages_of_its_own(tmp_path):
    """As `adapt` and `folds` leave it: all of the outer recipe's stages would be "to do" for ever."""
    outer, inner = tmp_path / "run", tmp_path / "run" / "tapt" / "fold1"
    config = as_dict(recipe(rounds=ROUNDS, finetune=None))
    for folder in (outer, inner):
        write_sealed(folder / "config.json", config)
    write_sealed(inner / "round1" / "targets" / "recipe.json", {"format": 3})
    write_sealed(inner / "round1" / "targets" / "result.json", {"codebooks": [], "wall_time_sec": 1.0})
    write_json(inner / "round1" / "targets" / "deep" / "config.json", config)  # stages are not looked into
    write_json(outer / "encoder" / "config.json", {"model": {}, "lineage": {}})  # no run
    assert runs_below(outer) == [inner]
    lines = status(outer).splitlines()
    assert not [line for line in lines if "to do" in line]
    assert f"{inner}       1 of 5        -  round1/pretrain, round2/targets, round2/pretrain, ..." in lines[5].strip()
    assert status(inner).splitlines()[3].split()[:2] == ["round1/targets", "done"]
    write_sealed(outer / "round1" / "targets" / "recipe.json", {"format": 3})  # it has stages as well
    assert "round1/pretrain" in status(outer).split("runs in it")[0]
