#!/bin/sh
# Temporal's two databases and their schemas. Each step is harmless when it was done before.
set -eu

prepare() {
    temporal-sql-tool --plugin postgres12 --ep postgres --port 5432 --user ais --db "$1" create
    temporal-sql-tool --plugin postgres12 --ep postgres --port 5432 --user ais --db "$1" setup-schema -v 0.0
    temporal-sql-tool --plugin postgres12 --ep postgres --port 5432 --user ais --db "$1" \
        update-schema -d "/etc/temporal/schema/postgresql/v12/$2/versioned"
}

prepare temporal temporal
prepare temporal_visibility visibility
