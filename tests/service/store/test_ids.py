"""Ids that sort."""

from prunus.service.store.ids import new_ids


def test_ids_sort_by_time_and_place_and_are_safe_in_paths() -> None:
    early, late = new_ids("j", 3, 1000.0), new_ids("j", 2, 1000.002)
    assert sorted([*late, *early]) == [*early, *late]
    assert all(len(name) == 15 and name.replace("-", "").isalnum() and name == name.lower() for name in early)
