#!/bin/sh
# The role of worker, API and `ais`, which owns nothing (docs/operations.md, Two roles). Harmless when it was done before.
set -eu

psql --no-psqlrc --set=ON_ERROR_STOP=1 --quiet <<'SQL'
\getenv password DESK_PASSWORD
SELECT 'CREATE ROLE ais_desk LOGIN' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'ais_desk') \gexec
ALTER ROLE ais_desk PASSWORD :'password';
SQL
