"""The tape as it is used: backward, checkpointed regions, gradients."""
