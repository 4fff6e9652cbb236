"""Every field of the tree refuses what is outside its range, by the command line, in a recipe and in a saved one."""

import copy
import json
import math
import re
from typing import get_args, get_origin

import pytest

from mmpretrain import __main__ as program
from mmpretrain.config import RunConfig, as_dict, from_dict, range_text
from mmpretrain.config.checks import check
from mmpretrain.config.ranges import leaves, shown
from mmpretrain.run.command import Command
from tests.slow import others_slow

RECIPE = """
from mmpretrain.config import *

def get_config():
    masking = MaskingConfig(kind="input")
    corpora = (CorpusConfig("prepared"), CorpusConfig("other", 2.0))
    tasks, text = (emotion("neutral", "happy"),), TextConfig("bert")
    finetune = FinetuneConfig(tasks=tasks, corpora=corpora, folds=(1, 2), masking=masking, text=text)
    rounds = (
        RoundConfig("multitask_prediction", targets=mfcc(10), tasks=tasks), RoundConfig(targets=hidden(2, 10))
    )
    retrieval = RetrievalConfig(TaskConfig("likeness", kind="embedding", classes=("neutral", "happy")))
    data = DataConfig(corpora=corpora, exclude_speakers=("a",), noise=NoiseConfig(0.5, 0.0, "noise"))
    units = UnitsConfig(TaskConfig("units", kind="frames", classes=("_", "a")), corpora=corpora)
    return RunConfig(
        "run", data=data, model=encoder_size("tiny"), rounds=rounds, finetune=finetune, units=units,
        retrieval=retrieval,
    )
"""
FIELDS = {re.sub(r"\[\*\]", "[0]", path): (kind, allowed) for path, kind, allowed in leaves(RunConfig)}
# Of fields of one type and range the first is quick.
FIRSTS = {(kind, allowed and allowed.text): path for path, (kind, allowed) in reversed(FIELDS.items())}
PATHS = others_slow(FIELDS, *FIRSTS.values())
TEXTS = (
    "abc", "", "-1", "0", "1", "-1.5", "0.5", "2", "1e300", "9" * 20, "9" * 5000, "nan", "inf", "-inf", "True", "None",
    "(1,1)", "(0,)", "('a','a')", "(nan,)", "((1,),)", "{1:2}", "(" * 300, "1,", "'", "\x1b[2J\n",
)  # fmt: skip
VALUES = (
    "abc", "", "x" * 10_000, "\x1b[2J\n", -1, 0, 1, 2, 10**20, 10**5000, -1.5, 0.5, 1e300, math.nan, math.inf, True,
    None, [], [1, 1], [0], ["a", "a"], [math.nan], [[1]], [None], {}, {"a": 1}, [{}], [{"path": 3}],
)  # fmt: skip
# Of two fields, or of a part of the recipe that has no use for the field.
TOGETHER = re.compile(
    r" of (model|data)\.|previous_round where|(False|1\.0|'class') with|False: it is of|one of (random|input)$"
    r"|: pretraining alone|0 with |\]\.init=''; it must be random, or"
    r"|one of class, embedding$|'embedding'$|some, not all, of the classes|or more with |\(\) with "
    r"|which does not read it"
)
COMMAND = Command("refine", "", lambda given: None)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    file = tmp_path_factory.mktemp("recipe") / "recipe.py"
    file.write_text(RECIPE)
    return file


def parsed(recipe, *arguments: str) -> RunConfig:
    config, _, _ = program._parse(COMMAND, [f"--config={recipe}", *arguments])
    return config


def test_every_field_has_a_range():
    bare = [path for path, (kind, allowed) in FIELDS.items() if allowed is None and kind is not bool]
    assert not bare, (
        f"{', '.join(bare)}: say beside the default what it may hold, e.g. `setting(5, within(1, 100))`; see "
        "mmpretrain/config/ranges.py"
    )


def value_at(config, path: str):
    for part in path.replace("[", ".").replace("]", "").split("."):
        config = config[int(part)] if part.isdigit() else getattr(config, part)
    return config


def check_message(message: str, path: str) -> None:
    """The field, its value and what it may hold, in one line; or another field that does not go with it."""
    line = " ".join(message.split())
    name = re.split(r"[.\[]", path.removesuffix("[0]"))[-1].rstrip("]")
    assert name in line or line.startswith(("finetune.select_by=", "parallel=["))  # of a task's name, of an axis
    assert len(line) < 1_200, line
    assert re.search("it must be|workdir is empty|sizes are positive|two or more", line), line
    if line.startswith(f"{path}="):
        wanted = range_text(RunConfig, path)
        assert wanted
        assert re.sub(r" \(.*\)$", "", wanted) in line or TOGETHER.search(line), line


def check_accepted(value, kind, allowed) -> None:
    items = value if isinstance(value, tuple) else (value,)
    of = get_args(kind)[0] if get_origin(kind) is tuple else kind
    for item in items:
        assert isinstance(item, (int, float) if of is float else of)
        assert not isinstance(item, float) or math.isfinite(item)
        assert allowed is None or allowed.holds(item)


@pytest.mark.parametrize("path", PATHS)
def test_a_field_holds_what_it_may_by_the_command_line(recipe, path):
    kind, allowed = FIELDS[path]
    for text in TEXTS:
        try:
            config = parsed(recipe, f"--config.{path}={text}")
            check(config)
        except ValueError as error:
            check_message(str(error), path)
        else:
            check_accepted(value_at(config, path), kind, allowed)


@pytest.mark.parametrize("path", PATHS)
def test_a_field_holds_what_it_may_in_a_saved_recipe(recipe, path):
    kind, allowed = FIELDS[path]
    tree = as_dict(parsed(recipe))
    for value in VALUES:
        changed = copy.deepcopy(tree)
        *above, name = path.replace("[", ".").replace("]", "").split(".")
        inner = changed
        for part in above:
            inner = inner[int(part) if part.isdigit() else part]
        inner[name] = value
        try:
            config = from_dict(RunConfig, changed)
            check(config)
        except ValueError as error:
            if "unknown field" not in str(error):
                check_message(str(error), path)
        else:
            check_accepted(value_at(config, path), kind, allowed)


@pytest.mark.parametrize(
    ("field", "wanted"),
    [
        ("data.corpora[0].weight=-1", "above 0"), ("data.corpora[0].weight=nan", "above 0"),
        ("data.corpora[1].weight=inf", "above 0"), ("rounds[0].optimizer.b1=2", "from 0 to below 1"),
        ("rounds[0].optimizer.b2=1", "from 0 to below 1"), ("rounds[1].optimizer.eps=-1", "above 0"),
        ("rounds[0].optimizer.weight_decay=-1", "between 0"), ("finetune.optimizer.clip_norm=nan", "between 0"),
        ("model.inputs.pixel_std=0", "above 0"), ("rounds[0].optimizer.warmup_steps=-3", "between 0 and 2_147_483_647"),
        ("finetune.folds=(1,1)", "each once"), ("finetune.folds=(0,)", "between 1 and"),
        ("finetune.folds=('a',)", "a tuple of whole numbers"), ("data.bucket_frames=abc", "positive lengths in frames"),
        ("data.bucket_frames=(50,2.5)", "positive lengths in frames"), ("seed=99999999999999999999", "between 0 and"),
        ("seed=-1", "between 0 and"), ("seed=1e3", "a whole number"), ("model.dropout=1", "below 1"),
        ("model.width=wide", "above 0 and at most 65_536 (a whole number)"), ("rounds=(1,)", "a RoundConfig"),
        ("data.flip=maybe", "True or False"), ("finetune.tasks[0].weight=-inf", "above 0"),
        ("rounds[1].targets[0].num_clusters=1", "at least 2"), ("observe.wandb_project=\n", "a name"),
    ],
)  # fmt: skip
def test_wrong_settings_are_refused_with_the_range(recipe, field, wanted):
    with pytest.raises(ValueError, match="it must be") as refused:
        check(parsed(recipe, f"--config.{field}"))
    line = " ".join(str(refused.value).split())
    assert line.startswith(field.split("=")[0])
    assert wanted in line


def test_a_field_of_what_is_none_says_how_to_have_it(tmp_path):
    file = tmp_path / "recipe.py"
    file.write_text(RECIPE.replace(", text=text)", ")"))
    with pytest.raises(ValueError, match=r"finetune\.text is None .* --config\.finetune\.text=build before"):
        parsed(file, "--config.finetune.text.context=3")
    assert parsed(file, "--config.finetune.text=build", "--config.finetune.text.context=3").finetune.text.context == 3


@pytest.mark.parametrize(
    "override",
    [
        "rounds[7].num_steps=3", "rounds[-9].num_steps=3", "rounds[0:1].num_steps=3", "rounds[x].num_steps=3",
        "rounds[0]=x", "rounds[0].targets[0]=3", "data.bucket_frames[0]=7", "model=x", "model.__class__=3",
        "rounds.append=3", "__init__=3", "a..b=3", "[0]=3", "model.inputs.view.x=3", "seed.real=3",
        "finetune.masking=x",
        "rounds[0].optimizer=none", "data.corpora[0].path[0]=3", "(" * 500 + "=3",
    ],
)  # fmt: skip
def test_an_override_of_what_there_is_not_is_one_line(recipe, override):
    with pytest.raises(ValueError, match=r"\S") as refused:
        check(parsed(recipe, f"--config.{override}"))
    assert len(str(refused.value)) < 2_000


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        (3, "it must be a RunConfig, by its fields"), (None, "it must be a RunConfig"), ([], "it must be a RunConfig"),
        ({"model": 3}, "model=3; it must be a ModelConfig"), ({"model": None}, "model=None; it must be a ModelConfig"),
        ({"rounds": {}}, "rounds={}; it must be"), ({"rounds": [3]}, r"rounds[0]=3; it must be a RoundConfig"),
        ({"rounds": [{"targets": [{"weight": "x"}]}]}, "rounds[0].targets[0].weight='x'; it must be above 0"),
        ({"seed": True}, "seed=True; it must be between 0"), ({"seeed": 1}, "unknown field 'seeed' of RunConfig"),
    ],
)  # fmt: skip
def test_a_saved_recipe_of_another_form_is_refused(tree, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        from_dict(RunConfig, tree)


@pytest.mark.parametrize(
    "body", ["1 / 0", "undefined", "RunConfig(3)", "None", "{}", "f()", "RunConfig('x', rounds=3)"]
)
def test_a_recipe_that_fails_is_refused(tmp_path, body):
    file = tmp_path / "broken.py"
    file.write_text(
        f"from mmpretrain.config import *\ndef f():\n    return f()\ndef get_config():\n    return {body}\n"
    )
    with pytest.raises(ValueError, match=r"\S"):
        check(parsed(file))


def test_a_message_is_never_long():
    assert shown(10**5000).startswith("a number of")
    assert len(shown("x" * 10**6)) < 120
    assert len(shown(tuple(range(10_000)))) < 120
    json.dumps(as_dict(RunConfig("x")))
