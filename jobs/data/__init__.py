"""Data of a job: found, tokenised, cached and cut into each rank's batches. Knows no model and no loop.

Text: ``pipeline.rows`` -> ``text.packing`` or ``text.classification`` (tokens) -> ``pipeline.cache`` (disk) ->
``pipeline.order`` (which sequence at which step) -> ``text.masking`` or padding -> ``pipeline.batches``.
Speech: ``speech.clips`` -> ``speech.units`` -> ``speech.batches``.
"""
