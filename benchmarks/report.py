"""Turn what ``metalgrad bench`` measured into ``benchmarks/README.md`` and a picture.

Run ``python benchmarks/report.py [FOLDER]`` (``benchmarks/results`` by default). What
stands between the two marks in the README is replaced, and nothing else.
"""

import json
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np

from metalgrad.bench_measures import ENOUGH
from metalgrad.files import NewFile

HERE = Path(__file__).parent
README, PICTURE = HERE / "README.md", HERE / "results" / "rivals.png"
BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"
DEVICES = ("cpu", "cuda")
NAMES = {
    "metalgrad": "metalgrad",
    "numpyro": "NumPyro NUTS, the same model",
    "blackjax": "BlackJAX NUTS, window adaptation",
    "nutpie": "nutpie, JAX density",
    "emcee": "emcee",
    "naive": "NumPyro NUTS, all channels, continuum sampled",
}
CASES = {"table": "independent spaxels, no PSF", "cube": "default model, with PSF"}
HEAD = (
    f"| data | sampler | s to ESS {ENOUGH} | with compilation | over metalgrad's "
    "| ESS/s | GB | comparable? |\n|---|---|---|---|---|---|---|---|"
)


def read(folder: Path) -> dict:
    """Read the results of each device; None where there is none."""
    paths = {device: folder / f"rivals_{device}.json" for device in DEVICES}
    return {
        device: json.loads(path.read_text()) if path.exists() else None
        for device, path in paths.items()
    }


def write_row(row: dict) -> str:
    """Write a row of the table of samplers."""
    spaxels = row.get("spaxels", row["size"])
    cells = [f"{spaxels} spaxels, {CASES[row['case']]}", NAMES[row["rival"]]]
    if "skipped" in row:
        return _line([*cells, "-", "-", "-", "-", "-", f"skipped: {row['skipped']}"])
    memory = f"{row['memory']:.2f}" if "memory" in row else "-"
    if "seconds" not in row:
        return _line([*cells, "-", "-", "-", "-", memory, f"no: {row['because']}"])
    about = "~" if row["extrapolated"] else ""
    ratio = f"{about}{row['ratio']:.1f}" if "ratio" in row else "1"
    return _line(
        [
            *cells,
            f"{about}{row['seconds']:.1f}",
            f"{about}{row['cold']:.1f}",
            f"({ratio})" if row["because"] else ratio,
            f"{row['ess_per_second']:.1f}",
            memory,
            f"no: {row['because']}" if row["because"] else "yes",
        ]
    )


def write_gradients(result: dict) -> str:
    """Write the table of gradients, and what it comes to."""
    rows = [row for row in result["gradient"] if "failed" not in row]
    lines = ["| spaxels | bits | µs per gradient | compiled in [s] | GB |"]
    lines += ["|---|---|---|---|---|"]
    lines += [
        _line(
            [
                str(row["size"]),
                str(row["bits"]),
                f"{row['median'] * 1e6:.0f}",
                f"{row['compilation']:.1f}",
                f"{row['memory']:.2f}",
            ]
        )
        for row in rows
    ]
    told = []
    if result.get("exponent") is not None:
        told.append(
            f"From 400 spaxels on the cost goes with the power {result['exponent']:.2f}"
            " of their number."
        )
    for row in (row for row in rows if row["bits"] == 32):
        twin = [r for r in rows if (r["bits"], r["size"]) == (64, row["size"])]
        if twin:
            exact = np.array(twin[0]["slope"])
            apart = np.linalg.norm(row["slope"] - exact) / np.linalg.norm(exact)
            told.append(
                f"At {row['size']} spaxels a gradient in single precision takes "
                f"{row['median'] / twin[0]['median']:.2f} of the time, and that of the "
                f"galaxy's parameters is {apart:.0e} off."
            )
    return "\n".join([*lines, "", " ".join(told)])


def write(results: dict) -> str:
    """Write what stands between the marks."""
    text = []
    for device, result in results.items():
        text.append(f"### {device.upper()}")
        if result is None:
            text.append("No run on such a device yet: nothing to show.")
            continue
        about = result["about"]
        versions = [f"{n} {v}" for n, v in about["versions"].items() if v]
        text.append(
            f"{about['device']}, {about['cores']} cores, load {about['load']} at the "
            f"start; Python {about['python']}, {', '.join(versions)}; commit "
            f"{about['commit']}; {about['date'][:10]}."
        )
        text.append("\n".join([HEAD, *map(write_row, result["rows"])]))
        text.append(write_gradients(result))
    return "\n\n".join(text)


def replace(text: str, new: str) -> str:
    """Put ``new`` between the marks of ``text``.

    Raises
    ------
    ValueError
        If it has not one of each.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"the README needs one line {BEGIN} and one line {END}")
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{new}\n\n{END}{rest.partition(END)[2]}"


def draw(results: dict):
    """Draw times to enough effective draws, and gradients against spaxels."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1.5, 1])
    rows = [
        (device, row)
        for device, result in results.items()
        for row in (result or {"rows": []})["rows"]
        if "seconds" in row
    ]
    for place, (_, row) in enumerate(rows):
        colour = "C1" if row["rival"] == "metalgrad" else "C0"
        face = "none" if row["because"] or row["extrapolated"] else colour
        left.barh(place, row["seconds"], color=face, edgecolor=colour)
        left.plot(row["cold"], place, "|", color="k", ms=9)
    left.set_yticks(range(len(rows)), [_label(device, row) for device, row in rows])
    left.invert_yaxis()
    left.set(xscale="log", xlabel=f"seconds to an ESS of {ENOUGH} of every parameter")
    left.set_title("| with compilation; hollow: not converged, or extrapolated", size=9)
    for number, (device, result) in enumerate(results.items()):
        for bits, marker in ((64, "o-"), (32, "s")):
            found = [r for r in (result or {"gradient": []})["gradient"]]
            found = [r for r in found if r.get("bits") == bits and "median" in r]
            if found:
                size, time = ([r[key] for r in found] for key in ("size", "median"))
                label = f"{device}, {bits} bits"
                time = np.array(time) * 1e6
                right.loglog(size, time, marker, color=f"C{number}", label=label)
    right.set(xlabel="spaxels", ylabel="µs per gradient")
    if right.get_lines():
        right.legend(frameon=False)
    return figure


def _label(device, row):
    return f"{row['case']} {row.get('spaxels', row['size'])}, {row['rival']} ({device})"


def _line(cells):
    return "| " + " | ".join(cells) + " |"


def main(folder: str = str(HERE / "results")):
    """Write README and picture."""
    mpl.use("Agg")
    results = read(Path(folder))
    with NewFile(README) as fresh:
        fresh.write_text(replace(README.read_text(), write(results)))
    with NewFile(PICTURE) as fresh:
        draw(results).savefig(fresh, dpi=130)


if __name__ == "__main__":
    main(*sys.argv[1:])
