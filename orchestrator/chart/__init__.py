"""The progress chart as a picture file: `values` chooses what is shown, `draw` draws it.

The dashboard draws its own chart in the browser.
"""
