"""The checks of `heartseg doctor` on nodes and data. `tracking` and `cluster` have others."""
