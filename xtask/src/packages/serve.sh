# Starts the agent as its unit does, makes traffic, and prints the metrics and what was recorded.
# $1: the command of the unit. bash, for /dev/tcp: a bare root has no curl.
set -eu
get() {
    exec 3<>/dev/tcp/127.0.0.1/10977
    printf 'GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' "$1" >&3
    cat <&3
    exec 3>&-
}
alive() {
    kill -0 "$agent" || { echo "the agent ended" >&2; exit 1; }
}
# LogsDirectory= of the unit.
mkdir -p -m 0700 /var/log/kaprobe
$1 &
agent=$!
until (get /readyz) 2>/dev/null | head -n 1 | grep -q ' 200 '; do
    alive
    sleep 0.1
done
kaprobe demo >/dev/null
# Metrics are up to a second old.
until get /metrics | grep -q '^kaprobe_probes_answered_total{'; do
    alive
    sleep 0.1
done
echo "== metrics"
get /metrics
kill -TERM "$agent"
wait "$agent"
echo "== records"
kaprobe replay --json /var/log/kaprobe
