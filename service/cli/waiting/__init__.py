"""Waiting for jobs: one poll loop behind ``wait``, ``submit --wait``, ``--follow`` and ``logs -f``.

The server may restart meanwhile: silence is told and endured for a while, nothing is concluded from it. Ending the
loop (Ctrl-C) never ends a job.
"""
