"""Makes the papers' tables in their own layout, from tables.csv: headings, order, rules, best values.

Values are the file's, with the paper's digits. A new table is a function here, an entry in PAPER_TABLES under the
name of the sweep that makes ours, and that name in PAPERS of papers.py.
"""

from collections.abc import Callable, Iterable, Mapping

from analysis.draw.cells import number_cell
from analysis.draw.table import DASH, Table
from analysis.paper.numbers import published_table

BENCHMARKS = {
    "aime2024": "AIME 2024",
    "aime2025": "AIME 2025",
    "hmmt2025": "HMMT 2025",
    "livecodebench_v5": "LiveCodeBench V5",
    "livecodebench_v6": "LiveCodeBench V6",
    "math500": "MATH500",
    "amc2023": "AMC 2023",
    "avg": "Avg",
}
SFT_MODEL, LONG_MODEL = "Klear-Reasoner-8B-SFT", "Klear-Reasoner-8B (64K inference)"


def paper_table1() -> Table:
    """Sets models by benchmarks: a rule above the paper's, the last row indented, best bold, second underlined."""
    frame = published_table("table1")
    models, columns = [*frame["row"].unique()], [*frame["column"].unique()]
    places = zip(frame["row"], frame["column"], strict=True)
    cells = {place: number_cell(value, 1) for place, value in zip(places, frame["value"], strict=True)}
    names = {"livecodebench_v5": "LCB V5", "livecodebench_v6": "LCB V6"}
    samples = {"livecodebench_v5": 8, "livecodebench_v6": 8}
    header = [("", "Model")]
    for column in columns:
        name = names.get(column, BENCHMARKS[column].replace(" ", ""))
        header.append(("Benchmark", f"{name} (avg@{samples.get(column, 64)})"))
    rows = []
    for model in models:
        printed = "\N{EM SPACE}w/ 64K Inference Budget" if model == LONG_MODEL else model
        rows.append([printed, *(cells.get((model, column), DASH) for column in columns)])
    first: set[tuple[int, int]] = set()
    second: set[tuple[int, int]] = set()
    for place, column in enumerate(columns, start=1):
        ranked = sorted({*frame.loc[frame["column"] == column, "value"]}, reverse=True)
        for number, model in enumerate(models):
            value = frame[(frame["row"] == model) & (frame["column"] == column)]["value"]
            if len(value) and value.iloc[0] in ranked[:2]:
                (first if value.iloc[0] == ranked[0] else second).add((number, place))
    caption = "Table 1 of the paper: Klear-Reasoner against other models, in per cent."
    return Table("paper_table1", caption, header, rows, first, second, {models.index(SFT_MODEL)})


def paper_table2() -> Table:
    """Sets benchmarks by difficulty and correctness of SFT prompts, the better of each pair bold."""
    frame = published_table("table2").set_index(["column", "row"])["value"]
    pairs = [(d, c) for d in ("easy", "hard", "overall") for c in ("only_true", "mixed")]
    header = [("", "Benchmark"), *((d.capitalize(), {"only_true": "Only True"}.get(c, "Mixed")) for d, c in pairs)]
    benchmarks = [b for b in BENCHMARKS if b in frame.index.get_level_values("column")]
    values = [[frame[b, f"{d}/{c}"] for d, c in pairs] for b in benchmarks]
    bold = set()
    for number, row in enumerate(values):
        for start in range(0, len(pairs), 2):
            bold |= {(number, place + 1) for place in best_of(row, range(start, start + 2))}
    rows = [[BENCHMARKS[b], *(number_cell(v, 2) for v in row)] for b, row in zip(benchmarks, values, strict=True)]
    return Table(
        "paper_table2", "Table 2 of the paper: SFT by difficulty and correctness, in per cent.", header, rows, bold
    )


def paper_table3() -> Table:
    """Sets benchmarks by teachers of the same prompts."""
    return by_benchmark("table3", "Table 3 of the paper: teachers of the same prompts, in per cent.", {})


def paper_table4() -> Table:
    """Sets benchmarks by the number of math sources."""
    return by_benchmark(
        "table4", "Table 4 of the paper: the best K math sources, 31,600 examples each.", top_names()
    )


def paper_table5() -> Table:
    """Sets benchmarks by the number of code sources."""
    return by_benchmark(
        "table5", "Table 5 of the paper: the best K code sources, 31,600 examples each.", top_names()
    )


def paper_table6() -> Table:
    """Sets weights of the SFT term by benchmarks, with a rule below the starting checkpoint."""
    frame = published_table("table6").pivot_table(index="row", columns="column", values="value", sort=False)
    rows = [
        [
            {"starting_checkpoint": "Starting Checkpoint"}.get(str(name), str(name).replace("=", " = ")),
            *(number_cell(v, 2) for v in row),
        ]
        for name, row in zip(frame.index, frame.to_numpy(), strict=True)
    ]
    bold = {(int(frame[c].to_numpy().argmax()), place) for place, c in enumerate(frame.columns, start=1)}
    header = [("", ""), *(("", f"{BENCHMARKS[str(c)].replace(' ', '')} (avg@32)") for c in frame.columns)]
    caption = "Table 6 of the paper: weight of the SFT term, 100 steps of math RL; alpha = 0 is the GRPO loss."
    return Table("paper_table6", caption, header, rows, bold, rules={1})


def paper_ce_gppo() -> Table:
    """Sets models and methods by benchmarks, as CE-GPPO's README: a rule above the larger model, the best bold."""
    frame = published_table("ce_gppo_methods").pivot_table(
        index="row", columns="column", values="value", sort=False
    )
    header = [("", "Model"), *(("", BENCHMARKS[str(column)]) for column in frame.columns)]
    rows, bold, starts = [], set(), []
    for number, (name, values) in enumerate(frame.iterrows()):
        model, _, method = str(name).partition("+")
        starts += [] if method else [number]
        digits = [1 if round(v, 1) == v else 2 for v in values]
        cells = [number_cell(v, n) for v, n in zip(values, digits, strict=True)]
        rows.append([f"\N{EM SPACE}+{method}" if method else model, *cells])
    for start, end in zip(starts, [*starts[1:], len(rows)], strict=True):
        part = frame.iloc[start:end].to_numpy()
        bold |= {(start + int(row), place) for place, row in enumerate(part.argmax(axis=0), start=1)}
    caption = "CE-GPPO's benchmark results, as its README has them, in per cent."
    return Table("paper_ce_gppo_methods", caption, header, rows, bold, rules={*starts[1:]})


def paper_dapo() -> Table:
    """Sets the rungs of DAPO's ladder by its only benchmark, with a rule below the model it is compared with."""
    frame = published_table("dapo")
    rows = [[str(name), number_cell(value, 0)] for name, value in zip(frame["row"], frame["value"], strict=True)]
    caption = "Table 1 of DAPO: techniques added one by one, in per cent."
    return Table(
        "paper_dapo", caption, [("", "Model"), ("", "AIME 2024 (avg@32)")], rows, {(len(rows) - 1, 1)}, rules={1}
    )


PAPER_TABLES: Mapping[str, Callable[[], Table]] = {
    "table1": paper_table1,
    "table2": paper_table2,
    "table3": paper_table3,
    "table4": paper_table4,
    "table5": paper_table5,
    "table6": paper_table6,
    "ce_gppo_methods": paper_ce_gppo,
    "dapo": paper_dapo,
}


def by_benchmark(table: str, caption: str, names: dict[str, str]) -> Table:
    """Sets benchmarks by the table's rows in their order, the best of each benchmark bold."""
    frame = published_table(table).pivot_table(index="column", columns="row", values="value", sort=False)
    frame = frame.loc[[b for b in BENCHMARKS if b in frame.index]]
    bold = {(n, place + 1) for n, row in enumerate(frame.to_numpy()) for place in best_of(row, range(len(row)))}
    rows = [
        [BENCHMARKS[str(b)], *(number_cell(v, 2) for v in row)]
        for b, row in zip(frame.index, frame.to_numpy(), strict=True)
    ]
    header = [("", "Benchmark"), *(("", names.get(str(c), str(c))) for c in frame.columns)]
    return Table(f"paper_{table}", caption, header, rows, bold)


def best_of(values: Iterable[float], places: range) -> set[int]:
    """Returns the places of the largest value, more than one where they tie."""
    row = [*values]
    best = max(row[place] for place in places)
    return {place for place in places if row[place] == best}


def top_names() -> dict[str, str]:
    """Returns the headings of Tables 4 and 5."""
    return {f"top{k}": f"Top{k}" for k in (1, 2, 4, 6, 8, 10)}
