"""Every interleaving of launchers on one trial, at each call of the system and each look.

Actors run as threads of which one runs at a time. Which one goes on is decided before each call
that changes the folder and before each look at it; all schedules with a bounded number of
preemptions are tried (a switch from an actor that has ended, or that waits, costs nothing). They
play launchers on different machines, so nobody is seen to be dead: who is is told by the case.

    case                                  what may go wrong
    two take a free trial                 both hold it; the loser waits for nobody
    two take what a dead one left         both hold generation 2
    one releases, another takes           a claim is overwritten, or is released by the wrong one
    one finishes, another takes           a recorded trial is trained again; claims are left behind
    a paused holder wakes                 it removes the claim of who took over; two records
    two finish at once                    clean-ups that hinder each other; folders left behind
    one finishes while a sweep goes by    a claim vanishes without a record
"""

import itertools
import math
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from records import files, lease
from records.lease import Claim, Holder, Watcher, claim, look, sweep
from records.process import Process
from records.store import Store


class Halted(BaseException):
    """Ends the threads of a schedule that has failed."""


class Schedule:
    """Runs actors so that one at a time goes on, and switches where ``switches`` says.

    ``switches``: at which step, to which of the other actors.
    """

    def __init__(self, actors: list[Callable[[], None]], switches: dict[int, int]):
        self.actors, self.switches = actors, switches
        self.turn, self.num_steps, self.errors = 0, 0, []
        self.living = set(range(len(actors)))
        self.condition = threading.Condition()
        self.me = threading.local()

    def run(self) -> None:
        threads = [
            threading.Thread(target=self._act, args=(i, actor), daemon=True)
            for i, actor in enumerate(self.actors)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive(), "an actor waits for ever"
        if self.errors:
            raise self.errors[0]

    def step(self) -> None:
        """Called by the actor whose turn it is, before whatever others could see or change."""
        index = getattr(self.me, "index", None)
        if index is None:
            return  # the test itself
        with self.condition:
            number, self.num_steps = self.num_steps, self.num_steps + 1
            if number in self.switches:
                others = sorted(self.living - {index})
                if others:
                    self.turn = others[self.switches[number] % len(others)]
                    self.condition.notify_all()
            self._wait_for(index)

    def _wait_for(self, index: int) -> None:
        self.condition.wait_for(lambda: self.turn == index or self.errors, timeout=60)
        if self.errors:
            raise Halted

    def _act(self, index: int, actor: Callable[[], None]) -> None:
        self.me.index = index
        try:
            with self.condition:
                self._wait_for(index)
            actor()
        except Halted:
            pass
        except BaseException as error:  # shown by the thread of the test
            self.errors.append(error)
        finally:
            with self.condition:
                self.living.discard(index)
                if self.turn == index and self.living:
                    self.turn = min(self.living)
                self.condition.notify_all()


class Seen(Watcher):
    """Has seen the heartbeat of one claim, and no other, still for long enough."""

    def __init__(self, of: Claim):
        super().__init__()
        self.of = of.generation

    def silence(self, path, root):
        return math.inf if path.name == f"{self.of}.beat" else 0.0


@dataclass
class World:
    """What the actors of a schedule share, and what they did."""

    store: Store
    record: object
    training: int = 0
    most_training: int = 0
    trained: list[str] = field(default_factory=list)
    took: list[int] = field(default_factory=list)
    step: Callable[[], None] = lambda: None

    def claim(self, **options) -> Claim | Holder | None:
        found = claim(self.store, self.record.trial, self.record.stratum, **options)
        if isinstance(found, Claim):
            self.took.append(found.generation)
        return found

    def train(self, name: str) -> None:
        self.training += 1
        self.most_training = max(self.most_training, self.training)
        self.step()
        self.training -= 1
        self.trained.append(name)

    def launch(self, name: str, **options) -> None:
        """What a launcher does: claim, train, publish, leave."""
        found = self.claim(**options)
        if isinstance(found, Claim):
            with found:
                self.train(name)
                self.store.publish(self.record)

    def stop(self, **options) -> None:
        """What a launcher does that is told to stop."""
        found = self.claim(**options)
        if isinstance(found, Claim):
            found.release()

    def hold(self) -> Claim:
        """A claim from before, which is seen as of a live process of another machine."""
        found = self.claim()
        assert isinstance(found, Claim)
        return found


def two_take(world: World) -> list[Callable[[], None]]:
    return [lambda: world.launch("a"), lambda: world.launch("b")]


def two_take_from_the_dead(world: World) -> list[Callable[[], None]]:
    dead = world.hold()
    return [lambda n=n: world.launch(n, watcher=Seen(dead)) for n in "ab"]


def one_stops(world: World) -> list[Callable[[], None]]:
    held = world.hold()
    return [held.release, lambda: world.launch("b")]


def one_finishes(world: World) -> list[Callable[[], None]]:
    held = world.hold()

    def finish():
        with held:
            world.train("a")
            world.store.publish(world.record)

    return [finish, lambda: world.launch("b")]


def one_wakes(world: World) -> list[Callable[[], None]]:
    held = world.hold()

    def wake():
        held._beat_once()
        with held:
            if not held.lost():
                world.trained.append("a")  # it may not have noticed yet; that is allowed
                world.store.publish(world.record)

    return [lambda: world.launch("b", watcher=Seen(held)), wake]


def two_finish(world: World) -> list[Callable[[], None]]:
    first = world.hold()
    second = world.claim(watcher=Seen(first))
    assert isinstance(second, Claim)

    def finish(held):
        with held:
            world.store.publish(world.record)

    return [lambda: finish(first), lambda: finish(second)]


def a_sweep_goes_by(world: World) -> list[Callable[[], None]]:
    return [lambda: world.launch("a"), lambda: sweep(world.store)]


def two_stop_and_one_takes(world: World) -> list[Callable[[], None]]:
    return [world.stop, world.stop, lambda: world.launch("c")]


CASES = {
    # case: the actors, preemptions, trainings at once, trainings in all
    "two take a free trial": (two_take, 2, 1, {1}),
    "two take what a dead one left": (two_take_from_the_dead, 2, 1, {1}),
    "one releases, another takes": (one_stops, 2, 1, {0, 1}),
    "one finishes, another takes": (one_finishes, 2, 1, {1}),
    "a paused holder wakes": (one_wakes, 2, 1, {1, 2}),
    "two finish at once": (two_finish, 2, 0, {0}),
    "one finishes while a sweep goes by": (a_sweep_goes_by, 2, 1, {1}),
    "two stop and one takes": (two_stop_and_one_takes, 1, 1, {0, 1}),
}


def schedules(num_steps: int, num_actors: int, preemptions: int):
    """All choices of at most so many steps at which another actor is made to go on."""
    for count in range(preemptions + 1):
        for steps in itertools.combinations(range(num_steps), count):
            for others in itertools.product(range(num_actors - 1), repeat=count):
                yield dict(zip(steps, others, strict=True))


@pytest.fixture
def seams(monkeypatch):
    """Makes each call of the system and each look a step of the schedule that runs."""
    running = []

    def step():
        if running:
            running[-1].step()

    def before(function):
        def stepped(*given, **named):
            # What fills a file that has no name yet is seen by nobody.
            if not given or given[0] not in (os.write, os.fsync, os.close):
                step()
            return function(*given, **named)

        return stepped

    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    monkeypatch.setattr(files, "call", before(files.call))
    monkeypatch.setattr(Store, "has", before(Store.has))
    monkeypatch.setattr(lease, "numbered", before(lease.numbered))
    monkeypatch.setattr(lease, "_read", before(lease._read))
    monkeypatch.setattr(files, "sync_folder", lambda folder: None)
    monkeypatch.setattr(Claim, "_beat", lambda self: None)
    there = Process.current().model_copy(update={"boot": "another"})
    monkeypatch.setattr(lease, "Process", type("Elsewhere", (), {"current": lambda: there}))
    return running, step


@pytest.mark.parametrize("case", CASES)
def test_no_interleaving_loses_doubles_or_waits(case, seams, tmp_path, make_record):
    running, step = seams
    actors, preemptions, at_once, trainings = CASES[case]
    longest, number = 1, 0
    tried = set()
    while True:
        fresh = [
            s
            for s in schedules(longest, 3 if "two stop" in case else 2, preemptions)
            if tuple(s.items()) not in tried
        ]
        if not fresh:
            break
        for switches in fresh:
            tried.add(tuple(switches.items()))
            world = World(Store(tmp_path / str(number)), make_record(), step=step)
            number += 1
            schedule = Schedule(actors(world), switches)
            running.append(schedule)
            schedule.run()
            running.clear()
            check(world, at_once, trainings, f"{case}, {switches}")
            longest = max(longest, schedule.num_steps)
    assert number > 50, "so few schedules would prove little"


def check(world: World, at_once: int, trainings: set[int], which: str) -> None:
    store, record = world.store, world.record
    assert len(set(world.took)) == len(world.took), f"{which}: two hold one generation"
    assert world.most_training <= at_once, f"{which}: two train at once"
    assert len(world.trained) in trainings, f"{which}: trained {world.trained}"
    found = sorted(path.name for path in store.folder(record.trial, record.stratum).iterdir())
    if store.has(record.trial, record.stratum):
        assert list(store.published()) == [record], which
        assert found == ["record.json"], f"{which}: left {found}"
    else:
        holder = look(store, record.trial, record.stratum)
        assert holder.is_dead() and holder.claimed.released, f"{which}: held by nobody"
        left = store.claims_path(record.trial, record.stratum).iterdir()
        assert all(path.suffix == ".json" for path in left), f"{which}: left {found}"


def test_a_planted_check_and_then_act_is_found(seams, tmp_path, make_record, monkeypatch):
    """A claim that looks whether there is one and then replaces it: found by one preemption."""

    def careless(path, content, root):
        files.make_folder(path.parent, root)
        if path.exists():
            return False
        files.call(path.write_bytes, content)
        return True

    monkeypatch.setattr(lease, "publish_once", careless)
    with pytest.raises(AssertionError, match="two hold one generation|two train at once"):
        test_no_interleaving_loses_doubles_or_waits(
            "two take a free trial", seams, tmp_path, make_record
        )
