from __future__ import annotations

from typing import Any

import pytest

from flows.support import submitted_ahead


@pytest.mark.parametrize(
    ("items", "most", "ahead"),
    [
        (0, [9], []),
        (2, [9], [2, 2]),
        (5, [2], [2, 3, 4, 5, 5]),
        (5, [1, 4], [1, 5, 5, 5, 5]),  # workers came
        (5, [4, 1], [4, 4, 4, 4, 5]),  # workers went
    ],
)
def test_so_many_tasks_are_ahead_as_are_worked_on(
    items: int, most: list[int], ahead: list[int]
) -> None:
    """How many were submitted when each item was given, in their order."""
    submitted: list[int] = []

    def submit(item: int) -> Any:
        submitted.append(item)
        return item * 10

    said = iter(most)
    last = most[-1]
    found = []
    future: Any
    for item, future in submitted_ahead(range(items), submit, lambda: next(said, last)):
        assert future == item * 10
        found.append(len(submitted))
    assert found == ahead
    assert submitted == list(range(items))
