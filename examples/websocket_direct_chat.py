"""Answer each direct message with its own words, over WebSocket, with an account.

Against `make serve`, with an account that `echo 'correct horse' | qiyu user add echo` has made:
ECHO_PASSWORD='correct horse' python examples/websocket_direct_chat.py echo
It says its number; `qiyu chat --user 20000 --to` that number talks to it.
"""

import os
import sys

import trio

from qiyu.client import Api, ClientError, Message, RequestRefused, connect


async def main(name: str) -> None:
    api = Api("http://127.0.0.1:8080")
    user = await api.log_in(name, os.environ["ECHO_PASSWORD"])
    # api.access says where to connect, with a fresh token, before each connection.
    async with connect(api.access, user_id=user) as client:
        print(f"answering as {user}", flush=True)
        async for item in client:
            if isinstance(item, Message) and item.is_direct:
                try:
                    await client.send_direct(item.sender_id, f"you said: {item.content}")
                except RequestRefused as refused:
                    print(f"to {item.sender_id}: {refused}", flush=True)


try:
    trio.run(main, sys.argv[1])
except ClientError as error:
    sys.exit(str(error))
