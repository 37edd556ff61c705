"""``prunus doctor``: what an environment has and lacks, and the one repair that it offers.

    probe (another process) -> facts -> lines, each with a remedy

This process loads neither torch nor Ray; ``probe`` runs as a program of its own.
"""
