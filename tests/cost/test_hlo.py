"""Reading a program's text: what is exchanged along which axis, how often, and what goes through memory."""

import pytest

from mmpretrain.cost.hlo import Collective, Program
from mmpretrain.cost.step_time import sent_bytes

MESH = {"data": 2, "fsdp": 2, "tensor": 2}

PROGRAM = """\
HloModule jit_step, is_scheduled=true

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %sum = f32[] add(%x, %y)
}

%start (p: bf16[4,8]) -> (bf16[4,8], bf16[8,8], u32[]) {
  %p = bf16[4,8]{1,0} parameter(0)
  %all-gather.1 = bf16[8,8]{1,0:T(8,128)(2,1)} all-gather(%p), channel_id=3, replica_groups=[2,4]<=[4,2]T(1,0)
  ROOT %go = (bf16[4,8], bf16[8,8], u32[]{:S(2)}) custom-call(%all-gather.1), custom_call_target="AsyncCollectiveStart"
}

%beside (p: bf16[4,8], w: bf16[8,8]) -> bf16[8,8] {
  %p.1 = bf16[4,8]{1,0} parameter(0)
  %all-gather.2 = bf16[8,8]{1,0} all-gather(%p.1), channel_id=3, replica_groups=[2,4]<=[4,2]T(1,0), dimensions={0}
  ROOT %both = bf16[8,8]{1,0} add(%all-gather.2, %all-gather.2)
}

%all-reduce-scatter.5 (g: f32[8,8]) -> f32[4,8] {
  %g = f32[8,8]{1,0} parameter(0)
  %zero = s32[] constant(0)
  %all-reduce.3 = f32[8,8]{1,0} all-reduce(%g), channel_id=4, replica_groups={{0,2},{1,3},{4,6},{5,7}}, to_apply=%add
  ROOT %part = f32[4,8]{1,0} dynamic-slice(%all-reduce.3, %zero, %zero), dynamic_slice_sizes={4,8}
}

%stacked (s: f32[12,8,8], row: f32[1,8,8], i: s32[]) -> f32[12,8,8] {
  %s = f32[12,8,8]{2,1,0} parameter(0)
  %row = f32[1,8,8]{2,1,0} parameter(1)
  %i.1 = s32[] parameter(2)
  %zero.1 = s32[] constant(0)
  ROOT %update = f32[12,8,8]{2,1,0} dynamic-update-slice(%s, %row, %i.1, %zero.1, %zero.1)
}

%body (state: (s32[], f32[12,8,8])) -> (s32[], f32[12,8,8]) {
  %state = (s32[], f32[12,8,8]{2,1,0}) parameter(0)
  %i.2 = s32[] get-tuple-element(%state), index=0
  %s.1 = f32[12,8,8]{2,1,0} get-tuple-element(%state), index=1
  %shard = bf16[4,8]{1,0:T(8,128)(2,1)S(1)} copy(%i.2)
  %all-reduce.4 = f32[1,8,8]{2,1,0:S(1)} all-reduce(%s.1), channel_id=5, replica_groups=GROUPS, to_apply=%add
  %begun = (bf16[4,8]{1,0:S(1)}, bf16[8,8]{1,0:S(1)}, u32[]{:S(2)}) fusion(%shard), kind=kCustom, calls=%start
  %beside.1 = bf16[8,8]{1,0:S(1)} fusion(%shard, %begun), kind=kOutput, calls=%beside
  %stacked.1 = f32[12,8,8]{2,1,0} fusion(%s.1, %all-reduce.4, %i.2), kind=kLoop, calls=%stacked
  ROOT %next = (s32[], f32[12,8,8]{2,1,0}) tuple(%i.2, %stacked.1)
}

%until (state: (s32[], f32[12,8,8])) -> pred[] {
  %state.1 = (s32[], f32[12,8,8]{2,1,0}) parameter(0)
  %i.3 = s32[] get-tuple-element(%state.1), index=0
  %bound = s32[] constant(12)
  ROOT %less = pred[] compare(%i.3, %bound), direction=LT
}

ENTRY %main (a: f32[12,8,8], g: f32[8,8]) -> f32[4,8] {
  %a = f32[12,8,8]{2,1,0} parameter(0)
  %g.1 = f32[8,8]{1,0} parameter(1)
  %start.1 = s32[] constant(0)
  %init = (s32[], f32[12,8,8]{2,1,0}) tuple(%start.1, %a)
  %loop = (s32[], f32[12,8,8]{2,1,0}) while(%init), condition=%until, body=%bodyKNOWN
  %shifted = f32[8,8]{1,0} collective-permute(%g.1), channel_id=6, source_target_pairs={{0,4},{4,0},{1,5},{5,1}}
  ROOT %scattered = f32[4,8]{1,0} fusion(%shifted), kind=kCustom, calls=%all-reduce-scatter.5
}
"""


def program(known: str = "", groups: str = "[4,2]<=[8]") -> str:
    return PROGRAM.replace("KNOWN", known).replace("GROUPS", groups)


@pytest.mark.parametrize(("known", "turns"), [("", 12), (', backend_config={"known_trip_count":{"n":"5"}}', 5)])
def test_collectives_have_their_axes_and_count_as_often_as_their_loop_turns(known, turns):
    found = Program(program(known)).collectives(MESH)
    assert found == [
        # In the fusion where it starts, not in the one that it goes on beside.
        Collective("all-gather", ("data", "fsdp"), 4, turns * 128),
        Collective("all-reduce", ("tensor",), 2, turns * 256),
        Collective("collective-permute", ("data",), 2, 256),
        Collective("reduce-scatter", ("fsdp",), 2, 256),
    ]


def test_exchanges_in_series_are_those_of_the_longest_chain():
    # In each turn the sum waits for no gather, and what follows the loop does not need it.
    found = {c.kind: (c.count, c.in_series) for c in Program(program()).collectives(MESH)}
    assert found == {
        "all-gather": (12, 0), "all-reduce": (12, 12), "collective-permute": (1, 0), "reduce-scatter": (1, 0)
    }  # fmt: skip
    # If it did, it would wait too.
    after = program().replace("collective-permute(%g.1)", "collective-permute(%loop)")
    found = {c.kind: c.in_series for c in Program(after).collectives(MESH)}
    assert found == {"all-gather": 0, "all-reduce": 12, "collective-permute": 1, "reduce-scatter": 1}


@pytest.mark.parametrize(
    ("groups", "axes", "size"),
    [
        ("{{0,1},{2,3},{4,5},{6,7}}", ("tensor",), 2),
        ("[4,2]<=[2,4]T(1,0)", ("data",), 2),
        ("[1,8]<=[8]", ("data", "fsdp", "tensor"), 8),
        ("mesh['axis_0'=2,'axis_1'=2,'axis_2'=2] {'axis_1'}", ("fsdp",), 2),
        ("mesh['axis_0'=2,'axis_1'=4] {'axis_1'}", ("fsdp", "tensor"), 4),
        ("mesh['axis_0'=2,'axis_1'=4], device_ids=([2,2,2]T(1,0,2)) {'axis_0'}", ("fsdp",), 2),
        (
            "mesh['axis_0'=2,'axis_1'=2,'axis_2'=2], device_ids=([2,2,2]T(2,1,0)) {'axis_0','axis_2'}",
            ("data", "tensor"),
            4,
        ),
    ],
)
def test_every_way_to_write_groups(groups, axes, size):
    found = Program(program(groups=groups)).collectives(MESH)
    assert Collective("all-reduce", axes, size, 12 * 256) in found


def test_traffic_counts_what_is_new_and_not_what_stays_on_the_chip():
    parameters = (12 * 64 + 64) * 4  # read once
    stacked = 12 * 64 * 4  # each of 12 turns writes one of 12 rows
    shifted, scattered = 64 * 4, 32 * 4
    assert Program(program()).traffic_bytes() == parameters + 2 * (stacked + shifted + scattered)


def test_groups_that_are_not_understood_are_no_silent_zero():
    unreadable = Program(program("", "@mesh"))
    with pytest.raises(ValueError, match=r"plan with JAX 0\.10"):
        unreadable.collectives(MESH)


def test_what_a_ring_sends():
    assert sent_bytes(Collective("all-reduce", ("data",), 4, 100.0)) == 150
    assert sent_bytes(Collective("reduce-scatter", ("data",), 4, 100.0)) == 75
    assert sent_bytes(Collective("all-to-all", ("data",), 4, 100.0)) == 75
    assert sent_bytes(Collective("collective-permute", ("data",), 4, 100.0)) == 100


def test_of_two_branches_the_one_that_does_most_counts():
    text = """\
HloModule jit_step, is_scheduled=true

%dropped (x: f32[8,8]) -> f32[8,8] {
  %x = f32[8,8]{1,0} parameter(0)
  ROOT %same = f32[8,8]{1,0} copy(%x)
}

%kept (x: f32[8,8]) -> f32[8,8] {
  %x.1 = f32[8,8]{1,0} parameter(0)
  %once = f32[8,8]{1,0} negate(%x.1)
  ROOT %twice = f32[8,8]{1,0} exponential(%once)
}

ENTRY %main (i: s32[], x: f32[8,8]) -> f32[8,8] {
  %i = s32[] parameter(0)
  %x.2 = f32[8,8]{1,0} parameter(1)
  ROOT %y = f32[8,8]{1,0} conditional(%i, %x.2, %x.2), branch_computations={%dropped, %kept}
}
"""
    assert Program(text).traffic_bytes() == 4 + 256 + 2 * 2 * 256


# As the compiler for GPUs writes it: all exchanges are begun and awaited, some for several arrays at once, and products
# are calls of libraries, with room for them to work in.
GPU_PROGRAM = """\
HloModule jit_step, is_scheduled=true

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %sum = f32[] add(%x, %y)
}

ENTRY %main (a: f32[8,4], b: f32[16]) -> f32[8,4] {
  %a = f32[8,4]{1,0} parameter(0)
  %b = f32[16]{0} parameter(1)
  %ag = ((f32[8,4]{1,0}, f32[16]{0}), (f32[8,8]{1,0}, f32[32]{0})) all-gather-start(%a, %b), replica_groups=[4,2]<=[8]
  %agd = (f32[8,8]{1,0}, f32[32]{0}) all-gather-done(%ag)
  %w = f32[8,8]{1,0} get-tuple-element(%agd), index=0
  %mm = (f32[8,4]{1,0}, s8[33554432]{0}) custom-call(%w, %a), custom_call_target="__cublas$lt$matmul"
  %y = f32[8,4]{1,0} get-tuple-element(%mm), index=0
  %a2a = ((f32[8,4]{1,0}), f32[8,4]{1,0}) all-to-all-start(%y), replica_groups=[2,4]<=[4,2]T(1,0), dimensions={0}
  %z = f32[8,4]{1,0} all-to-all-done(%a2a)
  %rs = ((f32[8,4]{1,0}), f32[2,4]{1,0}) reduce-scatter-start(%z), replica_groups={{0,2,4,6},{1,3,5,7}}, to_apply=%add
  %part = f32[2,4]{1,0} reduce-scatter-done(%rs)
  %cp = ((f32[2,4]{1,0}, f32[16]{0}), (f32[2,4]{1,0}, f32[16]{0})) collective-permute-start(%part, %b), \
source_target_pairs={{0,1},{1,0}}
  %cpd = (f32[2,4]{1,0}, f32[16]{0}) collective-permute-done(%cp)
  %ar = (f32[8,4]{1,0}, f32[16]{0}) all-reduce-start(%z, %b), replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_0'}, \
to_apply=%add
  ROOT %ard = (f32[8,4]{1,0}, f32[16]{0}) all-reduce-done(%ar)
}
"""


def test_exchanges_that_a_gpu_begins_and_awaits():
    assert Program(GPU_PROGRAM).collectives(MESH) == [
        Collective("all-gather", ("tensor",), 2, (64 + 32) * 4),
        Collective("all-reduce", ("data",), 2, (32 + 16) * 4),
        Collective("all-to-all", ("data", "fsdp"), 4, 32 * 4),
        Collective("collective-permute", ("tensor",), 2, (8 + 16) * 4),
        Collective("reduce-scatter", ("data", "fsdp"), 4, 32 * 4),
    ]


def test_a_librarys_result_is_traffic_and_its_room_is_not():
    numbers = 32 + 16 + 2 * (96 + 32 + 32 + 8 + 24 + 48)  # parameters; what is gathered, multiplied, ... and summed
    assert Program(GPU_PROGRAM).traffic_bytes() == 4 * numbers
