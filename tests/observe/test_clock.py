import pytest

from mmpretrain.observe.clock import StepClock


class Time:
    def __init__(self):
        self.now_sec = 100.0

    def __call__(self):
        return self.now_sec

    def passes(self, seconds):
        self.now_sec += seconds


def test_rates_are_means_since_the_last_log():
    time = Time()
    clock = StepClock(now=time)
    for _ in range(4):
        with clock.waiting():
            time.passes(0.5)
        time.passes(1.5)
        clock.tick(num_frames=1000, num_clips=10)
    assert clock.rates() == pytest.approx(
        {
            "time/step_sec": 2.0,
            "time/input_wait_sec": 0.5,
            "throughput/frames_per_sec": 500.0,
            "throughput/clips_per_sec": 5.0,
        }
    )
    time.passes(1.0)
    clock.tick(100, 1)
    assert clock.rates()["throughput/frames_per_sec"] == pytest.approx(100)


def test_evaluation_counts_nowhere():
    time = Time()
    clock = StepClock(now=time)
    time.passes(1.0)
    with clock.paused():
        time.passes(50.0)
    clock.tick(100, 1)
    assert clock.rates()["time/step_sec"] == pytest.approx(1.0)


def test_no_step_no_rates():
    assert StepClock().rates() == {}
