"""A state of the world: Redis, its disk, the API, the network, the workers. Plain tuples, so that they hash fast."""

from __future__ import annotations

from typing import NamedTuple

from .words import CERTAIN, IDLE, MOVES, NEVER, NOW, OPEN, SUBMITTING

Entries = tuple[int, ...]
GENERATION = 10
"""An entry is its prompt's number, and this much more for every time that the prompt was put back."""

NOBODY = 0
A_LETTER = 99
"""Holds a batch whose newest fence is on its way in a letter."""


class Lane(NamedTuple):
    """`waiting` are the entries behind the cursor, in order."""

    waiting: Entries
    past: str = NOW
    waited: bool = False  # the horizon of the lane's recovery has passed
    parked: str = ""


class Batch(NamedTuple):
    """A record. `holder` is the worker whose fence is the newest; `token` is what its custom_ids say (its uid)."""

    uid: int
    lane: int
    body: Entries
    state: str
    token: int
    out: Entries = ()  # entries of the range that are not in the body
    attempt: int = 0
    holder: int = NOBODY
    head: int = 0
    intent: int = 0
    doubt: str = CERTAIN
    seen: int = 0  # a bit for each remote batch
    ruled_out: int = 0
    closed: int = 0  # so many remote batches there were in the first listing behind the horizon; 0: there was none yet
    remote: int = -1
    guessed: bool = False
    probe: bool = False


class Remote(NamedTuple):
    """A remote batch; its place in the world's list is its id. `free` are the entries whose result cost nothing."""

    token: int
    body: Entries
    status: str = OPEN
    free: Entries = ()
    trouble: bool = False  # its rows tell of trouble with the account


class Post(NamedTuple):
    """A complete body on its way: it is committed or it vanishes. `intent` is whose answer it is."""

    token: int
    body: Entries
    intent: int
    old: bool = False  # sent in an earlier life of Redis
    answered: bool = False  # with a 529, and yet the API goes on with it


class Letter(NamedTuple):
    """An intent on its way to Redis whose sender has given up."""

    uid: int
    attempt: int
    head: int
    intent: int


class Worker(NamedTuple):
    """A process with one thread; `unsent` outlasts the step."""

    stage: str = IDLE
    uid: int = -1
    attempt: int = 0
    body: Entries = ()
    intent: int = 0
    number: int = -1  # READY: the head; WAITING: the id that was answered; LISTED: a bit for each listed remote batch
    old: bool = False  # INTENT: it was recorded in an earlier life of Redis
    flag: bool = False  # INTENT: too old to be sent; LISTED: the listing began behind the horizon
    unsent: Entries = ()


class Disk(NamedTuple):
    """What Redis would come back with."""

    lanes: tuple[Lane, ...]
    batches: tuple[Batch, ...]


class Faults(NamedTuple):
    """How many of each may still happen."""

    kills: int = 0
    restarts: int = 0  # of Redis, back to what is on disk
    vanishings: int = 0  # a POST that is never committed
    refusals: int = 0  # a 4xx
    overloads: int = 0  # a well-formed 529 or 503
    lost_replies: int = 0  # of Redis, to the intent: it was recorded, or arrives later, or never
    strangers: int = 0
    deletions: int = 0  # of an ended remote batch, by somebody else
    expiries: int = 0
    troubles: int = 0  # all rows of a remote batch say that the credit is used up
    late: int = 0  # a POST that is alive behind `submit.horizon`: assumption A1 broken
    late_overloads: int = 0  # one that was answered 529 and is alive behind `submit.overload_horizon`


class World(NamedTuple):
    """Everything. `disk` is None while it holds what Redis holds."""

    lanes: tuple[Lane, ...]
    batches: tuple[Batch, ...]
    workers: tuple[Worker, ...]
    faults: Faults
    disk: Disk | None = None
    remotes: tuple[Remote, ...] = ()
    posts: tuple[Post, ...] = ()
    letters: tuple[Letter, ...] = ()
    rows: tuple[tuple[int, int], ...] = ()  # (uid, entry) in the sink
    uids: int = 0
    lives: int = 0
    broken: int = 0  # assumptions that were broken on the way here


class Step(NamedTuple):
    """One thing that may happen next. `fault` is not needed for the prompts to arrive."""

    words: str
    world: World
    fault: bool = False


def find(batches: tuple[Batch, ...], uid: int) -> int:
    """Return the place of a batch, -1 if there is none."""
    for place, batch in enumerate(batches):
        if batch.uid == uid:
            return place
    return -1


def get(world: World, uid: int) -> Batch | None:
    """Return a batch's record."""
    place = find(world.batches, uid)
    return None if place < 0 else world.batches[place]


def follow(batch: Batch, event: str) -> str:
    """Return the state that an event leads to; KeyError for a move that the law does not know."""
    return MOVES[batch.state, event]


def write(world: World, *batches: Batch, lanes: tuple[Lane, ...] | None = None, uids: int = 0) -> World:
    """Change records in Redis' memory (unknown uids are added); the disk stays as it was."""
    held = list(world.batches)
    for batch in batches:
        place = find(world.batches, batch.uid)
        if place < 0:
            held.append(batch)
        else:
            held[place] = batch
    disk = world.disk
    if disk is None and world.faults.restarts:
        disk = Disk(world.lanes, world.batches)
    return world._replace(
        batches=tuple(held), lanes=world.lanes if lanes is None else lanes, disk=disk, uids=world.uids + uids
    )


def synced(world: World) -> World:
    """Bring the disk up to date."""
    return world if world.disk is None else world._replace(disk=None)


def with_lane(world: World, number: int, lane: Lane) -> tuple[Lane, ...]:
    """Return all lanes with one of them changed."""
    return (*world.lanes[:number], lane, *world.lanes[number + 1 :])


def becomes(world: World, number: int, worker: Worker) -> World:
    """Change one worker; workers are numbered from 1."""
    return world._replace(workers=(*world.workers[: number - 1], worker, *world.workers[number:]))


def spend(world: World, fault: str) -> World:
    """Use up one fault of a kind."""
    faults = world.faults
    spent = faults._replace(**{fault: getattr(faults, fault) - 1})
    return world._replace(faults=spent, disk=world.disk if spent.restarts else None)


def idle(worker: Worker) -> Worker:
    """Return the worker at the end of its step."""
    return Worker(unsent=worker.unsent)


def holds_count(batch: Batch) -> bool:
    """Whether the batch is in its lane's `unposted`: it may still create a remote batch, or was held in doubt."""
    return batch.remote < 0 and batch.state not in ("ended", "delivered", "settled")


def new_name(world: World) -> int:
    """Return a name that no intent has: the smallest, which stands for a random one."""
    used = {batch.intent for batch in world.batches}
    if world.disk is not None:
        used |= {batch.intent for batch in world.disk.batches}
    used |= {letter.intent for letter in world.letters} | {post.intent for post in world.posts}
    for worker in world.workers:
        used.add(worker.intent)
        used.update(worker.unsent)
    name = 1
    while name in used:
        name += 1
    return name


def in_doubt(batch: Batch) -> bool:
    """Whether it is unknown if the batch has a remote one."""
    return batch.state == SUBMITTING


def start(prompts: tuple[int, ...], workers: int, faults: Faults, *, past: str = NEVER) -> World:
    """Return the first state: so many prompts wait in each lane, nothing else has happened."""
    lanes, first = [], 0
    for count in prompts:
        lanes.append(Lane(tuple(range(first, first + count)), past=past))
        first += count
    return World(lanes=tuple(lanes), batches=(), workers=(Worker(),) * workers, faults=faults)
