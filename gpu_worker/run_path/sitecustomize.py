"""Executed by every Python of a run at its start: takes the checkout out of sys.path.

The editable install of a checkout puts its folder there, so train.py could import whatever lies in
it: the same source would give another result after that file changes. workspace.py puts this folder
first into PYTHONPATH, and the folders to take out into AUTORESEARCH_NOT_IMPORTABLE.
"""
# ruff: noqa: INP001  (a folder for sys.path, no package)

import os
import sys

_folders = os.environ.get("AUTORESEARCH_NOT_IMPORTABLE", "").split(os.pathsep)
_folders.append(os.path.dirname(__file__))  # noqa: PTH120 - pathlib is slow to import
_hidden = {os.path.realpath(folder) for folder in _folders if folder}
sys.path[:] = [path for path in sys.path if os.path.realpath(path) not in _hidden]

# The environment may have a module of this name too. Python ignores it if there is none.
del sys.modules["sitecustomize"]
__import__("sitecustomize")
