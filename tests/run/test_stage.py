"""What becomes of a stage when the recipe changes."""

import json

import pytest

from mmpretrain.config import FinetuneConfig, OptimizerConfig, as_dict
from mmpretrain.run.sealed import check_sealed
from mmpretrain.run.stage import run_stage


def test_what_accepting_changes_does_is_said_of_a_stage_that_is_finished(tmp_path, capsys):
    """It trains nothing more: whoever wants that removes result.json."""

    def stage(num_steps, done=True, **given):
        def work(folder, wall):
            if not done:
                raise KeyboardInterrupt
            return {"num_steps": num_steps}

        return run_stage(tmp_path, "stage", {"num_steps": num_steps}, work, **given)

    with pytest.raises(KeyboardInterrupt):
        stage(6, done=False)
    with pytest.raises(ValueError, match="or go on with the new one from here: --accept_changes"):
        stage(12)
    stage(6)
    with pytest.raises(ValueError, match=r"num_steps was 6 and is 12.* or keep what is finished as it is: --accept"):
        stage(12)
    assert stage(12, accept_changes=True)["num_steps"] == 6
    assert "accepted that num_steps was 6 and is 12; it is finished and stays as it is" in capsys.readouterr().err
    (tmp_path / "stage" / "result.json").unlink()
    assert stage(12)["num_steps"] == 12
    check_sealed(tmp_path / "stage" / "result.json")


def test_a_whole_number_and_the_same_with_a_point_are_one_recipe(tmp_path):
    written = FinetuneConfig(encoder_rate=20, optimizer=OptimizerConfig(clip_norm=1))
    parsed = FinetuneConfig(encoder_rate=20.0, optimizer=OptimizerConfig(clip_norm=1.0))
    assert json.dumps(as_dict(written)) == json.dumps(as_dict(parsed)), "a file and the command line"

    def work(folder, wall):
        return {}

    run_stage(tmp_path, "stage", {"encoder_rate": 20, "shares": (1, 0.5)}, work)
    run_stage(tmp_path, "stage", {"encoder_rate": 20.0, "shares": (1.0, 0.5)}, work)
