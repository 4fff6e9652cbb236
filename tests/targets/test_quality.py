"""Cluster quality on tables worked out by hand, and what must hold for any table."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmpretrain.targets.quality import cluster_quality, joint_counts, run_lengths, shared_information


def test_a_table_worked_out_by_hand():
    # unit 7: clusters 0 0 0 1; unit 9: clusters 1 1 1 1
    quality = cluster_quality(np.array([0, 0, 0, 1, 1, 1, 1, 1]), np.array([7, 7, 7, 7, 9, 9, 9, 9]), 4)
    assert quality["purity"] == (3 + 4) / 8
    assert quality["cluster_purity"] == (3 + 4) / 8
    conditional = 5 / 8 * -(0.2 * math.log2(0.2) + 0.8 * math.log2(0.8))  # H(unit | cluster); cluster 0 is pure
    assert quality["pnmi"] == pytest.approx(1 - conditional)  # H(unit) is one bit
    entropy = -(3 / 8 * math.log2(3 / 8) + 5 / 8 * math.log2(5 / 8))
    assert quality["entropy_bits"] == pytest.approx(entropy)
    assert quality["perplexity"] == pytest.approx(2**entropy)
    assert (quality["clusters_used"], quality["num_clusters"], quality["mean_run_frames"]) == (2, 4, 4)


def test_purity_of_clusters_and_of_units_are_different_things():
    # Every cluster holds one unit only, but each unit is spread over two clusters.
    quality = cluster_quality(np.array([0, 1, 2, 3, 3, 3]), np.array([0, 0, 1, 1, 1, 1]), 4)
    assert quality["purity"] == 1
    assert quality["cluster_purity"] == pytest.approx((1 + 3) / 6)
    assert quality["pnmi"] == pytest.approx(1)


def test_runs_end_with_the_clip():
    clusters_N = np.array([2, 2, 2, 2, 0, 0])
    cluster_R, frames_R = run_lengths(clusters_N, np.array([0, 1, 1, 6]))
    assert (cluster_R.tolist(), frames_R.tolist()) == ([2, 2, 0], [1, 3, 2])
    assert cluster_quality(clusters_N, None, 3)["mean_run_frames"] == 3
    assert cluster_quality(clusters_N, None, 3, np.array([0, 2, 6, 6]))["mean_run_frames"] == 2


def test_without_known_units_there_is_no_purity():
    names = {"num_clusters", "clusters_used", "entropy_bits", "perplexity", "mean_run_frames"}
    assert set(cluster_quality(np.array([0, 1]), None, 2)) == names
    assert set(cluster_quality(np.array([0, 1]), np.array([-1, -1]), 2)) == names


def test_frames_of_unknown_unit_count_for_usage_only():
    quality = cluster_quality(np.array([0, 1, 1, 0]), np.array([3, 4, 4, -1]), 2)
    assert (quality["pnmi"], quality["purity"], quality["entropy_bits"]) == (pytest.approx(1), 1, 1)


def test_shared_information_of_tables_worked_out_by_hand():
    joint_UK = joint_counts(np.array([2, 2, 0, 1]), np.array([0, 0, 2, -1]), 3)
    assert joint_UK.tolist() == [[0, 0, 2], [0, 0, 0], [1, 0, 0]]
    assert shared_information(joint_UK) == pytest.approx(1)
    assert shared_information(np.array([[3, 6], [2, 4]])) == pytest.approx(0)  # independent
    # Four speakers; the cluster says which pair: one of two bits.
    assert shared_information(np.array([[5, 0], [5, 0], [0, 5], [0, 5]])) == pytest.approx(0.5)


def test_one_unit_says_nothing_about_the_clusters():
    assert cluster_quality(np.array([0, 1]), np.array([5, 5]), 2)["pnmi"] == 0


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 4)), min_size=1, max_size=80))
def test_shares_are_shares(frames):
    clusters_N, units_N = np.array(frames).T
    quality = cluster_quality(clusters_N, units_N, 7)
    assert all(-1e-9 <= quality[name] <= 1 + 1e-9 for name in ("purity", "cluster_purity", "pnmi"))
    itself = cluster_quality(units_N, units_N, 7)
    assert (itself["purity"], itself["cluster_purity"]) == (1, 1)
    assert itself["pnmi"] == pytest.approx(1 if len(set(units_N)) > 1 else 0)


def test_refusals():
    with pytest.raises(ValueError, match="no frames"):
        cluster_quality(np.zeros(0, int), None, 3)
    with pytest.raises(ValueError, match=r"0\.\.3 are not all in 0\.\.2"):
        cluster_quality(np.array([0, 3]), None, 3)
