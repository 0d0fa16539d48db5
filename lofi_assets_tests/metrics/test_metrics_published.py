"""FAD against numbers that others publish: fadtk's, for real embeddings of real clips against FMA-Pop.

`fadtk_published.py` says how the embeddings were made, and makes them again.
"""

import numpy as np
import pytest
from scipy import linalg

from lofi_assets.metrics.frechet import frechet_distance
from lofi_assets_tests.metrics.fadtk_published import FIXTURE, statistics_of

Published = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def published() -> Published:
    """Mean (512,), covariance (512, 512), windows (23 songs, 10, 512), score of each and of all."""
    with np.load(FIXTURE) as file:
        found = dict(file)
    lower = np.zeros((512, 512))
    lower[np.tril_indices(512)] = found["covariance"]
    return found | {"covariance": lower + np.tril(lower, k=-1).T}


def test_fad_of_all_clips_is_the_one_that_fadtk_publishes(published: Published) -> None:
    """Ours .37705, theirs .37709: their embeddings come from another machine, in half precision."""
    reference = statistics_of(published["mean"], published["covariance"])
    windows = published["windows"].reshape(-1, 512)
    assert frechet_distance(windows, reference) == pytest.approx(float(published["score"]), rel=5e-4)


def test_fad_of_every_song_is_the_one_that_fadtk_publishes(published: Published) -> None:
    """Ten windows in 512 dimensions: the covariance has rank nine."""
    reference = statistics_of(published["mean"], published["covariance"])
    ours = [frechet_distance(song, reference) for song in published["windows"]]
    assert len(ours) == 23
    assert ours == pytest.approx(published["scores"].tolist(), rel=5e-4)


def test_a_published_mean_and_covariance_are_kept_exactly(published: Published) -> None:
    reference = statistics_of(published["mean"], published["covariance"])
    assert np.allclose(reference.covariance, published["covariance"], atol=1e-12)


def test_fad_of_statistics_is_that_of_scipys_root_of_a_matrix(published: Published) -> None:
    windows = published["windows"].reshape(-1, 512).astype(np.float64)
    mean, covariance = published["mean"], published["covariance"]
    ours = frechet_distance(windows, statistics_of(mean, covariance))
    own = np.cov(windows, rowvar=False)
    cross = np.trace(linalg.sqrtm(own @ covariance)).real
    naive = np.square(windows.mean(axis=0) - mean).sum() + np.trace(own) + np.trace(covariance) - 2.0 * cross
    assert ours == pytest.approx(naive, rel=1e-5)


def test_the_tolerance_tells_one_song_from_another(published: Published) -> None:
    scores = published["scores"]
    assert all(scores != pytest.approx(np.roll(scores, by).tolist(), rel=5e-4) for by in range(1, len(scores)))
