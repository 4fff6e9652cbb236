"""The model of a step's time, by hand; and what is said of a topology that there is not."""

import pytest

from mmpretrain.cost.chips import CHIPS, EXAMPLES, parse_topology
from mmpretrain.cost.hlo import Collective
from mmpretrain.cost.step_time import COMPUTE_SHARE, MEMORY_SHARE, NETWORK_SHARE, Work, scaled, step_time

H100 = CHIPS["h100"]
GRADIENTS = Collective("all-reduce", ("data",), 8, 400e6)
WORK = Work(H100, 8, 4e13, 5e9, 1e9, (GRADIENTS, Collective("all-gather", ("tensor",), 2, 1e6)))


def test_a_step_by_hand():
    time = step_time(WORK, dtype="bfloat16")
    assert time.compute == pytest.approx(4e13 / (COMPUTE_SHARE * 989e12))
    assert time.memory == pytest.approx(5e9 / (MEMORY_SHARE * 3350e9))
    assert time.exchange == pytest.approx((2 * 7 / 8 * 400e6 + 1e6 / 2) / (NETWORK_SHARE * 450e9))
    assert time.total == pytest.approx(time.compute + time.exchange)
    assert step_time(WORK, dtype="float32").compute == pytest.approx(2 * time.compute, rel=0.01)


def test_between_nodes_each_chip_sends_its_part_over_the_network():
    larger = scaled(WORK, 32, keep_global_batch=False)
    assert larger.collectives[0].group_size == 32
    between = 2 * 3 / 4 * 400e6 / 8 / (NETWORK_SHARE * 50e9)
    assert step_time(larger, dtype="bfloat16").exchange == pytest.approx(
        step_time(WORK, dtype="bfloat16").exchange + between
    )
    assert larger.flops == WORK.flops


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
