"""What the picture costs, and how late it is: `python -m bench.video`.

Apart from `python -m bench`, for it needs ffmpeg and a browser, and few of its figures have an equal elsewhere.
"""
