"""All orders of two processes without failures, and of one process with one failure.

`tests/simulation/test_orders.py` continues from here.
"""

from __future__ import annotations

import pytest

from tests.simulation.orders import enumerate_orders
from tests.simulation.run import quiet


@pytest.mark.parametrize("processes, faults", [(2, 0), (1, 1)])
def test_every_promise_is_kept_in_all_orders(processes: int, faults: int) -> None:
    with quiet():
        found = enumerate_orders(processes, faults=faults, takeovers=1)
    assert not found.violation, found.trace
    assert found.complete
    assert found.orders > 50
