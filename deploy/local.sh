#!/usr/bin/env bash
# A Prefect server and a process worker on this machine, for `make server`, `make worker`, `make deploy`, `make stop`.
# Everything they write lies in PREFECT_HOME (default .prefect/); the server listens on loopback only.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=${BIN:-.venv/bin}
export PREFECT_HOME=${PREFECT_HOME:-$PWD/.prefect}
export PREFECT_SERVER_ANALYTICS_ENABLED=false DO_NOT_TRACK=1
# A run holds a slot of its deployment's concurrency limit by a lease. If its worker is killed, the slot is freed when
# the lease ends. Leases are stored on disk, so that they outlive a killed server.
export PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE=prefect.server.concurrency.lease_storage.filesystem
export PREFECT_SERVER_CONCURRENCY_INITIAL_DEPLOYMENT_LEASE_DURATION=60
# By default Prefect commits once per task-run event and once per 20 events, which keeps SQLite locked.
export PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE=200 PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE=1000

# A process is known by a lock that it holds and the kernel frees however it ends: process ids are given to others later.
alive() { [[ -s "$PREFECT_HOME/$1.pid" ]] && ! flock --nonblock "$PREFECT_HOME/$1.lock" true; }

end() {  # SIGTERM, and SIGKILL to whatever is left after 20 s
    local group; group=$(cat "$PREFECT_HOME/$1.pid")
    kill -- "-$group" 2>/dev/null || true
    for _ in $(seq 100); do alive "$1" || break; sleep 0.2; done
    kill -KILL -- "-$group" 2>/dev/null || true
}

background() {  # NAME COMMAND...: run it detached, its lock, process id and output in PREFECT_HOME
    local name=$1; shift
    setsid nohup flock --nonblock --no-fork "$PREFECT_HOME/$name.lock" "$@" >"$PREFECT_HOME/$name.log" 2>&1 </dev/null &
    echo $! >"$PREFECT_HOME/$name.pid"
}

pid() { cat "$PREFECT_HOME/$1.pid" 2>/dev/null || echo 0; }

api() { cat "$PREFECT_HOME/api" 2>/dev/null || { echo "no server: make server" >&2; exit 2; }; }

answers() {  # a server that is catching up after a kill may be slow
    "$bin/python" deploy/ready.py "$1" "$(pid server)" 30 || { echo "the server $1 does not answer: make server" >&2; exit 1; }
}

case ${1:-} in
server)
    mkdir -p "$PREFECT_HOME"
    if alive server; then echo "the server runs already: $(api)"; exit 0; fi
    port=$("$bin/python" deploy/free_port.py "${PREFECT_PORT:-4200}")
    url=http://127.0.0.1:$port
    echo "$url/api" >"$PREFECT_HOME/api"
    echo "starting the server at $url (its first start takes some seconds; log: $PREFECT_HOME/server.log)"
    background server "$bin/prefect" server start --host 127.0.0.1 --port "$port"
    # Every command with this PREFECT_HOME will speak to this server. Prefect takes seconds to say so: at the same time.
    "$bin/prefect" config set PREFECT_API_URL="$url/api" PREFECT_SERVER_ANALYTICS_ENABLED=false >/dev/null &
    local_settings=$!
    if ! "$bin/python" deploy/ready.py "$url/api" "$(pid server)" 300; then
        tail -n 20 "$PREFECT_HOME/server.log" >&2; echo "the server did not start: $PREFECT_HOME/server.log" >&2; exit 1
    fi
    wait "$local_settings"
    echo "ready after $SECONDS s: $url (make worker, make deploy; make stop ends it)"
    ;;
worker)
    PREFECT_API_URL=$(api); export PREFECT_API_URL
    answers "$PREFECT_API_URL"
    if alive worker; then echo "the worker runs already"; exit 0; fi
    "$bin/prefect" work-pool create bridgescope --type process --overwrite >/dev/null
    background worker "$bin/prefect" worker start --pool bridgescope --type process --name "local-$(hostname)"
    echo "worker: pool bridgescope (log: $PREFECT_HOME/worker.log)"
    ;;
deploy)
    PREFECT_API_URL=$(api); export PREFECT_API_URL
    answers "$PREFECT_API_URL"
    export BRIDGESCOPE_HOME=${BRIDGESCOPE_HOME:-$PWD} OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(nproc)}
    export BRIDGESCOPE_STORE=${BRIDGESCOPE_STORE:-$PWD/store}
    "$bin/prefect" work-pool inspect bridgescope >/dev/null 2>&1 ||
        "$bin/prefect" work-pool create bridgescope --type process >/dev/null
    "$bin/prefect" --no-prompt deploy --all --prefect-file deploy/prefect.yaml
    ;;
stop)
    for name in worker server; do
        if alive "$name"; then end "$name"; echo "stopped the $name"; fi
        rm -f "$PREFECT_HOME/$name.pid"
    done
    rm -f "$PREFECT_HOME/api"
    ;;
notify)  # BLOCK
    PREFECT_API_URL=$(api); export PREFECT_API_URL
    answers "$PREFECT_API_URL"
    "$bin/python" deploy/notify.py "${@:2}"
    ;;
*)
    echo "usage: $0 server|worker|deploy|stop|notify" >&2; exit 2
    ;;
esac
