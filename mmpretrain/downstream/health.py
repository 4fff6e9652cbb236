"""The end of a round: its figures beside those of the round before, and a stop if it has collapsed."""

from __future__ import annotations

from mmpretrain.config import fingerprint
from mmpretrain.downstream.finetuning import Finetuning
from mmpretrain.downstream.probing import Probing
from mmpretrain.encoders.figures import add_figures
from mmpretrain.observe.progress import log
from mmpretrain.parallel.processes import on_main
from mmpretrain.report.tables import render_health
from mmpretrain.run.collapse import check_predictions
from mmpretrain.run.figures import figures_of_rounds
from mmpretrain.run.layout import health_file, read_health, round_figures
from mmpretrain.run.round import Round
from mmpretrain.run.sealed import write_sealed


def finish_round(round_: Round, *, show: bool = True) -> None:
    """Measures the encoder of a round, shows its figures and those of the rounds before. Raises Collapsed."""
    run = round_.run
    _measure(round_)
    rounds = on_main(lambda: round_figures(run.workdir, round_.number))
    on_main(lambda: add_figures(round_.encoder.path, figures_of_rounds(rounds, run.config.seed)))
    if show:
        log(render_health(rounds))
    check_predictions(round_.number, rounds[-1].get("codebooks") or [rounds[-1]], run.config.health)


def _measure(round_: Round) -> None:
    """Measures the round's encoder and writes health.json; once for each encoder and set of labelled clips.

    Without labelled clips there is no probe; it is measured once there are.
    """
    probing, workdir = _probing(round_), round_.run.workdir
    of = fingerprint({"encoder": round_.encoder.fingerprint} | ({} if probing is None else probing.recipe))
    file = health_file(workdir, round_.number)
    known = on_main(lambda: read_health(workdir, round_.number))
    if known.get("of") == of:
        return
    if not known and on_main(file.exists):
        log(f"{file} is damaged, or of another version of mmpretrain; it is measured again")
    probe = None if probing is None else probing.of_round(round_)
    result = {"of": of, "chance_accuracy": _chance(round_), "probe": probe}
    on_main(lambda: write_sealed(file, result))


def _chance(round_: Round) -> list[float | None]:
    """The accuracy of always answering the commonest cluster, of each codebook, on its validation clips."""
    shares = []
    for codebook in round_.codebooks:
        _, rows = codebook.rows
        counts = codebook.store.counts(rows[rows >= 0])
        shares.append(float(counts.max() / counts.sum()) if counts.any() else None)
    return shares


def _probing(round_: Round) -> Probing | None:
    """On the labelled clips of the recipe. None where it has no `finetune`.

    None too, with a line in the log, where its clips cannot be opened or split: that ends fine-tuning, but no round.
    """
    if round_.run.config.finetune is None:
        return None
    try:
        return Probing(Finetuning(round_.run))
    except (ValueError, FileNotFoundError) as error:
        log(f"{round_.title}: no linear probe: {error}")
        return None
