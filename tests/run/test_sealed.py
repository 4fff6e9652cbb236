"""Recipes and results of stages, and a run's config.json: no changed bit is believed, and no kill leaves a doubt."""

import itertools
import json
import random

import pytest

from mmpretrain.files import DamagedError, read_json
from mmpretrain.run import sealed
from mmpretrain.run.sealed import check_sealed, write_sealed
from mmpretrain.run.stage import run_stage


class Kill(BaseException):
    pass


def test_a_kill_at_any_moment_leaves_the_old_content_or_the_new_one(tmp_path, monkeypatch):
    file, real = tmp_path / "result.json", sealed.write_json
    write_sealed(file, 0)
    values = itertools.count(1)
    for moments in itertools.product((1, 2, None), repeat=3):  # each writer is killed before, or after, or not
        for moment in moments:
            left = moment

            def write(path, value):
                nonlocal left
                if left is not None:
                    left -= 1
                    if left == 0:
                        raise Kill
                real(path, value)

            monkeypatch.setattr(sealed, "write_json", write)
            before, value = read_json(file, kind=int), next(values)
            if moment is None:
                write_sealed(file, value)
            else:
                with pytest.raises(Kill):
                    write_sealed(file, value)
            check_sealed(file)
            assert read_json(file, kind=int) == {1: before, 2: value, None: value}[moment]


def test_what_a_person_wrote_is_taken_and_what_a_run_wrote_is_checked(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    check_sealed(tmp_path / "config.json")
    write_sealed(tmp_path / "config.json", {"seed": 1})
    check_sealed(tmp_path / "config.json")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(DamagedError, match=r"config\.json is damaged: .*; remedy"):
        check_sealed(tmp_path / "config.json", remedy="remedy")
    with pytest.raises(FileNotFoundError):
        check_sealed(tmp_path / "no.json")


def test_no_changed_bit_of_a_stage_is_believed(tmp_path, capsys):
    recipe, made = {"seed": 1, "clips": "0123"}, []

    def work(folder, wall):
        made.append(folder)
        return {"loss": 0.125, "ids": list(range(20))}

    result = run_stage(tmp_path, "stage", recipe, work)
    assert run_stage(tmp_path, "stage", recipe, work) == result
    assert len(made) == 1
    folder, draw = tmp_path / "stage", random.Random(0)
    for name in ("recipe.json", "result.json", "digests.json"):
        whole = {path: path.read_bytes() for path in folder.iterdir()}
        for _ in range(25):
            content = bytearray(whole[folder / name])
            content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
            (folder / name).write_bytes(content)
            capsys.readouterr()
            try:
                again, refusal = run_stage(tmp_path, "stage", recipe, work), ""
            except DamagedError as error:
                again, refusal = result, str(error)
            said = capsys.readouterr().err + refusal
            assert (str(folder) in said and name in said) or (again == result and "done already" in said)
            assert again["ids"] == result["ids"]
            for path, bytes_ in whole.items():
                path.write_bytes(bytes_)
    assert json.loads((folder / "result.json").read_text()) == result
