#!/bin/sh
# Prints the tag of this pipeline's image: dev-YYYYMMDD.IID from develop, prod-YYYYMMDD.IID from
# main. The date is that of the pipeline, so that a job that is run again makes the same tag; IID
# counts the pipelines of the project.
set -eu

case "$CI_COMMIT_BRANCH" in
develop) stage=dev ;;
main) stage=prod ;;
*)
    echo "no image is built from $CI_COMMIT_BRANCH" >&2
    exit 1
    ;;
esac
day=$(printf '%s' "$CI_PIPELINE_CREATED_AT" | cut -c 1-10 | tr -d -)
printf '%s-%s.%s\n' "$stage" "$day" "$CI_PIPELINE_IID"
