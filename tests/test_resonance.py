"""Steps of NUTS just too short for their trajectories to see their turn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random
from numpyro.infer.hmc import hmc

from metalgrad import resonance

TURN = np.pi / 15  # of trajectories of 15 steps


@pytest.fixture(scope="module")
def count_steps():
    """Return what counts a draw's steps in a standard normal of 2800 dimensions."""
    init, advance = hmc(lambda z: 0.5 * jnp.sum(jnp.square(z)), algo="NUTS")
    fixed = {"adapt_step_size": False, "adapt_mass_matrix": False}

    def one(state, _):
        state = advance(state)
        return state, state.num_steps

    @jax.jit
    def mean(state):
        return jax.lax.scan(one, state, length=50)[1].mean()

    def count(step):
        point = random.normal(random.key(1), (2800,))
        state = init(point, 0, step_size=step, rng_key=random.key(0), **fixed)
        return float(mean(state))

    with jax.enable_x64(new_val=True):
        yield count


@pytest.mark.parametrize(("share", "before"), [(0.975, 100), (0.985, 50)])
def test_a_step_just_too_short_misses_the_turn(count_steps, share, before):
    assert count_steps(share * TURN) >= before
    assert count_steps(resonance.leave(share * TURN)) == 15


@pytest.mark.parametrize("doublings", range(3, 9))
def test_only_steps_that_come_full_circle_are_lengthened(doublings):
    turn = np.pi / (2**doublings - 1)
    circle = 2 * np.pi / (2 ** (doublings + 1) - 1)
    for step in (1.001 * circle, turn, 1.0299 * turn):
        assert resonance.leave(step) == pytest.approx(1.03 * turn)
    for step in (0.8 * circle, 0.999 * circle, 1.0301 * turn, 1.3 * turn):
        assert resonance.leave(step) == step


@pytest.mark.parametrize("step", [0.6, 1.0, 3.0, 12.0])
def test_steps_of_few_dimensions_are_left(step):
    assert resonance.leave(step) == step
