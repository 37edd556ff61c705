"""Small recipes that the tests of this room bend."""

import pytest

from prunus.configs import Campaign, ConfigError, load_text

JOB = """\
name: a
task: {name: masked_lm, data: {train: {files: [a.txt]}}}
model: {from: org/x}
train: {num_steps: 10, lr: {peak: 5e-5}}
"""
"""A whole recipe of one job; the next free line is 5."""


def item(text: str = JOB) -> str:
    """One job as an item of ``jobs:``."""
    return "- " + text.strip().replace("\n", "\n  ") + "\n"


def campaign(*jobs: str, head: str = "campaign: c\n") -> str:
    return head + "jobs:\n" + "".join(item(job) for job in jobs)


def job(name: str, **changed: str) -> str:
    """``JOB`` under another name, with lines put in place of its own or added."""
    lines = dict(line.split(": ", 1) for line in JOB.strip().split("\n"))
    lines |= {"name": name, **changed}
    return "".join(f"{key}: {value}\n" for key, value in lines.items())


def load(text: str, *overrides: str) -> Campaign:
    return load_text(text, file="r.yaml", overrides=overrides)


def refusal(text: str, *overrides: str) -> str:
    """The message with which a recipe is refused."""
    with pytest.raises(ConfigError) as caught:
        load(text, *overrides)
    return str(caught.value)
