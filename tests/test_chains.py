"""Chains in chunks: where they are cut, and what is kept of them."""

from types import SimpleNamespace

import numpy as np
import pytest

from metalgrad.chains import CHUNK, Run
from metalgrad.logs import Log
from metalgrad.thinning import join, thin


@pytest.mark.parametrize(("warmup", "draws"), [(0, 10), (50, 100), (60, 110), (7, 3)])
def test_chunks_cover_all_iterations(warmup, draws):
    spans = Run.spans(SimpleNamespace(warmup=warmup), draws, 0)
    ends = [end for _, end in spans]
    assert [start for start, _ in spans] == [0, *ends[:-1]]
    assert ends[-1] == warmup + draws
    assert all(0 < end - start <= CHUNK for start, end in spans)
    assert warmup in (0, *ends)
    for done in ends:
        rest = Run.spans(SimpleNamespace(warmup=warmup), draws, done)
        assert rest == [span for span in spans if span[1] > done]


@pytest.mark.parametrize("stride", [1, 3, 7, 40])
def test_every_nth_draw_is_kept_whole_wherever_chains_are_cut(stride):
    draws, logs = np.arange(110.0), [Log(None), Log(None)]
    for chain, log in enumerate(logs):
        for start in range(0, len(draws), CHUNK):
            some = draws[start : start + CHUNK, None] + 1000 * chain
            chunk = {"theta": some, "z": some[..., None], "statistics": {"lp": some}}
            chunk["sites"] = {"slope": some[:, 0], "line_flux": some[..., None]}
            log.add(start, None, thin(chunk, start, stride))
    whole = join(logs, stride)
    assert whole["every"] == stride
    np.testing.assert_array_equal(whole["sites"]["slope"], [draws, draws + 1000])
    np.testing.assert_array_equal(whole["kept"]["theta"][0, :, 0], draws[::stride])
    assert whole["kept"]["z"].shape == whole["kept"]["line_flux"].shape
    assert "line_flux" not in whole["sites"]
