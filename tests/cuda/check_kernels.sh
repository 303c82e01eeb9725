#!/usr/bin/env bash
# Registers, shared memory and stack of every kernel, from what the assembler told when they were compiled; fails where
# a kernel spills registers or has a stack, unless tests/cuda/stack_kernels.txt names it.
# Usage: check_kernels.sh FOLDER-OF-OBJECTS
set -euo pipefail

list=$(dirname "${BASH_SOURCE[0]}")/stack_kernels.txt
mapfile -t logs < <(find "$1" -name '*.cu.o.log' | sort)
((${#logs[@]})) || { echo "no logs of the CUDA compiler in $1"; exit 1; }
demangle="cat"
command -v c++filt >/dev/null && demangle="c++filt -p"
# One line a kernel and architecture: architecture, registers, shared memory, stack, spilled bytes, name.
awk '
  /Compiling entry function/ { split($0, part, "\047"); entry = part[2]; arch = part[4]; stack = spilled = 0 }
  /bytes stack frame/ { stack += $1; spilled += $5 + $9 } # of functions that it calls, too
  /Used [0-9]+ registers/ {
    shared = 0
    for (i = 2; i <= NF; i++) if ($i ~ /^smem/) shared = $(i - 2)
    for (i = 2; i <= NF; i++) if ($i ~ /^registers/) registers = $(i - 1)
    if (entry != "") print arch, registers, shared, stack, spilled, entry
    entry = ""
  }' "${logs[@]}" | $demangle | sed 's/ void / /; s/([a-z]*)//g; s/, /,/g' | sort -k6 -k1 | awk -v list="$list" '
  BEGIN {
    while ((getline line < list) > 0) if (line !~ /^#/) { split(line, word, " "); allowed[word[1]] = word[2] }
    printf "%-48s %6s %9s %7s %6s %6s\n", "kernel", "arch", "registers", "shared", "stack", "spill"
  }
  {
    printf "%-48s %6s %9d %7d %6d %6d\n", $6, $1, $2, $3, $4, $5
    kernels++
    name = $6
    sub(/<.*/, "", name)
    if ($5 > 0 || $4 > allowed[name] + 0) { printf "  ^ a stack or spills that stack_kernels.txt does not allow\n"; bad++ }
  }
  END {
    if (!kernels) print "nothing was assembled: this build holds PTX alone"
    exit bad > 0
  }'
