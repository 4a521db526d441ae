"""HTTP/1.1 on a unix socket: what a running gateway tells and is told. curl --unix-socket works too.

    GET  /status              JSON, see gateway.runtime.status
    GET  /metrics             Prometheus text; the only path that is also served on [metrics] listen
    GET  /verify              the conservation law, every side counted anew
    GET  /tail                NDJSON, records as they are stored; ?driver= &device=
    GET  /queue               lanes: numbers, bytes, oldest
    GET  /queue/peek          the first records that wait; ?lane= &after= &limit=
    GET  /queue/export        all that waits in lane main, see gateway.control.transfer
    POST /queue/import        a part of such an export; ?file= &start=
    GET  /queue/dead          dead letters; ?limit=
    POST /queue/dead/retry    {"ids": [...]}
    POST /adopt               {"assume": "delivered" | "lost" | "fork" | null}

Errors are JSON {"error": "one sentence"}. Who may open the socket may do all of it: its mode and its folder are the
permission. One request a connection; connections, sizes and times are limited, and a slow reader never holds the
gateway up: it loses records of /tail, with a count, and other answers are given up.
"""
