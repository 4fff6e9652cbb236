"""What each layer of a frozen encoder knows of three things: the recipe's task, who speaks, and what is said."""

from __future__ import annotations

from typing import Any

import numpy as np

from mmpretrain.data.windows import WINDOW_FRAMES
from mmpretrain.downstream.exposure import VALIDATION_SEEN
from mmpretrain.downstream.finetuning import Finetuning
from mmpretrain.downstream.probe_features import Probed
from mmpretrain.downstream.probing import Probing
from mmpretrain.encoders.finite import finite
from mmpretrain.evaluation.frame_probe import discriminants
from mmpretrain.evaluation.probe import probe_layers
from mmpretrain.features.mfcc import cepstra_of_frames
from mmpretrain.observe.progress import log
from mmpretrain.parallel.processes import on_main

UNIT_CLIPS = (120, 60)  # at most, to learn units from and to ask about: frames are many
NUM_UNITS = 50  # clusters of cepstra that stand for phones where the corpora name none
SHRINKAGE = 0.1
HELD_OUT = 5  # of this many clips of a speaker one is asked about
SEEN = {"untrained": "no", "pretrained": ""}  # by name of the model; of others it is not known


class LayerProbes:
    """Of the first fold that the recipe runs; no test clip is read.

    The task is learned from training clips and asked of validation clips. Speakers are those of the training clips, of
    whose clips a fifth is asked about. Units are learned from frames of training clips and asked of validation clips:
    the units of the corpora, or, where a clip has none, clusters of cepstra (`units_of`).
    """

    def __init__(self, finetuning: Finetuning):
        self.finetuning, self._probing = finetuning, Probing(finetuning)
        train, validation = self._probing.train, self._probing.validation
        self.number, self._rows = self._probing.number, np.concatenate([train, validation])
        self._train = np.arange(len(train))
        self._validation = np.arange(len(train), len(self._rows))
        table = finetuning.table.select(self._rows)
        self._table, drawn = table, table.draws("units of layers")
        of_units = [
            part[np.argsort(drawn[part], kind="stable")[:count]]
            for part, count in zip((self._train, self._validation), UNIT_CLIPS, strict=True)
        ]
        chosen = np.concatenate(of_units)
        self.units_of = "units" if table.has("units")[chosen].all() else f"{NUM_UNITS} clusters of cepstra"
        needed = table.has("units" if self.units_of == "units" else "audio")
        short = self._rows[self._validation[table.lengths[self._validation] <= WINDOW_FRAMES]]
        self.shown = int(short[0]) if len(short) else None  # the row of the clip whose attention is drawn
        self._unit_places = set(chosen[needed[chosen]].tolist())

    @property
    def recipe(self) -> dict[str, Any]:
        return self._probing.recipe | {"units": self.units_of, "unit clips": len(self._unit_places)}

    def read(self, probed: Probed) -> dict[str, Any]:
        """By layer, from 0, what the first one takes: UA of the task and of speakers, the share of frames whose unit
        is known; None for what cannot be asked. `attention`: of each frame of the clip `shown`, the mean over frames of
        how much of it goes into them; [] of models of other projects. All processes take part."""
        said, frames = {}, {}
        for place, layers_LTD in probed.every_layer(self._rows):
            said[place] = np.concatenate([layers_LTD.mean(1), layers_LTD.std(1)], -1)
            if place in self._unit_places:
                named = range(len(layers_LTD)), self._table.clip_ids[place]
                frames[place] = finite(layers_LTD.swapaxes(0, 1), *named, np.float16).swapaxes(0, 1)
        rolled_TS = probed.attention(self.shown) if self.shown is not None else None
        attention = [] if rolled_TS is None else rolled_TS.mean(0).tolist()
        return on_main(lambda: self._figures(probed, said, frames)) | {"attention": attention}

    def _figures(self, probed: Probed, said: dict[int, np.ndarray], frames: dict[int, np.ndarray]) -> dict[str, Any]:
        train, validation = (np.array([p for p in part if p in said], np.int64)
                             for part in (self._train, self._validation))  # fmt: skip
        some = next(iter(said.values()))
        features_NLF = np.zeros((len(self._rows), *some.shape), np.float32)
        features_NLF[list(said)] = np.stack(list(said.values()))
        main = self.finetuning.main
        of_task = probe_layers(features_NLF, self.finetuning.classes_N[self._rows], train, validation, main.classes)
        speakers, speaker_chance = self._speakers(features_NLF, train)
        units, unit_chance = self._units(frames)
        return {
            "layers": list(range(len(some))), "task": [result.ua for result in of_task], "speaker": speakers,
            "units": units,
            "chance": {"task": of_task[0].chance_ua, "speaker": speaker_chance, "units": unit_chance},
            "clips": {"train": len(train), "validation": len(validation)}, VALIDATION_SEEN: self._seen(probed),
        }  # fmt: skip

    def _seen(self, probed: Probed) -> str:
        known = SEEN.get(probed.name, "unknown (an encoder of another project)")
        if known:
            return known
        finetuning = self.finetuning
        return str(finetuning.encoder_data.exposure(self._table, self._validation, finetuning.main_column))

    def _speakers(self, features_NLF: np.ndarray, train: np.ndarray) -> tuple[list[float] | None, float | None]:
        names = np.array(list(self._table.speakers.take(train)))
        drawn = self._table.draws("speakers of layers")[train]
        learned, asked = [], []
        for name in sorted(set(names.tolist()) - {""}):
            of_one = np.flatnonzero(names == name)
            if len(of_one) > 1:
                of_one = of_one[np.argsort(drawn[of_one], kind="stable")]
                held = max(1, len(of_one) // HELD_OUT)
                asked.append(of_one[:held])
                learned.append(of_one[held:])
        if len(learned) < 2:
            log("layers: fewer than two speakers have two training clips, so that of speakers nothing is asked")
            return None, None
        known = sorted({names[of_one[0]] for of_one in asked})
        ids = {name: i for i, name in enumerate(known)}
        labels_N = np.full(len(self._rows), -1)
        labels_N[train] = [ids.get(name, -1) for name in names]
        fit, ask = (train[np.concatenate(part)] for part in (learned, asked))
        results = probe_layers(features_NLF, labels_N, fit, ask, known)
        return [result.ua for result in results], results[0].chance_ua

    def _units(self, frames: dict[int, np.ndarray]) -> tuple[list[float] | None, float | None]:
        learned, asked = ([p for p in frames if p in part] for part in map(set, (self._train, self._validation)))
        if not learned or not asked:
            log("layers: no clip has units or sound, so that of what is said nothing is asked")
            return None, None
        of_clips = self._unit_ids(learned, asked)
        labels = [np.concatenate([of_clips[place] for place in part]) for part in (learned, asked)]
        known = [of_part >= 0 for of_part in labels]
        num_units = int(max(of_part.max() for of_part in labels)) + 1
        shares = []
        for layer in range(len(next(iter(frames.values())))):
            fit_KF, ask_KF = (
                np.concatenate([frames[place][layer] for place in part])[there].astype(np.float32)
                for part, there in zip((learned, asked), known, strict=True)
            )
            ((_, found),) = discriminants(fit_KF, labels[0][known[0]], num_units, (SHRINKAGE,))
            shares.append(float((found.answers(ask_KF) == labels[1][known[1]]).mean()))
        commonest = np.bincount(labels[0][known[0]]).argmax()
        return shares, float((labels[1][known[1]] == commonest).mean())

    def _unit_ids(self, learned: list[int], asked: list[int]) -> dict[int, np.ndarray]:
        """int [T] of each of these clips; -1: not known."""
        if self.units_of == "units":
            return {place: self._table.open(place).tracks["units"] for place in (*learned, *asked)}
        from sklearn.cluster import KMeans
        from threadpoolctl import threadpool_limits

        lengths = self._table.lengths
        made = {p: cepstra_of_frames(self._table.open(p).audio, int(lengths[p])) for p in (*learned, *asked)}
        sample = np.concatenate([made[place] for place in learned])
        with threadpool_limits(limits=1):
            clusters = KMeans(min(NUM_UNITS, len(sample)), n_init=1, random_state=0).fit(sample)
            return {place: clusters.predict(of_clip) for place, of_clip in made.items()}
