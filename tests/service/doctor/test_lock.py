"""The lock file as the doctor reads it."""

from prunus.service.doctor.lock import locked_versions, parse_lock


def test_a_lock_is_read_by_normalised_name() -> None:
    text = "# torch==1.0\nPyYAML==6.0.3\nimportlib_metadata==9.1.0  # why\n\ntypes-PyYAML==6.0.12.20261113\n"
    assert parse_lock(text) == {
        "pyyaml": "6.0.3",
        "importlib-metadata": "9.1.0",
        "types-pyyaml": "6.0.12.20261113",
    }


def test_the_shipped_lock_names_the_torch_that_is_set_up() -> None:
    assert locked_versions()["torch"] == "2.13.0"
