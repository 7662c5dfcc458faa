"""Downloads of the published data sets; `python -m segstrat.data.download`."""
