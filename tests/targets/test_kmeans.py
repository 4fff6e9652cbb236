"""k-means against a slow writing of it, on planted clusters, and its promises: determinism, no lost clusters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmpretrain.targets import kmeans


def blobs(num_clusters: int, per_cluster: int, dim: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    centres = rng.permutation(np.stack(np.meshgrid(*[np.arange(4.0)] * dim), -1).reshape(-1, dim))[:num_clusters] * 50
    ids = np.repeat(np.arange(num_clusters), per_cluster)
    return (centres[ids] + rng.standard_normal((len(ids), dim))).astype(np.float32), ids


def slow_distances(frames: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    return np.square(frames[:, None].astype(float) - centroids[None].astype(float)).sum(-1)


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of 64 frames, so that few frames already fill several and a part of one."""
    jax.clear_caches()
    monkeypatch.setattr(kmeans, "BLOCK_FRAMES", 64)
    yield
    jax.clear_caches()


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("num_frames", [1, 63, 64, 65, 301])
def test_assignment_is_the_nearest_centroid(num_frames):
    rng = np.random.default_rng(1)
    frames = (rng.standard_normal((num_frames, 5)) + 1000).astype(np.float32)  # an offset costs no digits
    centroids = (rng.standard_normal((7, 5)) + 1000).astype(np.float32)
    ids_N = kmeans.assign(frames, centroids)
    assert ids_N.dtype == jnp.int32
    np.testing.assert_array_equal(ids_N, slow_distances(frames, centroids).argmin(1))


def test_ties_go_to_the_lowest_index():
    centroids = np.array([[3.0, 0], [1, 0], [-1, 0], [1, 0]], np.float32)
    np.testing.assert_array_equal(kmeans.assign(np.array([[0.0, 5], [1, 0]], np.float32), centroids), [1, 1])


@pytest.mark.usefixtures("small_blocks")
def test_a_pass_moves_centroids_to_the_means_of_their_frames():
    rng = np.random.default_rng(2)
    frames, centroids = rng.standard_normal((157, 3)).astype(np.float32), rng.standard_normal((5, 3)).astype(np.float32)
    new, inertia = kmeans.lloyd_pass(frames, centroids)
    distances = slow_distances(frames, centroids)
    np.testing.assert_allclose(inertia, distances.min(1).mean(), rtol=1e-5)
    for k in range(5):
        np.testing.assert_allclose(new[k], frames[distances.argmin(1) == k].mean(0), rtol=1e-4, atol=1e-5)


def test_empty_clusters_move_to_the_farthest_frames():
    frames = np.array([[0.0], [0.2], [9.0], [-7.0], [0.4]], np.float32)
    centroids = np.array([[0.0], [100.0], [200.0]], np.float32)
    new, _ = kmeans.lloyd_pass(frames, centroids)
    np.testing.assert_allclose(new[:, 0], [frames.mean(), 9, -7], rtol=1e-5)


def test_every_cluster_lives_after_starting_from_one_place():
    frames, _ = blobs(6, 20, 2)
    start = np.tile(frames.mean(0), (6, 1)) + np.array([0, 1000, 2000, 3000, 4000, 5000], np.float32)[:, None]
    centroids, _ = kmeans.lloyd(frames, start, passes=20)
    assert len(np.unique(kmeans.assign(frames, centroids))) == 6


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


def test_refusals():
    with pytest.raises(ValueError, match=r"num_clusters=5 is more than the 4 frames.*fit_share"):
        kmeans.fit(np.zeros((4, 2), np.float32), 5, key=jax.random.key(0), passes=1, restarts=1)
    with pytest.raises(ValueError, match="not finite"):
        kmeans.fit(np.full((9, 2), np.nan, np.float32), 3, key=jax.random.key(0), passes=1, restarts=1)
