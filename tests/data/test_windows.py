"""Windows over a long clip."""

import pytest

from mmpretrain.data.windows import OVERLAP_FRAMES, WINDOW_FRAMES, windows


@pytest.mark.parametrize("num_frames", [1, 1499, 1500, 1501, 2749, 2750, 2751, 15_000, 99_999])
def test_every_frame_has_one_owner_with_context_on_both_sides(num_frames):
    made = windows(num_frames)
    assert [frame for window in made for frame in window.own] == list(range(num_frames))
    for window in made:
        assert len(window.frames) == min(num_frames, WINDOW_FRAMES)
        assert window.frames[0] >= 0
        assert window.frames[-1] < num_frames
        assert window.own[0] - window.frames[0] >= (OVERLAP_FRAMES // 2 if window.own[0] else 0)
        assert window.frames[-1] - window.own[-1] >= (OVERLAP_FRAMES // 2 - 1 if window.own[-1] < num_frames - 1 else 0)
    assert len(made) <= 1 + -(-max(num_frames - WINDOW_FRAMES, 0) // (WINDOW_FRAMES - OVERLAP_FRAMES))
