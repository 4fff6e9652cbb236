"""Plans a tiny recipe on eight virtual CPU devices and prints JSON of what the plan says and of what is really there.

Run by test_plan.py in its own process, since the number of devices is fixed when JAX starts:
python -m tests.cost.compiled
"""

import dataclasses
import json
import math

import jax

jax.config.update("jax_num_cpu_devices", 8)

import jax.numpy as jnp  # noqa: E402

from mmpretrain.config import ParallelConfig  # noqa: E402
from mmpretrain.cost.chips import parse_topology  # noqa: E402
from mmpretrain.cost.hlo import Program  # noqa: E402
from mmpretrain.cost.step_time import sent_bytes  # noqa: E402
from mmpretrain.parallel.mesh import shardings  # noqa: E402
from mmpretrain.run.run import Run  # noqa: E402
from mmpretrain.tools.plan import Plan  # noqa: E402
from mmpretrain.tools.plan_target import QUICK_CPU  # noqa: E402
from tests.tiny import tiny_model, tiny_round, tiny_run  # noqa: E402


def zeros(plan: Plan):
    """A state with the right shapes, in its places on the devices."""
    places = shardings(plan.state, plan.run.mesh)
    return jax.jit(lambda: jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), plan.state), out_shardings=places)()


def main() -> None:
    report = {}
    for name, sizes in {"data": (8, 1, 1), "mixed": (2, 2, 2)}.items():
        # Matrices large beside the few numbers that every mesh sums up: metrics, norms.
        model = tiny_model("audio", width=64, mlp_dim=256)
        config = tiny_run(model=model, rounds=(tiny_round(),), parallel=ParallelConfig(*sizes))
        plan = Plan(Run(config, jax.devices()), parse_topology("h100:8"), QUICK_CPU)
        compiled = plan.compile()
        there = zeros(plan)
        report[name] = {
            "said": plan.kept,
            "there": {
                part: sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(getattr(there, field)))
                for part, field in {"parameters": "params", "optimizer state": "opt_state"}.items()
            },
            "arguments": compiled.memory_analysis().argument_size_in_bytes,
            "whole_parameters": sum(math.prod(x.shape) * 4 for x in jax.tree.leaves(plan.state.params)),
            "collectives": [
                dataclasses.asdict(c) | {"sent": sent_bytes(c)}
                for c in Program(compiled.as_text()).collectives(plan.run.mesh.shape)
            ],
        }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
