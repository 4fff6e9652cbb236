"""Rates and goodput by a clock that a test moves: every figure is worked out by hand."""

import json

import pytest

from mmpretrain.config import encoder_size
from mmpretrain.cost.chips import chip_of
from mmpretrain.cost.flops import step_flops
from mmpretrain.observe import wall_time
from mmpretrain.observe.clock import StepClock
from mmpretrain.observe.wall_time import PARTS, WallTime, read_wall_time, shares


class Time:
    def __init__(self):
        self.now_sec = 100.0

    def __call__(self):
        return self.now_sec

    def passes(self, seconds):
        self.now_sec += seconds


@pytest.fixture
def time():
    return Time()


def walk(clock, time, steps=4, waits=0.5, takes=1.5, shape=(10, 200), real_share=0.5):
    """Steps of a training loop, of which the first of a shape compiles."""
    with clock.wall.during("useful_steps"):
        for _ in range(steps):
            with clock.wall.during("input_wait"):
                time.passes(waits)
            with clock.step(*shape, real_share):
                time.passes(takes)


def test_rates_are_means_since_the_last_log(time):
    model = encoder_size("tiny")
    flops = sum(step_flops(model, num_clips=10, num_frames=200, num_clusters=[50]).values())

    def count(num_clips, num_frames):
        return sum(step_flops(model, num_clips=num_clips, num_frames=num_frames, num_clusters=[50]).values())

    clock = StepClock(WallTime(now=time), count, peak_flops_per_sec=4 * 10e12)
    walk(clock, time, steps=1)  # compiles
    clock.rates()
    with clock.wall.during("evaluation"):
        time.passes(50.0)
    walk(clock, time)
    rates = {name: value for name, value in clock.rates().items() if not name.startswith("goodput/")}
    assert rates == pytest.approx(
        {
            "time/step_sec": 2.0,
            "time/input_wait_sec": 0.5,
            "throughput/frames_per_sec": 500.0,
            "throughput/clips_per_sec": 5.0,
            "throughput/audio_hours_per_hour": 500 / 25,  # a second has 25 frames
            "throughput/mfu": flops / 2.0 / 40e12,
        }
    )
    walk(clock, time, waits=0.0, takes=1.0, shape=(20, 100), real_share=1.0)  # another shape: one of four compiles
    assert clock.rates()["time/step_sec"] == pytest.approx(3 / 4)


def test_without_a_known_peak_there_is_no_mfu_and_without_a_step_no_rate(time):
    clock = StepClock(WallTime(now=time))
    assert all(name.startswith("goodput/") for name in clock.rates())
    walk(clock, time)
    assert "throughput/mfu" not in clock.rates()


def test_goodput_adds_up_over_a_kill_and_what_was_lost_is_not_good(time, tmp_path):
    file = tmp_path / "wall_time.json"
    with WallTime(file, now=time, today=time) as wall:
        time.passes(1.0)  # other
        wall.switch("startup")
        time.passes(2.0)
        clock = StepClock(wall)
        clock.resume(0.0)
        walk(clock, time, steps=5)  # 1.5 s of compilation, 4 x 1.5 s of steps, 5 x 0.5 s of waiting
        at_checkpoint = wall.seconds()["useful_steps"]
        with wall.during("saving"):
            time.passes(3.0)
        walk(clock, time, steps=2, waits=0.0)
        wall.save()
        killed = file.read_text()
        time.passes(7.0)  # until the kill: nobody knows of it
    file.write_text(killed)
    time.passes(20.0)

    with WallTime(file, now=time, today=time) as wall:
        wall.switch("startup")
        time.passes(4.0)
        clock = StepClock(wall)
        clock.resume(at_checkpoint)
        walk(clock, time, steps=2, waits=0.0)  # again; the first of them compiles
        assert clock.rates()["time/step_sec"] == pytest.approx(1.5 / 2)
        wall.switch("other")
        time.passes(1.0)
    seconds = {
        "useful_steps": 6.0 + 1.5, "input_wait": 2.5, "compilation": 1.5 + 1.5, "startup": 2.0 + 4.0, "evaluation": 0.0,
        "saving": 3.0, "redone_steps": 3.0, "down": 7.0 + 20.0, "other": 1.0 + 1.0,
    }  # fmt: skip
    saved = read_wall_time(file)
    assert saved["seconds"] == pytest.approx(seconds)
    assert (saved["attempts"], saved["doing"], saved["updated"]) == (2, "", time())
    assert time() - 100.0 == pytest.approx(sum(seconds.values())), "no second is missing"
    figures = wall.figures()
    assert figures["wall_time_sec"] == pytest.approx(54.0 - 27.0)
    assert sum(figures["goodput"].values()) == pytest.approx(1.0)
    assert figures["goodput"]["useful_steps"] == pytest.approx(7.5 / 54)
    assert list(shares(seconds)) == list(PARTS)


def test_a_stage_that_does_not_train_has_no_goodput(time):
    wall = WallTime(now=time)
    time.passes(4.0)
    assert wall.figures() == {"wall_time_sec": 4.0}


def test_a_living_stage_gives_a_sign_while_it_works(tmp_path, monkeypatch):
    import time as real

    monkeypatch.setattr(wall_time, "SIGN_EVERY_SEC", 0.01)
    file = tmp_path / "wall_time.json"
    with WallTime(file):
        first, deadline = json.loads(file.read_text())["updated"], real.monotonic() + 10
        while json.loads(file.read_text())["updated"] == first:
            assert real.monotonic() < deadline, "no sign in 10 s"
            real.sleep(0.01)
    assert [path.name for path in tmp_path.iterdir()] == ["wall_time.json"]


@pytest.mark.parametrize(
    ("kind", "chip"),
    [
        ("NVIDIA H100 80GB HBM3", "h100"), ("NVIDIA H200", "h200"), ("TPU v5 lite", "v5e"), ("TPU v5", "v5p"),
        ("TPU v5p", "v5p"), ("TPU v6 lite", "v6e"), ("NVIDIA H100 PCIe", None), ("NVIDIA H100 NVL", None),
        ("TPU v4", None), ("cpu", None),
    ],
)  # fmt: skip
def test_devices_are_known_by_the_name_that_jax_gives_them(kind, chip):
    found = chip_of(kind)
    assert (found and found.name) == chip
