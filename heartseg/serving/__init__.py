"""Segmentation over HTTP: a REST API, a web page, and the network on Ray Serve."""
