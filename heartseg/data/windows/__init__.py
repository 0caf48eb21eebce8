"""Square windows of M-mode recordings: the source that a model is trained on."""
