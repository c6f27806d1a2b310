"""A fork server with everything imported: a command costs a second where an interpreter of its own takes eight.

Each process of the test session has one, for all test files.
"""

import multiprocessing

SERVER = multiprocessing.get_context("forkserver")
QWEN = ["transformers.models.qwen3.modeling_qwen3", "transformers.models.qwen2.tokenization_qwen2"]
SERVER.set_forkserver_preload(["klear_lab.run", "klear_lab.sweep", "klear_lab.stages", "klear_lab.needs", *QWEN])
