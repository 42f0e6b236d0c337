"""The HTTP face of Troth: start workflows, look at promises and settle them, over HTTP and JSON.

It is a thin layer: each route is one verb of the client, which is one SQL function. It keeps no state, so any number of
its processes serve one namespace side by side. `create_app` makes the application for a server of yours; `troth-api`
and `python -m troth_api` serve it with granian.
"""

from troth_api.app import create_app, create_from_environment
from troth_api.settings import Settings

__all__ = ["Settings", "create_app", "create_from_environment"]
