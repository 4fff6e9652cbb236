"""Command `layers`: what each layer of frozen encoders knows of the task, of who speaks and of what is said."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from mmpretrain.data.unreadable import UnreadableClipError
from mmpretrain.downstream.finetuning import Finetuning
from mmpretrain.downstream.layer_probes import LayerProbes
from mmpretrain.downstream.probe_features import all_probed
from mmpretrain.files import write_json
from mmpretrain.observe.progress import log
from mmpretrain.parallel.processes import on_main
from mmpretrain.run.command import ACCEPT_CHANGES, Command, Option
from mmpretrain.run.run import Run

MODELS = ("pretrained", "untrained")
RESULTS_FILE, PAGE_FILE = "layers.json", "layers.html"


def layers(run: Run, models: Sequence[str] = MODELS) -> dict[str, Any]:
    """Probes every layer of these, passing over what is done; returns what is in `layers.json`.

    models: `pretrained`, `untrained`, or folders of models of transformers.
    """
    finetuning = Finetuning(run)
    probes, found = LayerProbes(finetuning), {}
    for probed in all_probed(finetuning, models):
        recipe = probes.recipe | probed.recipe | {"modality": probed.modality}
        name = "layers/" + re.sub(r"[^\w.-]", "_", probed.title)
        run.check_begun(name, recipe)
        found[probed.title] = run.stage(name, recipe, lambda folder, wall, probed=probed: probes.read(probed))
    results = {
        "task": finetuning.main.name, "protocol": finetuning.protocol_title, "fold": probes.number,
        "units_of": probes.units_of, "clip": "" if probes.shown is None else finetuning.table.clip_ids[probes.shown],
        "models": found,
    }  # fmt: skip

    def write() -> str:
        from mmpretrain.report.layers import render_layers, write_layers_page  # brings matplotlib

        write_json(run.workdir / RESULTS_FILE, results)
        try:
            clip = None if probes.shown is None else finetuning.table.load(probes.shown)
        except UnreadableClipError:
            clip = None
        write_layers_page(run.workdir / PAGE_FILE, run.workdir.name, results, clip)
        return render_layers(results)

    log(f"layers: {run.workdir / RESULTS_FILE}, {run.workdir / PAGE_FILE}\n{on_main(write)}")
    return results


COMMAND = Command(
    "layers",
    "what each layer of frozen encoders knows: the task, who speaks, what is said",
    lambda given: layers(given.begin(), given["model"] or MODELS),
    options=(
        Option("model", list, f"{', '.join(MODELS)} (the default), or a folder of transformers", "MODEL"),
        ACCEPT_CHANGES,
    ),
    examples=("mmpretrain layers --config=ravdess --model=pretrained --model=hubert-base-ls960",),
    details=(
        "Linear probes on the training and validation clips of the first fold of the recipe. Units are those of the "
        "corpora, or clusters of cepstra where they have none. Results are in WORKDIR/layers.json, with a plot in "
        "layers.html, where the attention of our encoders over a clip is drawn too.",
    ),
)
