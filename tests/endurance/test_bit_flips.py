"""One changed bit in any file of a finished run or its corpus is noticed by whoever reads the file, or harmless.

Every case copies both, changes one bit of one file, and reads that file as the commands do. What comes out must be the
same bit for bit, or an error or a line must name the file.
"""

import functools
import hashlib
import random
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx
from tqdm import trange

from mmpretrain.config import as_dict
from mmpretrain.data.clips import open_clips
from mmpretrain.encoders.encoder import load_encoder
from mmpretrain.encoders.folder import load_head, read_training_data
from mmpretrain.encoders.weights import load_weights
from mmpretrain.files import read_json
from mmpretrain.run.layout import read_health, recipe_of_run
from mmpretrain.run.run import Run
from mmpretrain.run.stage import run_stage
from mmpretrain.targets.codebook import load_codebook
from mmpretrain.tools.replay import _training
from mmpretrain.train.checkpoint import Checkpointer, shapes
from tests.end_to_end.conftest import CHECKOUT, arguments

FLIPS = 2000
# What nobody reads: for people, or notes of Orbax and of who holds a folder.
NOT_READ = re.compile(
    r"README\.md|report\.html|summary\.json|\.csv$|events\.out|wall_time\.json|changes\.json|metrics\.jsonl|"
    r"commit_success\.txt|_CHECKPOINT_METADATA|\.lease/|preparation\.json"
)


class RedoneError(Exception):
    """A stage that is not believed is done again."""


def hashed(tree: Any) -> str:
    total = hashlib.sha256(str(jax.tree.structure(tree)).encode())
    for leaf in jax.tree.leaves(tree):
        total.update(leaf.encode() if isinstance(leaf, str) else np.ascontiguousarray(leaf).tobytes())
    return total.hexdigest()


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of every file below a folder."""
    files = ((path.relative_to(folder).as_posix(), path.stat()) for path in folder.rglob("*") if path.is_file())
    return {name: (stat.st_size, stat.st_mtime_ns) for name, stat in files}


def names(text: str, file: str) -> bool:
    """Whether a message says which file it is about; of a record it names the clip and its corpus."""
    if file.endswith("digests.json") and "(by digests.json)" in text:  # of which of the two the bit is, nobody knows
        return True
    of_a_record = "array_record" in file and re.search(r"clip '.*' \(record \d+ of '\w+' in .*corpus\)", text)
    return Path(file).name in text or bool(of_a_record)


class Copy:
    """A run and its corpus to change a bit in, and how commands read each of their files."""

    def __init__(self, whole: Path, place: Path):
        self.whole, self.place = whole, place
        self._like: dict[str, Any] = {}

    @property
    def run(self) -> Run:
        config = recipe_of_run(self.place / "run")
        config.data.corpora[0].path = str(self.place / "corpus")
        return Run(config)

    def renew(self, changed: str = "") -> None:
        """Makes the copy whole again after a file was changed; all of it only where a reader wrote something else."""
        if changed and (self.place / changed).exists():
            shutil.copy2(self.whole / changed, self.place / changed)
        if stamps(self.place) != stamps(self.whole):
            shutil.rmtree(self.place, ignore_errors=True)
            shutil.copytree(self.whole, self.place)

    def like(self, stage: str) -> Any:
        """The shapes of a stage's state; to be asked for before anything is changed."""
        if stage not in self._like:
            trainer = (training := _training(self.run, stage)).trainer
            state = trainer.init(training.seed)
            self._like[stage] = shapes(state), trainer.model(state)
        return self._like[stage]

    def checkpoint(self, stage: str, folder: str, step: str) -> str:
        """As a run takes it up that has no other: what it falls back to is another test's."""
        place = self.place / "run" / stage / folder
        others = [path for path in place.iterdir() if path.name.isdigit() and path.name != step]
        for path in others:
            path.rename(self.place / path.name)
        saved = Checkpointer(place, keep=3)
        try:
            state, extra = saved.restore(self.like(stage)[0])
        finally:
            saved.close()
            for path in others:
                (self.place / path.name).rename(path)
        return hashed([jax.tree.leaves(state), repr(extra)])

    def encoder(self, folder: str) -> str:
        path = self.place / "run" / folder
        loaded = load_encoder(path)
        said = repr((loaded.config, loaded.lineage, read_training_data(path).summary()))
        return hashed([jax.tree.leaves(nnx.state(loaded.module)), load_head(path), said])

    def classifier(self, stage: str) -> str:
        model = self.like(stage)[1]
        load_weights(self.place / "run" / stage / "classifier", model)
        return hashed(jax.tree.leaves(nnx.state(model)))

    def stage(self, name: str) -> str:
        recipe = read_json(self.whole / "run" / name / "recipe.json")
        del recipe["format"]

        def work(*_: Any) -> dict[str, Any]:
            raise RedoneError

        return repr(run_stage(self.place / "run", name, recipe, work))

    def config(self) -> str:
        config = recipe_of_run(self.place / "run")
        config.workdir = ""
        return repr(as_dict(config))

    def health(self, number: str) -> str:
        if not (health := read_health(self.place / "run", int(number))):
            raise RedoneError
        return repr(health)

    def store(self, number: str) -> str:
        stores = self.run.round(int(number)).stores
        return hashed([[np.asarray(store.ids), list(store.clip_ids), repr(store.lineage)] for store in stores])

    def codebook(self, folder: str) -> str:
        if (loaded := load_codebook(self.place / "run" / folder)) is None:
            raise RedoneError
        return hashed([np.asarray(loaded.centroids), loaded.inertia])

    def corpus(self) -> str:
        config = recipe_of_run(self.whole / "run")
        config.data.corpora[0].path = str(self.place / "corpus")
        table = open_clips(config.data.corpora)
        clips = [vars(table.load(row)) for row in range(len(table))]
        labels = [list(map(str, table.label(name))) for name in sorted(table.label_kinds)]
        return hashed([table.fingerprint, list(table.clip_ids), list(map(str, table.speakers)), labels, clips])

    def reader(self, file: str) -> tuple[str, Callable[[], str]]:
        """What is read with a file, by name, and how. file: its path below the folder of both."""
        for pattern, read in (
            (r"run/(.*)/(checkpoints|best)/(\d+)/.*", self.checkpoint),
            (r"run/(.*encoder)/[^/]*", self.encoder),
            (r"run/(.*)/classifier/[^/]*", self.classifier),
            (r"run/round(\d+)/targets/codebook\d+/store/.*", self.store),
            (r"run/(round\d+/targets/codebook\d+/fitted)/[^/]*", self.codebook),
            (r"run/round(\d+)/(?:health|digests)\.json", self.health),
            (r"run/(?:config|digests)\.json", self.config),
            (r"run/(.*)/(?:recipe|result|digests)\.json", self.stage),
            (r"corpus/.*", self.corpus),
        ):
            if found := re.fullmatch(pattern, file):
                return f"{read.__name__} {found.groups()}", functools.partial(read, *found.groups())
        raise AssertionError(f"{file}: who reads it?")


@pytest.fixture(scope="module")
def whole(tmp_path_factory, corpus) -> Path:
    """A finished run and its corpus."""
    folder = tmp_path_factory.mktemp("whole")
    shutil.copytree(corpus, folder / "corpus")
    command = [sys.executable, "-m", "mmpretrain", "run", *arguments(folder / "corpus", folder / "run")]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


@pytest.mark.endurance
@pytest.mark.timeout(20_000)
def test_no_changed_bit_is_believed(whole, tmp_path, capsys):
    draw, copy, outcomes = random.Random(0), Copy(whole, tmp_path / "copy"), Counter()
    copy.renew()
    believed, files = {}, []
    for path in sorted(whole.rglob("*")):
        name = path.relative_to(whole).as_posix()
        if path.is_file() and path.stat().st_size and not NOT_READ.search(name):
            what, read = copy.reader(name)
            files.append(name)
            if what not in believed:
                believed[what] = read()
    for case in trange(FLIPS, disable=None):
        name = draw.choice(files)
        what, read = copy.reader(name)
        content = bytearray((copy.place / name).read_bytes())
        bit = draw.randrange(8 * len(content))
        content[bit // 8] ^= 1 << bit % 8
        (copy.place / name).write_bytes(content)
        capsys.readouterr()
        try:
            same, text = read() == believed[what], ""
        except RedoneError:
            same, text = False, Path(name).name if name.endswith(("health.json", "digests.json")) else ""
        except (ValueError, OSError) as error:
            same, text = False, str(error)
        text += capsys.readouterr().err
        noticed = names(text, name)
        assert same or noticed, f"case {case}, {name}, bit {bit}: {text}"
        kind = re.sub(r"\d+", "N", Path(name).parent.as_posix())
        outcomes[kind, "noticed" if noticed else "harmless"] += 1
        copy.renew(name)
    with capsys.disabled():
        for (kind, outcome), count in sorted(outcomes.items()):
            print(f"{outcome:>10} {count:>5}  {kind}")
        print(
            f"{FLIPS} changed bits in {len(files)} files: {sum(n for (_, o), n in outcomes.items() if o == 'noticed')} "
            f"noticed, the others harmless"
        )
