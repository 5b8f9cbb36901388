#!/usr/bin/env bash
# What established peers cost that do nothing, encrypted and in plaintext: memory per peer at 10,000, processor time at 1,000. On loopback,
# in about a minute.
# Needs a release build (cargo build --release -p corecast-loadgen), Linux's /proc and an fd limit of 20,000.
set -euo pipefail
cd "$(dirname "$0")/.."
loadgen=${LOADGEN:-target/release/corecast-loadgen}

resident() { awk '/^VmRSS/ { print $2 }' "/proc/$1/status"; }
cpu_ns() { cat /proc/"$1"/task/*/schedstat | awk '{ sum += $1 } END { printf "%.0f", sum }'; }

serve() {
    exec 3< <(exec "$loadgen" serve --listen 127.0.0.1:0 --mode echo --exempt 127.0.0.0/8 "$1" 2>/dev/null)
    server=$!
    read -r _ _ address <&3
}

# Connects so many peers that send one message a second between them all, for so many seconds.
connect() {
    "$loadgen" echo --target "$address" $protection --peers "$1" --size 64 --rate 1 --warmup 0 --duration "$2" --drain 5 >/dev/null 2>&1 &
    client=$!
}

finish() {
    wait "$client" || true
    kill -TERM "$server"
    while kill -0 "$server" 2>/dev/null; do sleep 0.1; done
}

measure() {
    serve "$admission"
    before=$(resident "$server")
    # Ten thousand encrypted handshakes take some seconds of both sides' processors.
    connect 10000 20
    sleep 18
    after=$(resident "$server")
    finish
    echo "$name: memory of an idle peer at 10,000: $(((after - before) * 1024 / 10000)) B (server: $before kB before, $after kB with them)"

    serve "$admission"
    connect 1000 14
    sleep 5
    from=$(cpu_ns "$server")
    sleep 8
    to=$(cpu_ns "$server")
    finish
    awk -v ns=$((to - from)) 'BEGIN { printf "'"$name"': processor time of an engine with 1,000 idle peers: %.2f %% of a core\n", ns / 8e7 }'
}

name=encrypted admission=--open protection=
measure
name=plaintext admission=--plaintext protection=--plaintext
measure
