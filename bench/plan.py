"""Which workloads there are, with which parameters: for a look every day, and for the figures in the documentation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Final

from bench.machine import SPARE_FILES
from bench.wires import GATHERED, SHORTEST, TUTORIAL
from bench.workloads import Span, Workload
from bench.workloads.catch_up import CatchUp
from bench.workloads.direct import Direct
from bench.workloads.heartbeat import Heartbeat
from bench.workloads.idle import Idle
from bench.workloads.logins import Logins
from bench.workloads.native import NativeRoomChat
from bench.workloads.pair import Pair
from bench.workloads.rate import Rate
from bench.workloads.room import RoomChat

WORKLOADS: Final = (
    "room", "members", "crowd", "rate", "pair", "direct", "heartbeat", "idle", "logins", "catch-up",
)  # fmt: skip
WIRES: Final = ("tcp", "websocket")
GENERATORS: Final = ("python", "c", "both")
MOST: Final = 20_000
MEMBERS: Final = (10, 100, 1000, 5000)
CROWDS: Final = (100, 5000)
PEER_VARIANT: Final = RoomChat(1, 500, in_flight=4)
"""What the peers do as well."""


@dataclass(frozen=True)
class Plan:
    """What to run, for how long, and how often."""

    workloads: Sequence[Workload]
    span: Span
    rounds: int


def quick() -> Plan:
    """Each workload once, small."""
    return Plan(
        [
            RoomChat(1, 500, in_flight=4, acks=SHORTEST),
            RoomChat(1, 500, in_flight=4),
            Rate(500, per_second=40),
            Pair(),
            Pair(receipts=True),
            Direct(),
            Heartbeat(),
            Idle(1000),
            Logins(1000),
            CatchUp(200, 50),
        ],
        Span(seconds=0.5, warm_up=0.2),
        rounds=3,
    )


def full(files: int) -> Plan:
    """Everything, with as many connections as `files` allow where many are the point."""
    most = min(MOST, files - SPARE_FILES)
    rooms = [
        RoomChat(*size, in_flight=in_flight, acks=acks)
        for size, acks, in_flight in product(
            ((1, 500), (10, 100), (1, 5000)), (SHORTEST, TUTORIAL, GATHERED), (1, 4, 16)
        )
        if acks != GATHERED or in_flight == 4
    ]
    # A room of ten can have four messages in flight; the same for each size, so that only the size differs.
    members = [RoomChat(1, size, senders=4, in_flight=4, name="members") for size in MEMBERS]
    crowds = [RoomChat(1, 100, senders=4, in_flight=4, idle=crowd - 100, name="crowd") for crowd in (*CROWDS, most)]
    rates = [Rate(500, per_second=40), Rate(500, per_second=0)]
    others: list[Workload] = [
        Pair(),
        Pair(receipts=True),
        *(Direct(50, in_flight) for in_flight in (1, 16, 64)),
        Heartbeat(50),
        Heartbeat(500),
        Idle(5000),
        Idle(most),
        Logins(5000),
        CatchUp(),
    ]
    return Plan([*rooms, *members, *crowds, *rates, *others], Span(seconds=3.0, warm_up=1.0), rounds=3)


def with_generator(plan: Plan, generator: str) -> Plan:
    """The plan with rooms loaded by clients in Python, in C, or both in turn, where those in C can do it."""
    workloads: list[Workload] = []
    for one in plan.workloads:
        native = NativeRoomChat(**vars(one)) if _can_be_native(one) and generator != "python" else None
        if native is None or generator == "both":
            workloads.append(one)
        if native is not None:
            workloads.append(native)
    return replace(plan, workloads=workloads)


def peers_do(one: Workload) -> bool:
    """Whether it is what the peers do as well, with either generator."""
    return isinstance(one, RoomChat) and RoomChat(**vars(one)) == PEER_VARIANT


def _can_be_native(one: Workload) -> bool:
    return type(one) is RoomChat and not one.idle and one.acks != GATHERED


def chosen(plan: Plan, workloads: Sequence[str], variant: str, files: int) -> tuple[Plan, list[str]]:
    """The part of a plan that is wanted and possible, and what is not possible."""
    wanted = [one for one in plan.workloads if one.name in workloads and variant in one.variant]
    fits = [one for one in wanted if one.connections + SPARE_FILES <= files]
    left_out = [
        f"{one.name} {one.variant}: left out, for it needs `ulimit -n {one.connections + SPARE_FILES}`, not {files}"
        for one in wanted
        if one not in fits
    ]
    return replace(plan, workloads=fits), left_out
