"""Makes the environment and starts commands in it. Standard library only: it runs before anything is installed.

front.py     command line: which command, is the environment good, hand over
setup.py     builds the environment beside the old one, checks it, swaps it in
store.py     where environments lie on disk, their stamps, the lock between two set-ups
installer.py runs pip or uv and reports how far they are
backend.py   which build of torch fits this machine's graphics cards
package.py   makes and reads release archives
update.py    another version in the place of this one, and back
shortcuts.py entries in the start menu; uninstall.py: takes everything of ours away
smoke.py     runs inside a new environment: does it really work?
"""
