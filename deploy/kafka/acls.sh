#!/bin/sh
# Grants a gateway, or whoever audits, what it needs on a cluster with ACLs, and nothing more. Run it again after adding topics.
set -eu

usage() {
    cat <<'USAGE'
usage: acls.sh --bootstrap-server HOST:PORT --principal USER (--gateway ID | --fleet | --auditor) [options] TOPIC ...

TOPIC ... are the data topics of the gateways' routes.

  --principal USER        as the broker names it, e.g. User:plant-7
  --gateway ID            gateway.id of the one gateway that logs in as this user
  --fleet                 every gateway logs in as this user: any id, so one could lock out another
  --auditor               this user runs `tidegate audit`: it reads these topics and writes none
  --positions-topic NAME  as kafka.positions_topic, if that is set
  --ledger-topic NAME     as kafka.ledger_topic, if that is set
  --command-config FILE   client properties for a secured cluster

kafka-acls.sh must be on the PATH.
USAGE
}

die() {
    printf 'acls.sh: %s\n' "$*" >&2
    exit 1
}

server=
config=
principal=
positions=tidegate-positions
ledger=tidegate-ledger
gateway=
who=
while [ $# -gt 0 ]; do
    case $1 in
        --bootstrap-server | --command-config | --principal | --gateway | --positions-topic | --ledger-topic)
            [ $# -ge 2 ] && [ -n "$2" ] || die "$1 needs a value"
            case $1 in
                --bootstrap-server) server=$2 ;;
                --command-config) config=$2 ;;
                --principal) principal=$2 ;;
                --positions-topic) positions=$2 ;;
                --ledger-topic) ledger=$2 ;;
                --gateway)
                    gateway=$2
                    who="$who gateway"
                    ;;
            esac
            shift 2
            ;;
        --fleet | --auditor)
            who="$who ${1#--}"
            shift
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
if [ -z "$server" ] || [ -z "$principal" ] || [ $# = 0 ]; then
    usage >&2
    exit 2
fi
case $who in
    "") die "--gateway ID, --fleet or --auditor is needed" ;;
    " "*" "*) die "--gateway, --fleet and --auditor exclude each other" ;;
esac
command -v kafka-acls.sh >/dev/null || die "kafka-acls.sh is not on the PATH"

allow() {
    kafka-acls.sh --bootstrap-server "$server" ${config:+--command-config "$config"} --add --force \
        --allow-principal "$principal" "$@"
}

# Only options are left after this: --topic NAME for each topic.
for topic in "$@" "$positions" "$ledger"; do
    set -- "$@" --topic "$topic"
done
while [ "$1" != --topic ]; do shift; done

if [ "$who" = " auditor" ]; then
    # DescribeConfigs: what retention has deleted is not missing. It reads without a group.
    allow --operation Read --operation Describe --operation DescribeConfigs "$@"
    exit
fi
# DescribeConfigs: a topic's retention decides which timestamp an old record may carry.
allow --operation Write --operation Describe --operation DescribeConfigs "$@"
allow --operation Read --topic "$positions"
# Brokers from 3.0 on need no IdempotentWrite; older ones refuse an idempotent producer without it.
allow --operation IdempotentWrite --cluster
if [ "$who" = " fleet" ]; then
    allow --operation Write --operation Describe --transactional-id tidegate. --resource-pattern-type prefixed
else
    allow --operation Write --operation Describe --transactional-id "tidegate.$gateway"
fi
