"""The submitter: claim and look, the intent, the last byte, the answer."""

from __future__ import annotations

from collections.abc import Iterator

from .setting import Setting
from .words import (
    BY_REFUSAL,
    CERTAIN,
    IDLE,
    INTENT,
    JUDGING,
    LOST,
    NOW,
    OVERLOAD,
    OVERLOADED,
    READY,
    REFUSED,
    SEALED,
    SUBMITTING,
    UNSENT,
    WAITING,
)
from .world import (
    A_LETTER,
    NOBODY,
    Batch,
    Lane,
    Letter,
    Post,
    Step,
    Worker,
    World,
    becomes,
    find,
    follow,
    get,
    idle,
    new_name,
    spend,
    synced,
    with_lane,
    write,
)


def submitting(world: World, setting: Setting) -> Iterator[Step]:
    """Yield every step of every submitter."""
    for number, worker in enumerate(world.workers, 1):
        stage = worker.stage
        if stage == IDLE:
            yield from _claim(world, setting, number, worker)
        elif stage == READY:
            yield from _record_intent(world, setting, number, worker)
        elif stage == INTENT:
            yield _send_last_byte(world, setting, number, worker)
        elif stage == UNSENT:
            yield from _withdraw_unsent(world, setting, number, worker)
        elif stage == WAITING:
            yield from _hear(world, setting, number, worker)
        elif stage == OVERLOAD:
            yield _begin_doubt(world, setting, number, worker, OVERLOADED)
        elif stage == REFUSED:
            yield _withdraw_refused(world, setting, number, worker)


def fence_says(world: World, setting: Setting, number: int, batch: Batch) -> tuple[bool, ...]:
    """Say whether this worker's fence is the newest; both may be true where fences repeat in Redis' next life."""
    if batch.holder == number or not setting.rules.fences:
        return (True,)
    if world.lives and not setting.rules.fences_outlive_restarts:
        return (True, False)
    return (False,)


def decided_here(lane: Lane, setting: Setting) -> bool:
    """Whether decisions are taken in this lane: it was recovered in Redis' present life."""
    return lane.past == NOW or not setting.rules.asks_for_life


def unparked(world: World, lane: int, *reasons: str) -> tuple[Lane, ...]:
    """Return the lanes with one no longer parked for one of these reasons."""
    held = world.lanes[lane]
    return with_lane(world, lane, held._replace(parked="")) if held.parked in reasons else world.lanes


def _claim(world: World, setting: Setting, number: int, worker: Worker) -> Iterator[Step]:
    for batch in world.batches:
        lane = world.lanes[batch.lane]
        if batch.state != SEALED or not batch.body or not decided_here(lane, setting):
            continue
        probe = batch.probe
        if lane.parked and not probe:
            if not setting.rules.parked_lanes_probe or any(
                other.probe and other.state == SEALED and other.lane == batch.lane for other in world.batches
            ):
                continue
            if len(batch.body) > 1:
                yield Step(f"w{number} cuts a probe off batch {batch.uid}", split(world, setting, batch, 1, probe=True))
                continue
            probe = True
        seen = Worker(READY, batch.uid, batch.attempt, batch.body, number=len(world.remotes), unsent=worker.unsent)
        claimed = write(world, batch._replace(holder=number, probe=probe))
        yield Step(
            f"w{number} claims sealed batch {batch.uid} and sees {len(world.remotes)} remote batches",
            becomes(claimed, number, seen),
        )


def split(world: World, setting: Setting, batch: Batch, head_count: int, *, probe: bool) -> World:
    """Cut a sealed batch in two; the head keeps uid and attempt."""
    head, tail = batch.body[:head_count], batch.body[head_count:]
    out = batch.out
    kept = batch._replace(body=head, out=tuple(entry for entry in out if entry < tail[0]), probe=probe)
    if setting.rules.split_ends_claims:
        kept = kept._replace(holder=NOBODY)
    new = batch._replace(
        uid=world.uids,
        token=world.uids if setting.rules.tail_is_new else batch.token,
        body=tail,
        out=tuple(entry for entry in out if entry >= tail[0]),
        holder=NOBODY,
        probe=False,
    )
    return write(world, kept, new, uids=1)


def _record_intent(world: World, setting: Setting, number: int, worker: Worker) -> Iterator[Step]:
    batch = get(world, worker.uid)
    name = new_name(world)
    if not setting.rules.write_ahead:
        intent = worker._replace(stage=INTENT, intent=name, attempt=worker.attempt + 1)
        yield Step(f"w{number} goes on without a record", becomes(world, number, intent))
        return
    if batch is not None and batch.state == SEALED and batch.attempt == worker.attempt:
        for valid in fence_says(world, setting, number, batch):
            if valid and decided_here(world.lanes[batch.lane], setting):
                yield from _commit_intent(world, setting, number, batch, name)
            else:
                yield Step(f"w{number} is refused the intent", becomes(world, number, idle(worker)))
        return
    yield Step(f"w{number} is refused the intent", becomes(world, number, idle(worker)))


def _commit_intent(world: World, setting: Setting, number: int, batch: Batch, name: int) -> Iterator[Step]:
    worker = world.workers[number - 1]
    recorded = write(world, submitted(batch, worker.number, name))
    attempt = worker.attempt + 1
    done = worker._replace(stage=INTENT, attempt=attempt, intent=name, number=-1)
    on_disk = synced(recorded) if setting.barrier else recorded
    words = f"w{number} records the intent {name} of batch {batch.uid}, attempt {attempt}"
    yield Step(words, becomes(on_disk, number, done))
    if world.faults.lost_replies:
        lost = done._replace(stage=UNSENT)
        yield Step(f"{words}; the reply is lost", becomes(spend(recorded, "lost_replies"), number, lost), fault=True)
        letter = Letter(batch.uid, worker.attempt, worker.number, name)
        posted = world._replace(letters=(*world.letters, letter))
        late = spend(write(posted, batch._replace(holder=A_LETTER)), "lost_replies")
        yield Step(f"w{number} sends intent {name}, which is late; gives up", becomes(late, number, lost), fault=True)


def submitted(batch: Batch, head: int, name: int) -> Batch:
    """Return the record as the script `submit` leaves it."""
    return batch._replace(
        state=follow(batch, "submit"),
        attempt=batch.attempt + 1,
        head=head,
        intent=name,
        doubt=CERTAIN,
        seen=0,
        ruled_out=0,
        closed=0,
    )


def _send_last_byte(world: World, setting: Setting, number: int, worker: Worker) -> Step:
    if worker.flag and setting.rules.stale_intent_is_not_sent:
        return Step(f"w{number} wakes up too late to send", becomes(world, number, worker._replace(stage=UNSENT)))
    batch = get(world, worker.uid)
    post = Post(worker.uid if batch is None else batch.token, worker.body, worker.intent, worker.old)
    posts = (*world.posts, post) if setting.rules.no_repeats else (*world.posts, post, post)
    waiting = worker._replace(stage=WAITING, body=(), number=-1, flag=False, old=False)
    words = f"w{number} sends the last byte of batch {worker.uid} {worker.body}"
    return Step(words, becomes(world._replace(posts=posts), number, waiting))


def is_named(batch: Batch, worker: Worker, setting: Setting) -> bool:
    """Whether the intent on record is the worker's own, with the attempt that it belongs to."""
    same = batch.state == SUBMITTING and batch.attempt == worker.attempt
    return same and (batch.intent == worker.intent or not setting.rules.intent_is_named)


def _withdraw_unsent(world: World, setting: Setting, number: int, worker: Worker) -> Iterator[Step]:
    batch = get(world, worker.uid)
    marked = Worker(unsent=(*worker.unsent, worker.intent))
    if batch is not None and is_named(batch, worker, setting):
        back = batch._replace(state=follow(batch, "refuse"), holder=NOBODY)
        words = f"w{number} takes its unsent intent {worker.intent} back"
        yield Step(words, becomes(write(world, back), number, idle(worker)))
    else:
        yield Step(f"w{number} finds no intent {worker.intent} to take back", becomes(world, number, marked))
    if setting.faults.lost_replies:
        yield Step(
            f"w{number} cannot reach Redis, remembers that {worker.intent} is unsent", becomes(world, number, marked)
        )


def _withdraw_refused(world: World, setting: Setting, number: int, worker: Worker) -> Step:
    batch = get(world, worker.uid)
    judging = worker._replace(stage=JUDGING, intent=0)
    if batch is not None and is_named(batch, worker, setting):
        world = write(world, batch._replace(state=follow(batch, "refuse")))
    return Step(f"w{number} takes the refused intent back", becomes(world, number, judging))


def _hear(world: World, setting: Setting, number: int, worker: Worker) -> Iterator[Step]:
    if worker.number >= 0:
        yield _accept(world, number, worker)
    if setting.rules.doubt_is_reconciled:
        yield _begin_doubt(world, setting, number, worker, LOST)
    else:
        batch = get(world, worker.uid)
        if batch is not None and batch.state == SUBMITTING:
            world = write(world, batch._replace(state=SEALED, holder=NOBODY))
        yield Step(f"w{number} hears nothing, sends again", becomes(world, number, idle(worker)))


def _accept(world: World, number: int, worker: Worker) -> Step:
    batch = get(world, worker.uid)
    words = f"w{number} records that remote {worker.number} is batch {worker.uid}'s"
    if batch is None:
        return Step(f"{words}: refused", becomes(world, number, idle(worker)))
    lanes = unparked(world, batch.lane, BY_REFUSAL)
    if batch.state == SUBMITTING and batch.attempt == worker.attempt:
        batch = batch._replace(state=follow(batch, "accept"), remote=worker.number, guessed=False, holder=NOBODY)
    else:
        words += ": refused"
    return Step(words, becomes(write(world, batch, lanes=lanes), number, idle(worker)))


def _begin_doubt(world: World, setting: Setting, number: int, worker: Worker, kind: str) -> Step:
    """A fact by state and attempt: the doubt is dated anew."""
    batch = get(world, worker.uid)
    named = batch is not None and (batch.intent == worker.intent or not setting.rules.doubt_is_named)
    if batch is not None and named and batch.state == SUBMITTING and batch.attempt == worker.attempt:
        world = write(world, batch._replace(doubt=kind, holder=NOBODY))
    return Step(f"w{number} is in doubt about batch {worker.uid} ({kind})", becomes(world, number, idle(worker)))


def arrival(world: World, setting: Setting) -> Iterator[Step]:
    """A late intent arrives at Redis: the script asks for state, attempt and fence like any other's."""
    for place, letter in enumerate(world.letters):
        rest = world._replace(letters=world.letters[:place] + world.letters[place + 1 :])
        at = find(world.batches, letter.uid)
        batch = world.batches[at]
        newest = batch.holder == A_LETTER or not setting.rules.fences
        if batch.state == SEALED and batch.attempt == letter.attempt and newest:
            yield Step(
                f"the late intent {letter.intent} of batch {letter.uid} arrives",
                write(rest, submitted(batch, letter.head, letter.intent)),
            )
