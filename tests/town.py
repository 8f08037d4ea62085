"""A harness with people in it, and a database that the test goes through step by step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from harness import (
    BIZ,
    Harness,
    Received,
    TcpClient,
)
from memory_database import MemoryStore
from qiyu.services.batch import Batch

ALICE, BOB, CAROL = 10_001, 10_002, 10_003


@dataclass
class Town:
    """Alice and Bob in room 7, Carol nowhere, and a database that does nothing by itself."""

    harness: Harness
    alice: TcpClient
    bob: TcpClient
    carol: TcpClient

    @classmethod
    def make(cls, store: MemoryStore | None = None, **sections: dict[str, Any]) -> Town:
        harness = Harness(store, **sections)
        town = cls(harness, harness.log_in(ALICE, room=7), harness.log_in(BOB, room=7), harness.log_in(CAROL))
        harness.stores_at_once = False
        return town

    def lose_the_answer(self, *, committed: bool) -> Batch:
        """A batch whose commit fails, as far as anybody can see."""
        batch = self.harness.take()
        self.harness.lose(batch, committed=committed)
        return batch

    def history(self) -> list[str]:
        """What is stored, the oldest first."""
        with self.harness.store.engine.begin() as c:
            rows = c.exec_driver_sql("SELECT data FROM t_im_message ORDER BY msg_id").all()
        return [Received(BIZ, {"data": data}).data["content"] for (data,) in rows]

    def inbox(self) -> list[int]:
        """The msgIds that somebody has not acknowledged, the oldest first."""
        with self.harness.store.engine.begin() as c:
            return list(c.exec_driver_sql("SELECT msg_id FROM t_im_inbox ORDER BY msg_id").scalars())
