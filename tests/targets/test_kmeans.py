"""k-means against a slow writing of it, on planted clusters, and its promises: determinism, no lost clusters."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmpretrain.parallel import stopping
from mmpretrain.targets import kmeans, kmeans_init


def blobs(num_clusters: int, per_cluster: int, dim: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    centres = rng.permutation(np.stack(np.meshgrid(*[np.arange(4.0)] * dim), -1).reshape(-1, dim))[:num_clusters] * 50
    ids = np.repeat(np.arange(num_clusters), per_cluster)
    return (centres[ids] + rng.standard_normal((len(ids), dim))).astype(np.float32), ids


def slow_distances(frames: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    return np.square(frames[:, None].astype(float) - centroids[None].astype(float)).sum(-1)


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of 4 x 16 frames, so that few frames already fill several and a part of one."""
    monkeypatch.setattr(kmeans, "TILE_FRAMES", 16)
    monkeypatch.setattr(kmeans, "TILES", 4)
    monkeypatch.setattr(kmeans, "START_FRAMES", 50)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("num_frames", [1, 63, 64, 65, 301])
def test_assignment_is_the_nearest_centroid(num_frames):
    rng = np.random.default_rng(1)
    frames = (rng.standard_normal((num_frames, 5)) + 1000).astype(np.float32)  # an offset costs no digits
    centroids = (rng.standard_normal((7, 5)) + 1000).astype(np.float32)
    ids_N = kmeans.assign(frames, centroids)
    assert ids_N.dtype == np.int32
    np.testing.assert_array_equal(ids_N, slow_distances(frames, centroids).argmin(1))


def test_ties_go_to_the_lowest_index():
    centroids = np.array([[3.0, 0], [1, 0], [-1, 0], [1, 0]], np.float32)
    np.testing.assert_array_equal(kmeans.assign(np.array([[0.0, 5], [1, 0]], np.float32), centroids), [1, 1])


@pytest.mark.usefixtures("small_blocks")
def test_a_pass_moves_centroids_to_the_means_of_their_frames():
    rng = np.random.default_rng(2)
    frames, centroids = rng.standard_normal((157, 3)).astype(np.float32), rng.standard_normal((5, 3)).astype(np.float32)
    distances = slow_distances(frames, centroids)
    before = kmeans.lloyd(kmeans.Blocks(frames), centroids, passes=0)
    np.testing.assert_array_equal(before.centroids, centroids)
    np.testing.assert_allclose(before.inertia, distances.min(1).mean(), rtol=1e-5)
    after = kmeans.lloyd(kmeans.Blocks(frames), centroids, passes=1)
    for k in range(5):
        mean = frames[distances.argmin(1) == k].mean(0)
        np.testing.assert_allclose(after.centroids[k], mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(after.inertia, slow_distances(frames, after.centroids).min(1).mean(), rtol=1e-5)


def test_empty_clusters_move_to_the_farthest_frames():
    frames = np.array([[0.0], [0.2], [9.0], [-7.0], [0.4]], np.float32)
    centroids = np.array([[0.0], [100.0], [200.0]], np.float32)
    after = kmeans.lloyd(kmeans.Blocks(frames), centroids, passes=1)
    np.testing.assert_allclose(after.centroids[:, 0], [frames.mean(), 9, -7], rtol=1e-5)


def test_every_cluster_lives_after_starting_from_one_place():
    frames, _ = blobs(6, 20, 2)
    start = np.tile(frames.mean(0), (6, 1)) + np.array([0, 1000, 2000, 3000, 4000, 5000], np.float32)[:, None]
    after = kmeans.lloyd(kmeans.Blocks(frames), start, passes=20)
    assert len(np.unique(kmeans.assign(frames, after.centroids))) == 6


@pytest.mark.usefixtures("small_blocks")
def test_planted_clusters_are_found():
    frames, ids = blobs(20, 13, 3)
    codebook = kmeans.fit(frames, 20, key=jax.random.key(0), passes=50, restarts=3)
    found = np.asarray(kmeans.assign(frames, codebook.centroids))
    assert len({(a, b) for a, b in zip(ids, found, strict=True)}) == 20
    np.testing.assert_allclose(codebook.inertia, slow_distances(frames, codebook.centroids).min(1).mean(), rtol=1e-4)


def test_the_same_key_gives_the_same_codebook_and_more_restarts_are_never_worse():
    frames = np.random.default_rng(3).standard_normal((500, 4)).astype(np.float32)

    def fit(key, restarts):
        return kmeans.fit(frames, 9, key=jax.random.key(key), passes=30, restarts=restarts)

    np.testing.assert_array_equal(fit(5, 2).centroids, fit(5, 2).centroids)
    assert (fit(5, 1).centroids != fit(6, 1).centroids).any()
    assert fit(5, 8).inertia <= np.mean([fit(key, 1).inertia for key in range(4)])


def test_fewer_distinct_frames_than_clusters_still_end():
    frames = np.repeat(np.eye(3, dtype=np.float32), 4, axis=0)
    codebook = kmeans.fit(frames, 5, key=jax.random.key(0), passes=10, restarts=2)
    assert codebook.inertia == pytest.approx(0, abs=1e-6)
    assert kmeans.fit(frames, 1, key=jax.random.key(0), passes=10, restarts=1).centroids.shape == (1, 3)


def test_half_precision_frames_are_clustered_in_float32():
    frames, _ = blobs(8, 30, 3)
    half = kmeans.fit(jnp.asarray(frames, jnp.bfloat16), 8, key=jax.random.key(0), passes=20, restarts=2)
    assert half.centroids.dtype == np.float32
    whole = kmeans.fit(frames, 8, key=jax.random.key(0), passes=20, restarts=2)
    nearest = slow_distances(half.centroids, whole.centroids)
    assert np.sqrt(nearest.min(1)).max() < 1  # of a grid of 50


def test_inertia_matches_that_of_scikit_learn():
    from sklearn.cluster import MiniBatchKMeans

    rng = np.random.default_rng(4)
    frames = (rng.standard_normal((6000, 8)) @ rng.standard_normal((8, 13))).astype(np.float32)
    sk = MiniBatchKMeans(25, n_init=20, max_iter=100, batch_size=1000, reassignment_ratio=0, random_state=0).fit(frames)
    codebook = kmeans.fit(frames, 25, key=jax.random.key(0), passes=100, restarts=5)
    assert codebook.inertia <= 1.005 * slow_distances(frames, sk.cluster_centers_).min(1).mean()


@pytest.mark.usefixtures("small_blocks")
def test_frames_from_a_file_stream_in_blocks_and_give_the_same_codebook(tmp_path, monkeypatch):
    frames = np.random.default_rng(5).standard_normal((900, 6)).astype(np.float32)
    np.save(tmp_path / "frames.npy", frames)
    mapped = np.load(tmp_path / "frames.npy", mmap_mode="r")
    heard = []
    fit = functools.partial(kmeans.fit, num_clusters=7, key=jax.random.key(1), passes=20, restarts=2)
    resident = fit(frames, on_pass=lambda num_frames, _: heard.append(num_frames))
    assert list(dict.fromkeys(heard)) == [448, 900]  # 64 a cluster, then all
    # Nothing may stay on the device: every pass reads the file again.
    monkeypatch.setattr(kmeans, "_resident_bytes", lambda mesh: 0)
    assert kmeans.Blocks(mapped)._placed is None
    streamed = fit(mapped)
    np.testing.assert_array_equal(streamed.centroids, resident.centroids)
    np.testing.assert_array_equal(kmeans.assign(mapped, streamed.centroids), kmeans.assign(frames, resident.centroids))


def test_batches_grow_while_they_stay_on_the_devices():
    frames = np.zeros((1_000_000, 1), np.float32)
    assert kmeans._batch_sizes(frames, 10, 1 << 40) == [32_768, 131_072, 524_288]
    assert kmeans._batch_sizes(frames, 10, 4 * 200_000) == [32_768, 131_072]
    assert kmeans._batch_sizes(frames, 2000, 0) == [128_000]
    assert kmeans._batch_sizes(frames[:100], 10, 1 << 40) == [100]


@pytest.mark.parametrize("start", ["plus_plus", "parallel"])
def test_both_starts_find_far_clusters_whatever_their_size(start):
    frames, ids = blobs(12, 4, 2)
    frames = np.concatenate([frames, frames[:1] + np.zeros((3000, 1), np.float32)])  # one cluster has nearly all
    for seed in range(3):
        key = jax.random.key(seed)
        if start == "parallel":
            found = kmeans_init.parallel(jnp.asarray(frames), 12, key)
        else:
            found = kmeans_init.plus_plus(jnp.asarray(frames), jnp.ones(len(frames)), 12, key)
        assert (
            len(set(kmeans.assign(np.asarray(found), np.stack([frames[:48][ids == k].mean(0) for k in range(12)]))))
            == 12
        )


def test_k_means_parallel_starts_as_low_as_k_means_plus_plus():
    rng = np.random.default_rng(6)
    centres = rng.standard_normal((80, 10))
    frames = (centres[rng.integers(0, 80, 4000)] + 0.3 * rng.standard_normal((4000, 10))).astype(np.float32)

    def start_inertia(find):
        found = [np.asarray(find(jax.random.key(seed))) for seed in range(3)]
        return np.mean([kmeans.lloyd(kmeans.Blocks(frames), start, passes=0).inertia for start in found])

    plus_plus = start_inertia(lambda key: kmeans_init.plus_plus(frames, jnp.ones(4000), 40, key))
    parallel = start_inertia(lambda key: kmeans_init.parallel(frames, 40, key))
    drawn = start_inertia(lambda key: jax.random.choice(key, frames, (40,), replace=False))
    assert parallel < 1.05 * plus_plus < 0.95 * drawn


def test_weights_count_as_many_frames():
    frames = np.array([[0.0], [1.0], [50.0]], np.float32)
    weights = jnp.array([1.0, 1.0, 0.0])
    for seed in range(5):
        found = kmeans_init.plus_plus(frames, weights, 2, jax.random.key(seed))
        assert sorted(np.asarray(found)[:, 0].round(3)) == [0, 1]  # what weighs nothing is never drawn


def test_refusals():
    with pytest.raises(ValueError, match=r"num_clusters=5 is more than the 4 frames.*fit_share"):
        kmeans.fit(np.zeros((4, 2), np.float32), 5, key=jax.random.key(0), passes=1, restarts=1)
    with pytest.raises(ValueError, match="not finite"):
        kmeans.assign(np.array([[0.0], [np.nan]], np.float32), np.zeros((2, 1), np.float32))
    with pytest.raises(ValueError, match="not finite"):
        kmeans.fit(np.full((9, 2), np.nan, np.float32), 3, key=jax.random.key(0), passes=1, restarts=1)


@pytest.mark.parametrize("num_frames", [1, 5, 16, 23])
def test_ids_within_a_program_are_those_of_assign(monkeypatch, num_frames):
    monkeypatch.setattr(kmeans, "TILE_FRAMES", 16)
    rng = np.random.default_rng(num_frames)
    frames_BTD = rng.standard_normal((3, num_frames, 6)).astype(np.float32) + 100
    centroids_KD = rng.standard_normal((9, 6)).astype(np.float32) + 100
    mesh = kmeans._one_device()
    ids_BT = np.array(jax.jit(functools.partial(kmeans.nearest_ids, mesh=mesh))(frames_BTD, centroids_KD))
    np.testing.assert_array_equal(ids_BT.reshape(-1), kmeans.assign(frames_BTD.reshape(-1, 6), centroids_KD))
    for wrong in (np.inf, -np.inf, np.nan):
        frames_BTD[1, 0, 2] = wrong
        assert kmeans.nearest_ids(frames_BTD, centroids_KD, mesh=mesh)[1, 0] == 9
        with pytest.raises(ValueError, match="not finite"):
            kmeans.assign(frames_BTD.reshape(-1, 6), centroids_KD)


@pytest.mark.parametrize("when", ["before a start", "between two blocks"])
def test_fitting_stops_when_asked(monkeypatch, when):
    frames, _ = blobs(4, 30, 3)
    asked = []

    def ask(num_frames, inertia):
        asked.append(inertia)
        stopping._asked = True

    monkeypatch.setattr(stopping, "_asked", when == "before a start")
    with pytest.raises(stopping.Stopped):
        kmeans.fit(frames, 4, key=jax.random.key(0), passes=50, restarts=50, on_pass=ask)
    assert len(asked) == (0 if when == "before a start" else 1)
