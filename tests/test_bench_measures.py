import numpy as np
import pytest
from scipy.signal import lfilter

from metalgrad import bench_measures as measures


def autoregressive(phi, chains, draws, seed=1):
    """Unit normals, each ``phi`` times the one before it and noise."""
    rng = np.random.default_rng(seed)
    noise = np.sqrt(1 - phi**2) * rng.normal(size=(chains, draws))
    start = phi * rng.normal(size=(chains, 1))
    return lfilter([1], [1, -phi], noise, axis=1, zi=start)[0]


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.9])
def test_effective_draws_of_an_autoregression_are_those_of_theory(phi):
    values = autoregressive(phi, chains=4, draws=20_000)
    expected = values.size * (1 - phi) / (1 + phi)
    found = measures.describe({"slope": values})
    assert found["ess"] == pytest.approx(expected, rel=0.1)
    mean, error, sd, sd_error = found["moments"]["slope"]
    assert error == pytest.approx(expected**-0.5, rel=0.15)
    assert abs(mean) < 4 * expected**-0.5
    # The square of an AR(1) process forgets by phi squared.
    squares = values.size * (1 - phi**2) / (1 + phi**2)
    assert sd_error == pytest.approx((2 * squares) ** -0.5, rel=0.25)
    assert abs(sd - 1) < 4 * (2 * squares) ** -0.5


def test_the_worst_parameter_counts():
    samples = {
        "level": autoregressive(0.0, 4, 4000),
        "noise": np.stack(
            [autoregressive(0.2, 4, 4000, 2), autoregressive(0.95, 4, 4000, 3)],
            axis=-1,
        ),
    }
    found = measures.describe(samples)
    assert found["worst"] == "noise[1]"
    assert found["ess"] == pytest.approx(16_000 * 0.05 / 1.95, rel=0.3)


def test_what_stands_still_has_no_effective_draw():
    found = measures.describe({"level": np.repeat([[0.0], [1.0]], 100, axis=1)})
    assert found["ess"] < 10
    assert "disagree" in measures.verdict(found, found)


def posterior(seed, **changes):
    rng = np.random.default_rng(seed)
    samples = {name: rng.normal(size=(4, 1000)) for name in measures.COMPARED}
    for name, (shift, width) in changes.items():
        samples[name] = shift + width * samples[name]
    return measures.describe(samples)


def test_two_samples_of_one_posterior_agree():
    found = [
        measures.disagreement(posterior(i)["moments"], posterior(i + 50)["moments"])
        for i in range(10)
    ]
    assert not any(found)


@pytest.mark.parametrize(
    ("change", "word"), [((0.2, 1.0), "mean of slope"), ((0.0, 1.15), "sd of slope")]
)
def test_a_wrong_posterior_is_told(change, word):
    told = measures.verdict(posterior(1, slope=change), posterior(2))
    assert word in told
    assert "level" not in told


def test_chains_apart_are_told_before_moments():
    values = np.random.default_rng(1).normal(size=(4, 1000)) + np.arange(4)[:, None]
    row = measures.describe(dict.fromkeys(measures.COMPARED, values))
    assert "R-hat" in measures.verdict(row, posterior(1))


def test_a_parameter_that_is_missing_is_told():
    moments = posterior(1)["moments"]
    without = {name: moments[name] for name in ("slope", "level")}
    assert measures.disagreement(without, moments) == ["scatter is missing"]


@pytest.mark.parametrize(
    ("spans", "length"),
    [([], 0), ([(0, 2), (1, 3)], 3), ([(0, 5), (1, 2)], 5), ([(4, 5), (0, 1)], 2)],
)
def test_what_is_covered_twice_counts_once(spans, length):
    assert measures.union(spans) == length


def test_a_clock_leaves_compilation_out():
    import jax

    clock = measures.Clock()
    jax.monitoring.record_event_duration_secs("/jax/core/compile/x", 100.0)
    jax.monitoring.record_event_duration_secs("/jax/other", 100.0)
    work = clock.lap()
    # No more than the time that there was since the clock was made.
    assert 0 < clock.compiled < 1
    assert 0 <= work < 1


def test_time_to_enough_scales_with_sampling_alone():
    row = {"warmup": 3.0, "sampling": 10.0, "ess": 200.0}
    assert measures.time_to(row, 400.0) == 23.0


def test_it_says_what_it_was_measured_with(tmp_path):
    about = measures.about(tmp_path)  # no clone
    assert about["commit"] is None
    assert about["versions"]["jax"]
    assert about["device"].startswith("cpu")
    assert measures.peak_memory() > 0.01
