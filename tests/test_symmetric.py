"""Products that are symmetric have the slopes of JAX's own algebra, for less."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from metalgrad.symmetric import gram

pytestmark = pytest.mark.usefixtures("double_precision")


def draw(rows=7, columns=11):
    """Rows, and weights that tell all entries of their products apart."""
    rng = np.random.default_rng(2)
    shapes = (rows, columns), (rows, rows)
    return [jnp.asarray(rng.normal(size=shape)) for shape in shapes]


def follow(product, weight):
    """Make the slope of a sum of products, of which no two weigh the same."""
    return jax.grad(lambda rows: jnp.sum(weight * product(rows)))


def plain(rows):
    return rows @ rows.T


def test_products_are_those_of_numpy_and_have_their_slopes():
    rows, weight = draw()
    np.testing.assert_allclose(gram(rows), np.inner(rows, rows), rtol=1e-14)
    found, expected = (follow(product, weight)(rows) for product in (gram, plain))
    np.testing.assert_allclose(found, expected, rtol=1e-13)
    check_grads(lambda r: gram(jnp.asarray(r)), (rows,), order=2)  # in both directions


def test_slopes_cost_a_third_less():
    rows, weight = draw(30, 90)

    def operations(product):
        program = jax.jit(follow(product, weight)).lower(rows).compile()
        return program.cost_analysis()["flops"]

    assert operations(gram) < 0.75 * operations(plain)


def test_many_are_taken_one_by_one():
    many = jnp.stack([draw()[0], 2 * draw()[0]])
    for one, rows in zip(jax.vmap(gram)(many), many, strict=True):
        np.testing.assert_allclose(one, plain(rows), rtol=1e-14)
