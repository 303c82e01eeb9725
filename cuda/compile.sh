#!/usr/bin/env bash
# Runs the CUDA compiler and keeps what its assembler tells of each kernel (-Xptxas=-v) beside the object, in OBJECT.log,
# for kernels.sh. All else is passed on.
# Usage: compile.sh LANGUAGE OBJECT COMMAND...
set -uo pipefail
language=$1 log=$2.log
shift 2
[[ $language == CUDA ]] || exec "$@"
"$@" 2> >(tee "$log" | sed -e '/^ptxas info/d' -e '/bytes stack frame/d' >&2)
