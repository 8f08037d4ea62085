"""Say hello in a room, and print what is said there, over TCP.

Against `QIYU_LIVING__REQUIRE_OPEN_ROOM=false make serve`:
QIYU_TOKEN=$(qiyu token 10001 --name ann | cut -d' ' -f2) python examples/tcp_room_chat.py 10001 1
"""

import os
import sys

import trio

from qiyu.client import ClientError, Message, connect


async def main(user: int, room: int) -> None:
    async with connect("tcp://127.0.0.1:8085", user_id=user, token=os.environ["QIYU_TOKEN"], room_id=room) as client:
        print("stored as", await client.send_room("hello, everybody"))
        async for item in client:
            print(f"{item.sender_id}: {item.content!r}" if isinstance(item, Message) else item, flush=True)


try:
    trio.run(main, int(sys.argv[1]), int(sys.argv[2]))
except ClientError as error:
    sys.exit(str(error))
