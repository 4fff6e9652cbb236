"""Features of hands: what they do not change with, what they tell, short gaps."""

import numpy as np

from mmpretrain.features.hands import HANDS_DIM, hand_features, hands_seen

T = 20
FACE = np.tile([200.0, 100.0, 80.0], (T, 1))


def hands(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A left and a right hand: in metres, and in the picture."""
    world = np.random.default_rng(seed).normal(0, 0.05, (T, 2, 21, 3))
    return world, world[..., :2] * 1000 + (150, 300)


def test_features_do_not_change_with_the_distance_nor_with_the_place_in_the_picture():
    world, picture = hands()
    features = hand_features(world, picture, FACE)
    assert features.shape == (T, HANDS_DIM) == (T, 146)
    shifted = np.add(FACE, (30, -20, 0))
    np.testing.assert_allclose(
        hand_features(1.3 * world + 0.1, np.add(picture, (30, -20)), shifted), features, atol=1e-4
    )
    # Twice as near: everything in the picture is twice as large.
    np.testing.assert_allclose(hand_features(world, 2 * picture, 2 * FACE), features, atol=1e-5)
    turned = hand_features(world @ np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 1.0]]), picture, FACE)
    assert np.abs(turned[:, 134:] - features[:, 134:]).max() > 0.5
    np.testing.assert_allclose(np.linalg.norm(features[:, 134:137], axis=1), 1, atol=1e-5)
    np.testing.assert_allclose((features[:, 134:137] * features[:, 137:140]).sum(1), 0, atol=1e-5)


def test_a_short_gap_is_a_line_and_a_long_one_is_no_hand():
    world, picture = hands()
    for t in range(T):
        world[t, 0], picture[t, 0] = world[0, 0], picture[0, 0] + 4.0 * t
    world[3:8, 0], world[10:16, 0], world[:, 1] = np.nan, np.nan, np.nan
    features = hand_features(world, picture, FACE)
    seen = hands_seen(features)
    assert seen[:, 0].tolist() == [True] * 10 + [False] * 6 + [True] * 4
    assert not seen[:, 1].any()
    assert not features[10:16].any()
    assert not features[:, 63:126].any()
    place = features[seen[:, 0], 126] - features[0, 126]
    np.testing.assert_allclose(place, np.flatnonzero(seen[:, 0]) * 4 / 80, atol=1e-5)
