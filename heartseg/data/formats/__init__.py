"""File formats: each module reads one format into frames (T, H, W) and their geometry."""
