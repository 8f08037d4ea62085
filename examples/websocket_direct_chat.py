"""Answer each direct message with its own words, over WebSocket.

Against `make serve`, with `qiyu chat --user 10001 --to 10002` to talk to it:
QIYU_TOKEN=$(qiyu token 10002 --name echo | cut -d' ' -f2) python examples/websocket_direct_chat.py 10002
"""

import os
import sys

import trio

from qiyu.client import ClientError, Message, RequestRefused, connect


async def main(user: int) -> None:
    async with connect("ws://127.0.0.1:8086", user_id=user, token=os.environ["QIYU_TOKEN"]) as client:
        async for item in client:
            if isinstance(item, Message) and item.is_direct:
                try:
                    await client.send_direct(item.sender_id, f"you said: {item.content}")
                except RequestRefused as refused:
                    print(f"to {item.sender_id}: {refused}", flush=True)


try:
    trio.run(main, int(sys.argv[1]))
except ClientError as error:
    sys.exit(str(error))
