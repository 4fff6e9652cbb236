"""The walk over the rounds: make targets, pretrain, make better targets from the encoder, pretrain again."""

from __future__ import annotations

from mmpretrain.downstream.health import finish_round
from mmpretrain.observe.progress import log
from mmpretrain.parallel.processes import on_main
from mmpretrain.run.collapse import check_targets
from mmpretrain.run.command import ACCEPT_CHANGES, PROFILE, ROUNDS, Command
from mmpretrain.run.layout import pretrain_name, round_names, state_of, targets_name, walk_table
from mmpretrain.run.run import Run
from mmpretrain.run.stage import known_result
from mmpretrain.stages.pretrain import pretrain
from mmpretrain.stages.targets import make_targets


def refine(run: Run, rounds: range | None = None) -> None:
    """Walks `rounds` (from 1; default all), taking up what an earlier run left, with a table after every stage.

    Raises ValueError if the first of them needs an encoder that is not there, and Collapsed rather than train on.
    """
    rounds = rounds or range(1, len(run.config.rounds) + 1)
    if rounds.start > 1 and run.round(rounds.start).needs_previous:
        _check_previous(run, rounds)
    if not all(_is_done(run, pretrain_name(number)) for number in rounds):
        # Before the first targets are made, not hours later.
        run.check_noise()
        for number in rounds:
            run.round(number).check_named()
    _show(run)
    for number in rounds:
        round_ = run.round(number)
        begun = not _is_done(run, targets_name(number))
        result = make_targets(round_)
        check_targets(number, result["codebooks"], run.config.health)
        if begun:
            _show(run, running=pretrain_name(number))
        begun = not _is_done(run, pretrain_name(number))
        pretrain(round_)
        finish_round(round_, show=begun or number == rounds[-1])
        if begun:
            _show(run, running=targets_name(number + 1) if number + 1 in rounds else "")


def _check_previous(run: Run, rounds: range) -> None:
    """Raises ValueError if the round before is not whole or was made with another recipe."""
    number = rounds.start - 1
    warm = run.config.rounds[number].init == "previous_round"
    other = "" if warm else f", or name an encoder: --config.rounds[{number}].encoder=PATH"
    for name in (targets_name(number), pretrain_name(number)):
        if not _is_done(run, name):
            raise ValueError(
                f"--rounds={rounds[0]}-{rounds[-1]}: round {rounds[0]} is made from round {number}, but "
                f"{run.workdir / name} is {on_main(lambda name=name: state_of(run.workdir, name))}; walk that round "
                f"first (--rounds={number}-{rounds[-1]}){other}"
            )
    make_targets(run.round(number))
    pretrain(run.round(number))


def _is_done(run: Run, name: str) -> bool:
    return on_main(lambda: known_result(run.workdir, name) is not None)


def _show(run: Run, running: str = "") -> None:
    log("rounds\n" + on_main(lambda: walk_table(run.workdir, round_names(len(run.config.rounds)), running)))


COMMAND = Command(
    "refine",
    "all rounds, or --rounds=2-3: targets, pretrain, targets, pretrain, ...",
    lambda given: refine(given.begin(), given["rounds"]),
    options=(ROUNDS, PROFILE, ACCEPT_CHANGES),
    examples=(
        "mmpretrain refine --config=small_real --config.workdir=runs/mine --config.seed=7",
        "mmpretrain refine --rounds=2 --config=demo '--config.rounds[1].encoder=encoders/base_vox'",
        "mmpretrain refine --config=demo --profile=100-105  # traces them in each round",
    ),
    details=(
        "It shows a table of its stages, and after each round how healthy that round is. Each round of --rounds must "
        "find the encoder that it starts from or makes its targets of: usually that of the round before, which must be "
        "finished. A round does without the round before if it makes its targets from the clips or, as in the second "
        "example, from a named encoder: any exported one.",
    ),
)
