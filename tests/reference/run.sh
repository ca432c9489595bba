#!/bin/sh
# Compares chatrex with other runtimes on this machine, without network. Prints a table and writes
# rivals.json beside this file.
#
#     ./run.sh [--shape NAME]... [--repeats N] [--only ort|llama|torch]... [--any-device]
#
# native_rivals.py describes the measurements. Requirements: a Vulkan driver, and Python in the version of
# python/version.txt. PYTHON names the interpreter (default python3), VK_DRIVER_FILES a driver that the
# loader does not find. `./chatrex bench --like chatrex-7b --json bench.json` measures chatrex alone.
set -eu
cd "$(dirname "$0")"
python=${PYTHON:-python3}
wanted=$(cat python/version.txt)
found=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
if [ "$found" != "$wanted" ]; then
  echo "run.sh: $python is Python $found and the packages here need $wanted. Set PYTHON, or" \
    "build the archive with --python $found" >&2
  exit 2
fi
export PYTHONPATH="$PWD/python" PYTHONDONTWRITEBYTECODE=1
if ! ldconfig -p 2>/dev/null | grep -q 'libvulkan\.so\.1 '; then
  export LD_LIBRARY_PATH="$PWD/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
fi
"$python" layer.py --weights layers
exec "$python" native_rivals.py --layers layers --program ./chatrex --llama llama --json rivals.json "$@"
