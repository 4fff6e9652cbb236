"""What a recipe can name as features, and that clips come in order with threads working ahead."""

import numpy as np
import pytest

from mmpretrain.config import FEATURES, CorpusConfig
from mmpretrain.data.clips import open_clips
from mmpretrain.records import NUM_BLENDSHAPES
from mmpretrain.targets.clip_features import CLIP_FEATURES
from mmpretrain.targets.labelling import clip_features
from tests.corpus_fixture import make_clip, write_corpus


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    rng = np.random.default_rng(0)
    clips = [
        make_clip(
            f"c{i}", 6 + i, size=16, tracks={"blendshapes": rng.random((6 + i, NUM_BLENDSHAPES)).astype(np.float16)}
        )
        for i in range(9)
    ]
    return open_clips([CorpusConfig(str(write_corpus(tmp_path_factory.mktemp("c") / "c", clips, 16, 32)))])


def test_every_kind_that_a_recipe_can_name_is_there():
    assert (*CLIP_FEATURES, "hidden") == FEATURES


@pytest.mark.parametrize("kind", CLIP_FEATURES)
def test_features_have_a_row_a_frame_and_the_dims_they_say(table, kind):
    rows = [3, 0, 8, 5]
    made = list(clip_features(CLIP_FEATURES[kind], table, rows, num_workers=3))
    assert [row for row, _ in made] == rows
    for row, features_TF in made:
        assert features_TF.shape == (table.lengths[row], CLIP_FEATURES[kind].dim)
        assert features_TF.dtype == np.float32
        np.testing.assert_array_equal(features_TF, CLIP_FEATURES[kind].of_clip(table.load(row)))


def test_mfcc_alone_has_four_rows_a_frame(table):
    ((_, features_TF),) = clip_features(CLIP_FEATURES["mfcc"], table, [2], targets_per_frame=4)
    assert features_TF.shape == (4 * table.lengths[2], CLIP_FEATURES["mfcc"].dim)
