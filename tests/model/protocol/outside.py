"""What happens outside of us: the API, the network, other users of the workspace, and time."""

from __future__ import annotations

from collections.abc import Iterator

from .setting import Setting
from .words import (
    GONE,
    INTENT,
    LOST,
    LOST_DUE,
    OPEN,
    OVER,
    OVERLOAD,
    OVERLOADED,
    OVERLOADED_DUE,
    REFUSED,
    STRANGER,
    SUBMITTING,
    WAITING,
)
from .world import Batch, Post, Remote, Step, World, becomes, spend, synced, write


def network(world: World, setting: Setting) -> Iterator[Step]:  # noqa: ARG001 - all steps are called alike
    """Yield what may become of every POST on its way."""
    for place, post in enumerate(world.posts):
        if post in world.posts[:place]:
            continue
        rest = world._replace(posts=world.posts[:place] + world.posts[place + 1 :])
        yield _committed(rest, post)
        if world.faults.vanishings:
            yield Step(f"the POST of {post.body} vanishes", spend(rest, "vanishings"), fault=True)
        for number, worker in enumerate(world.workers, 1):
            if worker.stage == WAITING and worker.intent == post.intent and worker.number < 0:
                yield from _answered_badly(world, rest, post, number)


def _committed(world: World, post: Post) -> Step:
    remote_id = len(world.remotes)
    world = world._replace(remotes=(*world.remotes, Remote(post.token, post.body)))
    for number, worker in enumerate(world.workers, 1):
        if worker.stage == WAITING and worker.intent == post.intent and worker.number < 0:
            world = becomes(world, number, worker._replace(number=remote_id))
    return Step(f"the API makes remote {remote_id} of {post.body} for batch {post.token}", world)


def _answered_badly(world: World, rest: World, post: Post, number: int) -> Iterator[Step]:
    worker = world.workers[number - 1]
    if world.faults.refusals:
        refused = becomes(spend(rest, "refusals"), number, worker._replace(stage=REFUSED))
        yield Step(f"the API refuses {post.body}", refused, fault=True)
    if world.faults.overloads:
        overload = worker._replace(stage=OVERLOAD)
        nothing = becomes(spend(rest, "overloads"), number, overload)
        yield Step(f"the API answers 529 to {post.body}", nothing, fault=True)
        goes_on = rest._replace(posts=(*rest.posts, post._replace(answered=True)))
        working = becomes(spend(goes_on, "overloads"), number, overload)
        yield Step(f"the API answers 529 to {post.body}, and goes on with it", working, fault=True)


def remote_ends(world: World, setting: Setting) -> Iterator[Step]:
    """Yield the ends of remote batches, what others delete and what they make."""
    for number, remote in enumerate(world.remotes):
        if remote.status == OPEN:
            yield from _ends(world, number, remote)
        elif remote.status == OVER and world.faults.deletions and _is_known(world, setting, number, remote):
            gone = _changed(spend(world, "deletions"), number, remote._replace(status=GONE))
            yield Step(f"somebody deletes remote {number}", gone, fault=True)
    if world.faults.strangers:
        for count in range(1, setting.largest + 1):
            stranger = Remote(STRANGER, (STRANGER,) * count)
            made = spend(world._replace(remotes=(*world.remotes, stranger)), "strangers")
            yield Step(f"a stranger makes remote {len(world.remotes)} of {count} requests", made, fault=True)


def _ends(world: World, number: int, remote: Remote) -> Iterator[Step]:
    over = remote._replace(status=OVER)
    # AOF everysec: by the time that a batch has ended, its intent's neighbours of a second ago are on disk
    yield Step(f"remote {number} ends", _changed(world, number, over))
    if remote.token == STRANGER:
        return
    if world.faults.expiries:
        frees = [remote.body] if len(remote.body) == 1 else [remote.body[:1], remote.body]
        for free in frees:
            expired = _changed(spend(world, "expiries"), number, over._replace(free=free))
            yield Step(f"remote {number} ends, {free} have expired", expired, fault=True)
    if world.faults.troubles:
        broke = _changed(spend(world, "troubles"), number, over._replace(free=remote.body, trouble=True))
        yield Step(f"remote {number} ends, the account has no credit", broke, fault=True)


def _changed(world: World, number: int, remote: Remote) -> World:
    return world._replace(remotes=(*world.remotes[:number], remote, *world.remotes[number + 1 :]))


def _is_known(world: World, setting: Setting, number: int, remote: Remote) -> bool:
    if not setting.known_deletions or remote.token == STRANGER:
        return True
    return any(
        batch.remote == number or (batch.token == remote.token and batch.seen >> number & 1) for batch in world.batches
    )


def time_passes(world: World, setting: Setting) -> Iterator[Step]:
    """Yield the horizons that may pass. That nothing of the POST is alive behind its horizon is assumption A1."""
    for batch in world.batches:
        if batch.state == SUBMITTING and batch.doubt in (LOST, OVERLOADED):
            yield from _horizon(world, setting, batch)


def _horizon(world: World, setting: Setting, batch: Batch) -> Iterator[Step]:
    lost = batch.doubt == LOST
    due = write(world, batch._replace(doubt=LOST_DUE if lost else OVERLOADED_DUE))
    if setting.barrier:
        due = synced(due)  # everysec: what is older than a horizon is on disk
    alive = [post for post in world.posts if post.intent == batch.intent]
    # the short horizon is an assumption about POSTs that were answered 529; any other may well live longer
    bound = alive if lost and setting.rules.long_horizon_for_lost else [post for post in alive if post.answered]
    if not bound:
        yield Step(f"the horizon of batch {batch.uid} passes", aged(due, {batch.intent}))
    elif lost and world.faults.late:
        late = spend(due, "late")._replace(broken=world.broken + 1)
        yield Step(f"the horizon of batch {batch.uid} passes, its POST is still alive (A1)", late, fault=True)
    elif not lost and world.faults.late_overloads:
        late = spend(due, "late_overloads")
        yield Step(f"the short horizon of batch {batch.uid} passes, its POST is still alive", late, fault=True)


def aged(world: World, intents: set[int]) -> World:
    """Mark workers that are frozen behind one of these intents: it no longer stands."""
    for number, worker in enumerate(world.workers, 1):
        if worker.stage == INTENT and worker.intent in intents:
            world = becomes(world, number, worker._replace(flag=True))
    return world
