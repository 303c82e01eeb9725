#!/usr/bin/env bash
# Installs what Serenade needs on Debian 12: to build, and for the demo, the tests and the checks if they are named.
# Where all of it is there it does nothing and needs no rights; else it is root or uses sudo.
# Usage: scripts/setup.sh [demo] [test] [check] [--list]     --list only prints the packages that are missing
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

kinds=(build)
list=false
for word in "$@"; do
  case $word in
    demo | test | check) kinds+=("$word") ;;
    --list) list=true ;;
    *)
      echo "usage: setup.sh [demo] [test] [check] [--list]" >&2
      exit 2
      ;;
  esac
done
if $list; then
  missing_packages "${kinds[@]}"
else
  install_missing "${kinds[@]}"
fi
