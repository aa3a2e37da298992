#!/bin/sh
# The namespace and the search attributes by which operators find desks. An attribute that a workflow upserts without its
# being registered fails every workflow task after it.
set -eu

temporal operator namespace describe --namespace default > /dev/null 2>&1 ||
    temporal operator namespace create --namespace default --retention 30d

registered=$(temporal operator search-attribute list --namespace default)
for name in AisDesk AisState AisMode; do
    echo "$registered" | grep -qw "$name" ||
        temporal operator search-attribute create --namespace default --name "$name" --type Keyword
done
