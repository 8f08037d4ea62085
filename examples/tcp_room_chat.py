"""Say hello in a room, and print what is said there, over TCP.

Against `QIYU_LIVING__REQUIRE_OPEN_ROOM=false make serve`, in the same folder: python examples/tcp_room_chat.py 10001 1
"""

import sys

import trio

from qiyu.client import ClientError, Message, connect


async def main(user: int, room: int) -> None:
    async def fresh_token() -> str:  # for each connection; in your program, your backend makes it
        made = await trio.run_process(["qiyu", "token", str(user), "--name", "ann"], capture_stdout=True)
        return made.stdout.decode().split()[1]

    async with connect("tcp://127.0.0.1:8085", user_id=user, token=fresh_token, room_id=room) as client:
        print("stored as", await client.send_room("hello, everybody"))
        async for item in client:
            print(f"{item.sender_id}: {item.content!r}" if isinstance(item, Message) else item, flush=True)


try:
    trio.run(main, int(sys.argv[1]), int(sys.argv[2]))
except ClientError as error:
    sys.exit(str(error))
