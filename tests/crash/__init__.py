"""Real kills: a server process, clients that chat, and everything that can go wrong between them, judged at the end.

    PYTHONPATH=tests python -m crash --seconds 60 --kills 20
    PYTHONPATH=tests python -m crash --database postgresql --url postgresql://postgres@127.0.0.1:5432/postgres

`people` is what the clients do, `databases` what is done to a database, `server` the process, `run` all together.
"""
