#!/usr/bin/env python3
"""What encryption costs: the same work in plaintext and over Noise, by turns, in one run.

    cargo build --release -p corecast-loadgen
    tools/cost.py [--pairs 15] [--seconds 0.9] [--loadgen target/release/corecast-loadgen]

Each pair is one short run of either kind, plaintext first in every other one, with a server and a client in one process, pinned to two
processors. Ratios are Noise to plaintext, per pair: of the server's processor time for each delivery, and of deliveries a second. The
interval holds their median with at least 95 % (order statistics, as tools/compare has it). Standard library only.
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


def run(loadgen, work, seconds, plaintext):
    command = [loadgen, *work, "--duration", str(seconds), "--warmup", "0.3", "--spin-us", "0", "--json", "-"]
    done = subprocess.run(command + ["--plaintext"] * plaintext, capture_output=True, text=True, check=True)
    report = json.loads(done.stdout)
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
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.9)
    parser.add_argument("--loadgen", default="target/release/corecast-loadgen")
    args = parser.parse_args()
    print("| work | CPU per delivery, plaintext / Noise | CPU, ratio | deliveries a second, plaintext / Noise | rate, ratio |")
    print("|---|---:|---|---:|---|")
    for name, work in ROWS:
        both = {True: [], False: []}
        for pair in range(args.pairs):
            for plaintext in (pair % 2 == 0, pair % 2 == 1):
                both[plaintext].append(run(args.loadgen, work, args.seconds, plaintext))
        cpu = [noise[0] / plain[0] for plain, noise in zip(both[True], both[False])]
        rate = [noise[1] / plain[1] for plain, noise in zip(both[True], both[False])]
        median = {kind: [statistics.median(column) for column in zip(*runs)] for kind, runs in both.items()}
        print(
            f"| {name} | {median[True][0]:.0f} ns / {median[False][0]:.0f} ns | {shown(cpu)} "
            f"| {median[True][1] / 1e3:.1f} k / {median[False][1] / 1e3:.1f} k | {shown(rate)} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
