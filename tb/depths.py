"""Which depths of a pipeline each run of the tests takes."""
import pytest

__all__ = ["depths"]


def depths(most):
    """Parameters 0 to ``most``, of which few are not slow: without cuts, with the first, with half and with all of them."""
    few = {0, 1, most // 2, most}
    return [pytest.param(n, marks=() if n in few else pytest.mark.slow) for n in range(most + 1)]
