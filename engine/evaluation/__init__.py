"""Scores of clips: is it what was asked for, and does the sound belong to the picture?

onsets.py         when something sounds
judges.py         the referee: what is seen, what is heard, when something happens in the picture
train_referee.py  makes the referee's weights
sync.py           visual events against onsets
scores.py         all figures of a set of clips; table, JSON
runs.py           captions to try a model with, and the clips it makes of them
sheet.py          contact sheet with waveforms
cli.py            python launch.py evaluate
"""
