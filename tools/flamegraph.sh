#!/bin/sh
# A flamegraph of a running process, by perf: of the kernel too, where it may be looked at, and of any process, not only of ours.
# `corecast-loadgen WORKLOAD --flamegraph FILE` needs no perf, and shows its own process only.
#
# Usage: tools/flamegraph.sh [-o out.svg] [-d SECONDS] [-F HERTZ] PID
#        tools/flamegraph.sh [-o out.svg] [-d SECONDS] [-F HERTZ] -- COMMAND [ARGUMENT...]
#
#   -o FILE     the SVG (flamegraph.svg)
#   -d SECONDS  how long (10); a COMMAND is profiled to its end, unless -d is said
#   -F HERTZ    samples a second and processor (997)
#
# Stacks are walked by frame pointers, with which this repository is built (.cargo/config.toml); line tables are in release builds too.
set -eu

out=flamegraph.svg seconds='' hertz=997

say() { printf 'flamegraph.sh: %s\n' "$*" >&2; }
wrong() { say "$*"; say "usage: flamegraph.sh [-o out.svg] [-d SECONDS] [-F HERTZ] PID | -- COMMAND..."; exit 2; }
number() { case $2 in '' | *[!0-9]* | 0) wrong "$1 $2: expected a whole number over 0" ;; esac }

while getopts o:d:F:h option; do
    case $option in
        o) out=$OPTARG ;;
        d) number -d "$OPTARG"; seconds=$OPTARG ;;
        F) number -F "$OPTARG"; hertz=$OPTARG ;;
        h) sed -n '2,/^set -eu/{/^set -eu/d;s/^# \{0,1\}//;p;}' "$0"; exit 0 ;;
        *) wrong "unknown option" ;;
    esac
done
# Whether `--` stood before the rest: getopts takes it away.
separator=$((OPTIND - 1))
[ "$separator" -gt 0 ] && eval "before=\${$separator}" || before=''
shift "$separator"
[ $# -gt 0 ] || wrong "whose? Name a process by its id, or a command after --"

command -v perf >/dev/null 2>&1 ||
    { say "perf is not installed: apt-get install linux-perf (Debian), linux-tools-\$(uname -r) (Ubuntu), perf (others)"; exit 1; }

# What makes an SVG of stacks: inferno, or the scripts that it is made after.
if command -v inferno-collapse-perf >/dev/null 2>&1 && command -v inferno-flamegraph >/dev/null 2>&1; then
    collapse=inferno-collapse-perf draw=inferno-flamegraph
elif command -v stackcollapse-perf.pl >/dev/null 2>&1 && command -v flamegraph.pl >/dev/null 2>&1; then
    collapse=stackcollapse-perf.pl draw=flamegraph.pl
else
    say "nothing that draws flamegraphs is installed: cargo install inferno (or put FlameGraph's scripts, by Brendan Gregg, into PATH)"
    exit 1
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

paranoid=$(cat /proc/sys/kernel/perf_event_paranoid 2>/dev/null || echo 0)
if [ "$(id -u)" -ne 0 ] && [ "$paranoid" -gt 2 ]; then
    say "kernel.perf_event_paranoid is $paranoid: sudo sysctl -w kernel.perf_event_paranoid=1, or run this as root"
    exit 1
fi
# Without leave to look at the kernel perf asks for what it gets, and says so.
event=cycles
if [ "$(id -u)" -ne 0 ] && [ "$paranoid" -gt 1 ]; then
    say "without the kernel's functions: kernel.perf_event_paranoid is $paranoid"
    event=cycles:u
fi
# Virtual machines often have no counter of cycles: then by the clock.
perf stat -e "$event" true >"$work/probe" 2>&1 && ! grep -q 'not supported' "$work/probe" ||
    { case $event in *:u) event=cpu-clock:u ;; *) event=cpu-clock ;; esac; }

record() { perf record -q -F "$hertz" -e "$event" -g --call-graph fp -o "$work/perf.data" "$@"; }
if [ "$before" = -- ]; then
    title=$*
    # What the command says, and how it ends, is its own; a profile is made of it either way.
    if [ -n "$seconds" ]; then record -- timeout "$seconds" "$@" || say "the command ended with $?"
    else record -- "$@" || say "the command ended with $?"; fi
else
    [ $# -eq 1 ] || wrong "one process at a time"
    number PID "$1"
    [ -d "/proc/$1" ] || { say "there is no process $1"; exit 1; }
    title="$(tr '\0' ' ' <"/proc/$1/cmdline" | cut -c 1-100)"
    record -p "$1" -- sleep "${seconds:-10}"
fi

# --no-inline: functions that were put into others are looked up by addr2line otherwise, for minutes.
perf script --no-inline -i "$work/perf.data" >"$work/script" 2>"$work/errors" || { cat "$work/errors" >&2; exit 1; }
"$collapse" <"$work/script" >"$work/folded"
[ -s "$work/folded" ] || { say "nothing was sampled: the process was idle"; exit 1; }
"$draw" --title "$title" <"$work/folded" >"$work/svg"
mv "$work/svg" "$out"
say "$out: $(grep -c '^[^[:space:]]' "$work/script") samples"
