"""File formats: each module reads one into frames (T, H, W) and their geometry."""
