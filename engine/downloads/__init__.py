"""Models on this machine: fetched, verified, shared, moved. Imports no torch.

catalogue.py  the models that the studio knows, their licences and sizes
hub.py        the hub's protocol: listings, files in ranges, retries. token.py: who you are, for models that ask
partial.py    one file on its way: which bytes have arrived, kept beside it on disk
transfer.py   several files over several connections, verified before they get their names
manifest.py   what is known of a model; layout.py: whether a folder holds one
files.py      files on this machine's drives: linked, copied, found by content, held by one process at a time
shelf.py      the models folder: installing, verifying, removing, moving
background.py a download behind a page
cli.py        the models command
"""

from engine.downloads.catalogue import CATALOGUE, Entry, find_entry
from engine.downloads.hub import DownloadError, Hub
from engine.downloads.manifest import Installed
from engine.downloads.shelf import Shelf
from engine.downloads.transfer import Progress

__all__ = ["CATALOGUE", "DownloadError", "Entry", "Hub", "Installed", "Progress", "Shelf", "find_entry"]
