"""Which replica answers a request, who waits, and who is refused: decided without a socket or a clock of its own.

A request goes to the replica with the largest share of free places. When all places are taken it waits in one queue
for all replicas, so that none of them is idle while another has a queue. It is refused (429) when the queue is full
or when, by Little's law (wait = waiting * time of one answer / places), its turn would come too late: it may wait as
long as an answer takes (0.1 s at least), so that the answer comes within twice the usual time, and never longer than
``max_wait_s``.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Balance", "Room", "Ticket"]

_MEMORY = 0.05  # weight of the newest answer in the running mean
_SHORT_S = 0.1


@dataclass
class Ticket:
    """One request on its way.

    Attributes:
        message: What a replica is told: method, path, query, headers, body, client.
        done: Called once with the answer (status, headers, body).
        may_repeat: Whether a second replica may be asked when the first is lost.
        number: Of the request, at its replica.
        sent_at: When a replica got it, or while it waits, when it came, seconds.
        open: Whether anyone still waits for the answer.
    """

    message: list[Any]
    done: Callable[[int, list[Any], bytes], None]
    may_repeat: bool = True
    number: int = 0
    sent_at: float = 0.0
    open: bool = True


@dataclass
class Room:
    """One replica as the door sees it.

    Attributes:
        name: Of the replica.
        slots: Requests it works on at a time.
        send: Gives it a request.
        busy: Its requests under way by their numbers.
    """

    name: str
    slots: int
    send: Callable[[Ticket], None]
    busy: dict[int, Ticket] = field(default_factory=dict)


class Balance:
    """The rooms, the one queue before them, and the rules.

    Args:
        max_queued: Most requests that wait; -1: no limit.
        max_wait_s: Longest time that a request may be expected to wait.
    """

    def __init__(self, *, max_queued: int, max_wait_s: float) -> None:
        self.rooms: list[Room] = []
        self.waiting: deque[Ticket] = deque()
        self.refused = 0
        self._max_queued, self._max_wait_s = max_queued, max_wait_s
        self._mean_s = 0.0
        self._number = 0

    def join(self, room: Room, now: float) -> None:
        """Let a replica take part; it gets of the queue what it has places for."""
        self.rooms.append(room)
        while self.waiting and len(room.busy) < room.slots:
            self._send(room, self._next(), now)

    def leave(self, room: Room) -> list[Ticket]:
        """Send nothing more to a replica; returns what it has under way."""
        if room in self.rooms:
            self.rooms.remove(room)
        return list(room.busy.values())

    def offer(self, ticket: Ticket, now: float) -> float | None:
        """Send the request, let it wait, or refuse it: then the seconds after which it is worth asking again."""
        room = self._freest()
        if room is not None:
            self._send(room, ticket, now)
            return None
        wait = self.expected_wait_s()
        full = 0 <= self._max_queued <= len(self.waiting)
        most = min(self._max_wait_s, max(_SHORT_S, self._mean_s))
        if full or (self.waiting and wait > most):
            self.refused += 1
            return max(1.0, math.ceil(wait))
        ticket.sent_at = now
        self.waiting.append(ticket)
        return None

    def again(self, ticket: Ticket, now: float) -> None:
        """Give a request whose replica was lost to another one, ahead of those that wait."""
        ticket.may_repeat = False
        room = self._freest()
        if room is not None:
            self._send(room, ticket, now)
        else:
            self.waiting.appendleft(ticket)

    def finish(self, room: Room, number: int, now: float) -> Ticket | None:
        """Take note of an answer, and give the free place to the first that waits."""
        ticket = room.busy.pop(number, None)
        if ticket is None:
            return None
        took = now - ticket.sent_at
        self._mean_s += _MEMORY * (took - self._mean_s) if self._mean_s else took
        if self.waiting and room in self.rooms and len(room.busy) < room.slots:
            self._send(room, self._next(), now)
        return ticket

    def expected_wait_s(self) -> float:
        """Seconds until a request that comes now would have its turn."""
        places = sum(room.slots for room in self.rooms)
        return (len(self.waiting) + 1) * self._mean_s / places if places else 0.0

    def under_way(self) -> int:
        """Requests at replicas."""
        return sum(len(room.busy) for room in self.rooms)

    def _freest(self) -> Room | None:
        best, share = None, 1.0
        for room in self.rooms:
            load = len(room.busy) / room.slots
            if load < share:
                best, share = room, load
        return best

    def _next(self) -> Ticket:
        while len(self.waiting) > 1 and not self.waiting[0].open:  # whoever has hung up needs no place
            self.waiting.popleft()
        return self.waiting.popleft()

    def _send(self, room: Room, ticket: Ticket, now: float) -> None:
        self._number += 1
        ticket.number, ticket.sent_at = self._number, now
        room.busy[ticket.number] = ticket
        room.send(ticket)
