"""The page of a comparison."""

from prunus.configs.artifacts.comparison.compare import compare
from prunus.configs.artifacts.comparison.tables import report
from tests.configs.artifacts.comparison.compared_artifacts import candidate


def test_the_page_has_chance_above_the_diagonal() -> None:
    text = report(compare([candidate("x", "x"), candidate("y", "y"), candidate("z", "z")]), "Title")
    assert text.startswith("# Title\n\n## Metrics against sparsity")
    lines = text.split("### IOU of the kept positions\n\n")[1].split("\n")
    assert lines[:5] == [
        "|  | x | y | z |",
        "| --- | --- | --- | --- |",
        "| x | 1.0000 | *0.3333* | *–* |",
        "| y | 0.5000 | 1.0000 | *–* |",
        "| z | – | – | 1.0000 |",
    ]
    assert "| a | 0.5000 | 0.5000 | 0.5000 |\n| b | 0.5000 | 0.5000 | – |" in text
    assert "## Left out\n\n- x, y and z are not compared" in text


def test_the_page_of_many_masks_leaves_the_matrix_to_the_pictures() -> None:
    text = report(compare([candidate(f"x{i}", "x") for i in range(13)]), "Title")
    assert "13 masks: the matrices are in `comparison.json` and in the pictures" in text
    assert "IOU of the kept positions" not in text


def test_the_page_has_a_table_over_two_keys() -> None:
    rates = {("es", "es"): 0.1, ("es", "tr"): 0.2, ("tr", "es"): 0.3, ("tr", "tr"): 0.4}
    jobs = [candidate(f"{a}-{b}", "x", labels={"from": a, "to": b}, per=rate) for (a, b), rate in rates.items()]
    page = report(compare(jobs, ["from", "to"]), "Transfer")
    assert "### eval/per, from x to: sparsity 0.5" in page  # x removes 3 of 6
    assert "| from / to | es | tr |\n| --- | --- | --- |\n| es | 0.1000 | 0.2000 |\n| tr | 0.3000 | 0.4000 |" in page
