# Shared by the scripts beside it (sourced, not run): where the tree is, what must be installed, how it is built.
# shellcheck shell=bash
# shellcheck disable=SC2034

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
jobs=$(nproc 2>/dev/null || echo 2)

say() { printf '==> %s\n' "$*" >&2; }
die() {
  printf '%s: %s\n' "$(basename "$0")" "$*" >&2
  exit 1
}

# What each kind of work needs: "how to see that it is there|Debian package". A word beginning with pc: asks pkg-config,
# py: asks python3 for a module, file: looks for a file, any other is a command.
needs_build=(
  "cc|gcc" "file:/usr/include/stdio.h|libc6-dev" "cmake|cmake" "pkg-config|pkg-config" "ninja|ninja-build"
  "pc:sndfile|libsndfile1-dev" "pc:soxr|libsoxr-dev" "pc:hdf5|libhdf5-dev" "pc:yaml-0.1|libyaml-dev"
  "pc:jansson|libjansson-dev" "pc:libxxhash|libxxhash-dev" "pc:cairo|libcairo2-dev" "pc:cmocka|libcmocka-dev"
)
# The CUDA backend is built where there is its compiler, which needs one for C++.
nvcc=$(command -v nvcc || command -v "${CUDA_HOME:-/usr/local/cuda}/bin/nvcc" || true)
[[ -z $nvcc ]] || needs_build+=("c++|g++")
needs_demo=("espeak-ng|espeak-ng" "sox|sox")
needs_test=("clang|clang" "flac|flac")
needs_peers=("python3|python3" "py:ensurepip|python3-venv")
needs_softgpu=( # the software CUDA device that the tests use
  "g++|g++" "python3|python3" "readelf|binutils" "pc:openblas|libopenblas-dev" "pc:fftw3f|libfftw3-dev"
  "pc:libzstd|libzstd-dev"
)
needs_gpu=("python3|python3") # verify_gpu.sh: its judge, and tests
needs_check=("clang-format|clang-format" "shellcheck|shellcheck")

have() {
  case $1 in
    pc:*) command -v pkg-config >/dev/null && pkg-config --exists "${1#pc:}" ;;
    file:*) [[ -e ${1#file:} ]] ;;
    py:*) command -v python3 >/dev/null && python3 -c "import ${1#py:}" 2>/dev/null ;;
    *) command -v "$1" >/dev/null ;;
  esac
}

# Prints the packages that are missing for the given kinds of work.
missing_packages() {
  local kind pair
  for kind in "$@"; do
    local -n list="needs_$kind"
    for pair in "${list[@]}"; do
      have "${pair%%|*}" || printf '%s\n' "${pair#*|}"
    done
  done | sort -u
}

# Installs what is missing for the given kinds of work; does nothing, and needs no rights, where everything is there.
install_missing() {
  local packages sudo=()
  mapfile -t packages < <(missing_packages "$@")
  ((${#packages[@]})) || return 0
  command -v apt-get >/dev/null || die "missing: ${packages[*]} (Debian's names); install them and try again"
  if ((EUID != 0)); then
    command -v sudo >/dev/null || die "missing packages, and no root or sudo to install them: as root, run" \
      "apt-get install --no-install-recommends ${packages[*]}"
    sudo=(sudo env DEBIAN_FRONTEND=noninteractive) # sudo drops what is exported
  fi
  say "installing ${packages[*]}"
  export DEBIAN_FRONTEND=noninteractive
  "${sudo[@]}" apt-get update -qq
  "${sudo[@]}" apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null ||
    die "apt-get could not install ${packages[*]}"
  mapfile -t packages < <(missing_packages "$@")
  ((${#packages[@]} == 0)) || die "still missing after the installation: ${packages[*]}"
}

# Configures (with Ninja where it is) and builds a preset, quietly unless it fails: PRESET [TARGET].
build_preset() {
  local preset=$1 target=${2:-all} log=$root/build/$1.log generator=()
  mkdir -p "$root/build"
  if [[ ! -f $root/build/$preset/CMakeCache.txt ]] && command -v ninja >/dev/null; then generator=(-G Ninja); fi
  say "building $preset"
  if ! (cd "$root" && cmake --preset "$preset" "${generator[@]}" &&
    cmake --build --preset "$preset" --target "$target" -j "$jobs") \
    >"$log" 2>&1; then
    tail -n 60 "$log" >&2
    die "the $preset build failed; all of its output is in build/$preset.log"
  fi
}

# Whether C and CUDA are formatted (--dry-run) or formats them (-i), and whether the scripts are as shellcheck wants
# them.
check_form() {
  say "format"
  (cd "$root" && find host kernels cuda tests \( -name '*.[ch]' -o -name '*.cu' -o -name '*.cuh' \) -print0 |
    xargs -0 clang-format "$1" -Werror &&
    shellcheck -x scripts/*.sh cuda/*.sh tests/e2e/*.sh tests/cuda/*.sh tests/support/*.sh .ci/run)
}

# Makes the environment of pinned peers in build/peers/venv (several GB, from PyPI) unless it is there already.
peers=$root/build/peers
install_peers() {
  local requirements=$root/scripts/peers/requirements.txt
  cmp -s "$requirements" "$peers/installed.txt" && return 0
  say "installing the peers in build/peers/venv"
  mkdir -p "$peers"
  python3 -m venv "$peers/venv"
  "$peers/venv/bin/pip" install --quiet --no-input -r "$requirements"
  cp "$requirements" "$peers/installed.txt"
}
