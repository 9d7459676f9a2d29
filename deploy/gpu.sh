#!/bin/sh
# The last line of an image's installation: what ONNX Runtime needs of the variant ($1), and nothing it does not.
set -eu
capi=$(python -c 'import importlib.util as u; print(u.find_spec("onnxruntime").submodule_search_locations[0])')/capi
case "$1" in
  cpu)
    # the same wheel runs on the CPU; its two GPU providers are most of its bytes
    rm -f "$capi"/libonnxruntime_providers_cuda.so "$capi"/libonnxruntime_providers_tensorrt.so
    ;;
  cuda)
    # NVIDIA's own wheels hold the CUDA libraries: tell the loader where
    find /opt/venv -type d -path '*/nvidia/*/lib' > /etc/ld.so.conf.d/rankline-cuda.conf
    ldconfig
    if [ ! -f "$capi/libonnxruntime_providers_cuda.so" ]; then
      echo "this ONNX Runtime has no CUDA provider: $capi" >&2
      exit 1
    fi
    # the driver (libcuda) is the host's and comes with the container; everything else has to be here
    absent=$(ldd "$capi"/libonnxruntime_providers_cuda.so | grep 'not found' | grep -v 'libcuda\.so' || true)
    if [ -n "$absent" ]; then
      echo "libraries that ONNX Runtime's CUDA provider needs are absent:" >&2
      echo "$absent" >&2
      exit 1
    fi
    ;;
  *)
    echo "VARIANT is cpu or cuda, not '$1'" >&2
    exit 2
    ;;
esac
