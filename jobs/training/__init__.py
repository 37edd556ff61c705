"""One job from its spec to the last step: put together, trained, checkpointed."""
