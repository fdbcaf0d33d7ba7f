"""Networks with the weights of 0.4.0 in our models: same names, outputs, penalties, gradients."""

import pytest

from golden import assert_extracts_close, measures, recorded

THEIRS = recorded("networks")


@pytest.mark.parametrize("name", measures.NETWORKS)
def test_a_published_checkpoint_trains_on_here_as_it_did_there(name: str) -> None:
    ours, other = measures.networks([name])[name], THEIRS[name]
    assert ours["keys"] == other["keys"]
    for part, tolerance in (("training", 1e-4), ("eval", 1e-4), ("gradient", 1e-6)):
        assert other[part][0] > 0
        assert_extracts_close(ours[part], other[part], tolerance)
    assert ours["penalty"] == pytest.approx(other["penalty"], rel=1e-5)
    assert (ours["penalty"] > 0) == ("_bsconvs" in name)
