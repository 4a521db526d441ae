#!/bin/sh
# One image serves a whole fleet, but no two gateways may share an id: each device puts its own into the configuration.
set -eu

id=${TIDEGATE_ID:-${BALENA_DEVICE_UUID:-}}
if [ -z "$id" ]; then
    echo "tidegate-start: set TIDEGATE_ID to this gateway's name (balena sets BALENA_DEVICE_UUID itself)" >&2
    exit 78
fi
case $id in
    *[!A-Za-z0-9._-]*)
        echo "tidegate-start: a gateway's id has only letters, digits, dots, underscores and hyphens, not: $id" >&2
        exit 78
        ;;
esac
source=${TIDEGATE_FLEET_CONFIG:-/etc/tidegate/tidegate.toml}
sed "s/@TIDEGATE_ID@/$id/g" "$source" >"$TIDEGATE_CONFIG"
exec tidegate run
