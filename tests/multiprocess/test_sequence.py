"""The clips of every step, and what of them, are the same for one, two and four real processes."""

import json

import pytest

from tests.multiprocess.running import Processes

pytestmark = [pytest.mark.multiprocess, pytest.mark.slow]

NUM_STEPS, MIDDLE = 24, 9


def sequence(count: int, first_step: int, corpus, folder) -> dict[int, list]:
    """For each step, (clip id, hash of its arrays) of all rows in order, put together from the shares."""
    output = folder / f"{count}-from-{first_step}"
    arguments = dict(corpus=corpus, output=output, first_step=first_step, num_steps=NUM_STEPS)
    command = ["tests.multiprocess.sequence", *(f"--{name}={value}" for name, value in arguments.items())]
    with Processes(count, 1, output, *command) as processes:
        assert processes.wait() == [0] * count, processes.output(0)
    steps: dict[int, dict[int, list]] = {}
    for index in range(count):
        shares = json.loads(output.with_name(f"{output.name}.{index}.json").read_text())
        sizes = {len(share) for share in shares.values()}
        assert sizes == {len(next(iter(shares.values())))}, "every step has as many clips, and each process its part"
        for step, share in shares.items():
            ours = steps.setdefault(int(step), {})
            assert not set(ours) & set(share), "no clip has two processes"
            ours |= share
    return {step: [ours[row] for row in sorted(ours, key=int)] for step, ours in steps.items()}


def test_the_sequence_of_clips_does_not_depend_on_the_processes_or_on_where_they_begin(corpus, tmp_path):
    one = sequence(1, 0, corpus, tmp_path)
    assert list(one) == list(range(1, NUM_STEPS + 1))
    ids = [[clip_id for clip_id, _ in rows] for rows in one.values()]
    assert len({tuple(clips) for clips in ids}) == NUM_STEPS, "no step repeats another"
    shown = {}
    for clip_id, digest in (pair for rows in one.values() for pair in rows):
        shown.setdefault(clip_id, set()).add(digest)
    assert max(map(len, shown.values())) > 1, "a clip is cropped anew in every epoch"
    for count, first_step in ((2, 0), (4, 0), (4, MIDDLE), (2, MIDDLE)):
        assert sequence(count, first_step, corpus, tmp_path) == {s: rows for s, rows in one.items() if s > first_step}
