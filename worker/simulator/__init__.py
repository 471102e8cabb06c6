"""A Message Batches API to run against: it behaves like the real one, and breaks when asked to.

`Simulator` serves it on a loopback port; `options.Options` names every knob, `faults.Fault` every scripted
fault, `admin` the routes below `/simulator/`. It knows nothing of batchmill but the layout of a custom_id.
"""

from worker.simulator.options import Options
from worker.simulator.simulator import Simulator

__all__ = ["Options", "Simulator"]
