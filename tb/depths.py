"""Which depths of a pipeline each run of the tests takes."""
import pytest

__all__ = ["depths", "depths_of", "ends"]


def depths(most):
    """Parameters 0 to ``most``, of which few are not slow: without cuts, with the first, with half and with all of them."""
    few = {0, 1, most // 2, most}
    return [pytest.param(n, marks=() if n in few else pytest.mark.slow) for n in range(most + 1)]


def depths_of(parameters, name, choices, **options):
    """Parameters of each of ``choices`` of the parameter ``name``, with the depths that it has then."""
    cases = []
    for choice in choices:
        for case in depths(len(parameters(**{name: choice}, **options).cuts)):
            cases.append(pytest.param(choice, *case.values, marks=case.marks))
    return cases


def ends(cases):
    """Parameters as those of ``cases``, whose last value is a pipeline's depth; of those alike but for that only the first and the
    last are not slow.
    """
    cases = [case if isinstance(case, type(pytest.param())) else pytest.param(case) for case in cases]
    alike = {}
    for case in cases:
        alike.setdefault(case.values[:-1], []).append(case)
    return [pytest.param(*case.values, id=case.id, marks=() if case in (same[0], same[-1]) else pytest.mark.slow)
            for same in alike.values() for case in same]
