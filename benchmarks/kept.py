"""What long benchmarks have come to: a JSON line for each finished piece of work."""

import json


def read(path):
    """Return the finished rows; none if there is no such file."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


def add(path, row):
    """Write a row to stay, and print it."""
    path.parent.mkdir(exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")
    print(row, flush=True)
