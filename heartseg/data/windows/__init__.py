"""Square windows of M-mode recordings, on which models are trained."""
