"""Issuing as a queueing model: what follows for load and machines that were not measured.

A request takes processor time of the load generator, of the broker's worker
that has its connection, of OpenBao and of the database, and waits for the disk.
Processes compete for the cores of their machine. Of a worker, what needs the
interpreter's lock uses one core at a time; its other threads, OpenBao and
PostgreSQL use as many as there are. A commit takes everything that waits for
it. What a process does once for all requests under way together (waking up, a
transaction, a flush of a log) is divided among them.
"""

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Final

Done = Callable[[], None]
Waiting = Callable[[Done], None]
Steps = Generator[Waiting, None, None]

_WARM_UP: Final = 0.2


@dataclass(frozen=True, slots=True)
class Cost:
    """Processor time of one process for one credential, in seconds.

    Attributes:
        alone: Of a request that comes alone.
        busy: Of one among very many.
    """

    alone: float
    busy: float

    def among(self, requests: int) -> float:
        """Return the cost of each of so many requests under way together."""
        return self.busy + (self.alone - self.busy) / max(1, requests)


@dataclass(frozen=True, slots=True)
class Costs:
    """What one credential takes.

    Attributes:
        generator: Of the caller's process; none where callers are elsewhere.
        broker: Of a worker.
        vault: Of OpenBao.
        database: Of PostgreSQL; SQLite's is the broker's.
        flush: Seconds for which a commit waits for the disk.
        on_path: Which part of all processor time a caller waits for, 0 to 1; the rest comes after the reply.
        locked: Which part of a worker's time needs the interpreter's lock, 0 to 1.
    """

    generator: Cost
    broker: Cost
    vault: Cost
    database: Cost
    flush: float
    on_path: float = 1.0
    locked: float = 1.0


@dataclass(frozen=True, slots=True)
class Place:
    """What runs where.

    Attributes:
        workers: Processes of the broker.
        cores: Of the one machine that everything shares; or of OpenBao's and of the database's, where
            each worker has a core of its own.
        shared: Whether it is one machine.
        commits_together: Whether one flush serves all workers, as PostgreSQL's does; SQLite takes one
            worker after the other.
    """

    workers: int
    cores: int
    shared: bool = True
    commits_together: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What callers saw: credentials a second, and sorted seconds that each took."""

    rate: float
    waits: Sequence[float]

    def wait(self, share: float) -> float:
        """Return the time that this share of all did not exceed."""
        return self.waits[min(len(self.waits) - 1, int(share * len(self.waits)))]


class _Clock:
    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Done]] = []
        self._number = itertools.count()

    def after(self, seconds: float, done: Done) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._number), done))

    def run(self, until: float) -> None:
        while self._events and self._events[0][0] <= until:
            self.now, _, done = heapq.heappop(self._events)
            done()

    def start(self, steps: Steps) -> None:
        """Take the steps one after the other, each when what it waits for has come."""
        for wait in steps:
            wait(lambda: self.start(steps))
            return


@dataclass(slots=True)
class _Load:
    under_way: int = 0


class _Machine:
    """Cores that processes compete for, in turns."""

    def __init__(self, clock: _Clock, cores: int, load: _Load) -> None:
        self.clock = clock
        self.load = load
        self._free = cores
        self._processes: list[_Process] = []

    def add(self, process: "_Process") -> None:
        self._processes.append(process)

    def dispatch(self) -> None:
        while self._free:
            ready = next((one for one in self._processes if one.ready), None)
            if ready is None:
                return
            # Whoever got a core waits behind all others for the next.
            self._processes.remove(ready)
            self._processes.append(ready)
            self._free -= 1
            ready.run_one(self._ended)

    def _ended(self) -> None:
        self._free += 1
        self.dispatch()


class _Process:
    """Something that runs on a machine, with so many things at a time."""

    def __init__(self, machine: _Machine, at_once: int, cost: Cost) -> None:
        self._machine = machine
        self._at_once = at_once
        self._cost = cost
        self._running = 0
        self._queue: deque[tuple[float, Done]] = deque()
        machine.add(self)

    @property
    def ready(self) -> bool:
        return bool(self._queue) and self._running < self._at_once

    def work(self, share: float) -> Waiting:
        """Return the wait for this share of what a credential costs here."""

        def wait(done: Done) -> None:
            seconds = share * self._cost.among(self._machine.load.under_way)
            if not seconds:
                done()
                return
            self._queue.append((seconds, done))
            self._machine.dispatch()

        return wait

    def run_one(self, ended: Done) -> None:
        seconds, done = self._queue.popleft()
        self._running += 1

        def end() -> None:
            self._running -= 1
            done()
            ended()

        self._machine.clock.after(seconds, end)


@dataclass(slots=True)
class _Disk:
    """One flush at a time, for all who wait together."""

    clock: _Clock
    seconds: float
    together: bool
    waiting: dict[int, list[Done]] = field(default_factory=dict)
    busy: bool = False

    def commit(self, worker: int) -> Waiting:
        def wait(done: Done) -> None:
            if not self.seconds:
                done()
                return
            self.waiting.setdefault(0 if self.together else worker, []).append(done)
            self._flush()

        return wait

    def _flush(self) -> None:
        if self.busy or not self.waiting:
            return
        group = self.waiting.pop(next(iter(self.waiting)))
        self.busy = True

        def end() -> None:
            for done in group:
                done()
            self.busy = False
            self._flush()

        self.clock.after(self.seconds, end)


class _Stack:
    """All processes, and the way of a request through them."""

    def __init__(self, clock: _Clock, costs: Costs, place: Place) -> None:
        self._clock = clock
        self._on_path = costs.on_path
        self._load = _Load()
        machine = _Machine(clock, place.cores, self._load)
        elsewhere = machine if place.shared else _Machine(clock, place.cores, self._load)
        generator = machine if place.shared else _Machine(clock, 1, self._load)
        self._generator = _Process(generator, 1, costs.generator)
        self._locked = costs.locked
        self._workers = []
        for _ in range(place.workers):
            own = machine if place.shared else _Machine(clock, 1, self._load)
            self._workers.append((_Process(own, 1, costs.broker), _Process(own, place.cores, costs.broker)))
        self._vault = _Process(machine, place.cores, costs.vault)
        self._database = _Process(elsewhere, place.cores, costs.database)
        self._disk = _Disk(clock, costs.flush, place.commits_together)

    def request(self, number: int) -> Steps:
        """Yield what one request waits for, one thing after the other."""
        chosen, part = number % len(self._workers), self._on_path
        interpreter, threads = self._workers[chosen]
        locked, free = self._locked, 1 - self._locked
        self._load.under_way += 1
        yield self._generator.work(part / 2)
        yield interpreter.work(part * locked / 2)
        yield self._vault.work(part)
        yield interpreter.work(part * locked / 4)
        yield threads.work(part * free)
        yield self._database.work(part)
        yield self._disk.commit(chosen)
        yield interpreter.work(part * locked / 4)
        yield self._generator.work(part / 2)
        self._load.under_way -= 1
        rest = 1 - part
        interpreter.work(rest * locked)(lambda: None)
        threads.work(rest * free)(lambda: None)
        for process in (self._vault, self._database, self._generator):
            process.work(rest)(lambda: None)


def closed(costs: Costs, place: Place, callers: int, seconds: float = 3.0) -> Outcome:
    """Let that many callers ask again as soon as they are answered."""
    clock, waits = _Clock(), list[float]()
    stack = _Stack(clock, costs, place)

    def caller(number: int) -> Steps:
        while True:
            began = clock.now
            yield from stack.request(number)
            if clock.now >= _WARM_UP:
                waits.append(clock.now - began)

    for number in range(callers):
        clock.start(caller(number))
    clock.run(seconds)
    return Outcome(len(waits) / (seconds - _WARM_UP), sorted(waits))


def opened(costs: Costs, place: Place, rate: float, seconds: float = 3.0, seed: int = 1) -> Outcome:
    """Let requests come by chance (Poisson), that many a second, whether or not others are answered."""
    clock, waits, chance = _Clock(), list[float](), random.Random(seed)
    stack = _Stack(clock, costs, place)

    def one(number: int) -> Steps:
        began = clock.now
        yield from stack.request(number)
        if clock.now >= _WARM_UP:
            waits.append(clock.now - began)

    def arrive() -> None:
        clock.start(one(chance.randrange(place.workers)))
        clock.after(chance.expovariate(rate), arrive)

    clock.after(0, arrive)
    clock.run(seconds)
    return Outcome(len(waits) / (seconds - _WARM_UP), sorted(waits))
