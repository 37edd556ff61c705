"""Thin routes: each reads its input, asks one object, and answers with a type of ``service.wire``.

Routes are plain functions: they run in worker threads, since the database and the files they read block. In a path
CAMPAIGN/NAME is written CAMPAIGN:NAME.
"""
