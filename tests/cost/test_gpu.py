"""GPUs as their compiler wants them described."""

import pytest

from mmpretrain.cost.chips import CHIPS
from mmpretrain.cost.gpu import grid, target_config


@pytest.mark.parametrize(("num_chips", "nodes"), [(4, "1x1x4"), (8, "1x1x8"), (16, "2x1x8"), (12, "3x1x4")])
def test_gpus_are_shared_out_over_whole_nodes(num_chips, nodes):
    assert grid(CHIPS["h100"], num_chips) == nodes


def test_two_of_a_kind_differ_by_their_memory_and_name_alone():
    h100, h200 = (set(target_config(CHIPS[name]).splitlines()) for name in ("h100", "h200"))
    assert h200 - h100 == {
        "  memory_bandwidth: 4800000000000",
        "  device_memory_size: 141000000000",
        'device_description_str: "NVIDIA H200"',
    }
