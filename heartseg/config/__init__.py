"""Configuration: params.yaml, recipes and sweep files as typed, validated objects."""
