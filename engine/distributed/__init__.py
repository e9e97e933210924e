"""Several devices in one machine, from outside the networks: guidance branches side by side, and long sequences shared.

group.py      one process a device: starting them, and what they have to say to each other
guidance.py   each process computes its branches; one small exchange a step; exact
ulysses.py    each process holds a part of the picture's tokens; attention exchanges heads (arXiv 2309.14509)
"""
