#!/bin/sh
# Creates the topics tidegate needs, with the settings it relies on. Topics that are there already are left alone.
set -eu

usage() {
    cat <<'USAGE'
usage: topics.sh --bootstrap-server HOST:PORT [options] [TOPIC[:PARTITIONS] ...]

Creates tidegate-positions, tidegate-ledger and the data topics named; PARTITIONS is 6 if left out.

  --positions-topic NAME  as kafka.positions_topic, if that is set
  --ledger-topic NAME     as kafka.ledger_topic, if that is set
  --command-config FILE   client properties for a secured cluster
  --replication N         copies of each partition (default 3)
  --retention-ms MS       how long data topics keep records (default 7 days)

kafka-topics.sh must be on the PATH.
USAGE
}

die() {
    printf 'topics.sh: %s\n' "$*" >&2
    exit 1
}

server=
config=
positions=tidegate-positions
ledger=tidegate-ledger
replication=3
retention=604800000
while [ $# -gt 0 ]; do
    case $1 in
        --bootstrap-server | --command-config | --replication | --retention-ms | --positions-topic | --ledger-topic)
            [ $# -ge 2 ] && [ -n "$2" ] || die "$1 needs a value"
            case $1 in
                --bootstrap-server) server=$2 ;;
                --command-config) config=$2 ;;
                --positions-topic) positions=$2 ;;
                --ledger-topic) ledger=$2 ;;
                --replication) replication=$2 ;;
                --retention-ms) retention=$2 ;;
            esac
            shift 2
            ;;
        -h | --help)
            usage
            exit 0
            ;;
        -*)
            usage >&2
            die "unknown argument: $1"
            ;;
        *) break ;;
    esac
done
if [ -z "$server" ]; then
    usage >&2
    exit 2
fi
command -v kafka-topics.sh >/dev/null || die "kafka-topics.sh is not on the PATH"

# acks=all protects a record from the loss of a broker only when at least two copies must be in sync.
in_sync=1
[ "$replication" -lt 3 ] || in_sync=2

# create NAME PARTITIONS [--config KEY=VALUE ...]
create() {
    name=$1
    partitions=$2
    shift 2
    kafka-topics.sh --bootstrap-server "$server" ${config:+--command-config "$config"} --create --if-not-exists \
        --topic "$name" --partitions "$partitions" --replication-factor "$replication" \
        --config "min.insync.replicas=$in_sync" "$@"
}

# Gateways read this topic back when they connect, so it stays short: small segments, compacted early. The broker's
# clock stamps the records (LogAppendTime), because gateways learn from it what time it is.
create "$positions" 50 \
    --config cleanup.policy=compact --config message.timestamp.type=LogAppendTime \
    --config segment.bytes=4194304 --config segment.ms=3600000 --config min.cleanable.dirty.ratio=0.1

# What gateways say about their own records; an audit reads it, so it is kept as long as it can be asked for.
create "$ledger" 6 --config retention.ms=-1 --config segment.bytes=67108864

for topic in "$@"; do
    count=${topic#*:}
    [ "$count" != "$topic" ] || count=6
    create "${topic%%:*}" "$count" --config "retention.ms=$retention"
done
