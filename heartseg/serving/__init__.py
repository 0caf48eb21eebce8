"""Segmentation over HTTP: a REST API, a page, and the network on Ray Serve behind them."""
