#!/usr/bin/env bash
# A server and two devices, each in a network of its own. In round 2 one device is killed; after round 3 it comes back:
#   network.sh [FOLDER]
# For root on Linux, with iproute2; flwr and edgeprune must be on PATH. Nothing outside the three networks is changed.
set -euo pipefail
app=$(realpath "$(dirname "$0")")
work=$(mkdir -p "${1:-fleet}" && realpath "${1:-fleet}")
export FLWR_TELEMETRY_ENABLED=0
server=10.77.0.1
cd "$work"

say() { echo "== $*"; }
wait_for() { # a text in a file, at most ten minutes
  for _ in $(seq 600); do grep -q "$1" "$2" 2>/dev/null && return; sleep 1; done
  echo "'$1' did not come in $2" >&2 && exit 1
}

# Each process begins a session of its own, so that it can be killed with what it has started.
start() { # NAMESPACE LOG COMMAND...
  FLWR_HOME=$work/$1 setsid ip netns exec "$1" "${@:3}" >> "$2" 2>&1 &
  started[$1]=$! && disown
}
declare -A started
stop() { kill -"${2:-TERM}" -- -"${started[$1]}" 2>/dev/null || true; }
clean() {
  for name in "${!started[@]}"; do stop "$name" KILL; done
  for name in fleet-server fleet-a fleet-b; do ip netns delete "$name" 2>/dev/null || true; done
}
trap clean EXIT

say "packs"
rm -rf parts {server,a,b,run}.log fleet-{server,a,b}
[ -e whole.h5 ] || edgeprune build digits -o whole.h5
[ -e test.h5 ] || edgeprune build digits --split test -o test.h5
edgeprune split whole.h5 --parts 2 -o parts
packs=(parts/*.h5)

say "networks"
for name in fleet-server fleet-a fleet-b; do ip netns add "$name" && ip -n "$name" link set lo up; done
ip -n fleet-server link add name lan type bridge
ip -n fleet-server addr add "$server/24" dev lan
ip -n fleet-server link set lan up
for name in a b; do # as a port of the bridge
  ip -n fleet-server link add name "to-$name" type veth peer name eth0 netns "fleet-$name"
  ip -n fleet-server link set "to-$name" master lan up
done
ip -n fleet-a addr add 10.77.0.2/24 dev eth0
ip -n fleet-b addr add 10.77.0.3/24 dev eth0
for name in a b; do ip -n "fleet-$name" link set eth0 up; done

device() { # NAME PACK
  start "fleet-$1" "$1.log" flower-supernode --insecure --superlink "$server:8000" --node-config "pack=\"$work/$2\""
}

say "server and devices"
start fleet-server server.log flower-superlink --insecure --host 0.0.0.0 --port 8000 --disable-runtime-dependency-installation
device a "${packs[0]}"
device b "${packs[1]}"
mkdir -p fleet-server
printf '[superlink]\ndefault = "fleet"\n\n[superlink.fleet]\naddress = "127.0.0.1:8000"\ninsecure = true\n' > fleet-server/config.toml
wait_for "SuperNode ID" a.log
wait_for "SuperNode ID" b.log

say "training"
FLWR_HOME=$work/fleet-server ip netns exec fleet-server flwr run "$app" fleet --stream \
  --run-config "test=\"$work/test.h5\" output=\"$work/network.safetensors\" rounds=${ROUNDS:-6}" > run.log 2>&1 &
run=$!
wait_for "ROUND 2/" run.log
say "device b is killed"
stop fleet-b KILL
wait_for "ROUND 4/" run.log
say "device b is back"
device b "${packs[1]}"
wait "$run"
grep -oE "\[ROUND .*|aggregate_train: .*|evaluation results: .*" run.log
grep -q "Received 1 results and 1 failures" run.log
