"""Processes by id and start time."""

import os

import psutil

from prunus.service.local import processes


def test_a_process_is_known_by_its_start_time_too() -> None:
    me = processes.ProcessId(pid=os.getpid(), started=psutil.Process().create_time())
    assert processes.is_alive(me)
    assert not processes.is_alive(me.model_copy(update={"started": me.started - 60.0}))
