"""The one place where parts meet: `build` makes everything a worker process runs of, and starts none of it."""

import threading
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

from worker.actors import Knocks, Queue, Step
from worker.batcher import UID_BYTES, Batcher
from worker.batches_api import BatchesApi
from worker.broker import KnockBroker
from worker.clock import Clock
from worker.config import Config
from worker.core.cost import PriceTable, parse_prices
from worker.core.custom_id import DEPLOYMENT_LENGTH, spell
from worker.core.figures import Figures
from worker.core.model import Claim
from worker.drainer import Drainer
from worker.ledger.barrier_in_force import BarrierInForce
from worker.ledger.lease import Leases
from worker.ledger.ledger import Ledger
from worker.ledger.store import Store
from worker.parking import Parking
from worker.poller import Poller
from worker.reconciler import Reconciler
from worker.recovery import Orphans, Recovery
from worker.refusals import Refusals
from worker.rescuer import Rescuer
from worker.sinks import Sink
from worker.sinks import build as build_sink
from worker.submitter import Submitter
from worker.telemetry import Telemetry
from worker.ticker import Ticker
from worker.workspaces import Workspaces

NO_PLACE_SECONDS = 1.0
ROLES = ("batcher", "submitter", "poller", "drainer")
QUEUES = {"submitter": Queue.SUBMIT, "poller": Queue.POLL, "drainer": Queue.DRAIN}


@dataclass(frozen=True, slots=True)
class App:
    """A worker process, assembled. Set `stopping` and every long step hands its batch over."""

    config: Config
    clock: Clock
    telemetry: Telemetry
    ledger: Ledger
    barrier: BarrierInForce
    api: BatchesApi | None
    sinks: Mapping[str, Sink]
    broker: KnockBroker
    batcher: Batcher | None
    rescuer: Rescuer
    ticker: Ticker
    knocks: Knocks
    steps: Mapping[Queue, Step]
    deployment: str
    stopping: threading.Event

    def figures(self) -> Figures:
        """Read what gauges, `/statusz` and `status` show."""
        lanes = self.ledger.deployment.lanes()
        return self.ledger.reads.figures(lanes, {lane: self.config.lane(lane).sinks for lane in lanes})

    def close(self) -> None:
        """Close connections and sinks."""
        for sink in self.sinks.values():
            sink.close()
        if self.api is not None:
            self.api.close()
        self.broker.close()
        self.ledger.store.close()


def build(config: Config, *, url: str, telemetry: Telemetry, clock: Clock, roles: Sequence[str]) -> App:
    """Assemble a worker that plays `roles` on the Redis at `url`.

    Raises the ledger's errors when Redis is out of reach or unfit, SinkSettingsError for a sink that cannot work.
    """
    stopping = threading.Event()
    ledger = Ledger.over(Store.connect(url, config.redis.prefix, access=config.redis.access))
    facts = ledger.deployment.check_server()
    new_id = spell(clock.random_bytes(4))[:DEPLOYMENT_LENGTH].ljust(DEPLOYMENT_LENGTH, "a")
    deployment = ledger.deployment.enter(new_id, life=facts.run_id)
    owner = spell(clock.random_bytes(UID_BYTES))
    barrier = BarrierInForce(config.redis.barrier, store=ledger.store, facts=facts, owner=owner, wait=clock.sleep)
    if deployment == new_id:
        # were it forgotten, another process would invent another one and take the results of this one for a stranger's
        ledger.deployment.sync(barrier.durably, at=clock.now())
    broker = KnockBroker(url=url, prefix=config.redis.prefix, access=config.redis.access)
    sinks = {name: build_sink(name, settings) for name, settings in config.sinks.items()}
    parking = Parking(config=config, ledger=ledger, telemetry=telemetry, clock=clock)
    api, recovery, orphans, steps = None, None, None, {}
    if any(role in QUEUES for role in roles):
        api = _api(config, telemetry, clock)
        recovery = Recovery(
            config=config, ledger=ledger, api=api, telemetry=telemetry, clock=clock, deployment=deployment
        )
        orphans = Orphans(
            config=config, ledger=ledger, api=api, telemetry=telemetry, clock=clock, deployment=deployment
        )
        steps = _steps(
            config=config,
            ledger=ledger,
            api=api,
            barrier=barrier,
            sinks=sinks,
            parking=parking,
            telemetry=telemetry,
            clock=clock,
            deployment=deployment,
            stopping=stopping,
        )
    played = {QUEUES[role] for role in roles if role in QUEUES}
    steps = {queue: step for queue, step in steps.items() if queue in played}
    knocks = Knocks(broker=broker, steps=steps, telemetry=telemetry)
    return App(
        config=config,
        clock=clock,
        telemetry=telemetry,
        ledger=ledger,
        barrier=barrier,
        api=api,
        sinks=sinks,
        broker=broker,
        batcher=Batcher(config=config, ledger=ledger, telemetry=telemetry, clock=clock) if "batcher" in roles else None,
        rescuer=Rescuer(
            config=config,
            ledger=ledger,
            barrier=barrier,
            telemetry=telemetry,
            clock=clock,
            deployment=deployment,
            recover_by_token=recovery.step if recovery is not None else _left_to_others,
            count_orphans=orphans.step if orphans is not None else _uncounted,
            tidy_knocks=broker.tidy,
        ),
        ticker=Ticker(config=config, ledger=ledger, broker=broker, knocks=knocks, clock=clock),
        knocks=knocks,
        steps=steps,
        deployment=deployment,
        stopping=stopping,
    )


def read_prices() -> PriceTable:
    """Read the price table that is shipped with batchmill."""
    return parse_prices(tomllib.loads((files("worker.core") / "prices.toml").read_text("utf-8")))


def _left_to_others(_lane: str) -> bool:
    """A process without the API cannot ask what Redis has forgotten."""
    return False


def _uncounted(_emptied_at: float) -> None:
    """A process without the API cannot count them."""


def _api(config: Config, telemetry: Telemetry, clock: Clock) -> BatchesApi:
    settings = config.anthropic
    return BatchesApi(
        api_key=settings.api_key.reveal(),
        base_url=settings.base_url,
        api_version=settings.api_version,
        betas=settings.betas,
        requests_per_minute=settings.requests_per_minute,
        answer_timeout=config.submit.timeout,
        clock=clock,
        observe=telemetry.api_request,
        waited=telemetry.rate_limit_waited,
    )


def _steps(
    *,
    config: Config,
    ledger: Ledger,
    api: BatchesApi,
    barrier: BarrierInForce,
    sinks: Mapping[str, Sink],
    parking: Parking,
    telemetry: Telemetry,
    clock: Clock,
    deployment: str,
    stopping: threading.Event,
) -> dict[Queue, Step]:
    unsent: set[str] = set()
    leases = Leases(ledger.batches, config.lease, stopping)
    workspaces = Workspaces(ledger=ledger, parking=parking)
    refusals = Refusals(config=config, ledger=ledger, parking=parking, telemetry=telemetry, clock=clock)
    submitter = Submitter(
        config=config,
        ledger=ledger,
        api=api,
        barrier=barrier,
        refusals=refusals,
        parking=parking,
        workspaces=workspaces,
        leases=leases,
        telemetry=telemetry,
        clock=clock,
        deployment=deployment,
        unsent=unsent,
    )
    reconciler = Reconciler(
        config=config,
        ledger=ledger,
        api=api,
        parking=parking,
        workspaces=workspaces,
        leases=leases,
        telemetry=telemetry,
        clock=clock,
        deployment=deployment,
        unsent=unsent,
    )
    poller = Poller(config=config, ledger=ledger, api=api, workspaces=workspaces, telemetry=telemetry, clock=clock)
    drainer = Drainer(
        config=config,
        ledger=ledger,
        api=api,
        barrier=barrier,
        sinks=sinks,
        prices=read_prices(),
        parking=parking,
        leases=leases,
        telemetry=telemetry,
        clock=clock,
        deployment=deployment,
    )

    def submit(claim: Claim) -> None:
        submitter.step(claim)
        reconciler.step(claim)

    return {
        Queue.SUBMIT: _turnstile(submit, leases, config.threads),
        Queue.POLL: poller.step,
        Queue.DRAIN: _turnstile(drainer.step, leases, config.threads),
    }


def _turnstile(step: Callable[[Claim], None], leases: Leases, threads: int) -> Step:
    """Let a long step have less than half of the threads, so that a stuck sink or a slow API never stops the polls.

    A claim that finds no place within a second comes due again a second later.
    """
    places = threading.Semaphore(max(1, (threads - 1) // 2))

    def follow(claims: Sequence[Claim]) -> None:
        for claim in leases.fresh(claims):
            if not places.acquire(timeout=NO_PLACE_SECONDS):
                leases.batches.renew(claim, NO_PLACE_SECONDS)
                continue
            try:
                step(claim)
            finally:
                places.release()

    return follow
