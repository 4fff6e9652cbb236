"""The model of a step's time, by hand; and what is said of a topology that there is not."""

import dataclasses

import pytest

from mmpretrain.cost.chips import CHIPS, EXAMPLES, parse_topology
from mmpretrain.cost.hlo import Collective
from mmpretrain.cost.step_time import NETWORK_SHARE, Work, latency, scaled, step_time

H100 = CHIPS["h100"]
GRADIENTS = Collective("all-reduce", ("data",), 8, 400e6)
WORK = Work(H100, 8, 4e13, 5e9, 1e9, (GRADIENTS, Collective("all-gather", ("tensor",), 2, 1e6)))


def test_a_step_by_hand():
    time = step_time(WORK, dtype="bfloat16")
    assert time.compute == pytest.approx(4e13 / (H100.shares.compute * 989e12))
    assert time.memory == pytest.approx(5e9 / (H100.shares.memory * 3350e9))
    assert time.exchange == pytest.approx((2 * 7 / 8 * 400e6 + 1e6 / 2) / (NETWORK_SHARE * 450e9))
    assert time.total == pytest.approx(time.compute + time.memory + time.exchange + time.latency)
    on_tpu = step_time(dataclasses.replace(WORK, chip=CHIPS["v5p"]), dtype="bfloat16")
    assert on_tpu.total == pytest.approx(max(on_tpu.compute, on_tpu.memory) + on_tpu.exchange + on_tpu.latency)
    assert step_time(WORK, dtype="float32").compute == pytest.approx(2 * time.compute, rel=0.01)


def test_between_nodes_each_chip_sends_its_part_over_the_network():
    larger = scaled(WORK, 32, keep_global_batch=False)
    assert larger.collectives[0].group_size == 32
    between = 2 * 3 / 4 * 400e6 / 8 / (NETWORK_SHARE * 50e9)
    assert step_time(larger, dtype="bfloat16").exchange == pytest.approx(
        step_time(WORK, dtype="bfloat16").exchange + between
    )
    assert larger.flops == WORK.flops


SUMS = Collective("all-reduce", ("data",), 8, 4e3, count=50, in_series=40)


def test_exchanges_in_series_wait_for_each_other():
    small = dataclasses.replace(WORK, collectives=(SUMS,))
    assert latency(SUMS, small) == pytest.approx(6.8e-6 + 2 * 7 * 0.6e-6)
    time = step_time(small, dtype="bfloat16")
    assert time.latency == pytest.approx(40 * latency(SUMS, small))
    assert time.total == pytest.approx(time.alone + time.exchange + time.latency)
    # 128 nodes are a tree of seven levels, up and down.
    large = scaled(small, 1024, keep_global_batch=False)
    assert latency(large.collectives[0], large) == pytest.approx(6.8e-6 + 2 * (7 * 0.6e-6 + 7 * 5e-6))
    assert step_time(large, dtype="bfloat16").efficiency < time.efficiency - 0.02


def test_a_torus_is_crossed_by_half_its_rings():
    v5e = dataclasses.replace(WORK, chip=CHIPS["v5e"], num_chips=256)
    v5p = dataclasses.replace(WORK, chip=CHIPS["v5p"], num_chips=64)
    assert latency(dataclasses.replace(SUMS, group_size=256), v5e) == pytest.approx(2 * 16e-6)
    assert latency(Collective("all-gather", ("fsdp",), 64, 1.0), v5p) == pytest.approx(6e-6)
    assert latency(Collective("collective-permute", ("data",), 2, 1.0), v5e) == pytest.approx(1e-6)
    two_slices = dataclasses.replace(v5e, num_chips=512)
    assert latency(dataclasses.replace(SUMS, group_size=512), two_slices) == pytest.approx(2 * (16e-6 + 10e-6))


def test_a_global_batch_that_is_kept_leaves_each_chip_less_to_do():
    larger = scaled(WORK, 32, keep_global_batch=True)
    assert larger.flops == WORK.flops / 4
    assert larger.memory_bytes == 2e9 + 3e9 / 4  # the state is read and written whatever the batch
    assert step_time(larger, dtype="bfloat16").efficiency < step_time(WORK, dtype="bfloat16").efficiency
    alone = scaled(WORK, 1, keep_global_batch=True)
    assert [c.axes for c in alone.collectives] == [("tensor",)]


@pytest.mark.parametrize("name", ["v9:2x2", "v5e", "v5e:4", "h100:2x4", "v5p:0x2x2", "v5e:axb"])
def test_an_unknown_topology_is_told_the_known_ones(name):
    with pytest.raises(ValueError, match=f"--topology={name} is not known.*v5e, v5p, v6e, h100, h200.*v5e:16x16"):
        parse_topology(name)


def test_the_examples_are_topologies():
    assert [parse_topology(name).name for name in EXAMPLES] == list(EXAMPLES)
    assert parse_topology("v5e:16x16").num_chips == 256
