"""Say hello in a room, and print what the others say, over TCP.

With a server that lets any room be entered (`QIYU_LIVING__REQUIRE_OPEN_ROOM=false make serve`), or a room that is open:

    QIYU_TOKEN=$(qiyu token 10001 --name ann | cut -d' ' -f2) python examples/tcp_room_chat.py 10001 1
"""

import os
import sys

import trio

from qiyu.client import ClientError, Error, Message, connect


async def main(user_id: int, room_id: int) -> None:
    token = os.environ["QIYU_TOKEN"]
    async with connect("tcp://127.0.0.1:8085", user_id=user_id, token=token, room_id=room_id) as client:
        await client.send_room("hello, everybody")
        async for item in client:
            match item:
                case Message(sender_id=sender, content=content):
                    print(f"{sender}: {content!r}", flush=True)
                case Error(reason=reason):
                    print(f"refused: {reason}", file=sys.stderr)


try:
    trio.run(main, int(sys.argv[1]), int(sys.argv[2]))
except ClientError as error:
    sys.exit(str(error))
