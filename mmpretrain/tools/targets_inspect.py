"""`mmpretrain targets inspect STORE`: whether the targets of a store are any good, as a table, numbers and a picture.

Reads the store and the prepared clips it labels; trains and changes nothing.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmpretrain.config import CorpusConfig
from mmpretrain.data.clips import ClipTable, open_clips
from mmpretrain.features.filterbank import log_filterbank
from mmpretrain.files import read_json, write_json
from mmpretrain.observe.progress import log, track
from mmpretrain.randomness import generator, unit_hash
from mmpretrain.records import FRAME_RATE_HZ
from mmpretrain.report.tables import percent, text_table
from mmpretrain.run.command import Argument, Command, Given, Option
from mmpretrain.run.layout import CONFIG_FILE
from mmpretrain.run.paths import make_folder
from mmpretrain.targets.quality import cluster_quality, entropy_bits, joint_counts, run_lengths, shared_information
from mmpretrain.targets.store import TargetStore, open_store

if TYPE_CHECKING:
    from mmpretrain.report.cluster_picture import ClipPicture
from mmpretrain.text.alignments import (
    PRONUNCIATIONS,
    SILENCE,
    Span,
    phones_of,
    unit_names,
    units_of_frames,
    words_of_clips,
)

INSPECTION_FILE, PICTURE_FILE = "inspect.json", "clips.png"
SHOWN_CLUSTERS = 8  # most and least frequent ones each
SHOWN_CLIPS = 3
LONGEST_RUN = 12  # longer ones share the last row of the histogram
SHUFFLES = 5


@dataclasses.dataclass(frozen=True)
class Units:
    """What is known to be said. units_N: int32, the unit of each frame of the store, a position in `names`, or -1."""

    names: list[str]
    units_N: np.ndarray


def inspect_targets(
    path: Path, corpora: Sequence[str] = (), alignments: Path | None = None, output: Path | None = None
) -> dict[str, Any]:
    """Prints the table, writes `inspect.json` and `clips.png` into `output`, and returns what is in the former.

    corpora: the folders of the clips; none: those of the run that the store lies in. alignments: words with times
    (`words_of_clips`). output: a folder; None: `inspection` beside the store. Raises ValueError or FileNotFoundError
    where the store is not whole, or where its clips are not those of the corpora.
    """
    from mmpretrain.report import cluster_picture  # brings matplotlib, for which nothing else waits at its start

    store = open_store(path, expect_targets_per_frame=None)
    table = _clips_of(store, corpora)
    spans = {} if alignments is None else _spans_of(store, alignments)
    output = path.parent / "inspection" if output is None else output
    make_folder(output, "--output")

    clusters_N, num_clusters = np.asarray(store.ids), store.lineage["num_clusters"]
    known = _known_units(store, table, spans)
    counts_K = np.array(store.lineage["counts"])
    quality = cluster_quality(clusters_N, None, num_clusters, store.offsets)
    said_of_clips = {"speaker": table.speakers}
    said_of_clips |= {name: table.label(name) for name, kind in table.label_kinds.items() if kind == "class"}
    run_cluster_R, run_frames_R = run_lengths(clusters_N, store.offsets)
    result = {
        "store": str(path),
        "made_of": {name: store.lineage[name] for name in ("features", "relative_to", "layer", "source")},
        "num_clips": len(store.clip_ids),
        "num_frames": len(clusters_N),
        "targets_per_frame": store.targets_per_frame,
        **quality,
        "run_histogram": np.bincount(np.minimum(run_frames_R, LONGEST_RUN), minlength=LONGEST_RUN + 1)[1:].tolist(),
        "units": {
            name: _agreement(clusters_N, units, num_clusters) for name, units in (known | _spoken(known)).items()
        },
        "labels": {name: leak for name, per_clip in said_of_clips.items() if (leak := _leak(store, per_clip, name))},
        "clusters": _describe(counts_K, run_cluster_R, run_frames_R, clusters_N, known),
    }

    (output / INSPECTION_FILE).unlink(missing_ok=True)  # written last: with it, the folder is whole
    shown = _choose_clips(table, spans)
    cluster_picture.draw_clips(output / PICTURE_FILE, [_picture(store, table, row, spans, known) for row in shown])
    write_json(output / INSPECTION_FILE, result)
    print(render_inspection(result))
    log(f"{output / INSPECTION_FILE} and {PICTURE_FILE} are written")
    return result


def render_inspection(result: dict[str, Any]) -> str:
    """The text printed on the terminal: a few aligned tables, without a trailing line end."""
    made_of = result["made_of"]
    source = made_of["features"] + (f", layer {made_of['layer']}" if made_of["features"] == "hidden" else "")
    source += f" relative to the {made_of['relative_to']}" if made_of["relative_to"] in ("clip", "speaker") else ""
    milliseconds = 1000 / (FRAME_RATE_HZ * result["targets_per_frame"])
    usage = [
        ["clusters used", f"{result['clusters_used']:.0f} / {result['num_clusters']:.0f}"],
        ["entropy", f"{result['entropy_bits']:.2f} bits of {np.log2(result['num_clusters']):.2f}"],
        ["perplexity", f"{result['perplexity']:.1f}"],
        ["mean run", f"{result['mean_run_frames']:.2f} frames ({result['mean_run_frames'] * milliseconds:.0f} ms)"],
    ]
    heading = f"{result['store']}: {source}; {result['num_clips']} clips, {result['num_frames']} frames"
    blocks = [heading, text_table((["clusters", ""], usage))]
    runs = sum(result["run_histogram"])
    lengths = [[_run_name(length), percent(n / runs)] for length, n in enumerate(result["run_histogram"], start=1)]
    blocks.append(text_table((["run of frames", "share"], lengths)))
    if result["units"]:
        columns = ["against", "frames", "kinds", "commonest", "purity", "cluster purity", "PNMI"]
        rows = [
            [name, str(unit["frames"]), str(unit["kinds"]), percent(unit["commonest_share"]), percent(unit["purity"]),
             percent(unit["cluster_purity"]), f"{unit['pnmi']:.3f}"]
            for name, unit in result["units"].items()
        ]  # fmt: skip
        blocks.append(text_table((columns, rows)))
    if result["labels"]:
        columns = ["overlap with", "clips", "kinds", "entropy", "NMI", "NMI, shuffled"]
        rows = [
            [name, str(leak["clips"]), str(leak["kinds"]), f"{leak['entropy_bits']:.2f} bits", f"{leak['nmi']:.3f}",
             f"{leak['nmi_shuffled']:.3f}"]
            for name, leak in result["labels"].items()
        ]  # fmt: skip
        blocks.append(text_table((columns, rows)))
    described = [cluster for cluster in result["clusters"] if cluster["frames"]]
    names = list(result["clusters"][0]["mostly"])
    for title, chosen in (
        ("most frequent", described[:SHOWN_CLUSTERS]),
        ("least frequent", described[max(SHOWN_CLUSTERS, len(described) - SHOWN_CLUSTERS) :]),
    ):
        rows = [
            [str(c["cluster"]), str(c["frames"]), percent(c["frames"] / result["num_frames"]),
             f"{c['mean_run_frames']:.2f}", *(_mostly(c["mostly"].get(name)) for name in names)]
            for c in chosen
        ]  # fmt: skip
        if rows:
            blocks.append(text_table(([title, "frames", "share", "mean run", *names], rows)))
    return "\n\n".join(blocks)


def _run_name(length: int) -> str:
    return f"{length} or more" if length == LONGEST_RUN else str(length)


def _mostly(mostly: list[tuple[str, float]] | None) -> str:
    return "-" if not mostly else " ".join(f"{name} {100 * share:.0f}%" for name, share in mostly)


def _clips_of(store: TargetStore, corpora: Sequence[str]) -> ClipTable:
    """The clips of the store, in its order."""
    corpora = corpora or _corpora_of_run(store.path)
    table = open_clips([CorpusConfig(path) for path in corpora])
    rows = {clip_id: row for row, clip_id in enumerate(table.clip_ids)}
    if missing := [clip_id for clip_id in store.clip_ids if clip_id not in rows]:
        raise ValueError(
            f"{store.path}: {len(missing)} of its {len(store.clip_ids)} clips are not in {', '.join(corpora)}, e.g. "
            f"{missing[0]!r}; give the corpora it was made of with --corpus=DIR, one for each"
        )
    table = table.select(np.array([rows[clip_id] for clip_id in store.clip_ids]))
    store.check_lengths(table.lengths)
    return table


def _corpora_of_run(path: Path) -> list[str]:
    """Those named by the nearest `config.json` above the store, which a run writes into its folder."""
    for folder in path.resolve().parents:
        if (folder / CONFIG_FILE).is_file():
            data = read_json(folder / CONFIG_FILE, remedy="name the corpora with --corpus=DIR, one for each").get(
                "data"
            )
            named = data.get("corpora") if isinstance(data, dict) else None
            corpora = [each["path"] for each in named or [] if isinstance(each, dict) and "path" in each]
            if corpora and all(Path(corpus).is_dir() for corpus in corpora):
                return corpora
            names = ", ".join(corpora) or "none"
            raise FileNotFoundError(
                f"the corpora that {folder / 'config.json'} names ({names}) are not there, seen from this folder; say "
                f"where with --corpus=DIR, one for each"
            )
    raise FileNotFoundError(f"{path} lies in no run that would name its corpora; give them with --corpus=DIR")


def _spans_of(store: TargetStore, alignments: Path) -> dict[str, list[Span]]:
    """The words of the clips of the store that have some."""
    clip_secs = np.diff(store.offsets) / (FRAME_RATE_HZ * store.targets_per_frame)
    spans = words_of_clips(alignments, store.clip_ids, clip_secs.tolist())
    unknown = [name for name in unit_names(spans) if name not in PRONUNCIATIONS]
    if unknown:
        log(f"{len(unknown)} words have no phones ({', '.join(unknown[:5])}, ...): only GRID's 51 have")
    log(f"{len(spans)} of the {len(store.clip_ids)} clips have words in {alignments}")
    return spans


def _known_units(store: TargetStore, table: ClipTable, spans: dict[str, list[Span]]) -> dict[str, Units]:
    """By kind ("units" of the corpus, "phones", "words"); a kind of which no frame is known is left out."""
    known = {}
    has_units = table.has("units")
    if has_units.any():
        units_N = np.full(len(store.ids), -1, np.int32)
        for row in track(np.flatnonzero(has_units), "reading the units of the clips", unit="clip"):
            clip_N = units_N[store.offsets[row] : store.offsets[row + 1]]
            units = np.repeat(table.load(row).tracks["units"], store.targets_per_frame)[: len(clip_N)]
            clip_N[: len(units)] = units
        names = [str(unit) for unit in range(units_N.max(initial=-1) + 1)]
        known["units"] = Units(names, units_N)
    said = {"phones": {clip_id: phones_of(words) for clip_id, words in spans.items()}, "words": spans}
    for kind, spans_of in said.items():
        names = unit_names(spans_of)
        frames = [
            units_of_frames(spans_of.get(clip_id, ()), names, int(length), FRAME_RATE_HZ * store.targets_per_frame)
            for clip_id, length in zip(store.clip_ids, np.diff(store.offsets), strict=True)
        ]
        known[kind] = Units(names, np.concatenate(frames))
    return {kind: units for kind, units in known.items() if (units.units_N >= 0).any()}


def _spoken(known: dict[str, Units]) -> dict[str, Units]:
    """The phones, with silent frames counted as unknown.

    Clusters of any feature that follows loudness tell silence from speech, which makes agreement with all phones look
    good; this shows how well they tell phone from phone.
    """
    if "phones" not in known or SILENCE not in known["phones"].names:
        return {}
    names, units_N = known["phones"].names, known["phones"].units_N
    return {"spoken phones": Units(names, np.where(units_N == names.index(SILENCE), -1, units_N))}


def _agreement(clusters_N: np.ndarray, known: Units, num_clusters: int) -> dict[str, Any]:
    quality = cluster_quality(clusters_N, known.units_N, num_clusters)
    counts_U = np.bincount(known.units_N[known.units_N >= 0])
    return {
        "frames": int(counts_U.sum()),
        "kinds": int((counts_U > 0).sum()),
        "commonest_share": float(counts_U.max() / counts_U.sum()),
        **{name: quality[name] for name in ("purity", "cluster_purity", "pnmi")},
    }


def _leak(store: TargetStore, label_per_clip: Sequence[str], name: str) -> dict[str, Any] | None:
    """How much the cluster of one frame tells of a label of its clip. None if the clips have fewer than two labels.

    nmi: mutual information of cluster and label as a share of the label's entropy, over the frames of labelled clips.
    nmi_shuffled: the same with labels dealt out among these clips at random, mean of `SHUFFLES`: what chance gives.
    """
    kinds = sorted(set(label_per_clip) - {""})
    if len(kinds) < 2:
        return None
    label_C = np.array([kinds.index(label) if label else -1 for label in label_per_clip])
    has_C, lengths_C = label_C >= 0, np.diff(store.offsets)

    def joint(label_C: np.ndarray) -> np.ndarray:
        return joint_counts(store.ids, np.repeat(label_C, lengths_C), store.lineage["num_clusters"])

    shuffled = []
    for number in range(SHUFFLES):
        dealt_C = label_C.copy()
        dealt_C[has_C] = generator(0, "inspect", name, number).permutation(label_C[has_C])
        shuffled.append(shared_information(joint(dealt_C)))
    joint_LK = joint(label_C)
    return {
        "clips": int(has_C.sum()),
        "kinds": len(kinds),
        "entropy_bits": entropy_bits(joint_LK.sum(1)),
        "nmi": shared_information(joint_LK),
        "nmi_shuffled": float(np.mean(shuffled)),
    }


def _describe(
    counts_K: np.ndarray, run_cluster_R: np.ndarray, run_frames_R: np.ndarray, clusters_N: np.ndarray,
    known: dict[str, Units],
) -> list[dict[str, Any]]:  # fmt: skip
    """Of each cluster, most frequent first: its frames, its mean run and its three commonest units of each kind.

    A unit's share is of all frames of the cluster, including those whose unit is not known.
    """
    runs_K = np.bincount(run_cluster_R, minlength=len(counts_K))
    joint = {kind: joint_counts(clusters_N, units.units_N, len(counts_K)) for kind, units in known.items()}

    def mostly(kind: str, cluster: int) -> list[tuple[str, float]]:
        counts_U = joint[kind][:, cluster]
        order = np.argsort(-counts_U, kind="stable")[:3]
        return [(known[kind].names[u], float(counts_U[u] / counts_K[cluster])) for u in order if counts_U[u]]

    return [
        {
            "cluster": cluster,
            "frames": int(counts_K[cluster]),
            "mean_run_frames": float(counts_K[cluster] / max(runs_K[cluster], 1)),
            "mostly": {kind: mostly(kind, cluster) for kind in known},
        }
        for cluster in np.argsort(-counts_K, kind="stable").tolist()
    ]


def _choose_clips(table: ClipTable, spans: dict[str, list[Span]]) -> list[int]:
    """The rows of a few clips, of different speakers if possible; those with words and both modalities first."""
    has_sound, has_picture = table.has("audio"), table.has("video")
    order = sorted(
        range(len(table)),
        key=lambda row: (
            table.clip_ids[row] not in spans, not (has_sound[row] and has_picture[row]),
            unit_hash("inspect", table.clip_ids[row]),
        ),
    )  # fmt: skip
    speakers = set()
    first = [row for row in order if not (table.speakers[row] in speakers or speakers.add(table.speakers[row]))]
    return [*first, *(row for row in order if row not in first)][:SHOWN_CLIPS]


def _picture(
    store: TargetStore, table: ClipTable, row: int, spans: dict[str, list[Span]], known: dict[str, Units]
) -> ClipPicture:
    from mmpretrain.report.cluster_picture import ClipPicture

    clip = table.load(row)
    words = spans.get(clip.clip_id, [])
    said = [("phones", phones_of(words)), ("words", words)] if words else []
    if "units" in known:
        units = clip.tracks.get("units", np.zeros(0, np.int32))
        changes = np.flatnonzero(np.diff(units, prepend=-1, append=-1))
        runs = [
            Span(first / FRAME_RATE_HZ, end / FRAME_RATE_HZ, str(units[first]))
            for first, end in itertools.pairwise(changes)
        ]
        said.insert(0, ("units", runs))
    title = ", ".join(filter(None, (table.clip_ids[row], table.speakers[row], *table.words(row))))
    return ClipPicture(title, clip.mouth, log_filterbank(clip.audio), store.row(row), store.targets_per_frame, said)


def _command(given: Given) -> None:
    alignments, output = (given[name] and Path(given[name]) for name in ("alignments", "output"))
    inspect_targets(given.path, given["corpus"] or (), alignments, output)


COMMAND = Command(
    "targets inspect",
    "whether a store of targets is any good",
    _command,
    takes=Argument("STORE", "a store of targets, e.g. RUN/round2/targets/codebook1/store"),
    options=(
        Option("output", str, "the folder to write, by default `inspection` beside the store", "DIR"),
        Option("corpus", list, "a prepared corpus, by default those of the store's run; may be given again", "DIR"),
        Option("alignments", str, "words with their times, as a table", "FILE.csv"),
    ),
    examples=(
        "mmpretrain targets inspect runs/mine/round2/targets/codebook1/store --output=quality --alignments=words.csv",
    ),
)
