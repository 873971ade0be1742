"""Question: how long until a galaxy is known, by metalgrad and by what else there is?

One data set and one posterior for all, 400 effective draws of every parameter of the
galaxy, starts and warm-up included. The same as ``metalgrad bench``: run
``python benchmarks/rivals.py [--device cpu|cuda] [--quick] [--out DIR]``, from any
folder; then ``python benchmarks/report.py`` writes ``benchmarks/README.md``.
"""

import typer

from metalgrad.cli_bench import measure

if __name__ == "__main__":
    typer.run(measure)
