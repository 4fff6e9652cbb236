"""The command line: what a user gets wrong is one clear line on standard error and exit code 2."""

import json
import sys
from pathlib import Path

import pytest

from data_prep.__main__ import main as prepare
from mmpretrain.__main__ import command_names, main

ROOT = Path(__file__).parents[1]
RECIPE = """
from mmpretrain.config import CorpusConfig, DataConfig, RoundConfig, RunConfig, encoder_size, mfcc

def get_config():
    return RunConfig(
        workdir="{workdir}",
        data=DataConfig(corpora=(CorpusConfig("{workdir}/no_corpus"),), batch_frames=600),
        model=encoder_size("tiny"),
        rounds=(RoundConfig(targets=mfcc(5), num_steps=40_000),),
    )
"""


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """command(*arguments): exit code, standard output and standard error of `mmpretrain` with a recipe at hand."""
    monkeypatch.delitem(sys.modules, "config_config", raising=False)  # the recipe of the test before
    monkeypatch.chdir(tmp_path)
    Path("recipe.py").write_text(RECIPE.format(workdir=tmp_path / "run"))

    def run(*arguments):
        with pytest.raises(SystemExit) as left:
            main(list(arguments))
        printed = capsys.readouterr()
        return left.value.code, printed.out, printed.err

    return run


CONFIG = "--config=recipe.py"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", CONFIG], "unknown command 'train'; commands are run, refine, targets"),
        (["refien", CONFIG], "; did you mean 'refine'?"),
        (["refine", CONFIG, "--config.modle.width=3"], "; did you mean 'model'?"),
        (["refine", CONFIG, "--accept_change"], "; did you mean 'accept_changes'?"),
        (["refine", CONFIG, CONFIG], "--config is given 2 times (recipe.py, recipe.py); give one recipe"),
        (["refine", CONFIG + ":small"], "it takes no variant; give --config=recipe.py"),
        (
            ["refine", CONFIG, "--config.rounds[3].num_steps=3"],
            "--config.rounds[3].num_steps: rounds has no element [3]; it has 1, from rounds[0] on",
        ),
        (["refine"], "no recipe; give one with --config=RECIPE"),
        (["refine", "--config.seed=7"], "no recipe; give one with --config=RECIPE"),
        (["refine", "--config=no_such_recipe.py"], "--config=no_such_recipe.py: there is no such file"),
        (["refine", CONFIG, "--config.modle.width=3"], "'modle' of RunConfig; known are workdir, seed, data, model"),
        (["refine", CONFIG, "--config.model.wdith=3"], "'wdith' of ModelConfig; known are modalities, inputs, width"),
        (["refine", CONFIG, "--config.rounds[7].num_steps=3"], "rounds[7]"),
        (["refine", CONFIG, "--config.finetune.num_steps=3"], "finetune"),
        (["refine", CONFIG, "--config.seed=seven"], "seven"),
        (["refine", CONFIG, "--config.model.width=wide"], "wide"),
        (["refine", CONFIG, "--config.data.flip=maybe"], "maybe"),
        (["refine", CONFIG, "--cofnig.seed=7"], "cofnig"),
        (["refine", CONFIG, "seed=7"], "unexpected argument 'seed=7'; overrides look like --config.seed=7"),
        (["pretrain", CONFIG], "pretrain needs --round=1 to --round=1"),
        (["targets", CONFIG, "--round=2"], "--round=2; targets needs --round=1 to --round=1"),
        (["targets", CONFIG, "--round=0"], "round"),
        (["targets", CONFIG, "--round=one"], "one"),
        (["refine", CONFIG, "--round=1"], "--round=1 is for targets and pretrain, not for refine"),
        (["refine", CONFIG, "--rounds=2"], "--rounds=2: a round or the first and last of some, of 1 to 1"),
        (["refine", CONFIG, "--rounds=1,2"], "--rounds=1,2: a round or the first and last of some"),
        (["targets", CONFIG, "--round=1", "--rounds=1"], "--rounds=1 is for refine, not for targets"),
        (
            ["refine", CONFIG, "--profile=9-3"],
            "--profile=9-3: a step or the first and last of some",
        ),
        (
            ["targets", CONFIG, "--round=1", "--profile=3"],
            "--profile=3 is for run and refine and pretrain and",
        ),
        (["status"], "the command is `mmpretrain status RUN`, without a recipe"),
        (["status", CONFIG], "the command is `mmpretrain status RUN`, without a recipe"),
        (["refine", CONFIG, "--config.observe.peak_tflops=-1"], "observe.peak_tflops=-1.0; it must be above 0, or 0"),
        (["refine", CONFIG, "--config.model.fusion=sum"], "model.fusion='sum'; it must be one of concat, add"),
        (["refine", CONFIG, "--config.parallel.fsdp=3"], "does not multiply to the"),
        (["refine", CONFIG], "no_corpus' does not exist; make it with `python -m data_prep"),
        (["export", CONFIG], "is not finished; run it first"),
        (
            ["refine", CONFIG, "--config.parallel.micro_batches=3"],
            "each of them into parallel.micro_batches=3; set it to",
        ),
        (["replay", "no_such_run", "--step=3"], "no_such_run: there is no such folder; a run's is what --config"),
        (["replay", ".", "--step=3"], ". is no run: it has no config.json"),
        (["replay", ".", "--step=3", CONFIG], "the command is `mmpretrain replay RUN --step=S"),
        (["status", ".", "--accept_changes"], "--accept_changes is for run and refine and targets and pretrain and"),
        (["status", ".", "--process_id=0"], "--process_id is for a run of several processes; `status` works in one"),
        (
            ["predict", "a.mp4", "--encoder=e", "--coordinator=localhost:1"],
            "--coordinator is for a run of several processes; `predict` works in one",
        ),
        (["export", CONFIG, "--format=onyx"], "--format=onyx; it must be one of folder, avhubert"),
        (["export", ".", "--format=folder", "--output=again"], ". is no exported encoder, and no run or stage that"),
        (
            ["export", ".", "--format=avhubert", "--output=a.pt", "--accept_changes"],
            "is for `mmpretrain export --c",
        ),
        (["replay", "no_such_run"], "the command is `mmpretrain replay RUN --step=S [--stage=round2/pretrain]`"),
        (["refine", CONFIG, "--step=3"], "--step=3 is for replay, not for refine"),
        (["finetune", CONFIG], "this recipe has no finetune part"),
        (["evaluate", CONFIG], "this recipe has no finetune part"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_a_user_gets_wrong_is_one_line(command, arguments, words):
    code, out, err = command(*arguments)
    assert code == 2
    assert words in err
    assert "Traceback" not in err
    assert not out
    lines = [line for line in err.splitlines() if line.startswith("mmpretrain")]
    assert lines == [err.splitlines()[-1]], err
    assert lines[0].startswith(f"mmpretrain {arguments[0]}: ")


@pytest.mark.parametrize("recipe", ["def get_config(:\n", "config = 3\n", "import no_such_module\n"])
def test_a_broken_recipe_is_named(command, recipe):
    Path("broken.py").write_text(recipe)
    code, _, err = command("refine", "--config=broken.py")
    assert code == 2
    assert "broken.py" in err.splitlines()[-1]
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ("seed = 3\n", "--config=broken.py: it has no function get_config that returns a RunConfig; see"),
        ("def get_config():\n    pass\n", "get_config returned None; it must be a RunConfig; does get_config lack its"),
        ("def get_config():\n    return {'a': 1}\n", "get_config returned {'a': 1}; it must be a RunConfig"),
        ("def get_config(variant):\n    pass\n", "it takes a variant; give --config=broken.py:VARIANT"),
        ("import sys\nsys.exit(0)\n", "broken.py, line 2: it ends the program; take that out of the recipe"),
        ("def get_config():\n    return 1 / 0\n", "broken.py, line 2: ZeroDivisionError: division by zero; correct"),
        ("\ndef get_config(:\n", "broken.py, line 2: invalid syntax; correct the recipe"),
    ],
)
def test_what_a_recipe_lacks_is_said(command, recipe, words):
    Path("broken.py").write_text(recipe)
    code, out, err = command("refine", "--config=broken.py", "--config.seed=3")
    assert (code, out) == (2, "")
    assert words in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["help"]])
def test_help_teaches(command, arguments):
    code, out, err = command(*arguments)
    assert code == 0
    assert not err
    assert all(f"  {name} " in out for name in command_names())
    assert "mmpretrain run --config=demo" in out
    assert max(map(len, out.splitlines())) <= 120


@pytest.mark.parametrize("arguments", [["refine", "--help"], ["refine", CONFIG, "-h"], ["help", "refine"]])
def test_a_command_has_its_own_help(command, arguments):
    code, out, err = command(*arguments)
    assert code == 0
    assert not err
    assert out.startswith("mmpretrain refine --config=RECIPE [--rounds=2-3] [--profile=100-105] [--accept_changes]")
    assert all(f"  {shown} " in out for shown in ("--config=RECIPE", "--rounds=2-3", "--profile=100-105"))
    assert "mmpretrain refine --rounds=2 --config=demo" in out
    assert "mmpretrain run" not in out


def test_nothing_at_all_prints_the_help_but_fails(command):
    code, out, _ = command()
    assert code == 2
    assert "stages:" in out


def test_an_override_reaches_the_run(command, tmp_path):
    code, _, _ = command("refine", CONFIG, f"--config.workdir={tmp_path / 'other'}", "--config.model.dropout=0.25")
    assert code == 2, "the corpus does not exist"
    assert '"dropout": 0.25' in (tmp_path / "other" / "config.json").read_text()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("folder", "reason"), [("recipe.py", "it is a file"), ("recipe.py/run", "Not a directory")], ids=["file", "below"]
)
def test_a_run_folder_that_cannot_be_made_is_named(command, folder, reason):
    code, _, error = command("refine", CONFIG, f"--config.workdir={folder}")
    assert code == 2
    assert error.endswith(f"--config.workdir='{folder}' cannot be made ({reason}); give another folder\n")


def test_an_override_may_stand_before_the_recipe(command):
    code, _, error = command("refine", "--config.rounds[0].num_steps=0", CONFIG)
    assert (code, error.splitlines()[-1]) == (2, "mmpretrain refine: rounds[0].num_steps=0; it must be above 0")


def test_a_recipe_may_have_variants(command, tmp_path):
    recipe = f"--config={ROOT / 'configs/pretrain/avhubert_base_lrs3.py'}"
    command("refine", f"{recipe}:paper", f"--config.workdir={tmp_path / 'paper'}")  # ends at the missing corpus
    rounds = json.loads((tmp_path / "paper" / "config.json").read_text())["rounds"]
    assert [round_["modality_dropout"] for round_ in rounds] == [0.5] * 5
    code, _, err = command("refine", f"{recipe}:papre")
    assert code == 2
    assert "no variant 'papre'; it has released, paper" in err.splitlines()[-1]


@pytest.mark.parametrize(
    "field",
    ["workdir", "data.corpora[0].path", "data.noise.path", "rounds[0].encoder", "finetune.encoder",
     "finetune.corpora[0].path"],
)  # fmt: skip
def test_addresses_in_place_of_folders_are_refused_with_a_remedy_in_every_field(command, field):
    recipe = Path("recipe.py").read_text()
    more = ", finetune=FinetuneConfig(corpora=(CorpusConfig('x'),), tasks=(emotion('happy', 'sad'),))"
    recipe = recipe.replace("num_steps=40_000),),", f"num_steps=40_000),){more},")
    Path("recipe.py").write_text(recipe.replace("import ", "import FinetuneConfig, emotion, "))
    override = f"--config.{field}=gs://bucket/x"
    extra = ["--config.rounds[0].targets[0].features=hidden", "--config.rounds[0].targets[0].layer=1"]
    code, _, err = command("run", "--config=recipe.py", override, *(extra if field == "rounds[0].encoder" else []))
    assert code == 2
    assert f"--config.{field}='gs://bucket/x' is an address" in err
    assert "gcsfuse" in err
    assert not list(Path().glob("gs*"))


def test_addresses_in_place_of_files_are_refused_as_arguments_and_options(command, capsys):
    for arguments, name in (
        (("status", "s3://bucket/run"), "RUN='s3://bucket/run'"),
        (("export", "encoder", "--format=avhubert", "--output=gs://b/x.pt"), "--output='gs://b/x.pt'"),
        (("import-avhubert", "x.pt", "--output=gs://b/x"), "--output='gs://b/x'"),
        (("targets", "inspect", "store", "--corpus=gs://b/corpus", "--output=x"), "--corpus='gs://b/corpus'"),
    ):
        code, _, err = command(*arguments)
        assert code == 2
        assert f"{name} is an address" in err, err
        assert "mount the storage" in err
    for option in ("--source", "--output", "--manifest", "--landmarker"):
        given = {"--source": "in", "--output": "out", option: "gs://bucket/x"}
        assert prepare(["folder", *(word for pair in given.items() for word in pair)]) == 2
        assert f"{option}='gs:/" in (err := capsys.readouterr().err), err
        assert "gcsfuse" in err
    assert sorted(path.name for path in Path().iterdir()) == ["recipe.py"]
