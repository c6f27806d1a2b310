"""A row of each data source, made by hand in the format of its card."""

import base64
import json
import pickle
import zlib
from pathlib import Path

SOURCES = Path(__file__).parents[2] / "conf" / "data_source"

TESTS = json.dumps({"inputs": ["1\n"], "outputs": ["2\n"]})


def private_tests(cases, protocol=4):
    return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(cases), protocol))).decode()


ROLES = [{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "<think>x</think>2"}]

LEETCODE = {
    "question_title": "add one",
    "question_content": "Add one.",
    "platform": "leetcode",
    "question_id": "3001",
    "contest_id": "weekly",
    "contest_date": "2025-01-04T00:00:00",
    "starter_code": "class Solution:\n    def f(self, x: int) -> int:\n        ",
    "difficulty": "easy",
    "public_test_cases": '[{"input": "1", "output": "2", "testtype": "functional"}]',
    "private_test_cases": private_tests([{"input": "3", "output": "4", "testtype": "functional"}]),
    "metadata": '{"func_name": "f"}',
}

CARDS = [
    ("klear_math", "rl", {"data_source": "math_longcot_math_verify", "prompt": ROLES[:1], "ability": "MATH", "reward_model": {"ground_truth": "2", "style": "rule-lighteval/MATH_v2"}, "__index_level_0__": 7.0}, ("x-1", "1+1?", "2")),
    ("klear_code", "rl", {"hash": "47c4", "ability": "code", "data_source": "coder1_longcot", "prompt": ROLES[:1], "reward_model": {"ground_truth": TESTS, "style": "rule"}}, ("x-1", "1+1?", TESTS)),
    ("openthoughts3", "sft", {"difficulty": 7, "source": "ai2-adapt-dev/openmath-2-math", "domain": "math", "conversations": [{"from": "human", "value": "1+1?"}, {"from": "gpt", "value": "<think>x</think>2"}]}, ("1+1?", "<think>x</think>2", "ai2-adapt-dev/openmath-2-math", "QwQ-32B")),
    ("numinamath_1_5", "rl", {"problem": "1+1?", "solution": "It is 2.", "answer": "2", "problem_type": "Algebra", "question_type": "math-word-problem", "problem_is_valid": "Yes", "solution_is_valid": "Yes", "source": "olympiads", "synthetic": False}, ("x-1", "1+1?", "2")),
    ("acereason_sft", "sft", {"category": "math", "source": "NuminaMath-CoT", "input": "1+1?", "output": "<think>x</think>2"}, ("1+1?", "<think>x</think>2", "NuminaMath-CoT", "DeepSeek-R1")),
    ("opencodereasoning", "sft", {"id": "0c1e", "input": "1+1?", "output": "<think>x</think>2", "source": "codeforces", "license": "cc-by-4.0", "dataset": "code_contests", "split": "train", "difficulty": "11", "solution": "2"}, ("1+1?", "<think>x</think>2", "code_contests", "DeepSeek-R1")),
    ("skywork_or1", "rl", {"data_source": "train-math-deepscaler", "prompt": ROLES[:1], "ability": "math", "reward_model": {"ground_truth": '["2"]', "style": "rule"}, "extra_info": {"index": 0, "model_difficulty": {"DeepSeek-R1-Distill-Qwen-7B": 3}}}, ("x-1", "1+1?", "2")),
    ("deepscaler", "rl", {"problem": "1+1?", "solution": "", "answer": "2"}, ("x-1", "1+1?", "2")),
    ("taco", "rl", {"question": "1+1?", "solutions": "[]", "starter_code": "", "input_output": TESTS, "difficulty": "EASY", "name": None, "source": "codewars"}, ("x-1", "1+1?", TESTS)),
    ("apps", "rl", {"problem_id": 0, "question": "1+1?", "solutions": "[]", "input_output": '{"fn_name": "f", "inputs": [[1]], "outputs": [[2]]}', "difficulty": "interview", "url": "", "starter_code": "def f(x):"}, ("x-1", "1+1?\n\nStarter code:\n```python\ndef f(x):\n```", '{"inputs": [[1]], "outputs": [[2]], "fn_name": "f"}')),
    ("codeforces", "rl", {"id": "852/A", "title": "Sum", "description": "1+1?", "input_format": "One number.", "output_format": "One more.", "note": None, "interaction_format": None, "examples": [{"input": "1", "output": "2"}], "official_tests": [{"input": "1\n", "output": "2\n"}], "official_tests_complete": True, "input_mode": "stdio", "generated_checker": None, "executable": True, "time_limit": 1.0}, ("852/A", "Sum\n\n1+1?\n\nInput\nOne number.\n\nOutput\nOne more.", TESTS)),
]  # fmt: skip
