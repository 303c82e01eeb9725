#!/usr/bin/env bash
# Registers, shared memory and stack of every kernel, from what the assembler told when they were compiled (compile.sh);
# fails where a kernel spills registers or has a stack, unless stack_kernels.txt names it. The build prints this,
# the test cuda.kernels fails by it. Architectures that are all virtual (80-virtual) are left to the driver, and nothing
# is assembled for them; where any other is among those of the build, that is a failure.
# Usage: kernels.sh FOLDER-OF-OBJECTS ARCHITECTURE...
set -euo pipefail

list=$(dirname "${BASH_SOURCE[0]}")/stack_kernels.txt
real=$(($# < 2))
for architecture in "${@:2}"; do [[ $architecture == *-virtual ]] || real=1; done
mapfile -t logs < <(find "$1" -name '*.cu.o.log' | sort)
((${#logs[@]})) || { echo "no logs of the CUDA compiler in $1"; exit 1; }
demangle="cat"
command -v c++filt >/dev/null && demangle="c++filt -p"
# First one line a kernel and architecture: architecture, registers, shared memory, stack, spilled bytes, name.
awk '
  /Compiling entry function/ { split($0, part, "\047"); entry = part[2]; arch = part[4]; stack = spilled = 0 }
  /bytes stack frame/ { stack += $1; spilled += $5 + $9 } # of functions that it calls, too
  /Used [0-9]+ registers/ {
    shared = 0
    for (i = 2; i <= NF; i++) if ($i ~ /^smem/) shared = $(i - 2)
    for (i = 2; i <= NF; i++) if ($i ~ /^registers/) registers = $(i - 1)
    if (entry != "") print arch, registers, shared, stack, spilled, entry
    entry = ""
  }' "${logs[@]}" | $demangle | sed 's/ void / /; s/([a-z]*)//g; s/, /,/g' | sort -k6 -k1 | awk -v list="$list" -v real="$real" '
  function tell() {
    if (name == "") return
    printf "%-42s %-26s %6d %6d %6d\n", name, registers, shared, stack, spill
    if (bad) { printf "  ^ a stack or spills that stack_kernels.txt does not allow\n"; wrong++ }
  }
  function more(a, b) { return a > b ? a : b }
  BEGIN {
    while ((getline line < list) > 0) if (line !~ /^#/) { split(line, word, " "); allowed[word[1]] = word[2] }
    printf "%-42s %-26s %6s %6s %6s\n", "kernel", "registers by architecture", "shared", "stack", "spill"
  }
  {
    if ($6 != name) {
      tell()
      name = $6
      registers = shared = stack = spill = bad = ""
      plain = name
      sub(/<.*/, "", plain)
    }
    registers = registers $1 ":" $2 " "
    shared = more(shared + 0, $3)
    stack = more(stack + 0, $4)
    spill = more(spill + 0, $5)
    if ($5 > 0 || $4 > allowed[plain] + 0) bad = 1
  }
  END {
    tell()
    if (name == "" && real) print "nothing was assembled, and that was asked for"
    else if (name == "") print "nothing was assembled: this build holds PTX alone"
    exit wrong > 0 || (name == "" && real)
  }'
