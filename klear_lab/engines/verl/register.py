"""Makes klear_lab known to verl; verl imports this file in each of its processes that trains or takes steps.

It does so by actor_rollout_ref.model.external_lib, once before it builds a model.
"""

from klear_lab.engines.verl import advantages  # noqa: F401 - registers itself
from klear_lab.engines.verl.policy_loss import register_clip_methods
from klear_lab.engines.verl.worker import use_worker

register_clip_methods()
use_worker()
