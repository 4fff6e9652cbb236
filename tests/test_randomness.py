"""Named random streams: the same name gives the same numbers, other names others."""

import numpy as np

from mmpretrain.randomness import clip_generator, generator, unit_hash


def test_a_stream_is_its_name():
    assert clip_generator(1, "crop", 2, "a").random() == clip_generator(1, "crop", 2, "a").random()
    names = [(1, "crop", 2, "a"), (2, "crop", 2, "a"), (1, "flip", 2, "a"), (1, "crop", 3, "a"), (1, "crop", 2, "b")]
    assert len({clip_generator(*name).random() for name in names}) == len(names)
    assert generator(1, "ab", "c").random() != generator(1, "a", "bc").random()


def test_streams_never_change():
    assert clip_generator(1337, "crop", 0, "clip").integers(0, 1000, 3).tolist() == [456, 384, 85]


def test_unit_hash_is_uniform():
    hashes = np.array([unit_hash("valid", str(i)) for i in range(2000)])
    assert abs(hashes.mean() - 0.5) < 0.02
    assert abs(np.mean(hashes < 0.1) - 0.1) < 0.02
    assert unit_hash("valid", "x") == unit_hash("valid", "x") != unit_hash("fit", "x")
