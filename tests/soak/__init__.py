"""A long run: clients come and go in every way there is, and what the server holds is to stay what it was.

`make soak` runs it. `crowd` is a process full of clients, `run` disturbs them, `watch` judges what was measured.
"""
