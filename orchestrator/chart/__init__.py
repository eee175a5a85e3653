"""The progress chart as a picture file: which values are shown (values), and how (draw).

It is given what it draws and asks nobody. The page draws its own, in the browser.
"""
