#!/usr/bin/env python3
"""What encryption costs, or a second engine core: the same work done in two ways, by turns, in one run.

    cargo build --release -p corecast-loadgen
    tools/cost.py [noise|cores] [--pairs 15] [--seconds 0.9] [--loadgen target/release/corecast-loadgen]

`noise` is plaintext and Noise; `cores` is an engine on one processor and on two, with the client on both of them either way (it needs two).
Each pair is one short run of either way, the first one first in every other pair, with a server and a client in one process. Ratios are
the second to the first, per pair: of the server's processor time for each delivery, and of deliveries a second. The interval holds their
median with at least 95 % (order statistics, as tools/compare has it). Standard library only.
"""

import argparse
import json
import math
import statistics
import subprocess

ROWS = [
    ("echo, 50 connections, 32 B", ["echo", "--peers", "50", "--size", "32", "--closed"]),
    ("fan-out to 1,000, 128 B", ["fanout", "--peers", "1000", "--size", "128", "--closed"]),
    ("fan-out to 1,000, 1 KiB", ["fanout", "--peers", "1000", "--size", "1024", "--closed"]),
    ("fan-out to 1,000, 128 B, 64 outstanding", ["fanout", "--peers", "1000", "--size", "128", "--in-flight", "64"]),
    ("fan-out to 1,000, 1 KiB, 64 outstanding", ["fanout", "--peers", "1000", "--size", "1024", "--in-flight", "64"]),
]

# The two ways of each comparison, with their names.
WAYS = {
    "noise": [("plaintext", ["--plaintext"]), ("Noise", [])],
    "cores": [
        ("one core", ["--plaintext", "--client-cores", "0,1", "--server-cores", "0"]),
        ("two cores", ["--plaintext", "--client-cores", "0,1", "--server-cores", "0,1"]),
    ],
}


def run(loadgen, work, way, seconds):
    command = [loadgen, *work, *way, "--duration", str(seconds), "--warmup", "0.3", "--spin-us", "0", "--json", "-"]
    report = json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout)
    return report["server_cpu_ns_per_delivery"], report["deliveries_per_s"]


def interval(values):
    """The order statistics that hold the median with at least 95 %."""
    values, n = sorted(values), len(values)
    k, below = 0, 0.0
    while k < n // 2 and 2 * (below + math.comb(n, k) / 2**n) <= 0.05:
        below += math.comb(n, k) / 2**n
        k += 1
    return values[max(k - 1, 0)], values[min(n - k, n - 1)]


def shown(values):
    low, high = interval(values)
    return f"{statistics.median(values):.3f} [{low:.3f}, {high:.3f}]"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=WAYS, default="noise")
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.9)
    parser.add_argument("--loadgen", default="target/release/corecast-loadgen")
    args = parser.parse_args()
    ways = WAYS[args.what]
    names = " / ".join(name for name, _ in ways)
    print(f"| work | CPU per delivery, {names} | CPU, ratio | deliveries a second, {names} | rate, ratio |")
    print("|---|---:|---|---:|---|")
    for name, work in ROWS:
        runs = [[], []]
        for pair in range(args.pairs):
            for which in (pair % 2, 1 - pair % 2):
                runs[which].append(run(args.loadgen, work, ways[which][1], args.seconds))
        cpu = [second[0] / first[0] for first, second in zip(*runs)]
        rate = [second[1] / first[1] for first, second in zip(*runs)]
        (first_cpu, first_rate), (second_cpu, second_rate) = ([statistics.median(column) for column in zip(*way)] for way in runs)
        print(
            f"| {name} | {first_cpu:.0f} ns / {second_cpu:.0f} ns | {shown(cpu)} "
            f"| {first_rate / 1e3:.1f} k / {second_rate / 1e3:.1f} k | {shown(rate)} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
