"""Programs are the same in every process: they are compiled once, and draw alike."""

import os
import subprocess
import sys
from pathlib import Path

import metalgrad
from metalgrad import cards

# Of every line that a ratio may set, so that sets of lines are large ones.
SCRIPT = """
import hashlib, sys
from dataclasses import replace
import jax, jax.numpy as jnp, numpy as np
from metalgrad import load_model
from metalgrad.hierarchy import split
from metalgrad.inference import Shape

names = ("OII", "NeIII", "Hgamma", "Hbeta", "OIII", "Halpha", "NII", "SII")
square = np.array([[0, 0], [1, 0], [0, 1], [1, 1]])
blank = replace(Shape(names, (names,), 4, True).blank(), position=square)
for card in sys.argv[1:]:
    model = load_model(card)
    data = model.prepare(blank)
    with jax.enable_x64(True):
        hierarchy = split(model, data)
        galaxy, latent = hierarchy.sizes
        units = 1 if hierarchy.coupled else len(data)
        point = jnp.zeros(galaxy), jnp.zeros((units, latent))
        slope = jax.jit(jax.grad(hierarchy.potential, argnums=1))
        text = slope.lower(data.arrays, *point).as_text()
    print(card, hashlib.md5(text.encode()).hexdigest())
"""


def programs(seed):
    """Start to write down the programs of all models, under a seed of hashes."""
    environment = os.environ | {"PYTHONHASHSEED": seed, "JAX_PLATFORMS": "cpu"}
    root = str(Path(metalgrad.__file__).parents[1])
    environment["PYTHONPATH"] = root
    command = [sys.executable, "-c", SCRIPT, *cards.names("models")]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def test_no_program_hangs_on_the_order_of_a_set():
    """Python gives sets of names another order in each process."""
    both = [programs(seed) for seed in ("1", "2")]
    first, second = (process.communicate()[0] for process in both)
    assert not any(process.returncode for process in both)
    assert first.splitlines() == second.splitlines()
    assert len(first.splitlines()) == len(cards.names("models"))
